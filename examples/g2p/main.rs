//! A recurrent network: hidden units or single weights go, accuracy is given back, the rest is stored in few bits.
//!
//! ```text
//! cargo run --release --example g2p -- DATA OUT.npz
//!     [--sparsity 0.5] [--pruner channel|unstructured|sparsegpt|2:4|joint]
//!     [--bits 4] [--rounding nearest|mse|gptq|gptq-search|distill|adversarial] [--correct-bias]
//! ```
//!
//! DATA holds `checkpoint20.npz` (a GRU encoder and decoder that say how words are spoken) and `calibration.tsv`
//! (words, one a line, before the first tab). OUT gets the decoded weights under the same names.

mod network;
mod settings;

use std::fs;
use std::path::Path;

use network::{Outcome, describe, observe};
use niwaki::format::npz;
use niwaki::importance::{BrainSurgeon, Importance, Magnitude, Subset, Wanda};
use niwaki::prune::{Channel, NOfM, Pruner, Scope, SparseGpt, Unstructured};
use niwaki::quantize::{Bits, Distillation, Gptq, Quantizer, Range, Uniform};
use niwaki::recover::{self, LeastSquares, Recovery};
use niwaki::{Compressor, Nothing};
use settings::{Prune, Rounding, Settings};

/// What is set at run time is boxed.
type Stages = (Box<dyn Importance<f32>>, Box<dyn Pruner<f32>>, Box<dyn Recovery<f32>>);

fn main() -> Outcome<()> {
    let settings = Settings::read(std::env::args().skip(1))?;
    let data = Path::new(&settings.data);
    let model = describe(npz::read(data.join("checkpoint20.npz"))?)?;

    let (importance, pruner, recovery) = pruning(&settings)?;
    let quantizer: Box<dyn Quantizer<f32>> = match settings.bits {
        None => Box::new(Nothing),
        Some(bits) => rounding(&settings, bits),
    };
    let compressor =
        Compressor::builder().importance(importance).pruner(pruner).recovery(recovery).quantizer(quantizer);
    let compressor = if settings.correct_bias { compressor.correct_bias() } else { compressor }.build()?;

    let mut evidence = compressor.evidence(&model);
    let words = fs::read_to_string(data.join("calibration.tsv"))?;
    observe(&model, words.lines().map(|line| line.split('\t').next().unwrap_or_default()), &mut evidence)?;

    println!("{}", compressor.plan(&model, &evidence)?);
    let compressed = compressor.compress(&model, &evidence)?;
    compressed.verify()?;
    println!("{}", compressed.report());
    npz::write_model(&settings.out, &compressed.decode()?)?;
    println!("decoded weights in {}", settings.out);
    Ok(())
}

/// What goes, and how accuracy comes back. Embeddings keep all their weights.
fn pruning(settings: &Settings) -> Outcome<Stages> {
    const TABLES: &str = "re:.*_emb";
    let Some(sparsity) = settings.sparsity.filter(|_| settings.pruner != Prune::Joint) else {
        return Ok((Box::new(Magnitude::l2()), Box::new(Nothing), Box::new(Nothing)));
    };
    let least_squares = Box::new(LeastSquares::default());
    Ok(match settings.pruner {
        Prune::Channel => {
            let pruner = Channel::new(sparsity).exclude("re:.*_features");
            (Box::new(Subset::new()), Box::new(pruner), least_squares)
        }
        Prune::SparseGpt => {
            let pruner = SparseGpt::new(sparsity).exclude(TABLES).include_ends();
            let recovery = recover::SparseGpt::new().act_order();
            (Box::new(BrainSurgeon::new().act_order()), Box::new(pruner), Box::new(recovery))
        }
        Prune::TwoOfFour => {
            let pruner = NOfM::new(2, 4)?.exclude(TABLES).include_ends();
            (Box::new(Wanda::new()), Box::new(pruner), least_squares)
        }
        Prune::Unstructured | Prune::Joint => {
            let pruner = Unstructured::new(sparsity).scope(Scope::PerRow).exclude(TABLES).include_ends();
            (Box::new(Wanda::new()), Box::new(pruner), least_squares)
        }
    })
}

/// How weights find their codes: symmetric, a scale for each output and each entry of an embedding.
fn rounding(settings: &Settings, bits: Bits) -> Box<dyn Quantizer<f32>> {
    let (nearest, uniform) = (Uniform::new(bits), Uniform::new(bits).range(Range::Mse));
    let gptq = if settings.correct_bias { Gptq::new().centred() } else { Gptq::new() }.act_order();
    let gptq = match settings.sparsity.filter(|_| settings.pruner == Prune::Joint) {
        Some(sparsity) => gptq.sparsity(sparsity).polish(10),
        None => gptq,
    };
    let distillation = Distillation::new(uniform);
    let distillation = if settings.correct_bias { distillation.centred() } else { distillation };
    match settings.rounding {
        Rounding::Nearest => Box::new(nearest),
        Rounding::Mse => Box::new(uniform),
        Rounding::Gptq => Box::new(uniform.rounding(gptq)),
        Rounding::GptqSearch => Box::new(nearest.rounding(gptq.search().polish(10))),
        Rounding::Distill => Box::new(distillation),
        Rounding::Adversarial => Box::new(distillation.adversarial(4)),
    }
}
