//! A transformer block: heads, feed-forward neurons, and the residual stream with its layer norms.

use ndarray::{Array1, Array2, ArrayD, Axis, Slice};
use niwaki::{Coupling, Model, NormRole, Parameter, Result, Slot};
use proptest::prelude::*;

use crate::layers::{Numbers, get, linear, relu};
use crate::removal::{assert_close, choices, gone, plan, removed_and_zeroed, these};

const HEAD: usize = 3;
const HEADS: usize = 4;
const WIDTH: usize = 8;
const NEURONS: usize = 10;

fn model(seed: u64) -> Result<Model<f32>> {
    let mut numbers = Numbers(seed);
    let rows = HEADS * HEAD;
    let tensors = numbers.tensors([
        ("tokens", &[11, WIDTH]),
        ("q.weight", &[rows, WIDTH]),
        ("q.bias", &[rows]),
        ("k.weight", &[rows, WIDTH]),
        ("k.bias", &[rows]),
        ("v.weight", &[rows, WIDTH]),
        ("v.bias", &[rows]),
        ("o.weight", &[WIDTH, rows]),
        ("o.bias", &[WIDTH]),
        ("up.weight", &[NEURONS, WIDTH]),
        ("up.bias", &[NEURONS]),
        ("down.weight", &[WIDTH, NEURONS]),
        ("down.bias", &[WIDTH]),
        ("head.weight", &[5, WIDTH]),
        ("head.bias", &[5]),
    ]);
    let mut vector = |name: &str, role| Parameter::norm(name, numbers.array(&[WIDTH]), role);
    let heads = ["q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias"]
        .iter()
        .fold(Coupling::builder("heads"), |c, &name| c.slot(Slot::output(name).repeat(HEAD)))
        .slot(Slot::input("o.weight").repeat(HEAD));
    Model::builder()
        .tensors(tensors)
        .embedding("tokens")
        .parameter(vector("norm1.weight", NormRole::Scale))
        .parameter(vector("norm1.bias", NormRole::Shift))
        .parameter(vector("norm2.weight", NormRole::Scale))
        .parameter(vector("norm2.bias", NormRole::Shift))
        .coupling(heads)
        .coupling(Coupling::builder("neurons").outputs(["up.weight", "up.bias"]).inputs(["down.weight"]))
        .coupling(
            Coupling::builder("stream")
                .outputs(["tokens", "o.weight", "o.bias", "down.weight", "down.bias"])
                .outputs(["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"])
                .inputs(["q.weight", "k.weight", "v.weight", "up.weight", "head.weight"]),
        )
        .build()
}

/// Over the channels that are alive: those that are zeroed would count in the mean and the spread.
fn layer_norm(model: &Model<f32>, stem: &str, x: &Array2<f32>, alive: &[usize]) -> Array2<f32> {
    let scale: Array1<f32> = get(model, &format!("{stem}.weight"));
    let shift: Array1<f32> = get(model, &format!("{stem}.bias"));
    let mut y = x.clone();
    for mut row in y.rows_mut() {
        let n = alive.len() as f32;
        let mean = alive.iter().map(|&at| row[at]).sum::<f32>() / n;
        let variance = alive.iter().map(|&at| (row[at] - mean).powi(2)).sum::<f32>() / n;
        row.mapv_inplace(|v| (v - mean) / (variance + 1e-3).sqrt());
        row *= &scale;
        row += &shift;
    }
    y
}

fn attention(model: &Model<f32>, x: &Array2<f32>) -> Array2<f32> {
    let [q, k, v] = ["q", "k", "v"].map(|stem| linear(model, stem, x));
    let mut answers = Array2::zeros(q.raw_dim());
    for start in (0..q.ncols()).step_by(HEAD) {
        let own = Slice::from(start..start + HEAD);
        let [q, k, v] = [&q, &k, &v].map(|m| m.slice_axis(Axis(1), own));
        let mut weights = q.dot(&k.t()) / (HEAD as f32).sqrt();
        for mut row in weights.rows_mut() {
            row.mapv_inplace(f32::exp);
            let sum = row.sum();
            row /= sum;
        }
        answers.slice_axis_mut(Axis(1), own).assign(&weights.dot(&v));
    }
    linear(model, "o", &answers)
}

fn forward(model: &Model<f32>, tokens: &[usize], alive: &[usize]) -> ArrayD<f32> {
    let x = get::<ndarray::Ix2>(model, "tokens").select(Axis(0), tokens);
    let x = &x + &attention(model, &layer_norm(model, "norm1", &x, alive));
    let neurons = relu(linear(model, "up", &layer_norm(model, "norm2", &x, alive)));
    let x = x + linear(model, "down", &neurons);
    linear(model, "head", &x).into_dyn()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn removing_heads_neurons_and_channels_is_zeroing_them(
        seed: u64,
        choices in choices(),
        tokens in proptest::collection::vec(0..11usize, 1..6),
    ) {
        let model = model(seed)?;
        let gone = gone(&model, &choices);
        let (smaller, zeroed) = removed_and_zeroed(&model, &gone)?;
        let dead = &gone[2].1;
        let alive: Vec<usize> = (0..WIDTH).filter(|at| !dead.contains(at)).collect();
        let all: Vec<usize> = (0..alive.len()).collect();
        assert_close(&forward(&smaller, &tokens, &all), &forward(&zeroed, &tokens, &alive));
    }
}

#[test]
fn shapes_follow() -> Result<()> {
    let model = model(1)?;
    let cut = these(&[("heads", &[0, 2]), ("neurons", &[1, 4, 9]), ("stream", &[7])]);
    let smaller = plan(&model, &cut)?.apply(&model)?;
    for (name, shape) in [
        ("tokens", &[11, 7][..]),
        ("q.weight", &[2 * HEAD, 7]),
        ("k.bias", &[2 * HEAD]),
        ("o.weight", &[7, 2 * HEAD]),
        ("norm1.weight", &[7]),
        ("up.weight", &[7, 7]),
        ("down.weight", &[7, 7]),
        ("head.weight", &[5, 7]),
    ] {
        assert_eq!(smaller.parameter(name)?.shape(), shape, "{name}");
    }
    let (old, new) = (get::<ndarray::Ix1>(&model, "v.bias"), get::<ndarray::Ix1>(&smaller, "v.bias"));
    assert_eq!(new, old.select(Axis(0), &[3, 4, 5, 9, 10, 11]));
    Ok(())
}
