//! Two LSTM layers (gates stacked i, f, g, o) and a linear layer that reads the last step.

use ndarray::{Array1, Array2, ArrayD, Axis};
use niwaki::model::CouplingBuilder;
use niwaki::{Coupling, Model, Result, Slot};
use proptest::prelude::*;

use crate::layers::{Numbers, gates, get, linear, sigmoid};
use crate::removal::{choices, gone, plan, removing_is_zeroing, these};

/// The hidden units of one layer: four rows each in four arrays, a column in what the cell reads back.
fn hidden(name: &str, stem: &str) -> CouplingBuilder {
    ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        .iter()
        .fold(Coupling::builder(name), |c, part| c.slot(Slot::output(format!("{stem}.{part}")).copies(4)))
        .inputs([format!("{stem}.weight_hh")])
}

fn model(seed: u64) -> Result<Model<f32>> {
    let tensors = Numbers(seed).tensors([
        ("l0.weight_ih", &[4 * 5, 3]),
        ("l0.weight_hh", &[4 * 5, 5]),
        ("l0.bias_ih", &[4 * 5]),
        ("l0.bias_hh", &[4 * 5]),
        ("l1.weight_ih", &[4 * 4, 5]),
        ("l1.weight_hh", &[4 * 4, 4]),
        ("l1.bias_ih", &[4 * 4]),
        ("l1.bias_hh", &[4 * 4]),
        ("fc.weight", &[2, 4]),
        ("fc.bias", &[2]),
    ]);
    let mut builder = Model::builder().tensors(tensors);
    for stem in ["l0", "l1"] {
        for part in ["ih", "hh"] {
            let weight = format!("{stem}.weight_{part}");
            builder = builder.recurrent(&weight, 4).bias(&format!("{stem}.bias_{part}"), &weight);
        }
    }
    builder
        .coupling(hidden("first", "l0").inputs(["l1.weight_ih"]))
        .coupling(hidden("second", "l1").inputs(["fc.weight"]))
        .build()
}

fn lstm(model: &Model<f32>, stem: &str, steps: &Array2<f32>) -> Array2<f32> {
    let units = get::<ndarray::Ix2>(model, &format!("{stem}.weight_hh")).ncols();
    let (mut h, mut c) = (Array1::zeros(units), Array1::<f32>::zeros(units));
    let mut answers = Array2::zeros((0, units));
    for x in steps.rows() {
        let rows = gates(model, stem, "ih", &x.to_owned()) + gates(model, stem, "hh", &h);
        assert_eq!(rows.len(), 4 * units);
        for u in 0..units {
            let [i, f, g, o] = [0, 1, 2, 3].map(|gate| rows[gate * units + u]);
            c[u] = sigmoid(f) * c[u] + sigmoid(i) * g.tanh();
            h[u] = sigmoid(o) * c[u].tanh();
        }
        answers.push_row(h.view()).unwrap_or_else(|error| panic!("{error}"));
    }
    answers
}

fn forward(model: &Model<f32>, x: &Array2<f32>) -> ArrayD<f32> {
    let steps = lstm(model, "l1", &lstm(model, "l0", x));
    let last = steps.select(Axis(0), &[steps.nrows() - 1]);
    linear(model, "fc", &last).into_dyn()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn removing_hidden_units_is_zeroing_them(seed: u64, choices in choices()) {
        let model = model(seed)?;
        let mut numbers = Numbers(!seed);
        let x = Array2::from_shape_simple_fn((6, 3), || numbers.next());
        removing_is_zeroing(&model, &gone(&model, &choices), |model| forward(model, &x))?;
    }
}

#[test]
fn shapes_follow() -> Result<()> {
    let model = model(1)?;
    let smaller = plan(&model, &these(&[("first", &[1, 2]), ("second", &[3])]))?.apply(&model)?;
    for (name, shape) in [
        ("l0.weight_ih", &[4 * 3, 3][..]),
        ("l0.weight_hh", &[4 * 3, 3]),
        ("l0.bias_hh", &[4 * 3]),
        ("l1.weight_ih", &[4 * 3, 3]),
        ("l1.weight_hh", &[4 * 3, 3]),
        ("fc.weight", &[2, 3]),
    ] {
        assert_eq!(smaller.parameter(name)?.shape(), shape, "{name}");
    }
    assert_eq!(smaller.parameter("l0.weight_hh")?.units(), 3);
    let (old, new) = (get::<ndarray::Ix1>(&model, "l0.bias_ih"), get::<ndarray::Ix1>(&smaller, "l0.bias_ih"));
    assert_eq!(new, old.select(Axis(0), &[0, 3, 4, 5, 8, 9, 10, 13, 14, 15, 18, 19]));
    Ok(())
}
