//! Which nodes use a parameter, and what a node of the pruned graph reads.

use std::collections::HashMap;

use crate::Model;
use crate::onnx::run::runner::Runner;
use crate::onnx::trace::{Branch, Traced};
use crate::onnx::view::{TensorId, View};

/// Looks things up in a traced graph.
pub(crate) struct Uses<'v> {
    traced: &'v Traced,
    view: &'v View<'v>,
    /// how many nodes read a parameter
    readers: HashMap<&'v str, usize>,
}

impl<'v> Uses<'v> {
    pub(crate) fn new(traced: &'v Traced, view: &'v View<'v>) -> Self {
        let origins = traced.model.parameters().iter().zip(&traced.origins);
        let mut readers: HashMap<&str, usize> =
            origins.map(|(p, origin)| (p.name(), view.tensors[origin.tensor].readers.len())).collect();
        // One node may run a parameter as several layers.
        for layer in &traced.layers {
            let same = traced.layers.iter().filter(|other| other.parameter == layer.parameter).count();
            if let Some(readers) = readers.get_mut(layer.parameter.as_str()) {
                *readers = (*readers).max(same);
            }
        }
        Self { traced, view, readers }
    }

    /// The traced graph.
    pub(crate) fn view(&self) -> &'v View<'v> {
        self.view
    }

    /// The residual branches.
    pub(crate) fn branches(&self) -> &'v [Branch] {
        &self.traced.branches
    }

    /// The traced model.
    pub(crate) fn model(&self) -> &'v Model<f32> {
        &self.traced.model
    }

    /// The name of a tensor.
    pub(crate) fn name(&self, tensor: TensorId) -> &'v str {
        self.view.tensors[tensor].name
    }

    /// Whether only one node reads a parameter.
    pub(crate) fn once(&self, parameter: &str) -> bool {
        self.readers.get(parameter) == Some(&1)
    }

    /// Whether a tensor of the traced graph can be asked for.
    pub(crate) fn runs(&self, runner: &Runner, tensor: TensorId) -> bool {
        self.view.tensors[tensor].graph == 0 && runner.has(self.name(tensor))
    }

    /// What a node of the pruned graph reads in the place where the traced one reads `tensor`; `None` when the node
    /// is gone.
    pub(crate) fn input_now(&self, node: usize, tensor: TensorId, now: &View<'_>) -> Option<String> {
        let node = &self.view.nodes[node];
        let answer = node.outputs.iter().flatten().next().map(|&t| self.name(t))?;
        let found = now.nodes.iter().find(|n| n.graph == 0 && n.proto.output.iter().any(|o| o == answer))?;
        let place = node.inputs.iter().position(|&input| input == Some(tensor));
        match place {
            Some(place) => found.inputs.get(place).copied().flatten().map(|t| now.tensors[t].name.to_owned()),
            None => now
                .tensors
                .iter()
                .find(|t| t.graph == 0 && t.name == self.name(tensor))
                .map(|t| t.name.to_owned()),
        }
    }
}
