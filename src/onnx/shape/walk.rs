//! One pass over all nodes.

use std::collections::HashMap;

use crate::onnx::graph::{Dim, ValueInfo};
use crate::onnx::view::{TensorId, View};

use super::lengths::Assumed;
use super::ops::{Known, Miss, Op, Outputs, branch, repeat};
use super::{Shapes, Value, arithmetic, fitting, moves, ops};

/// How often bodies of loops are walked again before they are given up.
const MOST_AGAIN: usize = 64;

/// What every run needs to know of a view.
#[derive(Debug)]
pub(super) struct Plan {
    /// what the file says of a tensor's shape
    declared: HashMap<TensorId, Vec<Dim>>,
    /// owners of the bodies that begin at a node, outer ones first
    opens: HashMap<usize, Vec<usize>>,
}

impl Plan {
    pub(super) fn new(view: &View<'_>) -> Self {
        Self { declared: declared(view), opens: opens(view) }
    }
}

/// The shapes, and whether some node's inputs do not fit each other.
pub(super) fn run(view: &View<'_>, plan: &Plan, mut assumed: Assumed, mut start: Shapes) -> (Shapes, bool) {
    for (&id, dims) in view.inputs().iter().zip(std::mem::take(&mut assumed.inputs)) {
        start.dims[id] = dims;
    }
    let changes = vec![false; view.tensors.len()];
    let broken = vec![false; view.nodes.len()];
    let mut walk = Walk { view, plan, assumed, shapes: start, changes, broken, again: 0 };
    walk.span(0, view.nodes.len());
    (walk.shapes, walk.broken.contains(&true))
}

struct Walk<'v, 'g> {
    view: &'v View<'g>,
    plan: &'v Plan,
    assumed: Assumed,
    shapes: Shapes,
    /// inputs of loop bodies whose shape differs from one pass to the next
    changes: Vec<bool>,
    /// nodes whose inputs do not fit each other
    broken: Vec<bool>,
    again: usize,
}

impl Walk<'_, '_> {
    fn span(&mut self, from: usize, to: usize) {
        for at in from..to {
            for owner in self.plan.opens.get(&at).cloned().unwrap_or_default() {
                self.seed(owner);
            }
            self.node(at);
        }
    }

    fn node(&mut self, at: usize) {
        let view = self.view;
        let node = &view.nodes[at];
        let mut outputs = match (node.proto.operator().as_str(), node.bodies.as_slice()) {
            ("If", _) => self.branch(at),
            ("Loop" | "Scan", &[(_, body)]) => {
                if self.settle(at, body) {
                    self.span(first(view, at), at);
                }
                self.looped(at, body)
            }
            _ => self.plain(at),
        };
        outputs.resize(node.outputs.len(), None);
        for (id, dims) in node.outputs.iter().zip(outputs) {
            let Some(id) = *id else { continue };
            let declared = || self.assumed.declared(self.plan.declared.get(&id)?);
            let dims = dims.or_else(declared).and_then(fitting);
            if let (Some(value), Some(dims)) = (&self.shapes.values[id], &dims)
                && value.dims != *dims
            {
                self.shapes.values[id] = None;
            }
            self.shapes.dims[id] = dims;
        }
    }

