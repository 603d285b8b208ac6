//! What training did to a weight between two snapshots.

use ndarray::ArrayD;

use crate::importance::{Importance, Norm, Score};
use crate::{Element, Layer, Result};

/// Compares the weights W1 with an earlier snapshot W0; ΔW = W1 − W0.
///
/// | made by | a single weight's score | a unit's | also needs |
/// |---|---|---|---|
/// | [`update`](Self::update) (default) | \|ΔW\| | L2 norm | |
/// | [`movement`](Self::movement) | ΔW·W1 | sum | |
/// | [`growth`](Self::growth) | \|W1\| − \|W0\| | sum | |
/// | [`curvature`](Self::curvature) | ½·h·W1², h = max(0, (g1 − g0) / ΔW) | L2 norm | gradients g0 and g1 |
///
/// Scores may be negative; pruners rank them as they are. W0 comes from
/// [`Evidence::record_snapshot`](crate::Evidence::record_snapshot), which rejects a model of other names or shapes;
/// without it, or without the gradients, the error names the layer and what is missing.
///
/// In `curvature` the secant h is 0 where |ΔW| ≤ 16·ε·max(|W0|, |W1|), ε being the element's machine epsilon: such a
/// step is mostly rounding.
///
/// Sanh, Wolf, Rush: Movement pruning (2020) for `movement`; Le Cun, Denker, Solla: Optimal brain damage (1989) for
/// `curvature`, with the secant in place of the Hessian's diagonal.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{GradientCompare, Importance};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let at = |w| Model::builder().parameter(Parameter::linear("fc", w)).build();
/// let (earlier, model) = (at(array![[2.0f32, -1.0]])?, at(array![[1.0, -3.0]])?);
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_snapshot(&earlier)?;
/// let layer = evidence.layer(&model, "fc")?;
/// let weights = |c: GradientCompare| c.score(&layer).map(|s| s.per_weight(layer.parameter()));
/// assert_eq!(weights(GradientCompare::update())?, array![[1.0, 2.0]].into_dyn());
/// assert_eq!(weights(GradientCompare::movement())?, array![[-1.0, 6.0]].into_dyn());
/// assert_eq!(weights(GradientCompare::growth())?, array![[-1.0, 2.0]].into_dyn());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GradientCompare {
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Update,
    Movement,
    Growth,
    Curvature,
}

impl GradientCompare {
    /// |ΔW|: what still moves matters.
    pub fn update() -> Self {
        Self { mode: Mode::Update }
    }

    /// ΔW·W1: positive for a weight that moves away from 0.
    pub fn movement() -> Self {
        Self { mode: Mode::Movement }
    }

    /// |W1| − |W0|: how much larger a weight became.
    pub fn growth() -> Self {
        Self { mode: Mode::Growth }
    }

    /// ½·h·W1²: what the loss would rise by without the weight, to second order.
    pub fn curvature() -> Self {
        Self { mode: Mode::Curvature }
    }
}

impl<F: Element> Importance<F> for GradientCompare {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let (old, new) = (layer.snapshot()?, layer.parameter().array());
        // Adding 0 turns a −0 into 0, which would rank below it.
        let (scores, norm) = match self.mode {
            Mode::Update => (of_pairs(old, new, |a, b| (b - a).abs()), Norm::L2),
            Mode::Movement => (of_pairs(old, new, |a, b| (b - a) * b + F::zero()), Norm::Sum),
            Mode::Growth => (of_pairs(old, new, |a, b| b.abs() - a.abs()), Norm::Sum),
            Mode::Curvature => {
                let (before, after) = (layer.snapshot_gradient()?, layer.gradient()?);
                let slopes = of_pairs(&before, &after, |a, b| b - a);
                let steps = of_pairs(old, new, relative_step);
                // w·(w/ΔW)·Δg: the quotient is bounded, so that nothing overflows on the way.
                let costs = of_pairs(&steps, new, |step, w| step * w);
                (of_pairs(&slopes, &costs, |slope, cost| half_positive(slope * cost)), Norm::L2)
            }
        };
        Ok(Score::elements(scores).norm(norm))
    }
}

