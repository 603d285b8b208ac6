//! Norm penalties on weights: how much they weigh, and the step that lowers them.

use ndarray::ArrayD;

use crate::importance::{Norm, unit_norms};
use crate::kernel::reduce;
use crate::{Element, Error, Parameter, Result};

/// λ·(α·‖w‖₁ + (1 − α)·Σ ‖u‖₂), the sum going over the output units u, each with all its weights.
///
/// α = 1 is the lasso, which zeroes single weights; α = 0 the group lasso, which zeroes whole units; between them
/// the sparse group lasso. All gates' rows of a recurrent unit are one group. With λ = 0 the measure is the count of
/// weights that are not 0 (L0), and nothing is shrunk.
///
/// Simon, Friedman, Hastie, Tibshirani: A sparse-group lasso (2013), without its weights for group sizes.
///
/// ```
/// use ndarray::array;
/// use niwaki::Parameter;
/// use niwaki::importance::Penalty;
///
/// # fn main() -> niwaki::Result<()> {
/// let parameter = Parameter::linear("fc", array![[3.0f64, -4.0], [0.5, 0.0]]);
/// assert_eq!(Penalty::new(1.0, 2.0)?.measure(&parameter), 2.0 * 7.5);
/// assert_eq!(Penalty::new(0.0, 2.0)?.measure(&parameter), 2.0 * (5.0 + 0.5));
/// assert_eq!(Penalty::new(0.0, 0.0)?.measure(&parameter), 3.0);
/// assert_eq!(Penalty::new(1.0, 1.0)?.proximal(&parameter), array![[2.0, -3.0], [0.0, 0.0]].into_dyn());
/// assert!(Penalty::new(1.5, 1.0).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    alpha: f64,
    lambda: f64,
}

impl Penalty {
    /// The share `alpha` of the L1 norm, and the strength `lambda` in units of a weight.
    ///
    /// # Errors
    /// `alpha` is outside [0, 1], or `lambda` is negative or not finite.
    pub fn new(alpha: f64, lambda: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Error::setting(format!("`alpha` {alpha} is outside [0, 1]")));
        }
        if !(0.0..f64::INFINITY).contains(&lambda) {
            return Err(Error::setting(format!("`lambda` {lambda} is not a finite number of at least 0")));
        }
        Ok(Self { alpha, lambda })
    }

    /// The share of the L1 norm.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// The strength.
    pub fn lambda(&self) -> f64 {
        self.lambda
    }

    /// The penalty of one parameter; with λ = 0 the count of weights that are not 0.
    pub fn measure<F: Element>(&self, parameter: &Parameter<F>) -> f64 {
        let values = parameter.values();
        if self.lambda <= 0.0 {
            return values.iter().filter(|w| !w.is_zero()).count() as f64;
        }
        let groups: f64 = unit_norms(parameter, values, Norm::L2).iter().sum();
        self.lambda * (self.alpha * reduce::abs_sum(values) + (1.0 - self.alpha) * groups)
    }

    /// The proximal step, the v that minimizes ½·‖v − w‖² + penalty(v), of the parameter's shape.
    ///
    /// In this order: each weight moves by λ·α towards 0 and stops there (soft threshold), then each unit's slice is
    /// multiplied by max(0, 1 − λ·(1 − α) / ‖·‖₂) of what that left (group shrink). What falls to 0 is exactly 0.
    pub fn proximal<F: Element>(&self, parameter: &Parameter<F>) -> ArrayD<F> {
        let mut array = parameter.array().clone();
        if self.lambda <= 0.0 {
            return array;
        }
        let threshold = F::narrow(self.lambda * self.alpha);
        array.mapv_inplace(|w| soft_threshold(w, threshold));
        let norms = unit_norms(parameter, array.as_slice().unwrap_or_default(), Norm::L2);
        let pull = self.lambda * (1.0 - self.alpha);
        let shrink = |norm: &f64| if *norm > pull { F::narrow(1.0 - pull / norm) } else { F::zero() };
        let factors: Vec<F> = norms.iter().map(shrink).collect();
        let inner = parameter.shape().iter().skip(parameter.out_axis() + 1).product::<usize>().max(1);
        let rows = parameter.shape().get(parameter.out_axis()).copied().unwrap_or(1).max(1);
        let values = array.as_slice_mut().unwrap_or_default();
        for (row, run) in values.chunks_mut(inner).enumerate() {
            let Some(&factor) = factors.get(row % rows % factors.len().max(1)) else { continue };
            // A −0 would not be the zero that masks and counts look for.
            for w in run {
                *w = *w * factor + F::zero();
            }
        }
        array
    }
}

