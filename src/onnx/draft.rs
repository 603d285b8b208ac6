//! The new model while it is made: nodes keep their places until [`Draft::finish`], so that the old graph's numbers
//! stay good for it.

use std::collections::{HashMap, HashSet};

use crate::onnx::proto::__buffa::oneof::tensor_shape_proto::dimension::Value as Length;
use crate::onnx::proto::__buffa::oneof::type_proto::Value as Type;
use crate::onnx::proto::tensor_shape_proto::Dimension;
use crate::onnx::proto::type_proto::Tensor;
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_type, dtype,
};
use crate::onnx::proto::{TensorShapeProto, TypeProto, ValueInfoProto};
use crate::onnx::view::{GraphPath, Source, TensorId, View};
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Draft {
    model: ModelProto,
    paths: Vec<GraphPath>,
    names: HashSet<String>,
    /// for each graph, new nodes and the place of the old node before which they go
    inserts: HashMap<usize, Vec<(usize, NodeProto)>>,
}

/// Where the value of a constant is.
#[derive(Debug)]
pub(super) enum Constant<'d> {
    Tensor(&'d mut TensorProto),
    /// an attribute of a `Constant` node: `value_int`, `value_ints`, `value_floats`
    Attribute(&'d mut AttributeProto),
}

impl Draft {
    pub(super) fn new(model: &ModelProto, view: &View<'_>) -> Self {
        let names = view.tensors.iter().map(|t| t.name).chain(view.nodes.iter().map(|n| n.proto.title()));
        Self {
            model: model.clone(),
            paths: view.graphs.iter().map(|g| g.path.clone()).collect(),
            names: names.map(str::to_owned).collect(),
            inserts: HashMap::new(),
        }
    }

    pub(super) fn graph(&mut self, graph: usize) -> Result<&mut GraphProto> {
        let path = self.paths.get(graph).map(Vec::as_slice);
        path.and_then(|path| walk(&mut self.model, path)).ok_or_else(lost)
    }

    /// A node of the old graph, as it is by now.
    pub(super) fn node(&mut self, view: &View<'_>, node: usize) -> Result<&mut NodeProto> {
        let (graph, at) = (view.nodes[node].graph, view.nodes[node].at);
        self.graph(graph)?.node.get_mut(at).ok_or_else(lost)
    }

    /// The value of an initializer or of a `Constant` node, as it is by now.
    pub(super) fn constant(&mut self, view: &View<'_>, tensor: TensorId) -> Result<Option<Constant<'_>>> {
        match view.tensors[tensor].source {
            Source::Initializer(at, _) => {
                let graph = self.graph(view.tensors[tensor].graph)?;
                graph.initializer.get_mut(at).map(|t| Some(Constant::Tensor(t))).ok_or_else(lost)
            }
            Source::Node(node) if view.nodes[node].proto.operator() == "Constant" => {
                let node = self.node(view, node)?;
                let held = |a: &&mut AttributeProto| {
                    matches!(a.name.as_deref(), Some("value" | "value_int" | "value_ints" | "value_floats"))
                };
                let attribute = node.attribute.iter_mut().find(held);
                Ok(attribute.map(|attribute| {
                    if attribute.t.is_set() {
                        Constant::Tensor(attribute.t.get_or_insert_default())
                    } else {
                        Constant::Attribute(attribute)
                    }
                }))
            }
            Source::Input | Source::Node(_) => Ok(None),
        }
    }

    /// A name that nothing has yet.
    pub(super) fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}_{number}");
        }
        name
    }

    /// Puts a node before the old node at this place of a graph, behind what was put there before.
    pub(super) fn insert(&mut self, graph: usize, before: usize, node: NodeProto) {
        self.inserts.entry(graph).or_default().push((before, node));
    }

    /// Adds an initializer, under a name like this one; gives the name.
    pub(super) fn add_initializer(
        &mut self,
        graph: usize,
        wanted: &str,
        mut tensor: TensorProto,
    ) -> Result<String> {
        let name = self.name(wanted);
        tensor.name = Some(name.clone());
        self.list(graph, &tensor)?;
        self.graph(graph)?.initializer.push(tensor);
        Ok(name)
    }

    /// Before version 4 of the file's format, initializers are listed among the inputs of the main graph.
    pub(super) fn list(&mut self, graph: usize, tensor: &TensorProto) -> Result<()> {
        if graph == 0 && self.model.ir_version.is_some_and(|version| version < 4) {
            let info = input(tensor);
            self.graph(graph)?.input.push(info);
        }
        Ok(())
    }

    /// New nodes read another tensor.
    pub(super) fn redirect_inserted(&mut self, from: &str, to: &str) {
        let nodes = self.inserts.values_mut().flatten().map(|(_, node)| node);
        nodes.for_each(|node| rename(&mut node.input, from, to));
    }

    /// The model with the new nodes in their places.
    pub(super) fn finish(mut self) -> Result<ModelProto> {
        // Inner graphs come later in the list, and the places on their paths are those of before.
        for graph in (0..self.paths.len()).rev() {
            let Some(mut new) = self.inserts.remove(&graph) else { continue };
            new.sort_by_key(|(before, _)| *before);
            let mut new = new.into_iter().peekable();
            let nodes = &mut self.graph(graph)?.node;
            let mut all = Vec::with_capacity(nodes.len() + new.len());
            for (at, node) in std::mem::take(nodes).into_iter().enumerate() {
                while let Some((_, node)) = new.next_if(|(before, _)| *before <= at) {
                    all.push(node);
                }
                all.push(node);
            }
            all.extend(new.map(|(_, node)| node));
            *nodes = all;
        }
        Ok(self.model)
    }
}

