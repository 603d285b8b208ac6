//! What must hold whatever the numbers are.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use ndarray::{Array2, ArrayD, Axis};
use niwaki::importance::{Magnitude, Scores};
use niwaki::prune::{Channel, NOfM, Pruner, Scope, Sparsity, Tiles, Unstructured};
use niwaki::quantize::{
    Bits, BlockFormat, Distillation, ElementWise, Ggml, Gptq, GroupSize, MultiScale, Quantizer, Range,
    Uniform,
};
use niwaki::recover::{LeastSquares, Recovery, Removal};
use niwaki::{Compressor, Coupling, Evidence, Layer, Model, Needs, Parameter};
use proptest::collection::vec;
use proptest::prelude::*;

/// A matrix with some exact zeros.
fn matrix(
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> impl Strategy<Value = Array2<f32>> {
    (rows, columns).prop_flat_map(|(rows, columns)| {
        let value = prop_oneof![8 => -2.0f32..2.0, 1 => Just(0.0f32)];
        vec(value, rows * columns).prop_map(move |v| Array2::from_shape_vec((rows, columns), v).unwrap())
    })
}

fn one_layer(weights: &Array2<f32>) -> Model<f32> {
    Model::builder().parameter(Parameter::linear("w", weights.clone())).build().unwrap()
}

fn magnitude_scores(model: &Model<f32>) -> Scores<f32> {
    Scores::compute(&Magnitude::l1(), model, &Evidence::new(model, Needs::MOMENTS)).unwrap()
}

fn decode(quantizer: &dyn Quantizer<f32>, weights: &Array2<f32>) -> ArrayD<f32> {
    let parameter = Parameter::linear("w", weights.clone());
    quantizer.quantize(&Layer::new(&parameter)).unwrap().decode()
}

/// Every quantizer whose settings fit any matrix.
fn quantizers() -> Vec<Box<dyn Quantizer<f32>>> {
    let mut all: Vec<Box<dyn Quantizer<f32>>> = vec![
        Box::new(ElementWise::f16()),
        Box::new(ElementWise::bf16()),
        Box::new(ElementWise::f8_e4m3()),
        Box::new(ElementWise::f8_e5m2()),
        Box::new(ElementWise::fixed(3, 4).unwrap()),
        Box::new(MultiScale::nested(&[2, 2, 4]).unwrap()),
        Box::new(MultiScale::refitted(&[4, 4]).unwrap()),
    ];
    for bits in 2..=8 {
        let bits = Bits::new(bits).unwrap();
        all.push(Box::new(Uniform::new(bits)));
        all.push(Box::new(Uniform::new(bits).affine().per_tensor()));
        all.push(Box::new(Uniform::new(bits).affine().per_group(GroupSize::new(3).unwrap())));
        all.push(Box::new(Uniform::new(bits).range(Range::Mse)));
    }
    all
}

/// Blocks of every format.
fn blocks() -> impl Iterator<Item = Box<dyn Quantizer<f32>>> {
    use BlockFormat::{Q4_0, Q4_1, Q4K, Q5_0, Q6K, Q8_0};
    [Q8_0, Q4_0, Q4_1, Q5_0, Q4K, Q6K]
        .into_iter()
        .map(|format| -> Box<dyn Quantizer<f32>> { Box::new(Ggml::new(format)) })
}

/// Inputs that share a few sources, with their mean off 0.
fn dependent(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let source = |k: usize| ((seed + 1) as f32 * 0.7 + (i * (2 * k + 3)) as f32).sin();
        0.3 + source(j % 3) + 0.5 * source(j % 5) + 0.2 * ((seed + 31 * i + 17 * j * j) as f32).sin()
    })
}