fn soft_threshold<F: Element>(w: F, threshold: F) -> F {
    if w > threshold {
        w - threshold
    } else if w < -threshold {
        w + threshold
    } else {
        F::zero()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;
    use crate::{ErrorKind, Geometry};

    #[test]
    fn soft_threshold_comes_before_the_group() {
        // (3, 5) − 1 = (2, 4)… of norm √20; the second unit falls whole.
        let parameter = Parameter::linear("fc", array![[3.0f64, -5.0], [1.5, -1.0]]);
        let shrunk = Penalty::new(0.5, 2.0).unwrap().proximal(&parameter);
        let factor = 1.0 - 1.0 / 20f64.sqrt();
        assert_eq!(shrunk, array![[2.0 * factor, -4.0 * factor], [0.0, 0.0]].into_dyn());
        assert!(shrunk.iter().all(|w| *w != 0.0 || w.is_sign_positive()));
    }

    #[test]
    fn no_neighbour_is_better_than_the_step() {
        let weights = Array3::from_shape_fn((3, 2, 4), |(i, j, k)| {
            ((i * 31 + j * 17 + k * 7) % 23) as f64 / 10.0 - 1.1
        });
        for (alpha, lambda) in [(0.0, 0.7), (0.3, 0.5), (1.0, 0.4), (0.6, 3.0)] {
            let penalty = Penalty::new(alpha, lambda).unwrap();
            let parameter = Parameter::conv("c", weights.clone(), Geometry::new());
            let best = penalty.proximal(&parameter);
            let cost = |v: &ArrayD<f64>| {
                let distance = (v - &weights.clone().into_dyn()).mapv(|d| d * d).sum();
                0.5 * distance + penalty.measure(&parameter.with_array(v.clone()))
            };
            let least = cost(&best);
            for at in 0..24 {
                for step in [1e-3, -1e-3, 0.05, -0.05] {
                    let mut other = best.clone();
                    other.as_slice_mut().unwrap()[at] += step;
                    assert!(cost(&other) > least, "{alpha} {lambda} {at}");
                }
            }
            for factor in [0.9, 0.999, 1.001, 1.1] {
                assert!(cost(&(&best * factor)) >= least);
            }
        }
    }

    #[test]
    fn groups_are_output_units_on_any_axis() {
        let penalty = Penalty::new(0.0, 1.0).unwrap();
        let exchanged = Parameter::linear("fc", array![[3.0f64, 0.1], [4.0, 0.1]]).axes(1, 0);
        assert_eq!(penalty.proximal(&exchanged), array![[3.0 * 0.8, 0.0], [4.0 * 0.8, 0.0]].into_dyn());
        assert!((penalty.measure(&exchanged) - 5.0 - 0.02f64.sqrt()).abs() < 1e-12);
        let cell = Parameter::recurrent("r", array![[3.0f64], [0.1], [4.0], [0.1]], 2);
        assert_eq!(penalty.proximal(&cell), array![[3.0 * 0.8], [0.0], [4.0 * 0.8], [0.0]].into_dyn());
    }

    #[test]
    fn without_strength_it_counts_and_keeps() {
        let parameter = Parameter::linear("fc", array![[0.0f32, -1e-20, 2.0]]);
        let penalty = Penalty::new(0.3, 0.0).unwrap();
        assert_eq!(penalty.measure(&parameter), 2.0);
        assert_eq!(penalty.proximal(&parameter), *parameter.array());
    }

    #[test]
    fn wrong_settings_name_the_value() {
        for (alpha, lambda, value) in [
            (-0.1, 1.0, "-0.1"),
            (f64::NAN, 1.0, "NaN"),
            (0.5, -2.0, "-2"),
            (0.5, f64::INFINITY, "inf"),
            (0.5, f64::NAN, "NaN"),
        ] {
            let error = Penalty::new(alpha, lambda).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting);
            assert!(error.to_string().contains(value));
        }
        assert_eq!(
            (Penalty::new(0.5, 2.0).unwrap().alpha(), Penalty::new(0.5, 2.0).unwrap().lambda()),
            (0.5, 2.0)
        );
    }
}
