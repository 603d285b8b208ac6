//! Graphs in integers answer as they do in floats, up to rounding.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics")]

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use niwaki::onnx::{Dim, Graph, Inputs, IntegerGraph, Qdq, Runner, TensorRanges, Trace, Values, compare};
use niwaki::prune::Plan;
use niwaki::quantize::{Bits, Range, Uniform};
use niwaki::{Compressor, ErrorKind, Kind, ndarray};

/// What rten cannot run: an operator that no runtime knows, also as a function of the file.
const NOT_RUN: [&str; 2] = ["custom-op.onnx", "custom-function.onnx"];
/// The least cosine between the answers of a random network and those of the same in 8 bits.
const LEAST: f64 = 0.99;
/// Where weights in codes alone leave less, a network that was never trained amplifies any rounding.
const STEADY: f64 = 0.998;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn small() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("tests/data/onnx")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "onnx")).collect();
    files.sort();
    files
}

/// Random inputs of a file of `tests/data/onnx`.
fn inputs(file: &str, graph: &Graph) -> Vec<(String, Values)> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    let length = |(place, dim): (usize, &Dim)| match dim {
        Dim::Fixed(len) => *len,
        _ if place == 0 => 2,
        Dim::Named(name) if name == "height" || name == "width" => {
            if file.starts_with("superres") {
                6
            } else {
                16
            }
        }
        _ => 8,
    };
    let model = graph.trace().unwrap();
    let tables = model.model().weights().filter(|p| *p.kind() == Kind::Embedding);
    let words = tables.map(|p| p.shape()[0]).min().unwrap_or(2) as f32;
    let of = |info: niwaki::onnx::ValueInfo| {
        let dims: Vec<usize> = info.dims.unwrap_or_default().iter().enumerate().map(length).collect();
        let floats = ArrayD::from_shape_simple_fn(dims, &mut next);
        let values = match (info.name.as_str(), info.data_type) {
            ("mask", _) => Values::from(floats.mapv(|x| i64::from(x > 0.2))),
            (_, 6 | 7) => Values::from(floats.mapv(|x| (x * words) as i64)),
            _ => Values::from(floats.mapv(|x| 2.0 * x - 1.0)),
        };
        (info.name, values)
    };
    graph.inputs().into_iter().map(of).collect()
}

/// The graph with weights in so many bits.
fn coded(graph: &Graph, sizes: &[(String, Values)], bits: Bits) -> Graph {
    let graph = Qdq::prepared(graph).unwrap();
    let settings =
        sizes.iter().fold(Trace::new(), |trace, (name, values)| trace.input(name.clone(), values.shape()));
    let traced = settings.run(&graph).unwrap();
    let compressor = Compressor::builder().quantizer(Uniform::new(bits).per_channel()).build().unwrap();
    let compressed = compressor.compress(traced.model(), &compressor.evidence(traced.model())).unwrap();
    traced.apply_compressed(&Plan::new(traced.model()), &compressed).unwrap().graph
}

