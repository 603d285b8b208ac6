//! [`Bits`] and [`GroupSize`]: numbers that cannot be wrong.

use std::fmt::{self, Display};

use crate::{Error, Result};

/// Bits of one code: 1 to 8.
///
/// ```
/// use niwaki::quantize::Bits;
/// # fn main() -> niwaki::Result<()> {
/// assert_eq!(Bits::new(4)?.get(), 4);
/// assert_eq!(Bits::new(9).unwrap_err().to_string(), "9 bits are outside 1 to 8");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(u8);

impl Bits {
    /// Eight bits.
    pub const EIGHT: Self = Self(8);
    /// Four bits.
    pub const FOUR: Self = Self(4);

    /// This many bits.
    ///
    /// # Errors
    /// Not in 1 to 8.
    pub fn new(bits: u32) -> Result<Self> {
        match bits {
            1..=8 => Ok(Self(bits as u8)),
            _ => Err(Error::setting(format!("{bits} bits are outside 1 to 8"))),
        }
    }

    /// How many.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

impl Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Weights that share a scale in [`Scope::Group`](crate::quantize::Scope::Group): at least 1.
///
/// ```
/// use niwaki::quantize::GroupSize;
/// assert_eq!(GroupSize::new(64)?.get(), 64);
/// assert!(GroupSize::new(0).is_err());
/// # Ok::<(), niwaki::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSize(usize);

impl GroupSize {
    /// This many weights.
    ///
    /// # Errors
    /// 0.
    pub fn new(size: usize) -> Result<Self> {
        if size == 0 { Err(Error::setting("a group of 0 weights")) } else { Ok(Self(size)) }
    }

    /// How many.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl Display for GroupSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
