//! The weights that stay are solved again.

use crate::evidence::Inputs;
use crate::kernel::normal::Normal;
use crate::kernel::par;
use crate::recover::columns::{Columns, Constant, centred, dot};
use crate::recover::{Recovery, Removal};
use crate::{Element, Error, Layer, Model, Needs, Result};

/// Solves the weights that stay again, so that each layer answers its inputs as it did with all of them.
///
/// For every row of a weight that lost inputs or single weights, with w the original row, S what stays of it and R
/// the rest,
///
/// ```text
/// min over w′ of ‖X·w − X_S·w′‖² + λ·‖w′ − w_S‖²        (G_SS + λ·I)·(w′ − w_S) = G_SR·w_R
/// ```
///
/// where the Gram matrix G = Xᵀ·X of the calibration inputs is all that is needed. Where the layer has a bias, or a
/// batch norm directly follows, that takes the constant (as [`MeanFold`](crate::recover::MeanFold) does, border of
/// padded convolutions included) and G is taken around the mean; else it is not. Because the ridge pulls towards
/// `w_S`, the error over the calibration inputs is never above that of the weights as they were (with means folded,
/// where they can be); a row for which rounding says otherwise is left as it was.
///
/// λ is [`ridge`](Self::ridge) (default 1e-3) times the mean diagonal of G over the columns that stay, for each
/// group of a convolution. It makes fewer samples than inputs and dead inputs solvable; a matrix that still cannot
/// be factored gets a ridge ten times larger, up to six times. Inputs that are all 0 (or, around the mean, constant)
/// leave the weights as they are.
///
/// A weight that is exactly 0 in the pruned model stays 0. Rows of equal support share one Cholesky factorization,
/// so that for whole units the cost is that of a few matrix products. Under a mask each row has a support of its
/// own, and s of d weights left cost s³/3 multiplications a row; where s³ exceeds about 300·d² (half of more than two
/// thousand inputs left), at most 96 steps of conjugate gradients take its place, which lower the error step by step.
///
/// The solution starts from the weights and bias of the original: what another recovery did to the layer before is
/// replaced. Layers that lost nothing, and embeddings, are left as they are. The inputs are those of the original
/// network: changes further up are not seen, nor positions of an activation that the plan masks. Where a batch norm
/// follows, what is solved varies a little less than before; [`BatchNorm`](crate::recover::BatchNorm) afterwards sets
/// that right.
///
/// Needs [`Needs::GRAM`]. He, Zhang, Sun: Channel pruning for accelerating very deep neural networks (2017), whose
/// reconstruction this is; for single weights Hassibi, Stork: Optimal brain surgeon (1993), all removed at once.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Channel, Pruner, Sparsity};
/// use niwaki::recover::{LeastSquares, Recovery, Removal};
/// use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder()
///     .parameter(Parameter::linear("fc1", array![[1.0f64, 0.0], [2.0, 0.0]]))
///     .parameter(Parameter::linear("fc2", array![[3.0, 1.0]]))
///     .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]))
///     .build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// evidence.record_input("fc2", &array![[1.0, 2.0], [4.0, 8.0]])?; // the second unit is twice the first
/// let scores = Scores::compute(&Magnitude::l2(), &model, &evidence)?;
/// let plan = Channel::new(Sparsity::new(0.5)?).plan(&model, &scores)?;
/// let pruned = plan.apply(&model)?;
/// assert_eq!(pruned.parameter("fc2")?.values(), [3.0]); // the first unit stays
/// let recovery = LeastSquares::new().ridge(1e-9);
/// let recovered = recovery.recover(pruned, &Removal::new(&model, &plan, &evidence))?;
/// assert!((recovered.parameter("fc2")?.values()[0] - 5.0).abs() < 1e-6); // 3·x + 1·2x
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeastSquares {
    ridge: f64,
}

impl Default for LeastSquares {
    fn default() -> Self {
        Self { ridge: 1e-3 }
    }
}

impl LeastSquares {
    /// A ridge of 1e-3.
    pub fn new() -> Self {
        Self::default()
    }

