//! [`Sparsity`]: the fraction that goes.

use std::fmt::{self, Display};

use crate::{Error, Result};

/// The fraction removed, in [0, 1). Of n, floor(n · s) go.
///
/// ```
/// use niwaki::prune::Sparsity;
/// # fn main() -> niwaki::Result<()> {
/// assert_eq!(Sparsity::new(0.8)?, Sparsity::keeping(0.2)?);
/// assert_eq!(Sparsity::new(0.5)?.of(9), 4);
/// assert!(Sparsity::new(1.0).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Sparsity(f64);

impl Sparsity {
    /// Removes this fraction.
    ///
    /// # Errors
    /// Not in [0, 1).
    pub fn new(removed: f64) -> Result<Self> {
        if (0.0..1.0).contains(&removed) {
            return Ok(Self(removed));
        }
        Err(Error::setting(format!("sparsity {removed} is outside [0, 1)")))
    }

    /// Keeps this fraction.
    ///
    /// # Errors
    /// Not in (0, 1].
    pub fn keeping(kept: f64) -> Result<Self> {
        if kept > 0.0 && kept <= 1.0 {
            // The complement of a decimal fraction is rarely one: 1 − 0.2 is a hair more than 0.8.
            return Self::new(((1.0 - kept) * 1e12).round() / 1e12).or(Self::new(1.0 - kept));
        }
        Err(Error::setting(format!("kept fraction {kept} is outside (0, 1]")))
    }

    /// The fraction removed.
    pub fn removed(self) -> f64 {
        self.0
    }

    /// How many of `n` go: floor(n · s), where a product within 1e-9 of the next integer counts as that integer.
    pub fn of(self, n: usize) -> usize {
        (n as f64 * self.0 + 1e-9).floor() as usize
    }
}

impl Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
