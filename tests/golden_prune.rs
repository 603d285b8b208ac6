//! Masks and sparsities that other projects' tests pin down, restated as numbers.
//!
//! Sources: `PyTorch`, `test/nn/test_pruning.py`; NNI v2, `test/algo/compression/v1/test_compressor_torch.py`; NNCF,
//! `tests/torch/function_hook/pruning/magnitude/`; TensorFlow Model Optimization (tfmot),
//! `tensorflow_model_optimization/python/core/sparsity/keras/`. Each test names the one it restates. Where a project
//! counts differently, the count is given and the difference said.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::HashMap;

use ndarray::{Array1, Array2, Array4, ArrayD, Axis, array};
use niwaki::importance::{Importance, Magnitude, Norm, Score, Scores};
use niwaki::prune::{
    Channel, Mask, NOfM, Plan, Pool, Pruner, Schedule, Scope, Sparsity, Tiles, Unstructured,
};
use niwaki::{Coupling, Evidence, Geometry, Layer, Model, Needs, Parameter, Result, Slot};

/// Absolute scores by layer; magnitudes where none are given.
#[derive(Debug, Default)]
struct Given(HashMap<&'static str, ArrayD<f64>>);

impl Importance<f64> for Given {
    fn score(&self, layer: &Layer<'_, f64>) -> Result<Score<f64>> {
        Ok(match self.0.get(layer.name()) {
            Some(scores) => Score::elements(scores.mapv(f64::abs)),
            None => Score::magnitude(Norm::L2),
        })
    }
}

/// |w| over the L2 norm of its layer.
#[derive(Debug)]
struct Normed;

impl Importance<f64> for Normed {
    fn score(&self, layer: &Layer<'_, f64>) -> Result<Score<f64>> {
        let weights = layer.parameter().array();
        let norm = weights.mapv(|w| w * w).sum().sqrt();
        Ok(Score::elements(weights.mapv(|w| w.abs() / norm)))
    }
}

fn model(parameters: Vec<Parameter<f64>>) -> Model<f64> {
    parameters.into_iter().fold(Model::builder(), niwaki::ModelBuilder::parameter).build().unwrap()
}

fn plan(pruner: &impl Pruner<f64>, criterion: &impl Importance<f64>, model: &Model<f64>) -> Plan {
    let scores = Scores::compute(criterion, model, &Evidence::new(model, Needs::MOMENTS)).unwrap();
    pruner.plan(model, &scores).unwrap()
}

fn pruned(pruner: &impl Pruner<f64>, criterion: &impl Importance<f64>, model: &Model<f64>) -> Model<f64> {
    plan(pruner, criterion, model).apply(model).unwrap()
}

/// `count` of `of` weights, or units, go.
fn count(count: usize, of: usize) -> Sparsity {
    Sparsity::new(count as f64 / of as f64).unwrap()
}

fn single(gone: usize, of: usize) -> Unstructured {
    Unstructured::new(count(gone, of)).include_ends()
}

fn values<'a>(model: &'a Model<f64>, name: &str) -> &'a [f64] {
    model.parameter(name).unwrap().values()
}

/// 1 for what is not zero.
fn ones(model: &Model<f64>, name: &str) -> Vec<u8> {
    values(model, name).iter().map(|w| u8::from(*w != 0.0)).collect()
}

fn eight() -> Array2<f64> {
    array![[1.0, 2.0, 3.0, 4.0], [-4.0, -3.0, -2.0, -1.0]]
}

fn w(array: Array2<f64>) -> Model<f64> {
    model(vec![Parameter::linear("w", array)])
}

mod pytorch {
    use super::*;

    /// `test_l1_unstructured_pruning`: 2, then 2 of what is left. Here the second share counts from the whole.
    #[test]
    fn l1_unstructured() {
        let once = pruned(&single(2, 8), &Magnitude::l1(), &w(eight()));
        assert_eq!(values(&once, "w"), [0.0, 2.0, 3.0, 4.0, -4.0, -3.0, -2.0, 0.0]);
        let twice = pruned(&single(4, 8), &Magnitude::l1(), &once);
        assert_eq!(values(&twice, "w"), [0.0, 0.0, 3.0, 4.0, -4.0, -3.0, 0.0, 0.0]);
    }

