//! The mean of what is gone becomes a constant.

use crate::recover::columns::{Columns, Constant};
use crate::recover::{Recovery, Removal};
use crate::{Element, Error, Model, Result};

/// Folds the mean of what was removed into the next bias: b += W[:, gone] · mean(gone).
///
/// Every row of a layer that lost inputs or weights gets back the mean of what they gave it, so that its mean
/// output over the calibration inputs is what it was. That goes into the layer's bias, or, where it has none, out
/// of the running mean of the batch norm that directly follows. Bias or mean become those of the original plus
/// the constant for the weights as they are now, so doing it twice does no more.
///
/// For a removed unit that never changes (σ = 0) this is exact, except at the border of a padded convolution: a
/// column's mean counts the zeros of the padding, so the constant is right for the average position. The inputs
/// are those of the original network: changes further up are not seen, nor positions of an activation that the plan
/// masks.
///
/// Only the mean comes back, not the variance. Where a batch norm follows and units that vary went, its running
/// variance is then too large, and folding alone can do harm:
/// [`BatchNorm`](crate::recover::BatchNorm) afterwards sets it right, and
/// [`LeastSquares`](crate::recover::LeastSquares) gives back most of the variance too.
///
/// A layer that lost something, whole inputs or single weights, needs moments of its inputs, and a bias or a batch
/// norm; embeddings are left as they are. No settings.
///
/// Ye, Lu, Lin, Wang: Rethinking the smaller-norm-less-informative assumption in channel pruning (2018), who so
/// absorb channels that have become constant.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Channel, Pruner, Sparsity};
/// use niwaki::recover::{MeanFold, Recovery, Removal};
/// use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder()
///     .parameter(Parameter::linear("fc1", array![[0.0f32, 0.5], [5.0, 5.0]]))
///     .parameter(Parameter::linear("fc2", array![[3.0, 1.0]]))
///     .parameter(Parameter::bias("fc2.bias", array![0.25], "fc2"))
///     .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]))
///     .build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_input("fc2", &array![[0.5f32, 5.0], [0.5, 10.0]])?; // the first unit is always 0.5
/// let scores = Scores::compute(&Magnitude::l2(), &model, &evidence)?;
/// let plan = Channel::new(Sparsity::new(0.5)?).plan(&model, &scores)?;
/// let pruned = plan.apply(&model)?;
/// let recovered = MeanFold::new().recover(pruned, &Removal::new(&model, &plan, &evidence))?;
/// assert_eq!(recovered.parameter("fc2.bias")?.values(), [0.25 + 3.0 * 0.5]);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeanFold;

impl MeanFold {
    /// The recovery.
    pub fn new() -> Self {
        Self
    }
}

impl<F: Element> Recovery<F> for MeanFold {
    fn recover(&self, pruned: Model<F>, removal: &Removal<'_, F>) -> Result<Model<F>> {
        let mut model = pruned.clone();
        for columns in Columns::all(removal, &pruned)?.iter().filter(|c| c.lost()) {
            let (_, inputs) = columns.evidence(removal)?;
            let constant = Constant::of(removal, &pruned, columns)?.ok_or_else(|| {
                Error::unsupported(format!(
                    "layer `{}`: it has neither a bias nor a batch norm to fold means into",
                    columns.pruned.name()
                ))
            })?;
            let added = columns.shortfall(inputs, |row| columns.now(row));
            constant.put(&mut model, columns, &added)?;
        }
        Ok(model)
    }
}
