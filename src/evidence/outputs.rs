//! Statistics of a weight's outputs.

use ndarray::{Array2, ArrayView2};

use crate::evidence::rows::Rows;
use crate::evidence::{Histogram, Moments, Needs, Shape};
use crate::kernel::linalg;
use crate::{Error, Kind, Result};

/// What a weight's units answered.
///
/// ```
/// use ndarray::array;
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder().parameter(Parameter::linear("fc", array![[1.0f32], [2.0]])).build()?;
/// let mut evidence = Evidence::new(&model, Needs::OUTPUT_GRAM);
/// evidence.record_output("fc", &array![[1.0f32, 2.0], [3.0, 2.0]])?;
/// let layer = evidence.layer(&model, "fc")?;
/// let outputs = layer.outputs()?;
/// assert_eq!(outputs.units().mean(), [2.0, 2.0]);
/// assert_eq!(outputs.gram(), Some(&array![[10.0, 8.0], [8.0, 8.0]]));
/// assert_eq!(outputs.covariance(), Some(array![[1.0, 0.0], [0.0, 0.0]]));
/// assert!(outputs.positions().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    units: Moments,
    positions: Option<PositionStatistics>,
    gram: Option<Array2<f64>>,
}

/// Statistics over samples at each position of an output map. A weight without spatial axes has one position a
/// unit, at which each sample counts with its mean over any axes in between (time).
///
/// ```
/// use ndarray::{Array, array};
/// use niwaki::{Evidence, Geometry, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let conv = Parameter::conv("conv", Array::<f32, _>::ones((1, 1, 3)), Geometry::new().padding(1));
/// let model = Model::builder().parameter(conv).build()?;
/// let mut evidence = Evidence::new(&model, Needs::HISTOGRAMS);
/// evidence.record_output("conv", &array![[[1.0f32, 5.0]], [[3.0, 5.0]]])?;
/// let layer = evidence.layer(&model, "conv")?;
/// let positions = layer.positions()?;
/// assert_eq!(positions.shape(), [1, 2]);
/// assert_eq!(positions.moments().mean(), [2.0, 5.0]);
/// assert_eq!(positions.histograms().map(|h| h[1].bins().collect()), Some(vec![(5.0, 2)]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PositionStatistics {
    /// [units, positions…]
    shape: Vec<usize>,
    moments: Moments,
    histograms: Option<Vec<Histogram>>,
}

impl Outputs {
    /// Statistics of one batch.
    pub(super) fn of(layer: &str, shape: &Shape, batch: Rows, needs: Needs) -> Result<Self> {
        let Rows { mut values, dims } = batch;
        let spatial = matches!(shape.kind, Kind::Conv(_));
        let unit_axis = if spatial { 1 } else { dims.len() - 1 };
        let found = dims.get(unit_axis).copied().filter(|_| dims.len() > 1);
        if found != Some(shape.units) {
            return Err(Error::shape(format!(
                "layer `{layer}`: its output {dims:?} should have {} units on axis {unit_axis}",
                shape.units
            )));
        }
        let samples = dims[0];
        let per_sample = values.len() / samples;
        if !spatial {
            let units = Moments::of_rows(&values, shape.units);
            let gram = needs.contains(Needs::OUTPUT_GRAM).then(|| gram_of(&values, shape.units));
            let steps = per_sample / shape.units;
            if steps > 1 && needs.contains(Needs::MAPS) {
                values = mean_over_steps(&values, steps, shape.units);
            }
            let positions = PositionStatistics::of(&values, vec![shape.units], needs);
            return Ok(Self { units, positions, gram });
        }
        let places = per_sample / shape.units;
        let moments = Moments::of_rows(&values, per_sample);
        let units = moments.pooled(places);
        let gram = needs.contains(Needs::OUTPUT_GRAM).then(|| {
            // [n, units, places] → rows of units
            let mut rows = vec![0.0; values.len()];
            for (k, &x) in values.iter().enumerate() {
                let (sample, unit, place) = (k / per_sample, k % per_sample / places, k % places);
                rows[(sample * places + place) * shape.units + unit] = x;
            }
            gram_of(&rows, shape.units)
        });
        let positions = PositionStatistics::of(&values, dims[1..].to_vec(), needs);
        Ok(Self { units, positions, gram })
    }

