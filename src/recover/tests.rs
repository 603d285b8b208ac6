//! Recoveries against forward passes and normal equations written out.

use std::collections::HashSet;

use ndarray::{Array1, Array2, Array4, ArrayD, Axis, IxDyn};
use rand::RngExt;

use crate::kernel::seed;
use crate::model::Selection;
use crate::prune::{Cut, Mask, Plan, Then};
use crate::recover::{BatchNorm, LeastSquares, MeanFold, Recovery, Removal};
use crate::{ErrorKind, Evidence, Geometry, Model, Needs, Nothing, Parameter};

fn random(name: &str, shape: &[usize]) -> ArrayD<f64> {
    let mut stream = seed::stream(3, name);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || stream.random::<f64>() * 2.0 - 0.9)
}

fn without(len: usize, gone: &[usize]) -> Vec<usize> {
    (0..len).filter(|at| !gone.contains(at)).collect()
}

/// A plan by which positions of axes go, and weights by masks.
fn plan(model: &Model<f64>, gone: &[(&str, usize, &[usize])], masks: Vec<(String, Mask)>) -> Plan {
    let mut selection = Selection::default();
    for &(name, axis, gone) in gone {
        let len = model.parameter(name).unwrap().shape()[axis];
        let gone: HashSet<usize> = gone.iter().copied().collect();
        selection.remove_positions(name, axis, len, &gone);
    }
    Plan::of(model, Cut { selection, masks, ..Cut::default() }).unwrap()
}

fn recover(
    recovery: &impl Recovery<f64>,
    model: &Model<f64>,
    plan: &Plan,
    evidence: &Evidence<f64>,
) -> crate::Result<Model<f64>> {
    recovery.recover(plan.apply(model)?, &Removal::new(model, plan, evidence))
}

/// A layer `w`, with a bias `b` or a batch norm `bn` behind it.
fn layer(weight: Parameter<f64>, behind: &str) -> Model<f64> {
    let rows = weight.shape()[weight.out_axis()];
    let vector = |name: &str| (name.to_owned(), random(name, &[rows]));
    let builder = Model::builder().parameter(weight);
    match behind {
        "b" => builder.tensors([vector("b")]).bias("b", "w"),
        "bn" => builder
            .tensors(["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"].map(vector))
            .batch_norm("bn", "w"),
        _ => builder,
    }
    .build()
    .unwrap()
}

/// What a layer answers, [samples and positions, rows]: with its bias, or less its running mean.
fn answers(model: &Model<f64>, x: &ArrayD<f64>) -> Array2<f64> {
    let weight = model.parameter("w").unwrap();
    let mut y = if let Some(geometry) = weight.geometry() {
        convolved(weight, geometry, x)
    } else {
        let features = x.shape()[x.ndim() - 1];
        let x = x.to_shape((x.len() / features, features)).unwrap();
        let w = weight.array().view().into_dimensionality::<ndarray::Ix2>().unwrap();
        if weight.out_axis() == 0 { x.dot(&w.t()) } else { x.dot(&w) }
    };
    let vector = |name: &str| model.find(name).map(|p| Array1::from(p.values().to_vec()));
    if let Some(bias) = vector("b") {
        y += &bias;
    }
    if let Some(mean) = vector("bn.running_mean") {
        y -= &mean;
    }
    y
}

fn convolved(weight: &Parameter<f64>, geometry: Geometry, x: &ArrayD<f64>) -> Array2<f64> {
    let (kernel, input) = (weight.shape(), x.shape());
    let [high, wide] =
        [0, 1].map(|axis| geometry.output_len(axis, input[axis + 2], kernel[axis + 2]).unwrap());
    let per_group = kernel[0] / geometry.group_count();
    Array2::from_shape_fn((input[0] * high * wide, kernel[0]), |(at, row)| {
        let from = |axis: usize, position: usize, tap: usize| {
            let reached = position * geometry.stride_of(axis) + tap * geometry.dilation_of(axis);
            reached.wrapping_sub(geometry.padding_of(axis).0)
        };
        let mut sum = 0.0;
        for (tap, value) in weight.array().index_axis(Axis(0), row).indexed_iter() {
            let channel = row / per_group * kernel[1] + tap[0];
            let (down, right) = (from(0, at / wide % high, tap[1]), from(1, at % wide, tap[2]));
            let place = [at / (high * wide), channel, down, right];
            sum += value * x.get(IxDyn(&place)).unwrap_or(&0.0);
        }
        sum
    })
}

