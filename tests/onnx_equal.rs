//! A pruned graph answers as the original does with the same units at zero, and one whose scales moved as the original.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test panics")]

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, Axis};
use niwaki::model::{CoupledSlot, Passage};
use niwaki::onnx::{Dim, Graph, Inputs, Runner, Trace, Traced, Values};
use niwaki::prune::Plan;
use niwaki::rescale::{Equalize, Migration, Rescale};
use niwaki::{ErrorKind, Evidence, Kind, Model, Needs, NormRole, ndarray};

/// Largest difference, against the largest answer.
const TOLERANCE: f32 = 1e-4;
/// What rten cannot run: an operator that no runtime knows, also as a function of the file.
const NOT_RUN: [&str; 2] = ["custom-op.onnx", "custom-function.onnx"];
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A stream of numbers in [0, 1).
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u32 << 24) as f32
    }
}

/// The length of an axis that the file leaves open.
fn length(file: &str, place: usize, name: &str) -> usize {
    match (place, name) {
        (0, _) => 2,
        (_, "height" | "width") if file.starts_with("superres") => 6,
        (_, "height" | "width") => 16,
        _ => 8,
    }
}

/// Sizes of all inputs.
fn sizes(file: &str, graph: &Graph) -> Vec<(String, i32, Vec<usize>)> {
    let of = |(place, dim): (usize, &Dim)| match dim {
        Dim::Fixed(len) => *len,
        Dim::Named(name) => length(file, place, name),
        _ => 1,
    };
    let inputs = graph.inputs().into_iter();
    let sized = inputs.map(|info| {
        let dims = info.dims.unwrap_or_default();
        let dims = match file {
            "silero_vad_16k_op15.onnx" if info.name == "input" => vec![1, 576],
            "silero_vad_16k_op15.onnx" if info.name == "state" => vec![2, 1, 128],
            "ch_ppocr_mobile_v2.0_cls_infer.onnx" => vec![2, 3, 48, 192],
            _ => dims.iter().enumerate().map(of).collect(),
        };
        (info.name, info.data_type, dims)
    });
    sized.collect()
}

/// Random inputs: tokens within all embeddings, masks that hide little.
fn inputs(sizes: &[(String, i32, Vec<usize>)], model: &Model<f32>) -> Vec<(String, Values)> {
    let mut stream = Stream(7);
    let tables = model.weights().filter(|p| *p.kind() == Kind::Embedding);
    let words = tables.map(|p| p.shape()[0]).min().unwrap_or(2) as f32;
    let draw = |(name, data_type, dims): &(String, i32, Vec<usize>)| {
        let floats = ArrayD::from_shape_simple_fn(dims.as_slice(), || stream.next());
        let values = match (name.as_str(), *data_type) {
            ("sr", _) => Values::from(floats.mapv(|_| 16_000i64)),
            ("mask", _) => Values::from(floats.mapv(|x| i64::from(x > 0.2))),
            (_, 6 | 7) => Values::from(floats.mapv(|x| (x * words) as i64)),
            _ => Values::from(floats.mapv(|x| 2.0 * x - 1.0)),
        };
        (name.clone(), values)
    };
    sizes.iter().map(draw).collect()
}

/// Every third unit of a coupling.
fn gone(size: usize) -> Vec<usize> {
    (0..size).filter(|unit| unit % 3 == 1).collect()
}

/// The plan by which every third unit of these couplings goes.
fn plan(traced: &Traced, couplings: &[String]) -> Plan {
    let (mut plan, mut left) = (Plan::new(traced.model()), traced.model().clone());
    for name in couplings {
        let Ok(coupling) = left.coupling(name) else { continue };
        let next = Plan::removing(&left, name, &gone(coupling.size())).unwrap();
        left = next.apply(&left).unwrap();
        plan = plan.then(next).unwrap();
    }
    plan
}

