//! Single weights, the others of their row making up for them as they go.

use crate::importance::{Scores, Surgery};
use crate::kernel::par;
use crate::kernel::sweep::{self, Feedback, LANES, Pattern, Thinning, Values};
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Mask, Plan, Pruner, Sparsity, Targets};
use crate::{Element, Error, Model, Needs, Parameter, Result};

/// Sets single weights to zero, block of columns by block of columns: of each block those go whose loss costs least
/// after all that the blocks before ask of them, and the columns that follow make up for them.
///
/// The cost is that of the Optimal Brain Surgeon, w² / [H⁻¹]ⱼⱼ over the columns not yet decided; what goes from block to
/// block is kept so that of a layer's n weights floor(n · s) go. With [`n_of_m`](Self::n_of_m) every group of `of`
/// consecutive inputs (channels, at each tap of a convolution) keeps `keep`.
///
/// It reads the scores of [`BrainSurgeon`](crate::importance::BrainSurgeon), which holds the damping and the order of
/// columns; scores of others are an error, and so are those of a layer that was cut since. A plan is a mask: the
/// weights that make up for it are those of the recovery [`SparseGpt`](crate::recover::SparseGpt), or, exactly solved
/// and better, of [`LeastSquares`](crate::recover::LeastSquares).
///
/// Weights that are 0 already count as gone and go first. The first and the last weight of the model are kept unless
/// [`include_ends`](Self::include_ends) or [`set`](Self::set) asks for them. Default block: 128 columns.
///
/// Frantar, Alistarh: `SparseGPT`, massive language models can be accurately pruned in one-shot (2023).
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{BrainSurgeon, Scores};
/// use niwaki::prune::{Pruner, SparseGpt, Sparsity};
/// use niwaki::recover::{self, Recovery, Removal};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder().parameter(Parameter::linear("fc", array![[1.0f64, 2.0, 0.4]])).build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// evidence.record_input("fc", &array![[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 9.0]])?;
/// let scores = Scores::compute(&BrainSurgeon::new().damp(1e-6)?, &model, &evidence)?;
/// let plan = SparseGpt::new(Sparsity::new(0.34)?).include_ends().plan(&model, &scores)?;
/// let pruned = plan.apply(&model)?;
/// // The first input is the second: it goes, though the last weight is smaller.
/// assert_eq!(pruned.parameter("fc")?.values(), [0.0, 2.0, 0.4]);
/// let recovery = recover::SparseGpt::new().damp(1e-6)?;
/// let recovered = recovery.recover(pruned, &Removal::new(&model, &plan, &evidence))?;
/// assert!((recovered.parameter("fc")?.values()[1] - 3.0).abs() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SparseGpt {
    share: Share,
    block: usize,
    pub(crate) targets: Targets,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Share {
    Of(Sparsity),
    NOfM { keep: usize, of: usize },
}

