//! What a command line gets wrong that no single option shows.

use clap::error::ErrorKind;
use clap::{CommandFactory, Error};

use crate::args::{Compress, Tool};
use crate::files::Format;
use crate::spell::{Criterion, Prune};

/// Errors on options that contradict each other, before anything is read.
pub(crate) fn compress(args: &Compress) -> Result<(), Error> {
    if args.prune.is_empty() && args.quantize.is_none() {
        return Err(wrong(ErrorKind::MissingRequiredArgument, "nothing to do: give --prune or --quantize"));
    }
    let arrays = matches!(Format::of(&args.model), Ok(Format::Safetensors | Format::Npz | Format::Gguf));
    let readers = args.readers();
    if arrays {
        let graph = [
            (args.calibration.is_some(), "--calibration"),
            (!args.trace.input.is_empty(), "--input"),
            (args.trace.through_statistics, "--through-statistics"),
        ];
        let graph = graph.into_iter().filter(|(given, _)| *given).map(|(_, option)| option.to_owned());
        let codes = args.quantize.iter().filter(|_| matches!(args.activations(), Ok(Some(_))));
        let graph = graph.chain(codes.map(|quantize| format!("--quantize {quantize}")));
        if let Some(option) = readers.iter().cloned().chain(graph).next() {
            let text = format!("{option} is for ONNX models: a file of arrays cannot be run");
            return Err(wrong(ErrorKind::ArgumentConflict, &text));
        }
        let prune = args.prune.iter().find_map(|p| Some((format!("--prune {p}"), p.needs_graph()?)));
        let equalize = args.equalize.then(|| ("--equalize".to_owned(), "what reads which units"));
        if let Some((option, what)) = prune.or(equalize) {
            let text = format!("{option} is for ONNX models: a file of arrays does not say {what}");
            return Err(wrong(ErrorKind::ArgumentConflict, &text));
        }
    }
    if let Some(option) = readers.first().filter(|_| args.calibration.is_none()) {
        let text = format!("{option} needs inputs to run the model on: give --calibration INPUTS.npz");
        return Err(wrong(ErrorKind::MissingRequiredArgument, &text));
    }
    if args.awq && args.quantize.as_ref().is_some_and(|q| !q.is_integer()) {
        let text = "--awq tries scales out on uniform, gptq or distill codes: give one of them to --quantize";
        return Err(wrong(ErrorKind::ArgumentConflict, text));
    }
    if args.importance() != Criterion::BrainSurgeon
        && let Some(prune) = args.prune.iter().find(|prune| prune.is_sparse_gpt())
    {
        let text = format!("--prune {prune} ranks weights by --importance brain-surgeon");
        return Err(wrong(ErrorKind::ArgumentConflict, &text));
    }
    match (args.importance().needs_snapshot(), &args.snapshot) {
        (true, None) => {
            let text = format!(
                "--importance {} compares with the model as it was earlier in training: give --snapshot MODEL",
                args.importance()
            );
            Err(wrong(ErrorKind::MissingRequiredArgument, &text))
        }
        (false, Some(_)) => Err(wrong(
            ErrorKind::ArgumentConflict,
            "--snapshot is for --importance gradient-compare, which compares two models",
        )),
        _ if args.round_to.is_some() && !args.prune.iter().any(Prune::is_channel) => {
            Err(wrong(ErrorKind::ArgumentConflict, "--round-to is for --prune channel=…"))
        }
        _ => Ok(()),
    }
}

/// In clap's form, with the usage of the command.
fn wrong(kind: ErrorKind, text: &str) -> Error {
    let mut tool = Tool::command();
    tool.build();
    match tool.find_subcommand_mut("compress") {
        Some(command) => command.error(kind, text),
        None => tool.error(kind, text),
    }
}
