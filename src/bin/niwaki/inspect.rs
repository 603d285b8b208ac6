//! `niwaki inspect`.

use std::collections::BTreeMap;
use std::path::Path;

use niwaki::model::{CoupledSlot, Passage};
use niwaki::onnx::{Dim, LayerInfo, Traced, ValueInfo};
use niwaki::{Block, Coupling, Model, Result};
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::files::{self, Format};
use crate::graph;
use crate::out::{self, number, short, table};
use crate::summary::kind;

/// Runs the command.
pub(crate) fn run(args: &Inspect) -> Result<()> {
    let format = Format::of(&args.model)?;
    if format == Format::Onnx {
        let traced = graph::traced(&args.model, &args.trace)?;
        let bytes = graph::bytes(&args.model, &traced)?;
        let layers = traced.layers()?;
        return if args.json {
            out::json(&document(&args.model, format, bytes, traced.model(), Some((&traced, &layers))))
        } else {
            out::print(&graph_text(&args.model, bytes, &traced, &layers))
        };
    }
    let bytes = files::bytes(&args.model)?;
    let model = files::read_arrays(&args.model, format, args.json)?;
    if args.json {
        return out::json(&document(&args.model, format, bytes, &model, None));
    }
    let mut text = head(&args.model, bytes, &model);
    text.push('\n');
    text.push_str(&table(&layer_lines(&model, &[], true), &[3]));
    out::print(&text)
}

fn head(path: &Path, bytes: u64, model: &Model<f32>) -> String {
    let (path, bytes, weights) = (path.display(), number(bytes), model.weights().count());
    let parameters = model.parameter_count();
    let zeros = parameters - model.nonzero_count();
    let zeros = if zeros * 100 > parameters {
        format!(", {} of them 0", number(zeros as u64))
    } else {
        String::new()
    };
    let parameters = number(parameters as u64);
    format!("{path}: {bytes} bytes\n{weights} weights, {parameters} parameters{zeros}\n")
}

fn graph_text(path: &Path, bytes: u64, traced: &Traced, layers: &[LayerInfo]) -> String {
    let model = traced.model();
    let macs: Option<u64> = layers.iter().map(|layer| layer.macs).sum();
    let macs = match macs.filter(|_| !layers.is_empty()) {
        Some(macs) => format!("{} multiplications for one sample\n", short(macs)),
        None => "multiplications are not known for all layers: --input NAME=SIZES may help\n".to_owned(),
    };
    let values = |what: &str, infos: Vec<ValueInfo>| {
        format!("{what} {}\n", infos.iter().map(value).collect::<Vec<_>>().join(", "))
    };
    let mut parts = vec![head(path, bytes, model), macs, passages_text(model)];
    parts.push(values("reads", traced.graph().inputs()));
    parts.push(values("gives", traced.graph().outputs()));
    let mut section = |title: &str, text: String| {
        if !text.is_empty() {
            parts.push(format!("\n{title}\n{text}"));
        }
    };
    section("Layers", table(&layer_lines(model, layers, false), &[3, 4]));
    section("Couplings: what shrinks together", table(&coupling_lines(model), &[1]));
    let block =
        |block: &Block| format!("  {}: {}\n", block.name(), block.names().collect::<Vec<_>>().join(", "));
    section("Blocks that can go whole", model.blocks().iter().map(block).collect());
    section("Held: units that stay", frozen_text(traced));
    parts.concat()
}

/// How many passages there are, if any.
fn passages_text(model: &Model<f32>) -> String {
    match model.passages() {
        [] => String::new(),
        all => {
            let units: usize = all.iter().map(Passage::size).sum();
            format!("scales can move through {} passages of {} units\n", all.len(), number(units as u64))
        }
    }
}

/// A line for each weight; with `all`, for each parameter.
fn layer_lines(model: &Model<f32>, layers: &[LayerInfo], all: bool) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for parameter in model.parameters().iter().filter(|p| all || p.kind().is_weight()) {
        let mut line = vec![
            parameter.name().to_owned(),
            kind(parameter),
            format!("{:?}", parameter.shape()),
            number(parameter.array().len() as u64),
        ];
        if let Some(layer) = layers.iter().find(|layer| layer.parameter == parameter.name()) {
            line.push(layer.macs.map_or_else(|| "?".to_owned(), |macs| format!("{} MACs", short(macs))));
        }
        lines.push(line);
    }
    lines
}

/// A line for each coupling: its size, the weights that are slots, and how many vectors go with them.
fn coupling_lines(model: &Model<f32>) -> Vec<Vec<String>> {
    let line = |coupling: &Coupling| {
        let (mut members, mut vectors) = (Vec::new(), 0);
        for slot in coupling.slots() {
            let Some(parameter) = model.find(slot.parameter()) else { continue };
            if !parameter.kind().is_weight() {
                vectors += 1;
                continue;
            }
            let axis = match slot.axis() {
                axis if axis == parameter.out_axis() => "out".to_owned(),
                axis if Some(axis) == parameter.in_axis() => "in".to_owned(),
                axis => format!("axis {axis}"),
            };
            let each = slot.positions(0).len();
            let each = if each > 1 { format!(" ×{each}") } else { String::new() };
            members.push(format!("{} {axis}{each}", slot.parameter()));
        }
        if vectors > 0 {
            members.push(format!("{vectors} more"));
        }
        vec![coupling.name().to_owned(), format!("{} units", coupling.size()), members.join(", ")]
    };
    model.couplings().iter().map(line).collect()
}

