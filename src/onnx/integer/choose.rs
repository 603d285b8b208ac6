//! Which tensors get codes.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::onnx::file;
use crate::onnx::integer::FloatLayer;
use crate::onnx::proto::dtype;
use crate::onnx::view::{Node, Source, TensorId, View};

/// Operators that compute in integers with weights in codes.
const WEIGHTED: [&str; 3] = ["Conv", "Gemm", "MatMul"];
/// Operators that have weights, of which a report says why they stay in floats.
const LAYERS: [&str; 7] = ["Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"];
/// Operators whose answers are numbers that they read: codes pass through.
const PASSING: [&str; 10] = [
    "MaxPool",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Slice",
    "Split",
    "Gather",
    "Identity",
];
/// Operators that runtimes have in integers, worth it where what they read and answer has codes anyway.
const FOLLOWING: [&str; 6] = ["Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu"];
/// Operators that cut a range, which codes do by themselves.
const CUTTING: [&str; 2] = ["Relu", "Clip"];

/// A node that computes in integers.
#[derive(Debug)]
pub(super) struct Weighted {
    pub(super) node: usize,
    pub(super) input: TensorId,
    pub(super) parts: Parts,
    /// of the weight: one for all, or one for each channel
    pub(super) scales: Vec<f32>,
    /// values of the bias
    pub(super) bias: Option<(TensorId, Vec<f32>)>,
}

/// Where the codes of a weight are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// the `DequantizeLinear`
    pub(super) node: usize,
    pub(super) codes: TensorId,
    pub(super) scales: TensorId,
    pub(super) zero: Option<TensorId>,
}

/// What gets codes.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) weighted: Vec<Weighted>,
    /// tensors, in the order in which they are made
    pub(super) tensors: Vec<TensorId>,
    /// tensors whose codes are those of another one
    pub(super) roots: HashMap<TensorId, TensorId>,
    /// nodes that read an input of the graph in codes
    pub(super) readers: HashSet<usize>,
    /// nodes that stay in floats
    pub(super) left: Vec<FloatLayer>,
}

impl Choice {
    pub(super) fn root(&self, tensor: TensorId) -> TensorId {
        self.roots.get(&tensor).copied().unwrap_or(tensor)
    }
}

/// Chooses for a graph whose weights have codes already; `refused` are nodes that stay in floats, and why.
pub(super) fn choose(view: &View<'_>, refused: &HashMap<usize, String>, folder: Option<&Path>) -> Choice {
    let (mut choice, fixed) = (Choice::default(), fixed(view));
    for (at, node) in view.nodes.iter().enumerate() {
        let operator = node.proto.operator();
        // A product of two activations has no weight.
        let weighs = node.inputs.iter().flatten().any(|&id| fixed[id]);
        if !LAYERS.contains(&operator.as_str()) || !weighs {
            continue;
        }
        let found = match refused.get(&at) {
            Some(why) => Err(why.clone()),
            None => weighted(view, at, folder).map_err(str::to_owned),
        };
        match found {
            Ok(weighted) => choice.weighted.push(weighted),
            Err(why) => choice.left.push(FloatLayer { node: node.proto.title().to_owned(), operator, why }),
        }
    }
    let mut walk = Walk { view, coded: HashSet::new(), through: HashSet::new() };
    walk.ends(&choice.weighted);
    walk.between();
    choice.readers.extend(choice.weighted.iter().map(|weighted| weighted.node));
    for (at, node) in view.nodes.iter().enumerate() {
        let passes = PASSING.contains(&node.proto.operator().as_str());
        let coded = |id: &Option<TensorId>| id.is_some_and(|id| walk.coded.contains(&id));
        if !(passes || FOLLOWING.contains(&node.proto.operator().as_str())) || !node.outputs.iter().any(coded)
        {
            continue;
        }
        choice.readers.insert(at);
        let Some(input) =
            node.inputs.first().copied().flatten().filter(|id| passes && walk.coded.contains(id))
        else {
            continue;
        };
        for &output in node.outputs.iter().flatten().filter(|id| walk.coded.contains(id)) {
            choice.roots.insert(output, choice.root(input));
        }
    }
    choice.tensors = walk.coded.into_iter().collect();
    choice.tensors.sort_unstable();
    choice
}

