//! One answer: the same bytes on 1, 2 and 8 threads, and without threads, for every method.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

#[allow(dead_code, reason = "each user of this module takes a part of it")]
#[path = "../examples/digits/mod.rs"]
mod digits;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ndarray::Array2;

use digits::{Digits, Network, read_model};
use niwaki::importance::{
    BrainSurgeon, GeometricMedian, GradientCompare, Importance, Magnitude, MaxActivation, Penalty, Random,
    StdDev, Subset, Taylor, TotalConfidence, Wanda,
};
use niwaki::prune::{
    Channel, FeatureMap, Modules, NOfM, Pruner, Scope, Shrink, SparseGpt, Sparsity, Tiles, Unstructured,
};
use niwaki::quantize::{
    Bits, Distillation, ElementWise, Ggml, Gptq, GroupSize, MultiScale, Quantizer, Range, Uniform,
};
use niwaki::recover::{self, BatchNorm, LeastSquares, MeanFold, Recovery};
use niwaki::rescale::Equalize;
use niwaki::{Block, Compressed, Compressor, Evidence, Model, Needs, Nothing, Parameter};

type Boxed =
    (Box<dyn Importance<f32>>, Box<dyn Pruner<f32>>, Box<dyn Recovery<f32>>, Box<dyn Quantizer<f32>>);

fn half() -> Sparsity {
    Sparsity::new(0.5).unwrap()
}

/// Every method in at least one pipeline.
fn pipelines() -> Vec<(&'static str, Boxed)> {
    let mut all: Vec<(&'static str, Boxed)> = Vec::new();
    let mut add = |name, importance: Box<dyn Importance<f32>>, pruner: Box<dyn Pruner<f32>>| {
        all.push((name, (importance, pruner, Box::new(LeastSquares::default()), Box::new(Uniform::int8()))));
    };
    add("max activation", Box::new(MaxActivation::new()), Box::new(Channel::new(half())));
    add("std of activations", Box::new(StdDev::of_activations()), Box::new(FeatureMap::new(half())));
    add("std of weights", Box::new(StdDev::of_weights()), Box::new(Unstructured::new(half())));
    add("geometric median", Box::new(GeometricMedian::new()), Box::new(Channel::new(half())));
    add("total confidence", Box::new(TotalConfidence::new()), Box::new(FeatureMap::new(half())));
    add("gradient compare", Box::new(GradientCompare::update()), Box::new(Tiles::new(4, 9, half())));
    add("subset", Box::new(Subset::new()), Box::new(Channel::new(half()).scope(Scope::Global)));
    add("wanda", Box::new(Wanda::new()), Box::new(Unstructured::new(half()).scope(Scope::PerRow)));
    add("taylor", Box::new(Taylor::new()), Box::new(Channel::new(half())));
    add("random", Box::new(Random::new(3)), Box::new(Unstructured::new(half()).scope(Scope::Global)));
    add("n of m", Box::new(Magnitude::l1()), Box::new(NOfM::new(2, 4).unwrap()));
    add("shrink", Box::new(Magnitude::l1()), Box::new(Shrink::new(Penalty::new(0.5, 0.02).unwrap())));
    let (four, eight) = (Bits::new(4).unwrap(), Bits::new(8).unwrap());
    let quantizers: Vec<(&'static str, Box<dyn Quantizer<f32>>)> = vec![
        ("f16", Box::new(ElementWise::f16())),
        ("fixed", Box::new(ElementWise::fixed(3, 4).unwrap())),
        ("percentile", Box::new(Uniform::new(four).range(Range::percentile(99.0).unwrap()))),
        ("f8", Box::new(ElementWise::f8_e5m2())),
        (
            "mse groups",
            Box::new(Uniform::new(four).affine().per_group(GroupSize::new(32).unwrap()).range(Range::Mse)),
        ),
        ("entropy", Box::new(Uniform::new(eight).per_tensor().range(Range::Entropy))),
        ("model scope", Box::new(Uniform::new(eight).per_model())),
        ("ggml", Box::new(Ggml::q8_0())),
        ("nested", Box::new(MultiScale::nested(&[4, 4]).unwrap())),
        ("refitted", Box::new(MultiScale::refitted(&[4, 4]).unwrap())),
        ("gptq", Box::new(Uniform::new(four).rounding(Gptq::new().act_order().polish(2)))),
        (
            "gptq groups",
            Box::new(Uniform::new(four).per_group(GroupSize::new(16).unwrap()).rounding(Gptq::new())),
        ),
        ("gptq joint", Box::new(Uniform::new(four).rounding(Gptq::new().sparsity(half()).search()))),
        ("distillation", Box::new(Distillation::new(Uniform::new(four)).steps(6).adversarial(1))),
    ];
    let channel = || Box::new(Channel::new(half()));
    for (name, quantizer) in quantizers {
        all.push((name, (Box::new(Magnitude::l2()), channel(), Box::new(MeanFold::new()), quantizer)));
    }
    all.push((
        "batch norm",
        (Box::new(Magnitude::l2()), channel(), Box::new(BatchNorm::new()), Box::new(Nothing)),
    ));
    let sparse_gpt: Boxed = (
        Box::new(BrainSurgeon::new()),
        Box::new(SparseGpt::new(half()).block(16).unwrap()),
        Box::new(recover::SparseGpt::new()),
        Box::new(Uniform::int8()),
    );
    all.push(("sparse gpt", sparse_gpt));
    all
}

/// A number for the exact bytes that each pipeline ends with, evidence collected anew.
fn digests() -> BTreeMap<&'static str, u64> {
    let model = read_model("digits.safetensors").unwrap();
    let (training, _) = Digits::load().unwrap();
    let network = Network::from(model.clone());
    let mut evidence = Evidence::new(&model, Needs::ALL);
    evidence.record_snapshot(&read_model("digits-early.safetensors").unwrap()).unwrap();
    for weight in model.weights() {
        // Any gradient will do.
        evidence.record_gradient(weight.name(), &weight.array().mapv(f32::sin)).unwrap();
    }
    for batch in training.part(0, 200).batches() {
        network.forward(&batch.images, Some(&mut evidence)).unwrap();
    }
    let mut all: BTreeMap<_, _> =
        pipelines().into_iter().map(|(name, stages)| (name, digest(stages, &model, &evidence))).collect();
    let blocks = three_blocks();
    let modules: Boxed = (
        Box::new(Magnitude::l2()),
        Box::new(Modules::count(1)),
        Box::new(Nothing),
        Box::new(Uniform::int8()),
    );
    let learned = Uniform::new(Bits::FOUR).rounding(Gptq::new().centred());
    let scaled =
        Compressor::builder().pruner(Nothing).rescale(Equalize::new()).quantizer(learned).correct_bias();
    all.insert("equalized", of_bytes(&scaled.build().unwrap().compress(&model, &evidence).unwrap()));
    all.insert("modules", digest(modules, &blocks, &Evidence::new(&blocks, Needs::MOMENTS)));
    all
}

