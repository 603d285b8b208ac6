//! The stage that does nothing.

/// Stands for a stage that is left out: prunes nothing, recovers nothing, quantizes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nothing;