/// What holds units, by reason, and the weights whose they are.
fn frozen_text(traced: &Traced) -> String {
    let mut reasons: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for frozen in traced.frozen() {
        let weights = reasons.entry((frozen.operator.as_str(), frozen.why.as_str())).or_default();
        weights.push(format!("{} ({} at {})", frozen.parameter, frozen.units, frozen.node));
    }
    let line = |((operator, why), weights): (&(&str, &str), &Vec<String>)| {
        format!("  {operator}: {why}\n    {}\n", weights.join(", "))
    };
    reasons.iter().map(line).collect()
}

/// `x: f32 [batch, 3, 224, 224]`.
fn value(info: &ValueInfo) -> String {
    let dims = info.dims.as_ref().map(|dims| {
        let dim = |dim: &Dim| match dim {
            Dim::Fixed(len) => len.to_string(),
            Dim::Named(name) if !name.is_empty() => name.clone(),
            _ => "?".to_owned(),
        };
        format!(" [{}]", dims.iter().map(dim).collect::<Vec<_>>().join(", "))
    });
    format!("{}: {}{}", info.name, info.type_name(), dims.unwrap_or_default())
}

fn document(
    path: &Path,
    format: Format,
    bytes: u64,
    model: &Model<f32>,
    graph: Option<(&Traced, &[LayerInfo])>,
) -> Value {
    let layers = graph.map_or(&[][..], |(_, layers)| layers);
    let layer = |name: &str| layers.iter().find(|layer| layer.parameter == name);
    let parameters: Vec<Value> = model
        .parameters()
        .iter()
        .map(|p| {
            let layer = layer(p.name());
            json!({
                "name": p.name(),
                "kind": kind(p),
                "weight": p.kind().is_weight(),
                "shape": p.shape(),
                "parameters": p.array().len(),
                "macs": layer.and_then(|layer| layer.macs),
                "operator": layer.map(|layer| &layer.operator),
                "node": layer.map(|layer| &layer.node),
            })
        })
        .collect();
    let couplings: Vec<Value> = model
        .couplings()
        .iter()
        .map(|coupling| {
            let slots = coupling.slots().iter().map(|slot| {
                let each = slot.positions(0).len();
                json!({"parameter": slot.parameter(), "axis": slot.axis(), "positions_per_unit": each})
            });
            json!({"name": coupling.name(), "units": coupling.size(), "slots": slots.collect::<Vec<_>>()})
        })
        .collect();
    let passage = |passage: &Passage| {
        let names =
            |slots: &[CoupledSlot]| slots.iter().map(|s| s.parameter().to_owned()).collect::<Vec<_>>();
        let (makers, readers) = (names(passage.makers()), names(passage.readers()));
        json!({"name": passage.name(), "units": passage.size(), "makers": makers, "readers": readers})
    };
    let passages: Vec<Value> = model.passages().iter().map(passage).collect();
    let blocks: Vec<Value> = model
        .blocks()
        .iter()
        .map(|block| json!({"name": block.name(), "parameters": block.names().collect::<Vec<_>>()}))
        .collect();
    let values = |infos: Vec<ValueInfo>| -> Vec<Value> { infos.iter().map(value_json).collect() };
    let frozen = |traced: &Traced| -> Vec<Value> {
        traced.frozen().iter().map(|f| {
            json!({"parameter": f.parameter, "units": f.units, "operator": f.operator, "node": f.node, "why": f.why})
        }).collect()
    };
    let macs: Option<u64> = layers.iter().map(|layer| layer.macs).sum();
    json!({
        "niwaki": env!("CARGO_PKG_VERSION"),
        "model": path.display().to_string(),
        "format": format.name(),
        "bytes": bytes,
        "parameters": model.parameter_count(),
        "nonzero": model.nonzero_count(),
        "macs": macs.filter(|_| !layers.is_empty()),
        "inputs": graph.map(|(traced, _)| values(traced.graph().inputs())),
        "outputs": graph.map(|(traced, _)| values(traced.graph().outputs())),
        "layers": parameters,
        "couplings": couplings,
        "passages": passages,
        "blocks": blocks,
        "frozen": graph.map(|(traced, _)| frozen(traced)),
    })
}

fn value_json(info: &ValueInfo) -> Value {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(len) => json!(len),
        Dim::Named(name) => json!(name),
        _ => Value::Null,
    };
    let dims = info.dims.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>());
    json!({"name": info.name, "type": info.type_name(), "dims": dims})
}
