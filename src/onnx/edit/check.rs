//! No wrong graph is given: what is inferred of the new one must be what the edit set out to make.

use std::collections::{HashMap, HashSet};

use crate::onnx::Graph;
use crate::onnx::dead;
use crate::onnx::edit::Edit;
use crate::onnx::shape;
use crate::onnx::view::{TensorId, View};
use crate::{Error, Result};

/// A tensor or node by names: those of its graph and its own.
type Key = (String, String);

/// What must be true of the new graph.
pub(super) struct Wanted {
    shapes: HashMap<Key, Vec<usize>>,
    /// numbers that an input of a node holds
    numbers: Vec<(Key, usize, Vec<Option<i64>>)>,
}

impl Wanted {
    pub(super) fn new(edit: &Edit<'_>) -> Self {
        let view = edit.view;
        let keys = dead::keys(view);
        let loose = made_of(view, &edit.gathered);
        let known = (0..view.tensors.len()).filter(|tensor| !loose.contains(tensor));
        let shapes = known.filter_map(|tensor| {
            let of = &view.tensors[tensor];
            Some(((keys[of.graph].clone(), of.name.to_owned()), edit.dims_after(tensor)?))
        });
        let key = |node: usize| {
            let node = &view.nodes[node];
            let output = node.outputs.iter().flatten().next();
            (keys[node.graph].clone(), output.map_or("", |&o| view.tensors[o].name).to_owned())
        };
        let numbers = edit.promises.iter().map(|p| (key(p.node), p.input, p.numbers.clone()));
        Self { shapes: shapes.collect(), numbers: numbers.collect() }
    }

    /// # Errors
    /// A shape, or a size that a node reads, is another one.
    pub(super) fn check(&self, graph: &Graph, inputs: &HashMap<String, Vec<usize>>) -> Result<()> {
        let view = graph.view()?;
        let shapes = shape::infer(&view, inputs)?;
        let keys = dead::keys(&view);
        let operator = |tensor: TensorId| {
            let producer = view.producer(tensor).map(|node| view.nodes[node].proto.operator());
            producer.unwrap_or_else(|| "no node".to_owned())
        };
        for (id, tensor) in view.tensors.iter().enumerate() {
            let Some(wanted) = self.shapes.get(&(keys[tensor.graph].clone(), tensor.name.to_owned())) else {
                continue;
            };
            let has = shapes.dims[id].as_ref();
            if has != Some(wanted) {
                let (name, from) = (tensor.name, operator(id));
                let has = has.map_or("unknown".to_owned(), |has| format!("{has:?}"));
                return Err(Error::unsupported(format!(
                    "tensor `{name}`, from {from}: its shape would be {has} where {wanted:?} is meant"
                )));
            }
        }
        let of: HashMap<(&str, &str), usize> = view
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(at, n)| {
                let output = n.outputs.iter().flatten().next()?;
                Some(((keys[n.graph].as_str(), view.tensors[*output].name), at))
            })
            .collect();
        for ((graph, output), input, numbers) in &self.numbers {
            let Some(&node) = of.get(&(graph.as_str(), output.as_str())) else { continue };
            let tensor = view.nodes[node].inputs.get(*input).copied().flatten();
            let Some(value) = tensor.and_then(|tensor| shapes.values[tensor].as_ref()) else { continue };
            let same =
                numbers.iter().zip(&value.elements).all(|(n, e)| n.is_none_or(|n| n == e.number as i64));
            if !same {
                let proto = view.nodes[node].proto;
                let has: Vec<f64> = value.elements.iter().map(|e| e.number).collect();
                return Err(Error::unsupported(format!(
                    "node `{}` ({}): it would read the sizes {has:?}, which are computed, where {numbers:?} are meant",
                    proto.title(),
                    proto.operator()
                )));
            }
        }
        Ok(())
    }
}

/// Tensors made of these and of other constants alone.
fn made_of(view: &View<'_>, weights: &HashSet<TensorId>) -> HashSet<TensorId> {
    let mut made = HashSet::new();
    if weights.is_empty() {
        return made;
    }
    for node in &view.nodes {
        let mut inputs = node.inputs.iter().flatten();
        let constant = |t: &TensorId| weights.contains(t) || made.contains(t) || view.constant(*t).is_some();
        if inputs.clone().all(constant) && inputs.any(|t| weights.contains(t) || made.contains(t)) {
            made.extend(node.outputs.iter().flatten());
        }
    }
    made
}
