//! Attention in one node: heads are its units.

use crate::onnx::trace::Axis;
use crate::onnx::trace::step::{Role, Step};

/// What the fused operators' settings call their numbers of heads: of queries, and of keys and values.
fn heads(step: &Step<'_, '_, '_>) -> Option<(usize, usize)> {
    let int = |name| step.proto().int(name).filter(|&n| n > 0).map(|n| n as usize);
    let queries = int("num_heads").or_else(|| int("q_num_heads"))?;
    let keys = int("kv_num_heads").unwrap_or(queries);
    queries.is_multiple_of(keys).then_some((queries, keys))
}

pub(super) fn fused(step: &mut Step<'_, '_, '_>) {
    if step.proto().op_type() == "Attention" && step.proto().domain.as_deref() == Some("com.microsoft") {
        return packed(step);
    }
    // Heads on an axis of their own (operator set 23 takes both forms).
    if step.dims(0).len() == 4 {
        return apart(step);
    }
    let Some((queries, keys)) = heads(step) else { return step.stop("its heads are not known") };
    let past = step.node().inputs.iter().skip(3).flatten().count();
    let (q, k, v) = (step.axis(0, 2), step.axis(1, 2), step.axis(2, 2));
    if step.dims(1).len() != 3 || step.dims(2).len() != 3 {
        return step.stop("queries, keys and values come packed");
    }
    let units = {
        let of_q = by_head(step, &q, queries);
        // Queries that share a key go with it.
        step.gather(&of_q, keys, |head| head / (queries / keys))
    };
    for axis in [&k, &v] {
        let own = by_head(step, axis, keys);
        step.join(&units, &own);
    }
    if past > 0 {
        for input in 3..step.node().inputs.len() {
            for axis in step.axes(input) {
                step.hold(&axis, "it is part of a fused attention");
            }
        }
        // What is kept of the past has a number of heads of its own.
        if step.node().inputs.iter().skip(3).flatten().any(|&t| step.dims_of(t).len() == 4) {
            step.hold(&units, "the past keeps its heads");
        }
    }
    let size = step.out_dims(0).get(2).map_or(0, |len| len / queries);
    let of_head = Step::spread(&units, 1, queries / keys);
    let out = Step::spread(&of_head, 1, size);
    step.set(0, vec![step.axis(0, 0), step.axis(0, 1), out]);
}

/// Queries, keys and values of [samples, heads, times, size].
fn apart(step: &mut Step<'_, '_, '_>) {
    if step.dims(1).len() != 4 || step.dims(2).len() != 4 {
        return step.stop("its shapes do not fit");
    }
    let (q, k, v) = (step.axis(0, 1), step.axis(1, 1), step.axis(2, 1));
    let (queries, keys) = (step.dims(0)[1], step.dims(1)[1].max(1));
    let units = step.gather(&q, keys, |head| head / (queries / keys).max(1));
    step.join(&units, &k);
    step.join(&units, &v);
    let last = step.axis(2, 3);
    for axis in [step.axis(0, 3), step.axis(1, 3), last] {
        step.hold(&axis, "heads go whole");
    }
    step.set(0, vec![None, q, None, None]);
}

/// com.microsoft.Attention: one matrix [features, 3·heads·size] for queries, keys and values.
fn packed(step: &mut Step<'_, '_, '_>) {
    let Some((heads, _)) = heads(step) else { return step.stop("its heads are not known") };
    step.weight(1, Role::Linear, [1, 0], Some(0));
    let (features, rows) = (step.axis(0, 2), step.axis(1, 0));
    step.join(&features, &rows);
    let columns = step.axis(1, 1);
    let len = step.dims(1).get(1).copied().unwrap_or(0);
    if !len.is_multiple_of(3 * heads) || step.proto().ints("qkv_hidden_sizes").is_some() {
        return step.stop("its heads are of different sizes");
    }
    let size = len / (3 * heads);
    let units = step.gather(&columns, heads, |column| column / size % heads);
    let bias = step.axis(2, 0);
    step.join(&columns, &bias);
    for input in 3..step.node().inputs.len() {
        for axis in step.axes(input) {
            step.hold(&axis, "it is part of a fused attention");
        }
    }
    step.set(0, vec![step.axis(0, 0), step.axis(0, 1), Step::spread(&units, 1, size)]);
}

/// The classes of heads on an axis of heads·size.
fn by_head(step: &mut Step<'_, '_, '_>, axis: &Axis, heads: usize) -> Axis {
    let size = axis.as_ref().map_or(0, |axis| axis.len()) / heads;
    if size == 0 { None } else { step.gather(axis, heads, |at| at / size) }
}

/// Turns within each head.
pub(super) fn rotary(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    match axes.len() {
        4 => step.hold(&axes[3], "places within a head depend on each other"),
        _ => match heads(step) {
            Some((heads, _)) => {
                by_head(step, &axes[2], heads);
            }
            None => step.hold(&axes[axes.len() - 1], "its heads are not known"),
        },
    }
    for input in 1..step.node().inputs.len() {
        for axis in step.axes(input) {
            step.hold(&axis, "it turns places within a head");
        }
    }
    step.set(0, axes);
}