impl SparseGpt {
    /// This fraction of each layer's weights goes.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { share: Share::Of(sparsity), block: 128, targets: Targets::default() }
    }

    /// Keeps `keep` of every `of` consecutive inputs; [`set`](Self::set) then only asks for layers.
    ///
    /// # Errors
    /// Unless 1 ≤ keep ≤ of.
    pub fn n_of_m(keep: usize, of: usize) -> Result<Self> {
        if keep == 0 || keep > of {
            return Err(Error::setting(format!("cannot keep {keep} of every {of} weights")));
        }
        Ok(Self { share: Share::NOfM { keep, of }, ..Self::new(Sparsity::default()) })
    }

    /// Columns among which the weights that go are looked for: at least 1. All that go from one block are chosen before
    /// any of them is made up for, so that a block should be several times narrower than the rows: for rows of a few
    /// hundred columns 8 to 32 serve better than the default.
    ///
    /// # Errors
    /// 0.
    pub fn block(self, block: usize) -> Result<Self> {
        if block == 0 { Err(Error::setting("a block of 0 columns")) } else { Ok(Self { block, ..self }) }
    }

    target_setters!("weight", ends);

    fn mask<F: Element>(
        &self,
        parameter: &Parameter<F>,
        surgery: &Surgery,
        sparsity: Sparsity,
    ) -> Result<Mask> {
        let (rows, of) = (surgery.rows, if let Share::NOfM { of, .. } = self.share { of } else { 1 });
        let inputs = rows.width / parameter.taps().max(1);
        if !inputs.is_multiple_of(of) {
            let (name, shape) = (parameter.name(), parameter.shape());
            return Err(Error::shape(format!(
                "layer `{name}` {shape:?}: SparseGPT by {of}: its {inputs} inputs are not a multiple of {of}"
            )));
        }
        let groups = par::map(surgery.grams.len(), |group| {
            let gram = &surgery.grams[group];
            let order = sweep::order(&gram.diag().to_vec(), surgery.act_order, parameter.taps(), of);
            let feedback = Feedback::damped(gram, &order, surgery.damp)
                .map_or_else(|| Feedback::none(order.len()), |(feedback, _)| feedback);
            let own = rows.of_group(group);
            let chunks = par::map(own.len().div_ceil(LANES), |k| {
                let first = own.start + k * LANES;
                let lanes = LANES.min(own.end - first);
                let mut weights = Vec::with_capacity(lanes * order.len());
                for &column in &order {
                    weights.extend((0..lanes).map(|lane| parameter.values()[rows.at(first + lane, column)]));
                }
                let quota = |cells: usize| sparsity.of(cells);
                let pattern = match self.share {
                    Share::Of(_) => Pattern::Share { quota: &quota, before: first * rows.width },
                    Share::NOfM { keep, of } => Pattern::NOfM { keep, of },
                };
                let thinning = Thinning::new(pattern, &feedback.costs, &weights, lanes);
                let mut values = Values::new(thinning, self.block);
                feedback.sweep(&mut weights, lanes, &mut values);
                (first, lanes, values.thinning.keeps)
            });
            (order, chunks)
        });
        let mut flags = vec![false; parameter.values().len()];
        for (order, chunks) in groups {
            for (first, lanes, keeps) in chunks {
                for (k, keep) in keeps.into_iter().enumerate() {
                    flags[rows.at(first + k % lanes, order[k / lanes])] = !keep.is_zero();
                }
            }
        }
        Ok(Mask::from_fn(parameter.shape(), |k| flags[k]))
    }
}

