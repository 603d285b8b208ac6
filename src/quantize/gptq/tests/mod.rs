mod joint;

use ndarray::{Array1, Array2, Array4, ArrayD, Axis};
use rand::RngExt;

use super::*;
use crate::kernel::seed;
use crate::model::Sparsity;
use crate::quantize::{Bits, GroupSize, QuantizedTensor, Quantizer, Range, Uniform};
use crate::{Coupling, Element, ErrorKind, Evidence, Geometry, Model, Needs, Parameter};

fn half() -> Sparsity {
    Sparsity::new(0.5).unwrap()
}

fn four() -> Uniform {
    Uniform::new(Bits::FOUR)
}

fn gptq() -> Gptq {
    Gptq::new()
}

/// Inputs that depend on each other, as those of a trained network do.
fn inputs<F: Element>(rows: usize, columns: usize) -> Array2<F> {
    let mut random = seed::stream(11, "inputs");
    let mut bell = || (0..6).map(|_| random.random::<f64>() - 0.5).sum::<f64>();
    let sources = Array2::from_shape_simple_fn((rows, columns.div_ceil(3)), &mut bell);
    let mix = Array2::from_shape_simple_fn((columns.div_ceil(3), columns), &mut bell);
    let own = Array2::from_shape_simple_fn((rows, columns), &mut bell);
    (sources.dot(&mix) + own * 0.2 + 0.3).mapv(F::narrow)
}

fn weights<F: Element>(rows: usize, columns: usize, zeros: f64) -> Array2<F> {
    crate::quantize::testing::weights(rows, columns, zeros).mapv(|w| F::narrow(f64::from(w)))
}

fn model<F: Element>(parameter: Parameter<F>) -> Model<F> {
    Model::builder().parameter(parameter).build().unwrap()
}

fn seen<F: Element, D: ndarray::Dimension>(model: &Model<F>, x: &ndarray::Array<F, D>) -> Evidence<F> {
    let mut evidence = Evidence::new(model, Needs::GRAM);
    evidence.record_input("w", x).unwrap();
    evidence
}

fn quantize<F: Element>(uniform: Uniform, model: &Model<F>, evidence: &Evidence<F>) -> QuantizedTensor {
    uniform.quantize(&evidence.layer(model, "w").unwrap()).unwrap()
}

/// δ·G·δᵀ of each row of an array [rows, columns].
fn costs<F: Element>(gram: &Array2<f64>, before: &Array2<F>, after: &ArrayD<f64>) -> Vec<f64> {
    let after = after.clone().into_dimensionality::<ndarray::Ix2>().unwrap();
    let errors = before.mapv(F::widen) - after;
    (errors.dot(gram) * &errors).sum_axis(Axis(1)).to_vec()
}

/// Inverse by elimination.
fn inverse(a: &Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    let (mut a, mut b) = (a.clone(), Array2::eye(n));
    for j in 0..n {
        let p = a[[j, j]];
        for k in 0..n {
            a[[j, k]] /= p;
            b[[j, k]] /= p;
        }
        for i in (0..n).filter(|&i| i != j) {
            let f = a[[i, j]];
            for k in 0..n {
                let (x, y) = (a[[j, k]], b[[j, k]]);
                a[[i, k]] -= f * x;
                b[[i, k]] -= f * y;
            }
        }
    }
    b
}

/// Optimal Brain Quantization in a fixed order: after each column the inverse over the columns that are left is taken
/// anew, and nothing is blocked.
fn brain_quantizer(
    row: &[f64],
    h: &Array2<f64>,
    order: &[usize],
    round: impl Fn(usize, f64) -> f64,
) -> Vec<f64> {
    let mut w = Array1::from(row.to_vec());
    for (k, &j) in order.iter().enumerate() {
        let left = &order[k..];
        let inverse = inverse(&h.select(Axis(0), left).select(Axis(1), left));
        let q = if row[j] == 0.0 { 0.0 } else { round(j, w[j]) };
        let step = (w[j] - q) / inverse[[0, 0]];
        for (at, &i) in left.iter().enumerate() {
            w[i] -= step * inverse[[at, 0]];
        }
        w[j] = q;
    }
    w.to_vec()
}

#[test]
fn equals_a_direct_brain_quantizer() {
    for (rows, columns) in [(7, 40), (4, 17), (300, 3), (2, 60)] {
        equals_a_direct_brain_quantizer_of(rows, columns);
    }
}

