//! Running statistics as they would be measured again.

use ndarray::Array1;

use crate::kernel::par;
use crate::recover::columns::{Columns, centred};
use crate::recover::{Recovery, Removal};
use crate::{Element, Error, Model, Needs, NormRole, Parameter, Result};

/// Re-estimates the running mean and variance of the batch norm that directly follows a changed weight.
///
/// ```text
/// mean = w · m (+ bias)        var = wᵀ · C · w · n / (n − 1)
/// ```
///
/// where m and C are the mean and covariance of the weight's inputs over the n rows that were recorded (samples
/// times positions), and w its rows as they are now: after [`LeastSquares`](crate::recover::LeastSquares), if that
/// ran before. The variance is the unbiased one, as `PyTorch` keeps it. Statistics of layers that did not change stay.
///
/// The inputs are those of the original network, less what was removed: changes further up are not seen, so it
/// corrects each layer for its own loss only. Needs [`Needs::GRAM`]. No settings.
///
/// Li, Wu, Su, Wang: `EagleEye`: fast sub-net evaluation for efficient neural network pruning (2020), whose adaptive
/// batch normalization this is, from moments in place of forward passes.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Pruner, Sparsity, Unstructured};
/// use niwaki::recover::{BatchNorm, Recovery, Removal};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let tensors = [
///     ("fc.weight".to_owned(), array![[1.0f32, 2.0]].into_dyn()),
///     ("bn.weight".to_owned(), array![1.0].into_dyn()),
///     ("bn.bias".to_owned(), array![0.0].into_dyn()),
///     ("bn.running_mean".to_owned(), array![9.0].into_dyn()),
///     ("bn.running_var".to_owned(), array![9.0].into_dyn()),
/// ];
/// let model = Model::builder().tensors(tensors).batch_norm("bn", "fc.weight").build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// evidence.record_input("fc.weight", &array![[7.0f32, 1.0], [5.0, 2.0], [3.0, 3.0]])?;
/// let scores = Scores::compute(&Magnitude::l2(), &model, &evidence)?;
/// let plan = Unstructured::new(Sparsity::new(0.5)?).include_ends().plan(&model, &scores)?;
/// let pruned = plan.apply(&model)?; // [0, 2] is left: it answers 2, 4, 6
/// let recovered = BatchNorm::new().recover(pruned, &Removal::new(&model, &plan, &evidence))?;
/// assert_eq!(recovered.parameter("bn.running_mean")?.values(), [4.0]);
/// assert_eq!(recovered.parameter("bn.running_var")?.values(), [4.0]);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchNorm;

impl BatchNorm {
    /// The recovery.
    pub fn new() -> Self {
        Self
    }
}

impl<F: Element> Recovery<F> for BatchNorm {
    fn recover(&self, pruned: Model<F>, removal: &Removal<'_, F>) -> Result<Model<F>> {
        let mut model = pruned.clone();
        for columns in &Columns::all(removal, &pruned)? {
            let name = columns.pruned.name();
            let part = |role| pruned.norm_of(name, role);
            let parts = (part(NormRole::Mean), part(NormRole::Variance));
            if parts == (None, None) || !columns.changed() {
                continue;
            }
            let (means, variances) = statistics(removal, &pruned, columns)?;
            for (vector, values) in [(parts.0, means), (parts.1, variances)] {
                let Some(vector) = vector else { continue };
                if vector.values().len() != values.len() {
                    let (len, rows) = (vector.values().len(), values.len());
                    let vector = vector.name();
                    return Err(Error::shape(format!(
                        "`{vector}` has {len} values, but `{name}` has {rows} rows"
                    )));
                }
                let values: Array1<F> = values.into_iter().map(F::narrow).collect();
                model.set_values(vector.name(), values.into_dyn())?;
            }
        }
        Ok(model)
    }

    fn needs(&self) -> Needs {
        Needs::GRAM
    }
}

/// Mean and unbiased variance of each row's output.
fn statistics<F: Element>(
    removal: &Removal<'_, F>,
    pruned: &Model<F>,
    columns: &Columns<'_, F>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (layer, inputs) = columns.evidence(removal)?;
    let bias = pruned.bias_of(columns.pruned.name()).map(Parameter::values);
    let freedom = inputs.rows().saturating_sub(1).max(1) as f64;
    let (mut means, mut variances) = (vec![0.0; columns.rows()], vec![0.0; columns.rows()]);
    for (group, rows) in columns.groups() {
        let mean = inputs.mean(group);
        let spread = centred(layer.gram(group)?, &mean, inputs.rows());
        let of_rows = par::map(rows.len(), |k| {
            let weights = Array1::from(columns.now(rows[k]));
            (weights.dot(&mean), weights.dot(&spread.dot(&weights)).max(0.0) / freedom)
        });
        for (row, (mean, variance)) in rows.into_iter().zip(of_rows) {
            means[row] = mean + bias.and_then(|b| b.get(row)).map_or(0.0, |b| b.widen());
            variances[row] = variance;
        }
    }
    Ok((means, variances))
}
