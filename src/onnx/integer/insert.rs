//! Codes go into the graph.

use std::collections::HashMap;

use crate::onnx::draft::{self, Draft};
use crate::onnx::integer::choose::{Choice, Weighted, choose};
use crate::onnx::integer::weights::Weights;
use crate::onnx::integer::{IntegerGraph, TensorRanges};
use crate::onnx::proto::dtype;
use crate::onnx::view::{Source, TensorId, View};
use crate::onnx::{Graph, dead};
use crate::quantize::{Bits, Fit, Grid, ScaleType, Symmetry};
use crate::{Error, Result};

/// The operator set that has `QuantizeLinear`.
const FIRST: i64 = 10;
/// Codes of activations.
pub(super) const GRID: Grid = Grid { bits: Bits::EIGHT, symmetry: Symmetry::Affine, scales: ScaleType::F32 };

pub(super) fn insert(graph: &Graph, ranges: &TensorRanges, signed: bool) -> Result<IntegerGraph> {
    let view = graph.view()?;
    if view.opset < FIRST {
        let has = view.opset;
        return Err(Error::unsupported(format!(
            "codes of activations need operator set {FIRST}, the graph has {has}"
        )));
    }
    let mut refused = HashMap::new();
    // What stays in floats may leave others without codes around them.
    let (choice, fits) = loop {
        let choice = choose(&view, &refused, graph.folder.as_deref());
        let fits = fits(&view, &choice, ranges)?;
        let before = refused.len();
        for weighted in &choice.weighted {
            if bias_codes(weighted, fits[&choice.root(weighted.input)]).is_err() {
                refused.insert(weighted.node, "its bias is past i32 in the scale of its codes".to_owned());
            }
        }
        if refused.len() == before {
            break (choice, fits);
        }
    };
    let mut insert = Insert {
        view: &view,
        choice: &choice,
        fits: &fits,
        draft: Draft::new(&graph.model, &view),
        pairs: HashMap::new(),
    };
    for &tensor in &choice.tensors {
        insert.tensor(tensor)?;
    }
    for weighted in &choice.weighted {
        insert.bias(weighted)?;
    }
    let mut weights = Weights::new(&view, graph.folder.as_deref(), signed);
    for weighted in &choice.weighted {
        let names = weights.of(&mut insert.draft, &weighted.parts, false)?;
        insert.draft.node(&view, weighted.parts.node)?.input = names.into();
    }
    let model = insert.draft.finish()?;
    let made = dead::remove(&view, Graph { model, folder: graph.folder.clone() })?;
    let tensors = choice.tensors.iter().map(|&id| view.tensors[id].name.to_owned()).collect();
    Ok(IntegerGraph { graph: made, tensors, left: choice.left })
}

/// Scale and zero point of each tensor that has its own.
fn fits(view: &View<'_>, choice: &Choice, ranges: &TensorRanges) -> Result<HashMap<TensorId, Fit>> {
    let own = choice.tensors.iter().filter(|id| !choice.roots.contains_key(id));
    let fit = |&id: &TensorId| {
        let name = view.tensors[id].name;
        let range = ranges.get(name);
        let (low, high) =
            range.ok_or_else(|| Error::name(format!("tensor `{name}`: its range is not given")))?;
        let fit = GRID.fit(low.into(), high.into());
        Ok((id, fit.map_err(|e| e.context(format!("tensor `{name}`")))?))
    };
    own.map(fit).collect()
}

/// Each number of the bias over its scale, that of the input times that of the weight, and the scales; `Err` is the place
/// of a number past i32.
fn bias_codes(weighted: &Weighted, input: Fit) -> Result<(Vec<i32>, Vec<f32>), usize> {
    let scales: Vec<f32> = weighted.scales.iter().map(|scale| scale * input.scale).collect();
    let Some((_, bias)) = &weighted.bias else { return Ok((Vec::new(), scales)) };
    let code = |(at, &b): (usize, &f32)| {
        let scale = scales[at % scales.len()];
        let code = (f64::from(b) / f64::from(scale)).round_ties_even();
        if code.abs() < f64::from(i32::MAX) { Ok(code as i32) } else { Err(at) }
    };
    Ok((bias.iter().enumerate().map(code).collect::<Result<_, _>>()?, scales))
}

