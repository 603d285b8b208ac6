//! Operators that put tensors together and take them apart.

use super::{Found, Miss, Op, Outputs, axis, ensure, length, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    Some(match op.node.op_type() {
        "Concat" => concat(op, &(0..op.inputs.len()).collect::<Vec<_>>()),
        // Scale and zero point, then a tensor, its scale and its zero point each.
        "QLinearConcat" => concat(op, &(2..op.inputs.len()).step_by(3).collect::<Vec<_>>()),
        "Split" => split(op),
        _ => return None,
    })
}

/// Lengths of the parts along the axis.
pub(in super::super) fn parts(op: &Op<'_>, whole: usize) -> Found<Vec<usize>> {
    if let Some(list) = op.input_or_list(1, "split")? {
        let parts: Vec<usize> = list.iter().map(|&n| length(n.into())).collect::<Found<_>>()?;
        let sum = parts.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        ensure(sum == Some(whole) && parts.len() == op.outputs)?;
        return Ok(parts);
    }
    ensure(op.outputs > 0)?;
    let uneven = op.node.int("num_outputs").is_some();
    ensure(uneven || whole.is_multiple_of(op.outputs))?;
    let part = whole.div_ceil(op.outputs);
    let lengths = (0..op.outputs).map(|at| whole.saturating_sub(at * part).min(part));
    Ok(lengths.collect())
}

fn concat(op: &Op<'_>, inputs: &[usize]) -> Found<Outputs> {
    let dims: Vec<&[usize]> = inputs.iter().map(|&at| op.dims(at)).collect::<Found<_>>()?;
    let mut all = dims.first().ok_or(Miss::Wrong)?.to_vec();
    let at = axis(op.int("axis", 1), all.len())?;
    for dims in &dims[1..] {
        ensure(dims.len() == all.len())?;
        for (here, (into, &length)) in all.iter_mut().zip(*dims).enumerate() {
            if here == at {
                *into = into.checked_add(length).ok_or(Miss::Unknown)?;
            } else {
                ensure(*into == length)?;
            }
        }
    }
    Ok(one(all))
}

fn split(op: &Op<'_>) -> Found<Outputs> {
    let dims = op.dims(0)?;
    let at = axis(op.int("axis", 0), dims.len())?;
    let with = |length: usize| {
        let mut dims = dims.to_vec();
        dims[at] = length;
        Some(dims)
    };
    Ok(parts(op, dims[at])?.into_iter().map(with).collect())
}
