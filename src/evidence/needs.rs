//! What to keep.

use std::ops::BitOr;

/// Which statistics to keep. Moments of outputs and inputs are always kept when they are recorded; the rest costs
/// memory and is asked for, best by the stages that need it
/// ([`Compressor::evidence`](crate::Compressor::evidence)).
///
/// ```
/// use niwaki::Needs;
/// let needs = Needs::MAPS | Needs::GRAM;
/// assert!(needs.contains(Needs::GRAM) && !needs.contains(Needs::HISTOGRAMS));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u8);

impl Needs {
    /// Unit moments of outputs and column moments of inputs only.
    pub const MOMENTS: Self = Self(0);
    /// Moments of each position of an output map: five numbers for each of C·H·W.
    pub const MAPS: Self = Self(1);
    /// A histogram of each position (64 counts), and the maps: for [`TotalConfidence`](crate::importance::TotalConfidence).
    pub const HISTOGRAMS: Self = Self(1 | 2);
    /// Gram matrices of the inputs, d×d for d inputs of one output (channels times taps in a convolution).
    pub const GRAM: Self = Self(4);
    /// Gram matrices of the outputs, units×units: for [`Subset`](crate::importance::Subset).
    pub const OUTPUT_GRAM: Self = Self(8);
    /// Gram matrices of the inputs, and apart from them those of about one sample in eight, which methods that learn
    /// are tried on: [`Layer::held_out`](crate::Layer::held_out). All other statistics of inputs are then of the other
    /// samples. An entry of a batch's first axis is a sample, and its values decide, so that batches, their order and
    /// merging do not matter; equal samples go the same way. Where entries are parts of samples, give
    /// [`Evidence::record_input_of`](crate::Evidence::record_input_of) the samples.
    pub const HELD_OUT: Self = Self(4 | 16);
    /// Everything but [`HELD_OUT`](Self::HELD_OUT), which takes samples away from the rest.
    pub const ALL: Self = Self(15);

    /// Whether all of `other` is asked for.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