/// W1 / ΔW, 0 where ΔW is mostly rounding.
fn relative_step<F: Element>(old: F, new: F) -> F {
    let step = new - old;
    let rounding = F::narrow(16.0) * F::epsilon() * old.abs().max(new.abs());
    if step.abs() > rounding { new / step } else { F::zero() }
}

fn half_positive<F: Element>(x: F) -> F {
    if x > F::zero() { x / F::narrow(2.0) } else { F::zero() }
}

/// `f` of two arrays of one shape, element by element.
fn of_pairs<F: Element>(a: &ArrayD<F>, b: &ArrayD<F>, f: impl Fn(F, F) -> F) -> ArrayD<F> {
    ndarray::Zip::from(a).and(b).map_collect(|&a, &b| f(a, b))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::{ErrorKind, Evidence, Model, Needs, Parameter};

    fn model(weights: &Array2<f32>) -> Model<f32> {
        Model::builder().parameter(Parameter::linear("fc", weights.clone())).build().unwrap()
    }

    #[test]
    fn units_keep_the_sign_where_scores_have_one() {
        let (old, new) = (model(&array![[1.0, 2.0], [0.0, 0.0]]), model(&array![[0.5, 3.0], [3.0, -4.0]]));
        let mut evidence = Evidence::new(&new, Needs::MOMENTS);
        evidence.record_snapshot(&old).unwrap();
        let layer = evidence.layer(&new, "fc").unwrap();
        let units = |c: GradientCompare| c.score(&layer).unwrap().per_unit(layer.parameter()).to_vec();
        assert_eq!(units(GradientCompare::default()), [1.25f64.sqrt(), 5.0]);
        assert_eq!(units(GradientCompare::movement()), [-0.25 + 3.0, 25.0]);
        assert_eq!(units(GradientCompare::growth()), [0.5, 7.0]);
    }

    #[test]
    fn curvature_finds_the_hessian_of_a_quadratic() {
        // Loss ½·Σ a·w², so g = a·w and the secant is a; the third one is concave, the fourth did not move.
        let a = array![[3.0f32, 0.5, -2.0, 7.0]];
        let (w0, w1) = (array![[1.0f32, -2.0, 1.0, 4.0]], array![[2.0f32, -1.0, 3.0, 4.0]]);
        let (old, new) = (model(&w0), model(&w1));
        let mut evidence = Evidence::new(&new, Needs::MOMENTS);
        evidence.record_snapshot(&old).unwrap();
        evidence.record_snapshot_gradient("fc", &(&a * &w0)).unwrap();
        evidence.record_gradient("fc", &(&a * &w1)).unwrap();
        let layer = evidence.layer(&new, "fc").unwrap();
        let score = GradientCompare::curvature().score(&layer).unwrap();
        let each = score.per_weight(layer.parameter());
        assert_eq!(each, array![[0.5 * 3.0 * 4.0, 0.5 * 0.5, 0.0, 0.0]].into_dyn());
        assert!(each.iter().all(|x| x.is_sign_positive()));
    }

    #[test]
    fn steps_of_rounding_size_say_nothing() {
        assert_eq!(relative_step(1.0f32, 1.0 + f32::EPSILON), 0.0);
        assert_eq!(relative_step(1.0f32, 1.0 + 32.0 * f32::EPSILON), 1.0 / (32.0 * f32::EPSILON) + 1.0);
        assert_eq!(relative_step(0.0f32, 0.0), 0.0);
        assert_eq!(relative_step(0.0f32, 1e-40), 1.0);
    }

    #[test]
    fn names_what_is_missing() {
        let new = model(&array![[1.0]]);
        let mut evidence = Evidence::new(&new, Needs::MOMENTS);
        let error = |evidence: &Evidence<f32>| {
            let layer = evidence.layer(&new, "fc").unwrap();
            let error = GradientCompare::curvature().score(&layer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MissingEvidence);
            assert!(error.to_string().contains("`fc`"));
            error.to_string()
        };
        assert!(error(&evidence).contains("snapshots"));
        evidence.record_snapshot(&new).unwrap();
        assert!(error(&evidence).contains("gradients at the snapshot"));
        evidence.record_snapshot_gradient("fc", &array![[1.0]]).unwrap();
        assert!(error(&evidence).contains("gradients (Evidence::record_gradient)"));
    }
}
