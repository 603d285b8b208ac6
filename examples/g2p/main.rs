//! A recurrent network: hidden units or single weights go, accuracy is given back, the rest is stored in few bits.
//!
//! ```text
//! cargo run --release --example g2p -- DATA OUT.npz [--sparsity 0.3] [--bits 8] [--pruner channel|unstructured]
//! ```
//!
//! DATA holds `checkpoint20.npz` (a GRU encoder and decoder that say how words are spoken) and `calibration.tsv`
//! (words, one a line, before the first tab). OUT gets the decoded weights under the same names.

mod network;

use std::fs;
use std::path::Path;

use network::{Outcome, describe, observe};
use niwaki::format::npz;
use niwaki::importance::{Importance, Magnitude, Subset};
use niwaki::prune::{Channel, Pruner, Sparsity, Unstructured};
use niwaki::quantize::{Bits, Quantizer, Range, Uniform};
use niwaki::recover::{LeastSquares, Recovery};
use niwaki::{Compressor, Nothing};

/// What the command line asks for.
struct Settings {
    data: String,
    out: String,
    sparsity: Option<Sparsity>,
    bits: Option<Bits>,
    channel: bool,
}

fn main() -> Outcome<()> {
    let settings = Settings::read(std::env::args().skip(1))?;
    let data = Path::new(&settings.data);
    let model = describe(npz::read(data.join("checkpoint20.npz"))?)?;

    // What is set at run time is boxed.
    let (importance, pruner): (Box<dyn Importance<f32>>, Box<dyn Pruner<f32>>) = match settings.sparsity {
        None => (Box::new(Magnitude::l2()), Box::new(Nothing)),
        Some(sparsity) if settings.channel => (Box::new(Subset::new()), Box::new(Channel::new(sparsity))),
        Some(sparsity) => (
            Box::new(Magnitude::l1()),
            Box::new(Unstructured::new(sparsity).exclude("re:.*_emb").include_ends()),
        ),
    };
    let recovery: Box<dyn Recovery<f32>> = match settings.sparsity {
        None => Box::new(Nothing),
        Some(_) => Box::new(LeastSquares::default()),
    };
    let quantizer: Box<dyn Quantizer<f32>> = match settings.bits {
        None => Box::new(Nothing),
        Some(bits) => Box::new(Uniform::new(bits).range(Range::Mse)),
    };
    let compressor = Compressor::builder()
        .importance(importance)
        .pruner(pruner)
        .recovery(recovery)
        .quantizer(quantizer)
        .build()?;

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

impl Settings {
    fn read(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let (mut places, mut sparsity, mut bits, mut channel) = (Vec::new(), None, None, true);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--sparsity" => sparsity = Some(Sparsity::new(value()?.parse()?)?),
                "--bits" => bits = Some(Bits::new(value()?.parse()?)?),
                "--pruner" => {
                    channel = match value()?.as_str() {
                        "channel" => true,
                        "unstructured" => false,
                        other => {
                            return Err(format!("--pruner is channel or unstructured, not {other}").into());
                        }
                    }
                }
                other if other.starts_with("--") => return Err(format!("there is no option {other}").into()),
                _ => places.push(arg),
            }
        }
        let [data, out] = <[String; 2]>::try_from(places).map_err(|_| "usage: g2p DATA OUT.npz [options]")?;
        Ok(Self { data, out, sparsity, bits, channel })
    }
}
