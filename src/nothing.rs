//! The stage that does nothing.

/// Stands for a stage that is left out: prunes nothing, recovers nothing, quantizes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it will never hold anything, and is written as a value")]
pub struct Nothing;
