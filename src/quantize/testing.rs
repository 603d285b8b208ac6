//! What the tests of the quantizers share.

use ndarray::Array2;
use rand::RngExt;

use crate::kernel::seed;
use crate::quantize::QuantizedTensor;
use crate::{Element, Parameter};

/// Bell-shaped weights around 0 of which about this share is exactly 0; rows differ in size.
pub(crate) fn weights(rows: usize, columns: usize, zeros: f64) -> Array2<f32> {
    let mut random = seed::stream(7, "weights");
    Array2::from_shape_fn((rows, columns), |(row, _)| {
        let bell: f64 = (0..6).map(|_| random.random::<f64>() - 0.5).sum();
        let zero = random.random::<f64>() < zeros;
        if zero { 0.0 } else { (bell * 0.1 * (1.0 + row as f64)) as f32 }
    })
}

/// Σ (w − Q(w))².
pub(crate) fn error<F: Element>(parameter: &Parameter<F>, tensor: &QuantizedTensor) -> f64 {
    let square = |(&w, back): (&F, &f64)| (w.widen() - back).powi(2);
    parameter.values().iter().zip(&tensor.decode::<f64>()).map(square).sum()
}
