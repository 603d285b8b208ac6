//! The quantizer that quantizes nothing.

use crate::quantize::{QuantizedTensor, Quantizer};
use crate::{Element, Error, Evidence, Layer, Model, Nothing, Result};

impl<F: Element> Quantizer<F> for Nothing {
    fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor> {
        Err(Error::unsupported(format!("layer `{}`: no quantizer was set", layer.name())))
    }

    fn quantize_model(&self, _: &Model<F>, _: &Evidence<F>) -> Result<Vec<(String, QuantizedTensor)>> {
        Ok(Vec::new())
    }
}
