//! The size of a weight times the size of what it multiplies.

use ndarray::ArrayD;

use crate::importance::{Importance, Score};
use crate::kernel::par;
use crate::{Element, Error, Kind, Layer, Parameter, Result};

/// |w|·‖x‖₂, x being all that the weight's input was in the recorded samples.
///
/// A convolution's input is a (channel, tap): its inputs are unfolded into patches, and each group has its own. A unit's
/// score is the L2 norm of its weights'. Needs recorded inputs; without them the error names the layer. Embeddings
/// read indices and are an error.
///
/// Sun, Liu, Bair, Kolter: A simple and effective pruning approach for large language models (2024), whose weights
/// compete within each output row: `Unstructured` with `Scope::PerRow`.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Importance, Wanda};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let fc = Parameter::linear("fc", array![[1.0f32, -2.0], [4.0, 0.5]]);
/// let model = Model::builder().parameter(fc).build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_input("fc", &array![[3.0f32, 0.0], [4.0, 1.0]])?;
/// let score = Wanda::new().score(&evidence.layer(&model, "fc")?)?;
/// assert_eq!(score.per_weight(model.parameter("fc")?), array![[5.0, 2.0], [20.0, 0.5]].into_dyn());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanda;

impl Wanda {
    /// The criterion; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl<F: Element> Importance<F> for Wanda {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let (parameter, name) = (layer.parameter(), layer.name());
        if *parameter.kind() == Kind::Embedding {
            let what = format!("layer `{name}`: an embedding reads indices, which have no norms for Wanda");
            return Err(Error::unsupported(what));
        }
        let inputs = layer.inputs()?;
        let norms: Vec<Vec<F>> =
            (0..inputs.groups()).map(|g| inputs.norms(g).iter().map(|&x| F::narrow(x)).collect()).collect();
        let (seen, width) = (norms.len(), norms.first().map_or(0, Vec::len));
        if (seen, width) != (parameter.groups(), parameter.fan_in()) {
            let (groups, fan_in) = (parameter.groups(), parameter.fan_in());
            return Err(Error::shape(format!(
                "layer `{name}`: {seen} groups of {width} inputs were recorded, it has {groups} of {fan_in}"
            )));
        }
        let mut scores = vec![F::zero(); parameter.values().len()];
        scale(parameter, &norms, &mut scores);
        let scores = ArrayD::from_shape_vec(parameter.shape(), scores);
        Ok(Score::elements(scores.unwrap_or_else(|_| ArrayD::zeros(parameter.shape()))))
    }
}

/// Writes |w| times the norm of its column of its group.
fn scale<F: Element>(parameter: &Parameter<F>, norms: &[Vec<F>], scores: &mut [F]) {
    let (values, rows) = (parameter.values(), parameter.shape()[0].max(1));
    let width = (values.len() / rows).max(1);
    let (per_group, per_task) = ((rows / norms.len()).max(1), (par::CHUNK / width).max(1));
    let by_rows = parameter.is_row_major();
    par::zip_chunks_mut(values, per_task * width, scores, per_task * width, |task, values, scores| {
        for (k, (values, scores)) in values.chunks(width).zip(scores.chunks_mut(width)).enumerate() {
            let row = task * per_task + k;
            let pairs = scores.iter_mut().zip(values);
            if by_rows {
                let norms = &norms[row / per_group];
                pairs.zip(norms).for_each(|((score, w), &norm)| *score = w.abs() * norm);
            } else {
                // Stored [in, out]: a row is one input.
                let norm = norms[0][row];
                pairs.for_each(|(score, w)| *score = w.abs() * norm);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array3, Array4, array};

    use super::*;
    use crate::{ErrorKind, Evidence, Geometry, Model, Needs};

    fn score<D: ndarray::Dimension>(
        parameter: Parameter<f64>,
        input: &ndarray::Array<f64, D>,
    ) -> (ArrayD<f64>, Vec<f64>) {
        let model = Model::builder().parameter(parameter).build().unwrap();
        let name = model.parameters()[0].name();
        let mut evidence = Evidence::new(&model, Needs::MOMENTS);
        evidence.record_input(name, input).unwrap();
        let layer = evidence.layer(&model, name).unwrap();
        let score = Wanda::new().score(&layer).unwrap();
        score.check(layer.parameter()).unwrap();
        (score.per_weight(layer.parameter()), score.per_unit(layer.parameter()).to_vec())
    }

    #[test]
    fn axes_may_be_exchanged() {
        let weights = Array2::from_shape_fn((3, 2), |(i, j)| i as f64 - 2.0 * j as f64);
        let input = array![[3.0, -1.0], [4.0, 1.0]];
        let (each, units) = score(Parameter::linear("a", weights.clone()), &input);
        let turned = weights.t().as_standard_layout().into_owned();
        let (each_turned, units_turned) = score(Parameter::linear("b", turned).axes(1, 0), &input);
        assert_eq!(each, &weights.abs() * &array![[5.0, 2f64.sqrt()]].into_dyn());
        assert_eq!(each_turned, each.t());
        assert_eq!(units, units_turned);
    }

    #[test]
    fn a_recurrent_cell_shares_its_columns() {
        let (each, _) = score(Parameter::recurrent("r", Array2::ones((4, 2)), 2), &array![[[2.0, 7.0]]]);
        assert_eq!(each, array![[2.0, 7.0], [2.0, 7.0], [2.0, 7.0], [2.0, 7.0]].into_dyn());
    }

    #[test]
    fn each_group_reads_its_own_patches() {
        // Two groups of one channel, three filters each; taps see [1, 2] and [2, 3], times 1 and times 10.
        let weights = Array3::from_shape_fn((6, 1, 2), |(i, _, k)| -((i + k) as f64));
        let conv = Parameter::conv("c", weights.clone(), Geometry::new().groups(2));
        let (each, _) = score(conv, &array![[[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]]);
        for ((i, _, k), w) in weights.indexed_iter() {
            let norm = [5f64.sqrt(), 13f64.sqrt()][k] * if i < 3 { 1.0 } else { 10.0 };
            assert!((each[[i, 0, k]] - w.abs() * norm).abs() < 1e-12);
        }
    }

    #[test]
    fn channels_and_taps_keep_the_order_of_the_weights() {
        let weights = Array4::<f64>::ones((1, 2, 1, 2));
        let (each, _) =
            score(Parameter::conv("c", weights, Geometry::new()), &array![[[[1.0, 2.0]], [[3.0, 4.0]]]]);
        assert_eq!(each.as_slice().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn names_what_is_missing_and_refuses_embeddings() {
        let parameter = Parameter::linear("fc", array![[1.0f32]]);
        let error = Wanda::new().score(&Layer::new(&parameter)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingEvidence);
        assert!(error.to_string().contains("`fc`") && error.to_string().contains("inputs"));
        let table = Parameter::embedding("words", array![[1.0f32]]);
        let error = Wanda::new().score(&Layer::new(&table)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("`words`"));
    }

    #[test]
    fn evidence_about_other_axes_is_an_error() {
        let model = |p: Parameter<f64>| Model::builder().parameter(p).build().unwrap();
        let seen = model(Parameter::linear("fc", Array2::ones((3, 2))));
        let mut evidence = Evidence::new(&seen, Needs::MOMENTS);
        evidence.record_input("fc", &array![[1.0, 1.0]]).unwrap();
        let turned = model(Parameter::linear("fc", Array2::ones((3, 2))).axes(1, 0));
        let error = Wanda::new().score(&evidence.layer(&turned, "fc").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape);
    }
}
