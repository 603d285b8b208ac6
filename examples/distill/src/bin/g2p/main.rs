//! A recurrent network in 4 or 3 bits, or half of its weights gone besides, trained against the original.
//!
//! ```text
//! cargo run --release -p distill --bin g2p -- DATA OUT.npz [--bits 4] [--affine] [--sparsity 0.5] [--steps 2000]
//! ```
//!
//! What goes is chosen by Wanda in each row, and what stays is solved again, before the training starts. DATA holds
//! `checkpoint20.npz` (a GRU encoder and decoder that say how words are spoken) and `calibration.tsv`
//! (words, one a line, before the first tab; what is behind it is not read). OUT gets the decoded weights under the
//! same names.

#[path = "../../../../g2p/network.rs"]
mod describe;
mod lessons;
mod network;
mod words;

use std::fs;
use std::path::Path;
use std::time::Instant;

use describe::{describe, observe};
use distill::Outcome;
use lessons::Lessons;
use niwaki::Compressor;
use niwaki::distill::Training;
use niwaki::format::npz;
use niwaki::importance::Wanda;
use niwaki::prune::{Scope, Sparsity, Unstructured};
use niwaki::quantize::{Bits, Range, Uniform};
use niwaki::recover::LeastSquares;
use words::Words;

/// Words that no step trains on.
const HELD_OUT: usize = 200;

fn main() -> Outcome<()> {
    let settings = Settings::read(std::env::args().skip(1))?;
    let data = Path::new(&settings.data);
    let model = describe(npz::read(data.join("checkpoint20.npz"))?)?;
    let text = fs::read_to_string(data.join("calibration.tsv"))?;
    let words = text.lines().filter_map(|line| line.split('\t').next()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_owned).collect();
    if words.len() <= HELD_OUT {
        return Err(format!("{} words are too few: {HELD_OUT} are held out", words.len()).into());
    }
    let (held_out, seen) = words.split_at(HELD_OUT);

    let pruner =
        Unstructured::new(settings.sparsity).scope(Scope::PerRow).exclude("re:.*_emb").include_ends();
    let pruning =
        Compressor::builder().importance(Wanda::new()).pruner(pruner).recovery(LeastSquares::default());
    let pruning = pruning.build()?;
    let mut evidence = pruning.evidence(&model);
    observe(&model, seen.iter().map(String::as_str), &mut evidence)?;
    let pruned = pruning.prune(&model, &evidence)?;

    let mut teacher = Lessons::new(&model, Words::new(seen, 7), held_out)?;
    let uniform = Uniform::new(settings.bits).range(Range::Mse);
    let training = Training::new(if settings.affine { uniform.affine() } else { uniform })
        .steps(settings.steps)
        .learning_rate(settings.rate);
    let start = Instant::now();
    let distilled = training.run(&pruned, &mut teacher)?;
    let compressed = distilled.compressed();
    compressed.verify()?;
    println!("{}", compressed.report());
    println!("{distilled}in {:.0} seconds", start.elapsed().as_secs_f64());
    npz::write_model(&settings.out, &compressed.decode()?)?;
    println!("decoded weights in {}", settings.out);
    Ok(())
}

/// What the command line asks for.
struct Settings {
    data: String,
    out: String,
    bits: Bits,
    affine: bool,
    sparsity: Sparsity,
    steps: usize,
    rate: f64,
}

impl Settings {
    fn read(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let (mut places, mut bits, mut sparsity) = (Vec::new(), Bits::FOUR, Sparsity::new(0.0)?);
        let (mut steps, mut rate, mut affine) = (2000, 5e-4, false);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--bits" => bits = Bits::new(value()?.parse()?)?,
                "--affine" => affine = true,
                "--sparsity" => sparsity = Sparsity::new(value()?.parse()?)?,
                "--steps" => steps = value()?.parse()?,
                "--rate" => rate = value()?.parse()?,
                other if other.starts_with("--") => return Err(format!("there is no option {other}").into()),
                _ => places.push(arg),
            }
        }
        let [data, out] = <[String; 2]>::try_from(places).map_err(|_| "usage: g2p DATA OUT.npz [options]")?;
        Ok(Self { data, out, bits, affine, sparsity, steps, rate })
    }
}
