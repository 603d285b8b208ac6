//! `niwaki convert`: a model from one kind of file to another, nothing compressed.

use niwaki::Result;
use niwaki::format::{gguf, npz, safetensors};
use niwaki::onnx::Graph;

use crate::args::Convert;
use crate::files::{self, Format, Words};
use crate::{graph, out};

/// Runs the command.
pub(crate) fn run(args: &Convert) -> Result<()> {
    let (from, to) = (Format::of(&args.model)?, target(args)?);
    let before = files::bytes(&args.model)?;
    if to == Format::Onnx && from != Format::Onnx {
        let what = "an ONNX model is a graph, and a file of arrays holds none";
        return Err(files::fail(&args.output, what));
    }
    if let (Some(precision), true) = (args.precision, matches!(to, Format::Onnx | Format::Npz)) {
        let text = format!(
            "{} files are written in the type of their arrays; --precision {} is for safetensors and gguf",
            to.name(),
            precision.name()
        );
        return Err(files::fail(&args.output, &text));
    }
    files::check_target(&args.output, &[&args.model])?;
    let after = write(args, from, to)?;
    if args.quiet {
        return Ok(());
    }
    let (model, output) = (args.model.display(), args.output.display());
    out::print(&format!("{model} -> {output}: {} -> {} bytes\n", out::number(before), out::number(after)))
}

/// The kind of file that is written: what is asked for, or what the name ends in.
fn target(args: &Convert) -> Result<Format> {
    args.format.map_or_else(|| Format::of(&args.output), Ok)
}

fn write(args: &Convert, from: Format, to: Format) -> Result<u64> {
    let (model, output) = (&args.model, &args.output);
    let named = |error| files::named(model, &error);
    match (from, to) {
        (Format::Onnx, Format::Onnx) => return Graph::read(model).map_err(named)?.write(output),
        // Blocks stay blocks, and metadata is as it was.
        (Format::Gguf, Format::Gguf) if args.precision.is_none() => {
            return gguf::Gguf::read(model)?.save(output);
        }
        _ => {}
    }
    let (arrays, words) = match from {
        Format::Onnx => (graph::traced(model, &args.trace)?.model().clone(), Words::new()),
        _ => files::read_with_words(model, from, args.quiet)?,
    };
    let precision = args.precision.map(Into::into);
    match to {
        Format::Npz => npz::write_model(output, &arrays),
        Format::Gguf => {
            let options =
                precision.into_iter().fold(gguf::WriteOptions::new(), gguf::WriteOptions::precision);
            let options = match from {
                Format::Gguf => options.all_metadata(gguf::read_metadata(model)?),
                _ => words.into_iter().fold(options, |options, (key, value)| options.metadata(key, value)),
            };
            gguf::write_model(output, &arrays, &options)
        }
        _ => {
            let options = safetensors::WriteOptions::new();
            let options = precision.into_iter().fold(options, safetensors::WriteOptions::precision);
            let options =
                words.into_iter().fold(options, |options, (key, value)| options.metadata(key, value));
            safetensors::write_model(output, &arrays, &options)
        }
    }
}
