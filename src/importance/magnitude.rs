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
