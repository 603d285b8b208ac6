//! Operators that move axes and places without computing.

use crate::onnx::proto::dtype;
use crate::onnx::shape::Origin;
use crate::onnx::trace::Axis;
use crate::onnx::trace::step::{Step, wrap};

pub(super) fn transpose(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let order: Vec<usize> = match step.proto().ints("perm") {
        Some(perm) => perm.iter().filter_map(|&axis| wrap(axis, axes.len())).collect(),
        None => (0..axes.len()).rev().collect(),
    };
    if order.len() != axes.len() {
        return step.stop("its order of axes does not fit");
    }
    if let (Some(output), Some(input)) = (step.output(0), step.input(0)) {
        let behind = step.tracer.behind[input].clone();
        step.tracer.behind[output] =
            behind.map(|(tensor, of)| (tensor, order.iter().map(|&axis| of[axis]).collect()));
    }
    step.set(0, order.iter().map(|&axis| axes[axis].clone()).collect());
}

/// Axes of length 1 are not followed, so that what is left is in order.
pub(super) fn squeeze(step: &mut Step<'_, '_, '_>) {
    same_places(step);
}

pub(super) fn unsqueeze(step: &mut Step<'_, '_, '_>) {
    same_places(step);
}

fn same_places(step: &mut Step<'_, '_, '_>) {
    let dims = step.dims(0);
    let mut left = step.axes(0).into_iter().zip(dims).filter(|(_, len)| **len != 1).map(|(axis, _)| axis);
    let out = step.out_dims(0);
    let axes: Vec<Axis> =
        out.iter().map(|&len| if len == 1 { None } else { left.next().flatten() }).collect();
    step.set(0, axes);
}

/// `Expand` and `Tile`: what is repeated keeps its classes. An axis along which one value is repeated takes any length.
pub(super) fn repeat(step: &mut Step<'_, '_, '_>) {
    let (dims, axes, out) = (step.dims(0), step.axes(0), step.out_dims(0));
    let mut spread = Vec::with_capacity(out.len());
    for (from_end, &len) in out.iter().rev().enumerate() {
        let at = dims.len().checked_sub(from_end + 1);
        let axis = match at.map_or(1, |at| dims[at]) {
            1 => repeated(step, from_end, len),
            own => len.checked_div(own).filter(|&n| n > 0).and_then(|n| Step::spread(&axes[at?], n, 1)),
        };
        spread.push(axis);
    }
    spread.reverse();
    step.set(0, spread);
}

/// One number everywhere.
pub(super) fn fill(step: &mut Step<'_, '_, '_>) {
    let out = step.out_dims(0);
    let axes = (0..out.len()).map(|at| repeated(step, out.len() - 1 - at, out[at]));
    let axes = axes.collect();
    step.set(0, axes);
}

/// The axis at this place from the end along which one value is repeated: as long as what its length is taken from, or
/// of a length that the file names.
fn repeated(step: &mut Step<'_, '_, '_>, from_end: usize, len: usize) -> Axis {
    let shape = step.value(usize::from(step.proto().op_type() != "ConstantOfShape"))?;
    let element = shape.elements.len().checked_sub(from_end + 1).map(|at| shape.elements[at])?;
    match element.origin {
        Origin::Constant(..) => step.tracer.space.repeated(len),
        Origin::Length(tensor, axis) => step.tracer.axes[tensor].get(axis).cloned().flatten(),
        Origin::Other => None,
    }
}

/// [n, c, h, w] to [n, c / b², h·b, w·b].
pub(super) fn depth_to_space(step: &mut Step<'_, '_, '_>) {
    let block = step.proto().int("blocksize").unwrap_or(1).max(1) as usize;
    let out = step.out_dims(0).get(1).copied().unwrap_or(0);
    let columns_first = step.proto().text("mode") == Some("CRD");
    let channels = step.axis(0, 1);
    let axis = step.gather(&channels, out, |c| if columns_first { c / (block * block) } else { c % out });
    if channels.is_some() && axis.is_none() {
        step.hold(&channels, "all channels become one");
    }
    step.set(0, vec![step.axis(0, 0), axis, None, None]);
}

/// [n, c, h, w] to [n, c·b², h / b, w / b].
pub(super) fn space_to_depth(step: &mut Step<'_, '_, '_>) {
    let block = step.proto().int("blocksize").unwrap_or(1).max(1) as usize;
    let axis = Step::spread(&step.axis(0, 1), block * block, 1);
    step.set(0, vec![step.axis(0, 0), axis, None, None]);
}

/// A tensor in a node is a constant like any other.
pub(super) fn constant(step: &mut Step<'_, '_, '_>) {
    let Some(tensor) = step.output(0) else { return };
    let float = |t: &crate::onnx::proto::TensorProto| dtype::is_float(t.data_type.unwrap_or_default());
    if step.tracer.view.constant(tensor).is_some_and(float) {
        let axes = step.tracer.constant(tensor, step.dims_of(tensor));
        step.set(0, axes);
    }
}

/// `If`: each output is that of one branch or the other.
pub(super) fn branches(step: &mut Step<'_, '_, '_>) {
    let bodies: Vec<usize> = step.node().bodies.iter().map(|(_, graph)| *graph).collect();
    for k in 0..step.node().outputs.len() {
        let answers: Vec<usize> = bodies
            .iter()
            .filter_map(|&graph| step.tracer.view.graphs[graph].outputs.get(k).copied().flatten())
            .collect();
        let out = step.out_dims(k);
        let alike = answers.len() == 2 && !out.is_empty() && answers.iter().all(|&t| step.dims_of(t) == out);
        let axes: Vec<Vec<Axis>> = answers.iter().map(|&t| step.tracer.axes[t].clone()).collect();
        if !alike {
            axes.iter()
                .flatten()
                .for_each(|axis| step.hold(axis, "its branches answer with different shapes"));
            continue;
        }
        for (a, b) in axes[0].iter().zip(&axes[1]) {
            step.join(a, b);
        }
        let joined = axes[0].iter().zip(&axes[1]).map(|(a, b)| a.clone().or_else(|| b.clone())).collect();
        step.set(k, joined);
    }
}

/// `Loop` and `Scan`: what goes round keeps its size; layers inside are followed.
pub(super) fn bodies(step: &mut Step<'_, '_, '_>) {
    step.stop("it is carried from one round to the next");
    let view = step.tracer.view;
    let answers =
        step.node().bodies.iter().flat_map(|(_, graph)| view.graphs[*graph].outputs.iter().flatten());
    for &tensor in answers {
        for axis in step.tracer.axes[tensor].clone() {
            step.hold(&axis, "it is carried from one round to the next");
        }
    }
}