    fn known(&self, id: Option<TensorId>) -> Option<Known<'_>> {
        let id = id?;
        let dims = self.shapes.dims[id].as_deref();
        Some(Known { id, dims, value: self.shapes.values[id].as_ref() })
    }

    fn plain(&mut self, at: usize) -> Outputs {
        let view = self.view;
        let node = &view.nodes[at];
        if let [Some(id)] = node.outputs[..]
            && view.constant(id).is_some()
        {
            return vec![self.shapes.dims[id].take()];
        }
        let inputs = node.inputs.iter().map(|&id| self.known(id)).collect();
        let id = node.outputs.first().copied().flatten();
        let op = Op { node: node.proto, opset: view.opset, id, inputs, outputs: node.outputs.len() };
        let found = ops::infer(&op);
        let broken = matches!(found, Err(Miss::Wrong));
        let mut dims = found.unwrap_or_default();
        dims.resize(node.outputs.len(), None);
        let mut values = evaluate(&op, &dims);
        values.resize(node.outputs.len(), None);
        self.broken[at] = broken;
        for (at, (id, value)) in node.outputs.iter().zip(values).enumerate() {
            let Some(id) = *id else { continue };
            if let (None, Some(value)) = (&dims[at], &value) {
                dims[at] = Some(value.dims.clone());
            }
            self.shapes.values[id] = value;
        }
        dims
    }

    /// Shapes of what both branches give, or the one that runs.
    fn branch(&mut self, at: usize) -> Outputs {
        let view = self.view;
        let node = &view.nodes[at];
        let condition = self.known(node.inputs.first().copied().flatten());
        let condition = condition.and_then(|known| known.value).and_then(Value::scalar);
        let sides: Vec<Vec<_>> = branch::sides(node, condition)
            .map(|body| view.graphs[body].outputs.iter().map(|&id| self.known(id)).collect())
            .collect();
        let (dims, values) = branch::agree(&sides, node.outputs.len());
        for (id, value) in node.outputs.iter().zip(values) {
            if let Some(id) = *id {
                self.shapes.values[id] = value;
            }
        }
        dims
    }

    /// What the inputs of an owner's bodies are.
    fn seed(&mut self, owner: usize) {
        let view = self.view;
        let node = &view.nodes[owner];
        for &(_, body) in &node.bodies {
            let inputs: Vec<_> = node.inputs.iter().map(|&id| self.known(id)).collect();
            let count = view.graphs[body].inputs.len();
            let mut dims = repeat::seeds(node.proto, &inputs, count, view.opset);
            dims.resize(count, None);
            for (at, (&id, dims)) in view.graphs[body].inputs.iter().zip(dims).enumerate() {
                // How often a loop ran and whether it goes on.
                let scalar = || (node.proto.op_type() == "Loop" && at < 2).then(Vec::new);
                let declared = || self.assumed.declared(self.plan.declared.get(&id)?);
                self.shapes.dims[id] = if self.changes[id] {
                    None
                } else {
                    dims.or_else(declared).or_else(scalar).and_then(fitting)
                };
            }
        }
    }

    /// Whether what a loop carries has another shape after the body than before it, and the body must be walked
    /// again without it.
    fn settle(&mut self, at: usize, body: usize) -> bool {
        let view = self.view;
        let (node, body) = (&view.nodes[at], &view.graphs[body]);
        let given_up = self.again >= MOST_AGAIN;
        let mut found = false;
        for (inside, after) in repeat::carried(node.proto, body.inputs.len(), body.outputs.len()) {
            let (id, after) = (body.inputs[inside], body.outputs[after]);
            let same = after.is_some_and(|after| self.shapes.dims[after] == self.shapes.dims[id]);
            if self.shapes.dims[id].is_some() && (given_up || !same) {
                self.changes[id] = true;
                self.shapes.dims[id] = None;
                found = true;
            }
        }
        self.again += usize::from(found);
        found
    }

    fn looped(&self, at: usize, body: usize) -> Outputs {
        let (node, body) = (&self.view.nodes[at], &self.view.graphs[body]);
        let inputs: Vec<_> = node.inputs.iter().map(|&id| self.known(id)).collect();
        let inside: Vec<_> = body.inputs.iter().map(|&id| self.known(Some(id))).collect();
        let after: Vec<_> = body.outputs.iter().map(|&id| self.known(id)).collect();
        repeat::outputs(node.proto, &inputs, &inside, &after)
    }
}

/// Numbers of small outputs, where they can be told.
fn evaluate(op: &Op<'_>, dims: &Outputs) -> Vec<Option<Value>> {
    moves::evaluate(op, dims).unwrap_or_else(|| vec![arithmetic::evaluate(op)])
}

/// The first node of an owner's bodies.
fn first(view: &View<'_>, owner: usize) -> usize {
    let Some(&(_, body)) = view.nodes[owner].bodies.first() else { return owner };
    let outside = view.nodes[..owner].iter().rposition(|node| node.graph < body);
    outside.map_or(0, |at| at + 1)
}

fn opens(view: &View<'_>) -> HashMap<usize, Vec<usize>> {
    let mut opens: HashMap<usize, Vec<usize>> = HashMap::new();
    let owners = view.nodes.iter().enumerate().filter(|(_, node)| !node.bodies.is_empty());
    for (owner, _) in owners {
        opens.entry(first(view, owner)).or_default().push(owner);
    }
    // Inner owners stand before outer ones.
    for owners in opens.values_mut() {
        owners.reverse();
    }
    opens
}

fn declared(view: &View<'_>) -> HashMap<TensorId, Vec<Dim>> {
    let places = view.tensors.iter().enumerate().map(|(id, tensor)| ((tensor.graph, tensor.name), id));
    let ids: HashMap<(usize, &str), TensorId> = places.collect();
    let mut declared = HashMap::new();
    for (graph, body) in view.graphs.iter().enumerate() {
        for proto in body.proto.value_info.iter().chain(&body.proto.output).chain(&body.proto.input) {
            let info = ValueInfo::of(proto);
            let id = ids.get(&(graph, info.name.as_str()));
            if let (Some(&id), Some(dims)) = (id, info.dims) {
                declared.insert(id, dims);
            }
        }
    }
    declared
}