/// Squared difference to the original's answers, for the rows that are left.
fn error(before: &Array2<f64>, rows: &[usize], after: &Array2<f64>) -> f64 {
    (before.select(Axis(1), rows) - after).iter().map(|d| d * d).sum()
}

/// All kinds of layers: weights, inputs, what goes of the weight's axes, which input channels are left.
type Case = (Parameter<f64>, ArrayD<f64>, Vec<(usize, Vec<usize>)>, Vec<usize>);

fn cases(samples: usize) -> Vec<Case> {
    let conv = |shape: &[usize], g: Geometry| Parameter::conv("w", random("conv", shape), g);
    let padded = Geometry::new().padding(1).stride(2);
    let planes = |c: usize| random("planes", &[samples, c, 5, 5]).mapv(|x: f64| x.max(0.0));
    let flat = |d: usize| random("flat", &[samples, d]);
    vec![
        (Parameter::linear("w", random("l", &[4, 6])), flat(6), vec![(1, vec![1, 4])], without(6, &[1, 4])),
        (
            Parameter::linear("w", random("lt", &[6, 4])).axes(1, 0),
            flat(6),
            vec![(0, vec![0, 5]), (1, vec![2])],
            without(6, &[0, 5]),
        ),
        (
            Parameter::recurrent("w", random("r", &[4 * 3, 5]), 4),
            random("steps", &[samples, 2, 5]),
            vec![(0, vec![1, 4, 7, 10]), (1, vec![3])],
            without(5, &[3]),
        ),
        (conv(&[5, 4, 3, 3], padded), planes(4), vec![(0, vec![2]), (1, vec![0, 3])], vec![1, 2]),
        (
            conv(&[5, 4, 3, 2], Geometry::new().strides([2, 1]).paddings([(0, 1), (2, 0)]).dilations([1, 2])),
            planes(4),
            vec![(0, vec![2]), (1, vec![0, 3])],
            vec![1, 2],
        ),
        // the second of three groups, and the first channel of each group that is left
        (
            conv(&[6, 2, 3, 3], Geometry::new().groups(3).dilation(2)),
            planes(6),
            vec![(0, vec![2, 3]), (1, vec![0])],
            vec![1, 5],
        ),
        // depthwise: channels go with their filters, single taps by a mask
        (conv(&[4, 1, 3, 3], padded.groups(4)), planes(4), vec![(0, vec![1])], vec![0, 2, 3]),
    ]
}

/// The case's model with the plan that carries it out; `masked` also zeroes a third of the weights.
fn planned(case: &Case, behind: &str, masked: bool) -> (Model<f64>, Plan, Vec<usize>) {
    let (weight, _, gone, _) = case;
    let model = layer(weight.clone(), behind);
    let out = weight.out_axis();
    let mut axes: Vec<(&str, usize, &[usize])> = gone.iter().map(|(a, g)| ("w", *a, &g[..])).collect();
    let rows: Vec<usize> = gone.iter().filter(|(a, _)| *a == out).flat_map(|(_, g)| g.clone()).collect();
    let vectors = model.parameters().iter().filter(|p| !p.kind().is_weight());
    axes.extend(vectors.map(|p| (p.name(), 0, &rows[..])));
    let shape: Vec<usize> = weight
        .shape()
        .iter()
        .enumerate()
        .map(|(a, n)| n - gone.iter().filter(|(axis, _)| *axis == a).map(|(_, g)| g.len()).sum::<usize>())
        .collect();
    let masks = masked.then(|| ("w".to_owned(), Mask::from_fn(&shape, |k| !(k * 7 + 1).is_multiple_of(3))));
    let plan = plan(&model, &axes, masks.into_iter().collect());
    (model.clone(), plan, without(weight.shape()[out], &rows))
}

fn select_channels(x: &ArrayD<f64>, weight: &Parameter<f64>, channels: &[usize]) -> ArrayD<f64> {
    let axis = if weight.geometry().is_some() { 1 } else { x.ndim() - 1 };
    x.select(Axis(axis), channels)
}

