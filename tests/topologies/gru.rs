//! A GRU encoder-decoder (gates stacked r, z, n): two embeddings, two cells, an output layer. The decoder starts
//! from the encoder's last state, so both cells share one space of hidden units.

use ndarray::{Array1, Array2, ArrayD};
use niwaki::{Coupling, Model, Result, Slot};
use proptest::prelude::*;

use crate::layers::{Numbers, gates, get, linear, sigmoid};
use crate::removal::{choices, gone, plan, removing_is_zeroing, these};

fn model(seed: u64) -> Result<Model<f32>> {
    let tensors = Numbers(seed).tensors([
        ("source", &[9, 4]),
        ("target", &[7, 3]),
        ("encoder.weight_ih", &[3 * 6, 4]),
        ("encoder.weight_hh", &[3 * 6, 6]),
        ("encoder.bias_ih", &[3 * 6]),
        ("encoder.bias_hh", &[3 * 6]),
        ("decoder.weight_ih", &[3 * 6, 3]),
        ("decoder.weight_hh", &[3 * 6, 6]),
        ("decoder.bias_ih", &[3 * 6]),
        ("decoder.bias_hh", &[3 * 6]),
        ("out.weight", &[7, 6]),
        ("out.bias", &[7]),
    ]);
    let mut builder = Model::builder().tensors(tensors).embedding("source").embedding("target");
    let mut hidden = Coupling::builder("hidden");
    for stem in ["encoder", "decoder"] {
        for part in ["ih", "hh"] {
            let (weight, bias) = (format!("{stem}.weight_{part}"), format!("{stem}.bias_{part}"));
            builder = builder.recurrent(&weight, 3).bias(&bias, &weight);
            hidden = hidden.slot(Slot::output(weight).copies(3)).slot(Slot::output(bias).copies(3));
        }
    }
    builder
        .coupling(hidden.inputs(["encoder.weight_hh", "decoder.weight_hh", "out.weight"]))
        .coupling(Coupling::builder("source").outputs(["source"]).inputs(["encoder.weight_ih"]))
        .coupling(Coupling::builder("target").outputs(["target"]).inputs(["decoder.weight_ih"]))
        .build()
}

/// The states after each token, from a first state on.
fn gru(model: &Model<f32>, stem: &str, table: &str, tokens: &[usize], first: Array1<f32>) -> Array2<f32> {
    let table: Array2<f32> = get(model, table);
    let (units, mut h) = (first.len(), first);
    let mut states = Array2::zeros((0, units));
    for &token in tokens {
        let input = gates(model, stem, "ih", &table.row(token).to_owned());
        let state = gates(model, stem, "hh", &h);
        assert_eq!(input.len(), 3 * units);
        for u in 0..units {
            let r = sigmoid(input[u] + state[u]);
            let z = sigmoid(input[units + u] + state[units + u]);
            let n = (input[2 * units + u] + r * state[2 * units + u]).tanh();
            h[u] = (1.0 - z) * n + z * h[u];
        }
        states.push_row(h.view()).unwrap_or_else(|error| panic!("{error}"));
    }
    states
}

fn forward(model: &Model<f32>, source: &[usize], target: &[usize]) -> ArrayD<f32> {
    let units = get::<ndarray::Ix2>(model, "encoder.weight_hh").ncols();
    let read = gru(model, "encoder", "source", source, Array1::zeros(units));
    let written = gru(model, "decoder", "target", target, read.row(source.len() - 1).to_owned());
    linear(model, "out", &written).into_dyn()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn removing_hidden_units_and_features_is_zeroing_them(
        seed: u64,
        choices in choices(),
        source in proptest::collection::vec(0..9usize, 1..6),
        target in proptest::collection::vec(0..7usize, 1..6),
    ) {
        let model = model(seed)?;
        removing_is_zeroing(&model, &gone(&model, &choices), |model| forward(model, &source, &target))?;
    }
}

#[test]
fn shapes_follow() -> Result<()> {
    let model = model(1)?;
    let cut = these(&[("hidden", &[0, 5]), ("source", &[3]), ("target", &[0, 1])]);
    let smaller = plan(&model, &cut)?.apply(&model)?;
    for (name, shape) in [
        ("source", &[9, 3][..]),
        ("target", &[7, 1]),
        ("encoder.weight_ih", &[3 * 4, 3]),
        ("encoder.weight_hh", &[3 * 4, 4]),
        ("decoder.weight_ih", &[3 * 4, 1]),
        ("decoder.bias_hh", &[3 * 4]),
        ("out.weight", &[7, 4]),
        ("out.bias", &[7]),
    ] {
        assert_eq!(smaller.parameter(name)?.shape(), shape, "{name}");
    }
    Ok(())
}
