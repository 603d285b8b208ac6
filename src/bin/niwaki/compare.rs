//! `niwaki compare`.

use std::path::Path;

use niwaki::Result;
use niwaki::onnx::{Comparison, Graph, OutputComparison, compare};
use serde_json::{Value, json};

use crate::args::Compare;
use crate::files::{self, Format};
use crate::graph::read_inputs;
use crate::out::{self, number, table};

/// Runs the command.
pub(crate) fn run(args: &Compare) -> Result<()> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let found = compare(&a, &b, &read_inputs(&args.inputs)?)?;
    if args.json { out::json(&document(args, &found)) } else { out::print(&text(&found)) }
}

fn read(path: &Path) -> Result<Graph> {
    if Format::of(path)? != Format::Onnx {
        return Err(files::fail(path, "only ONNX models can be run and compared"));
    }
    Graph::read(path).map_err(|error| files::named(path, &error))
}

fn text(found: &Comparison) -> String {
    let words = |line: [&str; 5]| line.map(str::to_owned).to_vec();
    let mut lines = vec![words(["output", "cosine", "least", "largest difference", "same top 1"])];
    lines.extend(found.outputs.iter().map(|output| {
        vec![
            output.name.clone(),
            format!("{:.6}", output.mean_cosine),
            format!("{:.6}", output.least_cosine),
            format!("{:.3e}", output.largest_difference),
            output.top1_agreement.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", 100.0 * share)),
        ]
    }));
    let ([a, b], [s, t]) = (found.bytes, found.milliseconds);
    let ratio = |a: f64, b: f64| format!("{:.3}x", b / a.max(f64::MIN_POSITIVE));
    let sizes = [
        vec!["bytes".to_owned(), number(a), "->".to_owned(), number(b), ratio(a as f64, b as f64)],
        vec!["milliseconds".to_owned(), format!("{s:.3}"), "->".to_owned(), format!("{t:.3}"), ratio(s, t)],
    ];
    format!("{} samples\n{}{}", found.samples, table(&lines, &[1, 2, 3, 4]), table(&sizes, &[1, 3, 4]))
}

fn document(args: &Compare, found: &Comparison) -> Value {
    let output = |output: &OutputComparison| {
        json!({
            "name": output.name,
            "mean_cosine": output.mean_cosine,
            "least_cosine": output.least_cosine,
            "largest_difference": output.largest_difference,
            "top1_agreement": output.top1_agreement,
        })
    };
    json!({
        "niwaki": env!("CARGO_PKG_VERSION"),
        "a": args.a.display().to_string(),
        "b": args.b.display().to_string(),
        "inputs": args.inputs.display().to_string(),
        "samples": found.samples,
        "outputs": found.outputs.iter().map(output).collect::<Vec<_>>(),
        "bytes": {"a": found.bytes[0], "b": found.bytes[1]},
        "milliseconds": {"a": found.milliseconds[0], "b": found.milliseconds[1]},
    })
}