    pub(super) fn merge(&mut self, layer: &str, other: &Self) -> Result<()> {
        if let (Some(ours), Some(theirs)) = (&mut self.positions, &other.positions) {
            if ours.shape != theirs.shape {
                return Err(Error::shape(format!(
                    "layer `{layer}`: an output map of {:?} after maps of {:?}",
                    theirs.shape, ours.shape
                )));
            }
            ours.moments.merge(&theirs.moments);
            if let (Some(ours), Some(theirs)) = (&mut ours.histograms, &theirs.histograms) {
                ours.iter_mut().zip(theirs).for_each(|(a, b)| a.merge(b));
            }
        }
        self.units.merge(&other.units);
        if let (Some(ours), Some(theirs)) = (&mut self.gram, &other.gram) {
            *ours += theirs;
        }
        Ok(())
    }

    pub(super) fn select(&self, units: &[usize]) -> Self {
        let gram =
            self.gram.as_ref().map(|g| g.select(ndarray::Axis(0), units).select(ndarray::Axis(1), units));
        let positions = self.positions.as_ref().map(|p| p.select(units));
        Self { units: self.units.select(units), positions, gram }
    }

    /// Moments of each unit, over samples and positions.
    pub fn units(&self) -> &Moments {
        &self.units
    }

    /// Statistics of each position; kept with [`Needs::MAPS`].
    pub fn positions(&self) -> Option<&PositionStatistics> {
        self.positions.as_ref()
    }

    /// Σ y·yᵀ over samples and positions; kept with [`Needs::OUTPUT_GRAM`].
    pub fn gram(&self) -> Option<&Array2<f64>> {
        self.gram.as_ref()
    }

    /// Covariance of the units' outputs, where the Gram matrix was kept.
    pub fn covariance(&self) -> Option<Array2<f64>> {
        let (count, mean) = (self.units.count() as f64, self.units.mean());
        let entry = |((i, j), &g): ((usize, usize), &f64)| g / count - mean[i] * mean[j];
        let gram = self.gram.as_ref()?;
        Array2::from_shape_vec(gram.raw_dim(), gram.indexed_iter().map(entry).collect()).ok()
    }
}

impl PositionStatistics {
    fn of(samples: &[f64], shape: Vec<usize>, needs: Needs) -> Option<Self> {
        if !needs.contains(Needs::MAPS) {
            return None;
        }
        let len = shape.iter().product();
        let histograms = needs.contains(Needs::HISTOGRAMS).then(|| {
            crate::kernel::par::map(len, |at| {
                let mut histogram = Histogram::default();
                histogram.add(samples.iter().skip(at).step_by(len).copied());
                histogram
            })
        });
        Some(Self { moments: Moments::of_rows(samples, len), shape, histograms })
    }

    fn select(&self, units: &[usize]) -> Self {
        let places: usize = self.shape[1..].iter().product();
        let at: Vec<usize> = units.iter().flat_map(|u| u * places..(u + 1) * places).collect();
        let mut shape = self.shape.clone();
        shape[0] = units.len();
        let histograms = self.histograms.as_ref().map(|h| at.iter().map(|&k| h[k].clone()).collect());
        Self { shape, moments: self.moments.select(&at), histograms }
    }

    /// [units, positions…]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Moments over samples, positions in row-major order.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// The distribution over samples at each position; kept with [`Needs::HISTOGRAMS`].
    pub fn histograms(&self) -> Option<&[Histogram]> {
        self.histograms.as_deref()
    }
}

fn gram_of(rows: &[f64], width: usize) -> Array2<f64> {
    let mut gram = Array2::zeros((width, width));
    if let Ok(rows) = ArrayView2::from_shape((rows.len() / width, width), rows) {
        linalg::add_gram(&mut gram, &rows);
    }
    gram
}

/// [samples, steps, units] → [samples, units]
fn mean_over_steps(values: &[f64], steps: usize, units: usize) -> Vec<f64> {
    let mut means = Vec::with_capacity(values.len() / steps);
    for sample in values.chunks_exact(steps * units) {
        means.extend((0..units).map(|u| sample[u..].iter().step_by(units).sum::<f64>() / steps as f64));
    }
    means
}
