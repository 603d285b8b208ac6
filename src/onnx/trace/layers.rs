//! Where each weight reads and answers.

use crate::model::{Kind, Parameter};
use crate::onnx::proto::NodeProto;
use crate::onnx::trace::step::{Role, Tracer};
use crate::onnx::trace::{Feed, Form, LayerIo, Order, Origin};
use crate::onnx::view::{TensorId, View};

/// Operators that answer with one number for one number, and read nothing else.
const ACTIVATIONS: &[&str] = &[
    "Celu",
    "Clip",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "PRelu",
    "QuickGelu",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
];

pub(super) fn layers(
    tracer: &Tracer<'_, '_>,
    parameters: &[Parameter<f32>],
    origins: &[Origin],
) -> Vec<LayerIo> {
    let weights = parameters.iter().zip(origins).filter(|(p, _)| p.kind().is_weight());
    weights.filter_map(|(parameter, origin)| layer(tracer, parameter, *origin, parameters, origins)).collect()
}

fn layer(
    tracer: &Tracer<'_, '_>,
    parameter: &Parameter<f32>,
    origin: Origin,
    parameters: &[Parameter<f32>],
    origins: &[Origin],
) -> Option<LayerIo> {
    let (view, shapes) = (tracer.view, tracer.shapes);
    let found = tracer.found.iter().find(|f| f.tensor == origin.tensor)?;
    let node = &view.nodes[found.node];
    let dims = |tensor: TensorId| shapes.dims[tensor].as_deref().unwrap_or_default();
    let output = node.outputs.first().copied().flatten()?;
    let places: u64 = dims(output).iter().map(|&n| n as u64).product::<u64>()
        / (dims(output).first().copied().unwrap_or(1).max(1) as u64);
    let recurrent = matches!(found.role, Role::Recurrent { .. });
    let macs = match (parameter.kind(), found.role) {
        (Kind::Embedding, _) => 0,
        (_, Role::Recurrent { .. }) => {
            (dims(output).first().copied().unwrap_or(1) as u64).saturating_mul(parameter.array().len() as u64)
        }
        (_, Role::Transposed) => {
            // Each place of each channel is multiplied with the taps of every filter that reads it.
            let input = node.inputs.first().copied().flatten().map(dims).unwrap_or_default();
            let places = input.iter().skip(1).map(|&n| n as u64).product::<u64>();
            let channels = parameter.fan_in() / parameter.taps().max(1) * parameter.groups();
            places.saturating_mul((parameter.array().len() / channels.max(1)) as u64)
        }
        _ => places.saturating_mul(parameter.fan_in() as u64),
    };
    let mut io = LayerIo {
        parameter: parameter.name().to_owned(),
        node: found.node,
        macs,
        input: None,
        output: None,
        activated: None,
    };
    if node.graph != 0 {
        return Some(io);
    }
    // With the weight on the left features are rows.
    let left = found.reads == Some(1);
    let turned = |name: &str| node.proto.int(name).unwrap_or(0) != 0;
    let order = |tensor: TensorId, turned: bool| {
        let rank = dims(tensor).len();
        if turned && rank >= 2 { Order::Features(rank - 2) } else { Order::Plain }
    };
    let reads = found.reads.and_then(|k| node.inputs.get(k).copied().flatten());
    io.input = match (found.role, reads) {
        (Role::Recurrent { own: true, .. }, _) => state(node.proto, origin.form)
            .filter(|_| dims(output).len() == 4)
            .map(|order| Feed { tensor: output, order }),
        (Role::Embedding, _) | (_, None) => None,
        (Role::Transposed, Some(tensor)) => {
            stretched(node.proto, dims(tensor).len()).map(|order| Feed { tensor, order })
        }
        (Role::Linear, Some(tensor)) => {
            let turned = if left { !turned("transB") } else { turned("transA") };
            Some(Feed { tensor, order: order(tensor, turned) })
        }
        (_, Some(tensor)) => Some(Feed { tensor, order: Order::Plain }),
    };
    if recurrent {
        let Form::Direction(direction) = origin.form else { return Some(io) };
        // Both matrices make the same hidden units.
        io.activated = Some(Feed { tensor: output, order: Order::Direction(direction) });
        if dims(output).is_empty() {
            io.activated = None;
        }
        return Some(io);
    }
    let rank = dims(output).len();
    let order = match (found.role, left) {
        (Role::Linear, true) if rank >= 2 => Order::Features(rank - 2),
        _ => Order::Plain,
    };
    let bias = |tensor: TensorId| {
        let known = origins.iter().position(|o| o.tensor == tensor).map(|at| &parameters[at]);
        known.is_some_and(|p| matches!(p.kind(), Kind::Bias { of } if of == parameter.name()))
    };
    let (answer, activated) = follow(view, output, bias);
    io.output = Some(Feed { tensor: answer, order: order.clone() });
    io.activated = Some(Feed { tensor: activated, order });
    Some(io)
}

/// The output with its bias, and what directly follows it.
fn follow(view: &View<'_>, output: TensorId, bias: impl Fn(TensorId) -> bool) -> (TensorId, TensorId) {
    let next = |tensor: TensorId| view.only_reader(tensor).map(|node| &view.nodes[node]);
    let mut answer = output;
    if let Some(node) = next(output).filter(|node| node.proto.op_type() == "Add" && node.graph == 0)
        && node.inputs.iter().flatten().any(|&input| bias(input))
        && let Some(sum) = node.outputs[0]
    {
        answer = sum;
    }
    let mut last = answer;
    while let Some(node) = next(last).filter(|node| node.graph == 0) {
        let operator = node.proto.op_type();
        let goes_on = operator == "BatchNormalization" || ACTIVATIONS.contains(&operator);
        match node.outputs.first().copied().flatten().filter(|_| goes_on && node.inputs[0] == Some(last)) {
            Some(output) => last = output,
            None => break,
        }
    }
    (answer, last)
}

/// What the matrix of a recurrent layer's own units reads; `None` where that is not what they answered a step before.
fn state(proto: &NodeProto, form: Form) -> Option<Order> {
    let Form::Direction(direction) = form else { return None };
    // A gated unit resets part of its state before it reads it, unless told otherwise.
    let resets = proto.op_type() == "GRU" && proto.int("linear_before_reset").unwrap_or(0) == 0;
    let samples_first = proto.int("layout").unwrap_or(0) != 0;
    if resets || samples_first {
        return None;
    }
    let back = direction > 0 || proto.text("direction") == Some("reverse");
    Some(Order::State { direction, back })
}

/// Zeros after each place, by the strides; `None` for a convolution whose output is cut in another way.
fn stretched(proto: &NodeProto, rank: usize) -> Option<Order> {
    let axes = rank.checked_sub(2)?;
    let strides = proto.ints("strides").unwrap_or_default();
    let zeros = |axis: usize| strides.get(axis).map_or(0, |&s| (s.max(1) - 1) as usize);
    Some(Order::Stretched((0..axes).map(zeros).collect()))
}
