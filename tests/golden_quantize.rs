//! Quantized values that other projects publish. Numbers are theirs; each test names where they come from.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use ndarray::{Array2, arr2};
use niwaki::quantize::{
    Affine, Bits, ElementWise, Part, PartType, QuantizedTensor, Quantizer, Scheme, Uniform,
};
use niwaki::{Layer, Parameter};

fn codes(scale: f32, zero_point: i32, range: (i32, i32), x: &[f32]) -> Vec<i32> {
    let map = Affine::new(scale, zero_point, range.0..=range.1).unwrap();
    x.iter().map(|&x| map.code(x)).collect()
}

fn values(scale: f32, zero_point: i32, range: (i32, i32), codes: &[i32]) -> Vec<f32> {
    let map = Affine::new(scale, zero_point, range.0..=range.1).unwrap();
    codes.iter().map(|&code| map.value(code)).collect()
}

const U8: (i32, i32) = (0, 255);
const I8: (i32, i32) = (-128, 127);
const U16: (i32, i32) = (0, 65535);
const I16: (i32, i32) = (-32768, 32767);
const U4: (i32, i32) = (0, 15);
const I4: (i32, i32) = (-8, 7);
const U2: (i32, i32) = (0, 3);
const I2: (i32, i32) = (-2, 1);

/// onnx, `backend/test/case/node/quantizelinear.py`: `test_quantizelinear`, `_uint16`, `_int16`.
#[test]
fn onnx_quantize_linear() {
    let x = [0.0, 2.0, 3.0, 1000.0, -254.0, -1000.0];
    assert_eq!(codes(2.0, 128, U8, &x), [128, 129, 130, 255, 1, 0]);
    let x = [0.0, -128.0, 3.0, -3.0, 2.9, -2.9, 3.1, -3.1, 65536.0, -65534.0, 70000.0, -70000.0];
    assert_eq!(
        codes(2.0, 32767, U16, &x),
        [32767, 32703, 32769, 32765, 32768, 32766, 32769, 32765, 65535, 0, 65535, 0]
    );
    let x = [0.0, -514.0, 3.0, -3.0, 2.9, -2.9, 3.1, -3.1, 65022.0, -66046.0, 65023.0, -66047.0, 65024.0];
    assert_eq!(
        codes(2.0, 256, I16, &x),
        [256, -1, 258, 254, 257, 255, 258, 254, 32767, -32767, 32767, -32768, 32767]
    );
    assert_eq!(codes(2.0, 256, I16, &[-66048.0, 70000.0, -70000.0]), [-32768, 32767, -32768]);
}

/// onnx, `quantizelinear.py`: `test_quantizelinear_uint4`, `_int4`, `_uint2`, `_int2`; scales 2, 3, 4 by row.
#[test]
fn onnx_quantize_few_bits() {
    let rows = |zero, range, x: [[f32; 4]; 3]| -> Vec<i32> {
        [2.0, 3.0, 4.0].iter().zip(x).flat_map(|(&scale, x)| codes(scale, zero, range, &x)).collect()
    };
    let x = [[0.0, 2.5, 4.8, 8.6], [-30.0, -20.0, 6.0, 9.0], [12.0, 15.0, 16.0, 40.0]];
    assert_eq!(rows(1, U4, x), [1, 2, 3, 5, 0, 0, 3, 4, 4, 5, 5, 11]);
    assert_eq!(rows(1, I4, x), [1, 2, 3, 5, -8, -6, 3, 4, 4, 5, 5, 7]);
    let x = [[0.0, 2.5, 4.8, 8.6], [-2.0, -1.0, 1.0, 3.0], [4.0, 5.0, 6.0, 7.0]];
    assert_eq!(rows(0, U2, x), [0, 1, 2, 3, 0, 0, 0, 1, 1, 1, 2, 2]);
    let x = [[0.0, 2.5, 4.8, 8.6], [-4.0, -3.0, 1.0, 2.0], [-0.0, -2.5, -4.8, -8.6]];
    assert_eq!(rows(0, I2, x), [0, 1, 1, 1, -1, -1, 0, 1, 0, -1, -1, -2]);
}