/// The graph at a path.
pub(super) fn walk<'m>(
    model: &'m mut ModelProto,
    path: &[(usize, usize, usize)],
) -> Option<&'m mut GraphProto> {
    let mut graph = model.graph.as_option_mut()?;
    for &(node, attribute, place) in path {
        let attribute = graph.node.get_mut(node)?.attribute.get_mut(attribute)?;
        let single = usize::from(attribute.g.is_set());
        graph = if place < single {
            attribute.g.as_option_mut()?
        } else {
            attribute.graphs.get_mut(place - single)?
        };
    }
    Some(graph)
}

/// Another name wherever this one stands.
pub(super) fn rename(names: &mut [String], from: &str, to: &str) {
    names.iter_mut().filter(|name| *name == from).for_each(|name| to.clone_into(name));
}

/// A node of ONNX's own operators.
pub(super) fn node(op_type: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        name: Some(name.to_owned()),
        input: inputs.iter().map(|&i| i.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// Integers as a tensor of 64 bits; no dims make a scalar.
pub(super) fn integers(dims: &[usize], values: &[i64]) -> TensorProto {
    raw(dtype::INT64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// Floats as a tensor.
pub(super) fn floats(dims: &[usize], values: &[f32]) -> TensorProto {
    raw(dtype::FLOAT, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A tensor of a type from its bytes.
pub(super) fn raw(data_type: i32, dims: &[usize], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: Some(data_type),
        raw_data: Some(bytes.into()),
        ..TensorProto::default()
    }
}

/// An integer attribute.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(attribute_type::INT),
        ..AttributeProto::default()
    }
}

/// What a file says of an initializer that it lists as an input.
fn input(tensor: &TensorProto) -> ValueInfoProto {
    let dim = |&len: &i64| Dimension { value: Some(Length::DimValue(len)), ..Dimension::default() };
    let shape =
        TensorShapeProto { dim: tensor.dims.iter().map(dim).collect(), ..TensorShapeProto::default() };
    let tensor_type = Tensor { elem_type: tensor.data_type, shape: shape.into(), ..Tensor::default() };
    let kind = TypeProto { value: Some(Type::TensorType(Box::new(tensor_type))), ..TypeProto::default() };
    ValueInfoProto { name: tensor.name.clone(), r#type: kind.into(), ..ValueInfoProto::default() }
}

fn lost() -> Error {
    Error::format("a node of the graph is not where it was")
}
