//! [`Graph::raised`]: a graph in the words of a later operator set.

use std::collections::HashMap;

use crate::onnx::Graph;
use crate::onnx::draft::{self, Draft};
use crate::onnx::proto::{AttributeProto, NodeProto, dtype};
use crate::onnx::shape::{self, Shapes};
use crate::onnx::view::{Node, View};
use crate::{Error, Result};

/// Operator sets between which nodes are rewritten.
const FIRST: i64 = 7;
const LAST: i64 = 13;
/// The version of the file's format that belongs to the last one.
const IR: i64 = 7;
/// From this version on what is listed among the inputs may be replaced by the caller, so it is no constant.
const CONSTANTS_SINCE: i64 = 4;

impl Graph {
    /// The graph in operator set `opset`, at most 13: the first whose `DequantizeLinear` has a scale for each channel.
    /// One that is there or later is given back as it is.
    ///
    /// Settings that became inputs do so (`axes`, `split`, `pads`, bounds of `Clip` and `Slice`), those that went go, and
    /// the format's version becomes 7 if it was lower; initializers are then no longer listed among the inputs.
    /// Functions of the model's own stay as they are: they name their operator sets themselves.
    ///
    /// ```
    /// use niwaki::onnx::Graph;
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let graph = Graph::read("tests/data/onnx/mlp.onnx")?;
    /// assert_eq!(graph.raised(13)?.to_bytes()?, graph.to_bytes()?); // was later already
    /// assert!(graph.raised(14).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Setting`](crate::ErrorKind::Setting): more than 13.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the graph is below 7, or a node has no words in the
    /// later set (`Upsample`, `Resize` of set 10, `Scan` of set 8, a `Softmax` over several axes); the message names it.
    pub fn raised(&self, opset: i64) -> Result<Self> {
        if opset > LAST {
            return Err(Error::setting(format!("operator set {opset}: graphs are raised to {LAST} at most")));
        }
        let view = self.view()?;
        if view.opset >= opset {
            return Ok(self.clone());
        }
        if view.opset < FIRST {
            let has = view.opset;
            return Err(Error::unsupported(format!("operator set {has}: graphs are raised from {FIRST} on")));
        }
        let shapes = shape::infer(&view, &HashMap::new())?;
        let mut raise =
            Raise { view: &view, shapes: &shapes, draft: Draft::new(&self.model, &view), to: opset };
        for node in 0..view.nodes.len() {
            raise.node(node)?;
        }
        let mut model = raise.draft.finish()?;
        let own = |domain: Option<&str>| matches!(domain, None | Some("" | "ai.onnx"));
        model
            .opset_import
            .iter_mut()
            .filter(|o| own(o.domain.as_deref()))
            .for_each(|o| o.version = Some(opset));
        if model.ir_version.unwrap_or(0) < CONSTANTS_SINCE
            && let Some(graph) = model.graph.as_option_mut()
        {
            let constants = graph.initializer.iter().filter_map(|t| t.name.clone());
            let constants: std::collections::HashSet<String> = constants.collect();
            graph.input.retain(|input| !input.name.as_ref().is_some_and(|name| constants.contains(name)));
        }
        model.ir_version = Some(model.ir_version.unwrap_or(0).max(IR));
        Ok(Self { model, folder: self.folder.clone() })
    }
}

struct Raise<'v, 'g> {
    view: &'v View<'g>,
    shapes: &'v Shapes,
    draft: Draft,
    to: i64,
}

impl Raise<'_, '_> {
    fn node(&mut self, at: usize) -> Result<()> {
        let node = &self.view.nodes[at];
        let crosses = |version: i64| self.view.opset < version && version <= self.to;
        let operator = node.proto.operator();
        match operator.as_str() {
            "Squeeze" | "Unsqueeze" | "ReduceSum" if crosses(13) => self.numbers(at, &["axes"]),
            "Split" if crosses(13) => self.numbers(at, &["split"]),
            "Softmax" | "LogSoftmax" | "Hardmax" if crosses(13) => self.softmax(at),
            "Dropout" if crosses(12) => self.without(at, "ratio"),
            "Clip" if crosses(11) => {
                let bound = |name: &str, else_: f32| node.proto.float(name).unwrap_or(else_);
                let bounds = [("min", bound("min", f32::MIN)), ("max", bound("max", f32::MAX))];
                bounds.into_iter().try_for_each(|(name, value)| self.scalar(at, name, value))
            }
            "Pad" if crosses(11) => {
                let value = node.proto.float("value").unwrap_or(0.0);
                self.numbers(at, &["pads"])?;
                self.scalar(at, "value", value)
            }
            "Scatter" if crosses(11) => {
                self.draft.node(self.view, at)?.op_type = Some("ScatterElements".to_owned());
                Ok(())
            }
            "Slice" if crosses(10) => self.numbers(at, &["starts", "ends", "axes"]),
            "TopK" if crosses(10) => {
                let k = node.proto.int("k").unwrap_or(0);
                self.without(at, "k")?;
                self.input(at, "k", draft::integers(&[1], &[k]))
            }
            "BatchNormalization" if crosses(9) && node.proto.int("spatial") != Some(0) => {
                self.without(at, "spatial")
            }
            "BatchNormalization" | "Scan" if crosses(9) => Err(self.stuck(at)),
            "Upsample" if crosses(10) => Err(self.stuck(at)),
            "Resize" if crosses(11) => Err(self.stuck(at)),
            _ => Ok(()),
        }
    }