/// onnx, `quantizelinear.py`: `test_quantizelinear_axis`, inputs by slice of axis 1 (expected values from its
/// formula), and `dequantizelinear.py`: `test_dequantizelinear_axis` back again.
#[test]
fn onnx_axis() {
    let cases = [
        (2.0, 84, [-162.0, 10.0, -100.0, 232.0, -20.0, -50.0], [3, 89, 34, 200, 74, 59]),
        (4.0, 24, [-76.0, 0.0, 0.0, 252.0, 32.0, -44.0], [5, 24, 24, 87, 32, 13]),
        (5.0, 196, [245.0, -485.0, -960.0, -270.0, -375.0, -470.0], [245, 99, 4, 142, 121, 102]),
    ];
    for (scale, zero, x, y) in cases {
        assert_eq!(codes(scale, zero, U8, &x), y);
        assert_eq!(values(scale, zero, U8, &y), x);
    }
}

/// onnx, `dequantizelinear.py`: `test_dequantizelinear`, `_uint16`, `_int16`, `_uint4`, `_int4`, `_uint2`, `_int2`.
#[test]
fn onnx_dequantize_linear() {
    assert_eq!(values(2.0, 128, U8, &[0, 3, 128, 255]), [-256.0, -250.0, 0.0, 254.0]);
    assert_eq!(values(2.0, 32767, U16, &[30000, 31000, 32768, 33000]), [-5534.0, -3534.0, 2.0, 466.0]);
    assert_eq!(values(2.0, -1024, I16, &[-300, -30, -1025, 1270]), [1448.0, 1988.0, -2.0, 4588.0]);
    assert_eq!(values(2.0, 1, U4, &[0, 1, 7, 10, 15]), [-2.0, 0.0, 12.0, 18.0, 28.0]);
    assert_eq!(values(2.0, 1, I4, &[0, 1, 7, -4, -8]), [-2.0, 0.0, 12.0, -10.0, -18.0]);
    assert_eq!(values(2.0, 1, U2, &[0, 1, 2, 3]), [-2.0, 0.0, 2.0, 4.0]);
    assert_eq!(values(2.0, 1, I2, &[0, 1, -1, -2]), [-2.0, 0.0, -4.0, -6.0]);
}

/// onnx, `dynamicquantizelinear.py`: `test_dynamicquantizelinear`, `_max_adjusted`, `_min_adjusted`; scales and
/// zero points as published, codes from its formula in f32.
#[test]
fn onnx_dynamic_quantize_linear() {
    let cases = [
        (vec![0.0, 2.0, -3.0, -2.5, 1.34, 0.5], 0.019_607_844, 153, vec![153, 255, 0, 26, 221, 179]),
        (vec![-1.0, -2.1, -1.3, -2.5, -3.34, -4.0], 0.015_686_275, 255, vec![191, 121, 172, 96, 42, 0]),
        (
            vec![1.0, 2.1, 1.3, 2.5, 3.34, 4.0, 1.5, 2.6, 3.9, 4.0, 3.0, 2.345],
            0.015_686_275,
            0,
            vec![64, 134, 83, 159, 213, 255, 96, 166, 249, 255, 191, 149],
        ),
    ];
    for (x, scale, zero, y) in cases {
        let x: Vec<f32> = x;
        assert_eq!(codes(scale, zero, U8, &x), y);
        let row = Array2::from_shape_vec((1, x.len()), x).unwrap();
        let tensor = Uniform::int8().affine().quantize(&Layer::new(&Parameter::linear("x", row))).unwrap();
        assert_eq!(tensor.zero_points(), Some(&[zero as u8][..]));
        assert!((tensor.scales()[0] - scale).abs() <= 4e-9);
        // Half a step apart, a scale an ulp smaller may round a tie the other way.
        let far = tensor.codes().unwrap().iter().zip(&y).map(|(a, b)| (i32::from(*a) - b).abs()).max();
        assert!(far <= Some(1));
    }
}

