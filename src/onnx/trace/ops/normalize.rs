//! Normalizations: over samples and places they follow channels, over channels they hold them.

use crate::onnx::trace::Axis;
use crate::onnx::trace::step::{Step, wrap};

/// Scale, shift, mean and variance of each channel.
pub(super) fn batch(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    for k in 1..5 {
        let own = step.axis(k, 0);
        step.join(&axes[1.min(axes.len() - 1)], &own);
    }
    step.set(0, axes);
}

/// Scale and shift of each channel; statistics over its places.
pub(super) fn instance(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    for k in 1..3 {
        let own = step.axis(k, 0);
        step.join(&axes[1], &own);
    }
    axes[2..].iter().for_each(|axis| step.hold_statistic(axis));
    step.set(0, axes);
}

/// Whole groups of channels stay or go. Scale and shift are of channels (operator set 21) or of groups (before).
pub(super) fn group(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let channels = step.dims(0)[1];
    let groups = step.proto().int("num_groups").unwrap_or(1).max(1) as usize;
    if !channels.is_multiple_of(groups) {
        return step.stop("its groups do not fit");
    }
    let size = channels / groups;
    let of_group = step.gather(&axes[1], groups, |c| c / size);
    if groups == 1 {
        step.hold_statistic(&axes[1]);
    }
    for k in 1..3 {
        let own = step.axis(k, 0);
        if step.dims(k) == [channels] {
            step.join(&axes[1], &own);
        } else {
            step.join(&of_group, &own);
        }
    }
    step.set(0, axes);
}

/// Over the last axes; scale and shift are of those.
pub(super) fn layer(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let from = wrap(step.proto().int("axis").unwrap_or(-1), axes.len()).unwrap_or(0);
    for axis in &axes[from..] {
        step.hold_statistic(axis);
    }
    for k in 1..step.node().inputs.len() {
        let own = step.axes(k);
        for (axis, own) in axes.iter().rev().zip(own.iter().rev()) {
            if own.is_some() {
                step.join(axis, own);
            }
        }
    }
    outputs(step, &axes, from);
}

/// The sum of two inputs, over the last axis; scale, shift and bias are of that.
pub(super) fn skip_layer(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let last = axes.len() - 1;
    for k in 1..step.node().inputs.len() {
        let own = step.axes(k);
        for (axis, own) in axes.iter().rev().zip(own.iter().rev()) {
            step.join(axis, own);
        }
    }
    step.hold_statistic(&axes[last]);
    outputs(step, &axes, last);
    step.set(3, axes);
}

/// The normalized output, and the statistics beside it.
fn outputs(step: &mut Step<'_, '_, '_>, axes: &[Axis], from: usize) {
    step.set(0, axes.to_vec());
    for k in 1..3 {
        let statistics = axes.iter().enumerate().map(|(at, axis)| axis.clone().filter(|_| at < from));
        step.set(k, statistics.collect());
    }
}

/// Over neighbouring channels, or over an axis.
pub(super) fn along(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let axis = match step.proto().op_type() {
        "LRN" => 1,
        _ => wrap(step.proto().int("axis").unwrap_or(-1), axes.len()).unwrap_or(0),
    };
    if step.proto().op_type() == "MeanVarianceNormalization" {
        axes[2.min(axes.len())..].iter().for_each(|axis| step.hold_statistic(axis));
    } else {
        step.hold_statistic(&axes[axis]);
    }
    step.set(0, axes);
}

/// Over one axis; before operator set 13 over all axes from it on.
pub(super) fn softmax(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let old = step.opset() < 13;
    let axis = wrap(step.proto().int("axis").unwrap_or(if old { 1 } else { -1 }), axes.len()).unwrap_or(0);
    let over = if old { &axes[axis..] } else { &axes[axis..=axis] };
    for axis in over {
        step.hold_statistic(axis);
    }
    step.set(0, axes);
}
