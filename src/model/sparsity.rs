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

    /// How many of `n` go: floor(n · s), where a product that misses the next integer by less than its rounding
    /// error (1e-9, or 4 ulp) counts as that integer. Never all of them.
    pub fn of(self, n: usize) -> usize {
        let product = n as f64 * self.0;
        let count = (product * (1.0 + 4.0 * f64::EPSILON) + 1e-9).floor() as usize;
        count.min(n.saturating_sub(1))
    }
}

impl Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_floors_of_the_fraction_meant() {
        let of = |s: f64, n| Sparsity::new(s).unwrap().of(n);
        assert_eq!((of(0.0, 7), of(0.29, 100), of(0.57, 100), of(0.999, 10)), (0, 29, 57, 9));
        assert_eq!((of(4.0 / 11.0, 11), of(0.1 + 0.2, 10), of(1.0 - f64::EPSILON, 10)), (4, 3, 9));
        assert_eq!((of(0.9, 0), of(0.9, 1)), (0, 0));
        assert_eq!(of(700_000_001.0 / 3_000_000_007.0, 3_000_000_007), 700_000_001);
        assert!((1..1000).all(|n| (0..n).all(|k| of(k as f64 / n as f64, n) == k)));
    }

    #[test]
    fn outside_its_range() {
        for wrong in [-0.1, 1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert!(Sparsity::new(wrong).is_err(), "{wrong}");
        }
        assert!(Sparsity::keeping(0.0).is_err() && Sparsity::keeping(f64::NAN).is_err());
        assert_eq!(Sparsity::keeping(1.0).unwrap(), Sparsity::default());
        assert!(Sparsity::keeping(1e-14).unwrap().removed() < 1.0);
    }
}