/// A node that can compute in integers, or why it cannot.
fn weighted(view: &View<'_>, at: usize, folder: Option<&Path>) -> Result<Weighted, &'static str> {
    let node = &view.nodes[at];
    let operator = node.proto.operator();
    if node.graph != 0 {
        return Err("it is in a subgraph");
    }
    if !WEIGHTED.contains(&operator.as_str()) {
        return Err("it has no form in integers");
    }
    let [Some(input), Some(weight), ..] = node.inputs[..] else { return Err("an input is left out") };
    let axis = match operator.as_str() {
        "Conv" => 0,
        "Gemm" => 1 - node.proto.int("transB").unwrap_or(0),
        _ => 1,
    };
    let (parts, scales) = coded(view, weight, axis, folder)?;
    if operator != "Conv" && view.constant(parts.codes).is_none_or(|codes| codes.dims.len() != 2) {
        return Err("its weight is no matrix");
    }
    if !is_activation(view, input) {
        return Err("what it reads is a constant");
    }
    let plain = |name: &str| node.proto.float(name).is_none_or(|x| x.total_cmp(&1.0).is_eq());
    if operator == "Gemm" && (!plain("alpha") || !plain("beta") || node.proto.int("transA").unwrap_or(0) != 0)
    {
        return Err("alpha and beta are not 1, or its input is transposed");
    }
    let bias = match node.inputs.get(2).copied().flatten() {
        None => None,
        Some(id) => {
            let values = view.constant(id).and_then(|proto| file::floats(proto, folder).ok());
            let values = values.ok_or("its bias is no constant of floats")?;
            Some((id, values.into_iter().collect::<Vec<f32>>()))
        }
    };
    if let Some((_, bias)) = &bias
        && scales.len() != 1
        && bias.len() != scales.len()
    {
        return Err("its bias is not one number for each channel");
    }
    Ok(Weighted { node: at, input, parts, scales, bias })
}

/// A weight in codes of 8 bits, and its scales: one for all, or one for each unit along this axis.
fn coded(
    view: &View<'_>,
    weight: TensorId,
    axis: i64,
    folder: Option<&Path>,
) -> Result<(Parts, Vec<f32>), &'static str> {
    let why = "its weight has no codes of 8 bits with a scale for each channel or one for all";
    let at = view.producer(weight).ok_or(why)?;
    let node = &view.nodes[at];
    let [Some(codes), Some(scales), ..] = node.inputs[..] else { return Err(why) };
    let zero = node.inputs.get(2).copied().flatten();
    let parts = Parts { node: at, codes, scales, zero };
    if node.proto.operator() != "DequantizeLinear"
        || node.proto.int("block_size").unwrap_or(0) != 0
        || zero.is_some_and(|zero| view.constant(zero).is_none())
    {
        return Err(why);
    }
    let proto =
        view.constant(codes).filter(|proto| matches!(proto.data_type, Some(dtype::INT8 | dtype::UINT8)));
    let rank = proto.ok_or(why)?.dims.len() as i64;
    let scales = view.constant(scales).filter(|proto| proto.data_type == Some(dtype::FLOAT));
    let scales = scales.and_then(|proto| file::floats(proto, folder).ok()).ok_or(why)?;
    let own = node.proto.int("axis").unwrap_or(1);
    if scales.is_empty() || scales.len() != 1 && own != axis && own + rank != axis {
        return Err(why);
    }
    Ok((parts, scales.into_iter().collect()))
}

/// Which tensors are made of constants alone.
fn fixed(view: &View<'_>) -> Vec<bool> {
    let constant = |id: TensorId| matches!(view.tensors[id].source, Source::Initializer(..));
    let mut fixed: Vec<bool> = (0..view.tensors.len()).map(constant).collect();
    for node in view.nodes.iter().filter(|node| node.bodies.is_empty()) {
        if node.inputs.iter().flatten().all(|&id| fixed[id]) {
            node.outputs.iter().flatten().for_each(|&id| fixed[id] = true);
        }
    }
    fixed
}

