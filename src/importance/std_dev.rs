//! How much a unit's weights, or its outputs, vary.

use crate::evidence::Moments;
use crate::importance::{Importance, Score, activation_score, narrow};
use crate::kernel::{par, reduce};
use crate::{Element, Layer, Parameter, Result};

/// The standard deviation of each unit's weights (default) or of its outputs.
///
/// σ = √(Σ (x − mean)² / n), the population's. [`of_weights`](Self::of_weights) takes the n weights of a unit, all
/// gates' rows together for a recurrent one, and needs no evidence. [`of_activations`](Self::of_activations) takes its
/// outputs over samples and positions; the map, where [`Needs::MAPS`](crate::Needs::MAPS) were kept, is σ over samples
/// at each position. Without outputs its error names the layer. A single weight's score is |w| times its unit's.
///
/// A unit of equal weights, or one that always answers the same, scores exactly 0: the second is a bias, which
/// `MeanFold` recovers without loss.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Importance, StdDev};
/// use niwaki::{Layer, Parameter};
///
/// let parameter = Parameter::linear("fc", array![[1.0f32, 3.0], [5.0, 5.0]]);
/// let score = StdDev::of_weights().score(&Layer::new(&parameter))?;
/// assert_eq!(score.per_unit(&parameter).to_vec(), [1.0, 0.0]);
/// assert!(StdDev::of_activations().score(&Layer::new(&parameter)).is_err());
/// # Ok::<(), niwaki::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StdDev {
    activations: bool,
}

impl StdDev {
    /// Of the unit's weights.
    pub fn of_weights() -> Self {
        Self { activations: false }
    }

    /// Of the unit's outputs.
    pub fn of_activations() -> Self {
        Self { activations: true }
    }
}

impl<F: Element> Importance<F> for StdDev {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        if self.activations {
            return activation_score(layer, Moments::std_dev);
        }
        let parameter = layer.parameter();
        Ok(Score::units(parameter.out_axis(), narrow(weight_deviations(parameter))))
    }
}

/// Count, mean and Σ (x − mean)² of some weights.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    /// From Σ d and Σ d² of the differences d to one of the values. That value is itself among them, so at most a
    /// factor `count` cancels; equal values give exactly 0.
    fn around(value: f64, count: f64, sum: f64, squares: f64) -> Self {
        Self { count, mean: value + sum / count, squares: (squares - sum * sum / count).max(0.0) }
    }

    fn join(self, other: Self) -> Self {
        let (count, delta) = (self.count + other.count, other.mean - self.mean);
        Self {
            count,
            mean: self.mean + delta * other.count / count,
            squares: self.squares + other.squares + delta * delta * self.count * other.count / count,
        }
    }
}

/// The standard deviation of each output unit's weights.
fn weight_deviations<F: Element>(parameter: &Parameter<F>) -> Vec<f64> {
    let units = parameter.units();
    let rows = if parameter.is_row_major() { row_spreads(parameter) } else { axis_spreads(parameter) };
    let unit = |u| rows.iter().skip(u).step_by(units).copied().reduce(Spread::join).unwrap_or_default();
    (0..units).map(|u| unit(u).squares / unit(u).count.max(1.0)).map(f64::sqrt).collect()
}

/// Of each row of contiguous weights.
fn row_spreads<F: Element>(parameter: &Parameter<F>) -> Vec<Spread> {
    let width = parameter.shape().iter().skip(1).product();
    reduce::rows(parameter.values(), width, |row| {
        let first = row.first().map_or(0.0, |w| w.widen());
        let (mut sums, mut squares) = ([0.0; 8], [0.0; 8]);
        for chunk in row.chunks(8) {
            for (lane, w) in chunk.iter().enumerate() {
                let d = w.widen() - first;
                sums[lane] += d;
                squares[lane] += d * d;
            }
        }
        Spread::around(first, row.len() as f64, sums.iter().sum(), squares.iter().sum())
    })
}

