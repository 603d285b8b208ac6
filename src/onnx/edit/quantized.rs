//! Weights in codes.

use std::collections::HashMap;

use crate::compress::{Compressed, Stored};
use crate::onnx::Graph;
use crate::onnx::dead;
use crate::onnx::draft::{self, Constant, Draft};
use crate::onnx::edit::layout;
use crate::onnx::edit::left::Left;
use crate::onnx::file;
use crate::onnx::proto::{NodeProto, TensorProto, dtype};
use crate::onnx::trace::{Form, Traced};
use crate::onnx::view::{Source, TensorId, View};
use crate::quantize::{FloatFormat, QuantizedTensor, Scheme, Scope, Symmetry};
use crate::{Error, Result};

/// Puts the codes of all parameters that have some in the edited graph; gives the names of those that stay plain.
pub(super) fn store(
    traced: &Traced,
    left: &Left<'_>,
    before: &View<'_>,
    graph: &mut Graph,
    compressed: &Compressed<f32>,
) -> Result<Vec<String>> {
    let model = {
        let view = graph.view()?;
        let ir = graph.model.ir_version.unwrap_or(0);
        let (old_keys, new_keys) = (dead::keys(before), dead::keys(&view));
        let tensors: HashMap<(&str, &str), TensorId> = view
            .tensors
            .iter()
            .enumerate()
            .map(|(id, t)| ((new_keys[t.graph].as_str(), t.name), id))
            .collect();
        let mut draft = Draft::new(&graph.model, &view);
        let mut plain = Vec::new();
        for (at, origin) in traced.origins.iter().enumerate() {
            let Some(parameter) = left.parameter(at) else { continue };
            let Ok(entry) = compressed.entry(parameter.name()) else { continue };
            let Stored::Quantized(codes) = entry.stored() else { continue };
            let old = &before.tensors[origin.tensor];
            let Some(&tensor) = tensors.get(&(old_keys[old.graph].as_str(), old.name)) else { continue };
            if origin.form != Form::Whole {
                plain.push(parameter.name().to_owned());
                continue;
            }
            let mut writer = Writer { view: &view, draft: &mut draft, tensor, codes, ir };
            writer.write().map_err(|e| e.context(format!("parameter `{}`", parameter.name())))?;
        }
        (draft.finish()?, plain)
    };
    graph.model = model.0;
    Ok(model.1)
}

struct Writer<'w, 'g> {
    view: &'w View<'g>,
    draft: &'w mut Draft,
    tensor: TensorId,
    codes: &'w QuantizedTensor,
    ir: i64,
}

impl Writer<'_, '_> {
    fn write(&mut self) -> Result<()> {
        let no = |why: &str| Error::unsupported(format!("`{}` in an ONNX model: {why}", self.codes.scheme()));
        match *self.codes.scheme() {
            Scheme::Int { bits, symmetry, scope, .. } => {
                self.integers(bits.get(), symmetry == Symmetry::Affine, scope, self.codes.scales())
            }
            Scheme::Fixed { integer, fraction } if integer + fraction < 8 => {
                let scale = [(-f64::from(fraction)).exp2() as f32];
                self.integers(1 + integer + fraction, false, Scope::Tensor, &scale)
            }
            Scheme::Float(FloatFormat::F16) => self.floats(dtype::FLOAT16, 7),
            Scheme::Float(FloatFormat::Bf16) => self.floats(dtype::BFLOAT16, 13),
            Scheme::Fixed { .. } => Err(no("there are integers of at most 8 bits")),
            Scheme::Float(_) => Err(no("8-bit floats are not written")),
            Scheme::Planes { .. } => Err(no("there is no operator for sums of planes")),
            Scheme::Ggml(_) => Err(no("there is no operator for ggml's blocks")),
        }
    }

    fn name(&self) -> &str {
        self.view.tensors[self.tensor].name
    }

    /// Codes, and the nodes that make the weight of them.
    fn integers(&mut self, bits: u32, affine: bool, scope: Scope, scales: &[f32]) -> Result<()> {
        let (opset, dims) = (self.view.opset, self.codes.shape().to_vec());
        let direct = match scope {
            Scope::Model | Scope::Tensor => opset >= 10,
            Scope::Channel { .. } => opset >= 13,
            Scope::Group { .. } => opset >= 21,
        };
        let layout =
            if direct { layout::direct(&dims, scope) } else { layout::broadcast(&dims, scope, opset)? };
        let small = direct && bits <= 4 && opset >= 21 && self.ir >= 10;
        let codes = self.codes.codes()?;
        let proto = integers(&layout.codes, &codes, affine, small);
        let zeros = if affine { self.codes.zero_points().unwrap_or_default() } else { &[] };
        let name = self.name().to_owned();
        let graph = self.view.tensors[self.tensor].graph;
        let scale = self.draft.add_initializer(
            graph,
            &format!("{name}_scale"),
            draft::floats(&layout.scales, scales),
        )?;
        let zero = match (affine, direct) {
            (false, _) => None,
            (true, true) => Some(integers(&layout.scales, zeros, true, small)),
            (true, false) => {
                let zeros: Vec<f32> = zeros.iter().map(|&z| f32::from(z)).collect();
                Some(draft::floats(&layout.scales, &zeros))
            }
        };
        let wanted = format!("{name}_zero_point");
        let zero = zero.map(|zero| self.draft.add_initializer(graph, &wanted, zero)).transpose()?;
        let (codes, data_type) = self.put(proto, "quantized")?;
        let mut chain = Chain { nodes: Vec::new(), last: codes, name };
        if direct {
            let inputs = [Some(scale.as_str()), zero.as_deref()];
            let node = chain.push(self.draft, "DequantizeLinear", &inputs, "dequantized");
            let settings = [("axis", layout.axis), ("block_size", layout.block)];
            let settings = settings.into_iter().filter_map(|(name, n)| Some(draft::int(name, n? as i64)));
            node.attribute.extend(settings);
        } else {
            let (mut scale, mut zero) = (scale, zero);
            if let Some((axis, of)) = &layout.groups {
                let of = draft::integers(&[of.len()], of);
                let of = self.draft.add_initializer(graph, &format!("{}_group", chain.name), of)?;
                for (each, suffix) in
                    std::iter::once((&mut scale, "scales")).chain(zero.iter_mut().map(|z| (z, "zeros")))
                {
                    let output = self.draft.name(&format!("{}_{suffix}", chain.name));
                    let mut node = draft::node("Gather", &output, &[each, &of], &output);
                    node.attribute.push(draft::int("axis", *axis as i64));
                    chain.nodes.push(node);
                    *each = output;
                }
            }
            let node = chain.push(self.draft, "Cast", &[], "steps");
            node.attribute.push(draft::int("to", dtype::FLOAT.into()));
            if let Some(zero) = &zero {
                chain.push(self.draft, "Sub", &[Some(zero)], "signed");
            }
            chain.push(self.draft, "Mul", &[Some(&scale)], "scaled");
        }
        if layout.codes != dims {
            let shape: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
            let shape = draft::integers(&[shape.len()], &shape);
            let shape = self.draft.add_initializer(graph, &format!("{}_shape", chain.name), shape)?;
            chain.push(self.draft, "Reshape", &[Some(&shape)], "shaped");
        }
        if data_type != dtype::FLOAT {
            let node = chain.push(self.draft, "Cast", &[], "cast");
            node.attribute.push(draft::int("to", data_type.into()));
        }
        self.insert(chain);
        Ok(())
    }

