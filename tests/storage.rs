//! What is saved is what is loaded, bit for bit, in every form; and a file weighs what its report says.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array, Array2, Array4};
use niwaki::compress::Stored;
use niwaki::importance::StdDev;
use niwaki::prune::{FeatureMap, Modules, Pruner, Sparsity, Then, Unstructured};
use niwaki::quantize::{Bits, ElementWise, GroupSize, MultiScale, Quantizer, Range, Uniform};
use niwaki::{
    Block, Compressed, Compressor, Coupling, Error, Evidence, Geometry, Model, Needs, Nothing, Parameter,
    Slot,
};

fn wave(rows: usize, columns: usize) -> Array2<f32> {
    Array::from_shape_fn((rows, columns), |(i, j)| ((3 * i + 5 * j) as f32).sin() + 0.01)
}

/// A convolution, flattened into a linear layer, then two blocks that share their weights.
fn model() -> Model<f32> {
    let filters =
        Array4::from_shape_fn((4, 2, 3, 3), |(o, i, y, x)| ((7 * o + 5 * i + 3 * y + x) as f32).cos());
    Model::builder()
        .parameter(Parameter::conv("conv.weight", filters, Geometry::new().padding(1)))
        .parameter(Parameter::bias("conv.bias", Array::ones(4), "conv.weight"))
        .parameter(Parameter::linear("fc.weight", wave(16, 36)))
        .parameter(Parameter::linear("turned", wave(16, 24)).axes(1, 0))
        .parameter(Parameter::linear("shared", wave(16, 16)))
        .parameter(Parameter::embedding("words", wave(40, 16)))
        .parameter(Parameter::other("step", Array::ones(1)))
        .coupling(
            Coupling::builder("filters")
                .outputs(["conv.weight", "conv.bias"])
                .slot(Slot::input("fc.weight").repeat(9)),
        )
        .block(Block::new("first").parameters(["shared"]))
        .block(Block::new("second").parameters(["shared"]))
        .build()
        .unwrap()
}

fn evidence(model: &Model<f32>) -> Evidence<f32> {
    let mut evidence = Evidence::new(model, Needs::ALL);
    let maps =
        Array4::from_shape_fn((5, 4, 3, 3), |(n, c, y, x)| ((n * 11 + c * 7 + y * 3 + x) as f32).sin());
    evidence.record_output("conv.weight", &maps).unwrap();
    evidence
}

struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn compressed(pruner: impl Pruner<f32>, quantizer: &dyn Quantizer<f32>) -> Result<Compressed<f32>, Error> {
    let model = model();
    let builder =
        Compressor::builder().importance(StdDev::of_activations()).pruner(pruner).quantizer(quantizer);
    builder.build()?.compress(&model, &evidence(&model))
}

fn saved_is_loaded(name: &str, compressed: &Compressed<f32>) {
    let (file, again) = (File::new(name), File::new(&format!("{name}.again")));
    let written = compressed.save(&file.0).unwrap();
    assert_eq!(written, fs::metadata(&file.0).unwrap().len());
    assert_eq!(written, compressed.report().bytes() as u64, "the report counts the bytes written");
    let loaded = Compressed::<f32>::load(&file.0).unwrap();
    assert!(&loaded == compressed, "{name}: loaded differs");
    loaded.verify().unwrap();
    assert_eq!(loaded.decode().unwrap(), compressed.decode().unwrap());
    assert_eq!(loaded.report().bytes(), compressed.report().bytes());
    loaded.save(&again.0).unwrap();
    assert_eq!(fs::read(&again.0).unwrap(), fs::read(&file.0).unwrap());
}