/// Of each index of an output axis that is not the first.
fn axis_spreads<F: Element>(parameter: &Parameter<F>) -> Vec<Spread> {
    let (values, shape, axis) = (parameter.values(), parameter.shape(), parameter.out_axis());
    let Some(&rows) = shape.get(axis) else { return Vec::new() };
    let inner = shape[axis + 1..].iter().product::<usize>().max(1);
    let slab = (rows * inner).max(1);
    let first = |row: usize| values.get(row * inner).map_or(0.0, |w| w.widen());
    let firsts: Vec<f64> = (0..rows).map(first).collect();
    let parts = par::map_chunks(values, (par::CHUNK / slab).max(1) * slab, |_, chunk| {
        let mut sums = vec![(0.0, 0.0); rows];
        for slab in chunk.chunks_exact(slab) {
            for ((run, first), (sum, squares)) in slab.chunks(inner).zip(&firsts).zip(&mut sums) {
                for w in run {
                    let d = w.widen() - first;
                    *sum += d;
                    *squares += d * d;
                }
            }
        }
        sums
    });
    let mut sums = vec![(0.0, 0.0); rows];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(all, (sum, squares))| *all = (all.0 + sum, all.1 + squares));
    }
    let count = (values.len() / rows.max(1)) as f64;
    let spreads = firsts.iter().zip(sums);
    spreads.map(|(&first, (sum, squares))| Spread::around(first, count, sum, squares)).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, ArrayView1, Axis, array};

    use super::*;
    use crate::{Evidence, Geometry, Model, Needs};

    #[expect(clippy::needless_pass_by_value, reason = "what axis_iter yields")]
    fn deviation(values: ArrayView1<'_, f64>) -> f64 {
        values.std(0.0)
    }

    fn noise(k: usize) -> f64 {
        ((k * 7919 + 13) % 1009) as f64 / 1009.0 + 3.0
    }

    #[test]
    fn equals_the_obvious_way_on_every_axis() {
        let table = Array2::from_shape_fn((300, 7), |(i, j)| noise(i * 7 + j));
        let linear = Parameter::linear("l", table.clone());
        let exchanged = Parameter::linear("l", table.clone()).axes(1, 0);
        for (found, axis) in [(weight_deviations(&linear), 0), (weight_deviations(&exchanged), 1)] {
            let truth = table.axis_iter(Axis(axis)).map(deviation);
            assert!(found.iter().zip(truth).all(|(a, b)| (a - b).abs() < 1e-12));
        }
        assert_eq!(
            weight_deviations(&exchanged),
            weight_deviations(&Parameter::embedding("e", table.clone()))
        );
        let conv = Array3::from_shape_fn((4, 3, 5), |(i, j, k)| noise(i * 15 + j * 5 + k));
        let filters = conv.to_shape((4, 15)).unwrap().axis_iter(Axis(0)).map(deviation).collect::<Vec<_>>();
        let found = weight_deviations(&Parameter::conv("c", conv, Geometry::new()));
        assert!(found.iter().zip(filters).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn a_recurrent_unit_takes_the_rows_of_all_gates() {
        let cell = Parameter::recurrent("r", array![[1.0f64, 2.0], [5.0, 5.0], [3.0, 4.0], [5.0, 5.0]], 2);
        let truth = deviation(array![1.0, 2.0, 3.0, 4.0].view());
        assert_eq!(weight_deviations(&cell), [truth, 0.0]);
    }

    #[test]
    fn equal_weights_have_no_deviation_however_large() {
        let flat = Array2::from_elem((33, 65), 0.1f32) * 1e7;
        assert_eq!(weight_deviations(&Parameter::linear("l", flat.clone())), [0.0; 33]);
        assert_eq!(weight_deviations(&Parameter::linear("l", flat).axes(1, 0)), [0.0; 65]);
    }

    #[test]
    fn outputs_and_their_map() {
        let model = Model::builder().parameter(Parameter::linear("fc", array![[1.0f32], [1.0]]));
        let model = model.build().unwrap();
        let mut evidence = Evidence::new(&model, Needs::MAPS);
        evidence.record_output("fc", &array![[1.0f32, 4.0], [3.0, 4.0]]).unwrap();
        let layer = evidence.layer(&model, "fc").unwrap();
        let score = StdDev::of_activations().score(&layer).unwrap();
        assert_eq!(score.per_unit(layer.parameter()).to_vec(), [1.0, 0.0]);
        assert_eq!(score.map(), Some(&array![1.0f32, 0.0].into_dyn()));
    }

    #[test]
    fn names_what_is_missing() {
        let parameter = Parameter::linear("fc", array![[1.0f32]]);
        let error = StdDev::of_activations().score(&Layer::new(&parameter)).unwrap_err().to_string();
        assert!(error.contains("`fc`") && error.contains("outputs"), "{error}");
    }
}
