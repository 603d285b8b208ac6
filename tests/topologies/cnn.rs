//! A convolutional network: batch norm, a residual connection, a concat, and a flatten into a linear layer.
//!
//! ```text
//! x ─ conv1 ─ bn1 ─ relu ─┬─ conv2 ─ bn2 ─ relu ─ conv3 ─ bn3 ─ + ─ relu ─┬─────────── cat ─ conv5 ─ bn5 ─ relu ─ flatten ─ cat ─ fc
//!                         └──────────────────────────────────────┘        ├─ conv4 ─ relu ─┘                         │
//!                                                                         └─ mean ──────────────────────────────────────────────────┘
//! ```

use ndarray::{Array4, ArrayD, Axis, concatenate};
use niwaki::{Coupling, Model, Result, Slot};
use proptest::prelude::*;

use crate::layers::{Numbers, add_bias, batch_norm, conv, flatten, get, linear, norm, pool, relu};
use crate::removal::{choices, gone, plan, removing_is_zeroing, these};

fn model(seed: u64) -> Result<Model<f32>> {
    let mut numbers = Numbers(seed);
    Model::builder()
        .tensors(numbers.tensors([
            ("conv1.weight", &[6, 2, 3, 3]),
            ("conv2.weight", &[5, 6, 3, 3]),
            ("conv3.weight", &[6, 5, 3, 3]),
            ("conv4.weight", &[4, 6, 1, 1]),
            ("conv4.bias", &[4]),
            ("conv5.weight", &[3, 6 + 4, 3, 3]),
            ("fc.weight", &[5, 3 * 2 * 2 + 6]),
            ("fc.bias", &[5]),
        ]))
        .tensors(numbers.batch_norm("bn1", 6))
        .tensors(numbers.batch_norm("bn2", 5))
        .tensors(numbers.batch_norm("bn3", 6))
        .tensors(numbers.batch_norm("bn5", 3))
        .batch_norm("bn1", "conv1.weight")
        .batch_norm("bn2", "conv2.weight")
        .batch_norm("bn3", "conv3.weight")
        .batch_norm("bn5", "conv5.weight")
        .coupling(
            Coupling::builder("trunk")
                .outputs(["conv1.weight", "conv3.weight"])
                .outputs(norm("bn1"))
                .outputs(norm("bn3"))
                .inputs(["conv2.weight", "conv4.weight"])
                .slot(Slot::input("conv5.weight").offset(0))
                .slot(Slot::input("fc.weight").offset(3 * 2 * 2)),
        )
        .coupling(
            Coupling::builder("inner")
                .outputs(["conv2.weight"])
                .outputs(norm("bn2"))
                .inputs(["conv3.weight"]),
        )
        .coupling(
            Coupling::builder("branch")
                .outputs(["conv4.weight", "conv4.bias"])
                .slot(Slot::input("conv5.weight").offset(6)),
        )
        .coupling(
            Coupling::builder("last")
                .outputs(["conv5.weight"])
                .outputs(norm("bn5"))
                .slot(Slot::input("fc.weight").offset(0).repeat(2 * 2)),
        )
        .build()
}

fn forward(model: &Model<f32>, x: &Array4<f32>) -> ArrayD<f32> {
    let cat = |a: &Array4<f32>, b: &Array4<f32>| {
        concatenate(Axis(1), &[a.view(), b.view()]).unwrap_or_else(|error| panic!("{error}"))
    };
    let a = relu(batch_norm(model, "bn1", conv(model, "conv1.weight", x, 1, 1)));
    let b = relu(batch_norm(model, "bn2", conv(model, "conv2.weight", &a, 1, 1)));
    let trunk = relu(a + batch_norm(model, "bn3", conv(model, "conv3.weight", &b, 1, 1)));
    let branch = relu(add_bias(model, "conv4.bias", conv(model, "conv4.weight", &trunk, 1, 0)));
    let last = relu(batch_norm(model, "bn5", conv(model, "conv5.weight", &cat(&trunk, &branch), 2, 1)));
    let features = concatenate(Axis(1), &[flatten(&last).view(), pool(&trunk).view()]);
    linear(model, "fc", &features.unwrap_or_else(|error| panic!("{error}"))).into_dyn()
}

fn input(seed: u64) -> Array4<f32> {
    let mut numbers = Numbers(!seed);
    Array4::from_shape_simple_fn((2, 2, 4, 4), || numbers.next())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn removing_channels_is_zeroing_them(seed: u64, choices in choices()) {
        let (model, x) = (model(seed)?, input(seed));
        removing_is_zeroing(&model, &gone(&model, &choices), |model| forward(model, &x))?;
    }

    /// Two cuts in a row are one.
    #[test]
    fn a_smaller_model_can_be_cut_again(seed: u64, first in choices(), second in choices()) {
        let (model, x) = (model(seed)?, input(seed));
        let smaller = plan(&model, &gone(&model, &first))?.apply(&model)?;
        removing_is_zeroing(&smaller, &gone(&smaller, &second), |model| forward(model, &x))?;
    }
}

#[test]
fn shapes_follow() -> Result<()> {
    let model = model(1)?;
    let cut = these(&[("trunk", &[0, 4]), ("inner", &[1, 2, 3]), ("branch", &[3]), ("last", &[1])]);
    let smaller = plan(&model, &cut)?.apply(&model)?;
    for (name, shape) in [
        ("conv1.weight", &[4, 2, 3, 3][..]),
        ("conv2.weight", &[2, 4, 3, 3]),
        ("conv3.weight", &[4, 2, 3, 3]),
        ("conv4.weight", &[3, 4, 1, 1]),
        ("conv4.bias", &[3]),
        ("conv5.weight", &[2, 4 + 3, 3, 3]),
        ("fc.weight", &[5, 2 * 2 * 2 + 4]),
        ("fc.bias", &[5]),
        ("bn3.running_var", &[4]),
        ("bn5.bias", &[2]),
    ] {
        assert_eq!(smaller.parameter(name)?.shape(), shape, "{name}");
    }
    // The flattened columns of channels 0 and 2, then the trunk's mean without 0 and 4.
    let (old, new) = (get::<ndarray::Ix2>(&model, "fc.weight"), get::<ndarray::Ix2>(&smaller, "fc.weight"));
    assert_eq!(new, old.select(Axis(1), &[0, 1, 2, 3, 8, 9, 10, 11, 13, 14, 15, 17]));
    Ok(())
}
