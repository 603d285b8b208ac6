//! Half the channels of a trained residual network go, or nine weights of ten, and what recovery without training gives back.
//!
//! Evidence comes from the first 400 training images; accuracy is measured on the 1037 other training images. The
//! test images are not looked at here.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use std::error::Error;
use std::fs;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, Array4, ArrayD, ArrayRef, Axis, Dimension, Ix2, Ix4, Slice};
use niwaki::importance::{Magnitude, Scores};
use niwaki::prune::{Channel, Plan, Pruner, Sparsity, Then, Unstructured};
use niwaki::recover::{BatchNorm, LeastSquares, MeanFold, Recovery, Removal};
use niwaki::{Coupling, Evidence, Geometry, Model, Needs, Slot};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SIDE: usize = 8;
const CALIBRATION: usize = 400;
const TRAINING: usize = 1437;

#[test]
fn channels_gone_and_recovered() -> Result<()> {
    let digits = Digits::read()?;
    let scores = Scores::compute(&Magnitude::l2(), &digits.model, &digits.evidence)?;
    for (sparsity, close) in [(0.5, 1.5), (0.7, 5.0)] {
        let plan = Channel::new(Sparsity::new(sparsity)?).plan(&digits.model, &scores)?;
        let found = digits.compare(&format!("{sparsity} of the channels"), &plan)?;
        // Folding alone can lose here: the running variances no longer fit.
        assert!(found.folded_normed > found.folded);
        assert!(found.solved > found.pruned && found.solved > found.original - close);
        assert!(found.solved_normed > found.pruned && found.solved_normed > found.original - close);
    }
    Ok(())
}

#[test]
fn single_weights_gone_and_recovered() -> Result<()> {
    let digits = Digits::read()?;
    let scores = Scores::compute(&Magnitude::l2(), &digits.model, &digits.evidence)?;
    let plan = Unstructured::new(Sparsity::new(0.9)?).plan(&digits.model, &scores)?;
    let found = digits.compare("0.9 of the weights", &plan)?;
    assert!(found.folded > found.pruned && found.solved > found.folded);
    assert!(found.solved > found.original - 1.5);
    Ok(())
}

/// Accuracies in percent.
struct Found {
    original: f64,
    pruned: f64,
    folded: f64,
    folded_normed: f64,
    solved: f64,
    solved_normed: f64,
}

/// The network, the images and what the network saw of the first of them.
struct Digits {
    model: Model<f32>,
    evidence: Evidence<f32>,
    images: Array4<f32>,
    labels: Vec<u8>,
}

impl Digits {
    fn read() -> Result<Self> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");
        let pixels = fs::read(format!("{folder}/digits-images-idx3-ubyte"))?;
        let labels = fs::read(format!("{folder}/digits-labels-idx1-ubyte"))?;
        // IDX: a header of 4 bytes and 4 for each axis.
        let pixels: Vec<f32> =
            pixels[16..][..TRAINING * SIDE * SIDE].iter().map(|&p| f32::from(p) / 16.0).collect();
        let images = Array4::from_shape_vec((TRAINING, 1, SIDE, SIDE), pixels)?;
        let model = model(&fs::read(format!("{folder}/digits.safetensors"))?)?;
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        let seen = images.slice_axis(Axis(0), Slice::from(..CALIBRATION)).to_owned();
        forward(&model, &seen, Some(&mut evidence))?;
        Ok(Self { model, evidence, images, labels: labels[8..][..TRAINING].to_vec() })
    }

    fn compare(&self, gone: &str, plan: &Plan) -> Result<Found> {
        let (fold, solve, norm) = (MeanFold::new(), LeastSquares::new(), BatchNorm::new());
        let found = Found {
            original: self.accuracy(&self.model)?,
            pruned: self.accuracy(&plan.apply(&self.model)?)?,
            folded: self.recovered(plan, &fold)?,
            folded_normed: self.recovered(plan, &Then::new(fold, norm))?,
            solved: self.recovered(plan, &solve)?,
            solved_normed: self.recovered(plan, &Then::new(solve, norm))?,
        };
        println!("{gone} gone: {:.2} -> {:.2} %", found.original, found.pruned);
        println!("  MeanFold {:.2} %, with BatchNorm {:.2} %", found.folded, found.folded_normed);
        println!("  LeastSquares {:.2} %, with BatchNorm {:.2} %", found.solved, found.solved_normed);
        Ok(found)
    }

    fn recovered(&self, plan: &Plan, recovery: &impl Recovery<f32>) -> Result<f64> {
        let removal = Removal::new(&self.model, plan, &self.evidence);
        self.accuracy(&recovery.recover(plan.apply(&self.model)?, &removal)?)
    }

    /// Percent of the training images that evidence did not see.
    fn accuracy(&self, model: &Model<f32>) -> Result<f64> {
        let images = self.images.slice_axis(Axis(0), Slice::from(CALIBRATION..)).to_owned();
        let answers = forward(model, &images, None)?;
        let best = |row: ndarray::ArrayView1<'_, f32>| {
            (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0)
        };
        let right = answers.rows().into_iter().zip(&self.labels[CALIBRATION..]);
        let right = right.filter(|(row, label)| best(*row) == usize::from(**label)).count();
        Ok(100.0 * right as f64 / images.shape()[0] as f64)
    }
}

