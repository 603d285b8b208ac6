//! Putting stages together.

use crate::compress::Compressor;
use crate::importance::{Importance, Magnitude};
use crate::prune::{Pruner, Then};
use crate::quantize::Quantizer;
use crate::recover::Recovery;
use crate::rescale::Rescale;
use crate::{Nothing, Result};

/// Collects the stages of a [`Compressor`]; [`build`](Self::build) checks all that can be checked without a model.
#[derive(Clone, Debug)]
pub struct CompressorBuilder<I, P, R, Q, S> {
    stages: Compressor<I, P, R, Q, S>,
}

impl CompressorBuilder<Magnitude, Nothing, Nothing, Nothing, Nothing> {
    pub(super) fn new() -> Self {
        let importance = Magnitude::default();
        Self {
            stages: Compressor {
                importance,
                pruner: Nothing,
                recovery: Nothing,
                rescale: Nothing,
                quantizer: Nothing,
                correct_bias: false,
                seed: 0,
            },
        }
    }
}

impl<I, P, R, Q, S> CompressorBuilder<I, P, R, Q, S> {
    /// Sets the criterion.
    pub fn importance<N>(self, importance: N) -> CompressorBuilder<N, P, R, Q, S> {
        let Compressor { pruner, recovery, quantizer, rescale, correct_bias, seed, .. } = self.stages;
        CompressorBuilder {
            stages: Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed },
        }
    }

    /// Sets the pruner.
    pub fn pruner<N>(self, pruner: N) -> CompressorBuilder<I, N, R, Q, S> {
        let Compressor { importance, recovery, quantizer, rescale, correct_bias, seed, .. } = self.stages;
        CompressorBuilder {
            stages: Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed },
        }
    }

    /// Adds a pruner that plans on what those before leave: channels, then single weights.
    pub fn then_pruner<N>(self, next: N) -> CompressorBuilder<I, Then<P, N>, R, Q, S> {
        let Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed } = self.stages;
        let pruner = Then::new(pruner, next);
        CompressorBuilder {
            stages: Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed },
        }
    }

    /// Sets the recovery.
    pub fn recovery<N>(self, recovery: N) -> CompressorBuilder<I, P, N, Q, S> {
        let Compressor { importance, pruner, quantizer, rescale, correct_bias, seed, .. } = self.stages;
        CompressorBuilder {
            stages: Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed },
        }
    }

    /// Adds a recovery that starts from what those before gave back.
    pub fn then_recovery<N>(self, next: N) -> CompressorBuilder<I, P, Then<R, N>, Q, S> {
        let Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed } = self.stages;
        let recovery = Then::new(recovery, next);
        CompressorBuilder {
            stages: Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed },
        }
    }

    /// Sets what moves scales between weights before they are quantized.
    pub fn rescale<N>(self, rescale: N) -> CompressorBuilder<I, P, R, Q, N> {
        let Compressor { importance, pruner, recovery, quantizer, correct_bias, seed, .. } = self.stages;
        CompressorBuilder {
            stages: Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed },
        }
    }

    /// After quantization, lets biases (or the running means of batch norms that directly follow) take what the
    /// rounding changed in the mean outputs of their weights.
    pub fn correct_bias(mut self) -> Self {
        self.stages.correct_bias = true;
        self
    }

    /// Sets the quantizer.
    pub fn quantizer<N>(self, quantizer: N) -> CompressorBuilder<I, P, R, N, S> {
        let Compressor { importance, pruner, recovery, rescale, correct_bias, seed, .. } = self.stages;
        CompressorBuilder {
            stages: Compressor { importance, pruner, recovery, quantizer, rescale, correct_bias, seed },
        }
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
    pub fn build(self) -> Result<Compressor<I, P, R, Q, S>>
    where
        I: Importance<f32>,
        P: Pruner<f32>,
        R: Recovery<f32>,
        Q: Quantizer<f32>,
        S: Rescale<f32>,
    {
        self.build_for::<f32>()
    }

    /// As [`build`](Self::build), with stages for another element type.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_for<F: crate::Element>(self) -> Result<Compressor<I, P, R, Q, S>>
    where
        I: Importance<F>,
        P: Pruner<F>,
        R: Recovery<F>,
        Q: Quantizer<F>,
        S: Rescale<F>,
    {
        self.stages.importance.check()?;
        self.stages.pruner.check()?;
        self.stages.recovery.check()?;
        self.stages.rescale.check()?;
        self.stages.quantizer.check()?;
        Ok(self.stages)
    }
}
