//! A grouped convolution, cut in both ways: the same place in each group, and whole groups.

use ndarray::{Array4, ArrayD};
use niwaki::{Coupling, Geometry, Model, ModelBuilder, Result, Slot};
use proptest::prelude::*;

use crate::layers::{Numbers, add_bias, conv, linear, pool, relu};
use crate::removal::{choices, gone, plan, removing_is_zeroing, these};

const GROUPS: usize = 4;

/// conv1 makes 3 channels for each of 4 groups, conv2 answers with 2 filters in each.
fn layers(seed: u64) -> ModelBuilder<f32> {
    let mut numbers = Numbers(seed);
    Model::builder()
        .tensors(numbers.tensors([
            ("conv1.weight", &[GROUPS * 3, 2, 3, 3]),
            ("conv1.bias", &[GROUPS * 3]),
            ("conv2.weight", &[GROUPS * 2, 3, 3, 3]),
            ("conv2.bias", &[GROUPS * 2]),
            ("fc.weight", &[3, GROUPS * 2]),
            ("fc.bias", &[3]),
        ]))
        .conv("conv2.weight", Geometry::new().padding(1).groups(GROUPS))
}

fn same_place(seed: u64) -> Result<Model<f32>> {
    layers(seed)
        .coupling(
            Coupling::builder("read")
                .slot(Slot::output("conv1.weight").copies(GROUPS))
                .slot(Slot::output("conv1.bias").copies(GROUPS))
                .inputs(["conv2.weight"]),
        )
        .coupling(
            Coupling::builder("answered")
                .slot(Slot::output("conv2.weight").copies(GROUPS))
                .slot(Slot::output("conv2.bias").copies(GROUPS))
                .slot(Slot::input("fc.weight").copies(GROUPS)),
        )
        .build()
}

fn whole_groups(seed: u64) -> Result<Model<f32>> {
    layers(seed)
        .coupling(
            Coupling::builder("groups")
                .slot(Slot::output("conv1.weight").repeat(3))
                .slot(Slot::output("conv1.bias").repeat(3))
                .slot(Slot::output("conv2.weight").repeat(2))
                .slot(Slot::output("conv2.bias").repeat(2))
                .slot(Slot::input("fc.weight").repeat(2)),
        )
        .build()
}

fn forward(model: &Model<f32>, x: &Array4<f32>) -> ArrayD<f32> {
    let a = relu(add_bias(model, "conv1.bias", conv(model, "conv1.weight", x, 1, 1)));
    let b = relu(add_bias(model, "conv2.bias", conv(model, "conv2.weight", &a, 1, 1)));
    linear(model, "fc", &pool(&b)).into_dyn()
}

fn input(seed: u64) -> Array4<f32> {
    let mut numbers = Numbers(!seed);
    Array4::from_shape_simple_fn((2, 2, 4, 4), || numbers.next())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_place_in_each_group(seed: u64, choices in choices()) {
        let (model, x) = (same_place(seed)?, input(seed));
        removing_is_zeroing(&model, &gone(&model, &choices), |model| forward(model, &x))?;
    }

    #[test]
    fn groups_as_a_whole(seed: u64, choices in choices()) {
        let (model, x) = (whole_groups(seed)?, input(seed));
        removing_is_zeroing(&model, &gone(&model, &choices), |model| forward(model, &x))?;
    }
}

#[test]
fn group_counts_follow() -> Result<()> {
    let model = same_place(1)?;
    let smaller = plan(&model, &these(&[("read", &[0, 2]), ("answered", &[1])]))?.apply(&model)?;
    assert_eq!(smaller.parameter("conv1.weight")?.shape(), [GROUPS, 2, 3, 3]);
    assert_eq!(smaller.parameter("conv2.weight")?.shape(), [GROUPS, 1, 3, 3]);
    assert_eq!(smaller.parameter("conv2.weight")?.groups(), GROUPS);

    let model = whole_groups(1)?;
    let smaller = plan(&model, &these(&[("groups", &[0, 2, 3])]))?.apply(&model)?;
    assert_eq!(smaller.parameter("conv1.weight")?.shape(), [3, 2, 3, 3]);
    assert_eq!(smaller.parameter("conv2.weight")?.shape(), [2, 3, 3, 3]);
    assert_eq!(smaller.parameter("conv2.weight")?.groups(), 1);
    assert_eq!(model.parameter("conv2.weight")?.groups(), GROUPS);
    Ok(())
}