    /// `test_l1_unstructured_pruning_with_importance_scores`
    #[test]
    fn given_scores() {
        let scores = array![[4.0, 2.0, 1.0, 3.0], [-3.0, -1.0, -2.0, -4.0]].into_dyn();
        let given = Given(HashMap::from([("w", scores)]));
        let once = pruned(&single(2, 8), &given, &w(eight()));
        assert_eq!(values(&once, "w"), [1.0, 2.0, 0.0, 4.0, -4.0, 0.0, -2.0, -1.0]);
        let twice = pruned(&single(4, 8), &given, &once);
        assert_eq!(values(&twice, "w"), [1.0, 0.0, 0.0, 4.0, -4.0, 0.0, 0.0, -1.0]);
    }

    /// `test_prune`, `test_prune_importance_scores`: a mask from before, and 2 more.
    #[test]
    fn masks_compose() {
        let mut t = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        Mask::from_fn(&[2, 4], |k| k != 3 && k != 6).apply(&mut t);
        let t = w(Array2::from_shape_vec((2, 4), t).unwrap());
        assert_eq!(ones(&pruned(&single(4, 8), &Magnitude::l1(), &t), "w"), [0, 0, 1, 0, 1, 1, 0, 1]);
        let scores = array![[1.0, 2.0, 3.0, 4.0], [1.5, 1.6, 1.7, 1.8]].into_dyn();
        let given = Given(HashMap::from([("w", scores)]));
        assert_eq!(ones(&pruned(&single(4, 8), &given, &t), "w"), [0, 1, 1, 0, 0, 1, 0, 1]);
    }

    /// `test_unstructured_pruning_same_magnitude`: ties do not change the count.
    #[test]
    fn same_magnitude() {
        let tied = Array2::from_shape_fn((10, 7), |(i, j)| [-2.0, 2.0][(i * 3 + j) % 2]);
        let zeros = 70 - pruned(&single(14, 70), &Magnitude::l1(), &w(tied)).nonzero_count();
        assert_eq!(zeros, 14);
    }

    /// `test_global_pruning`, `test_global_pruning_importance_scores`: 4 of 11.
    #[test]
    fn global() {
        let two =
            model(vec![Parameter::linear("w1", eight()), Parameter::linear("w2", array![[0.0, 0.1, -2.0]])]);
        let pruner = single(4, 11).scope(Scope::Global);
        let by_size = pruned(&pruner, &Magnitude::l1(), &two);
        assert_eq!(values(&by_size, "w1"), [0.0, 2.0, 3.0, 4.0, -4.0, -3.0, -2.0, 0.0]);
        assert_eq!(values(&by_size, "w2"), [0.0, 0.0, -2.0]);
        let given = Given(HashMap::from([
            ("w1", array![[4.0, 2.0, 1.0, 3.0], [-3.0, -1.0, -2.0, -4.0]].into_dyn()),
            ("w2", array![[0.0, 10.0, -0.2]].into_dyn()),
        ]));
        let by_score = pruned(&pruner, &given, &two);
        assert_eq!(values(&by_score, "w1"), [1.0, 2.0, 0.0, 4.0, -4.0, 0.0, -2.0, -1.0]);
        assert_eq!(values(&by_score, "w2"), [0.0, 0.1, 0.0]);
    }

    /// The weights of `test_ln_structured_pruning`, with the channels and the last axis as index spaces.
    fn structured() -> Model<f64> {
        let weights = vec![1.0, 2.0, 1.0, 2.5, 0.5, 1.0, 0.1, 0.1, -3.0, -5.0, 0.1, -1.0];
        let weights = Array4::from_shape_vec((1, 3, 2, 2), weights).unwrap();
        Model::builder()
            .parameter(Parameter::conv("w", weights, Geometry::new()))
            .coupling(Coupling::builder("channels").inputs(["w"]))
            .coupling(Coupling::builder("columns").slot(Slot::at("w", 3)))
            .build()
            .unwrap()
    }

    /// One channel by the first criterion, then one column by the second: what is left of each axis.
    fn both_axes(first: &impl Importance<f64>, second: &impl Importance<f64>) -> (Vec<usize>, Vec<usize>) {
        let channel = Channel::new(count(1, 3)).exclude("columns");
        let column = Channel::new(count(1, 2)).exclude("channels");
        let channels = plan(&channel, first, &structured());
        let left = channels.apply(&structured()).unwrap();
        let both = channels.then(plan(&column, second, &left)).unwrap();
        (both.kept("w", 1).unwrap(), both.kept("w", 3).unwrap())
    }

    /// `test_ln_structured_pruning`: L2 along axis 1 takes channel 1, then L1 along the last axis column 0.
    #[test]
    fn structured_on_both_axes() {
        assert_eq!(both_axes(&Magnitude::l2(), &Magnitude::l1()), (vec![0, 2], vec![1]));
    }

