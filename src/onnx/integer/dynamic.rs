//! Activations whose ranges are found while the graph runs.

use std::collections::HashMap;

use crate::onnx::draft::{self, Draft};
use crate::onnx::integer::IntegerGraph;
use crate::onnx::integer::choose::{self, Weighted};
use crate::onnx::integer::weights::Weights;
use crate::onnx::proto::{NodeProto, dtype};
use crate::onnx::view::{Source, TensorId, View};
use crate::onnx::{Graph, dead};
use crate::{Error, Result};

/// The operator set that has `DynamicQuantizeLinear`.
const FIRST: i64 = 11;

impl Graph {
    /// The graph with matrix products in integers: what they read is quantized as it comes (dynamic quantization), which
    /// needs no calibration and suits transformers, whose ranges change from input to input.
    ///
    /// Each `MatMul` and `Gemm` whose weight has codes of 8 bits, with a scale for each column or one for all
    /// ([`Traced::apply_compressed`](crate::onnx::Traced::apply_compressed)), becomes `MatMulInteger` between a
    /// `DynamicQuantizeLinear` of its input (u8, s = (max − min) / 255 over a range that holds 0) and the products of both
    /// scales; its bias is added in floats. Convolutions keep their weights in codes and compute in floats.
    ///
    /// ```
    /// use niwaki::Compressor;
    /// use niwaki::onnx::{Graph, Qdq};
    /// use niwaki::prune::Plan;
    /// use niwaki::quantize::Uniform;
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let traced = Qdq::prepared(&Graph::read("tests/data/onnx/bert.onnx")?)?.trace()?;
    /// let compressor = Compressor::builder().quantizer(Uniform::int8()).build()?;
    /// let codes = compressor.compress(traced.model(), &compressor.evidence(traced.model()))?;
    /// let coded = traced.apply_compressed(&Plan::new(traced.model()), &codes)?.graph;
    /// let made = coded.dynamically_quantized()?;
    /// assert!(!made.tensors.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the operator set is below 11. Codes that are in a data
    /// file cannot be read.
    pub fn dynamically_quantized(&self) -> Result<IntegerGraph> {
        let view = self.view()?;
        if view.opset < FIRST {
            let has = view.opset;
            return Err(Error::unsupported(format!(
                "dynamic quantization needs operator set {FIRST}, the graph has {has}"
            )));
        }
        let mut refused = HashMap::new();
        for (at, node) in view.nodes.iter().enumerate() {
            if node.proto.operator() == "Conv" {
                refused.insert(at, "convolutions are not quantized dynamically".to_owned());
            }
        }
        let choice = choose::choose(&view, &refused, self.folder.as_deref());
        let (draft, weights) =
            (Draft::new(&self.model, &view), Weights::new(&view, self.folder.as_deref(), false));
        let mut products = Products { view: &view, draft, weights, inputs: HashMap::new(), gone: Vec::new() };
        for weighted in &choice.weighted {
            products.replace(weighted)?;
        }
        let Products { mut draft, inputs, gone, .. } = products;
        // What took a node's place gives its outputs; the node gives others, which nothing reads.
        for node in gone {
            for at in 0..view.nodes[node].proto.output.len() {
                let name = draft.name(&format!("{}_float", view.nodes[node].proto.output[at]));
                draft.node(&view, node)?.output[at] = name;
            }
        }
        let mut tensors: Vec<TensorId> = inputs.into_keys().collect();
        tensors.sort_unstable();
        let tensors = tensors.iter().map(|&id| view.tensors[id].name.to_owned()).collect();
        let made = Self { model: draft.finish()?, folder: self.folder.clone() };
        Ok(IntegerGraph { graph: dead::remove(&view, made)?, tensors, left: choice.left })
    }
}

struct Products<'p, 'g> {
    view: &'p View<'g>,
    draft: Draft,
    weights: Weights<'p, 'g>,
    /// names of codes, scale and zero point of what is read
    inputs: HashMap<TensorId, [String; 3]>,
    gone: Vec<usize>,
}

impl Products<'_, '_> {
    fn replace(&mut self, weighted: &Weighted) -> Result<()> {
        let node = &self.view.nodes[weighted.node];
        let [codes, scale, zero] = self.input(weighted.input);
        let Some(output) = node.proto.output.first().cloned() else { return Ok(()) };
        // `MatMulInteger` has the units last.
        let exchanged = node.proto.int("transB").unwrap_or(0) != 0;
        let [weight, w_scale, w_zero] = self.weights.of(&mut self.draft, &weighted.parts, exchanged)?;
        let place = node.at + 1;
        let put = |draft: &mut Draft, op: &str, inputs: &[&str], suffix: &str, last: bool| {
            let name = draft.name(&format!("{output}_{suffix}"));
            let gives = if last { output.as_str() } else { name.as_str() };
            let node = draft::node(op, &name, inputs, gives);
            draft.insert(0, place, node);
            gives.to_owned()
        };
        let sums = put(&mut self.draft, "MatMulInteger", &[&codes, &weight, &zero, &w_zero], "sums", false);
        let cast = self.draft.name(&format!("{output}_cast"));
        let mut node = draft::node("Cast", &cast, &[&sums], &cast);
        node.attribute.push(draft::int("to", dtype::FLOAT.into()));
        self.draft.insert(0, place, node);
        let scales = put(&mut self.draft, "Mul", &[&scale, &w_scale], "scales", false);
        let bias = weighted.bias.as_ref().map(|(id, _)| self.view.tensors[*id].name);
        let product = put(&mut self.draft, "Mul", &[&cast, &scales], "product", bias.is_none());
        if let Some(bias) = bias {
            put(&mut self.draft, "Add", &[&product, bias], "biased", true);
        }
        self.gone.push(weighted.node);
        Ok(())
    }

    /// Codes of what is read, once for all products that read it.
    fn input(&mut self, id: TensorId) -> [String; 3] {
        if let Some(names) = self.inputs.get(&id) {
            return names.clone();
        }
        let tensor = &self.view.tensors[id];
        let place = match tensor.source {
            Source::Node(node) => self.view.nodes[node].at + 1,
            _ => 0,
        };
        let names = ["quantized", "scale", "zero_point"]
            .map(|suffix| self.draft.name(&format!("{}_{suffix}", tensor.name)));
        let mut node: NodeProto = draft::node("DynamicQuantizeLinear", &names[0], &[tensor.name], &names[0]);
        node.output.extend([names[1].clone(), names[2].clone()]);
        self.draft.insert(0, place, node);
        self.inputs.insert(id, names.clone());
        names
    }
}
