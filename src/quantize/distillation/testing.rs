//! Small chunks for tests.

use ndarray::{Array1, Array2};

use crate::quantize::distillation::chunk::Chunk;

/// Rows rounded to nearest, and a Gram matrix of inputs that go together. The weight (0, 3) is 0.
pub(super) fn chunk(scale_of: &[usize], rows: usize, end: f64) -> (Chunk<'_>, Array2<f64>) {
    let (width, mut state) = (scale_of.len(), 3u64);
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let mut weights = Array2::from_shape_simple_fn((rows, width), &mut random);
    weights[[0, 3]] = 0.0;
    let mut inputs = Array2::from_shape_simple_fn((80, width), &mut random);
    let common = Array1::from_shape_simple_fn(80, &mut random);
    inputs.columns_mut().into_iter().for_each(|mut column| column += &common);
    let count = scale_of.iter().max().map_or(0, |k| k + 1);
    let mut chunk = Chunk {
        steps: Array2::zeros(weights.raw_dim()),
        scales: Array2::ones((rows, count)),
        ends: Array2::from_elem((rows, count), (-end, end)),
        weights,
        scale_of,
    };
    chunk.scales = chunk.widest();
    chunk.round();
    (chunk, inputs.t().dot(&inputs))
}