fn equals_a_direct_brain_quantizer_of(rows: usize, columns: usize) {
    let w = weights::<f64>(rows, columns, 0.1);
    let model = model(Parameter::linear("w", w.clone()));
    let x = inputs::<f64>(90, columns);
    let evidence = seen(&model, &x);
    let gram = x.t().dot(&x);
    let h = &gram + &(Array2::<f64>::eye(columns) * (0.01 * gram.diag().mean().unwrap()));
    for act_order in [false, true] {
        let settings = if act_order { gptq().act_order() } else { gptq() };
        let mut order: Vec<usize> = (0..columns).collect();
        if act_order {
            order.sort_by(|&a, &b| gram[[b, b]].total_cmp(&gram[[a, a]]));
        }
        let tensor = quantize(four().rounding(settings), &model, &evidence);
        let nearest = costs(&gram, &w, &quantize(four(), &model, &evidence).decode());
        let (decoded, mut kept) = (tensor.decode::<f64>(), 0);
        for row in 0..rows {
            let scale = f64::from(tensor.scales()[row]);
            let round = |_: usize, w: f64| (w / scale).round_ties_even().clamp(-7.0, 7.0) * scale;
            let direct = brain_quantizer(&w.row(row).to_vec(), &h, &order, round);
            let error: Array1<f64> = &w.row(row) - &Array1::from(direct.clone());
            if error.dot(&gram).dot(&error) > nearest[row] * (1.0 + 1e-9) {
                kept += 1;
                continue;
            }
            for (column, q) in direct.iter().enumerate() {
                assert!((decoded[[row, column]] - q).abs() < 1e-9, "{act_order} {row} {column}");
            }
        }
        assert_eq!(tensor.outcome().unwrap().rows_nearest, kept);
        assert!(kept < rows);
    }
}

/// The scale of a group is that of the weights when the sweep reaches it.
#[test]
fn groups_take_their_scale_from_compensated_weights() {
    let (rows, columns, size) = (4, 30, 8);
    let w = weights::<f64>(rows, columns, 0.0);
    let model = model(Parameter::linear("w", w.clone()));
    let x = inputs::<f64>(70, columns);
    let evidence = seen(&model, &x);
    let gram = x.t().dot(&x);
    let h = &gram + &(Array2::<f64>::eye(columns) * (0.01 * gram.diag().mean().unwrap()));
    let grouped = four().per_group(GroupSize::new(size).unwrap());
    let tensor = quantize(grouped.rounding(gptq()), &model, &evidence);
    let nearest = costs(&gram, &w, &quantize(grouped, &model, &evidence).decode());
    let mut checked = 0;
    for (row, &nearest) in nearest.iter().enumerate() {
        let mut left = w.row(row).to_vec();
        for start in (0..columns).step_by(size) {
            let stop = (start + size).min(columns);
            let reach = left[start..stop].iter().fold(0.0f64, |m, w| m.max(w.abs()));
            let scale = f64::from((reach / 7.0) as f32);
            for j in start..stop {
                let rest: Vec<usize> = (j..columns).collect();
                let inverse = inverse(&h.select(Axis(0), &rest).select(Axis(1), &rest));
                let q = (left[j] / scale).round_ties_even().clamp(-7.0, 7.0) * scale;
                let step = (left[j] - q) / inverse[[0, 0]];
                rest.iter().enumerate().for_each(|(at, &i)| left[i] -= step * inverse[[at, 0]]);
                left[j] = q;
            }
        }
        let error: Array1<f64> = &w.row(row) - &Array1::from(left.clone());
        if error.dot(&gram).dot(&error) > nearest {
            continue;
        }
        checked += 1;
        for (column, q) in left.iter().enumerate() {
            let decoded = tensor.decode::<f64>()[[row, column]];
            assert!((decoded - q).abs() < 1e-5 * (1.0 + q.abs()), "{row} {column} {decoded} {q}");
        }
    }
    assert!(checked > 1);
}

