//! How far a unit's output ever gets from 0.

use crate::importance::{Importance, Score, activation_score};
use crate::{Element, Layer, Result};

/// The largest absolute output of each unit, max |y| over samples and positions.
///
/// The map, where [`Needs::MAPS`](crate::Needs::MAPS) were kept, is the maximum over samples at each position. A
/// single weight's score is |w| times its unit's. Needs recorded outputs; without them the error names the layer.
///
/// Unlike a mean or a share of zeros (Hu, Peng, Tai, Tang: Network trimming, 2016) it keeps a unit that answers
/// seldom but strongly.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Importance, MaxActivation};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let fc = Parameter::linear("fc", array![[1.0f32, 2.0], [3.0, 4.0]]);
/// let model = Model::builder().parameter(fc).build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_output("fc", &array![[0.5f32, -4.0], [1.0, 2.0]])?;
/// let score = MaxActivation::new().score(&evidence.layer(&model, "fc")?)?;
/// assert_eq!(score.per_unit(model.parameter("fc")?).to_vec(), [1.0, 4.0]);
/// assert_eq!(score.per_weight(model.parameter("fc")?), array![[1.0, 2.0], [12.0, 16.0]].into_dyn());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaxActivation;

impl MaxActivation {
    /// The criterion; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl<F: Element> Importance<F> for MaxActivation {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        activation_score(layer, |moments| moments.max_abs().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array2, Array4, array};

    use super::*;
    use crate::{ErrorKind, Evidence, Geometry, Model, Needs, Parameter};

    #[test]
    fn units_and_maps_of_a_convolution() {
        let weights = Array4::<f32>::ones((2, 1, 1, 1));
        let model = Model::builder().parameter(Parameter::conv("c", weights, Geometry::new()));
        let model = model.build().unwrap();
        let output = Array::from_shape_vec((2, 2, 1, 2), vec![1.0f32, -2.0, 0.0, 0.5, -3.0, 1.0, 0.0, 0.25]);
        for (needs, has_map) in [(Needs::MOMENTS, false), (Needs::MAPS, true)] {
            let mut evidence = Evidence::new(&model, needs);
            evidence.record_output("c", output.as_ref().unwrap()).unwrap();
            let layer = evidence.layer(&model, "c").unwrap();
            let score = MaxActivation::new().score(&layer).unwrap();
            assert_eq!(score.per_unit(layer.parameter()).to_vec(), [3.0, 0.5]);
            let map = array![[[3.0f32, 2.0]], [[0.0, 0.5]]].into_dyn();
            assert_eq!(score.map(), has_map.then_some(&map));
        }
    }

    #[test]
    fn scores_hidden_units_not_gate_rows() {
        let cell = Parameter::recurrent("rnn", Array2::<f64>::ones((4, 3)), 2);
        let model = Model::builder().parameter(cell).build().unwrap();
        let mut evidence = Evidence::new(&model, Needs::MAPS);
        evidence.record_output("rnn", &array![[[1.0, -2.0], [3.0, 0.0]]]).unwrap();
        let layer = evidence.layer(&model, "rnn").unwrap();
        let score = MaxActivation::new().score(&layer).unwrap();
        score.check(layer.parameter()).unwrap();
        assert_eq!(score.per_unit(layer.parameter()).to_vec(), [3.0, 2.0]);
        assert_eq!(score.per_weight(layer.parameter())[[2, 0]], 3.0);
    }

    #[test]
    fn names_what_is_missing() {
        let parameter = Parameter::linear("fc", array![[1.0f32]]);
        let error = MaxActivation::new().score(&Layer::new(&parameter)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingEvidence);
        assert!(error.to_string().contains("`fc`") && error.to_string().contains("outputs"));
    }
}
