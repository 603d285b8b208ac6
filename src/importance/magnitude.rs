//! The size of the weights themselves.

use crate::importance::{Importance, Norm, Score};
use crate::{Element, Layer, Result};

/// |w| for a weight, a norm of its weights for a unit. Needs no evidence. Default: L2.
///
/// Han, Pool, Tran, Dally: Learning both weights and connections (2015) for single weights; Li, Kadav,
/// Durdanovic, Samet, Graf: Pruning filters for efficient convnets (2017) for the L1 norm of filters.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Importance, Magnitude};
/// use niwaki::{Layer, Parameter};
///
/// let parameter = Parameter::linear("fc", array![[3.0f32, -4.0], [1.0, 0.0]]);
/// let layer = Layer::new(&parameter);
/// let unit = |m: Magnitude| m.score(&layer).map(|s| s.per_unit(&parameter).to_vec());
/// assert_eq!(unit(Magnitude::l2())?, [5.0, 1.0]);
/// assert_eq!(unit(Magnitude::l1())?, [7.0, 1.0]);
/// assert_eq!(unit(Magnitude::l_inf())?, [4.0, 1.0]);
/// assert_eq!(unit(Magnitude::l0())?, [2.0, 1.0]);
/// # Ok::<(), niwaki::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Magnitude {
    norm: Norm,
}

impl Magnitude {
    /// L2 norms: √Σw².
    pub fn l2() -> Self {
        Self { norm: Norm::L2 }
    }

    /// L1 norms: Σ|w|.
    pub fn l1() -> Self {
        Self { norm: Norm::L1 }
    }

    /// L∞ norms: max|w|.
    pub fn l_inf() -> Self {
        Self { norm: Norm::Max }
    }

    /// L0 "norms": how many weights of a unit are not 0.
    pub fn l0() -> Self {
        Self { norm: Norm::L0 }
    }
}

impl<F: Element> Importance<F> for Magnitude {
    fn score(&self, _: &Layer<'_, F>) -> Result<Score<F>> {
        Ok(Score::magnitude(self.norm))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, Array4, ArrayD, Ix4};

    use super::*;
    use crate::{Geometry, Parameter};

    fn units<D: ndarray::Dimension>(weights: ndarray::Array<f32, D>, magnitude: Magnitude) -> Vec<f64> {
        let parameter = Parameter::conv("conv", weights, Geometry::new());
        magnitude.score(&Layer::new(&parameter)).unwrap().per_unit(&parameter).to_vec()
    }

    /// openvinotoolkit/nncf 2.14, `tests/torch/pruning/filter_pruning/test_functions.py`: filters of 0, 1, … 119.
    #[test]
    fn filters_as_in_nncf() {
        let weights = ArrayD::from_shape_vec(vec![2, 3, 4, 5], (0u8..120).map(f32::from).collect()).unwrap();
        let weights = weights.into_dimensionality::<Ix4>().unwrap();
        assert_eq!(units(weights.clone(), Magnitude::l1()), [1770.0, 5370.0]);
        let l2 = units(weights, Magnitude::l2());
        assert!((l2[0] - 264.971_696_6).abs() < 1e-5 && (l2[1] - 706.123_218_71).abs() < 1e-5);
    }

    /// microsoft/nni, `test_compressor_torch.py` `test_torch_l1filter_pruner` (filters of one value each) and
    /// `test_pruning_tools_torch.py` `test_metrics_calculator`.
    #[test]
    fn filters_as_in_nni() {
        let conv = Array4::from_shape_fn((5, 1, 5, 5), |(i, ..)| i as f32);
        assert_eq!(units(conv, Magnitude::l1()), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(units(Array3::ones((3, 3, 3)), Magnitude::l2()), [3.0; 3]);
        assert_eq!(units(Array2::from_elem((4, 4), 2.0), Magnitude::l2()), [4.0; 4]);
    }
}