    /// How strongly weights are held where they were, as a multiple of the mean square of an input: finite, at
    /// least 0.
    pub fn ridge(self, ridge: f64) -> Self {
        Self { ridge }
    }

    /// The rows of a layer on the original's columns, around the mean of the inputs or not.
    fn weights<F: Element>(
        self,
        columns: &Columns<'_, F>,
        layer: &Layer<'_, F>,
        inputs: &Inputs,
        around_mean: bool,
    ) -> Result<Vec<Vec<F>>> {
        let groups = columns.groups();
        let of_group = |k: usize| -> Result<Vec<Vec<F>>> {
            let (group, rows) = &groups[k];
            let gram = layer.gram(*group)?;
            let moments =
                if around_mean { centred(gram, &inputs.mean(*group), inputs.rows()) } else { gram.clone() };
            let held = columns.stay().iter().map(|&c| moments[[c, c]]).sum::<f64>();
            let ridge = self.ridge * held / columns.stay().len().max(1) as f64;
            Ok(solve(columns, rows, &Normal { moments, ridge }))
        };
        let solved = par::map(groups.len(), of_group);
        solved.into_iter().collect::<Result<Vec<_>>>().map(|groups| groups.into_iter().flatten().collect())
    }

    fn check_ridge(self) -> Result<()> {
        let ridge = self.ridge;
        if ridge.is_finite() && ridge >= 0.0 {
            return Ok(());
        }
        Err(Error::setting(format!("ridge {ridge} must be finite and at least 0")))
    }
}

impl<F: Element> Recovery<F> for LeastSquares {
    fn recover(&self, pruned: Model<F>, removal: &Removal<'_, F>) -> Result<Model<F>> {
        self.check_ridge()?;
        let mut model = pruned.clone();
        for columns in Columns::all(removal, &pruned)?.iter().filter(|c| c.lost()) {
            let constant = Constant::of(removal, &pruned, columns)?;
            let (layer, inputs) = columns.evidence(removal)?;
            let weights = self.weights(columns, &layer, inputs, constant.is_some())?;
            model.set_values(columns.pruned.name(), columns.array(&weights))?;
            if let Some(constant) = constant {
                let now = |row: usize| weights[row].iter().map(|w: &F| w.widen()).collect();
                constant.put(&mut model, columns, &columns.shortfall(inputs, now))?;
            }
        }
        Ok(model)
    }

    fn needs(&self) -> Needs {
        Needs::GRAM
    }

    fn check(&self) -> Result<()> {
        self.check_ridge()
    }
}

/// Rows of one group on the original's columns, 0 where nothing stays.
fn solve<F: Element>(columns: &Columns<'_, F>, rows: &[usize], normal: &Normal) -> Vec<Vec<F>> {
    let d = columns.width();
    let before: Vec<f64> = rows.iter().flat_map(|&row| columns.before(row)).collect();
    let free: Vec<bool> =
        rows.iter().flat_map(|&row| columns.now(row).into_iter().map(|w| w != 0.0)).collect();
    let lost: Vec<f64> = before.iter().zip(&free).map(|(&w, &free)| if free { 0.0 } else { w }).collect();
    let rights = normal.product(&lost);
    let solution = normal.solve(&rights, &free);
    // What is judged is what is stored: weights after rounding to the element type.
    let narrowed: Vec<F> = (0..before.len())
        .map(|k| if free[k] { F::narrow(before[k] + solution[k]) } else { F::zero() })
        .collect();
    let moved: Vec<f64> =
        (0..before.len()).map(|k| if free[k] { narrowed[k].widen() - before[k] } else { 0.0 }).collect();
    let products = normal.product(&moved);
    let row = |k: usize| {
        let at = k * d..(k + 1) * d;
        // (δ − e)ᵀ·C·(δ − e) − eᵀ·C·e
        let gain = dot(&moved[at.clone()], &products[at.clone()])
            - 2.0 * dot(&moved[at.clone()], &rights[at.clone()]);
        if gain < 0.0 {
            return narrowed[at].to_vec();
        }
        at.map(|k| if free[k] { F::narrow(before[k]) } else { F::zero() }).collect()
    };
    (0..rows.len()).map(row).collect()
}
