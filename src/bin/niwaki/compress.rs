//! `niwaki compress`: what both kinds of models share.

use std::path::Path;
use std::time::Instant;

use niwaki::{Error, ErrorKind, Result};

use crate::args::Compress;
use crate::files::{self, Format};
use crate::summary::{Files, Summary};
use crate::{arrays, graph, out};

/// Runs the command.
pub(crate) fn run(args: &Compress) -> Result<()> {
    let format = Format::of(&args.model)?;
    check_targets(args, format)?;
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
        pool.map_err(|error| Error::new(ErrorKind::Setting, format!("--threads {threads}: {error}")))?;
    }
    let start = Instant::now();
    match format {
        Format::Onnx => graph::compress(args, start),
        Format::Safetensors | Format::Npz | Format::Gguf => arrays::compress(args, format, start),
    }
}

/// What cannot be written is an error before the work, not after it.
fn check_targets(args: &Compress, format: Format) -> Result<()> {
    let mut reads: Vec<&Path> = vec![&args.model];
    reads.extend(args.calibration.as_deref());
    reads.extend(args.snapshot.as_deref());
    files::bytes(&args.model)?;
    if let Some(output) = &args.output {
        let kind = args.format_of(output)?;
        if (kind == Format::Onnx) != (format == Format::Onnx) {
            return Err(files::fail(output, "an ONNX model stays one, and arrays stay arrays"));
        }
        if output.extension().is_some_and(|end| end == "json") {
            return Err(files::fail(output, "the name should end in .safetensors"));
        }
        files::check_target(output, &reads)?;
        reads.push(output);
    }
    if let Some(report) = &args.report {
        files::check_target(report, &reads)?;
        if args.output.as_ref() == Some(report) {
            return Err(files::fail(report, "is the output"));
        }
    }
    Ok(())
}

/// The last words: to the terminal, behind `head`, and to the report's file.
pub(crate) fn tell(args: &Compress, head: &str, summary: &Summary, files: &Files) -> Result<()> {
    let document = (args.json || args.report.is_some()).then(|| summary.json(args, files));
    if let (Some(path), Some(document)) = (&args.report, &document) {
        std::fs::write(path, format!("{document:#}\n")).map_err(|error| {
            let written = if files.after.is_some() { "; the model was written" } else { "" };
            Error::new(ErrorKind::Io, format!("{}: {error}{written}", path.display()))
        })?;
    }
    match document {
        Some(document) if args.json => out::json(&document),
        _ if args.quiet => Ok(()),
        _ => {
            let output = args.output.as_ref().filter(|_| files.after.is_some());
            let written =
                output.map(|output| format!("{} written in {:.2} s\n", output.display(), files.seconds));
            out::print(&format!("{head}{}{}", summary.text(files, args.plan), written.unwrap_or_default()))
        }
    }
}
