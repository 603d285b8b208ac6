//! `niwaki compress` for ONNX models.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Instant;

use niwaki::onnx::{self, Graph, Inputs, IntegerGraph, Observer, Qdq, Traced};
use niwaki::prune::Plan;
use niwaki::recover::SparseGpt;
use niwaki::{Compressed, Error, ErrorKind, Evidence, Result};

use crate::args::{Compress, Trace};
use crate::chosen::{Notes, coded};
use crate::compress::tell;
use crate::files::{self, Format};
use crate::out;
use crate::progress::Bar;
use crate::spell::{self, Activations, Give};
use crate::stages::{BoxedRecovery, Stages, stages};
use crate::summary::{Files, Summary};

/// Reads and traces a model.
pub(crate) fn traced(path: &Path, trace: &Trace) -> Result<Traced> {
    trace_graph(&Graph::read(path).map_err(|error| files::named(path, &error))?, path, trace)
}

/// As [`traced`], with the graph in a form whose activations can get codes where that is asked for.
fn prepared(path: &Path, args: &Compress) -> Result<Traced> {
    if args.activations()?.is_none() {
        return traced(path, &args.trace);
    }
    let graph = Graph::read(path).and_then(|graph| Qdq::prepared(&graph));
    trace_graph(&graph.map_err(|error| files::named(path, &error))?, path, &args.trace)
}

fn trace_graph(graph: &Graph, path: &Path, trace: &Trace) -> Result<Traced> {
    let mut settings = onnx::Trace::new();
    let known: Vec<String> = graph.inputs().into_iter().map(|info| info.name).collect();
    for (name, dims) in &trace.input {
        if !known.contains(name) {
            let known = spell::list(known.iter().map(String::as_str));
            let text = format!("--input {name}: the model has no such input; it reads {known}");
            return Err(Error::new(ErrorKind::Name, text));
        }
        settings = settings.input(name, dims.as_slice());
    }
    if trace.through_statistics {
        settings = settings.through_statistics();
    }
    settings.run(graph).map_err(|error| files::named(path, &error))
}

/// Multiplications of each weight, where they are known.
pub(crate) fn macs(traced: &Traced) -> Result<HashMap<String, u64>> {
    let layers = traced.layers()?;
    Ok(layers.into_iter().filter_map(|layer| Some((layer.parameter, layer.macs?))).collect())
}

/// Bytes of a model, external data included.
pub(crate) fn bytes(path: &Path, traced: &Traced) -> Result<u64> {
    let file = files::bytes(path)?;
    // A file of fewer bytes than its numbers take has some of them elsewhere, or they are of a smaller type.
    if file > 4 * traced.model().parameter_count() as u64 {
        return Ok(file);
    }
    Ok(traced.graph().to_bytes().map_or(file, |bytes| file.max(bytes.len() as u64)))
}

pub(crate) fn compress(args: &Compress, start: Instant) -> Result<()> {
    let traced = prepared(&args.model, args)?;
    let inputs = args.calibration.as_deref().map(read_inputs).transpose()?;
    let model = traced.model();
    let notes = Notes::default();
    let stages = stages(args, model, recoveries(args, &traced, inputs.as_ref()), &notes)?;
    let mut evidence = stages.evidence(model);
    if let Some(snapshot) = &args.snapshot {
        let earlier = prepared(snapshot, args)?;
        evidence.record_snapshot(earlier.model()).map_err(|error| files::named(snapshot, &error))?;
    }
    observe(args, &traced, inputs.as_ref(), &mut evidence)?;
    let plan = stages.plan(model, &evidence)?;
    let summary = Summary::planned(model, &plan, &macs(&traced)?)?;
    let mut files = Files {
        format: Format::Onnx,
        before: bytes(&args.model, &traced)?,
        after: None,
        frozen: Some(held(&traced).len()),
        seconds: start.elapsed().as_secs_f64(),
    };
    let mut head = before(args, &traced);
    match &args.output {
        Some(output) if !args.plan => {
            let (made, graph) = make(args, &traced, inputs.as_ref(), (&stages, &plan, &evidence))?;
            files.after = Some(graph.write(output)?);
            let summary = summary.made(&made, &notes.all());
            files.seconds = start.elapsed().as_secs_f64();
            tell(args, &head, &summary, &files)
        }
        _ => {
            head.push_str(&plan.to_string());
            tell(args, &head, &summary, &files)
        }
    }
}

