//! Reductions along axes.

use crate::onnx::trace::step::{Step, wrap};

/// The axes go, or stay with length 1.
pub(super) fn reduce(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let named: Option<Vec<i64>> = match step.proto().ints("axes") {
        Some(ints) => Some(ints.to_vec()),
        None => step.value(1).map(|v| v.elements.iter().map(|e| e.number as i64).collect()),
    };
    let none = named.as_ref().is_none_or(Vec::is_empty);
    if none && step.proto().int("noop_with_empty_axes") == Some(1) {
        return step.set(0, axes);
    }
    if named.is_none() && step.input(1).is_some() {
        return step.stop("its axes are computed");
    }
    let gone: Vec<usize> = match named {
        Some(named) if !none => named.iter().filter_map(|&a| wrap(a, axes.len())).collect(),
        _ => (0..axes.len()).collect(),
    };
    for &axis in &gone {
        step.hold_statistic(&axes[axis]);
    }
    let keep = step.proto().int("keepdims").unwrap_or(1) != 0;
    let left = axes
        .into_iter()
        .enumerate()
        .filter_map(|(at, axis)| if gone.contains(&at) { keep.then_some(None) } else { Some(axis) });
    let left = left.collect();
    step.set(0, left);
}

/// The index of the extreme along an axis.
pub(super) fn arg(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let over = wrap(step.proto().int("axis").unwrap_or(0), axes.len()).unwrap_or(0);
    step.hold(&axes[over], "it answers with places on this axis");
    let keep = step.proto().int("keepdims").unwrap_or(1) != 0;
    let left = axes
        .into_iter()
        .enumerate()
        .filter_map(|(at, axis)| if at == over { keep.then_some(None) } else { Some(axis) });
    let left = left.collect();
    step.set(0, left);
}

/// Places along one axis depend on each other.
pub(super) fn along(step: &mut Step<'_, '_, '_>) {
    let mut axes = step.axes(0);
    let given = step.value(1).and_then(|v| v.elements.first()).map(|e| e.number as i64);
    let axis = match step.proto().op_type() {
        "CumSum" => given.unwrap_or(0),
        _ => step.proto().int("axis").unwrap_or(-1),
    };
    let over = wrap(axis, axes.len()).unwrap_or(0);
    let axis = axes[over].take();
    step.hold(&axis, "places along this axis depend on each other");
    for k in 0..step.node().outputs.len() {
        step.set(k, axes.clone());
    }
}