/// onnxruntime, `test_quant_util.py`: `test_compute_scale_zp`, twelve rows of range → (zero point, scale).
#[test]
fn onnxruntime_compute_scale_zp() {
    let tiny = 0.1 * f64::from(f32::MIN_POSITIVE);
    let rows = [
        (0.0, 0.0, (-127, 127), true, 0, 1.0),
        (1.0, -1.0, (-127, 127), true, 0, 1.0),
        (0.0, 0.0, U8, true, 0, 1.0),
        (1.0, -1.0, U8, true, 0, 1.0),
        (-1.0, 2.0, (-127, 127), true, 0, 2.0 / 127.0),
        (-1.0, 2.0, (-127, 127), false, -42, 3.0 / 254.0),
        (-1.0, 2.0, U8, true, 128, 4.0 / 255.0),
        (-1.0, 2.0, U8, false, 85, 3.0 / 255.0),
        (-tiny, tiny, U8, true, 0, 1.0),
        (-tiny, 0.0, U8, false, 0, 1.0),
        // A least range of 1e-4 is the caller's to add.
        (0.0, 1e-4, U8, false, 0, 1e-4 / 255.0),
        (0.0, 1e-4, I8, true, 0, 2e-4 / 255.0),
        (0.0, 1e-4, U16, false, 0, 1e-4 / 65535.0),
        (0.0, 1e-4, I16, true, 0, 2e-4 / 65535.0),
    ];
    for (min, max, (low, high), symmetric, zero, scale) in rows {
        let of = if symmetric { Affine::of_symmetric_range } else { Affine::of_range };
        let map = of(min, max, low..=high).unwrap();
        assert_eq!(map.zero_point(), zero, "{min} {max} {low} {high}");
        assert!((f64::from(map.scale()) / scale - 1.0).abs() < 1.2e-7, "{} {scale}", map.scale());
    }
}

/// A tensor with these scales and zero points, as a file would hold it.
fn tensor(
    scheme: &str,
    shape: &[usize],
    scale_shape: &[usize],
    scales: &[f32],
    parts: [&[u8]; 2],
) -> QuantizedTensor {
    let bytes = |name, bytes: &[u8]| Part::new(name, PartType::U8, vec![bytes.len()], bytes.to_vec());
    let scales: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut all =
        vec![bytes("codes", parts[0]), Part::new("scales", PartType::F32, scale_shape.to_vec(), scales)];
    if !parts[1].is_empty() {
        all.push(bytes("zero_points", parts[1]));
    }
    QuantizedTensor::from_parts(shape, scheme.parse::<Scheme>().unwrap(), &all).unwrap()
}

/// onnx, `reference_evaluator_test.py`: `test_blocked_dequantize_linear`; blocks that do not divide the axis.
#[test]
fn onnx_blocked_dequantize() {
    let counts: Vec<u8> = (0..24).collect();
    let a =
        tensor("int8 affine group:2", &[3, 4], &[3, 2], &[1., 2., 3., 4., 5., 6.], [&counts[..12], &[0; 6]]);
    let expected = arr2(&[[0., 1., 4., 6.], [12., 15., 24., 28.], [40., 45., 60., 66.]]);
    assert_eq!(a.decode::<f32>(), expected.into_dyn());
    let b =
        tensor("int8 affine group:2", &[3, 4], &[3, 2], &[1., 2., 3., 4., 5., 6.], [&counts[..12], &[1; 6]]);
    let expected = arr2(&[[-1., 0., 2., 4.], [9., 12., 20., 24.], [35., 40., 54., 60.]]);
    assert_eq!(b.decode::<f32>(), expected.into_dyn());
    let d = tensor(
        "int8 symmetric group:3",
        &[3, 8],
        &[3, 3],
        &[2., 1., 3., 2., 1., 3., 2., 1., 3.],
        [&counts, &[]],
    );
    let expected = arr2(&[
        [0., 2., 4., 3., 4., 5., 18., 21.],
        [16., 18., 20., 11., 12., 13., 42., 45.],
        [32., 34., 36., 19., 20., 21., 66., 69.],
    ]);
    assert_eq!(d.decode::<f32>(), expected.into_dyn());
    let e = tensor("int8 affine group:3@0", &[6], &[2, 1], &[2., 3.], [&counts[..6], &[1, 2]]);
    assert_eq!(e.decode::<f32>().into_raw_vec_and_offset().0, [-2., 0., 2., 3., 6., 9.]);
}