/// Whether a tensor of the main graph changes from run to run.
fn is_activation(view: &View<'_>, tensor: TensorId) -> bool {
    view.tensors[tensor].graph == 0
        && match view.tensors[tensor].source {
            Source::Input => true,
            Source::Initializer(..) => false,
            Source::Node(_) => view.constant(tensor).is_none(),
        }
}

struct Walk<'v, 'g> {
    view: &'v View<'g>,
    /// tensors that get codes
    coded: HashSet<TensorId>,
    /// tensors between a node and what cuts its range: the codes come behind that
    through: HashSet<TensorId>,
}

impl Walk<'_, '_> {
    /// What weighted nodes read; what convolutions answer, which they can only do in integers.
    fn ends(&mut self, weighted: &[Weighted]) {
        for Weighted { node, input, .. } in weighted {
            self.coded.insert(*input);
            let node = &self.view.nodes[*node];
            if let ("Conv", &[Some(output)]) = (node.proto.op_type(), &node.outputs[..]) {
                let cut = self.cut(output);
                if cut != output {
                    self.through.insert(output);
                }
                self.coded.insert(cut);
            }
        }
    }

    /// What the only reader makes of a tensor by cutting its range; else the tensor.
    fn cut(&self, tensor: TensorId) -> TensorId {
        let reader = self.view.only_reader(tensor).map(|reader| &self.view.nodes[reader]);
        match reader.filter(|node| node.graph == 0 && cuts(self.view, node)).map(|node| &node.outputs[..]) {
            Some(&[Some(output)]) => output,
            _ => tensor,
        }
    }

    /// What lies between coded tensors and can have codes.
    fn between(&mut self) {
        let view = self.view;
        // Forward: what could have codes because all that it is made of could.
        let mut could = self.coded.clone();
        could.extend(&self.through);
        for node in view.nodes.iter().filter(|node| carries(view, node)) {
            if !node.outputs.is_empty() && activations(view, node).all(|id| could.contains(&id)) {
                could.extend(node.outputs.iter().flatten());
            }
        }
        // Backward: what is of use because all that is made of it has codes.
        for node in view.nodes.iter().rev().filter(|node| carries(view, node)) {
            let wanted = |id: &Option<TensorId>| {
                id.is_some_and(|id| self.coded.contains(&id) || self.through.contains(&id))
            };
            if !node.outputs.iter().any(wanted) || !activations(view, node).all(|id| could.contains(&id)) {
                continue;
            }
            let reads: Vec<TensorId> = activations(view, node).collect();
            for id in reads {
                if cuts(view, node) && self.cut(id) != id {
                    self.through.insert(id);
                } else {
                    self.coded.insert(id);
                }
            }
        }
    }
}

/// Whether codes can go through a node of the main graph.
fn carries(view: &View<'_>, node: &Node<'_>) -> bool {
    let operator = node.proto.operator();
    let known =
        PASSING.contains(&operator.as_str()) || FOLLOWING.contains(&operator.as_str()) || cuts(view, node);
    // Of a constant that is added to codes there are no codes.
    let whole = !matches!(operator.as_str(), "Add" | "Mul" | "Concat")
        || node.inputs.iter().flatten().all(|&id| is_activation(view, id));
    // Places of the largest are no numbers that were read.
    let single = operator != "MaxPool" || node.outputs.iter().flatten().count() == 1;
    node.graph == 0 && known && whole && single
}

/// Whether a node only cuts the range of what it reads.
fn cuts(view: &View<'_>, node: &Node<'_>) -> bool {
    let bounds = node.inputs.iter().skip(1).flatten();
    CUTTING.contains(&node.proto.operator().as_str()) && bounds.clone().all(|&id| view.constant(id).is_some())
}

/// What a node reads that is neither constant nor a shape or an index.
fn activations<'a>(view: &'a View<'_>, node: &'a Node<'_>) -> impl Iterator<Item = TensorId> + 'a {
    let first = !matches!(node.proto.op_type(), "Add" | "Mul" | "Concat");
    let inputs = node.inputs.iter().flatten().copied().take(if first { 1 } else { usize::MAX });
    inputs.filter(|&id| is_activation(view, id))
}
