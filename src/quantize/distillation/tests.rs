//! Layers that learn.

use ndarray::{Array, Array2, Array4, ArrayD, Axis, Dimension, Ix2};
use rand::RngExt;

use super::*;
use crate::kernel::seed;
use crate::quantize::{Bits, GroupSize, Range};
use crate::{Coupling, Geometry, Parameter};

fn bits(n: u32) -> Uniform {
    Uniform::new(Bits::new(n).unwrap())
}

fn distill(uniform: Uniform) -> Distillation {
    Distillation::new(uniform).steps(60)
}

fn size(n: usize) -> GroupSize {
    GroupSize::new(n).unwrap()
}

/// Inputs that depend on each other, around a mean that is not 0.
fn inputs(rows: usize, columns: usize) -> Array2<f32> {
    let mut random = seed::stream(11, "inputs");
    let mut bell = || (0..6).map(|_| random.random::<f64>() - 0.5).sum::<f64>();
    let sources = Array2::from_shape_simple_fn((rows, columns.div_ceil(3)), &mut bell);
    let mix = Array2::from_shape_simple_fn((columns.div_ceil(3), columns), &mut bell);
    let own = Array2::from_shape_simple_fn((rows, columns), &mut bell);
    (sources.dot(&mix) + own * 0.2 + 0.3).mapv(|x| x as f32)
}

fn weights(rows: usize, columns: usize, zeros: f64) -> Array2<f32> {
    crate::quantize::testing::weights(rows, columns, zeros)
}

fn model(parameter: Parameter<f32>) -> Model<f32> {
    Model::builder().parameter(parameter).build().unwrap()
}

fn seen<D: Dimension>(model: &Model<f32>, x: &Array<f32, D>) -> Evidence<f32> {
    let mut evidence = Evidence::new(model, Needs::HELD_OUT);
    evidence.record_input("w", x).unwrap();
    evidence
}

fn quantize(quantizer: impl Quantizer<f32>, model: &Model<f32>, evidence: &Evidence<f32>) -> QuantizedTensor {
    quantizer.quantize(&evidence.layer(model, "w").unwrap()).unwrap()
}

fn outcome(tensor: &QuantizedTensor) -> &Outcome {
    tensor.outcome().unwrap()
}

/// δ·G·δᵀ of each row of an array [rows, columns].
fn costs(gram: &Array2<f64>, before: &Array2<f32>, after: &ArrayD<f64>) -> Vec<f64> {
    let errors = before.mapv(f64::from) - after.clone().into_dimensionality::<Ix2>().unwrap();
    (errors.dot(gram) * &errors).sum_axis(Axis(1)).to_vec()
}

#[test]
fn never_worse_than_nearest_and_zeros_stay() {
    for samples in [9, 23, 200] {
        let w = weights(12, 24, 0.3);
        let model = model(Parameter::linear("w", w.clone()));
        let evidence = seen(&model, &inputs(samples, 24));
        let layer = evidence.layer(&model, "w").unwrap();
        let gram = layer.gram(0).unwrap().clone();
        for uniform in [
            bits(4),
            bits(4).affine(),
            bits(4).per_tensor(),
            bits(3).per_axis(1),
            bits(4).affine().per_group(size(7)),
            bits(3).per_group(size(24)).range(Range::Mse),
            bits(2).range(Range::Mse),
            bits(1).affine(),
            bits(4).per_group(size(5)).f16_scales(),
        ] {
            let before = costs(&gram, &w, &quantize(uniform, &model, &evidence).decode());
            for settings in [distill(uniform), distill(uniform).steps(0), distill(uniform).adversarial(2)] {
                let tensor = quantize(settings.clone(), &model, &evidence);
                let (decoded, outcome) = (tensor.decode::<f64>(), outcome(&tensor));
                let after = costs(&gram, &w, &decoded);
                if settings.rounds == 0 {
                    let (ours, nearest): (f64, f64) = (after.iter().sum(), before.iter().sum());
                    let each = after.iter().zip(&before).all(|(a, b)| *a <= b * (1.0 + 1e-6) + 1e-12);
                    // Rows that share a scale are better all together.
                    let shared = [bits(4).per_tensor(), bits(3).per_axis(1)].contains(&uniform);
                    assert!(if shared { ours <= nearest * (1.0 + 1e-6) } else { each }, "{uniform:?}");
                }
                assert!(outcome.error <= outcome.nearest, "{uniform:?} {outcome:?}");
                let better = outcome.held_out.map(|(ours, nearest)| ours <= nearest);
                assert!(
                    better.unwrap_or(layer.held_out().is_err() && samples == 9),
                    "{uniform:?} {outcome:?}"
                );
                assert!(w.iter().zip(&decoded).all(|(w, q)| *w != 0.0 || q.to_bits() == 0), "{uniform:?}");
                let all = costs(&gram, &w, &Array2::zeros(w.raw_dim()).into_dyn()).iter().sum::<f64>();
                let total = after.iter().sum::<f64>() / all;
                assert!((outcome.error - total).abs() <= 1e-6 * total, "{uniform:?} {total} {outcome:?}");
                assert_eq!(tensor.scheme(), quantize(uniform, &model, &evidence).scheme());
            }
        }
    }
}

