//! Networks and samples for tests.

use std::path::{Path, PathBuf};

use ndarray::{Array4, ArrayD};

use crate::kernel::seed;
use crate::onnx::Values;

/// A file of the shared test data, if it is there; says so if it is not.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        println!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}

/// A network of the repository.
pub(crate) fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx").join(name)
}

/// The first digits of `train` or `t10k`, as mnist-cnn reads them, and what they are.
pub(crate) fn digits(part: &str, count: usize) -> Option<(Array4<f32>, Vec<u8>)> {
    let pixels = std::fs::read(shared(&format!("mnist10k/{part}-images-idx3-ubyte"))?).unwrap();
    let labels = std::fs::read(shared(&format!("mnist10k/{part}-labels-idx1-ubyte"))?).unwrap();
    let values = pixels[16..16 + count * 784].iter().map(|&p| (f32::from(p) / 255.0 - 0.1307) / 0.3081);
    let images = Array4::from_shape_vec((count, 1, 28, 28), values.collect()).unwrap();
    Some((images, labels[8..8 + count].to_vec()))
}

/// Values in [-1, 1).
pub(crate) fn noise(shape: &[usize], seed: u64) -> Values {
    use rand::RngExt;
    let mut stream = seed::stream(seed, "noise");
    Values::from(ArrayD::from_shape_simple_fn(shape, || stream.random_range(-1.0f32..1.0)))
}
