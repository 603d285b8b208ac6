//! How much memory the work takes beyond its input, at the most: an allocator that counts is the judge.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use ndarray::Array2;
use niwaki::importance::{Magnitude, Scores};
use niwaki::prune::{Pruner, Scope, Sparsity, Unstructured};
use niwaki::quantize::{Quantizer, Uniform};
use niwaki::{Evidence, Layer, Model, Needs, Parameter};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The side of a square of 16 MiB.
const SIDE: usize = 2048;
const SIZE: usize = SIDE * SIDE * size_of::<f32>();

/// Bytes held at the worst moment of `work`, beyond those held before it.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let output = work();
    let most = MEMORY.peak_usage();
    drop(output);
    most - before
}

/// Weights with `levels` different values.
fn model(levels: usize) -> Model<f32> {
    let weights = Array2::from_shape_fn((SIDE, SIDE), |(i, j)| {
        ((i * SIDE + j).wrapping_mul(2_654_435_761) % levels) as f32 - levels as f32 / 2.0
    });
    Model::builder().parameter(Parameter::linear("fc", weights)).build().unwrap()
}

/// One test, so that no other counts while it runs.
#[test]
fn work_takes_less_than_one_and_a_half_of_its_input() {
    // Few levels make ties, and keys that do not spread: the worst of a selection.
    for levels in [1, 2, 50, 1 << 24] {
        for scope in [Scope::PerLayer, Scope::Global, Scope::PerRow] {
            let mut model = model(levels);
            let scores =
                Scores::compute(&Magnitude::l1(), &model, &Evidence::new(&model, Needs::MOMENTS)).unwrap();
            let pruner = Unstructured::new(Sparsity::new(0.5).unwrap()).scope(scope).include_ends();
            let most = peak(|| pruner.plan(&model, &scores).unwrap().apply_in_place(&mut model).unwrap());
            assert!(most <= SIZE / 2, "{scope:?}, {levels} levels, in place: {most} bytes");
            let most = peak(|| pruner.plan(&model, &scores).unwrap().apply(&model).unwrap());
            assert!(most <= SIZE * 3 / 2, "{scope:?}, {levels} levels: {most} bytes");
        }
    }
    let layer = model(1 << 24);
    let layer = layer.parameter("fc").unwrap();
    let most = peak(|| Uniform::int8().quantize(&Layer::new(layer)).unwrap());
    assert!(most <= SIZE * 3 / 2, "int8: {most} bytes");
}
