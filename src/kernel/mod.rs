//! Private loops over contiguous slices. Each is tested against the obvious way to write it.
//!
//! Everything parallel goes through [`par`], whose chunks do not depend on the number of threads.

pub(crate) mod bits;
pub(crate) mod float;
pub(crate) mod gather;
pub(crate) mod half;
pub(crate) mod linalg;
pub(crate) mod minifloat;
pub(crate) mod normal;
pub(crate) mod pack;
pub(crate) mod par;
pub(crate) mod reduce;
pub(crate) mod round;
pub(crate) mod sample;
pub(crate) mod seed;
pub(crate) mod select;
pub(crate) mod simd;
pub(crate) mod sweep;
