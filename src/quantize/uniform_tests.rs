//! What holds for every kind of [`Uniform`].

use ndarray::{Array, Axis};

use crate::model::Mask;
use crate::quantize::testing::{error, weights};
use crate::quantize::{Bits, GroupSize, QuantizedTensor, Quantizer, Range, Uniform};
use crate::{Element, Evidence, Layer, Model, Needs, Parameter};

fn bits(bits: u32) -> Bits {
    Bits::new(bits).unwrap()
}

/// Every kind of scope, symmetry and width.
fn all() -> Vec<Uniform> {
    let group = |size| GroupSize::new(size).unwrap();
    let scopes =
        |u: Uniform| [u, u.per_tensor(), u.per_axis(1), u.per_group(group(16)), u.per_group(group(7))];
    let widths = (1..=8).flat_map(|b| [Uniform::new(bits(b)), Uniform::new(bits(b)).affine()]);
    widths.filter(|u| Quantizer::<f32>::check(u).is_ok()).flat_map(scopes).collect()
}

fn quantize<F: Element>(quantizer: Uniform, parameter: &Parameter<F>) -> QuantizedTensor {
    quantizer.quantize(&Layer::new(parameter)).unwrap()
}

/// Each weight's own scale.
fn scales(tensor: &QuantizedTensor) -> Vec<f32> {
    let (blocks, mut scales) = (tensor.blocks().unwrap(), vec![0.0; tensor.len()]);
    for scale in 0..blocks.scales {
        blocks.runs(scale).flatten().for_each(|i| scales[i] = tensor.scales()[scale]);
    }
    scales
}

#[test]
fn no_weight_is_off_by_more_than_half_a_step_and_zeros_stay() {
    for zeros in [0.0, 0.3, 0.95] {
        let parameter = Parameter::linear("w", weights(37, 50, zeros));
        for quantizer in all().into_iter().flat_map(|u| [u, u.f16_scales()]) {
            let tensor = quantize(quantizer, &parameter);
            let back = tensor.decode::<f32>();
            for ((w, back), scale) in parameter.values().iter().zip(&back).zip(scales(&tensor)) {
                let bound = scale / 2.0 + w.abs() * 2e-6;
                assert!((w - back).abs() <= bound, "{quantizer:?}: {w} {back} {scale}");
                assert!(*w != 0.0 || back.to_bits() == 0, "{quantizer:?}");
            }
            let (scheme, parts) = (tensor.scheme().clone(), tensor.parts());
            assert_eq!(QuantizedTensor::from_parts(&[37, 50], scheme, &parts).unwrap(), tensor);
        }
    }
}

#[test]
fn memory_of_any_other_tensor_gives_the_same_codes() {
    let parameter = Parameter::linear("w", weights(37, 50, 0.3));
    let others = [weights(3, 5, 0.0), weights(40, 60, 0.0), weights(37, 50, 0.95)];
    for quantizer in all() {
        let fresh = quantize(quantizer, &parameter);
        for other in &others {
            let old = quantize(Uniform::int8(), &Parameter::linear("old", other.clone()));
            assert_eq!(quantizer.requantize(&Layer::new(&parameter), old).unwrap(), fresh, "{quantizer:?}");
        }
    }
}

#[test]
fn quantizing_what_was_decoded_changes_nothing() {
    for parameter in [weights(37, 50, 0.1), weights(20, 33, 0.0) * 1e-6] {
        for quantizer in all() {
            let tensor = quantize(quantizer, &Parameter::linear("w", parameter.clone()));
            let again = quantize(quantizer, &Parameter::linear("w", tensor.decode::<f32>()));
            assert_eq!(again, tensor, "{quantizer:?}");
            let wide = quantize(quantizer, &Parameter::linear("w", tensor.decode::<f64>()));
            assert_eq!(wide.codes().unwrap(), tensor.codes().unwrap(), "{quantizer:?}");
        }
    }
}

#[test]
fn powers_of_two_keep_codes() {
    let parameter = Parameter::linear("w", weights(9, 40, 0.2));
    let scaled = Parameter::linear("w", parameter.array() * 2f32.powi(-13));
    for quantizer in all() {
        let (one, other) = (quantize(quantizer, &parameter), quantize(quantizer, &scaled));
        assert_eq!(one.codes().unwrap(), other.codes().unwrap());
        assert!(one.scales().iter().zip(other.scales()).all(|(a, b)| a * 2f32.powi(-13) == *b));
    }
}

