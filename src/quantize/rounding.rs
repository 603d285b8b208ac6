//! [`Rounding`]: how weights become codes once their range is known.

use crate::Needs;
use crate::quantize::Gptq;

/// How [`Uniform`](crate::quantize::Uniform) rounds.
///
/// ```
/// use niwaki::quantize::{Bits, Gptq, Rounding, Uniform};
/// let nearest = Uniform::new(Bits::FOUR);
/// assert_eq!(nearest.rounding(Rounding::Nearest), nearest);
/// assert_ne!(nearest.rounding(Gptq::new()), nearest);
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rounding {
    /// Each weight to the nearest code (default).
    #[default]
    Nearest,
    /// One column after another, the error of each made up for by those that follow.
    Gptq(Gptq),
}

impl From<Gptq> for Rounding {
    fn from(gptq: Gptq) -> Self {
        Self::Gptq(gptq)
    }
}

impl Rounding {
    pub(super) fn needs(self) -> Needs {
        match self {
            Self::Nearest => Needs::MOMENTS,
            Self::Gptq(_) => Needs::GRAM,
        }
    }
}