    /// `test_ln_structured_pruning_importance_scores`: channel 0, then column 1.
    #[test]
    fn structured_by_given_scores() {
        let scores = [10.0, 1.0, 10.0, 1.0, 30.0, 3.0, 30.0, 3.0, -20.0, -2.0, -20.0, -2.0];
        let scores = ArrayD::from_shape_vec(vec![1, 3, 2, 2], scores.to_vec()).unwrap();
        let left = scores.select(Axis(1), &[1, 2]);
        let given = |scores| Given(HashMap::from([("w", scores)]));
        assert_eq!(both_axes(&given(scores), &given(left)), (vec![1, 2], vec![0]));
    }
}

mod nni {
    use super::*;

    /// Filters that go of conv1 (5 filters) and conv2 (10), each its own index space; filter i is all `f(i)`.
    fn kept(criterion: &impl Importance<f64>, pruner: &Channel) -> [Vec<usize>; 2] {
        let conv = |name: &'static str, filters, channels| {
            let weights = Array4::from_shape_fn((filters, channels, 5, 5), |(i, ..)| i as f64);
            Parameter::conv(name, weights, Geometry::new())
        };
        let model = Model::builder()
            .parameter(conv("conv1", 5, 1))
            .parameter(conv("conv2", 10, 5))
            .coupling(Coupling::builder("conv1").outputs(["conv1"]))
            .coupling(Coupling::builder("conv2").outputs(["conv2"]))
            .build()
            .unwrap();
        let plan = plan(pruner, criterion, &model);
        ["conv1", "conv2"].map(|name| plan.kept(name, 0).unwrap())
    }

    fn two_and_six_tenths() -> Channel {
        let at = |s: f64| Sparsity::new(s).unwrap();
        Channel::new(at(0.2)).set("conv2", at(0.6))
    }

    /// `test_torch_l1filter_pruner`: 0.2 of 5 and 0.6 of 10 filters.
    #[test]
    fn l1_filters() {
        let expected = [vec![1, 2, 3, 4], vec![6, 7, 8, 9]];
        assert_eq!(kept(&Magnitude::l1(), &two_and_six_tenths()), expected);
        assert_eq!(kept(&Magnitude::l2(), &two_and_six_tenths()), expected);
    }

    /// `test_torch_taylorFOweight_pruner`: scores Σ(w·g)² of a filter, g = ±1, conv2 falling from 10 to 1.
    #[test]
    fn taylor_filters() {
        #[derive(Debug)]
        struct Squares;
        impl Importance<f64> for Squares {
            fn score(&self, layer: &Layer<'_, f64>) -> Result<Score<f64>> {
                let filters = if layer.name() == "conv1" {
                    Array1::from(vec![0.0, 25.0, 100.0, 225.0, 400.0])
                } else {
                    Array1::from_iter((1..=10).rev().map(|w| 125.0 * f64::from(w * w)))
                };
                Ok(Score::units(0, filters))
            }
        }
        assert_eq!(kept(&Squares, &two_and_six_tenths()), [vec![1, 2, 3, 4], vec![0, 1, 2, 3]]);
    }

    /// `test_sparsity_allocator`: a share of 0.8 leaves 0.2 of the weights, per layer and over all 1375.
    #[test]
    fn shares_are_exact() {
        let conv = |name: &'static str, shape: (usize, usize, usize, usize)| {
            let value = |(i, j, y, x)| ((i * 977 + j * 131 + y * 29 + x * 7) % 397) as f64 + 1.0;
            Parameter::conv(name, Array4::from_shape_fn(shape, value), Geometry::new())
        };
        let two = model(vec![conv("a", (5, 1, 5, 5)), conv("b", (10, 5, 5, 5))]);
        let pruner = Unstructured::new(Sparsity::new(0.8).unwrap()).include_ends();
        let local = pruned(&pruner, &Magnitude::l1(), &two);
        let left = |name| ones(&local, name).iter().map(|&one| usize::from(one)).sum::<usize>();
        assert_eq!((left("a"), left("b")), (25, 250));
        let global = pruned(&pruner.scope(Scope::Global), &Magnitude::l1(), &two);
        assert_eq!(global.nonzero_count(), 275);
    }
}

mod nncf {
    use super::*;

    fn conv(name: &'static str, weights: [f64; 4]) -> Parameter<f64> {
        Parameter::conv(
            name,
            Array4::from_shape_vec((2, 2, 1, 1), weights.to_vec()).unwrap(),
            Geometry::new(),
        )
    }