fn evidence(model: &Model<f64>, x: &ArrayD<f64>) -> Evidence<f64> {
    let mut evidence = Evidence::new(model, Needs::GRAM);
    evidence.record_input("w", x).unwrap();
    evidence
}

#[test]
fn least_squares_never_raises_the_error() {
    for (samples, behind, masked) in [1, 2, 3, 40]
        .into_iter()
        .flat_map(|n| ["", "b", "bn"].map(|b| [(n, b, false), (n, b, true)]))
        .flatten()
    {
        for (at, case) in cases(samples).iter().enumerate() {
            let (weight, x, _, channels) = case;
            let (model, plan, rows) = planned(case, behind, masked);
            let (evidence, pruned) = (evidence(&model, x), plan.apply(&model).unwrap());
            let left = select_channels(x, weight, channels);
            let before = answers(&model, x);
            let unrecovered = error(&before, &rows, &answers(&pruned, &left));
            let mut least = unrecovered;
            if !behind.is_empty() {
                let folded = recover(&MeanFold::new(), &model, &plan, &evidence).unwrap();
                let folded = answers(&folded, &left);
                let means = folded.mean_axis(Axis(0)).unwrap();
                let wanted = before.select(Axis(1), &rows).mean_axis(Axis(0)).unwrap();
                assert!((means - wanted).iter().all(|d| d.abs() < 1e-9), "case {at}");
                least = error(&before, &rows, &folded);
                assert!(least <= unrecovered + 1e-9);
            }
            for ridge in [0.0, 1e-3, 10.0] {
                let solved = recover(&LeastSquares::new().ridge(ridge), &model, &plan, &evidence).unwrap();
                let now = error(&before, &rows, &answers(&solved, &left));
                let what = format!("case {at}, {samples} samples, `{behind}`, {masked}, ridge {ridge}");
                assert!(now <= least + 1e-9, "{what}: {now} > {least} ({unrecovered})");
                if samples == 40 && ridge > 0.0 && ridge < 1.0 && least > 1e-9 {
                    assert!(now < 0.999 * least, "{what}: {now} of {least}");
                }
                let zeros = pruned.parameter("w").unwrap().values();
                let values = solved.parameter("w").unwrap().values();
                assert!(zeros.iter().zip(values).all(|(z, v)| *z != 0.0 || *v == 0.0), "{what}");
            }
        }
    }
}

/// (A + ridge·I)·x = b by Gauss and Jordan.
fn gauss(mut a: Array2<f64>, mut b: Array1<f64>) -> Array1<f64> {
    for k in 0..b.len() {
        for i in without(b.len(), &[k]) {
            let factor = a[[i, k]] / a[[k, k]];
            let row = a.row(k).to_owned();
            a.row_mut(i).scaled_add(-factor, &row);
            b[i] -= factor * b[k];
        }
    }
    b / a.diag()
}

