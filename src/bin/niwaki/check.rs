//! What a command line gets wrong that no single option shows.

use clap::error::ErrorKind;
use clap::{CommandFactory, Error};

use crate::args::{Compress, Tool};
use crate::files::Format;
use crate::spell::Prune;

/// Errors on options that contradict each other, before anything is read.
pub(crate) fn compress(args: &Compress) -> Result<(), Error> {
    if args.prune.is_empty() && args.quantize.is_none() {
        return Err(wrong(ErrorKind::MissingRequiredArgument, "nothing to do: give --prune or --quantize"));
    }
    let needs_graph = [
        (args.calibration.is_some(), "--calibration"),
        (!args.recover.is_empty(), "--recover"),
        (!args.trace.input.is_empty(), "--input"),
        (args.trace.through_statistics, "--through-statistics"),
        (args.importance.needs_calibration(), "--importance with activations"),
        (args.prune.iter().any(Prune::needs_calibration), "--prune by influence"),
    ];
    let arrays = matches!(Format::of(&args.model), Ok(Format::Safetensors | Format::Npz));
    if arrays && let Some((_, option)) = needs_graph.iter().find(|(given, _)| *given) {
        let text = format!("{option} is for ONNX models: a file of arrays cannot be run");
        return Err(wrong(ErrorKind::ArgumentConflict, &text));
    }
    if arrays && let Some((prune, what)) = args.prune.iter().find_map(|p| Some((p, p.needs_graph()?))) {
        let text = format!("--prune {prune} is for ONNX models: a file of arrays does not say {what}");
        return Err(wrong(ErrorKind::ArgumentConflict, &text));
    }
    if args.calibration.is_none() {
        let option = if args.importance.needs_calibration() && !args.prune.is_empty() {
            Some(format!("--importance {}", args.importance))
        } else if let Some(prune) = args.prune.iter().find(|prune| prune.needs_calibration()) {
            Some(format!("--prune {prune}"))
        } else {
            args.recover.first().map(|give| format!("--recover {give}"))
        };
        if let Some(option) = option {
            let text = format!("{option} needs inputs to run the model on: give --calibration INPUTS.npz");
            return Err(wrong(ErrorKind::MissingRequiredArgument, &text));
        }
    }
    match (args.importance.needs_snapshot(), &args.snapshot) {
        (true, None) => {
            let text = format!(
                "--importance {} compares with the model as it was earlier in training: give --snapshot MODEL",
                args.importance
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
