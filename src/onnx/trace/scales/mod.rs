//! Where scales may move: classes of positions that are multiplied together by any positive factor, followed from what
//! makes them to what reads them.
//!
//! A second, finer look at the graph than that for couplings. There a channel is one from a convolution through a batch
//! norm and a depthwise convolution to the next weight; here it is another one behind each of them, because each can be
//! given a factor of its own. A position whose factor some operator would notice belongs to the class of those that stay;
//! so does everything about an operator that is not known.

mod classes;
mod collect;
mod layout;
mod linear;
mod pointwise;

use std::collections::HashMap;

use crate::model::{Kind, Parameter, Passage};
use crate::onnx::proto::{NodeProto, dtype};
use crate::onnx::shape::Value;
use crate::onnx::trace::step::Tracer;
use crate::onnx::trace::{Form, Origin};
use crate::onnx::view::{Node, TensorId};
use classes::{Classes, Sets};

/// The passages of a graph.
pub(super) fn passages(
    tracer: &Tracer<'_, '_>,
    parameters: &[Parameter<f32>],
    origins: &[Origin],
) -> Vec<Passage> {
    let mut scales = Scales::new(tracer, parameters, origins);
    for (number, node) in tracer.view.nodes.iter().enumerate() {
        scales.follow(number, node);
    }
    for graph in &tracer.view.graphs {
        graph.outputs.iter().flatten().for_each(|&tensor| scales.hold(tensor));
    }
    scales.collect()
}

/// A weight, or a vector, as part of some classes.
#[derive(Debug)]
struct Part {
    /// index of the parameter
    parameter: usize,
    axis: usize,
    /// divided, or multiplied
    makes: bool,
    /// of each position
    classes: Vec<u32>,
}

struct Scales<'t, 'v, 'g> {
    tracer: &'t Tracer<'v, 'g>,
    parameters: &'t [Parameter<f32>],
    /// parameters in a tensor
    held_in: HashMap<TensorId, Vec<(usize, Form)>>,
    /// what is not here stays as it is
    of: HashMap<TensorId, Classes>,
    sets: Sets,
    parts: Vec<Part>,
    /// constants that are added or multiplied, each element with a class
    operands: Vec<(usize, Classes)>,
}

impl<'t, 'v, 'g> Scales<'t, 'v, 'g> {
    fn new(tracer: &'t Tracer<'v, 'g>, parameters: &'t [Parameter<f32>], origins: &[Origin]) -> Self {
        let mut held_in: HashMap<TensorId, Vec<(usize, Form)>> = HashMap::new();
        for (number, origin) in origins.iter().enumerate() {
            held_in.entry(origin.tensor).or_default().push((number, origin.form));
        }
        let (sets, of) = (Sets::new(), HashMap::new());
        Self { tracer, parameters, held_in, of, sets, parts: Vec::new(), operands: Vec::new() }
    }