/// The model with those units at zero in all that they are part of.
fn zeroed(traced: &Traced, couplings: &[String]) -> Model<f32> {
    let mut model = traced.model().clone();
    for name in couplings {
        let coupling = traced.model().coupling(name).unwrap();
        for slot in coupling.slots() {
            let parameter = model.parameter(slot.parameter()).unwrap();
            if matches!(parameter.kind(), Kind::Norm { role: NormRole::Variance, .. }) {
                continue;
            }
            let mut array = parameter.array().clone();
            for &position in gone(coupling.size()).iter().flat_map(|&unit| slot.positions(unit)) {
                array.index_axis_mut(Axis(slot.axis()), position).fill(0.0);
            }
            model.set_values(slot.parameter(), array).unwrap();
        }
    }
    model
}

fn answers(graph: &Graph, inputs: &[(String, Values)]) -> niwaki::Result<Vec<Values>> {
    let names: Vec<String> = graph.outputs().into_iter().map(|o| o.name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Runner::exact(graph)?.run(inputs, &names)
}

/// The pruned graph, and the original with the same units at zero.
fn pair(traced: &Traced, couplings: &[String]) -> niwaki::Result<(Graph, Graph)> {
    let plan = plan(traced, couplings);
    let pruned = traced.apply(&plan, &plan.apply(traced.model())?)?;
    Ok((pruned, traced.apply(&Plan::new(traced.model()), &zeroed(traced, couplings))?))
}

/// Writes both where `NIWAKI_PAIRS` says, for another runtime to judge.
fn leave_pair(file: &str, traced: &Traced, couplings: &[String]) {
    let Some(folder) = std::env::var_os("NIWAKI_PAIRS").map(PathBuf::from) else { return };
    let (pruned, zeroed) = pair(traced, couplings).unwrap();
    pruned.write(folder.join(format!("{file}.pruned.onnx"))).unwrap();
    zeroed.write(folder.join(format!("{file}.zeroed.onnx"))).unwrap();
}

/// How far the pruned graph's answers are from the zeroed one's, against the largest of them.
fn difference(traced: &Traced, couplings: &[String], inputs: &[(String, Values)]) -> niwaki::Result<f32> {
    let (pruned, zeroed) = pair(traced, couplings)?;
    Ok(far(&answers(&pruned, inputs)?, &answers(&zeroed, inputs)?))
}

/// Other scales for all units of these passages: factors from 1/2 to 2.
fn migration(traced: &Traced, passages: &[String]) -> Migration {
    let mut stream = Stream(11);
    passages.iter().fold(Migration::new(), |migration, name| {
        let size = traced.model().passage(name).unwrap().size();
        let factors = (0..size).map(|_| 2f64.powf(f64::from(2.0 * stream.next() - 1.0))).collect();
        migration.scale(name, factors).unwrap()
    })
}

/// How far the answers are from those of the original when scales have moved; with `halfway`, not where they are read.
fn moved(
    traced: &Traced,
    migration: &Migration,
    inputs: &[(String, Values)],
    halfway: bool,
) -> niwaki::Result<f32> {
    let mut model = migration.apply(traced.model())?;
    let passages = migration.factors().map(|(name, _)| traced.model().passage(name).unwrap());
    for slot in passages.flat_map(Passage::readers).filter(|_| halfway) {
        let before = traced.model().parameter(slot.parameter())?.array().clone();
        model.set_values(slot.parameter(), before)?;
    }
    let graph = traced.apply(&Plan::new(traced.model()), &model)?;
    Ok(far(&answers(&graph, inputs)?, &answers(traced.graph(), inputs)?))
}

/// The largest difference of answers, against the largest of theirs.
fn far(ours: &[Values], theirs: &[Values]) -> f32 {
    let pairs = ours.iter().zip(theirs).map(|(a, b)| {
        let (a, b) = (a.floats().unwrap(), b.floats().unwrap());
        assert_eq!(a.shape(), b.shape());
        assert!(a.iter().chain(b).all(|x| x.is_finite()));
        let size = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        (a - b).iter().fold(0.0f32, |m, x| m.max(x.abs())) / size.max(1e-6)
    });
    pairs.fold(0.0, f32::max)
}

/// What is wrong with a file whose scales move, if anything, and how many units they move for.
fn check_scales(path: &Path) -> (Option<String>, usize) {
    let file = path.file_name().unwrap().to_str().unwrap();
    let graph = Graph::read(path).unwrap();
    let sizes = sizes(file, &graph);
    let mut settings = Trace::new();
    for (name, _, dims) in &sizes {
        settings = settings.input(name.clone(), dims.clone());
    }
    let traced = settings.run(&graph).unwrap();
    let inputs = inputs(&sizes, traced.model());
    let passages = traced.model().passages();
    let names: Vec<String> = passages.iter().map(|p| p.name().to_owned()).collect();
    let units = passages.iter().map(Passage::size).sum();
    println!("{file}: {} passages of {units} units", names.len());
    let drawn = migration(&traced, &names);
    if let Some(folder) = std::env::var_os("NIWAKI_PAIRS").map(PathBuf::from) {
        let model = drawn.apply(traced.model()).unwrap();
        let graph = traced.apply(&Plan::new(traced.model()), &model).unwrap();
        graph.write(folder.join(format!("{file}.moved.onnx"))).unwrap();
    }
    if NOT_RUN.contains(&file) {
        return (None, units);
    }
    let evidence = Evidence::new(traced.model(), Needs::MOMENTS);
    let even = Equalize::new().plan(traced.model(), &evidence).unwrap();
    let even = moved(&traced, &even, &inputs, false);
    let wrong = match (moved(&traced, &drawn, &inputs, false), even) {
        (Ok(far), Ok(even)) if far <= TOLERANCE && even <= TOLERANCE => {
            let halfway = moved(&traced, &drawn, &inputs, true).unwrap_or(f32::INFINITY);
            println!(
                "    {far:.1e} apart, {even:.1e} when equalized, {halfway:.1e} where only makers are divided"
            );
            (!names.is_empty() && halfway < 10.0 * TOLERANCE).then(|| "halfway is as good".to_owned())
        }
        (all, even) => {
            let one = |name: &String| match moved(
                &traced,
                &migration(&traced, std::slice::from_ref(name)),
                &inputs,
                false,
            ) {
                Ok(far) if far <= TOLERANCE => None,
                other => Some(format!("{name}: {other:?}")),
            };
            let each: Vec<String> = names.iter().filter_map(one).collect();
            Some(format!("together {all:?}, equalized {even:?}\n    {}", each.join("\n    ")))
        }
    };
    (wrong.map(|what| format!("{}: {what}", path.display())), units)
}

/// What is wrong with a file, if anything.
fn check(path: &Path) -> Option<String> {
    let file = path.file_name().unwrap().to_str().unwrap();
    let graph = Graph::read(path).unwrap();
    let sizes = sizes(file, &graph);
    let mut settings = Trace::new();
    for (name, _, dims) in &sizes {
        settings = settings.input(name.clone(), dims.clone());
    }
    let traced = match settings.run(&graph) {
        Ok(traced) => traced,
        Err(e) => return Some(format!("tracing: {e:?}")),
    };
    let inputs = inputs(&sizes, traced.model());
    let large = traced.model().couplings().iter().filter(|c| c.size() > 1);
    let names: Vec<String> = large.map(|c| c.name().to_owned()).collect();
    if path.starts_with(root().join("tests")) {
        leave_pair(file, &traced, &names);
    }
    match answers(&graph, &inputs) {
        Err(e) if NOT_RUN.contains(&file) && e.kind() == ErrorKind::Unsupported => {
            println!("{file}: not run: {e}");
            return None;
        }
        Err(e) => return Some(format!("the original: {e:?}")),
        // Without units the network must answer something else, or nothing would be compared.
        Ok(whole) => {
            let zeroed = traced.apply(&Plan::new(traced.model()), &zeroed(&traced, &names)).unwrap();
            if !names.is_empty() && whole == answers(&zeroed, &inputs).unwrap() {
                return Some("units at zero change nothing".to_owned());
            }
        }
    }
    let all = difference(&traced, &names, &inputs);
    if let Ok(far) = all
        && far <= TOLERANCE
    {
        let (before, after) = plan(&traced, &names).parameter_counts();
        println!("{file}: {} couplings, {before} -> {after}: {far:.1e}", names.len());
        return None;
    }
    let mut wrong = vec![format!("together {all:?}")];
    for name in names {
        match difference(&traced, std::slice::from_ref(&name), &inputs) {
            Ok(far) if far <= TOLERANCE => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    Some(wrong.join("\n    "))
}

fn check_all(paths: impl IntoIterator<Item = PathBuf>) {
    let wrong =
        paths.into_iter().filter_map(|path| check(&path).map(|what| format!("{}: {what}", path.display())));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn small_networks_answer_as_with_units_at_zero() {
    check_all(small());
}

#[test]
fn real_networks_answer_as_with_units_at_zero() {
    check_all(real());
}

#[test]
fn small_networks_answer_as_before_when_scales_moved() {
    let checked: Vec<_> = small().iter().map(|path| check_scales(path)).collect();
    let wrong: Vec<&str> = checked.iter().filter_map(|(wrong, _)| wrong.as_deref()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let moving = checked.iter().filter(|(_, units)| *units > 0).count();
    assert!(moving > 40, "scales move in {moving} of {} networks", checked.len());
}

#[test]
fn scales_move_where_they_are_known_to() {
    let names =
        |slots: &[CoupledSlot]| slots.iter().map(CoupledSlot::parameter).collect::<Vec<_>>().join(" ");
    let passages = |file: &str| {
        let traced = Graph::read(root().join("tests/data/onnx").join(file)).unwrap().trace().unwrap();
        let of = |p: &Passage| format!("{} > {}: {}", names(p.makers()), names(p.readers()), p.size());
        traced.model().passages().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(passages("mlp.onnx"), ["fc1.weight fc1.bias > fc2.weight: 4"]);
    assert_eq!(passages("gru.onnx"), ["conv.weight conv.bias > val_29: 12"]);
    // Both directions of the cell read the embedding; its hidden units stay.
    assert_eq!(passages("lstm-tagger.onnx"), ["embed.weight > val_112[0] val_112[1]: 14"]);
    // Behind ReLU6 nothing moves, but between blocks, where nothing follows the batch norm.
    let mobile = passages("mobilenetv2.onnx");
    assert_eq!(mobile.len(), 4);
    assert_eq!(mobile[0], "blocks.0.project.1.weight blocks.0.project.1.bias > blocks.1.expand.0.weight: 6");
    // The values of an attention go through it; a layer norm before a residual sum stays.
    assert_eq!(passages("bert.onnx")[0], "val_41 layers.0.value.bias > val_56: 24");
    let residual = passages("resnet18.onnx");
    assert_eq!(residual.len(), 12);
    assert_eq!(residual[1], "layer1.0.bn1.weight layer1.0.bn1.bias > layer1.0.conv2.weight: 6");
    // Weights in 16 bits would be rounded again.
    assert!(passages("f16-vgg.onnx").is_empty());
}

#[test]
fn real_networks_answer_as_before_when_scales_moved() {
    let wrong: Vec<String> = real().iter().filter_map(|path| check_scales(path).0).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn small() -> Vec<PathBuf> {
    let folder = root().join("tests/data/onnx");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    paths.sort();
    paths
}

fn real() -> Vec<PathBuf> {
    let names = [
        "mnist-cnn/model.onnx",
        "ppocr-cls/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "silero/silero_vad_16k_op15.onnx",
        "basic-pitch/nmp.onnx",
    ];
    let paths = names.map(|name| root().join("../shared/data").join(name));
    let (there, missing): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.exists());
    for path in missing {
        println!("skipped: there is no {}", path.display());
    }
    there
}

#[test]
fn wrong_inputs_say_what_the_model_reads() {
    let graph = Graph::read(root().join("tests/data/onnx/bert.onnx")).unwrap();
    let traced = graph.trace().unwrap();
    let mut evidence = Evidence::new(traced.model(), Needs::MOMENTS);
    let tokens = Values::from(ArrayD::<i64>::zeros(vec![3, 8]));
    let inputs = Inputs::new([("tokens", tokens)]);
    let error = traced.observe(&inputs, &mut evidence).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Name);
    let text = "input `mask` is not given; the model reads `tokens`: i64 [batch, length], `mask`: i64 [batch, length]";
    assert_eq!(error.to_string(), text);
}