#[test]
fn permuting_rows_permutes_codes() {
    let weights = weights(12, 40, 0.2);
    let order = [3, 11, 0, 7, 5, 1, 2, 4, 6, 10, 9, 8];
    let permuted = Parameter::linear("w", weights.select(Axis(0), &order));
    let parameter = Parameter::linear("w", weights);
    for quantizer in all() {
        let one = quantize(quantizer, &parameter).decode::<f32>().select(Axis(0), &order);
        assert_eq!(quantize(quantizer, &permuted).decode::<f32>(), one);
    }
}

#[test]
fn the_error_falls_with_each_bit() {
    let parameter = Parameter::linear("w", weights(20, 400, 0.0));
    let group = GroupSize::new(64).unwrap();
    for shape in [|u: Uniform| u, |u: Uniform| u.affine(), |u: Uniform| u.affine().per_tensor()] {
        let errors: Vec<f64> =
            (2..=8).map(|b| error(&parameter, &quantize(shape(Uniform::new(bits(b))), &parameter))).collect();
        assert!(errors.windows(2).all(|e| e[1] < e[0]), "{errors:?}");
    }
    let [group, channel, tensor] =
        [Uniform::new(bits(4)).per_group(group), Uniform::new(bits(4)), Uniform::new(bits(4)).per_tensor()]
            .map(|u| error(&parameter, &quantize(u, &parameter)));
    assert!(group < channel && channel < tensor);
}

#[test]
fn ranges_do_what_they_say() {
    let mut heavy = weights(8, 500, 0.0);
    heavy.iter_mut().step_by(97).for_each(|w| *w *= 4.0);
    let parameter = Parameter::linear("w", heavy);
    for shape in [
        |u: Uniform| u.per_channel(),
        |u: Uniform| u.per_tensor(),
        |u: Uniform| u.affine(),
        |u: Uniform| u.per_axis(1),
        |u: Uniform| u.per_group(GroupSize::new(128).unwrap()),
    ] {
        let of = |range| quantize(shape(Uniform::new(bits(4))).range(range), &parameter);
        let [full, mse] = [Range::MinMax, Range::Mse].map(|r| error(&parameter, &of(r)));
        assert!(mse <= full, "{mse} {full}");
        for range in [Range::percentile(99.0).unwrap(), Range::Entropy, Range::Mse] {
            let (cut, full) = (of(range), of(Range::MinMax));
            let pairs = || cut.scales().iter().zip(full.scales());
            assert!(pairs().all(|(a, b)| *a <= b * 1.000_001), "{range:?}");
        }
        assert_eq!(of(Range::percentile(100.0).unwrap()), of(Range::MinMax));
    }
    let row = Parameter::linear("w", Array::from_shape_fn((1, 101), |(_, j)| j as f32));
    let tensor = quantize(Uniform::int8().range(Range::percentile(90.0).unwrap()), &row);
    assert_eq!(tensor.scales(), [90.0 / 127.0]);
}

#[test]
fn inputs_weigh_errors() {
    let parameter = Parameter::linear("w", weights(6, 64, 0.0));
    let model = Model::builder().parameter(parameter.clone()).build().unwrap();
    let mut evidence = Evidence::new(&model, Needs::MOMENTS);
    let inputs = Array::from_shape_fn((4, 64), |(_, j)| if j < 4 { 30.0f32 } else { 0.1 });
    evidence.record_input("w", &inputs).unwrap();
    let quantizer = Uniform::new(bits(3)).range(Range::Mse);
    let seen = quantizer.quantize(&evidence.layer(&model, "w").unwrap()).unwrap();
    let blind = quantize(quantizer, &parameter);
    let output_error = |tensor: &QuantizedTensor| {
        let back = tensor.decode::<f32>().into_dimensionality::<ndarray::Ix2>().unwrap();
        let weights = parameter.array().clone().into_dimensionality::<ndarray::Ix2>().unwrap();
        (&back - &weights).indexed_iter().map(|((_, j), e)| (e * inputs[[0, j]]).powi(2)).sum::<f32>()
    };
    assert!(output_error(&seen) < 0.9 * output_error(&blind));
}

