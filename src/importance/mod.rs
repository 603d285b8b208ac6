//! What matters: criteria that score weights, larger is kept longer.

mod magnitude;
mod score;

use std::collections::HashMap;
use std::fmt::Debug;

use crate::model::Selection;
use crate::{Element, Error, Evidence, Layer, Model, Needs, Result};

pub use crate::kernel::reduce::Norm;
pub use magnitude::Magnitude;
pub(crate) use score::Elements;
pub use score::Score;

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
        importance.check()?;
        let mut layers = HashMap::new();
        for parameter in model.weights() {
            let score = importance.score(&evidence.layer(model, parameter.name())?);
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
