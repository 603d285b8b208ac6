//! How far a unit's weights lie from those of the others.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayViewMut2, Axis, Slice};

use crate::importance::{Importance, Score, narrow};
use crate::kernel::par;
use crate::{Element, Layer, Parameter, Result};

/// Rows of distances that one task finds.
const ROWS: usize = 64;

/// The sum of the distances of a unit's weights to those of each unit of the layer: the lowest lies nearest to the
/// geometric median of the units, where others can take its place. A unit of large weights goes too if others are like
/// it.
///
/// ```text
/// score(u) = Σ_v ‖w_u − w_v‖₂
/// ```
///
/// A unit's weights are its slice of the output axis, all gates' rows together for a recurrent one; a single weight's
/// score is |w| times its unit's. Needs no evidence. Distances come from products in f64, so that equal units are at a
/// distance of 0, and ones that differ by less than about 10⁻⁸ of their norms may be. Takes 8 bytes for each pair of
/// units.
///
/// He, Liu, Wang, Hu, Yang: Filter pruning via geometric median for deep convolutional neural networks acceleration
/// (2019).
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{GeometricMedian, Importance};
/// use niwaki::{Layer, Parameter};
///
/// // Between the others lies the second, though the first is smaller.
/// let parameter = Parameter::linear("fc", array![[0.0f32, 1.0], [3.0, 1.0], [7.0, 1.0]]);
/// let score = GeometricMedian::new().score(&Layer::new(&parameter))?;
/// assert_eq!(score.per_unit(&parameter).to_vec(), [10.0, 7.0, 11.0]);
/// # Ok::<(), niwaki::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GeometricMedian;

impl GeometricMedian {
    /// The criterion; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl<F: Element> Importance<F> for GeometricMedian {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let parameter = layer.parameter();
        Ok(Score::units(parameter.out_axis(), narrow(distances(&units(parameter)))))
    }
}

/// A row of weights for each unit.
fn units<F: Element>(parameter: &Parameter<F>) -> Array2<f64> {
    let (axis, units) = (parameter.out_axis(), parameter.units());
    let mut array = parameter.array().view();
    if axis >= array.ndim() {
        return Array2::zeros((units, 0));
    }
    // Gates lie one behind the other: [gates · units, …] becomes [gates, units, …], and units come first.
    let order = std::iter::once(axis).chain((0..array.ndim()).filter(|&other| other != axis));
    array = array.permuted_axes(order.collect::<Vec<_>>());
    let rows = array.shape()[0];
    let width = array.len() / rows.max(1);
    let gates = rows / units.max(1);
    let mut matrix = Array2::zeros((units, gates * width));
    for (row, values) in array.outer_iter().enumerate() {
        let (gate, unit) = (row / units.max(1), row % units.max(1));
        let places = matrix.row_mut(unit).into_iter().skip(gate * width);
        places.zip(values).for_each(|(to, w)| *to = w.widen());
    }
    matrix
}

/// The sum of the distances of each row to all rows.
fn distances(rows: &Array2<f64>) -> Vec<f64> {
    let n = rows.nrows();
    let mut products = vec![0.0; n * n];
    par::for_chunks_mut(&mut products, (ROWS * n).max(1), |k, products| {
        let own = rows.slice_axis(Axis(0), Slice::from(k * ROWS..(k * ROWS + ROWS).min(n)));
        if let Ok(mut products) = ArrayViewMut2::from_shape((own.nrows(), n), products) {
            general_mat_mul(1.0, &own, &rows.t(), 0.0, &mut products);
        }
    });
    let square = |unit: usize| products[unit * n + unit];
    par::map(n, |unit| {
        let others = products[unit * n..(unit + 1) * n].iter().enumerate();
        others.map(|(other, p)| (square(unit) + square(other) - 2.0 * p).max(0.0).sqrt()).sum()
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, array};

    use super::*;
    use crate::Geometry;

    fn units_of(parameter: &Parameter<f32>) -> Vec<f64> {
        GeometricMedian::new().score(&Layer::new(parameter)).unwrap().per_unit(parameter).to_vec()
    }

    fn lowest(scores: &[f64], count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        order.truncate(count);
        order.sort_unstable();
        order
    }

    /// microsoft/nni, `test/ut/sdk/test_compressor_torch.py`, `test_torch_fpgm_pruner`: ten filters of 5×5×5 weights,
    /// filter i all i + 1; masked at 0.2 are 4 and 5, at 0.6 those from 2 to 7.
    #[test]
    fn filters_as_in_nni() {
        let filters = Array4::from_shape_fn((10, 5, 5, 5), |(i, ..)| i as f32 + 1.0);
        let scores = units_of(&Parameter::conv("conv2", filters, Geometry::new()));
        assert_eq!(lowest(&scores, 2), [4, 5]);
        assert_eq!(lowest(&scores, 6), [2, 3, 4, 5, 6, 7]);
        assert!((scores[0] - 45.0 * 125f64.sqrt()).abs() < 1e-4);
    }

    #[test]
    fn equals_the_obvious_way_on_every_axis() {
        let values = Array4::from_shape_fn((70, 3, 2, 2), |(i, j, y, x)| {
            ((i * 37 + j * 11 + y * 5 + x * 3) % 23) as f32 * 0.1 - 1.0
        });
        for axis in 0..2 {
            let parameter = Parameter::conv("conv", values.clone(), Geometry::new()).axes(axis, 1 - axis);
            let slice = |u: usize| values.index_axis(Axis(axis), u);
            let distance =
                |u, v| (&slice(u) - &slice(v)).iter().map(|d| f64::from(d * d)).sum::<f64>().sqrt();
            let n = values.shape()[axis];
            let plain = (0..n).map(|u| (0..n).map(|v| distance(u, v)).sum::<f64>());
            assert!(units_of(&parameter).iter().zip(plain).all(|(a, b): (&f64, f64)| (a - b).abs() < 1e-3));
        }
    }

    #[test]
    fn equal_units_are_at_no_distance_and_gates_belong_together() {
        let same = Parameter::linear("fc", array![[0.1f32, 0.7], [0.1, 0.7]]);
        assert_eq!(units_of(&same), [0.0, 0.0]);
        // Unit 0 is (1, 5) over its gates, unit 1 (4, 1).
        let cell = Parameter::recurrent("r", array![[1.0f32], [4.0], [5.0], [1.0]], 2);
        assert_eq!(units_of(&cell), [5.0, 5.0]);
    }
}
