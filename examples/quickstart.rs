//! A trained convolutional network in, a file of a tenth of its size out.
//!
//! `cargo run --release --example quickstart`

mod digits;

use std::fs;

use digits::{Digits, Network, Outcome, data, read_model};
use niwaki::importance::Subset;
use niwaki::prune::{Channel, Sparsity};
use niwaki::quantize::Uniform;
use niwaki::recover::LeastSquares;
use niwaki::{Compressed, Compressor};

fn main() -> Outcome<()> {
    let model = read_model("digits.safetensors")?;
    let (training, test) = Digits::load()?;
    let original = Network::from(model.clone());

    let compressor = Compressor::builder()
        .importance(Subset::new())
        .pruner(Channel::new(Sparsity::new(0.5)?))
        .recovery(LeastSquares::default())
        .quantizer(Uniform::int8())
        .build()?;

    // Calibration: the network runs as always, and evidence sees what passes by.
    let mut evidence = compressor.evidence(&model);
    for batch in training.part(0, 400).batches() {
        original.forward(&batch.images, Some(&mut evidence))?;
    }

    // Look before you cut.
    let plan = compressor.plan(&model, &evidence)?;
    println!("{plan}");

    let pruned = Network::pruned(plan.apply(&model)?, &plan);
    let recovered = Network::from(compressor.prune(&model, &evidence)?);
    let compressed = compressor.compress(&model, &evidence)?;
    compressed.verify()?;
    println!("{}", compressed.report());

    let file = std::env::temp_dir().join("digits.niwaki.safetensors");
    compressed.save(&file)?;
    let loaded = Compressed::<f32>::load(&file)?;
    assert!(loaded == compressed, "a file holds what was saved, bit for bit");
    let bytes = (fs::metadata(data("digits.safetensors"))?.len(), fs::metadata(&file)?.len());
    assert_eq!(bytes.1, compressed.report().bytes() as u64, "the report counts the bytes written");

    let before = original.accuracy(&test)?;
    println!("on {} images that no training has seen:", test.labels.len());
    println!("  original             {before:.4}");
    println!("  half the channels    {:.4}", pruned.accuracy(&test)?);
    println!("  with recovery        {:.4}", recovered.accuracy(&test)?);
    let after = Network::decoded(&loaded)?.accuracy(&test)?;
    println!("  quantized to 8 bits  {after:.4}");
    let ratio = bytes.1 as f64 / bytes.0 as f64;
    println!("digits: accuracy {before:.4} -> {after:.4}, bytes {} -> {} ({ratio:.3}x)", bytes.0, bytes.1);
    Ok(())
}
