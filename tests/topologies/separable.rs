//! A depthwise-separable block: a convolution, one filter for each of its channels, a pointwise convolution.

use ndarray::{Array4, ArrayD};
use niwaki::{Coupling, Geometry, Model, Result};
use proptest::prelude::*;

use crate::layers::{Numbers, batch_norm, conv, linear, norm, pool, relu};
use crate::removal::{choices, gone, plan, removing_is_zeroing, these};

fn model(seed: u64) -> Result<Model<f32>> {
    let mut numbers = Numbers(seed);
    Model::builder()
        .tensors(numbers.tensors([
            ("conv.weight", &[6, 2, 3, 3]),
            ("depthwise.weight", &[6, 1, 3, 3]),
            ("pointwise.weight", &[5, 6, 1, 1]),
            ("fc.weight", &[3, 5]),
            ("fc.bias", &[3]),
        ]))
        .tensors(numbers.batch_norm("bn1", 6))
        .tensors(numbers.batch_norm("bn2", 6))
        .tensors(numbers.batch_norm("bn3", 5))
        .conv("depthwise.weight", Geometry::new().padding(1).stride(2).groups(6))
        .batch_norm("bn1", "conv.weight")
        .batch_norm("bn2", "depthwise.weight")
        .batch_norm("bn3", "pointwise.weight")
        .coupling(
            Coupling::builder("depth")
                .outputs(["conv.weight", "depthwise.weight"])
                .outputs(norm("bn1"))
                .outputs(norm("bn2"))
                .inputs(["pointwise.weight"]),
        )
        .coupling(
            Coupling::builder("features")
                .outputs(["pointwise.weight"])
                .outputs(norm("bn3"))
                .inputs(["fc.weight"]),
        )
        .build()
}

fn forward(model: &Model<f32>, x: &Array4<f32>) -> ArrayD<f32> {
    let a = relu(batch_norm(model, "bn1", conv(model, "conv.weight", x, 1, 1)));
    let b = relu(batch_norm(model, "bn2", conv(model, "depthwise.weight", &a, 2, 1)));
    let c = relu(batch_norm(model, "bn3", conv(model, "pointwise.weight", &b, 1, 0)));
    linear(model, "fc", &pool(&c)).into_dyn()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn removing_channels_is_zeroing_them(seed: u64, choices in choices()) {
        let model = model(seed)?;
        let mut numbers = Numbers(!seed);
        let x = Array4::from_shape_simple_fn((2, 2, 5, 5), || numbers.next());
        removing_is_zeroing(&model, &gone(&model, &choices), |model| forward(model, &x))?;
    }
}

#[test]
fn groups_follow_the_channels() -> Result<()> {
    let model = model(1)?;
    let smaller = plan(&model, &these(&[("depth", &[1, 5]), ("features", &[0])]))?.apply(&model)?;
    let depthwise = smaller.parameter("depthwise.weight")?;
    assert_eq!((depthwise.shape(), depthwise.groups()), (&[4, 1, 3, 3][..], 4));
    assert_eq!(smaller.parameter("pointwise.weight")?.shape(), [4, 4, 1, 1]);
    assert_eq!(smaller.parameter("bn2.running_mean")?.shape(), [4]);
    Ok(())
}
