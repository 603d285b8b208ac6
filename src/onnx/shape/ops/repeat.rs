//! `Loop` and `Scan`.

use crate::onnx::proto::NodeProto;

use super::{Known, Outputs, axis};

/// Shapes of a body's inputs in its first pass.
pub(in super::super) fn seeds(
    node: &NodeProto,
    inputs: &[Option<Known<'_>>],
    count: usize,
    opset: i64,
) -> Outputs {
    let dims = |at: usize| Some(inputs.get(at).copied().flatten()?.dims?.to_vec());
    match node.op_type() {
        "Loop" => (0..count).map(|at| if at < 2 { None } else { dims(at) }).collect(),
        "Scan" if opset >= 9 => {
            let states = states(node, inputs.len());
            let part = |at: usize| {
                let mut dims = dims(at)?;
                let along = axis_of(node, "scan_input_axes", at - states, dims.len())?;
                dims.remove(along);
                Some(dims)
            };
            (0..count).map(|at| if at < states { dims(at) } else { part(at) }).collect()
        }
        _ => Vec::new(),
    }
}

/// Places of what a pass hands to the next: among the body's inputs and among its outputs.
pub(in super::super) fn carried(
    node: &NodeProto,
    inputs: usize,
    outputs: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let (skipped, count) = match node.op_type() {
        "Loop" => (1, inputs.saturating_sub(2)),
        _ => (0, states(node, inputs)),
    };
    (skipped..outputs.min(count + skipped)).map(move |at| (at + skipped, at))
}

/// What it gives: carried tensors whose shape does not change, and what a scan puts together.
pub(in super::super) fn outputs(
    node: &NodeProto,
    inputs: &[Option<Known<'_>>],
    inside: &[Option<Known<'_>>],
    after: &[Option<Known<'_>>],
) -> Outputs {
    let dims = |list: &[Option<Known<'_>>], at: usize| Some(list.get(at).copied().flatten()?.dims?.to_vec());
    let skipped = usize::from(node.op_type() == "Loop");
    let mut outputs: Outputs = carried(node, inside.len(), after.len())
        .map(|(before, at)| dims(inside, before).filter(|before| dims(after, at).as_ref() == Some(before)))
        .collect();
    let states = outputs.len();
    for at in states + skipped..after.len() {
        let stacked = || {
            let whole = dims(inputs, states)?;
            let length = whole[axis_of(node, "scan_input_axes", 0, whole.len())?];
            let mut dims = dims(after, at)?;
            let along = axis_of(node, "scan_output_axes", at - states, dims.len() + 1)?;
            dims.insert(along, length);
            Some(dims)
        };
        outputs.push(if skipped == 0 { stacked() } else { None });
    }
    outputs
}

fn states(node: &NodeProto, inputs: usize) -> usize {
    inputs.saturating_sub(usize::try_from(node.int("num_scan_inputs").unwrap_or(0)).unwrap_or(0))
}

/// The axis of the n-th scan.
fn axis_of(node: &NodeProto, name: &str, at: usize, rank: usize) -> Option<usize> {
    let given = node.ints(name).and_then(|list| list.get(at)).copied();
    axis(given.unwrap_or(0), rank).ok()
}