struct Insert<'i, 'g> {
    view: &'i View<'g>,
    choice: &'i Choice,
    fits: &'i HashMap<TensorId, Fit>,
    draft: Draft,
    /// names of the scale and zero point of tensors that have their own
    pairs: HashMap<TensorId, [String; 2]>,
}

impl Insert<'_, '_> {
    /// A pair behind what makes the tensor. What a node makes gets another name, so that all readers read codes; of an
    /// input only those do that compute with them.
    fn tensor(&mut self, id: TensorId) -> Result<()> {
        let tensor = &self.view.tensors[id];
        let (from, to, place) = if let Source::Node(node) = tensor.source {
            let plain = self.draft.name(&format!("{}_float", tensor.name));
            draft::rename(&mut self.draft.node(self.view, node)?.output, tensor.name, &plain);
            (plain, tensor.name.to_owned(), self.view.nodes[node].at + 1)
        } else {
            let coded = self.draft.name(&format!("{}_dequantized", tensor.name));
            for &reader in tensor.readers.iter().filter(|reader| self.choice.readers.contains(reader)) {
                draft::rename(&mut self.draft.node(self.view, reader)?.input, tensor.name, &coded);
            }
            (tensor.name.to_owned(), coded, 0)
        };
        let [scale, zero] = self.pair(self.choice.root(id))?;
        let codes = self.draft.name(&format!("{}_quantized", tensor.name));
        let quantize = draft::node("QuantizeLinear", &codes, &[&from, &scale, &zero], &codes);
        let name = self.draft.name(&format!("{}_DequantizeLinear", tensor.name));
        let dequantize = draft::node("DequantizeLinear", &name, &[&codes, &scale, &zero], &to);
        self.draft.insert(0, place, quantize);
        self.draft.insert(0, place, dequantize);
        Ok(())
    }

    /// Scale and zero point, once for all tensors that share them.
    fn pair(&mut self, root: TensorId) -> Result<[String; 2]> {
        if let Some(pair) = self.pairs.get(&root) {
            return Ok(pair.clone());
        }
        let (name, fit) = (self.view.tensors[root].name, self.fits[&root]);
        let scale = draft::floats(&[], &[fit.scale]);
        let zero = draft::raw(dtype::UINT8, &[], vec![fit.zero]);
        let pair = [
            self.draft.add_initializer(0, &format!("{name}_scale"), scale)?,
            self.draft.add_initializer(0, &format!("{name}_zero_point"), zero)?,
        ];
        self.pairs.insert(root, pair.clone());
        Ok(pair)
    }

    /// The bias in i32.
    fn bias(&mut self, weighted: &Weighted) -> Result<()> {
        let Some((id, _)) = weighted.bias else { return Ok(()) };
        let input = self.fits[&self.choice.root(weighted.input)];
        let Ok((codes, scales)) = bias_codes(weighted, input) else { return Ok(()) };
        let name = self.view.tensors[id].name;
        let codes_of = |codes: &[i32]| codes.iter().flat_map(|code| code.to_le_bytes()).collect();
        let codes = draft::raw(dtype::INT32, &[codes.len()], codes_of(&codes));
        let codes = self.draft.add_initializer(0, &format!("{name}_quantized"), codes)?;
        let dims = if scales.len() == 1 { Vec::new() } else { vec![scales.len()] };
        let scale = self.draft.add_initializer(0, &format!("{name}_scale"), draft::floats(&dims, &scales))?;
        let output = self.draft.name(&format!("{name}_dequantized"));
        let mut node = draft::node("DequantizeLinear", &output, &[&codes, &scale], &output);
        if !dims.is_empty() {
            node.attribute.push(draft::int("axis", 0));
        }
        let place = self.view.nodes[weighted.node].at;
        self.draft.insert(0, place, node);
        if let Some(bias) = self.draft.node(self.view, weighted.node)?.input.get_mut(2) {
            *bias = output;
        }
        Ok(())
    }
}
