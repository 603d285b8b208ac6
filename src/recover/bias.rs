//! What rounding changed in the mean outputs goes into biases.

use ndarray::Array1;

use crate::evidence::Inputs;
use crate::kernel::par;
use crate::quantize::{self, QuantizedTensor};
use crate::{Element, Error, Evidence, Model, NormRole, Parameter, Result};

/// Adds (W − Ŵ)·E\[x\] to the bias of each weight that was quantized, or takes it from the running mean of the batch norm
/// that directly follows; weights that have neither, or whose inputs were not recorded, are left as they are.
///
/// The mean output of each row over the recorded inputs is then what it was, as long as the inputs are those of the
/// original network: what rounding changed further up is not seen, but for an embedding that the weight reads directly. At the border of a padded convolution the constant
/// is that of the average position.
///
/// Nagel, van Baalen, Blankevoort, Welling: Data-free quantization through weight equalization and bias correction
/// (2019), in its form with data.
///
/// ```
/// use ndarray::array;
/// use niwaki::quantize::{Bits, Quantizer, Uniform};
/// use niwaki::{Evidence, Model, Needs, Parameter, recover};
///
/// # fn main() -> niwaki::Result<()> {
/// let mut model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc", array![[3.0, 0.6]]))
///     .parameter(Parameter::bias("fc.bias", array![1.0], "fc"))
///     .build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_input("fc", &array![[1.0f32, 2.0], [0.0, 4.0]])?; // of mean 0.5 and 3
/// let codes = Uniform::new(Bits::new(3)?).quantize_model(&model, &evidence)?;
/// assert_eq!(codes[0].1.decode::<f32>(), array![[3.0, 1.0]].into_dyn());
/// recover::correct_bias(&mut model, &codes, &evidence)?;
/// assert!((model.parameter("fc.bias")?.values()[0] - (1.0 - 0.4 * 3.0)).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A tensor that does not fit its weight, or a bias that would not be finite; the model is then as before.
pub fn correct_bias<F: Element>(
    model: &mut Model<F>,
    quantized: &[(String, QuantizedTensor)],
    evidence: &Evidence<F>,
) -> Result<()> {
    let mut corrected = model.clone();
    let rounded_inputs = quantize::inputs_after(model, evidence, quantized)?;
    for (name, tensor) in quantized {
        let layer = evidence.layer(model, name)?;
        let parameter = layer.parameter();
        if tensor.shape() != parameter.shape() {
            let (ours, theirs) = (parameter.shape(), tensor.shape());
            return Err(Error::shape(format!(
                "layer `{name}` {ours:?} was quantized to the shape {theirs:?}"
            )));
        }
        if !layer.takes_constant() || !layer.has_inputs() || layer.inputs()?.rows() == 0 {
            continue;
        }
        let before = layer.inputs()?;
        let after = rounded_inputs.get(name).unwrap_or(before);
        let (was, is) = (mean_outputs(parameter, parameter.values(), before), tensor.decode());
        let is = mean_outputs(parameter, is.as_slice().unwrap_or_default(), after);
        // A batch norm subtracts its mean.
        let bias = model.bias_of(name).map(|bias| (bias, 1.0));
        let target = bias.or_else(|| model.norm_of(name, NormRole::Mean).map(|mean| (mean, -1.0)));
        let Some((target, sign)) = target else { continue };
        let values = target
            .values()
            .iter()
            .zip(was.iter().zip(&is))
            .map(|(b, (was, is))| F::narrow(b.widen() + sign * (was - is)));
        corrected.set_values(target.name(), values.collect::<Array1<F>>().into_dyn())?;
    }
    *model = corrected;
    Ok(())
}

