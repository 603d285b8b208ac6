//! Statistics of a weight's outputs.

use ndarray::Array2;

use crate::evidence::gram::{self, Patches, Plain};
use crate::evidence::rows::Rows;
use crate::evidence::unfold::{Planes, Unfold};
use crate::evidence::{Histogram, Moments, Needs, Shape};
use crate::kernel::par;
use crate::{Element, Error, Kind, Result};

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
    pub(super) fn of<F: Element>(
        layer: &str,
        shape: &Shape,
        batch: &Rows<'_, F>,
        needs: Needs,
    ) -> Result<Self> {
        let Rows { values, dims } = batch;
        let spatial = matches!(shape.kind, Kind::Conv(_));
        let unit_axis = if spatial { 1 } else { dims.len() - 1 };
        let found = dims.get(unit_axis).copied().filter(|_| dims.len() > 1);
        if found != Some(shape.units) {
            return Err(Error::shape(format!(
                "layer `{layer}`: its output {dims:?} should have {} units on axis {unit_axis}",
                shape.units
            )));
        }
        let places = if spatial { dims[2..].iter().product() } else { 1 };
        let gram = needs.contains(Needs::OUTPUT_GRAM).then(|| {
            // In f64: what two means leave of a covariance may be a small part of it.
            let mut gram = Array2::zeros((shape.units, shape.units));
            match Unfold::pointwise(places) {
                Some(unfold) if spatial => {
                    let (planes, samples) =
                        (Planes { values, dims: &[places], sample: shape.units * places }, dims[0]);
                    let (unfold, places) = (&unfold, &unfold.places()[..]);
                    let patches = Patches { planes, unfold, places, channels: shape.units, samples };
                    gram::add_gram::<f64>(&mut gram, &patches);
                }
                _ => gram::add_gram::<f64>(&mut gram, &Plain { values, width: shape.units }),
            }
            gram
        });
        if !needs.contains(Needs::MAPS) {
            return Ok(Self { units: Moments::of_runs(values, shape.units, places), positions: None, gram });
        }
        if spatial {
            let positions = PositionStatistics::of(values, dims[1..].to_vec(), needs);
            return Ok(Self { units: positions.moments.pooled(places), positions: Some(positions), gram });
        }
        let steps = values.len() / dims[0] / shape.units;
        let positions = if steps > 1 {
            PositionStatistics::of(&mean_over_steps(values, steps, shape.units), vec![shape.units], needs)
        } else {
            PositionStatistics::of(values, vec![shape.units], needs)
        };
        Ok(Self { units: Moments::of_rows(values, shape.units), positions: Some(positions), gram })
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
    fn of<F: Element>(samples: &[F], shape: Vec<usize>, needs: Needs) -> Self {
        let len = shape.iter().product();
        let histograms = needs.contains(Needs::HISTOGRAMS).then(|| {
            par::map(len, |at| {
                let mut histogram = Histogram::default();
                histogram.add(samples.iter().skip(at).step_by(len).map(|x| x.widen()));
                histogram
            })
        });
        Self { moments: Moments::of_rows(samples, len), shape, histograms }
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

/// [samples, steps, units] → [samples, units]
fn mean_over_steps<F: Element>(values: &[F], steps: usize, units: usize) -> Vec<f64> {
    let mut means = Vec::with_capacity(values.len() / steps);
    for sample in values.chunks_exact(steps * units) {
        let start = means.len();
        means.resize(start + units, 0.0);
        for step in sample.chunks_exact(units) {
            means[start..].iter_mut().zip(step).for_each(|(mean, x)| *mean += x.widen());
        }
        means[start..].iter_mut().for_each(|mean| *mean /= steps as f64);
    }
    means
}