    /// Lists of integers become inputs; those that are not there end the list.
    fn numbers(&mut self, at: usize, names: &[&str]) -> Result<()> {
        for name in names {
            let Some(values) = self.view.nodes[at].proto.ints(name) else { break };
            let values = values.to_vec();
            self.without(at, name)?;
            self.input(at, name, draft::integers(&[values.len()], &values))?;
        }
        Ok(())
    }

    fn scalar(&mut self, at: usize, name: &str, value: f32) -> Result<()> {
        // A bound has the type of what it bounds, which nothing here knows unless all floats are of one.
        let graphs = self.view.graphs.iter().map(|graph| graph.proto);
        let tensors =
            self.view.tensors.iter().enumerate().filter_map(|(id, _)| self.view.constant(id)?.data_type);
        let inputs = graphs.flat_map(|graph| &graph.input).map(|input| super::ValueInfo::of(input).data_type);
        if tensors.chain(inputs).any(|kind| kind != dtype::FLOAT && dtype::is_float(kind)) {
            return Err(self.stuck(at));
        }
        self.without(at, name)?;
        self.input(at, name, draft::floats(&[], &[value]))
    }

    /// Before 13 all axes from `axis` on were one, and 1 was the default.
    fn softmax(&mut self, at: usize) -> Result<()> {
        let node: &Node<'_> = &self.view.nodes[at];
        let axis = node.proto.int("axis").unwrap_or(1);
        let rank =
            node.inputs.first().copied().flatten().and_then(|id| Some(self.shapes.dims[id].as_ref()?.len()));
        if axis != -1 && rank.is_none_or(|rank| axis != rank as i64 - 1) {
            return Err(self.stuck(at));
        }
        self.draft.node(self.view, at)?.set_int("axis", -1);
        Ok(())
    }

    fn without(&mut self, at: usize, name: &str) -> Result<()> {
        let node: &mut NodeProto = self.draft.node(self.view, at)?;
        node.attribute.retain(|a: &AttributeProto| a.name.as_deref() != Some(name));
        Ok(())
    }

    /// One more input, a constant.
    fn input(&mut self, at: usize, name: &str, value: crate::onnx::proto::TensorProto) -> Result<()> {
        let node = &self.view.nodes[at];
        let wanted = format!("{}_{name}", node.proto.output.first().map_or("", String::as_str));
        let name = self.draft.add_initializer(node.graph, &wanted, value)?;
        self.draft.node(self.view, at)?.input.push(name);
        Ok(())
    }

