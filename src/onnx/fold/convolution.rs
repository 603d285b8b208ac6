//! What only scales and shifts channels goes into the convolution before it.

use std::collections::HashSet;
use std::path::Path;

use crate::Result;
use crate::onnx::draft::Draft;
use crate::onnx::file;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::view::{TensorId, View};

/// Settings of `BatchNormalization` that a file may leave out.
const EPSILON: f32 = 1e-5;

/// Folds in all that can be; gives the places of nodes of the main graph that are of no use any more.
pub(super) fn fold(view: &View<'_>, draft: &mut Draft, folder: Option<&Path>) -> Result<HashSet<usize>> {
    let mut gone = HashSet::new();
    for at in (0..view.nodes.len()).filter(|&at| view.nodes[at].graph == 0) {
        let Some(fold) = Fold::of(view, at, folder)? else { continue };
        fold.write(view, draft, folder)?;
        gone.extend(fold.nodes.iter().map(|&node| view.nodes[node].at));
    }
    Ok(gone)
}

/// What a convolution takes in: nodes one behind the other, and what they do to each channel.
struct Fold {
    convolution: usize,
    nodes: Vec<usize>,
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Fold {
    fn of(view: &View<'_>, convolution: usize, folder: Option<&Path>) -> Result<Option<Self>> {
        let node = &view.nodes[convolution];
        let weight = node.inputs.get(1).copied().flatten().and_then(|id| view.constant(id));
        let bias = node.inputs.get(2).copied().flatten();
        let [Some(mut output)] = node.outputs[..] else { return Ok(None) };
        let Some(weight) = weight.filter(|_| node.proto.operator() == "Conv") else { return Ok(None) };
        if bias.is_some_and(|bias| view.constant(bias).is_none()) {
            return Ok(None);
        }
        let dims = file::dims(weight)?;
        let Some(&channels) = dims.first() else { return Ok(None) };
        let mut fold =
            Self { convolution, nodes: Vec::new(), scale: vec![1.0; channels], shift: vec![0.0; channels] };
        while let Some(reader) = view.only_reader(output) {
            let next = &view.nodes[reader];
            let [Some(answer), ..] = next.outputs[..] else { break };
            if next.graph != 0 || !fold.take(view, reader, output, dims.len(), folder)? {
                break;
            }
            fold.nodes.push(reader);
            output = answer;
        }
        Ok((!fold.nodes.is_empty()).then_some(fold))
    }

    /// Takes one more node in; `false` when it is none that can be.
    fn take(
        &mut self,
        view: &View<'_>,
        node: usize,
        reads: TensorId,
        rank: usize,
        folder: Option<&Path>,
    ) -> Result<bool> {
        let (proto, inputs) = (view.nodes[node].proto, &view.nodes[node].inputs);
        let channels = self.scale.len();
        match (proto.operator().as_str(), inputs.as_slice()) {
            ("BatchNormalization", &[Some(x), Some(scale), Some(shift), Some(mean), Some(variance)])
                if x == reads =>
            {
                let more = view.nodes[node].outputs.iter().skip(1).flatten().count();
                let fixed = more == 0 && proto.int("training_mode").unwrap_or(0) == 0;
                let mut four = Vec::new();
                for id in [scale, shift, mean, variance] {
                    let Some(values) = view.constant(id) else { return Ok(false) };
                    four.push(file::floats(values, folder)?);
                }
                if !fixed || four.iter().any(|values| values.len() != channels) {
                    return Ok(false);
                }
                let epsilon = f64::from(proto.float("epsilon").unwrap_or(EPSILON));
                let own = self.scale.iter_mut().zip(&mut self.shift);
                for ((own_scale, own_shift), c) in own.zip(0..) {
                    let [scale, shift, mean, variance] = [0, 1, 2, 3].map(|k: usize| four[k].iter().nth(c));
                    let [Some(scale), Some(shift), Some(mean), Some(variance)] =
                        [scale, shift, mean, variance]
                    else {
                        return Ok(false);
                    };
                    let scale = f64::from(*scale) / (f64::from(*variance) + epsilon).sqrt();
                    *own_scale *= scale;
                    *own_shift = (*own_shift - f64::from(*mean)) * scale + f64::from(*shift);
                }
                Ok(true)
            }
            ("Add", &[Some(a), Some(b)]) => {
                let other = if a == reads { b } else { a };
                let Some(values) = of_channels(view, other, channels, rank, folder)? else {
                    return Ok(false);
                };
                self.shift.iter_mut().zip(values).for_each(|(shift, value)| *shift += value);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn write(&self, view: &View<'_>, draft: &mut Draft, folder: Option<&Path>) -> Result<()> {
        let node = &view.nodes[self.convolution];
        let [_, Some(weight_id), ..] = node.inputs[..] else { return Ok(()) };
        let Some(proto) = view.constant(weight_id) else { return Ok(()) };
        let mut weight = file::floats(proto, folder)?;
        for (mut rows, &scale) in weight.outer_iter_mut().zip(&self.scale) {
            rows.mapv_inplace(|w| (f64::from(w) * scale) as f32);
        }
        let old = node.inputs.get(2).copied().flatten();
        let before = match old.and_then(|bias| view.constant(bias)) {
            Some(bias) => file::floats(bias, folder)?.iter().map(|&b| f64::from(b)).collect(),
            None => vec![0.0; self.scale.len()],
        };
        let each = before.iter().zip(&self.scale).zip(&self.shift);
        let bias: Vec<f32> = each.map(|((b, scale), shift)| (b * scale + shift) as f32).collect();
        let tensor = |array| {
            let mut tensor = TensorProto { data_type: proto.data_type, ..TensorProto::default() };
            file::put_floats(&mut tensor, &array).map(|()| tensor)
        };
        let name = view.tensors[weight_id].name;
        let folded = tensor(weight)?;
        let weight = draft.add_initializer(0, &format!("{name}_folded"), folded)?;
        let wanted = old.map_or(format!("{name}_bias"), |old| format!("{}_folded", view.tensors[old].name));
        let bias = draft.add_initializer(0, &wanted, tensor(ndarray::arr1(&bias).into_dyn())?)?;
        let last = self.nodes.last().and_then(|&last| view.nodes[last].proto.output.first()).cloned();
        let node: &mut NodeProto = draft.node(view, self.convolution)?;
        node.input.truncate(1);
        node.input.extend([weight, bias]);
        node.output = last.into_iter().collect();
        Ok(())
    }
}

/// A constant of one value for each channel (axis 1 of so many), or one for all; constants that are only brought to
/// another shape too.
fn of_channels(
    view: &View<'_>,
    id: TensorId,
    channels: usize,
    rank: usize,
    folder: Option<&Path>,
) -> Result<Option<Vec<f64>>> {
    let (mut source, mut shape) = (id, None);
    if let Some(node) = view.producer(id).map(|node| &view.nodes[node])
        && node.proto.operator() == "Reshape"
        && let [Some(values), Some(target)] = node.inputs[..]
    {
        let Some(target) = view.constant(target) else { return Ok(None) };
        (source, shape) = (values, Some(file::integers(target, folder)?));
    }
    let Some(proto) = view
        .constant(source)
        .filter(|proto| proto.data_type.is_some_and(crate::onnx::proto::dtype::is_float))
    else {
        return Ok(None);
    };
    let own = file::dims(proto)?;
    let shape = shape.unwrap_or_else(|| own.iter().map(|&d| d as i64).collect());
    let values: Vec<f64> = file::floats(proto, folder)?.iter().map(|&v| f64::from(v)).collect();
    if values.len() == 1 && shape.len() <= rank && shape.iter().all(|&d| d == 1) {
        return Ok(Some(vec![values[0]; channels]));
    }
    // [C, 1, 1] and [1, C, 1, 1], but -1 and 0 of a `Reshape` may stand for C.
    let behind = rank.saturating_sub(2);
    let at = shape.len().checked_sub(behind + 1);
    let ones = shape.iter().enumerate().all(|(axis, &d)| Some(axis) == at || d == 1);
    let own_axis = at.is_some_and(|at| shape[at] == channels as i64 || shape[at] == -1);
    Ok((ones && own_axis && shape.len() <= rank && values.len() == channels).then_some(values))
}