#[test]
fn learning_pays() {
    let model = model(Parameter::linear("w", weights(24, 48, 0.1)));
    let evidence = seen(&model, &inputs(400, 48));
    for uniform in [bits(4), bits(3), bits(3).affine(), bits(3).per_group(size(20)), bits(4).per_tensor()] {
        let swept = quantize(distill(uniform).steps(0), &model, &evidence);
        let learned = quantize(Distillation::new(uniform), &model, &evidence);
        let (swept, learned) = (outcome(&swept), outcome(&learned));
        assert!(learned.error < 0.5 * learned.nearest, "{uniform:?} {learned:?}");
        assert!(learned.error <= swept.error, "{uniform:?} {learned:?} {swept:?}");
        let (ours, nearest) = learned.held_out.unwrap();
        assert!(ours < 0.6 * nearest, "{uniform:?} {learned:?}");
    }
}

#[test]
fn an_opponent_lowers_the_worst_case() {
    let model = model(Parameter::linear("w", weights(24, 48, 0.1)));
    let evidence = seen(&model, &inputs(400, 48));
    for uniform in [bits(4), bits(3), bits(3).per_group(size(20))] {
        let [plain, opposed] = [distill(uniform), distill(uniform).adversarial(3)]
            .map(|settings| outcome(&quantize(settings, &model, &evidence)).clone());
        let [before, after] = [&plain, &opposed].map(|outcome| outcome.worst_case.unwrap().0);
        assert!(after < before, "{uniform:?} {plain:?} {opposed:?}");
        assert_eq!(plain.nearest, opposed.nearest);
        // No input is as bad as all that the ellipsoid holds, and the mean of them all is less bad.
        assert!(opposed.worst_case.unwrap().0 >= opposed.error);
    }
}

#[test]
fn a_matrix_stored_the_other_way_round() {
    let (w, x) = (weights(12, 30, 0.1), inputs(100, 30));
    let turned = w.t().as_standard_layout().into_owned();
    let (a, b) = (model(Parameter::linear("w", w)), model(Parameter::linear("w", turned).axes(1, 0)));
    for uniform in [bits(4), bits(4).per_group(size(8)), bits(4).per_tensor().affine()] {
        let a = quantize(distill(uniform), &a, &seen(&a, &x)).decode::<f64>();
        let b = quantize(distill(uniform), &b, &seen(&b, &x)).decode::<f64>();
        assert_eq!(a, b.t(), "{uniform:?}");
    }
}