#[test]
fn least_squares_solves_the_normal_equations() {
    let (d, gone, ridge) = (7, [2, 3], 0.02);
    let x = random("x", &[30, d]);
    let flat = x.view().into_dimensionality::<ndarray::Ix2>().unwrap().to_owned();
    for behind in ["", "b"] {
        let model = layer(Parameter::linear("w", random("w", &[3, d])), behind);
        let stay = without(d, &gone);
        // The first weight that stays of row 1 is masked as well.
        let mask = Mask::from_fn(&[3, 5], |k| k != 5);
        let plan = plan(&model, &[("w", 1, &gone)], vec![("w".into(), mask)]);
        let recovery = LeastSquares::new().ridge(ridge);
        let solved = recover(&recovery, &model, &plan, &evidence(&model, &x)).unwrap();
        let mean = flat.mean_axis(Axis(0)).unwrap();
        let around = if behind.is_empty() { flat.clone() } else { &flat - &mean };
        let lambda = ridge * stay.iter().map(|&c| around.column(c).dot(&around.column(c))).sum::<f64>() / 5.0;
        for row in 0..3 {
            let w = Array1::from(model.parameter("w").unwrap().values()[row * d..][..d].to_vec());
            let free: Vec<usize> = stay.iter().copied().filter(|&c| row != 1 || c != stay[0]).collect();
            let xs = around.select(Axis(1), &free);
            let gram = xs.t().dot(&xs) + Array2::<f64>::eye(free.len()) * lambda;
            let held = w.select(Axis(0), &free);
            let new = gauss(gram, xs.t().dot(&around.dot(&w)) + held * lambda);
            let mut full = Array1::zeros(d);
            free.iter().zip(&new).for_each(|(&c, v)| full[c] = *v);
            for (k, &c) in stay.iter().enumerate() {
                let got = solved.parameter("w").unwrap().values()[row * 5 + k];
                assert!((got - full[c]).abs() < 1e-9);
            }
            if let Some(bias) = solved.find("b") {
                let wanted = model.parameter("b").unwrap().values()[row] + mean.dot(&(&w - &full));
                assert!((bias.values()[row] - wanted).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn constant_units_fold_without_loss() {
    for (weight, shape) in [
        (Parameter::linear("w", random("l", &[4, 3])), vec![20, 3]),
        (Parameter::linear("w", random("lt", &[3, 4])).axes(1, 0), vec![20, 3]),
        (Parameter::conv("w", random("c", &[4, 3, 2, 2]), Geometry::new()), vec![20, 3, 4, 4]),
    ] {
        let mut x = random("x", &shape);
        x.index_axis_mut(Axis(1), 1).fill(0.7);
        for behind in ["b", "bn"] {
            let model = layer(weight.clone(), behind);
            let axis = weight.in_axis().unwrap();
            let plan = plan(&model, &[("w", axis, &[1])], Vec::new());
            let evidence = evidence(&model, &x);
            let (before, left) = (answers(&model, &x), x.select(Axis(1), &[0, 2]));
            let folded = recover(&MeanFold::new(), &model, &plan, &evidence).unwrap();
            assert!(error(&before, &[0, 1, 2, 3], &answers(&folded, &left)) < 1e-20);
            // What cannot be better stays, and folding after solving folds nothing twice.
            let both = Then::new(LeastSquares::new(), MeanFold::new());
            let solved = recover(&both, &model, &plan, &evidence).unwrap();
            assert!(error(&before, &[0, 1, 2, 3], &answers(&solved, &left)) < 1e-12);
        }
    }
}

#[test]
fn batch_norm_measures_what_the_layer_answers() {
    for case in &cases(9) {
        let (weight, x, _, channels) = case;
        let (model, plan, _) = planned(case, "bn", true);
        let both = Then::new(LeastSquares::new(), BatchNorm::new());
        let normed = recover(&both, &model, &plan, &evidence(&model, x)).unwrap();
        let vector = |name: &str| Array1::from(normed.parameter(name).unwrap().values().to_vec());
        let mean = vector("bn.running_mean");
        let y = answers(&normed, &select_channels(x, weight, channels)) + &mean;
        assert!((y.mean_axis(Axis(0)).unwrap() - mean).iter().all(|d| d.abs() < 1e-9));
        assert!((y.var_axis(Axis(0), 1.0) - vector("bn.running_var")).iter().all(|d| d.abs() < 1e-9));
    }
}

#[test]
fn what_lost_nothing_is_left_alone() {
    let model = layer(Parameter::linear("w", random("w", &[4, 3])), "bn");
    let rows: Vec<_> = model.parameters().iter().map(|p| (p.name(), 0, &[1usize, 2][..])).collect();
    let plan = plan(&model, &rows, Vec::new());
    let (pruned, nothing_seen) = (plan.apply(&model).unwrap(), Evidence::new(&model, Needs::GRAM));
    assert_eq!(recover(&MeanFold::new(), &model, &plan, &nothing_seen).unwrap(), pruned);
    assert_eq!(recover(&LeastSquares::new(), &model, &plan, &nothing_seen).unwrap(), pruned);
    assert_eq!(recover(&BatchNorm::new(), &model, &plan, &nothing_seen).unwrap(), pruned);
    assert_eq!(recover(&Nothing, &model, &plan, &nothing_seen).unwrap(), pruned);
}

#[test]
fn inputs_that_are_all_zero_leave_the_weights() {
    for behind in ["", "b"] {
        let model = layer(Parameter::linear("w", random("w", &[4, 3])), behind);
        let plan = plan(&model, &[("w", 1, &[0])], Vec::new());
        let evidence = evidence(&model, &ArrayD::zeros(IxDyn(&[5, 3])));
        for ridge in [0.0, 1e-3] {
            let solved = recover(&LeastSquares::new().ridge(ridge), &model, &plan, &evidence).unwrap();
            assert_eq!(solved, plan.apply(&model).unwrap());
        }
    }
}

#[test]
fn errors_name_the_layer() {
    let model = layer(Parameter::linear("w", random("w", &[4, 3])), "");
    let plan = plan(&model, &[("w", 1, &[0])], Vec::new());
    let nothing_seen = Evidence::new(&model, Needs::GRAM);
    let seen = evidence(&model, &random("x", &[5, 3]));
    let mut no_gram = Evidence::new(&model, Needs::MOMENTS);
    no_gram.record_input("w", &random("x", &[5, 3])).unwrap();
    let fails = |result: crate::Result<Model<f64>>, kind: ErrorKind, part: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(part), "{error}");
    };
    let missing = ErrorKind::MissingEvidence;
    fails(recover(&LeastSquares::new(), &model, &plan, &nothing_seen), missing, "layer `w`");
    fails(recover(&LeastSquares::new(), &model, &plan, &no_gram), missing, "layer `w`");
    fails(recover(&MeanFold::new(), &model, &plan, &nothing_seen), missing, "layer `w`");
    fails(recover(&MeanFold::new(), &model, &plan, &seen), ErrorKind::Unsupported, "layer `w`");
    for ridge in [-1.0, f64::NAN, f64::INFINITY] {
        let recovery = LeastSquares::new().ridge(ridge);
        assert_eq!(Recovery::<f64>::check(&recovery).unwrap_err().kind(), ErrorKind::Setting);
        fails(recover(&recovery, &model, &plan, &seen), ErrorKind::Setting, "ridge");
    }
    let other = plan.apply(&model).unwrap();
    let removal = Removal::new(&model, &plan, &seen);
    fails(MeanFold::new().recover(model.clone(), &removal), ErrorKind::Shape, "layer `w`");
    let removal = Removal::new(&other, &plan, &seen);
    fails(LeastSquares::new().recover(other.clone(), &removal), ErrorKind::Shape, "layer `w`");
}

#[test]
fn a_copy_of_a_shared_weight_is_known_by_its_origin() {
    let model = layer(Parameter::linear("w", random("w", &[4, 3])), "");
    let mut selection = Selection::default();
    selection.copies.insert("w".into(), vec![("one".into(), "w.one".into()), ("two".into(), "w.two".into())]);
    let mut plan = Plan::of(&model, Cut { selection, ..Cut::default() }).unwrap();
    let mut selection = Selection::default();
    selection.remove_positions("w.two", 1, 3, &HashSet::from([2]));
    plan.push(Cut { selection, ..Cut::default() }).unwrap();
    let evidence = evidence(&model, &random("x", &[9, 3]));
    let solved = recover(&LeastSquares::new(), &model, &plan, &evidence).unwrap();
    let pruned = plan.apply(&model).unwrap();
    assert_eq!(solved.parameter("w.one").unwrap(), pruned.parameter("w.one").unwrap());
    assert_eq!(solved.parameter("w.two").unwrap().shape(), [4, 2]);
    assert_ne!(solved.parameter("w.two").unwrap(), pruned.parameter("w.two").unwrap());
}

#[cfg(feature = "rayon")]
#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let (d, rows) = (150, 140);
    let x: Array4<f64> = random("x", &[20, d, 3, 3]).mapv(|x: f64| x.max(0.0)).into_dimensionality().unwrap();
    let model = layer(Parameter::conv("w", random("w", &[rows, d, 1, 1]), Geometry::new()), "b");
    let mask = Mask::from_fn(&[rows, d - 3, 1, 1], |k| k < 60 * (d - 3) || !(k * 31).is_multiple_of(7));
    let plan = plan(&model, &[("w", 1, &[5, 7, 100])], vec![("w".into(), mask)]);
    let evidence = evidence(&model, &x.into_dyn());
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| recover(&LeastSquares::new(), &model, &plan, &evidence).unwrap())
    };
    let one = on(1);
    assert_eq!(one, on(2));
    assert_eq!(one, on(7));
}