/// The settings of `Gptq` that a property is tried with.
fn learned() -> Vec<Gptq> {
    let half = Sparsity::new(0.5).unwrap();
    let plain = Gptq::new();
    vec![
        plain,
        plain.act_order(),
        plain.static_groups().damp(1e-9).unwrap(),
        plain.search().polish(2),
        plain.sparsity(half).block(8).unwrap(),
        plain.sparsity(half).act_order().polish(2),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rounding_is_within_half_a_step(weights in matrix(1..9, 1..40), bits in 2u32..=8) {
        let bits_setting = Bits::new(bits).unwrap();
        let symmetric = decode(&Uniform::new(bits_setting), &weights);
        let affine = decode(&Uniform::new(bits_setting).affine(), &weights);
        for (row, original) in weights.rows().into_iter().enumerate() {
            let (low, high) = original.iter().fold((0.0f32, 0.0f32), |(l, h), &w| (l.min(w), h.max(w)));
            let half = (high.max(-low) / ((1 << (bits - 1)) - 1) as f32) / 2.0;
            let half_affine = (high - low) / ((1u32 << bits) - 1) as f32 / 2.0;
            for (column, w) in original.iter().enumerate() {
                let slack = 1e-6 * (high - low) + 1e-30;
                prop_assert!((symmetric[[row, column]] - w).abs() <= half + slack);
                // The exact code for 0 moves the range by up to half a step more at its ends.
                prop_assert!((affine[[row, column]] - w).abs() <= 2.0 * half_affine + slack);
            }
        }
    }

    #[test]
    fn what_is_decoded_quantizes_to_itself(weights in matrix(1..6, 1..30)) {
        let stable: Vec<Box<dyn Quantizer<f32>>> = vec![
            Box::new(ElementWise::f16()),
            Box::new(ElementWise::f8_e4m3()),
            Box::new(ElementWise::fixed(3, 4).unwrap()),
            Box::new(Uniform::int8()),
            Box::new(Uniform::new(Bits::new(4).unwrap())),
        ];
        for quantizer in stable {
            let once = decode(quantizer.as_ref(), &weights);
            let again = decode(quantizer.as_ref(), &once.clone().into_dimensionality().unwrap());
            for (a, b) in once.iter().zip(&again) {
                prop_assert!((a - b).abs() <= 1e-6 * a.abs(), "{quantizer:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn zeros_survive_every_quantizer(weights in matrix(1..6, 1..70)) {
        for quantizer in quantizers().into_iter().chain(blocks()) {
            let decoded = decode(quantizer.as_ref(), &weights);
            for (w, d) in weights.iter().zip(&decoded) {
                prop_assert!(*w != 0.0 || d.to_bits() == 0, "{quantizer:?}: {w} became {d}");
            }
        }
    }

    /// A row of blocks depends on nothing but itself.
    #[test]
    fn rows_of_blocks_follow_their_weights(weights in matrix(2..5, 256..257)) {
        let weights = weights.mapv(|w| if w == 0.0 { 0.5 } else { w });
        let turned = weights.slice_axis(Axis(0), ndarray::Slice::new(0, None, -1)).to_owned();
        for quantizer in blocks() {
            let decoded = decode(quantizer.as_ref(), &weights);
            let backwards = decode(quantizer.as_ref(), &turned);
            prop_assert_eq!(decoded.slice_axis(Axis(0), ndarray::Slice::new(0, None, -1)), backwards.view());
            // Half of the widest step of 15 over a range of 4, and what a scale in half precision and 6 bits lacks.
            for (w, d) in weights.iter().zip(&decoded) {
                prop_assert!((w - d).abs() < 0.4, "{quantizer:?}: {w} became {d}");
            }
        }
    }

    #[test]
    fn scaling_by_two_keeps_codes(weights in matrix(1..6, 1..30), power in -6i32..6) {
        let factor = 2f32.powi(power);
        for quantizer in [Uniform::int8(), Uniform::new(Bits::new(3).unwrap()).affine()] {
            let scaled = decode(&quantizer, &weights.mapv(|w| w * factor));
            prop_assert_eq!(scaled, decode(&quantizer, &weights).mapv(|w| w * factor));
        }
    }

    #[test]
    fn permuted_rows_give_permuted_answers(weights in matrix(2..8, 4..24), seed in 0usize..1000) {
        let rows = weights.nrows();
        let order: Vec<usize> = (0..rows).map(|k| (k + seed) % rows).collect();
        let permuted = weights.select(Axis(0), &order);
        for quantizer in quantizers() {
            let expected = decode(quantizer.as_ref(), &weights).select(Axis(0), &order);
            if !format!("{quantizer:?}").contains("Tensor") {
                prop_assert_eq!(decode(quantizer.as_ref(), &permuted), expected);
            }
        }
        let prune = |weights: &Array2<f32>| {
            let model = one_layer(weights);
            let pruner = Unstructured::new(Sparsity::new(0.4).unwrap()).scope(Scope::PerRow).include_ends();
            let pruned = pruner.plan(&model, &magnitude_scores(&model)).unwrap().apply(&model).unwrap();
            pruned.parameter("w").unwrap().array().clone()
        };
        prop_assert_eq!(prune(&permuted), prune(&weights).select(Axis(0), &order));
    }

    #[test]
    fn counts_are_exact(weights in matrix(1..9, 1..33), removed in 0.0f64..0.999) {
        let weights = weights.mapv(|w| if w == 0.0 { 0.5 } else { w });
        let (model, sparsity) = (one_layer(&weights), Sparsity::new(removed).unwrap());
        let zeros = |pruner: &dyn Pruner<f32>| {
            let pruned = pruner.plan(&model, &magnitude_scores(&model)).unwrap().apply(&model).unwrap();
            model.parameter_count() - pruned.nonzero_count()
        };
        let expected = (weights.len() as f64 * removed + 1e-9).floor() as usize;
        for scope in [Scope::PerLayer, Scope::Global] {
            prop_assert_eq!(zeros(&Unstructured::new(sparsity).scope(scope).include_ends()), expected);
        }
        let per_row = (weights.ncols() as f64 * removed + 1e-9).floor() as usize * weights.nrows();
        prop_assert_eq!(zeros(&Unstructured::new(sparsity).scope(Scope::PerRow).include_ends()), per_row);
        let tiles = (weights.nrows().div_ceil(2) * weights.ncols().div_ceil(2)) as f64;
        let gone = zeros(&Tiles::new(2, 2, sparsity).include_ends());
        prop_assert!(gone <= 4 * (tiles * removed + 1e-9).floor() as usize);
    }

    #[test]
    fn n_of_m_keeps_n_of_each_m(weights in matrix(1..6, 1..6)) {
        let wide = ndarray::concatenate(Axis(1), &[weights.view(), weights.view(), weights.view(), weights.view()]).unwrap();
        let wide = wide.mapv(|w| if w == 0.0 { 0.25 } else { w });
        let model = one_layer(&wide);
        let pruner = NOfM::new(2, 4).unwrap().include_ends();
        let pruned = pruner.plan(&model, &magnitude_scores(&model)).unwrap().apply(&model).unwrap();
        for group in pruned.parameter("w").unwrap().values().chunks(4) {
            prop_assert_eq!(group.iter().filter(|w| **w != 0.0).count(), 2);
        }
    }

    #[test]
    fn pruned_stays_pruned_through_the_whole_pipeline(weights in matrix(4..9, 8..33), removed in 0.1f64..0.9) {
        let model = one_layer(&weights);
        for quantizer in quantizers() {
            let compressor = Compressor::builder()
                .pruner(Unstructured::new(Sparsity::new(removed).unwrap()).include_ends())
                .quantizer(quantizer)
                .build()
                .unwrap();
            let evidence = compressor.evidence(&model);
            let plan = compressor.plan(&model, &evidence).unwrap();
            let compressed = compressor.compress(&model, &evidence).unwrap();
            compressed.verify().unwrap();
            let (mask, decoded) = (plan.weight_mask("w").unwrap(), compressed.array("w").unwrap());
            for (k, w) in decoded.iter().enumerate() {
                prop_assert!(mask.keeps(k) || w.to_bits() == 0);
            }
        }
    }

    /// Also with fewer samples than inputs, and with inputs that are copies of each other.
    #[test]
    fn least_squares_never_raises_the_error_of_its_layer(
        inputs in matrix(3..20, 4..9),
        seed in 0usize..100,
        doubled in any::<bool>(),
        removed in 0.2f64..0.8,
    ) {
        let mut x = inputs;
        if doubled {
            let first = x.column(0).to_owned();
            x.column_mut(1).assign(&first);
        }
        let d = x.ncols();
        let wave = |rows: usize, columns: usize, phase: usize| {
            Array2::from_shape_fn((rows, columns), |(i, j)| ((phase + 7 * i + 3 * j * j) as f32).sin())
        };
        let (first, second) = (wave(d, 5, seed), wave(4, d, seed + 1));
        let model = Model::builder()
            .parameter(Parameter::linear("first", first))
            .parameter(Parameter::linear("second", second.clone()))
            .coupling(Coupling::builder("hidden").outputs(["first"]).inputs(["second"]))
            .build()
            .unwrap();
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        evidence.record_input("second", &x).unwrap();
        let plan = Channel::new(Sparsity::new(removed).unwrap()).plan(&model, &magnitude_scores(&model)).unwrap();
        let pruned = plan.apply(&model).unwrap();
        let recovered = LeastSquares::default().recover(pruned.clone(), &Removal::new(&model, &plan, &evidence)).unwrap();
        let kept = plan.kept("second", 1).unwrap_or_else(|| (0..d).collect());
        let target = x.dot(&second.t()).mapv(f64::from);
        let error = |model: &Model<f32>| {
            let w = model.parameter("second").unwrap().array().clone().into_dimensionality::<ndarray::Ix2>().unwrap();
            let y = x.select(Axis(1), &kept).mapv(f64::from).dot(&w.mapv(f64::from).t());
            (y - &target).mapv(|e| e * e).sum()
        };
        let (before, after) = (error(&pruned), error(&recovered));
        prop_assert!(after <= before * (1.0 + 1e-5) + 1e-9, "{before} -> {after}");
    }

    /// Also with fewer samples than inputs.
    #[test]
    fn learned_rounding_is_never_worse_than_nearest(
        weights in matrix(1..6, 1..30),
        samples in 1usize..50,
        seed in 0usize..100,
    ) {
        let model = one_layer(&weights);
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        evidence.record_input("w", &dependent(samples, weights.ncols(), seed)).unwrap();
        let layer = evidence.layer(&model, "w").unwrap();
        let gram = layer.gram(0).unwrap();
        let costs = |uniform: Uniform| -> Vec<f64> {
            let decoded = uniform.quantize(&layer).unwrap().decode::<f32>();
            let errors = (weights.clone().into_dyn() - decoded).mapv(f64::from);
            let errors = errors.into_dimensionality::<ndarray::Ix2>().unwrap();
            errors.rows().into_iter().map(|row| row.dot(gram).dot(&row)).collect()
        };
        let four = Uniform::new(Bits::FOUR);
        let groups = four.per_group(GroupSize::new(4).unwrap());
        for uniform in [four, Uniform::new(Bits::new(3).unwrap()).affine(), four.per_tensor(), groups] {
            let nearest = costs(uniform);
            // Where weights also go, nearest rounding is that of those that stay.
            for gptq in &learned()[..4] {
                for (learned, nearest) in costs(uniform.rounding(*gptq)).into_iter().zip(&nearest) {
                    prop_assert!(learned <= nearest * (1.0 + 1e-9) + 1e-12, "{gptq:?}: {learned} {nearest}");
                }
            }
        }
    }

    #[test]
    fn pruned_stays_pruned_through_learned_rounding(
        weights in matrix(2..6, 6..24),
        samples in 2usize..40,
        removed in 0.1f64..0.9,
    ) {
        let model = one_layer(&weights);
        let four = Uniform::new(Bits::FOUR);
        let mut all: Vec<Box<dyn Quantizer<f32>>> = vec![
            Box::new(Distillation::new(four).steps(4)),
            Box::new(Distillation::new(four.affine()).steps(4).adversarial(1)),
        ];
        for gptq in learned() {
            all.push(Box::new(four.rounding(gptq)));
            all.push(Box::new(four.affine().per_group(GroupSize::new(4).unwrap()).rounding(gptq)));
        }
        for quantizer in all {
            let compressor = Compressor::builder()
                .pruner(Unstructured::new(Sparsity::new(removed).unwrap()).include_ends())
                .quantizer(quantizer)
                .build()
                .unwrap();
            let mut evidence = compressor.evidence(&model);
            evidence.record_input("w", &dependent(samples, weights.ncols(), 5)).unwrap();
            let plan = compressor.plan(&model, &evidence).unwrap();
            let compressed = compressor.compress(&model, &evidence).unwrap();
            compressed.verify().unwrap();
            let (mask, decoded) = (plan.weight_mask("w").unwrap(), compressed.array("w").unwrap());
            for (k, w) in decoded.iter().enumerate() {
                prop_assert!(mask.keeps(k) || w.to_bits() == 0);
            }
        }
    }
}