#[test]
fn grouped_and_depthwise_convolutions() {
    for (out, channels, groups) in [(8, 6, 1), (8, 3, 2), (6, 1, 6)] {
        let w = weights(out, channels * 9, 0.1);
        let array = Array4::from_shape_vec((out, channels, 3, 3), w.iter().copied().collect()).unwrap();
        let conv = model(Parameter::conv("w", array, Geometry::new().groups(groups).padding(1)));
        let x = inputs(16, channels * groups * 30);
        let x = Array4::from_shape_vec((16, channels * groups, 5, 6), x.iter().copied().collect()).unwrap();
        let evidence = seen(&conv, &x);
        for settings in [distill(bits(4)), distill(bits(4)).adversarial(1)] {
            let tensor = quantize(settings, &conv, &evidence);
            let (decoded, outcome) = (tensor.decode::<f64>(), outcome(&tensor));
            assert!(outcome.error < outcome.nearest && outcome.rows == out, "{outcome:?}");
            assert!(outcome.held_out.is_some_and(|(ours, nearest)| ours < nearest), "{outcome:?}");
            // Each group answers to its own inputs.
            let decoded = decoded.into_shape_with_order((out, channels * 9)).unwrap();
            let layer = evidence.layer(&conv, "w").unwrap();
            let (mut error, mut all) = (0.0, 0.0);
            for group in 0..groups {
                let own: Vec<usize> = (0..out).filter(|row| row / (out / groups) == group).collect();
                let (gram, w) = (layer.gram(group).unwrap(), w.select(Axis(0), &own));
                error += costs(gram, &w, &decoded.select(Axis(0), &own).into_dyn()).iter().sum::<f64>();
                all += costs(gram, &w, &Array2::zeros(w.raw_dim()).into_dyn()).iter().sum::<f64>();
            }
            assert!((outcome.error - error / all).abs() <= 1e-6 * outcome.error, "{outcome:?}");
        }
    }
}

#[test]
fn recurrent_matrices() {
    let gru = model(Parameter::recurrent("w", weights(12, 10, 0.0), 3));
    let tensor = quantize(distill(bits(4)), &gru, &seen(&gru, &inputs(80, 10)));
    let outcome = outcome(&tensor);
    assert!(outcome.rows == 12 && outcome.error < outcome.nearest, "{outcome:?}");
}

/// An embedding's errors reach the network through the matrix that reads it.
#[test]
fn embeddings_with_and_without_readers() {
    let (table, reader) = (weights(30, 8, 0.0), inputs(20, 8));
    for by_rows in [true, false] {
        let turned = table.t().as_standard_layout().into_owned();
        let table = if by_rows {
            Parameter::embedding("w", table.clone())
        } else {
            Parameter::embedding("w", turned).axes(0, 1)
        };
        let read = Model::builder()
            .parameter(table.clone())
            .parameter(Parameter::linear("reader", reader.clone()))
            .coupling(Coupling::builder("features").outputs(["w"]).inputs(["reader"]))
            .build()
            .unwrap();
        let tensor = quantize(distill(bits(4)), &read, &Evidence::new(&read, Needs::HELD_OUT));
        let known = outcome(&tensor);
        assert!(known.rows == 30 && known.error < known.nearest, "{known:?}");
        assert_eq!((known.held_out, known.worst_case), (None, None));
        // Nobody reads it: nearest rounding, which says why.
        let alone = model(table);
        let evidence = Evidence::new(&alone, Needs::HELD_OUT);
        let tensor = quantize(distill(bits(4)), &alone, &evidence);
        assert_eq!(tensor, quantize(bits(4), &alone, &evidence));
        let notes = &outcome(&tensor).notes;
        assert!(notes.len() == 1 && notes[0].contains("nearest") && notes[0].contains("`w`"), "{notes:?}");
        // Of a whole model in which nothing can be learned that is an error.
        let error = distill(bits(4)).quantize_model(&alone, &evidence).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingEvidence);
    }
}

#[test]
fn dead_inputs() {
    let layer = model(Parameter::linear("w", weights(5, 12, 0.0)));
    let mut x = inputs(50, 12);
    x.column_mut(3).fill(0.0);
    x.column_mut(7).fill(0.0);
    for settings in [distill(bits(4)), distill(bits(4)).damp(0.0).unwrap().adversarial(2)] {
        let tensor = quantize(settings, &layer, &seen(&layer, &x));
        let outcome = outcome(&tensor);
        assert!(outcome.error < outcome.nearest && outcome.error.is_finite(), "{outcome:?}");
        // What nothing flows through still decodes to what can be stood for.
        let decoded = tensor.decode::<f32>();
        assert!(decoded.iter().all(|w| w.is_finite()));
    }
    // Nothing but zeros: nearest rounding, without an error.
    let none = seen(&layer, &Array2::<f32>::zeros((9, 12)));
    let tensor = quantize(distill(bits(4)), &layer, &none);
    assert_eq!(tensor.decode::<f32>(), quantize(bits(4), &layer, &none).decode::<f32>());
    assert_eq!((outcome(&tensor).error, outcome(&tensor).nearest), (0.0, 0.0));
}

