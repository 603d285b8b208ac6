//! Residual branches: x + f(x), where everything of f is used for nothing else.

use std::collections::{BTreeSet, HashMap};

use crate::model::Block;
use crate::model::Parameter;
use crate::onnx::trace::step::Tracer;
use crate::onnx::trace::{Branch, Origin};
use crate::onnx::view::{TensorId, View};

/// The branches of the main graph, each as a block of the model with the parameters that only it reads.
pub(super) fn branches(
    tracer: &Tracer<'_, '_>,
    parameters: &[Parameter<f32>],
    origins: &[Origin],
) -> (Vec<Block>, Vec<Branch>) {
    let view = tracer.view;
    let names: HashMap<TensorId, Vec<&str>> =
        origins.iter().zip(parameters).fold(HashMap::new(), |mut names, (o, p)| {
            names.entry(o.tensor).or_insert_with(Vec::new).push(p.name());
            names
        });
    let weights: BTreeSet<&str> =
        parameters.iter().filter(|p| p.kind().is_weight()).map(Parameter::name).collect();
    let (mut blocks, mut found) = (Vec::new(), Vec::new());
    for (number, node) in view.nodes.iter().enumerate() {
        let (2, [Some(a), Some(b)], "Add") = (node.inputs.len(), &node.inputs[..], node.proto.op_type())
        else {
            continue;
        };
        let Some(output) = node.outputs[0].filter(|_| node.graph == 0) else { continue };
        for (skip, branch) in [(*a, *b), (*b, *a)] {
            let dims = |tensor: TensorId| tracer.shapes.dims[tensor].as_deref();
            if dims(skip).is_none() || dims(skip) != dims(output) || dims(branch) != dims(output) {
                continue;
            }
            let Some(constants) = inside(view, branch, skip, number) else { continue };
            let parameters: Vec<&str> =
                constants.iter().filter_map(|t| names.get(t)).flatten().copied().collect();
            if !parameters.iter().any(|name| weights.contains(name)) {
                continue;
            }
            let block = node.proto.title().to_owned();
            blocks.push(Block::new(block.clone()).parameters(parameters));
            found.push(Branch { block, sum: number, input: skip, output });
            break;
        }
    }
    (blocks, found)
}

/// The constants that a branch reads, when what lies between `skip` and the sum is read by nothing else. Masks and
/// positions may come in from elsewhere.
fn inside(view: &View<'_>, branch: TensorId, skip: TensorId, sum: usize) -> Option<BTreeSet<TensorId>> {
    // Ahead of what the branch reads there is nothing of the branch.
    let first = view.producer(skip).map_or(0, |before| before + 1);
    let (mut before, mut open) = (BTreeSet::new(), vec![branch]);
    while let Some(tensor) = open.pop() {
        if let Some(node) = view.producer(tensor).filter(|&node| node >= first)
            && before.insert(node)
        {
            open.extend(view.nodes[node].inputs.iter().flatten());
        }
    }
    let mut tensors = BTreeSet::from([skip]);
    let (mut nodes, mut constants) = (BTreeSet::new(), BTreeSet::new());
    for node in before {
        let inputs = || view.nodes[node].inputs.iter().flatten().copied();
        if inputs().any(|input| tensors.contains(&input)) {
            if !view.nodes[node].bodies.is_empty() {
                return None;
            }
            nodes.insert(node);
            tensors.extend(view.nodes[node].outputs.iter().flatten());
            constants.extend(inputs().filter(|&input| view.constant(input).is_some()));
        }
    }
    let closed = tensors.iter().filter(|&&tensor| tensor != skip).all(|&tensor| {
        let tensor = &view.tensors[tensor];
        tensor.answers == 0 && tensor.readers.iter().all(|reader| *reader == sum || nodes.contains(reader))
    });
    (tensors.contains(&branch) && branch != skip && closed).then_some(constants)
}