    /// What a node does to its inputs' classes.
    fn follow(&mut self, number: usize, node: &Node<'g>) {
        let known = node.inputs.iter().chain(&node.outputs).flatten();
        let known = known.copied().all(|tensor| self.tracer.shapes.dims[tensor].is_some());
        let operator = node.proto.operator();
        // Shapes say nothing about scales.
        if matches!(operator.as_str(), "Shape" | "Size") {
            return;
        }
        if !known || node.graph != 0 || !node.bodies.is_empty() || node.outputs.is_empty() {
            return self.stop(node);
        }
        match operator.as_str() {
            "Conv" => self.conv(number, node),
            "ConvTranspose" => self.transposed(number, node),
            "MatMul" => self.matmul(number, node),
            "Gemm" => self.gemm(number, node),
            "LSTM" | "GRU" | "RNN" => self.recurrent(node),
            "BatchNormalization" | "InstanceNormalization" | "GroupNormalization" => self.norm(node, true),
            "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
                self.norm(node, false);
            }
            "MaxPool" | "AveragePool" | "LpPool" | "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                self.pool(node);
            }
            "Relu" | "LeakyRelu" | "PRelu" | "Identity" | "Abs" | "Neg" | "Dropout" | "Cast" => {
                self.pass(node);
            }
            "Add" | "Sub" | "Sum" | "Max" | "Min" | "Mean" => self.join(node, 0),
            "Where" => self.join(node, 1),
            "Mul" => self.product(node),
            "Div" => self.quotient(node),
            "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" => self.reduce(node),
            "Reshape" | "Flatten" => self.reshape(node),
            "Squeeze" | "Unsqueeze" => self.same_places(node),
            "Transpose" => self.transpose(node),
            "Expand" | "Tile" => self.repeat(node),
            "Concat" => self.concat(node),
            "Split" => self.split(node),
            "Slice" => self.slice(node),
            "Gather" => self.gather(node),
            "Pad" => self.pad(node),
            "Resize" | "Upsample" => self.resize(node),
            _ => self.stop(node),
        }
    }

    fn dims(&self, tensor: TensorId) -> &'v [usize] {
        self.tracer.shapes.dims[tensor].as_deref().unwrap_or_default()
    }

    fn value(&self, node: &Node<'g>, k: usize) -> Option<&'v Value> {
        self.tracer.shapes.values[input(node, k)?].as_ref()
    }

    /// The classes of a tensor; those that stay where nothing else is known.
    fn get(&self, tensor: TensorId) -> Classes {
        let held = || Classes::held(self.dims(tensor).len());
        self.of.get(&tensor).cloned().unwrap_or_else(held)
    }

    fn set(&mut self, node: &Node<'g>, k: usize, classes: Classes) {
        let Some(tensor) = node.outputs.get(k).copied().flatten() else { return };
        if classes.is_empty() || !classes.fits(self.dims(tensor)) {
            return self.sets.hold(&classes);
        }
        let classes = classes.compact(&mut self.sets);
        // Along an axis that the inputs make longer or shorter, places cannot be told apart.
        if (0..classes.rank()).any(|axis| classes.differs(axis) && self.tracer.dynamic[tensor][axis]) {
            return self.sets.hold(&classes);
        }
        self.of.insert(tensor, classes);
    }

    /// A factor of this tensor would be noticed.
    fn hold(&mut self, tensor: TensorId) {
        if let Some(classes) = self.of.get(&tensor) {
            self.sets.hold(classes);
        }
    }

    fn stop(&mut self, node: &Node<'g>) {
        node.inputs.iter().flatten().for_each(|&tensor| self.hold(tensor));
    }

    /// The parameter in a constant that only this node reads, in f32 or f64: others would be rounded, or scaled for
    /// several readers at once.
    fn own(&self, tensor: TensorId) -> Option<&[(usize, Form)]> {
        let view = self.tracer.view;
        let kind = view.constant(tensor)?.data_type.unwrap_or_default();
        view.only_reader(tensor)?;
        let wide = dtype::is_float(kind) && dtype::bits(kind).is_some_and(|bits| bits >= 32);
        self.held_in.get(&tensor).filter(|_| wide).map(Vec::as_slice)
    }

    /// The classes of what is added or multiplied: each element of a constant has one of its own.
    fn operand(&mut self, tensor: TensorId) -> Classes {
        if self.of.contains_key(&tensor) {
            return self.get(tensor);
        }
        let number = match self.own(tensor) {
            Some(&[(number, Form::Whole)]) if !self.parameters[number].kind().is_weight() => number,
            _ => return Classes::held(self.dims(tensor).len()),
        };
        let dims = self.dims(tensor);
        match Classes::fresh(&mut self.sets, dims) {
            Some(classes) => {
                self.operands.push((number, classes.clone()));
                classes
            }
            None => Classes::held(self.dims(tensor).len()),
        }
    }

    /// The weight that an input is, and where two of the input's axes are in it: a parameter that nothing else reads.
    fn weight(&self, node: &Node<'g>, k: usize, axes: [usize; 2]) -> Option<(usize, [usize; 2])> {
        let tensor = input(node, k)?;
        let (initializer, of) = self.tracer.behind[tensor].clone()?;
        let view = self.tracer.view;
        // Nothing else may read what stands between the two.
        let mut between = tensor;
        while between != initializer {
            view.only_reader(between)?;
            let node = &view.nodes[view.producer(between)?];
            if node.graph != 0 || narrows(node.proto) {
                return None;
            }
            between = input(node, 0)?;
        }
        let &[(number, form)] = self.own(initializer)? else { return None };
        let kind = self.parameters[number].kind();
        let plain = matches!(kind, Kind::Linear | Kind::Conv(_) | Kind::Embedding);
        let turned = of.iter().enumerate().any(|(axis, &own)| axis != own);
        match form {
            Form::Whole if plain && !(turned && matches!(kind, Kind::Conv(_))) => {
                Some((number, [*of.get(axes[0])?, *of.get(axes[1])?]))
            }
            // Already [out, in, taps…] in the model.
            Form::Transposed { groups: 1 } if plain && tensor == initializer => Some((number, [0, 1])),
            _ => None,
        }
    }

    /// A weight's axis reads or makes these classes.
    fn part(&mut self, parameter: usize, axis: usize, makes: bool, classes: &Classes) {
        let classes = classes.to_vec();
        if self.parameters[parameter].shape().get(axis) == Some(&classes.len()) {
            self.parts.push(Part { parameter, axis, makes, classes });
        } else {
            for &class in &classes {
                self.sets.join(class, 0);
            }
        }
    }
}

fn input(node: &Node<'_>, k: usize) -> Option<TensorId> {
    node.inputs.get(k).copied().flatten()
}

/// Whether it is a cast to anything but f32 or f64: small floats would round other values otherwise.
fn narrows(proto: &NodeProto) -> bool {
    let wide = |to: i64| {
        let to = i32::try_from(to).ok().filter(|&to| dtype::is_float(to));
        to.and_then(dtype::bits).is_some_and(|bits| bits >= 32)
    };
    proto.op_type() == "Cast" && !proto.int("to").is_some_and(wide)
}

fn flag(proto: &NodeProto, name: &str) -> bool {
    proto.int(name).unwrap_or(0) != 0
}
