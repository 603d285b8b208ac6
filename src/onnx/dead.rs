//! What nothing needs any more.

use std::collections::HashSet;

use crate::Result;
use crate::onnx::Graph;
use crate::onnx::draft;
use crate::onnx::proto::GraphProto;
use crate::onnx::view::{GraphPath, Node, Source, Tensor, TensorId, View};

/// Removes nodes and initializers that nothing needs, except those that nothing needed before.
pub(super) fn remove(before: &View<'_>, mut graph: Graph) -> Result<Graph> {
    let (paths, gone): (Vec<GraphPath>, Vec<Gone>) = {
        let after = graph.view()?;
        let (old, new) = (Idle::of(before), keys(&after));
        let mut gone = unneeded(&after, &new, &old);
        for (number, gone) in gone.iter_mut().enumerate() {
            if let Some(was) = old.keys.iter().position(|key| *key == new[number]) {
                gone.find_names(after.graphs[number].proto, before.tensors.iter().filter(|t| t.graph == was));
            }
        }
        (after.graphs.iter().map(|g| g.path.clone()).collect(), gone)
    };
    // Inner graphs first: their places are those of before.
    for (path, gone) in paths.iter().zip(&gone).rev() {
        if let Some(graph) = draft::walk(&mut graph.model, path) {
            gone.remove(graph);
        }
    }
    Ok(graph)
}

/// What nothing needed before, by the names of its graph and its own.
struct Idle {
    keys: Vec<String>,
    nodes: HashSet<(String, String)>,
    tensors: HashSet<(String, String)>,
}

impl Idle {
    fn of(view: &View<'_>) -> Self {
        let (alive, keys) = (Alive::new(view, |_| false), keys(view));
        let nodes = view.nodes.iter().zip(&alive.nodes).filter(|(_, alive)| !**alive);
        let tensors = view.tensors.iter().zip(&alive.tensors).filter(|(_, alive)| !**alive);
        Self {
            nodes: nodes.map(|(node, _)| key_of(node, &keys)).collect(),
            tensors: tensors.map(|(t, _)| (keys[t.graph].clone(), t.name.to_owned())).collect(),
            keys,
        }
    }
}

/// A node by names: those of its graph and of what it gives.
fn key_of(node: &Node<'_>, keys: &[String]) -> (String, String) {
    let output = node.proto.output.iter().find(|output| !output.is_empty());
    (keys[node.graph].clone(), output.cloned().unwrap_or_default())
}

/// Nodes and initializers of each graph that nothing needs, but something did.
fn unneeded(view: &View<'_>, keys: &[String], old: &Idle) -> Vec<Gone> {
    let alive = Alive::new(view, |node| old.nodes.contains(&key_of(&view.nodes[node], keys)));
    let mut gone: Vec<Gone> = view.graphs.iter().map(|_| Gone::default()).collect();
    for (node, _) in view.nodes.iter().zip(&alive.nodes).filter(|(_, alive)| !**alive) {
        gone[node.graph].nodes.insert(node.at);
    }
    for (tensor, _) in view.tensors.iter().zip(&alive.tensors).filter(|(_, alive)| !**alive) {
        let Source::Initializer(at, _) = tensor.source else { continue };
        if !old.tensors.contains(&(keys[tensor.graph].clone(), tensor.name.to_owned())) {
            gone[tensor.graph].initializers.insert(at);
            gone[tensor.graph].inputs.insert(tensor.name.to_owned());
        }
    }
    gone
}

/// The place of each graph by names, which stay the same when nodes before it go.
pub(super) fn keys(view: &View<'_>) -> Vec<String> {
    let mut keys = vec![String::new(); view.graphs.len()];
    // Owners come after what is in their bodies, and bodies have higher numbers than the graphs they are in.
    for node in view.nodes.iter().rev() {
        for (place, (attribute, body)) in node.bodies.iter().enumerate() {
            let owner = node.proto.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
            keys[*body] = format!("{}/{owner}:{attribute}.{place}", keys[node.graph]);
        }
    }
    keys
}

#[derive(Default)]
struct Gone {
    nodes: HashSet<usize>,
    initializers: HashSet<usize>,
    inputs: HashSet<String>,
    names: HashSet<String>,
}

impl Gone {
    /// Tensors that were in the graph and are not any more: their stated shapes and annotations go.
    fn find_names<'v>(&mut self, graph: &GraphProto, before: impl Iterator<Item = &'v Tensor<'v>>) {
        let nodes = graph.node.iter().enumerate().filter(|(at, _)| !self.nodes.contains(at));
        let stays: HashSet<&str> =
            nodes.flat_map(|(_, node)| node.output.iter().map(String::as_str)).collect();
        for tensor in before {
            let stays = match tensor.source {
                Source::Input => true,
                Source::Initializer(..) if !self.inputs.contains(tensor.name) => true,
                _ => stays.contains(tensor.name),
            };
            if !stays {
                self.names.insert(tensor.name.to_owned());
            }
        }
    }

    fn remove(&self, graph: &mut GraphProto) {
        let keep = |gone: &HashSet<usize>| {
            let gone = gone.clone();
            let mut at = 0;
            move || {
                at += 1;
                !gone.contains(&(at - 1))
            }
        };
        let mut node = keep(&self.nodes);
        graph.node.retain(|_| node());
        let mut initializer = keep(&self.initializers);
        graph.initializer.retain(|_| initializer());
        graph.input.retain(|i| !i.name.as_deref().is_some_and(|name| self.inputs.contains(name)));
        graph.value_info.retain(|i| !i.name.as_deref().is_some_and(|name| self.names.contains(name)));
        graph
            .quantization_annotation
            .retain(|a| !a.tensor_name.as_deref().is_some_and(|name| self.names.contains(name)));
    }
}

/// What is needed for the main graph's outputs, and for nodes that are kept for other reasons.
struct Alive {
    nodes: Vec<bool>,
    tensors: Vec<bool>,
}

impl Alive {
    fn new(view: &View<'_>, also: impl Fn(usize) -> bool) -> Self {
        let mut alive =
            Self { nodes: vec![false; view.nodes.len()], tensors: vec![false; view.tensors.len()] };
        let mut next: Vec<TensorId> = view.graphs[0].outputs.iter().flatten().copied().collect();
        let mut nodes: Vec<usize> =
            // One that gives nothing is there for what it does.
            (0..view.nodes.len()).filter(|&n| view.nodes[n].outputs.iter().all(Option::is_none) || also(n)).collect();
        loop {
            if let Some(tensor) = next.pop() {
                if !std::mem::replace(&mut alive.tensors[tensor], true) {
                    nodes.extend(view.producer(tensor));
                }
            } else if let Some(node) = nodes.pop() {
                if !std::mem::replace(&mut alive.nodes[node], true) {
                    next.extend(view.nodes[node].inputs.iter().flatten());
                    for (_, body) in &view.nodes[node].bodies {
                        next.extend(view.graphs[*body].outputs.iter().flatten());
                    }
                }
            } else {
                return alive;
            }
        }
    }
}
