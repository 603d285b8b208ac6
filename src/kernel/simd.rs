//! Loops in the widest vectors that the machine has, chosen at run time: a plain build knows only those that every
//! machine has.

use fearless_simd::{Level, dispatch};

/// Runs a loop, compiled for each kind of vectors.
///
/// The closure needs `#[inline(always)]`, and so does what it calls, unless that is small: a function that stays one of
/// its own keeps the vectors that every machine has. Answers are the same for all kinds, as the compiler joins no product
/// and sum and changes no order.
#[expect(clippy::inline_always, reason = "the loop has to land in the function that names the instructions")]
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    dispatch!(Level::new(), _simd => work())
}