/// Applies, recovers and quantizes.
fn make(
    args: &Compress,
    traced: &Traced,
    inputs: Option<&Inputs>,
    (stages, plan, evidence): (&Stages<'_>, &Plan, &Evidence<f32>),
) -> Result<(Compressed<f32>, Graph)> {
    let compressed = stages.compress_by(plan, traced.model(), evidence)?;
    compressed.verify()?;
    if args.quantize.is_none() {
        let graph = traced.apply(plan, &compressed.decode()?)?;
        return Ok((compressed, graph));
    }
    let made = traced.apply_compressed(plan, &compressed)?;
    if !made.plain.is_empty() {
        let names = spell::list(made.plain.iter().map(String::as_str));
        let text = format!("rounded to their codes, but stored as plain numbers: {names}");
        out::note(args.quiet, &text);
    }
    let graph = match (args.activations()?, inputs) {
        (Some(Activations::Static(qdq)), Some(inputs)) => told(args, qdq.run(&made.graph, inputs)?),
        (Some(Activations::Dynamic), _) => told(args, made.graph.dynamically_quantized()?),
        _ => made.graph,
    };
    Ok((compressed, graph))
}

/// The graph, after a word on what computes in floats.
fn told(args: &Compress, made: IntegerGraph) -> Graph {
    for left in made.left {
        let (node, operator, why) = (left.node, left.operator, left.why);
        out::note(args.quiet, &format!("{node} ({operator}) computes in floats: {why}"));
    }
    made.graph
}

/// The recoveries that options name; those that run the graph show their progress.
fn recoveries<'a>(args: &Compress, traced: &'a Traced, inputs: Option<&'a Inputs>) -> Vec<BoxedRecovery<'a>> {
    let stage = |give: &Give| -> Option<BoxedRecovery<'a>> {
        Some(match give {
            Give::MeanFold => Box::new(onnx::MeanFold::new(traced)),
            Give::BatchNorm => Box::new(onnx::BatchNorm::new(traced, inputs?)),
            Give::SparseGpt => Box::new(SparseGpt::new()),
            Give::LeastSquares => {
                let bar = Bar::new("recovering", args.quiet);
                let recovery = onnx::LeastSquares::new(traced, inputs?);
                Box::new(recovery.progress(move |progress| bar.at(progress.done, progress.total)))
            }
        })
    };
    args.recoveries().iter().filter_map(stage).collect()
}

/// Runs the model on the calibration inputs, if a stage reads what passes by.
fn observe(
    args: &Compress,
    traced: &Traced,
    inputs: Option<&Inputs>,
    evidence: &mut Evidence<f32>,
) -> Result<()> {
    let Some(inputs) = inputs else { return Ok(()) };
    let scores = !args.prune.is_empty();
    let learns = args.quantize.as_ref().is_some_and(spell::Quantize::reads_inputs);
    let others = args.recoveries().iter().any(|give| matches!(give, Give::MeanFold | Give::SparseGpt))
        || scores && args.importance().reads_inputs()
        || args.awq
        || args.smooth.is_some()
        || args.correct_bias;
    let answers = scores && args.importance().reads_outputs();
    let blocks = args.prune.iter().any(spell::Prune::reads_blocks);
    if !(learns || others || answers || blocks) {
        if args.recover.is_empty() && args.activations()?.is_none() {
            out::note(args.quiet, "no stage reads the calibration inputs");
        }
        return Ok(());
    }
    let bar = Bar::new("running the model", args.quiet);
    let mut observer = Observer::new(traced);
    if let Some(quantize) = args.quantize.as_ref().filter(|_| learns && !(others || answers)) {
        // Of weights that get no codes nobody asks.
        observer = observer.layers(coded(quantize, traced.model())?);
    }
    let observer =
        observer.inputs(learns || others).outputs(answers).blocks(blocks).memory_limit(args.memory);
    let done = observer.progress(|progress| bar.at(progress.done, progress.total)).run(inputs, evidence);
    done.map_err(|error| match error.kind() {
        ErrorKind::Setting => error.context("--memory"),
        _ => error,
    })
}

/// Inputs from a file.
pub(crate) fn read_inputs(path: &Path) -> Result<Inputs> {
    Inputs::read(path).map_err(|error| files::named(path, &error))
}

/// Weights of which some units cannot go.
fn held(traced: &Traced) -> BTreeSet<&str> {
    traced.frozen().iter().map(|frozen| frozen.parameter.as_str()).collect()
}

/// What was read, and what in it cannot go.
fn before(args: &Compress, traced: &Traced) -> String {
    let (model, path) = (traced.model(), args.model.display());
    let (weights, couplings, blocks) =
        (model.weights().count(), model.couplings().len(), model.blocks().len());
    let mut text = format!("{path}: {weights} weights, {couplings} couplings, {blocks} blocks\n");
    let held = held(traced).len();
    if held > 0 {
        let line = format!("{held} of the weights hold units that cannot go: niwaki inspect {path}\n");
        text.push_str(&line);
    }
    text
}
