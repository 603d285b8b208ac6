//! Operators that pick elements.

use super::{Found, Miss, Op, Outputs, axis, ensure, length, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    Some(match op.node.op_type() {
        "Gather" => gather(op),
        "GatherElements" => op.dims(1).map(|dims| one(dims.to_vec())),
        "GatherND" => gather_nd(op),
        "TopK" => top(op),
        "OneHot" => one_hot(op),
        _ => return None,
    })
}

fn gather(op: &Op<'_>) -> Found<Outputs> {
    let (dims, indices) = (op.dims(0)?, op.dims(1)?);
    let at = axis(op.int("axis", 0), dims.len())?;
    Ok(one([&dims[..at], indices, &dims[at + 1..]].concat()))
}

fn gather_nd(op: &Op<'_>) -> Found<Outputs> {
    let (dims, indices) = (op.dims(0)?, op.dims(1)?);
    let batch = length(op.int("batch_dims", 0).into())?;
    let (&depth, outer) = indices.split_last().ok_or(Miss::Wrong)?;
    let rest = batch.checked_add(depth).and_then(|from| dims.get(from..)).ok_or(Miss::Wrong)?;
    Ok(one([outer, rest].concat()))
}

fn top(op: &Op<'_>) -> Found<Outputs> {
    let mut dims = op.dims(0)?.to_vec();
    let at = axis(op.int("axis", -1), dims.len())?;
    let count = if op.has(1) { length(op.scalar(1)? as i128)? } else { op.count("k")? };
    ensure(count <= dims[at])?;
    dims[at] = count;
    Ok(vec![Some(dims.clone()), Some(dims)])
}

fn one_hot(op: &Op<'_>) -> Found<Outputs> {
    let mut dims = op.dims(0)?.to_vec();
    let at = axis(op.int("axis", -1), dims.len() + 1)?;
    dims.insert(at, length(op.scalar(1)? as i128)?);
    Ok(one(dims))
}
