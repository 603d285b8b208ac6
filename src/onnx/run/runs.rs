//! Rows for Gram matrices: how many, and multiplied many at a time.

use ndarray::Array2;

use crate::onnx::trace::LayerIo;
use crate::{Error, Evidence, Parameter, Result};

/// Of a layer's inputs, rows over all samples and rows for each column that are taken at least, where there are as many.
const LEAST: usize = 8192;
const LEAST_FOR_COLUMN: usize = 2;
/// Multiplications of a layer for each that its Gram matrix may cost beyond that.
const SHARE: u64 = 64;
/// Rows, and bytes of rows, that are multiplied at a time.
const RUN: usize = 512;
const RUN_BYTES: usize = 4 << 20;

/// Bytes that rows of so many numbers take while they wait.
pub(super) fn bytes(numbers: u64) -> u64 {
    (numbers.saturating_mul((RUN * size_of::<f64>()) as u64)).min(RUN_BYTES as u64)
}

/// Rows that wait to be multiplied: few at a time would take most of the time for the sums.
#[derive(Default)]
pub(super) struct Run {
    pub(super) rows: usize,
    pub(super) groups: Vec<Vec<f64>>,
}

impl Run {
    pub(super) fn full(&self) -> bool {
        let numbers: usize = self.groups.iter().map(Vec::len).sum();
        self.rows >= RUN || numbers * size_of::<f64>() >= RUN_BYTES
    }

    pub(super) fn flush(&mut self, layer: &str, held_out: bool, evidence: &mut Evidence<f32>) -> Result<()> {
        let Self { rows, groups } = std::mem::take(self);
        let array = |values: Vec<f64>| Array2::from_shape_vec((rows, values.len() / rows.max(1)), values);
        let groups = groups.into_iter().map(array).collect::<std::result::Result<Vec<_>, _>>();
        let groups = groups.map_err(|e| Error::shape(format!("layer `{layer}`: {e}")))?;
        if rows > 0 { evidence.record_columns(layer, &groups, held_out) } else { Ok(()) }
    }
}

/// Rows for each sample whose products cost little beside the layer itself.
pub(super) fn affordable(layer: &LayerIo, parameter: &Parameter<f32>, samples: usize) -> usize {
    let (columns, groups) = (parameter.fan_in(), parameter.groups().max(1));
    let products = (columns * columns * groups).max(1) as u64;
    let least = LEAST.max(LEAST_FOR_COLUMN * columns).div_ceil(samples.max(1));
    least.max((layer.macs / (SHARE * products)) as usize)
}