    fn stuck(&self, at: usize) -> Error {
        let (proto, from, to) = (self.view.nodes[at].proto, self.view.opset, self.to);
        let (title, operator) = (proto.title(), proto.operator());
        Error::unsupported(format!(
            "node `{title}` ({operator}): it cannot be raised from operator set {from} to {to}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto, ValueInfoProto, attribute_type};

    fn ints(name: &str, values: &[i64]) -> AttributeProto {
        AttributeProto {
            name: Some(name.into()),
            ints: values.to_vec(),
            r#type: Some(attribute_type::INTS),
            ..AttributeProto::default()
        }
    }

    fn float(name: &str, value: f32) -> AttributeProto {
        AttributeProto { name: Some(name.into()), f: Some(value), ..AttributeProto::default() }
    }

    fn graph(opset: i64, node: NodeProto) -> Graph {
        let value = |name: &str| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() };
        let mut weight = draft::floats(&[2], &[1.0, 2.0]);
        weight.name = Some("w".to_owned());
        let graph = GraphProto {
            node: vec![node],
            initializer: vec![weight],
            input: vec![value("x"), value("w")],
            output: vec![value("y")],
            ..GraphProto::default()
        };
        let set = OperatorSetIdProto { version: Some(opset), ..OperatorSetIdProto::default() };
        let model = ModelProto {
            ir_version: Some(3),
            opset_import: vec![set],
            graph: graph.into(),
            ..ModelProto::default()
        };
        Graph { model, folder: None }
    }

    fn node(operator: &str, attributes: &[AttributeProto]) -> NodeProto {
        let mut node = draft::node(operator, "n", &["x"], "y");
        node.attribute = attributes.to_vec();
        node
    }

    /// The node, raised, and the constants that it reads.
    fn raised(opset: i64, node: NodeProto) -> Result<(NodeProto, Vec<Vec<f64>>)> {
        let raised = graph(opset, node).raised(13)?;
        let view = raised.view()?;
        assert_eq!(view.opset, 13);
        let read = |id: usize| {
            let proto = view.constant(id).unwrap();
            match proto.data_type {
                Some(dtype::FLOAT) => {
                    crate::onnx::file::floats(proto, None).unwrap().mapv(f64::from).into_iter().collect()
                }
                _ => crate::onnx::file::integers(proto, None).unwrap().iter().map(|&n| n as f64).collect(),
            }
        };
        let constants = view.nodes[0].inputs.iter().skip(1).flatten().map(|&id| read(id)).collect();
        Ok((view.nodes[0].proto.clone(), constants))
    }

    #[test]
    fn settings_become_inputs() {
        for (opset, node, constants) in [
            (11, node("Squeeze", &[ints("axes", &[0, 2])]), vec![vec![0.0, 2.0]]),
            (11, node("Squeeze", &[]), vec![]),
            (7, node("Unsqueeze", &[ints("axes", &[1])]), vec![vec![1.0]]),
            (12, node("ReduceSum", &[ints("axes", &[-1])]), vec![vec![-1.0]]),
            (12, node("Split", &[ints("split", &[3, 5])]), vec![vec![3.0, 5.0]]),
            (10, node("Clip", &[float("min", 0.0), float("max", 6.0)]), vec![vec![0.0], vec![6.0]]),
            (10, node("Clip", &[float("max", 6.0)]), vec![vec![f64::from(f32::MIN)], vec![6.0]]),
            (10, node("Pad", &[ints("pads", &[1, 2]), float("value", 0.5)]), vec![vec![1.0, 2.0], vec![0.5]]),
            (
                9,
                node("Slice", &[ints("starts", &[1]), ints("ends", &[4]), ints("axes", &[2])]),
                vec![vec![1.0], vec![4.0], vec![2.0]],
            ),
            (9, node("TopK", &[draft::int("k", 5)]), vec![vec![5.0]]),
            (11, node("Dropout", &[float("ratio", 0.5)]), vec![]),
            (8, node("BatchNormalization", &[draft::int("spatial", 1)]), vec![]),
        ] {
            let operator = node.operator();
            let (node, found) = raised(opset, node).unwrap();
            assert_eq!(found, constants, "{operator} of {opset}");
            assert!(node.attribute.is_empty(), "{operator} of {opset}: {:?}", node.attribute);
        }
        let (node, _) = raised(10, node("Scatter", &[draft::int("axis", 1)])).unwrap();
        assert_eq!((node.operator().as_str(), node.int("axis")), ("ScatterElements", Some(1)));
    }

    #[test]
    fn what_has_no_words_is_named() {
        for (opset, node) in [
            (9, node("Upsample", &[])),
            (10, node("Resize", &[])),
            (8, node("Scan", &[])),
            (8, node("BatchNormalization", &[draft::int("spatial", 0)])),
            // The rank is not known, so nothing says that axis 1 is the last one.
            (11, node("Softmax", &[])),
        ] {
            let error = raised(opset, node).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().starts_with("node `n` ("), "{error}");
        }
        let (softmax, _) = raised(11, node("Softmax", &[draft::int("axis", -1)])).unwrap();
        assert_eq!(softmax.int("axis"), Some(-1));
        assert_eq!(raised(6, node("Relu", &[])).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(graph(12, node("Relu", &[])).raised(14).unwrap_err().kind(), ErrorKind::Setting);
    }

    #[test]
    fn initializers_become_constants() {
        let raised = graph(7, node("Relu", &[])).raised(13).unwrap();
        let inputs: Vec<String> =
            raised.graph().input.iter().filter_map(|input| input.name.clone()).collect();
        assert_eq!((inputs, raised.model.ir_version), (vec!["x".to_owned()], Some(7)));
    }
}