#[test]
fn very_few_samples() {
    let layer = model(Parameter::linear("w", weights(6, 20, 0.0)));
    for samples in 1..6 {
        let evidence = seen(&layer, &inputs(samples, 20));
        let known = evidence.layer(&layer, "w").unwrap();
        let tensor = distill(bits(3)).quantize(&known);
        let Ok(tensor) = tensor else {
            // The only samples there are may all be held out.
            assert!(samples < 3 && tensor.unwrap_err().to_string().contains("`w`"));
            continue;
        };
        let outcome = outcome(&tensor);
        assert!(outcome.error <= outcome.nearest, "{outcome:?}");
        if outcome.held_out.is_none() {
            assert!(outcome.notes.iter().any(|note| note.contains("held-out")), "{outcome:?}");
        }
    }
}

#[test]
fn around_the_mean_where_a_bias_can_take_it() {
    let w = weights(6, 20, 0.0);
    let biased = Model::builder()
        .parameter(Parameter::linear("w", w.clone()))
        .parameter(Parameter::bias("b", Array::<f32, _>::zeros(6), "w"))
        .build()
        .unwrap();
    let evidence = seen(&biased, &inputs(200, 20));
    let [plain, centred] =
        [distill(bits(3)), distill(bits(3)).centred()].map(|d| quantize(d, &biased, &evidence));
    assert_ne!(plain, centred);
    assert!(outcome(&centred).held_out.is_some_and(|(ours, nearest)| ours < nearest));
    // Without a bias there is nothing that could take the mean.
    let alone = model(Parameter::linear("w", w));
    let evidence = seen(&alone, &inputs(200, 20));
    assert_eq!(quantize(distill(bits(3)).centred(), &alone, &evidence), plain);
}

#[test]
fn one_scale_for_the_model_stays() {
    let model = Model::builder()
        .parameter(Parameter::linear("w", weights(6, 20, 0.1)))
        .parameter(Parameter::linear("v", weights(4, 6, 0.0)))
        .build()
        .unwrap();
    let mut evidence = seen(&model, &inputs(100, 20));
    evidence.record_input("v", &inputs(100, 6)).unwrap();
    let uniform = bits(4).per_model();
    let nearest = uniform.quantize_model(&model, &evidence).unwrap();
    let learned = distill(uniform).quantize_model(&model, &evidence).unwrap();
    for ((name, nearest), (_, learned)) in nearest.iter().zip(&learned) {
        assert_eq!(nearest.scales(), learned.scales(), "{name}");
        assert!(outcome(learned).error < outcome(learned).nearest, "{name}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let layer = model(Parameter::linear("w", weights(5, 12, 0.0)));
    let evidence = Evidence::new(&layer, Needs::HELD_OUT);
    let error = distill(bits(4)).quantize(&evidence.layer(&layer, "w").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingEvidence);
    assert!(error.to_string().contains("`w`"), "{error}");
    assert_eq!(Quantizer::<f32>::needs(&distill(bits(4))), Needs::HELD_OUT);
    for wrong in [-1.0, f64::NAN, f64::INFINITY] {
        let error = distill(bits(4)).damp(wrong).unwrap_err().to_string();
        assert!(error.contains(&wrong.to_string()), "{error}");
    }
    let error = distill(bits(1)).quantize(&seen(&layer, &inputs(30, 12)).layer(&layer, "w").unwrap());
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "layer `w`: 1-bit symmetric codes hold only 0; use affine");
    // Without held-out samples it learns and says so.
    let mut gram = Evidence::new(&layer, Needs::GRAM);
    gram.record_input("w", &inputs(30, 12)).unwrap();
    let tensor = quantize(distill(bits(4)), &layer, &gram);
    let outcome = outcome(&tensor);
    assert!(outcome.held_out.is_none() && outcome.error < outcome.nearest);
    assert!(outcome.notes[0].contains("held-out") && outcome.notes[0].contains("`w`"), "{outcome:?}");
}