/// The mean output of each row with these weights.
fn mean_outputs<F: Element>(parameter: &Parameter<F>, weights: &[F], inputs: &Inputs) -> Vec<f64> {
    let (rows, width) = (parameter.shape()[parameter.out_axis()], parameter.fan_in());
    let means: Vec<Array1<f64>> = (0..inputs.groups()).map(|group| inputs.mean(group)).collect();
    let per_group = (rows / means.len().max(1)).max(1);
    // Exchanged axes hold a matrix [in, out].
    let at = |row, column| if parameter.is_row_major() { row * width + column } else { column * rows + row };
    par::map(rows, |row| {
        let term = |(column, mean): (usize, &f64)| weights[at(row, column)].widen() * mean;
        means[row / per_group].iter().enumerate().map(term).sum()
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, ArrayD, array};

    use super::*;
    use crate::quantize::{Bits, Quantizer, Uniform};
    use crate::{Geometry, Needs, Parameter};

    fn wave(shape: &[usize], step: f64) -> ArrayD<f64> {
        let len = shape.iter().product::<usize>();
        let values = (0..len).map(|k| ((k as f64 + 1.0) * step).sin() + 0.3).collect();
        ArrayD::from_shape_vec(shape, values).unwrap()
    }

    /// Σ over a row of w · mean, for each row of [out, in, …].
    fn row_means(weight: &ArrayD<f64>, inputs: &Inputs) -> Vec<f64> {
        let rows = weight.shape()[0];
        let per_group = rows / inputs.groups();
        let values = weight.as_standard_layout().iter().copied().collect::<Vec<_>>();
        let of_row = |(row, values): (usize, &[f64])| {
            values.iter().zip(&inputs.mean(row / per_group)).map(|(w, m)| w * m).sum()
        };
        values.chunks(values.len() / rows).enumerate().map(of_row).collect()
    }

    #[test]
    fn mean_outputs_are_as_before() {
        let grouped = Parameter::conv("grouped", wave(&[6, 2, 3], 0.7), Geometry::new().groups(2).padding(1));
        let mut model = Model::builder()
            .parameter(grouped)
            .parameter(Parameter::bias("grouped.bias", Array::zeros(6), "grouped"))
            .parameter(Parameter::linear("turned", wave(&[4, 3], 1.3)).axes(1, 0))
            .parameter(Parameter::new("mean", Array::zeros(3), norm("turned", NormRole::Mean)))
            .parameter(Parameter::new("variance", Array::ones(3), norm("turned", NormRole::Variance)))
            .parameter(Parameter::linear("alone", wave(&[4, 3], 1.3)))
            .parameter(Parameter::linear("unseen", wave(&[4, 3], 1.1)))
            .parameter(Parameter::bias("unseen.bias", Array::ones(4), "unseen"))
            .build()
            .unwrap();
        let mut evidence = Evidence::new(&model, Needs::MOMENTS);
        evidence.record_input("grouped", &wave(&[5, 4, 7], 0.9)).unwrap();
        evidence.record_input("turned", &wave(&[5, 4], 0.8)).unwrap();
        evidence.record_input("alone", &wave(&[5, 3], 0.8)).unwrap();
        let codes = Uniform::new(Bits::new(3).unwrap()).quantize_model(&model, &evidence).unwrap();
        let before = model.clone();
        correct_bias(&mut model, &codes, &evidence).unwrap();
        let inputs = |name: &str| evidence.layer(&before, name).unwrap().inputs().unwrap().clone();
        let decoded = |name: &str| codes.iter().find(|(n, _)| n == name).unwrap().1.decode::<f64>();
        for (name, target, sign) in [("grouped", "grouped.bias", 1.0), ("turned", "mean", -1.0)] {
            let (mut weight, mut rounded) = (before.parameter(name).unwrap().array().clone(), decoded(name));
            if name == "turned" {
                (weight, rounded) = (weight.reversed_axes(), rounded.reversed_axes());
            }
            let (wanted, now) = (row_means(&weight, &inputs(name)), row_means(&rounded, &inputs(name)));
            let added = model.parameter(target).unwrap().values();
            for ((wanted, now), added) in wanted.iter().zip(&now).zip(added) {
                assert!((wanted - now).abs() > 1e-6 && (wanted - now - sign * added).abs() < 1e-12);
            }
        }
        assert_eq!(model.parameter("unseen.bias").unwrap().array(), &array![1.0, 1.0, 1.0, 1.0].into_dyn());
        assert_eq!(model.parameter("variance").unwrap(), before.parameter("variance").unwrap());
    }

    fn norm(of: &str, role: NormRole) -> crate::Kind {
        crate::Kind::Norm { role, of: Some(of.to_owned()) }
    }

    #[test]
    fn codes_of_another_shape() {
        let of = |shape: &[usize]| {
            Model::builder().parameter(Parameter::linear("fc", wave(shape, 0.7))).build().unwrap()
        };
        let (mut model, other) = (of(&[2, 3]), of(&[3, 2]));
        let codes = Uniform::int8().quantize_model(&other, &Evidence::new(&other, Needs::MOMENTS)).unwrap();
        let evidence = Evidence::new(&model, Needs::MOMENTS);
        let error = correct_bias(&mut model, &codes, &evidence).unwrap_err();
        assert!(error.to_string().contains("fc"));
    }
}
