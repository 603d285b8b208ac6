//! Every criterion with every pruner and every quantizer, on the digits network.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

#[allow(dead_code, reason = "each user of this module takes a part of it")]
#[path = "../examples/digits/mod.rs"]
mod digits;
#[allow(dead_code, reason = "each user of this module takes a part of it")]
#[path = "../examples/matrix/mod.rs"]
mod matrix;

use matrix::{Bench, QUANTIZERS, criteria, pruners};

#[test]
fn every_pair_runs_and_criteria_beat_chance() {
    let bench = Bench::new().unwrap();
    assert!(bench.original().unwrap() >= 0.975);
    let (mut informed, mut random) = (Vec::new(), Vec::new());
    for (name, importance) in criteria() {
        for (_, pruner) in pruners().unwrap() {
            let row = bench.run(importance.as_ref(), pruner.as_ref()).unwrap();
            assert_eq!(row.quantized.len(), QUANTIZERS.len());
            assert!(row.quantized.iter().all(|a| (0.0..=1.0).contains(a)));
            if name.starts_with("random") { random.push(row.pruned) } else { informed.push(row.pruned) }
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (informed, random) = (mean(&informed), mean(&random));
    assert!(informed > random, "criteria {informed:.4}, random {random:.4}");
}