/// Linear layers that can each be removed whole; two share their weights.
fn three_blocks() -> Model<f32> {
    let weights = |phase: f32| Array2::from_shape_fn((16, 16), |(i, j)| (phase + (i * j) as f32).sin());
    Model::builder()
        .parameter(Parameter::linear("own", weights(0.0)))
        .parameter(Parameter::linear("shared", weights(0.5)))
        .block(Block::new("a").parameters(["own"]))
        .block(Block::new("b").parameters(["shared"]))
        .block(Block::new("c").parameters(["shared"]))
        .build()
        .unwrap()
}

fn digest(
    (importance, pruner, recovery, quantizer): Boxed,
    model: &Model<f32>,
    evidence: &Evidence<f32>,
) -> u64 {
    let builder =
        Compressor::builder().importance(importance).pruner(pruner).recovery(recovery).quantizer(quantizer);
    of_bytes(&builder.seed(7).build().unwrap().compress(model, evidence).unwrap())
}

/// A number for the exact bytes of a file.
fn of_bytes(compressed: &Compressed<f32>) -> u64 {
    let name = format!("determinism-{}-{:?}", std::process::id(), std::thread::current().id());
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    compressed.save(&file).unwrap();
    let mut hasher = DefaultHasher::new();
    std::fs::read(&file).unwrap().hash(&mut hasher);
    std::fs::remove_file(&file).unwrap();
    hasher.finish()
}

#[test]
#[cfg(feature = "rayon")]
fn one_two_and_eight_threads_agree() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(digests)
    };
    let one = on(1);
    assert_eq!(on(2), one);
    assert_eq!(on(8), one);
}

/// Runs this very test without the feature `rayon`, in a build of its own, and compares.
#[test]
#[cfg(feature = "rayon")]
fn no_threads_agree_too() {
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/without-threads");
    let output = std::process::Command::new(env!("CARGO"))
        .args(["test", "--no-default-features", "--features", "safetensors,regex", "--test", "determinism"])
        .args(["--target-dir", target, "--", "prints_its_digests", "--exact", "--nocapture"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for (name, digest) in digests() {
        assert!(text.contains(&format!("digest {name}: {digest:016x}")), "{name} differs:\n{text}");
    }
}

#[test]
fn prints_its_digests() {
    let digests = digests();
    assert_eq!(digests.len(), pipelines().len() + 2);
    for (name, digest) in digests {
        println!("digest {name}: {digest:016x}");
    }
}
