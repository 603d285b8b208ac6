//! The weights that stay make up for those that went, column by column.

use ndarray::Array2;

use crate::kernel::par;
use crate::kernel::sweep::{self, Feedback, LANES, Thinning, Values};
use crate::recover::columns::{Columns, Constant, centred};
use crate::recover::{Recovery, Removal};
use crate::{Element, Model, Needs, Result};

/// Gives the weights that stay the values that `SparseGPT` gives them: columns are gone through in order, and what the
/// loss of a weight does to its row's output is made up for by the columns that follow.
///
/// Starts from the original weights; a weight that is exactly 0 in the pruned model stays 0, and inputs that are gone
/// count as weights that went. Where the layer has a bias, or a batch norm directly follows, that takes the constant and
/// the Gram matrix is taken around the mean, as [`LeastSquares`](crate::recover::LeastSquares) does;
/// [`uncentred`](Self::uncentred) says otherwise. With the settings of the
/// [`BrainSurgeon`](crate::importance::BrainSurgeon) whose scores [`prune::SparseGpt`](crate::prune::SparseGpt) read,
/// these are the weights under which that chose what goes.
///
/// It costs one factorization for all rows, where `LeastSquares` needs one for each row of a mask; the latter also
/// lets columns make up for those that come after them, and leaves less error. Layers that lost nothing, and embeddings,
/// are left as they are. Defaults: damp 0.01, columns in their order. Needs [`Needs::GRAM`].
///
/// Frantar, Alistarh: `SparseGPT`, massive language models can be accurately pruned in one-shot (2023). There is an
/// example at [`prune::SparseGpt`](crate::prune::SparseGpt).
///
/// ```
/// use niwaki::recover::SparseGpt;
/// assert!(SparseGpt::new().damp(0.1).is_ok());
/// assert!(SparseGpt::new().damp(-1.0).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparseGpt {
    damp: f64,
    uncentred: bool,
    act_order: bool,
}

impl Default for SparseGpt {
    fn default() -> Self {
        Self { damp: 0.01, uncentred: false, act_order: false }
    }
}

impl SparseGpt {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much of the mean diagonal of the Gram matrix is added to each entry of its diagonal: above 0 and finite.
    ///
    /// # Errors
    /// Not above 0, or not finite.
    pub fn damp(self, damp: f64) -> Result<Self> {
        Ok(Self { damp: sweep::damping(damp)?, ..self })
    }

    /// The Gram matrix as it is, and the bias too.
    pub fn uncentred(self) -> Self {
        Self { uncentred: true, ..self }
    }

    /// Columns in falling order of the mean square of their inputs.
    pub fn act_order(self) -> Self {
        Self { act_order: true, ..self }
    }

    /// Some rows of one group on the original's columns.
    fn rows<F: Element>(self, columns: &Columns<'_, F>, rows: &[usize], gram: &Array2<f64>) -> Vec<Vec<F>> {
        let order = sweep::order(&gram.diag().to_vec(), self.act_order, 1, 1);
        let feedback = Feedback::damped(gram, &order, self.damp)
            .map_or_else(|| Feedback::none(order.len()), |(feedback, _)| feedback);
        let chunks = par::map_chunks(rows, LANES, |_, rows| {
            let before: Vec<Vec<f64>> = rows.iter().map(|&row| columns.before(row)).collect();
            let now: Vec<Vec<f64>> = rows.iter().map(|&row| columns.now(row)).collect();
            let (mut weights, mut keeps) = (Vec::new(), Vec::new());
            for &column in &order {
                weights.extend(before.iter().map(|row| F::narrow(row[column])));
                keeps.extend(now.iter().map(|row| if row[column] == 0.0 { F::zero() } else { F::one() }));
            }
            let mut values = Values::new(Thinning::known(keeps, rows.len()), 0);
            feedback.sweep(&mut weights, rows.len(), &mut values);
            let mut swept = vec![vec![F::zero(); order.len()]; rows.len()];
            for (&column, values) in order.iter().zip(values.chosen.chunks(rows.len())) {
                swept.iter_mut().zip(values).for_each(|(row, &value)| row[column] = value);
            }
            swept
        });
        chunks.into_iter().flatten().collect()
    }
}

impl<F: Element> Recovery<F> for SparseGpt {
    fn recover(&self, pruned: Model<F>, removal: &Removal<'_, F>) -> Result<Model<F>> {
        let mut model = pruned.clone();
        for columns in Columns::all(removal, &pruned)?.iter().filter(|c| c.lost()) {
            let constant = if self.uncentred { None } else { Constant::of(removal, &pruned, columns)? };
            let (layer, inputs) = columns.evidence(removal)?;
            let groups = columns.groups();
            let of_group = |k: usize| -> Result<Vec<Vec<F>>> {
                let (group, rows) = &groups[k];
                let gram = layer.gram(*group)?;
                if constant.is_none() {
                    return Ok(self.rows(columns, rows, gram));
                }
                Ok(self.rows(columns, rows, &centred(gram, &inputs.mean(*group), inputs.rows())))
            };
            let weights: Vec<Vec<Vec<F>>> =
                par::map(groups.len(), of_group).into_iter().collect::<Result<_>>()?;
            let weights: Vec<Vec<F>> = weights.into_iter().flatten().collect();
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
}
