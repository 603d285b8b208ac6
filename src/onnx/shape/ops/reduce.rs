//! Operators that take axes together.

use super::{Found, Op, Outputs, axes, axis, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    Some(match op.node.op_type() {
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => op
            .dims(0)
            .and_then(|dims| Ok(one(without(dims, &reduced(op, dims.len())?, op.int("keepdims", 1))))),
        "ArgMax" | "ArgMin" => op.dims(0).and_then(|dims| {
            let at = axis(op.int("axis", 0), dims.len())?;
            Ok(one(without(dims, &[at], op.int("keepdims", 1))))
        }),
        _ => return None,
    })
}

/// The axes that go.
pub(in super::super) fn reduced(op: &Op<'_>, rank: usize) -> Found<Vec<usize>> {
    match op.input_or_list(1, "axes")? {
        Some(list) if !list.is_empty() => axes(&list, rank),
        _ if op.flag("noop_with_empty_axes") => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

fn without(dims: &[usize], gone: &[usize], keep: i64) -> Vec<usize> {
    let length = |(at, &length): (usize, &usize)| match (gone.contains(&at), keep != 0) {
        (false, _) => Some(length),
        (true, true) => Some(1),
        (true, false) => None,
    };
    dims.iter().enumerate().filter_map(length).collect()
}