    /// `magnitude/test_algo.py`, `test_prune_mode`: half of two convolutions, locally and over both by normed
    /// magnitudes.
    #[test]
    fn local_and_global() {
        let two = model(vec![conv("conv1", [1.0, -8.0, 9.0, -10.0]), conv("conv2", [1.0, -2.0, 3.0, -10.0])]);
        let local = pruned(&single(4, 8), &Normed, &two);
        assert_eq!((ones(&local, "conv1"), ones(&local, "conv2")), (vec![0, 0, 1, 1], vec![0, 0, 1, 1]));
        let global = pruned(&single(4, 8).scope(Scope::Global), &Normed, &two);
        assert_eq!((ones(&global, "conv1"), ones(&global, "conv2")), (vec![0, 1, 1, 1], vec![0, 0, 0, 1]));
    }

    /// `magnitude/test_schedulers.py`: weights 0 … 80. NNCF prunes up to and with element ⌊80·r⌋ of the sorted
    /// magnitudes, so one more than ⌊80·r⌋: 17, 9 and 65 of 81 at 0.2, 0.1 and 0.8, 41 at 0.5.
    #[test]
    fn eighty_one_weights() {
        let weights = Array4::from_shape_fn((3, 3, 3, 3), |(i, j, y, x)| (27 * i + 9 * j + 3 * y + x) as f64);
        let one = model(vec![Parameter::conv("conv", weights, Geometry::new())]);
        for scope in [Scope::PerLayer, Scope::Global] {
            for (ratio, gone) in [(0.2, 17), (0.1, 9), (0.8, 65), (0.5, 41)] {
                assert_eq!((80.0 * ratio) as usize + 1, gone);
                let expected: Vec<f64> = (0..81).map(|k| if k < gone { 0.0 } else { k as f64 }).collect();
                let pruned = pruned(&single(gone, 81).scope(scope), &Magnitude::l1(), &one);
                assert_eq!(values(&pruned, "conv"), expected);
            }
        }
    }

    /// v2.14.0, `tests/torch/sparsity/magnitude/`: 0.3 of 26 by magnitude takes all ten nines there, a tie; a share of
    /// 10/26 takes the same.
    #[test]
    fn two_small_convolutions() {
        let (small, large) = ([10.0, 9.0, 9.0, 10.0], [9.0, 10.0, 10.0, 10.0, 9.0, 10.0, 10.0, 10.0, 9.0]);
        let conv1 = Array4::from_shape_fn((2, 1, 2, 2), |(_, _, y, x)| small[2 * y + x]);
        let conv2 = Array4::from_shape_fn((1, 2, 3, 3), |(_, _, y, x)| -large[3 * y + x]);
        let two = model(vec![
            Parameter::conv("conv1", conv1, Geometry::new()),
            Parameter::conv("conv2", conv2, Geometry::new()),
        ]);
        let pruned = pruned(&single(10, 26).scope(Scope::Global), &Magnitude::l1(), &two);
        assert_eq!(ones(&pruned, "conv1"), [[1, 0, 0, 1]; 2].concat());
        assert_eq!(ones(&pruned, "conv2"), [[0, 1, 1, 1, 0, 1, 1, 1, 0]; 2].concat());
    }
}

mod tfmot {
    use super::*;

    /// `pruning_schedule_test.py`, `testPolynomialDecay_PrunesCorrectly`: 0.2 to 0.8 over steps 100 to 110, power 3.
    #[test]
    fn polynomial_decay() {
        let (from, to) = (Sparsity::new(0.2).unwrap(), Sparsity::new(0.8).unwrap());
        for (step, expected) in [(100, 0.2), (102, 0.4928), (105, 0.725), (110, 0.8)] {
            let at = Schedule::Cubic.at(step - 100, 10, from, to).removed();
            assert!((at - expected).abs() < 1e-12, "{step}: {at}");
        }
    }

    /// `pruning_schedule_test.py`, `testPrunesWithConstantSparsity`: 0.5 at every step.
    #[test]
    fn constant_sparsity() {
        let half = Sparsity::new(0.5).unwrap();
        assert!([1, 10, 100].iter().all(|&step| Schedule::OneShot.at(step, 100, half, half) == half));
    }

