//! What matters: criteria that score weights, larger is kept longer.

mod brain_surgeon;
mod discrepancy;
mod geometric_median;
mod gradient_compare;
mod magnitude;
mod max_activation;
mod penalty;
mod random;
mod score;
mod std_dev;
mod student;
mod subset;
mod taylor;
mod total_confidence;
mod wanda;

use std::collections::HashMap;
use std::fmt::Debug;

use ndarray::{Array1, ArrayD};

use crate::evidence::{Moments, PositionStatistics};
use crate::kernel::reduce;
use crate::model::Selection;
use crate::{Element, Error, Evidence, Layer, Model, Needs, Parameter, Result};

pub use crate::kernel::reduce::Norm;
pub use brain_surgeon::BrainSurgeon;
pub(crate) use brain_surgeon::Surgery;
pub use geometric_median::GeometricMedian;
pub use gradient_compare::GradientCompare;
pub use magnitude::Magnitude;
pub use max_activation::MaxActivation;
pub use penalty::Penalty;
pub use random::Random;
pub(crate) use score::Elements;
pub use score::Score;
pub use std_dev::StdDev;
pub use subset::Subset;
pub use taylor::Taylor;
pub use total_confidence::TotalConfidence;
pub use wanda::Wanda;

/// A criterion: what a layer's weights, and the evidence about it, say of each weight or unit.
///
/// ```
/// use niwaki::importance::{Importance, Score};
/// use niwaki::{Layer, Result};
///
/// /// Keeps what is far from the layer's mean.
/// #[derive(Debug)]
/// struct FarFromMean;
///
/// impl Importance<f32> for FarFromMean {
///     fn score(&self, layer: &Layer<'_, f32>) -> Result<Score<f32>> {
///         let weights = layer.parameter().array();
///         let mean = weights.mean().unwrap_or(0.0);
///         Ok(Score::elements(weights.mapv(|w| (w - mean).abs())))
///     }
/// }
///
/// let parameter = niwaki::Parameter::linear("fc.weight", ndarray::array![[0.0f32, 4.0], [2.0, 2.0]]);
/// let score = FarFromMean.score(&Layer::new(&parameter))?;
/// assert_eq!(score.per_weight(&parameter), ndarray::array![[2.0, 2.0], [0.0, 0.0]].into_dyn());
/// # Ok::<(), niwaki::Error>(())
/// ```
pub trait Importance<F: Element>: Debug + Send + Sync {
    /// Scores one weight.
    ///
    /// # Errors
    /// Usually that evidence is missing; the message names the layer and the evidence.
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>>;

    /// The statistics that [`Evidence`] must keep for this criterion.
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

macro_rules! forward_importance {
    ($($pointer:ty),*) => {$(
        impl<F: Element, T: Importance<F> + ?Sized> Importance<F> for $pointer {
            fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
                (**self).score(layer)
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

forward_importance!(&T, Box<T>, std::sync::Arc<T>);

/// The scores of all weights of a model, and the influence of its blocks.
///
/// A layer whose score could not be made (its evidence is missing) holds the error, which a pruner sees only if
/// it asks for that layer.
#[derive(Clone, Debug)]
pub struct Scores<F> {
    layers: HashMap<String, Result<Score<F>>>,
    influences: HashMap<String, f64>,
}

impl<F: Element> Scores<F> {
    /// Scores every weight of the model.
    ///
    /// # Errors
    /// The criterion's settings are wrong, or it gave a score that does not fit its layer. Missing evidence is an
    /// error of [`layer`](Self::layer).
    pub fn compute(
        importance: &(impl Importance<F> + ?Sized),
        model: &Model<F>,
        evidence: &Evidence<F>,
    ) -> Result<Self> {
        Self::seeded(importance, model, evidence, 0)
    }

    /// As [`compute`](Self::compute), with a seed for criteria that are random ([`Layer::seed`]).
    ///
    /// # Errors
    /// As [`compute`](Self::compute).
    pub fn seeded(
        importance: &(impl Importance<F> + ?Sized),
        model: &Model<F>,
        evidence: &Evidence<F>,
        seed: u64,
    ) -> Result<Self> {
        importance.check()?;
        let mut layers = HashMap::new();
        for parameter in model.weights() {
            let score = importance.score(&evidence.layer(model, parameter.name())?.with_seed(seed));
            if let Ok(score) = &score {
                score.check(parameter)?;
            }
            layers.insert(parameter.name().to_owned(), score);
        }
        let influence = |b: &crate::Block| Some((b.name().to_owned(), evidence.block_influence(b.name())?));
        Ok(Self { layers, influences: model.blocks().iter().filter_map(influence).collect() })
    }

    /// The score of one weight.
    ///
    /// # Errors
    /// The criterion's own error for this layer, or there is no such layer.
    pub fn layer(&self, name: &str) -> Result<&Score<F>> {
        match self.layers.get(name) {
            Some(Ok(score)) => Ok(score),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::name(format!("there is no score for layer `{name}`"))),
        }
    }

    /// Block influence, where evidence about the block was recorded.
    pub fn block_influence(&self, block: &str) -> Option<f64> {
        self.influences.get(block).copied()
    }

    /// The scores of what stays after a cut.
    pub fn select(&self, selection: &Selection) -> Self {
        let mut layers = HashMap::new();
        for (name, score) in &self.layers {
            let cut = score.as_ref().map(|s| s.select(name, selection)).map_err(Clone::clone);
            for after in selection.names_after(name) {
                layers.insert(after, cut.clone());
            }
        }
        Self { layers, influences: self.influences.clone() }
    }
}

/// The norm of each output unit's slice of `values`, which have the parameter's shape; the rows of all gates make one
/// recurrent unit.
fn unit_norms<F: Element>(parameter: &Parameter<F>, values: &[F], norm: Norm) -> Vec<f64> {
    let (axis, units) = (parameter.out_axis(), parameter.units());
    if axis >= parameter.shape().len() {
        return Vec::new();
    }
    let rows = reduce::along(values, parameter.shape(), axis, norm);
    let unit = |u| rows.iter().skip(u).step_by(units).copied().reduce(|a, b| norm.join(a, b));
    (0..units).map(|u| norm.finish(unit(u).unwrap_or(0.0))).collect()
}

/// A statistic of the outputs: of each unit, and of each position where maps were kept.
fn activation_score<F: Element>(
    layer: &Layer<'_, F>,
    statistic: impl Fn(&Moments) -> Vec<f64>,
) -> Result<Score<F>> {
    let (outputs, axis) = (layer.outputs()?, layer.parameter().out_axis());
    let score = Score::units(axis, narrow(statistic(outputs.units())));
    match outputs.positions() {
        Some(at) => Ok(score.with_map(axis, position_map(layer, at, statistic(at.moments()))?)),
        None => Ok(score),
    }
}

/// A number for each position of the output map, in its shape.
fn position_map<F: Element>(
    layer: &Layer<'_, F>,
    positions: &PositionStatistics,
    values: Vec<f64>,
) -> Result<ArrayD<F>> {
    let map = ArrayD::from_shape_vec(positions.shape(), narrow(values).to_vec());
    map.map_err(|error| Error::shape(format!("layer `{}`: its output map: {error}", layer.name())))
}

fn narrow<F: Element>(values: Vec<f64>) -> Array1<F> {
    values.into_iter().map(F::narrow).collect()
}
