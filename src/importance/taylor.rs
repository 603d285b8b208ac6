//! What the loss would change by, to first order.

use ndarray::ArrayD;

use crate::importance::{Importance, Norm, Score, narrow, unit_norms};
use crate::kernel::reduce;
use crate::{Element, Layer, Result};

/// The squared first-order change of the loss without a weight, (g·w)², or without a unit, (Σ g·w)².
///
/// g is the mean of the recorded gradients. The sum of a unit goes over its slice of the output axis, all gates' rows
/// together for a recurrent one; on the input axis it goes over the slice of each index. Needs recorded gradients;
/// without them the error names the layer.
///
/// Molchanov, Mallya, Tyree, Frosio, Kautz: Importance estimation for neural network pruning (2019), equation 8 for
/// units.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Importance, Taylor};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let fc = Parameter::linear("fc", array![[1.0f32, 2.0], [3.0, 4.0]]);
/// let model = Model::builder().parameter(fc).build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_gradient("fc", &array![[1.0f32, -1.0], [0.5, 0.25]])?;
/// let score = Taylor::new().score(&evidence.layer(&model, "fc")?)?;
/// assert_eq!(score.per_weight(model.parameter("fc")?), array![[1.0, 4.0], [2.25, 1.0]].into_dyn());
/// assert_eq!(score.per_unit(model.parameter("fc")?).to_vec(), [1.0, 6.25]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taylor;

impl Taylor {
    /// The criterion; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl<F: Element> Importance<F> for Taylor {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let parameter = layer.parameter();
        let gradient = layer.gradient()?;
        let pairs = gradient.iter().zip(parameter.values());
        let products: Vec<F> = pairs.map(|(&g, &w)| g * w).collect();
        let squares = |sums: Vec<f64>| narrow(sums.into_iter().map(|x| x * x).collect());
        let units = squares(unit_norms(parameter, &products, Norm::Sum));
        let inputs = parameter.in_axis().filter(|&axis| axis < parameter.shape().len());
        let inputs =
            inputs.map(|axis| (axis, squares(reduce::along(&products, parameter.shape(), axis, Norm::Sum))));
        let elements = products.into_iter().map(|x| x * x).collect();
        let elements = ArrayD::from_shape_vec(parameter.shape(), elements);
        let elements = elements.unwrap_or_else(|_| ArrayD::zeros(parameter.shape()));
        let score = Score::elements(elements).along(parameter.out_axis(), units);
        Ok(match inputs {
            Some((axis, inputs)) => score.along(axis, inputs),
            None => score,
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, Axis, array};

    use super::*;
    use crate::{ErrorKind, Evidence, Geometry, Model, Needs, Parameter};

    fn score(parameter: Parameter<f32>, gradient: &ArrayD<f32>) -> (Score<f32>, Parameter<f32>) {
        let model = Model::builder().parameter(parameter).build().unwrap();
        let name = model.parameters()[0].name();
        let mut evidence = Evidence::new(&model, Needs::MOMENTS);
        evidence.record_gradient(name, gradient).unwrap();
        let score = Taylor::new().score(&evidence.layer(&model, name).unwrap()).unwrap();
        score.check(&model.parameters()[0]).unwrap();
        (score, model.parameters()[0].clone())
    }

    fn lowest(scores: &[f64], count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        order.truncate(count);
        order.sort_unstable();
        order
    }

    /// Weights and gradients of microsoft/nni, `test/ut/sdk/test_compressor_torch.py`,
    /// `test_torch_taylorFOweight_pruner`: filters of one value each. Its score is Σ (g·w)².
    #[test]
    fn filters_as_in_nni() {
        let conv1 = Array4::from_shape_fn((5, 1, 5, 5), |(i, ..)| i as f32);
        let conv2 = Array4::from_shape_fn((10, 5, 5, 5), |(i, ..)| 10.0 - i as f32);
        let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        let gradient1 = Array4::from_shape_fn((5, 1, 5, 5), |(i, ..)| -sign(i)).into_dyn();
        let gradient2 = Array4::from_shape_fn((10, 5, 5, 5), |(i, ..)| sign(i)).into_dyn();
        let (score1, conv1) = score(Parameter::conv("conv1", conv1, Geometry::new()), &gradient1);
        let (score2, conv2) = score(Parameter::conv("conv2", conv2, Geometry::new()), &gradient2);
        let sums = |score: &Score<f32>, p: &Parameter<f32>| -> Vec<f32> {
            score.per_weight(p).axis_iter(Axis(0)).map(|filter| filter.sum()).collect()
        };
        assert_eq!(sums(&score1, &conv1), [0.0, 25.0, 100.0, 225.0, 400.0]);
        let nni = [12500.0, 10125.0, 8000.0, 6125.0, 4500.0, 3125.0, 2000.0, 1125.0, 500.0, 125.0];
        assert_eq!(sums(&score2, &conv2), nni);
        // Its masks at sparsity 0.2 and 0.6; with equal products (Σ g·w)² ranks alike.
        assert_eq!(lowest(&score1.per_unit(&conv1).to_vec(), 1), [0]);
        assert_eq!(lowest(&score2.per_unit(&conv2).to_vec(), 6), [4, 5, 6, 7, 8, 9]);
        assert_eq!(score2.per_unit(&conv2)[9], 125.0 * 125.0);
    }

    #[test]
    fn sums_before_it_squares_on_both_axes() {
        let weights = array![[1.0f32, 2.0], [3.0, -3.0]];
        let gradient = array![[1.0f32, 1.0], [1.0, 1.0]].into_dyn();
        for (parameter, out, input) in [
            (Parameter::linear("fc", weights.clone()), [9.0, 0.0], [16.0, 1.0]),
            (Parameter::linear("fc", weights.clone()).axes(1, 0), [16.0, 1.0], [9.0, 0.0]),
        ] {
            let (score, parameter) = score(parameter, &gradient);
            assert_eq!(score.per_unit(&parameter).to_vec(), out);
            let turned = parameter.clone().axes(parameter.in_axis().unwrap(), parameter.out_axis());
            assert_eq!(score.per_unit(&turned).to_vec(), input);
        }
    }

    #[test]
    fn gates_of_a_recurrent_unit_are_summed_together() {
        let cell = Parameter::recurrent("r", array![[1.0f32], [2.0], [-1.0], [4.0]], 2);
        let (score, cell) = score(cell, &ArrayD::ones(vec![4, 1]));
        assert_eq!(score.per_unit(&cell).to_vec(), [0.0, 36.0]);
    }

    #[test]
    fn names_what_is_missing() {
        let parameter = Parameter::linear("fc", array![[1.0f32]]);
        let error = Taylor::new().score(&Layer::new(&parameter)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingEvidence);
        assert!(error.to_string().contains("`fc`") && error.to_string().contains("gradients"));
    }
}
