use ndarray::Array2;

use super::*;
use crate::quantize::testing::weights;
use crate::{Evidence, Model, Needs, Parameter};

const ALL: [BlockFormat; 6] = [
    BlockFormat::Q8_0,
    BlockFormat::Q4_0,
    BlockFormat::Q4_1,
    BlockFormat::Q5_0,
    BlockFormat::Q4K,
    BlockFormat::Q6K,
];

fn quantized(format: BlockFormat, weights: &Array2<f32>) -> QuantizedTensor {
    let parameter = Parameter::linear("w", weights.clone());
    Ggml::new(format).quantize(&Layer::new(&parameter)).unwrap()
}

/// Root of Σ (w − Q(w))² / Σ w².
fn error(tensor: &QuantizedTensor, weights: &Array2<f32>) -> f64 {
    let square = |(a, b): (&f64, &f32)| (a - f64::from(*b)).powi(2);
    let lost: f64 = tensor.decode::<f64>().iter().zip(weights).map(square).sum();
    (lost / weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>()).sqrt()
}

fn values(len: usize) -> Array2<f32> {
    let value = |i: usize| (i as f32 * 37.0 % 101.0 - 50.5) / 16.0;
    Array2::from_shape_fn((1, len), |(_, i)| value(i))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// What the Python package `gguf` 0.19 makes of `values(32)`, by `gguf.quants.quantize`.
#[test]
fn prescribed_blocks_are_those_of_gguf() {
    let of = |format| hex(&quantized(format, &values(32)).parts()[0].bytes);
    assert_eq!(of(BlockFormat::Q8_0), "5d2681de3b9af754b3106dcc2989e643a2ff5cbb1875d43190ed4aa90663c21f7cdc");
    assert_eq!(of(BlockFormat::Q4_0), "5036e046acf257bd1379df358be046acf268");
    assert_eq!(of(BlockFormat::Q4_1), "ab3650c2d0369bf257bd1369ce258ae0469cf258");
    assert_eq!(of(BlockFormat::Q5_0), "5032a4a52d6dc07c37f3af6b26e29e5a15d18d48f4b0");
}

/// What the Python package `gguf` 0.19 reads, by `gguf.quants.dequantize`, out of blocks of bytes that follow from their place.
#[test]
#[expect(clippy::unreadable_literal, reason = "numbers as they were printed")]
fn blocks_decode_as_in_gguf() {
    let blocks = |format: BlockFormat| -> Vec<u8> {
        let byte = |i: usize| (i * 73 + 41) as u8;
        let mut blocks: Vec<u8> = (0..format.bytes()).map(byte).collect();
        // Halves of 0.0103 and 0.5.
        for (&at, half) in format.codec().halves().iter().zip([0x2146u16, 0x3800]) {
            blocks[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
        blocks
    };
    let read = |format: BlockFormat| {
        let tensor = QuantizedTensor::read_blocks(&[1, format.weights()], format, blocks(format)).unwrap();
        let all = tensor.decode::<f32>();
        let some: Vec<f32> = all.iter().step_by(format.weights() / 8).copied().collect();
        (some, all.iter().map(|&x| f64::from(x)).sum::<f64>())
    };
    assert_eq!(
        read(BlockFormat::Q8_0),
        (
            vec![
                -0.7106781,
                -0.33988953,
                0.030899048,
                0.40168762,
                0.7724762,
                1.1432648,
                -1.1226654,
                -0.75187683
            ],
            -0.494384765625
        )
    );
    assert_eq!(
        read(BlockFormat::Q4_0),
        (
            vec![
                0.030899048,
                0.07209778,
                -0.051498413,
                -0.010299683,
                0.030899048,
                0.051498413,
                -0.08239746,
                -0.061798096
            ],
            -0.3398895263671875
        )
    );
    assert_eq!(
        read(BlockFormat::Q4_1),
        (
            vec![0.6338959, 0.5102997, 0.5514984, 0.59269714, 0.54119873, 0.5720978, 0.59269714, 0.6132965],
            18.317428588867188
        )
    );
    assert_eq!(
        read(BlockFormat::Q5_0),
        (
            vec![
                0.15449524,
                0.030899048,
                -0.09269714,
                -0.051498413,
                0.13389587,
                -0.16479492,
                -0.14419556,
                0.04119873
            ],
            -0.4634857177734375
        )
    );
    assert_eq!(
        read(BlockFormat::Q4K),
        (
            vec![-23.294937, -26.507477, 1.3736115, -0.64416504, -10.55336, -15.393219, 4.098343, -11.5],
            -2886.7308349609375
        )
    );
    assert_eq!(
        read(BlockFormat::Q6K),
        (
            vec![
                1.6582489, 11.401749, 0.26779175, -3.9962769, -3.5327911, -5.6545258, -22.762299, -6.1798096
            ],
            -152.88848876953125
        )
    );
}

#[test]
fn blocks_of_every_format_read_back() {
    for (format, most) in ALL.into_iter().zip([0.006, 0.09, 0.09, 0.05, 0.08, 0.02]) {
        for rows in [1, 3] {
            let weights = weights(rows, 512, 0.0);
            let tensor = quantized(format, &weights);
            assert_eq!(tensor.scheme(), &crate::quantize::Scheme::Ggml(format));
            assert_eq!(tensor.bytes(), rows * 512 / format.weights() * format.bytes());
            assert!(error(&tensor, &weights) < most, "{format}: {}", error(&tensor, &weights));
            assert!(tensor.codes().is_err() && tensor.scales().is_empty() && tensor.outcome().is_none());
            let read = QuantizedTensor::from_parts(&[rows, 512], tensor.scheme().clone(), &tensor.parts());
            assert_eq!(read.unwrap(), tensor);
        }
    }
}

#[test]
fn zeros_stay_and_notes_say_what_that_took() {
    for format in ALL {
        for zeros in [0.01, 0.9] {
            let weights = weights(4, 512, zeros);
            let tensor = quantized(format, &weights);
            assert!(
                weights.iter().zip(&tensor.decode::<f32>()).all(|(w, back)| *w != 0.0 || back.to_bits() == 0)
            );
            let kept = if format.keeps_zeros() { format } else { BlockFormat::Q5_0 };
            assert_eq!(tensor.scheme(), &crate::quantize::Scheme::Ggml(kept));
            assert_eq!(tensor.outcome().is_some(), kept != format, "{format}");
        }
    }
    let note = "a weight of 0 would not stay 0: stored as q5-0, not q4-k";
    assert_eq!(quantized(BlockFormat::Q4K, &weights(4, 512, 0.9)).outcome().unwrap().notes, [note]);
    // All of them 0, and zeros among weights of one sign, are no trouble.
    for weights in [Array2::zeros((2, 256)), Array2::from_shape_fn((2, 256), |(_, i)| (i % 3) as f32)] {
        let tensor = quantized(BlockFormat::Q4K, &weights);
        assert_eq!(tensor.scheme().to_string(), "ggml q4-k");
        assert!(
            weights.iter().zip(&tensor.decode::<f32>()).all(|(w, back)| *w != 0.0 || back.to_bits() == 0)
        );
    }
}

#[test]
fn rows_that_no_block_fits_get_another_format() {
    let scheme = |format, columns| quantized(format, &weights(2, columns, 0.0)).scheme().to_string();
    assert_eq!(scheme(BlockFormat::Q4K, 96), "ggml q5-0");
    assert_eq!(scheme(BlockFormat::Q6K, 96), "ggml q8-0");
    assert_eq!(scheme(BlockFormat::Q6K, 9), "f16");
    let tensor = quantized(BlockFormat::Q4K, &weights(2, 9, 0.0));
    assert_eq!(
        tensor.outcome().unwrap().notes,
        [
            "its rows of 9 are no multiple of 256: stored as q5-0, not q4-k",
            "its rows of 9 are no multiple of 32: stored as f16, not q5-0"
        ]
    );
}

#[test]
fn scales_past_half_precision_are_an_error() {
    for format in ALL {
        let mut weights = weights(2, 512, 0.0);
        weights[[1, 300]] = 1e30;
        let parameter = Parameter::linear("w", weights);
        let error = Ggml::new(format).quantize(&Layer::new(&parameter)).unwrap_err();
        let at = 512 + 300 / format.weights() * format.weights();
        let text = format!("layer `w`: the weights from flat index {at} on are too large for {format}, ");
        assert!(error.to_string().starts_with(&text), "{error}");
    }
}

/// Any numbers whatever: small, large, of one sign, equal.
#[test]
fn odd_blocks_stay_near() {
    let rows: [fn(usize) -> f32; 7] = [
        |_| 1.0,
        |_| -1.0,
        |i| if i == 77 { -3.0 } else { 0.0 },
        |i| 1e-38 * i as f32,
        |i| 1e-7 * (i as f32 - 100.5),
        |i| 3e5 * (i as f32 + 0.5).sin(),
        |i| -5.0 - (i % 7) as f32,
    ];
    // The largest multiple of a half in each: what a scale that is too small for a half can cost.
    for (format, multiple) in ALL.into_iter().zip([127.0, 8.0, 16.0, 16.0, 63.0 * 16.0, 128.0 * 32.0]) {
        for row in rows {
            let weights = Array2::from_shape_fn((1, 256), |(_, i)| row(i));
            let most = weights.iter().fold(0f32, |most, x| most.max(x.abs()));
            if format == BlockFormat::Q4_1 && most > 65504.0 {
                // The least weight of a block is stored as a half.
                let parameter = Parameter::linear("w", weights);
                assert!(Ggml::new(format).quantize(&Layer::new(&parameter)).is_err());
                continue;
            }
            let back = quantized(format, &weights).decode::<f32>();
            assert!(back.iter().all(|x| x.is_finite()));
            let lost = back.iter().zip(&weights).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            // And never more than there was.
            let small = most.min(multiple * 2f32.powi(-25));
            assert!(lost <= 0.14 * most + small, "{format}: {lost} of {most}");
        }
    }
}

/// Columns that multiply large inputs are rounded with more care.
#[test]
fn evidence_says_what_counts() {
    let weights = weights(8, 256, 0.0);
    let model = Model::builder().parameter(Parameter::linear("w", weights.clone())).build().unwrap();
    let mut evidence = Evidence::new(&model, Needs::MOMENTS);
    let size = |j: usize| if j.is_multiple_of(5) { 10.0 } else { 0.1 };
    evidence
        .record_input("w", &Array2::from_shape_fn((4, 256), |(i, j)| size(j) * (1.0 + i as f32)))
        .unwrap();
    for format in [BlockFormat::Q4K, BlockFormat::Q6K] {
        let aware = Ggml::new(format).quantize(&evidence.layer(&model, "w").unwrap()).unwrap();
        let loss = |tensor: &QuantizedTensor| -> f64 {
            let lost = tensor.decode::<f64>();
            let of = |((at, back), w): ((usize, &f64), &f32)| {
                (f64::from(size(at % 256)) * (back - f64::from(*w))).powi(2)
            };
            lost.iter().enumerate().zip(&weights).map(of).sum()
        };
        assert!(loss(&aware) < 0.8 * loss(&quantized(format, &weights)), "{format}");
    }
}

#[test]
fn blocks_that_lie() {
    let tensor = quantized(BlockFormat::Q8_0, &weights(2, 64, 0.0));
    let read = |shape: &[usize], parts: &[crate::quantize::Part<'_>]| {
        QuantizedTensor::from_parts(shape, tensor.scheme().clone(), parts).unwrap_err().to_string()
    };
    let parts = tensor.parts();
    assert!(read(&[4, 31], &parts).ends_with("rows of 31 are no multiple of the 32 weights of a block"));
    assert!(read(&[2, 32], &parts).ends_with("136 bytes are not the 68 of its blocks"));
    assert!(read(&[usize::MAX, 32], &parts).ends_with("no array has such a shape"));
    assert!(read(&[2, 64], &[]).ends_with("it has 0 parts in place of `blocks`"));
    let mut wrong = parts.clone();
    wrong[0].bytes.to_mut()[2 * 34 + 1] = 0x7c;
    assert!(read(&[2, 64], &wrong).ends_with("the scale of block 2 is no finite number"));
    wrong[0].name = "codes".into();
    assert!(read(&[2, 64], &wrong).ends_with("part `blocks` is missing"));
}
