//! Every criterion with every pruner, at half, and every quantizer behind them: accuracy on images that no training
//! has seen.
//!
//! `cargo run --release --example methods`

#[allow(dead_code, reason = "each user of this module takes a part of it")]
mod digits;
mod matrix;

use digits::Outcome;
use matrix::{Bench, QUANTIZERS, criteria, pruners};

fn main() -> Outcome<()> {
    let bench = Bench::new()?;
    println!(
        "accuracy on {} test images; the network as it was: {:.4}\n",
        bench.test_images(),
        bench.original()?
    );
    println!("| importance | pruner | pruned | recovered | {} |", QUANTIZERS.join(" | "));
    println!("|---|---|---|---|{}", "---|".repeat(QUANTIZERS.len()));
    let (mut informed, mut random) = (Vec::new(), Vec::new());
    for (importance, make) in criteria() {
        for (pruner, cut) in pruners()? {
            let row = bench.run(make.as_ref(), cut.as_ref())?;
            if importance.starts_with("random") { &mut random } else { &mut informed }.push(row.pruned);
            let quantized: Vec<String> = row.quantized.iter().map(|a| format!("{a:.4}")).collect();
            println!(
                "| {importance} | {pruner} | {:.4} | {:.4} | {} |",
                row.pruned,
                row.recovered,
                quantized.join(" | ")
            );
        }
    }
    let mean = |accuracies: &[f64]| accuracies.iter().sum::<f64>() / accuracies.len() as f64;
    println!("\npruned, on average: the four criteria {:.4}, random {:.4}", mean(&informed), mean(&random));
    Ok(())
}