fn model(bytes: &[u8]) -> Result<Model<f32>> {
    let file = safetensors::SafeTensors::deserialize(bytes)?;
    let mut tensors: Vec<(String, ArrayD<f32>)> = Vec::new();
    for (name, view) in file.tensors() {
        let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensors.push((name, ArrayD::from_shape_vec(view.shape(), values)?));
    }
    // The first and the last weight are kept apart, so the order counts; by name it is that of the network.
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let same = Geometry::new().padding(1);
    let mut builder = Model::builder().tensors(tensors);
    for k in 1..=4 {
        let conv = format!("conv{k}.weight");
        builder = builder.conv(&conv, same).batch_norm(&format!("bn{k}"), &conv);
    }
    let made_by = |layers: &[usize]| {
        let norm = ["weight", "bias", "running_mean", "running_var"];
        let of = |k: &usize| {
            norm.map(|part| format!("bn{k}.{part}")).into_iter().chain([format!("conv{k}.weight")])
        };
        layers.iter().flat_map(of).collect::<Vec<_>>()
    };
    let coupling = |name: &str, layers: &[usize]| Coupling::builder(name).outputs(made_by(layers));
    Ok(builder
        .coupling(coupling("stream", &[1, 3]).inputs(["conv2.weight", "conv4.weight"]))
        .coupling(coupling("inner", &[2]).inputs(["conv3.weight"]))
        .coupling(coupling("top", &[4]).slot(Slot::input("fc.weight").repeat(4)))
        .build()?)
}

/// The network's answers; evidence is given what each weight reads.
fn forward(
    model: &Model<f32>,
    images: &Array4<f32>,
    mut seen: Option<&mut Evidence<f32>>,
) -> Result<Array2<f32>> {
    let mut layer = |k: usize, x: &Array4<f32>| -> Result<Array4<f32>> {
        let name = format!("conv{k}.weight");
        record(&mut seen, &name, x)?;
        let weights = model.parameter(&name)?.array().view().into_dimensionality::<Ix4>()?.to_owned();
        let part = |part: &str| model.parameter(&format!("bn{k}.{part}")).map(|p| p.values().to_vec());
        let (scale, shift) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        let mut y = convolved(x, &weights);
        for (c, mut channel) in y.axis_iter_mut(Axis(1)).enumerate() {
            let factor = scale[c] / (variance[c] + 1e-5).sqrt();
            channel.mapv_inplace(|v| (v - mean[c]) * factor + shift[c]);
        }
        Ok(y)
    };
    let x = layer(1, images)?.mapv(relu);
    let y = layer(2, &x)?.mapv(relu);
    let x = (layer(3, &y)? + &x).mapv(relu);
    let x = halved(&layer(4, &halved(&x))?.mapv(relu));
    let features = x.len() / x.shape()[0];
    let x = x.to_shape((images.shape()[0], features))?.to_owned();
    record(&mut seen, "fc.weight", &x)?;
    let weights = model.parameter("fc.weight")?.array().view().into_dimensionality::<Ix2>()?;
    let bias = Array1::from(model.parameter("fc.bias")?.values().to_vec());
    Ok(x.dot(&weights.t()) + bias)
}

fn record<D: Dimension>(
    seen: &mut Option<&mut Evidence<f32>>,
    name: &str,
    x: &ArrayRef<f32, D>,
) -> niwaki::Result<()> {
    seen.as_deref_mut().map_or(Ok(()), |evidence| evidence.record_input(name, x))
}

fn relu(x: f32) -> f32 {
    x.max(0.0)
}

/// 3×3, padding 1, as a product with the unfolded image.
fn convolved(images: &Array4<f32>, weights: &Array4<f32>) -> Array4<f32> {
    let (samples, channels, side, _) = images.dim();
    let filters = weights.shape()[0];
    let flat = weights.to_shape((filters, channels * 9)).expect("contiguous");
    let mut unfolded = Array2::zeros((channels * 9, side * side));
    let mut answers = Array4::zeros((samples, filters, side, side));
    for (image, answer) in images.outer_iter().zip(answers.outer_iter_mut()) {
        for ((row, position), value) in unfolded.indexed_iter_mut() {
            let (channel, tap) = (row / 9, row % 9);
            // Off the upper or left edge it wraps to an index that is not there either.
            let down = (position / side + tap / 3).wrapping_sub(1);
            let right = (position % side + tap % 3).wrapping_sub(1);
            *value = image.get([channel, down, right]).copied().unwrap_or(0.0);
        }
        let mut answer = answer.into_shape_with_order((filters, side * side)).expect("contiguous");
        general_mat_mul(1.0, &flat, &unfolded, 0.0, &mut answer);
    }
    answers
}

/// Average over 2×2.
fn halved(maps: &Array4<f32>) -> Array4<f32> {
    let (samples, channels, side, _) = maps.dim();
    Array4::from_shape_fn((samples, channels, side / 2, side / 2), |(at, channel, down, right)| {
        let pixel = |by: usize| maps[[at, channel, 2 * down + by / 2, 2 * right + by % 2]];
        (0..4).map(pixel).sum::<f32>() / 4.0
    })
}
