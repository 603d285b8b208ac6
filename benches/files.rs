//! Models loaded and saved, against a plain copy of the file. Work at 60 % of a copy's speed has the ratio 1.67.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use niwaki::format::safetensors::{self, WriteOptions};
use niwaki::{Model, Parameter};

/// Copies into a new file, as saving writes a new one.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    fs::copy(from, to).expect("the folder for temporary files takes a copy");
}

fn files(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("files");
    let folder: PathBuf = std::env::temp_dir().join(format!("niwaki-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is a folder for temporary files");
    let [model_file, copied, saved] = ["model", "copied", "saved"].map(|name| folder.join(name));
    for shape in common::shapes() {
        let model = Model::builder().parameter(Parameter::linear("fc", common::weights(shape))).build();
        let model = model.expect("one linear layer is a model");
        let options = WriteOptions::new();
        safetensors::write_model(&model_file, &model, &options).expect("the folder takes a model");
        common::beside(
            &mut group,
            "safetensors load",
            shape,
            || copy(&model_file, &copied),
            || (),
            |()| safetensors::read::<f32>(&model_file),
        );
        common::beside(
            &mut group,
            "safetensors save",
            shape,
            || copy(&model_file, &copied),
            || drop(fs::remove_file(&saved)),
            |()| safetensors::write_model(&saved, &model, &options),
        );
    }
    group.finish();
    fs::remove_dir_all(folder).expect("what was made can be removed");
}

criterion_group!(benches, files);
criterion_main!(benches);
