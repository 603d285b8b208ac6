//! Blocks as a [`QuantizedTensor`].

use crate::Element;
use crate::kernel::par::CHUNK;
use crate::quantize::outcome::Aside;
use crate::quantize::tensor::Decoder;
use crate::quantize::{BlockFormat, QuantizedTensor, Scheme};

impl QuantizedTensor {
    /// Blocks that are known to be those of this shape.
    pub(super) fn wrap_blocks(shape: &[usize], format: BlockFormat, blocks: Vec<u8>) -> Self {
        Self {
            shape: shape.to_vec(),
            scheme: Scheme::Ggml(format),
            support: None,
            planes: vec![blocks],
            scales: Vec::new(),
            zero_points: Vec::new(),
            outcome: Aside::default(),
        }
    }

    /// Blocks that may be anything; the error says why they are not those of this shape.
    pub(crate) fn read_blocks(shape: &[usize], format: BlockFormat, blocks: Vec<u8>) -> Result<Self, String> {
        let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("no array has such a shape")?;
        let row = shape.last().copied().unwrap_or(0);
        let len = format.len(n, row).ok_or_else(|| {
            format!("rows of {row} are no multiple of the {} weights of a block", format.weights())
        })?;
        if blocks.len() != len {
            return Err(format!("{} bytes are not the {len} of its blocks", blocks.len()));
        }
        match format.flaw(&blocks) {
            Some(block) => Err(format!("the scale of block {block} is no finite number")),
            None => Ok(Self::wrap_blocks(shape, format, blocks)),
        }
    }

    /// The format and bytes of its blocks; `None` for all other schemes.
    pub(crate) fn blocks_of_ggml(&self) -> Option<(BlockFormat, &[u8])> {
        match (&self.scheme, &self.planes[..]) {
            (Scheme::Ggml(format), [blocks]) => Some((*format, blocks)),
            _ => None,
        }
    }

    /// Decodes chunks, which are whole blocks.
    pub(in crate::quantize) fn block_decoder<F: Element>(&self, format: BlockFormat) -> Decoder<'_, F> {
        let Some((_, blocks)) = self.blocks_of_ggml() else { return Box::new(|_, _| {}) };
        Box::new(move |k, values| {
            let start = k * CHUNK / format.weights() * format.bytes();
            let len = values.len() / format.weights() * format.bytes();
            let mut decoded = vec![0.0f32; values.len()];
            format.codec().decode(&blocks[start..start + len], &mut decoded);
            values.iter_mut().zip(decoded).for_each(|(to, value)| *to = F::narrow(f64::from(value)));
        })
    }
}
