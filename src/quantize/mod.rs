//! Fewer bits: quantizers turn a weight into codes.

mod affine;
mod bits;
mod blocks;
mod carry;
mod coding;
mod distillation;
mod element_wise;
mod encode;
mod ggml;
mod gptq;
mod grain;
mod grid;
mod multi_scale;
mod nothing;
mod outcome;
mod parts;
mod planes;
mod ranges;
mod rounding;
mod scheme;
mod tensor;
mod uniform;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod uniform_tests;

use std::fmt::Debug;

use crate::{Element, Evidence, Layer, Model, Needs, Result};

pub(crate) use coding::Coding;

pub use affine::Affine;
pub use bits::{Bits, GroupSize};
pub(crate) use carry::inputs_after;
pub use distillation::Distillation;
pub use element_wise::{ElementWise, OnOverflow};
pub use ggml::{BlockFormat, Ggml};
pub use gptq::Gptq;
#[cfg(feature = "onnx")]
pub(crate) use grid::{Fit, Grid};
pub use multi_scale::MultiScale;
pub use outcome::Outcome;
pub use parts::{Part, PartType};
#[cfg(feature = "rten")]
pub(crate) use ranges::{Importance, Piece};
pub use ranges::{Percentile, Range};
pub use rounding::Rounding;
pub use scheme::{FloatFormat, ScaleType, Scheme, Scope, Symmetry};
pub use tensor::QuantizedTensor;
pub use uniform::Uniform;

/// Stores weights in few bits. A weight that is 0 decodes to exactly 0, whatever the quantizer.
pub trait Quantizer<F: Element>: Debug + Send + Sync {
    /// Quantizes one weight.
    ///
    /// # Errors
    /// Evidence that the method needs is missing, or the weight cannot be quantized this way; the message names
    /// the layer.
    fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor>;

    /// Quantizes the weights of a model, in order. What is not in the answer stays as it is.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize).
    fn quantize_model(
        &self,
        model: &Model<F>,
        evidence: &Evidence<F>,
    ) -> Result<Vec<(String, QuantizedTensor)>> {
        let one = |p: &crate::Parameter<F>| {
            let layer = evidence.layer(model, p.name())?;
            Ok((p.name().to_owned(), self.quantize(&layer)?))
        };
        model.weights().map(one).collect()
    }

    /// The statistics that [`Evidence`] must keep for this quantizer.
    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }

    /// Checks the settings; [`Compressor`](crate::Compressor)'s builder calls it.
    ///
    /// # Errors
    /// A setting outside its range.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

macro_rules! forward_quantizer {
    ($($pointer:ty),*) => {$(
        impl<F: Element, T: Quantizer<F> + ?Sized> Quantizer<F> for $pointer {
            fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor> {
                (**self).quantize(layer)
            }

            fn quantize_model(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Vec<(String, QuantizedTensor)>> {
                (**self).quantize_model(model, evidence)
            }

            fn needs(&self) -> Needs {
                (**self).needs()
            }

            fn check(&self) -> Result<()> {
                (**self).check()
            }
        }
    )*};
}

forward_quantizer!(&T, Box<T>, std::sync::Arc<T>);