#[test]
fn blocks_and_chunks_change_nothing() {
    // More columns than two blocks, more rows than a chunk.
    let (rows, columns) = (300, 290);
    let w = weights::<f64>(rows, columns, 0.05);
    let x = inputs::<f64>(600, columns);
    let many = model(Parameter::linear("w", w.clone()));
    let all = quantize(four().rounding(gptq()), &many, &seen(&many, &x)).decode::<f64>();
    let gram = x.t().dot(&x);
    let h = &gram + &(Array2::<f64>::eye(columns) * (0.01 * gram.diag().mean().unwrap()));
    let u = inverse(&h);
    // The usual form: an upper factor of the inverse.
    let u = crate::kernel::linalg::cholesky(u).unwrap();
    let u = u.t();
    for row in [0, 255, 256, 299] {
        let mut left = w.row(row).to_vec();
        let scale = f64::from((left.iter().fold(0.0f64, |m, w| m.max(w.abs())) / 7.0) as f32);
        for j in 0..columns {
            let q = (left[j] / scale).round_ties_even().clamp(-7.0, 7.0) * scale;
            let q = if w[[row, j]] == 0.0 { 0.0 } else { q };
            let e = (left[j] - q) / u[[j, j]];
            (j + 1..columns).for_each(|k| left[k] -= e * u[[j, k]]);
            left[j] = q;
        }
        let differ = left.iter().enumerate().filter(|(j, q)| (all[[row, *j]] - *q).abs() > 1e-6).count();
        assert_eq!(differ, 0, "row {row}");
    }
}

#[test]
fn never_worse_than_nearest_and_zeros_stay() {
    let size = |n| GroupSize::new(n).unwrap();
    for samples in [5, 20, 200] {
        let w = weights::<f32>(20, 24, 0.3);
        let model = model(Parameter::linear("w", w.clone()));
        let x = inputs::<f32>(samples, 24);
        let evidence = seen(&model, &x);
        let gram = evidence.layer(&model, "w").unwrap().gram(0).unwrap().clone();
        for uniform in [
            four(),
            four().affine(),
            four().per_tensor(),
            four().per_axis(1),
            four().affine().per_group(size(7)),
            four().per_group(size(24)).range(Range::Mse),
            Uniform::new(Bits::new(2).unwrap()).range(Range::Mse),
            four().per_group(size(5)).f16_scales(),
        ] {
            let before = costs(&gram, &w, &quantize(uniform, &model, &evidence).decode());
            for settings in [gptq(), gptq().act_order(), gptq().static_groups(), gptq().damp(1e-6).unwrap()] {
                let tensor = quantize(uniform.rounding(settings), &model, &evidence);
                let decoded = tensor.decode::<f64>();
                let after = costs(&gram, &w, &decoded);
                for (row, (a, b)) in after.iter().zip(&before).enumerate() {
                    assert!(*a <= b * (1.0 + 1e-9) + 1e-12, "{uniform:?} {settings:?} row {row}: {a} {b}");
                }
                for (w, q) in w.iter().zip(&decoded) {
                    assert!(*w != 0.0 || q.to_bits() == 0);
                }
                let outcome = tensor.outcome().unwrap();
                assert!(outcome.error <= outcome.nearest && outcome.rows == 20);
                let total: f64 = after.iter().sum();
                let all = costs(&gram, &w, &Array2::zeros(w.raw_dim()).into_dyn()).iter().sum::<f64>();
                assert!((outcome.error - total / all).abs() < 1e-6 * outcome.error);
            }
        }
    }
}

#[test]
fn matrices_stored_the_other_way_round() {
    let w = weights::<f64>(12, 30, 0.1);
    let x = inputs::<f64>(100, 30);
    let turned = w.t().as_standard_layout().into_owned();
    let (a, b) = (model(Parameter::linear("w", w)), model(Parameter::linear("w", turned).axes(1, 0)));
    for uniform in [four(), four().per_group(GroupSize::new(8).unwrap()), four().per_tensor().affine()] {
        let uniform = uniform.rounding(gptq());
        let a = quantize(uniform, &a, &seen(&a, &x)).decode::<f64>();
        let b = quantize(uniform, &b, &seen(&b, &x)).decode::<f64>();
        assert_eq!(a, b.t(), "{uniform:?}");
    }
}