#[test]
fn every_scheme() {
    let bits = |b| Bits::new(b).unwrap();
    let group = GroupSize::new(32).unwrap();
    let schemes: Vec<(&str, Box<dyn Quantizer<f32>>)> = vec![
        ("dense", Box::new(Nothing)),
        ("int8", Box::new(Uniform::int8())),
        ("int4-group-affine", Box::new(Uniform::new(bits(4)).affine().per_group(group).f16_scales())),
        ("int3-tensor", Box::new(Uniform::new(bits(3)).per_tensor().range(Range::Mse))),
        ("int1", Box::new(Uniform::new(bits(1)).affine())),
        ("model", Box::new(Uniform::new(bits(6)).per_model())),
        ("fixed", Box::new(ElementWise::fixed(2, 5).unwrap())),
        ("bf16", Box::new(ElementWise::bf16())),
        ("e4m3", Box::new(ElementWise::f8_e4m3())),
        ("nested", Box::new(MultiScale::nested(&[2, 2, 4]).unwrap())),
        ("refitted", Box::new(MultiScale::refitted(&[3, 3]).unwrap())),
    ];
    for (name, quantizer) in schemes {
        saved_is_loaded(&format!("scheme-{name}"), &compressed(Nothing, quantizer.as_ref()).unwrap());
    }
}

#[test]
fn sparse_parameters_take_fewer_bytes() {
    let most = || Unstructured::new(Sparsity::new(0.9).unwrap()).include_ends();
    // Units of a convolution are scored by its outputs; nothing was seen of the others.
    let pruner = || most().exclude("re:fc.*|turned|shared|words");
    let floats = compressed(pruner(), &Nothing).unwrap();
    assert!(matches!(floats.entry("conv.weight").unwrap().stored(), Stored::Sparse(_)));
    assert!(matches!(floats.entry("fc.weight").unwrap().stored(), Stored::Dense(_)));
    saved_is_loaded("sparse", &floats);
    let codes = compressed(pruner(), &Uniform::int8()).unwrap();
    let bytes = |c: &Compressed<f32>| c.entry("conv.weight").unwrap().stored().bytes();
    // A bitmap of two words, eight values left of 72: fewer bytes than a code each.
    assert!(bytes(&codes) < 72 && bytes(&codes) < bytes(&floats));
    saved_is_loaded("sparse-codes", &codes);
}

#[test]
fn maps_and_blocks_are_part_of_the_file() {
    let maps = FeatureMap::new(Sparsity::new(0.5).unwrap());
    let compressed = compressed(Then::new(maps, Modules::count(1).exclude("first")), &Uniform::int8());
    // Blocks are scored by their weights, of which no outputs were seen.
    let error = compressed.unwrap_err();
    assert!(error.to_string().contains("`shared`"), "{error}");

    let model = model();
    let maps = FeatureMap::new(Sparsity::new(0.5).unwrap());
    let by_outputs = Compressor::builder().importance(StdDev::of_activations()).pruner(maps).build().unwrap();
    let plan = by_outputs.plan(&model, &evidence(&model)).unwrap();
    let left = plan.apply(&model).unwrap();
    let by_size = Compressor::builder().pruner(Modules::count(1)).build().unwrap();
    let both = plan.then(by_size.plan(&left, &by_size.evidence(&left)).unwrap()).unwrap();
    let quantizing = Compressor::builder().quantizer(Uniform::int8()).build().unwrap();
    let compressed = quantizing.compress_by(&both, &model, &evidence(&model)).unwrap();
    assert_eq!(compressed.activation_mask("conv.weight").unwrap().kept(), 4 * 5);
    assert_eq!(compressed.array("fc.weight").unwrap().shape(), [16, 20]);
    let decoded = compressed.decode().unwrap();
    assert_eq!(decoded.blocks().len(), 1);
    assert_eq!(decoded.blocks()[0].parameter("shared"), Some("second/shared"));
    saved_is_loaded("maps-and-blocks", &compressed);
}

#[test]
fn another_file_is_told_apart() {
    let file = File::new("plain.safetensors");
    let options = niwaki::format::safetensors::WriteOptions::new();
    niwaki::format::safetensors::write_model(&file.0, &model(), &options).unwrap();
    let error = Compressed::<f32>::load(&file.0).unwrap_err().to_string();
    assert!(error.contains("no compressed model") && error.contains("plain.safetensors"), "{error}");
    let error = Compressed::<f32>::load("not/there").unwrap_err();
    assert_eq!(error.kind(), niwaki::ErrorKind::Io);
}
