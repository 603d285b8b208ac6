//! The digits network in 2 bits, trained against the original's answers, without labels. Both nearest rounding and training keep
//! its accuracy; what training lowers is how far the answers are from the original's.
//!
//! `cargo run --release -p distill --bin digits -- [--bits 2] [--sparsity 0.5] [--steps 400]`

#[allow(dead_code, reason = "each user of this module takes a part of it")]
#[path = "../../../digits/mod.rs"]
mod digits;

use candle_core::{Device, Result, Tensor};
use digits::{Digits, Network, read_model};
use distill::{Outcome, Weights, divergence, engine};
use ndarray::Array4;
use niwaki::distill::{Loss, Teacher, Training};
use niwaki::importance::Magnitude;
use niwaki::prune::{Sparsity, Unstructured};
use niwaki::quantize::{Bits, Range, Uniform};
use niwaki::{Compressor, Model};

/// Training images that no step trains on.
const HELD_OUT: usize = 237;
const BATCH: usize = 100;

fn main() -> Outcome<()> {
    let [mut bits, mut sparsity, mut steps] = [2.0, 0.0, 400.0];
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?.parse()?;
        match arg.as_str() {
            "--bits" => bits = value,
            "--sparsity" => sparsity = value,
            "--steps" => steps = value,
            other => return Err(format!("there is no option {other}").into()),
        }
    }

    let model = read_model("digits.safetensors")?;
    let (training, test) = Digits::load()?;
    let quantizer = Uniform::new(Bits::new(bits as u32)?).range(Range::Mse);
    let compressor = Compressor::builder()
        .importance(Magnitude::l1())
        .pruner(Unstructured::new(Sparsity::new(sparsity)?))
        .quantizer(quantizer)
        .build()?;
    let evidence = compressor.evidence(&model);
    let nearest = compressor.compress(&model, &evidence)?;

    // The student starts from the pruned network and keeps its zeros; the teacher is the whole one.
    let mut teacher = Images::new(&model, &training)?;
    let distilled = Training::new(quantizer)
        .steps(steps as usize)
        .learning_rate(1e-3)
        .run(&compressor.prune(&model, &evidence)?, &mut teacher)?;
    let compressed = distilled.compressed();
    compressed.verify()?;
    println!("{}", compressed.report());
    println!("{distilled}");

    let before = Network::from(model).accuracy(&test)?;
    let rounded = Network::decoded(&nearest)?.accuracy(&test)?;
    let after = Network::decoded(compressed)?.accuracy(&test)?;
    println!("on {} images that no training has seen:", test.labels.len());
    println!("  original          {before:.4}");
    println!("  nearest rounding  {rounded:.4}");
    println!("  distilled         {after:.4}");
    assert!(after >= rounded, "training is no worse than rounding");
    Ok(())
}

/// What the original answers on images without labels.
struct Images {
    shown: Tensor,
    answers: Tensor,
    held_out: (Tensor, Tensor),
}

impl Images {
    fn new(model: &Model<f32>, training: &Digits) -> Outcome<Self> {
        let weights = Weights::fixed(model)?;
        let count = training.labels.len() - HELD_OUT;
        let part = |from, to| -> Outcome<(Tensor, Tensor)> {
            let images = tensor(&training.part(from, to).images)?;
            let answers = forward(&weights, &images)?;
            Ok((images, answers))
        };
        let (shown, answers) = part(0, count)?;
        Ok(Self { shown, answers, held_out: part(count, count + HELD_OUT)? })
    }

    fn batch_loss(&self, student: &Model<f32>, step: usize) -> Result<Loss<f32>> {
        let batches = self.shown.dim(0)? / BATCH;
        let start = step % batches * BATCH;
        let (images, answers) = (self.shown.narrow(0, start, BATCH)?, self.answers.narrow(0, start, BATCH)?);
        let weights = Weights::variable(student)?;
        weights.loss(&divergence(&forward(&weights, &images)?, &answers)?)
    }

    fn held_out_loss(&self, student: &Model<f32>) -> Result<f64> {
        let (images, answers) = &self.held_out;
        let loss = divergence(&forward(&Weights::fixed(student)?, images)?, answers)?;
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}

impl Teacher<f32> for Images {
    fn loss(&mut self, student: &Model<f32>, step: usize) -> niwaki::Result<Loss<f32>> {
        self.batch_loss(student, step).map_err(engine)
    }

    fn held_out(&mut self, student: &Model<f32>) -> niwaki::Result<Option<f64>> {
        self.held_out_loss(student).map(Some).map_err(engine)
    }
}

fn tensor(images: &Array4<f32>) -> Result<Tensor> {
    Tensor::from_iter(images.iter().copied(), &Device::Cpu)?.reshape(images.dim())
}

/// Scores [n, 10] of images [n, 1, 8, 8]: the forward pass of `digits`, written for candle.
fn forward(weights: &Weights, images: &Tensor) -> Result<Tensor> {
    let h1 = conv_norm(weights, 1, images)?.relu()?;
    let h2 = conv_norm(weights, 2, &h1)?.relu()?;
    let h3 = (conv_norm(weights, 3, &h2)? + h1)?.relu()?.avg_pool2d(2)?;
    let h4 = conv_norm(weights, 4, &h3)?.relu()?.avg_pool2d(2)?.flatten_from(1)?;
    h4.matmul(&weights.get("fc.weight")?.t()?)?.broadcast_add(weights.get("fc.bias")?)
}

/// A convolution and its batch norm, whose statistics are fixed.
fn conv_norm(weights: &Weights, at: usize, x: &Tensor) -> Result<Tensor> {
    let norm = |part: &str| weights.get(&format!("bn{at}.{part}"))?.reshape((1, (), 1, 1));
    let y = x.conv2d(weights.get(&format!("conv{at}.weight"))?, 1, 1, 1, 1)?;
    let factor = (norm("weight")? / (norm("running_var")? + 1e-5)?.sqrt()?)?;
    y.broadcast_sub(&norm("running_mean")?)?.broadcast_mul(&factor)?.broadcast_add(&norm("bias")?)
}