impl<F: Element> Pruner<F> for SparseGpt {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        let mut masks = Vec::new();
        let default = if let Share::Of(sparsity) = self.share { sparsity } else { Sparsity::default() };
        for (name, sparsity) in self.targets.weights(model, default)? {
            let surgery = scores.layer(name)?.surgery().ok_or_else(|| {
                Error::unsupported(format!(
                    "layer `{name}`: SparseGPT reads scores of the criterion BrainSurgeon, for the layer as it is"
                ))
            })?;
            masks.push((name.to_owned(), self.mask(model.parameter(name)?, surgery, sparsity)?));
        }
        Plan::of(model, Cut { masks, ..Cut::default() })
    }

    fn needs(&self) -> Needs {
        Needs::GRAM
    }

    fn check(&self) -> Result<()> {
        self.targets.check()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array4, Axis};
    use rand::RngExt;

    use super::*;
    use crate::importance::{BrainSurgeon, Magnitude};
    use crate::kernel::seed;
    use crate::prune::{Channel, Then, Unstructured};
    use crate::recover::{self, LeastSquares, Recovery, Removal};
    use crate::{Coupling, ErrorKind, Evidence, Geometry, Parameter};

    fn half() -> Sparsity {
        Sparsity::new(0.5).unwrap()
    }

    fn random(name: &str, rows: usize, columns: usize) -> Array2<f64> {
        let mut random = seed::stream(3, name);
        Array2::from_shape_simple_fn((rows, columns), || random.random::<f64>() - 0.5)
    }

    /// Inputs that depend on each other.
    fn inputs(rows: usize, columns: usize) -> Array2<f64> {
        let few = columns.div_ceil(2);
        random("a", rows, few).dot(&random("b", few, columns)) + random("c", rows, columns) * 0.3
    }

    fn linear(rows: usize, columns: usize) -> (Model<f64>, Evidence<f64>) {
        let model = Model::builder()
            .parameter(Parameter::linear("w", random("w", rows, columns)))
            .parameter(Parameter::bias("bias", ndarray::Array1::zeros(rows), "w"))
            .build()
            .unwrap();
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        evidence.record_input("w", &(inputs(150, columns) + 0.4)).unwrap();
        (model, evidence)
    }

    fn plan(
        pruner: &SparseGpt,
        surgeon: BrainSurgeon,
        model: &Model<f64>,
        evidence: &Evidence<f64>,
    ) -> Result<Plan> {
        pruner.clone().include_ends().plan(model, &Scores::compute(&surgeon, model, evidence)?)
    }

    /// Σ (y − y′)² over rows of inputs.
    fn loss(before: &Model<f64>, after: &Model<f64>, x: &Array2<f64>) -> f64 {
        let output = |model: &Model<f64>| {
            let of = |name: &str| model.parameter(name).unwrap().array().clone();
            let w = of("w").into_dimensionality::<ndarray::Ix2>().unwrap();
            x.dot(&w.t()) + of("bias").into_dimensionality::<ndarray::Ix1>().unwrap()
        };
        (output(before) - output(after)).mapv(|e| e * e).sum()
    }

    #[test]
    fn exactly_the_share_goes_and_the_rest_makes_up_for_it() {
        for (rows, columns, share) in [(300, 70, 0.5), (7, 33, 0.3), (2, 5, 0.9)] {
            let (model, evidence) = linear(rows, columns);
            let sparsity = Sparsity::new(share).unwrap();
            for surgeon in
                [BrainSurgeon::new(), BrainSurgeon::new().act_order(), BrainSurgeon::new().uncentred()]
            {
                for pruner in [SparseGpt::new(sparsity), SparseGpt::new(sparsity).block(16).unwrap()] {
                    let plan = plan(&pruner, surgeon, &model, &evidence).unwrap();
                    let pruned = plan.apply(&model).unwrap();
                    let gone = pruned.parameter("w").unwrap().values().iter().filter(|w| **w == 0.0).count();
                    assert_eq!(gone, sparsity.of(rows * columns));
                }
            }
        }
        let (model, evidence) = linear(20, 40);
        let x = inputs(150, 40) + 0.4;
        let magnitude = Scores::compute(&Magnitude::l1(), &model, &evidence).unwrap();
        let by_size = Unstructured::new(half()).include_ends().plan(&model, &magnitude).unwrap();
        // Blocks narrower than the row: masks of later ones know what earlier ones ask of them.
        let pruner = SparseGpt::new(half()).block(8).unwrap();
        let chosen = plan(&pruner, BrainSurgeon::new(), &model, &evidence).unwrap();
        let recovered = |plan: &Plan, recovery: &dyn Recovery<f64>| {
            let pruned = plan.apply(&model).unwrap();
            loss(&model, &recovery.recover(pruned, &Removal::new(&model, plan, &evidence)).unwrap(), &x)
        };
        let swept = recovered(&chosen, &recover::SparseGpt::new());
        assert!(swept < 0.5 * loss(&model, &chosen.apply(&model).unwrap(), &x));
        assert!(recovered(&chosen, &LeastSquares::new()) < swept);
        assert!(recovered(&chosen, &LeastSquares::new()) < recovered(&by_size, &LeastSquares::new()));
    }

    #[test]
    fn recovery_gives_the_weights_of_the_sweep() {
        let (model, evidence) = linear(6, 20);
        for act_order in [false, true] {
            let (surgeon, recovery) = (BrainSurgeon::new(), recover::SparseGpt::new());
            let (surgeon, recovery) =
                if act_order { (surgeon.act_order(), recovery.act_order()) } else { (surgeon, recovery) };
            let plan = plan(&SparseGpt::new(half()).block(8).unwrap(), surgeon, &model, &evidence).unwrap();
            let removal = Removal::new(&model, &plan, &evidence);
            let recovered = recovery.recover(plan.apply(&model).unwrap(), &removal).unwrap();
            let layer = evidence.layer(&model, "w").unwrap();
            let n = layer.inputs().unwrap().rows() as f64;
            let mean = layer.inputs().unwrap().mean(0);
            let mut h = layer.gram(0).unwrap().clone();
            for ((i, j), x) in h.indexed_iter_mut() {
                *x -= n * mean[i] * mean[j];
            }
            let order = sweep::order(&h.diag().to_vec(), act_order, 1, 1);
            let ridge = 0.01 * h.diag().mean().unwrap();
            h.diag_mut().iter_mut().for_each(|x| *x += ridge);
            let now = recovered.parameter("w").unwrap().array();
            for (row, before) in model.parameter("w").unwrap().array().rows().into_iter().enumerate() {
                // With all later columns free the loss of a column is made up for exactly: H·δ = 0 there.
                let mut left = before.to_owned();
                for (k, &j) in order.iter().enumerate() {
                    let later = &order[k + 1..];
                    if now[[row, j]] == 0.0 && !later.is_empty() {
                        let own = h.select(Axis(0), later).select(Axis(1), later);
                        let right: ndarray::Array1<f64> =
                            later.iter().map(|&i| h[[i, j]] * left[j]).collect();
                        let l = crate::kernel::linalg::cholesky(own).unwrap();
                        let mut moves = right;
                        crate::kernel::linalg::cholesky_solve(&l, &mut moves);
                        later.iter().zip(&moves).for_each(|(&i, m)| left[i] += m);
                    }
                    if now[[row, j]] == 0.0 {
                        left[j] = 0.0;
                    }
                }
                for (j, w) in left.iter().enumerate() {
                    assert!((w - now[[row, j]]).abs() < 1e-9, "{act_order} {row} {j}: {w} {}", now[[row, j]]);
                }
            }
        }
    }

    #[test]
    fn n_of_m_along_inputs() {
        let (model, evidence) = linear(9, 24);
        let two_of_four = SparseGpt::n_of_m(2, 4).unwrap();
        for surgeon in [BrainSurgeon::new(), BrainSurgeon::new().act_order()] {
            let pruned = plan(&two_of_four, surgeon, &model, &evidence).unwrap().apply(&model).unwrap();
            let fours = pruned.parameter("w").unwrap().values().to_vec();
            assert!(fours.chunks(4).all(|four| four.iter().filter(|w| **w == 0.0).count() == 2));
        }
        let error =
            plan(&SparseGpt::n_of_m(2, 5).unwrap(), BrainSurgeon::new(), &model, &evidence).unwrap_err();
        assert!(error.to_string().contains("24 inputs are not a multiple of 5"), "{error}");
        assert!(SparseGpt::n_of_m(0, 4).is_err() && SparseGpt::new(half()).block(0).is_err());
        // Channels at each tap, in each group.
        let w = Array4::from_shape_vec((6, 4, 2, 2), random("c", 6, 16).into_iter().collect()).unwrap();
        let conv =
            Model::builder().parameter(Parameter::conv("w", w, Geometry::new().groups(2))).build().unwrap();
        let mut evidence = Evidence::new(&conv, Needs::GRAM);
        let x = Array4::from_shape_vec((5, 8, 4, 4), inputs(5, 128).into_iter().collect()).unwrap();
        evidence.record_input("w", &x).unwrap();
        let pruned = plan(&two_of_four, BrainSurgeon::new().act_order(), &conv, &evidence).unwrap();
        for lane in pruned.apply(&conv).unwrap().parameter("w").unwrap().array().lanes(Axis(1)) {
            assert_eq!(lane.iter().filter(|w| **w == 0.0).count(), 2);
        }
    }

    #[test]
    fn other_scores_are_an_error_that_names_the_layer() {
        let (model, evidence) = linear(4, 8);
        let scores = Scores::compute(&Magnitude::l1(), &model, &evidence).unwrap();
        let error = SparseGpt::new(half()).include_ends().plan(&model, &scores).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("`w`") && error.to_string().contains("BrainSurgeon"), "{error}");
        let two = Model::<f64>::builder()
            .parameter(Parameter::linear("a", random("w", 6, 4)))
            .parameter(Parameter::linear("b", random("v", 5, 6)))
            .coupling(Coupling::builder("hidden").outputs(["a"]).inputs(["b"]))
            .build()
            .unwrap();
        let mut evidence = Evidence::new(&two, Needs::GRAM);
        evidence.record_input("a", &inputs(20, 4)).unwrap();
        evidence.record_input("b", &inputs(20, 6)).unwrap();
        let scores = Scores::compute(&BrainSurgeon::new(), &two, &evidence).unwrap();
        let both = Then::new(Channel::new(half()), SparseGpt::new(half()).include_ends());
        assert!(both.plan(&two, &scores).unwrap_err().to_string().contains("as it is"));
    }
}