fn answers(graph: &Graph, inputs: &[(String, Values)]) -> Vec<Values> {
    let names: Vec<String> = graph.outputs().into_iter().map(|o| o.name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Runner::exact(graph).unwrap().run(inputs, &names).unwrap()
}

/// The least cosine of two graphs' answers.
fn cosine(a: &[Values], b: &[Values]) -> f64 {
    let one = |(a, b): (&Values, &Values)| {
        let (a, b) = (a.floats().unwrap(), b.floats().unwrap());
        assert_eq!(a.shape(), b.shape());
        let dot = |a: &ArrayD<f32>, b: &ArrayD<f32>| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let norm = (dot(a, a) * dot(b, b)).sqrt();
        if norm > 0.0 { dot(a, b) / norm } else { 1.0 }
    };
    a.iter().zip(b).map(one).fold(1.0, f64::min)
}

/// Leaves a graph where `NIWAKI_PAIRS` says, for another runtime to judge.
fn leave(file: &str, kind: &str, graph: &Graph) {
    if let Some(folder) = std::env::var_os("NIWAKI_PAIRS").map(PathBuf::from) {
        graph.write(folder.join(format!("{file}.{kind}.onnx"))).unwrap();
    }
}

/// Every small network that can be run, its inputs, and it with weights in codes.
fn each(bits: Bits, mut check: impl FnMut(&str, &Graph, &[(String, Values)], &Graph)) {
    let mut count = 0;
    for path in small() {
        let file = path.file_name().unwrap().to_str().unwrap();
        if NOT_RUN.contains(&file) {
            continue;
        }
        let graph = Graph::read(&path).unwrap();
        let inputs = inputs(file, &graph);
        let coded = coded(&graph, &inputs, bits);
        let alone = cosine(&answers(&coded, &inputs), &answers(&graph, &inputs));
        if alone < STEADY {
            println!("{file}: not judged: weights in codes leave {alone:.6}");
            continue;
        }
        check(file, &graph, &inputs, &coded);
        count += 1;
    }
    assert!(count > 30, "{count} networks");
}

#[test]
fn folded_graphs_answer_as_before() {
    let mut folded = 0;
    for path in small() {
        let file = path.file_name().unwrap().to_str().unwrap();
        let graph = Graph::read(&path).unwrap();
        let made = graph.folded().unwrap();
        if NOT_RUN.contains(&file) || made.to_bytes().unwrap() == graph.to_bytes().unwrap() {
            continue;
        }
        folded += 1;
        let inputs = inputs(file, &graph);
        for (a, b) in answers(&made, &inputs).iter().zip(&answers(&graph, &inputs)) {
            let (a, b) = (a.floats().unwrap(), b.floats().unwrap());
            let size = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!((a - b).iter().all(|d| d.abs() <= 1e-4 * size), "{file}");
        }
    }
    assert!(folded > 0);
}

#[test]
fn static_codes_answer_as_floats_do() {
    let mut tensors = 0;
    each(Bits::EIGHT, |file, graph, inputs, coded| {
        let calibration = Inputs::new(inputs.to_vec());
        let made = Qdq::new().run(coded, &calibration).unwrap();
        leave(file, "qdq", &made.graph);
        let near = cosine(&answers(&made.graph, inputs), &answers(graph, inputs));
        println!(
            "{file}: {} tensors, {} layers in floats: cosine {near:.6}",
            made.tensors.len(),
            made.left.len()
        );
        assert!(near > LEAST, "{file}: {near}");
        tensors += made.tensors.len();
        // Every layer computes in integers or is named.
        let layers = made.left.iter().filter(|left| left.why.is_empty() || left.node.is_empty()).count();
        assert_eq!(layers, 0, "{file}");
    });
    assert!(tensors > 200, "{tensors}");
}

#[test]
fn dynamic_codes_answer_as_floats_do() {
    let mut tensors = 0;
    // Of 8 bits rten, like others, cuts the sums of two products where the processor has no VNNI.
    let seven = Bits::new(7).unwrap();
    each(seven, |file, graph, inputs, coded| {
        let made = coded.dynamically_quantized().unwrap();
        leave(file, "dynamic", &made.graph);
        let near = cosine(&answers(&made.graph, inputs), &answers(graph, inputs));
        println!("{file}: {} tensors: cosine {near:.6}", made.tensors.len());
        assert!(near > LEAST, "{file}: {near}");
        tensors += made.tensors.len();
    });
    assert!(tensors > 20, "{tensors}");
}

fn digits() -> (Graph, Graph, Inputs) {
    let graph = Graph::read(root().join("examples/data/digits.onnx")).unwrap();
    let coded = coded(&graph, &[], Bits::EIGHT);
    (graph, coded, Inputs::read(root().join("examples/data/digits-calibration.npz")).unwrap())
}

#[test]
fn every_range_serves_trained_digits() {
    let (graph, coded, calibration) = digits();
    let test = Inputs::read(root().join("examples/data/digits-test.npz")).unwrap();
    for range in
        [Range::MinMax, Range::percentile(99.99).unwrap(), Range::Entropy, Range::Mse, Range::HalfQuadratic]
    {
        let made = Qdq::new().range(range).run(&coded, &calibration).unwrap();
        let again = Qdq::new().range(range).run(&coded, &calibration).unwrap();
        assert_eq!(made.graph.to_bytes().unwrap(), again.graph.to_bytes().unwrap());
        let comparison = compare(&graph, &made.graph, &test).unwrap();
        let near = comparison.outputs[0].mean_cosine;
        println!("{range:?}: {near:.6}");
        assert!(near > 0.998, "{range:?}: {near}");
        assert!(made.left.is_empty());
    }
}

#[test]
fn ranges_that_are_given_are_used_and_those_that_are_not_are_named() {
    let (_, coded, calibration) = digits();
    let qdq = Qdq::new();
    let names = qdq.tensors(&coded).unwrap();
    let seen = qdq.observe(&coded, &calibration).unwrap();
    let all = names.iter().map(|name| {
        let (low, high) = seen.get(name).unwrap();
        (name.clone(), low, high)
    });
    let given = TensorRanges::new(all.clone()).unwrap();
    assert_eq!(given, seen);
    let IntegerGraph { graph, .. } = qdq.apply(&coded, &given).unwrap();
    assert_eq!(graph.to_bytes().unwrap(), qdq.run(&coded, &calibration).unwrap().graph.to_bytes().unwrap());
    let error = qdq.apply(&coded, &TensorRanges::new(all.skip(1)).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Name);
    assert_eq!(error.to_string(), format!("tensor `{}`: its range is not given", names[0]));
    // Ranges so narrow that a bias does not fit i32 in their scale: the layers stay in floats.
    let narrow = TensorRanges::new(names.iter().map(|name| (name.clone(), 0.0, 1e-9))).unwrap();
    let made = qdq.apply(&coded, &narrow).unwrap();
    assert!(made.left.iter().any(|left| left.why.contains("past i32")), "{:?}", made.left);
}

#[test]
fn graphs_without_codes_stay_as_they_are() {
    let (graph, _, calibration) = digits();
    let made = Qdq::new().run(&graph, &calibration).unwrap();
    assert_eq!(made.graph.to_bytes().unwrap(), graph.to_bytes().unwrap());
    assert!(made.tensors.is_empty() && made.left.iter().all(|left| left.why.contains("no codes")));
}