#[test]
fn grouped_and_depthwise_convolutions() {
    for (out, channels, groups) in [(8, 6, 1), (8, 3, 2), (6, 1, 6)] {
        let w = weights::<f32>(out, channels * 9, 0.1);
        let array = Array4::from_shape_vec((out, channels, 3, 3), w.iter().copied().collect()).unwrap();
        let conv = model(Parameter::conv("w", array, Geometry::new().groups(groups).padding(1)));
        let x = inputs::<f32>(6, channels * groups * 30);
        let x = Array4::from_shape_vec((6, channels * groups, 5, 6), x.iter().copied().collect()).unwrap();
        let evidence = seen(&conv, &x);
        let tensor = quantize(four().rounding(gptq()), &conv, &evidence);
        let decoded = tensor.decode::<f64>().into_shape_with_order((out, channels * 9)).unwrap();
        let nearest = quantize(four(), &conv, &evidence).decode::<f64>();
        let nearest = nearest.into_shape_with_order((out, channels * 9)).unwrap();
        let layer = evidence.layer(&conv, "w").unwrap();
        let mut gain = 0.0;
        for group in 0..groups {
            let own: Vec<usize> = (0..out).filter(|row| row / (out / groups) == group).collect();
            let part = |a: &Array2<f64>| a.select(Axis(0), &own).into_dyn();
            let (gram, w) = (layer.gram(group).unwrap(), w.select(Axis(0), &own));
            let (a, b) = (costs(gram, &w, &part(&decoded)), costs(gram, &w, &part(&nearest)));
            for (a, b) in a.iter().zip(&b) {
                assert!(*a <= b * (1.0 + 1e-6), "{out} {groups}: {a} {b}");
                gain += b - a;
            }
        }
        assert!(gain > 0.0);
    }
}

#[test]
fn recurrent_matrices_and_embeddings() {
    let w = weights::<f32>(12, 10, 0.0);
    let gru = model(Parameter::recurrent("w", w.clone(), 3));
    let outcome = quantize(four().rounding(gptq()), &gru, &seen(&gru, &inputs::<f32>(80, 10)));
    assert!(outcome.outcome().is_some_and(|o| o.rows == 12 && o.error < o.nearest));
    // An embedding's errors reach the network through the matrix that reads it.
    let (table, reader) = (weights::<f32>(30, 8, 0.0), inputs::<f32>(20, 8));
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
        let evidence = Evidence::new(&read, Needs::GRAM);
        let tensor = quantize(four().rounding(gptq()), &read, &evidence);
        assert!(tensor.outcome().is_some_and(|o| o.rows == 30 && o.error < o.nearest), "{tensor:?}");
        // Embeddings stay whole.
        for joint in [gptq().sparsity(half()), gptq().n_of_m(1, 5).unwrap()] {
            assert_eq!(quantize(four().rounding(joint), &read, &evidence), tensor);
        }
        let alone = model(table);
        let tensor = quantize(four().rounding(gptq()), &alone, &Evidence::new(&alone, Needs::GRAM));
        assert!(tensor.outcome().is_some_and(|o| o.notes[0].contains("nearest")));
    }
}

#[test]
fn dead_and_singular_inputs() {
    let w = weights::<f32>(5, 12, 0.0);
    let layer = model(Parameter::linear("w", w));
    let mut x = inputs::<f32>(50, 12);
    x.column_mut(3).fill(0.0);
    x.column_mut(7).fill(0.0);
    let evidence = seen(&layer, &x);
    let (learned, nearest) =
        (quantize(four().rounding(gptq()), &layer, &evidence), quantize(four(), &layer, &evidence));
    let (learned, nearest) = (learned.decode::<f32>(), nearest.decode::<f32>());
    for row in 0..5 {
        assert_eq!((learned[[row, 3]], learned[[row, 7]]), (nearest[[row, 3]], nearest[[row, 7]]));
    }
    let none = seen(&layer, &Array2::<f32>::zeros((9, 12)));
    let tensor = quantize(four().rounding(gptq()), &layer, &none);
    assert_eq!(tensor.decode::<f32>(), nearest);
    assert!(tensor.outcome().unwrap().notes.iter().any(|note| note.contains("all 0")));
    // One sample, and next to no damping.
    let one = seen(&layer, &inputs::<f32>(1, 12));
    let tensor = quantize(four().rounding(gptq().damp(1e-17).unwrap()), &layer, &one);
    assert!(tensor.outcome().unwrap().notes.iter().any(|note| note.contains("damping")));
}

#[test]
fn what_is_missing_is_named() {
    let layer = model(Parameter::linear("w", weights::<f32>(5, 12, 0.0)));
    let evidence = Evidence::new(&layer, Needs::GRAM);
    let error = four().rounding(gptq()).quantize(&evidence.layer(&layer, "w").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingEvidence);
    assert!(error.to_string().contains("`w`"), "{error}");
    assert_eq!(Quantizer::<f32>::needs(&four().rounding(gptq())), Needs::GRAM);
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(gptq().damp(wrong).is_err());
    }
}
