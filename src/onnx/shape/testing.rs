//! Nets for tests, from few words.

use std::collections::HashMap;

use crate::onnx::proto::{
    __buffa, AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_type, dtype, tensor_shape_proto, type_proto,
};
use crate::onnx::view::View;

use super::{Origin, Shapes, infer};

/// A net under construction. Axes are numbers or names.
pub(super) struct Net {
    pub(super) graph: GraphProto,
    opset: i64,
}

impl Net {
    pub(super) fn new(opset: i64) -> Self {
        Self { graph: GraphProto::default(), opset }
    }

    pub(super) fn input(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph.input.push(info(name, dims, dtype::FLOAT));
        self
    }

    pub(super) fn ints(mut self, name: &str, numbers: &[i64]) -> Self {
        let dims = vec![numbers.len() as i64];
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims,
            data_type: Some(dtype::INT64),
            int64_data: numbers.to_vec(),
            ..TensorProto::default()
        });
        self
    }

    /// Floats, all of this value.
    pub(super) fn floats(mut self, name: &str, dims: &[i64], value: f32) -> Self {
        let count = dims.iter().product::<i64>() as usize;
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims: dims.to_vec(),
            data_type: Some(dtype::FLOAT),
            float_data: vec![value; count],
            ..TensorProto::default()
        });
        self
    }

    /// A node as `a, b = Op(c, d)`.
    pub(super) fn node(mut self, text: &str, attributes: &[(&str, &[i64])]) -> Self {
        self.graph.node.push(node(text, attributes));
        self
    }

    pub(super) fn body(mut self, name: &str, body: Self) -> Self {
        let attribute = AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(5),
            g: body.graph.into(),
            ..AttributeProto::default()
        };
        self.graph.node.last_mut().unwrap().attribute.push(attribute);
        self
    }

    pub(super) fn output(mut self, name: &str) -> Self {
        self.graph.output.push(ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() });
        self
    }

    pub(super) fn known(self, given: &[(&str, &[usize])]) -> Known {
        let opset = OperatorSetIdProto { version: Some(self.opset), ..OperatorSetIdProto::default() };
        let model =
            ModelProto { graph: self.graph.into(), opset_import: vec![opset], ..ModelProto::default() };
        let view = View::new(&model).unwrap();
        let shapes = infer(&view, &lengths(given)).unwrap();
        let names = view.tensors.iter().map(|tensor| tensor.name.to_owned()).collect();
        Known { shapes, names }
    }
}

/// What was inferred.
pub(super) struct Known {
    shapes: Shapes,
    names: Vec<String>,
}

impl Known {
    pub(super) fn id(&self, name: &str) -> usize {
        self.names.iter().position(|n| n == name).unwrap()
    }

    pub(super) fn dims(&self, name: &str) -> Option<&[usize]> {
        self.shapes.dims[self.id(name)].as_deref()
    }

    pub(super) fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        self.shapes.values[self.id(name)].as_ref().map(|value| value.numbers().collect())
    }

    pub(super) fn origins(&self, name: &str) -> Vec<Origin> {
        self.shapes.values[self.id(name)].as_ref().unwrap().elements.iter().map(|e| e.origin).collect()
    }
}

pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(attribute_type::STRING),
        s: Some(value.as_bytes().to_vec()),
        ..AttributeProto::default()
    }
}

pub(super) fn info(name: &str, dims: &[&str], data_type: i32) -> ValueInfoProto {
    use __buffa::oneof::tensor_shape_proto::dimension::Value;
    let dim = dims.iter().map(|text| tensor_shape_proto::Dimension {
        value: Some(text.parse().map_or_else(|_| Value::DimParam((*text).to_owned()), Value::DimValue)),
        ..tensor_shape_proto::Dimension::default()
    });
    let shape = TensorShapeProto { dim: dim.collect(), ..TensorShapeProto::default() };
    let tensor = type_proto::Tensor {
        elem_type: Some(data_type),
        shape: shape.into(),
        ..type_proto::Tensor::default()
    };
    let value = Some(__buffa::oneof::type_proto::Value::TensorType(Box::new(tensor)));
    let of_type = TypeProto { value, ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: of_type.into(), ..ValueInfoProto::default() }
}

pub(super) fn lengths(given: &[(&str, &[usize])]) -> HashMap<String, Vec<usize>> {
    given.iter().map(|(name, dims)| ((*name).to_owned(), dims.to_vec())).collect()
}

fn node(text: &str, attributes: &[(&str, &[i64])]) -> NodeProto {
    let names = |text: &str| text.split(',').map(|name| name.trim().to_owned()).collect();
    let (outputs, rest) = text.split_once('=').unwrap();
    let (operator, inputs) = rest.trim().trim_end_matches(')').split_once('(').unwrap();
    let mut node = NodeProto {
        op_type: Some(operator.to_owned()),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    };
    for &(name, list) in attributes {
        if ["axes", "strides", "pads", "dilations", "shape"].iter().any(|end| name.ends_with(end)) {
            node.set_ints(name, list.to_vec());
        } else {
            node.set_int(name, list[0]);
        }
    }
    node
}
