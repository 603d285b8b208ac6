//! What a norm penalty brings to zero.

use crate::importance::{Penalty, Scores};
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Mask, Plan, Pruner, Sparsity, Targets};
use crate::{Element, Model, Result};

/// Sets to zero what one proximal step of a [`Penalty`] brings to 0; the rest keeps its values.
///
/// The step: every weight moves by λα towards 0 and stops there (soft threshold); then every output unit's slice
/// of that result shrinks by λ(1 − α) in L2 norm, and falls whole where it has no more. So the strength decides
/// how much goes, not a sparsity; with λ = 0 nothing does. The scores are not read.
///
/// The first and the last weight of the model are kept unless [`include_ends`](Self::include_ends) or
/// [`include`](Self::include) asks for them.
///
/// Simon, Friedman, Hastie, Tibshirani: A sparse-group lasso (2013).
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Penalty, Scores};
/// use niwaki::prune::{Pruner, Shrink};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = array![[3.0f32, -0.5], [0.6, 0.6]];
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let scores = Scores::compute(&Magnitude::l2(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let pruned = |alpha: f64| {
///     let pruner = Shrink::new(Penalty::new(alpha, 1.0)?).include_ends();
///     pruner.plan(&model, &scores)?.apply(&model)
/// };
/// // Single weights up to 1; or units of norm up to 1.
/// assert_eq!(pruned(1.0)?.parameter("fc")?.values(), [3.0, 0.0, 0.0, 0.0]);
/// assert_eq!(pruned(0.0)?.parameter("fc")?.values(), [3.0, -0.5, 0.0, 0.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Shrink {
    penalty: Penalty,
    pub(crate) targets: Targets,
}

impl Shrink {
    /// What this penalty brings to zero goes.
    pub fn new(penalty: Penalty) -> Self {
        Self { penalty, targets: Targets::default() }
    }

    target_setters!("weight", include);
}

impl<F: Element> Pruner<F> for Shrink {
    fn plan(&self, model: &Model<F>, _: &Scores<F>) -> Result<Plan> {
        let (mut masks, mut notes) = (Vec::new(), Vec::new());
        let targets = self.targets.weights(model, Sparsity::default())?;
        for (name, _) in targets.into_iter().filter(|_| self.penalty.lambda() > 0.0) {
            let parameter = model.parameter(name)?;
            let shrunk = self.penalty.proximal(parameter);
            let mask = Mask::from_values(parameter.shape(), shrunk.as_slice().unwrap_or_default(), |_| {
                |w: &F| !w.is_zero()
            });
            if mask.kept() == 0 {
                notes.push(format!("layer `{name}`: all of it falls to 0"));
            }
            masks.push((name.to_owned(), mask));
        }
        Plan::of(model, Cut { masks, notes, ..Cut::default() })
    }

    fn check(&self) -> Result<()> {
        self.targets.check()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::importance::Magnitude;
    use crate::{Evidence, Needs, Parameter};

    fn model() -> Model<f64> {
        Model::builder()
            .parameter(Parameter::linear("first", Array2::from_elem((1, 2), 1e-3)))
            .parameter(Parameter::linear("w", array![[3.0, -1.0], [1.5, 1.5], [0.0, 9.0]]))
            .parameter(Parameter::linear("last", Array2::from_elem((1, 3), 1e-3)))
            .build()
            .unwrap()
    }

    fn plan(pruner: &Shrink) -> Plan {
        let model = model();
        let scores =
            Scores::compute(&Magnitude::l2(), &model, &Evidence::new(&model, Needs::MOMENTS)).unwrap();
        pruner.plan(&model, &scores).unwrap()
    }

    fn shrink(alpha: f64, lambda: f64) -> Shrink {
        Shrink::new(Penalty::new(alpha, lambda).unwrap())
    }

    #[test]
    fn both_parts_decide() {
        let left =
            |pruner: &Shrink| plan(pruner).apply(&model()).unwrap().parameter("w").unwrap().values().to_vec();
        assert_eq!(left(&shrink(0.5, 2.0)), [3.0, 0.0, 0.0, 0.0, 0.0, 9.0]);
        assert_eq!(left(&shrink(1.0, 1.0)), [3.0, 0.0, 1.5, 1.5, 0.0, 9.0]);
        assert_eq!(left(&shrink(0.0, 2.2)), [3.0, -1.0, 0.0, 0.0, 0.0, 9.0]);
    }

    #[test]
    fn ends_are_kept_and_no_strength_shrinks_nothing() {
        let strong = plan(&shrink(1.0, 0.1));
        assert!(strong.weight_mask("first").is_none() && strong.weight_mask("last").is_none());
        let asked = plan(&shrink(1.0, 0.1).include("last"));
        assert_eq!(asked.weight_mask("last").map(Mask::kept), Some(0));
        assert!(asked.to_string().contains("layer `last`: all of it falls to 0"));
        assert!(plan(&shrink(0.3, 0.0).include_ends()).is_empty());
    }
}