#[test]
fn groups_run_along_the_inputs() {
    let two = GroupSize::new(2).unwrap();
    let scales = |parameter: &Parameter<f32>| {
        let tensor = quantize(Uniform::int8().per_group(two), parameter);
        (tensor.scheme().to_string(), tensor.scale_shape())
    };
    let array = weights(5, 3, 0.0);
    let text = |t: &str| format!("int8 symmetric {t}");
    assert_eq!(scales(&Parameter::linear("w", array.clone())), (text("group:2"), vec![5, 2]));
    assert_eq!(scales(&Parameter::linear("w", array.clone()).axes(1, 0)), (text("group:2@0"), vec![3, 3]));
    assert_eq!(scales(&Parameter::embedding("w", array)), (text("group:2"), vec![5, 2]));
    let bias = Parameter::other("b", Array::from_elem(5, 1.0f32));
    assert_eq!(scales(&bias), (text("group:2@0"), vec![3, 1]));
}

#[test]
fn sparse_weights_take_the_smaller_form() {
    let parameter = Parameter::linear("w", weights(64, 300, 0.9));
    for quantizer in all() {
        let tensor = quantize(quantizer, &parameter);
        let codes = tensor.codes().unwrap();
        let (width, n) = (tensor.scheme().code_bits() as usize, codes.len());
        let stored = tensor.decode::<f32>().iter().filter(|w| **w != 0.0).count();
        let sparse = (stored * width).div_ceil(8) + n / 8;
        assert_eq!(tensor.support().is_some(), sparse < n * width / 8, "{quantizer:?}");
        assert_eq!(tensor.support().map_or(stored, Mask::kept), stored);
    }
    let int8 = quantize(Uniform::int8(), &parameter);
    let nonzero = int8.decode::<f32>().iter().filter(|w| **w != 0.0).count();
    assert_eq!(int8.bytes(), nonzero + 64 * 300 / 8 + 64 * 4);
}

#[test]
fn nothing_but_zeros_and_no_width() {
    let parameter = Parameter::linear("w", Array::from_elem((2, 3), -0.0f32));
    for quantizer in all() {
        let tensor = quantize(quantizer, &parameter);
        assert!(tensor.scales().iter().all(|s| *s == 1.0));
        assert!(tensor.decode::<f32>().iter().all(|w| w.to_bits() == 0));
    }
}

#[test]
fn what_cannot_be() {
    let parameter = Parameter::linear("fc", weights(2, 3, 0.0));
    let layer = Layer::new(&parameter);
    let message = |u: Uniform| u.quantize(&layer).unwrap_err().to_string();
    let one = Uniform::new(bits(1));
    assert_eq!(message(one), "layer `fc`: 1-bit symmetric codes hold only 0; use affine");
    assert!(message(Uniform::int8().per_model()).contains("quantize_model"));
    assert!(message(Uniform::int8().per_axis(2)).contains("no axis 2"));
    let huge = Parameter::linear("fc", ndarray::array![[1e300f64]]);
    let error = Uniform::int8().quantize(&Layer::new(&huge)).unwrap_err();
    assert!(error.to_string().contains("layer `fc`: scale inf is past the limit"), "{error}");
}

#[test]
fn a_model_has_one_scale() {
    let (a, b) = (Parameter::linear("a", weights(4, 5, 0.0)), Parameter::linear("b", weights(5, 4, 0.0)));
    let model = Model::builder().parameter(a).parameter(b).build().unwrap();
    let evidence = Evidence::new(&model, Needs::MOMENTS);
    for range in [Range::MinMax, Range::Mse, Range::Entropy, Range::percentile(98.0).unwrap()] {
        let quantizer = Uniform::new(bits(5)).affine().per_model().range(range);
        let tensors = quantizer.quantize_model(&model, &evidence).unwrap();
        assert_eq!(tensors.len(), 2);
        assert_eq!(tensors[0].1.scales(), tensors[1].1.scales());
        assert_eq!(tensors[0].1.zero_points(), tensors[1].1.zero_points());
        assert_eq!(tensors[0].1.scheme().to_string(), "int5 affine model");
    }
}