    /// Values of half the bits, and a cast.
    fn floats(&mut self, narrow: i32, least: i64) -> Result<()> {
        if self.view.opset < least {
            let (opset, scheme) = (self.view.opset, self.codes.scheme());
            return Err(Error::unsupported(format!(
                "`{scheme}` needs operator set {least}, and the model has {opset}"
            )));
        }
        let mut proto = TensorProto { data_type: Some(narrow), ..TensorProto::default() };
        file::put_floats(&mut proto, &self.codes.decode::<f32>())?;
        let name = self.name().to_owned();
        let (narrowed, data_type) = self.put(proto, "narrow")?;
        let mut chain = Chain { nodes: Vec::new(), last: narrowed, name };
        let node = chain.push(self.draft, "Cast", &[], "cast");
        node.attribute.push(draft::int("to", data_type.into()));
        self.insert(chain);
        Ok(())
    }

    /// Puts other data in the tensor, under another name; gives that and the type that there was.
    fn put(&mut self, new: TensorProto, suffix: &str) -> Result<(String, i32)> {
        let own = &self.view.tensors[self.tensor];
        let name = self.draft.name(&format!("{}_{suffix}", own.name));
        let Some(Constant::Tensor(proto)) = self.draft.constant(self.view, self.tensor)? else {
            return Err(Error::unsupported("it is no tensor of the graph any more"));
        };
        let data_type = proto.data_type.unwrap_or(dtype::FLOAT);
        let fields = (proto.name.take(), std::mem::take(&mut proto.__buffa_unknown_fields));
        *proto = TensorProto { name: fields.0, __buffa_unknown_fields: fields.1, ..new };
        if let Source::Node(node) = own.source {
            self.draft.node(self.view, node)?.output = vec![name.clone()];
        } else {
            proto.name = Some(name.clone());
            let proto = proto.clone();
            // Old files list initializers among the inputs; what a node gives is none.
            let graph = self.draft.graph(own.graph)?;
            graph.input.retain(|input| input.name.as_deref() != Some(own.name));
            self.draft.list(own.graph, &proto)?;
        }
        Ok((name, data_type))
    }

    fn insert(&mut self, chain: Chain) {
        let own = &self.view.tensors[self.tensor];
        let before = match own.source {
            Source::Node(node) => self.view.nodes[node].at + 1,
            _ => 0,
        };
        let mut nodes = chain.nodes;
        if let Some(last) = nodes.last_mut() {
            last.output = vec![own.name.to_owned()];
        }
        for node in nodes {
            self.draft.insert(own.graph, before, node);
        }
    }
}

/// Nodes one behind the other.
struct Chain {
    nodes: Vec<NodeProto>,
    last: String,
    name: String,
}

impl Chain {
    fn push(
        &mut self,
        draft: &mut Draft,
        op_type: &str,
        more: &[Option<&str>],
        suffix: &str,
    ) -> &mut NodeProto {
        let output = draft.name(&format!("{}_{suffix}", self.name));
        let inputs: Vec<&str> =
            std::iter::once(self.last.as_str()).chain(more.iter().flatten().copied()).collect();
        let node = draft::node(op_type, &output, &inputs, &output);
        self.nodes.push(node);
        self.last = output;
        let at = self.nodes.len() - 1;
        &mut self.nodes[at]
    }
}

/// Codes of one byte each as a tensor; two in a byte, the first low, where they are small.
fn integers(dims: &[usize], codes: &[u8], affine: bool, small: bool) -> TensorProto {
    let data_type = match (affine, small) {
        (false, false) => dtype::INT8,
        (true, false) => dtype::UINT8,
        (false, true) => dtype::INT4,
        (true, true) => dtype::UINT4,
    };
    let pair = |pair: &[u8]| pair[0] & 15 | pair.get(1).copied().unwrap_or(0) << 4;
    let bytes = if small { codes.chunks(2).map(pair).collect() } else { codes.to_vec() };
    draft::raw(data_type, dims, bytes)
}
