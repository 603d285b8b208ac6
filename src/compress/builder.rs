//! Putting stages together.

use crate::compress::Compressor;
use crate::importance::{Importance, Magnitude};
use crate::prune::{Pruner, Then};
use crate::quantize::Quantizer;
use crate::recover::Recovery;
use crate::{Nothing, Result};

/// Collects the stages of a [`Compressor`]; [`build`](Self::build) checks all that can be checked without a model.
#[derive(Clone, Debug)]
pub struct CompressorBuilder<I, P, R, Q> {
    stages: Compressor<I, P, R, Q>,
}

impl CompressorBuilder<Magnitude, Nothing, Nothing, Nothing> {
    pub(super) fn new() -> Self {
        let importance = Magnitude::default();
        Self {
            stages: Compressor {
                importance,
                pruner: Nothing,
                recovery: Nothing,
                quantizer: Nothing,
                seed: 0,
            },
        }
    }
}

impl<I, P, R, Q> CompressorBuilder<I, P, R, Q> {
    /// Sets the criterion.
    pub fn importance<N>(self, importance: N) -> CompressorBuilder<N, P, R, Q> {
        let Compressor { pruner, recovery, quantizer, seed, .. } = self.stages;
        CompressorBuilder { stages: Compressor { importance, pruner, recovery, quantizer, seed } }
    }

    /// Sets the pruner.
    pub fn pruner<N>(self, pruner: N) -> CompressorBuilder<I, N, R, Q> {
        let Compressor { importance, recovery, quantizer, seed, .. } = self.stages;
        CompressorBuilder { stages: Compressor { importance, pruner, recovery, quantizer, seed } }
    }

    /// Adds a pruner that plans on what those before leave: channels, then single weights.
    pub fn then_pruner<N>(self, next: N) -> CompressorBuilder<I, Then<P, N>, R, Q> {
        let Compressor { importance, pruner, recovery, quantizer, seed } = self.stages;
        let pruner = Then::new(pruner, next);
        CompressorBuilder { stages: Compressor { importance, pruner, recovery, quantizer, seed } }
    }

    /// Sets the recovery.
    pub fn recovery<N>(self, recovery: N) -> CompressorBuilder<I, P, N, Q> {
        let Compressor { importance, pruner, quantizer, seed, .. } = self.stages;
        CompressorBuilder { stages: Compressor { importance, pruner, recovery, quantizer, seed } }
    }

    /// Adds a recovery that starts from what those before gave back.
    pub fn then_recovery<N>(self, next: N) -> CompressorBuilder<I, P, Then<R, N>, Q> {
        let Compressor { importance, pruner, recovery, quantizer, seed } = self.stages;
        let recovery = Then::new(recovery, next);
        CompressorBuilder { stages: Compressor { importance, pruner, recovery, quantizer, seed } }
    }

    /// Sets the quantizer.
    pub fn quantizer<N>(self, quantizer: N) -> CompressorBuilder<I, P, R, N> {
        let Compressor { importance, pruner, recovery, seed, .. } = self.stages;
        CompressorBuilder { stages: Compressor { importance, pruner, recovery, quantizer, seed } }
    }

    /// Sets the seed of everything random (default 0): each layer gets its own stream from it and its name.
    pub fn seed(mut self, seed: u64) -> Self {
        self.stages.seed = seed;
        self
    }

    /// Checks the stages' settings. The stages of this crate take any element type; a custom stage that takes f64
    /// only is built with [`build_for`](Self::build_for).
    ///
    /// # Errors
    /// The first setting that is outside its range.
    pub fn build(self) -> Result<Compressor<I, P, R, Q>>
    where
        I: Importance<f32>,
        P: Pruner<f32>,
        R: Recovery<f32>,
        Q: Quantizer<f32>,
    {
        self.build_for::<f32>()
    }

    /// As [`build`](Self::build), with stages for another element type.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_for<F: crate::Element>(self) -> Result<Compressor<I, P, R, Q>>
    where
        I: Importance<F>,
        P: Pruner<F>,
        R: Recovery<F>,
        Q: Quantizer<F>,
    {
        self.stages.importance.check()?;
        self.stages.pruner.check()?;
        self.stages.recovery.check()?;
        self.stages.quantizer.check()?;
        Ok(self.stages)
    }
}