/// onnx, `reference_evaluator_test.py`: `test_quantize_linear_int4`, odd lengths, which end inside a byte.
#[test]
fn onnx_int4_tail() {
    let x = [-20.0, -14.5, 0.0, 1.5, 2.0, 3.3, 10.0];
    assert_eq!(values(2.0, 0, I4, &codes(2.0, 0, I4, &x)), [-16.0, -14.0, 0.0, 2.0, 2.0, 4.0, 10.0]);
    let x = [-1.0, 0.0, 1.5, 2.0, 3.3, 10.0, 40.0];
    assert_eq!(values(2.0, 0, U4, &codes(2.0, 0, U4, &x)), [0.0, 0.0, 2.0, 2.0, 4.0, 10.0, 30.0]);
    // The seven codes of 4 bits, low nibble first.
    let packed = tensor("int4 affine tensor", &[7], &[1], &[2.0], [&[0x00, 0x11, 0x52, 0x0f], &[0]]);
    assert_eq!(packed.decode::<f32>().into_raw_vec_and_offset().0, [0., 0., 2., 2., 4., 10., 30.]);
}

/// Per-channel weights as NNI's `test_torch_QAT_quantizer` fake-quantizes them: affine, 8 bits, range with 0.
#[test]
fn nni_weights() {
    let weight = arr2(&[[1.1287f32, 2.3456], [3.7814, 5.9723]]);
    let quantizer = Uniform::new(Bits::EIGHT).affine().per_tensor();
    let tensor = quantizer.quantize(&Layer::new(&Parameter::linear("w", weight))).unwrap();
    let expected = [1.1242, 2.3421, 3.7707, 5.9723];
    for (back, expected) in tensor.decode::<f64>().iter().zip(expected) {
        assert!((back / expected - 1.0).abs() < 1e-4, "{back} {expected}");
    }
    assert!((tensor.scales()[0] - 5.9723 / 255.0).abs() < 1e-8);
}

fn saturated(quantizer: ElementWise, x: &[f32]) -> Vec<f32> {
    let parameter = Parameter::other("x", ndarray::arr1(x));
    let tensor = quantizer.saturate().quantize(&Layer::new(&parameter)).unwrap();
    tensor.decode::<f32>().into_raw_vec_and_offset().0
}

/// onnx, `reference_evaluator_test.py`: `test_float8_4_types`, the finite inputs.
#[test]
fn onnx_float8() {
    let x = [0.406_835_94, 352., 416., 336., 304., 272., -248., -100., 1e-4, 1e-2, 416., 432., 1e5];
    let e4m3 = [0.40625, 352., 416., 320., 320., 256., -256., -96., 0., 0.009_765_625, 416., 448., 448.];
    let e5m2 = [
        0.4375,
        384.,
        384.,
        320.,
        320.,
        256.,
        -256.,
        -96.,
        0.000_106_811_52,
        0.009_765_625,
        384.,
        448.,
        57344.,
    ];
    assert_eq!(saturated(ElementWise::f8_e4m3(), &x), e4m3);
    assert_eq!(saturated(ElementWise::f8_e5m2(), &x), e5m2);
}

/// onnx, `cast.py`: `test_cast_FLOAT_to_FLOAT8E4M3FN` and `…E5M2`, the finite inputs; expected from its formula.
/// A negative zero is stored as zero here.
#[test]
fn onnx_cast_float8() {
    let x = [
        0.478_925_47,
        0.480_336_67,
        0.499_684_87,
        0.819_105_45,
        0.470_312_48,
        0.722_903_8,
        1e6,
        1e-7,
        -1e-7,
        -1e6,
    ];
    assert_eq!(
        saturated(ElementWise::f8_e4m3(), &x),
        [0.46875, 0.46875, 0.5, 0.8125, 0.46875, 0.75, 448., 0., 0., -448.]
    );
    assert_eq!(
        saturated(ElementWise::f8_e5m2(), &x),
        [0.5, 0.5, 0.5, 0.875, 0.5, 0.75, 57344., 0., 0., -57344.]
    );
}

/// onnx, `quantizelinear.py`: `test_quantizelinear_e4m3fn`, `_e5m2`, after the division by scale 2; codes from the
/// formats' definitions.
#[test]
fn onnx_quantize_float8() {
    let x = ndarray::arr1(&[0.0f32, 0.5, 1.0, 50_000.0, 100.0]);
    let parameter = Parameter::other("x", x);
    let codes = |quantizer: ElementWise| {
        let tensor = quantizer.saturate().quantize(&Layer::new(&parameter)).unwrap();
        tensor.codes().unwrap().into_owned()
    };
    assert_eq!(codes(ElementWise::f8_e4m3()), [0x00, 0x30, 0x38, 0x7e, 0x6c]);
    assert_eq!(codes(ElementWise::f8_e5m2()), [0x00, 0x38, 0x3c, 0x7a, 0x56]);
}