    /// `pruning_impl_test.py`, `testConstructsMaskAndThresholdCorrectly`, `testUpdateSingleMask`,
    /// `testConditionalMaskUpdate`.
    #[test]
    fn counts_of_what_is_left() {
        let row = |n: usize| w(Array2::from_shape_fn((1, n), |(_, j)| (j + 1) as f64));
        let at = |s: f64| Unstructured::new(Sparsity::new(s).unwrap()).include_ends();
        let ten = pruned(&at(0.200_000_018), &Magnitude::l1(), &row(10));
        assert_eq!(ones(&ten, "w"), [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
        let mut hundred = row(100);
        for (sparsity, left) in [(0.0, 100), (0.1, 90), (0.1, 90), (0.3, 70), (0.3, 70), (0.5, 50), (0.5, 50)]
        {
            hundred = pruned(&at(sparsity), &Magnitude::l1(), &hundred);
            assert_eq!(hundred.nonzero_count(), left);
        }
        // `testExtremelySparseMask`: one weight is left, never none.
        assert_eq!(pruned(&at(0.9999), &Magnitude::l1(), &row(100)).nonzero_count(), 1);
    }

    /// `pruning_impl_test.py`, `testBlockMaskingAvg`, `testBlockMaskingMax`: 2×2 tiles, half of them.
    #[test]
    fn tiles() {
        let half = Tiles::new(2, 2, Sparsity::new(0.5).unwrap()).include_ends();
        let full = Array2::from_shape_fn((4, 4), |(i, j)| 0.1 * (1 + i / 2 * 2 + j / 2) as f64);
        let lower = [[0; 8], [1; 8]].concat();
        let mean = pruned(&half.clone().pool(Pool::Mean), &Magnitude::l2(), &w(full.clone()));
        assert_eq!(ones(&mean, "w"), lower);
        let diagonal = Array2::from_shape_fn((4, 4), |(i, j)| match (i % 2, j % 2) {
            (0, 0) => full[[i, j]],
            (1, 1) => -full[[i, j]],
            _ => 0.0,
        });
        let max = plan(&half.pool(Pool::Max), &Magnitude::l2(), &w(diagonal));
        let mask = max.weight_mask("w").unwrap();
        assert_eq!((0..16).map(|k| u8::from(mask.keeps(k))).collect::<Vec<_>>(), lower);
    }

    /// N of M of a weight: `(zeros, of)` there, keep `of − zeros` here.
    fn n_of_m((zeros, of): (usize, usize), parameter: Parameter<f64>) -> Vec<u8> {
        let pruner = NOfM::new(of - zeros, of).unwrap().include_ends();
        ones(&pruned(&pruner, &Magnitude::l1(), &model(vec![parameter])), "w")
    }

    /// `pruning_utils_test.py`, `testGenerateMbyNMask`, where rows divide. (Others pad the last group; here it is an
    /// error.)
    #[test]
    fn m_by_n_masks() {
        let rows = array![[0.25, -1.33, 0.43, -0.11], [0.47, 0.92, -0.13, -2.23]];
        assert_eq!(n_of_m((2, 4), Parameter::linear("w", rows)), [0, 1, 1, 0, 0, 1, 0, 1]);
        let rows = array![[1.71, -0.27, -0.3, -0.61, -0.19], [-0.4, 1.12, 0.46, -1.12, 0.17]];
        assert_eq!(n_of_m((3, 5), Parameter::linear("w", rows)), [1, 0, 0, 1, 0, 0, 1, 0, 1, 0]);
        assert!(NOfM::new(0, 4).is_err(), "(4, 4) keeps nothing");
        let ragged = w(array![[-0.49, -0.66, 0.42], [0.31, 0.63, -1.63]]);
        let scores =
            Scores::compute(&Magnitude::l1(), &ragged, &Evidence::new(&ragged, Needs::MOMENTS)).unwrap();
        let error = NOfM::new(2, 4).unwrap().include_ends().plan(&ragged, &scores).unwrap_err();
        assert!(error.to_string().contains("layer `w`"), "{error}");
    }

    /// `pruning_impl_test.py`, `testSparsityMbyNMaskingSimple`: weights with the outputs on the last axis.
    #[test]
    fn m_by_n_along_the_inputs() {
        let dense = array![[0.74, 0.68], [-0.89, -0.45], [-1.68, 1.24], [0.31, -0.6]];
        let dense = Parameter::linear("w", dense).axes(1, 0);
        assert_eq!(n_of_m((2, 4), dense), [0, 1, 1, 0, 1, 1, 0, 0]);
        // [1, 1, 4, 2] there: two filters of four channels.
        let filters = [-0.36, -0.43, 0.12, 0.77, -0.77, -0.18, 1.36, 0.96];
        let conv = || {
            let filters = Array4::from_shape_vec((2, 4, 1, 1), filters.to_vec()).unwrap();
            Parameter::conv("w", filters, Geometry::new())
        };
        assert_eq!(n_of_m((2, 4), conv()), [0, 1, 0, 1, 0, 0, 1, 1]);
        assert_eq!(n_of_m((1, 2), conv()), [0, 1, 0, 1, 1, 0, 1, 0]);
    }
}
