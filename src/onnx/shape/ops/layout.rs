//! Operators that lay out the same elements in other axes, or repeat them.

use super::{Found, Miss, Op, Outputs, axes, axis, broadcast, ensure, length, one, volume};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    let dims = match op.node.op_type() {
        "Reshape" => reshape(op),
        "Flatten" => flatten(op),
        "Squeeze" => squeeze(op),
        "Unsqueeze" => unsqueeze(op),
        "Transpose" => permuted(op),
        "Expand" => expand(op),
        "Tile" => tile(op),
        "DepthToSpace" => depth_to_space(op),
        "SpaceToDepth" => space_to_depth(op),
        _ => return None,
    };
    Some(dims.map(one))
}

/// The order of a transposition's axes.
pub(in super::super) fn permutation(op: &Op<'_>, rank: usize) -> Found<Vec<usize>> {
    let Some(order) = op.node.ints("perm").filter(|order| !order.is_empty() || rank == 0) else {
        return Ok((0..rank).rev().collect());
    };
    let order = axes(order, rank)?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    ensure(sorted.into_iter().eq(0..rank))?;
    Ok(order)
}

/// 0 copies a length, −1 stands for what is left.
fn reshape(op: &Op<'_>) -> Found<Vec<usize>> {
    let target = if op.has(1) { op.ints(1)? } else { op.node.ints("shape").ok_or(Miss::Unknown)?.to_vec() };
    let copies = !op.flag("allowzero");
    // Without zeros and −1 the input's shape does not matter.
    if target.iter().all(|&length| length > 0 || (length == 0 && !copies)) {
        let dims: Vec<usize> = target.iter().map(|&n| length(n.into())).collect::<Found<_>>()?;
        if let Ok(from) = op.dims(0) {
            ensure(volume(from)? == volume(&dims)?)?;
        }
        return Ok(dims);
    }
    let from = op.dims(0)?;
    let mut dims = Vec::with_capacity(target.len());
    let mut rest = None;
    for (at, &wanted) in target.iter().enumerate() {
        match wanted {
            0 if copies => dims.push(*from.get(at).ok_or(Miss::Wrong)?),
            -1 if rest.is_none() => {
                rest = Some(at);
                dims.push(1);
            }
            wanted => dims.push(length(wanted.into())?),
        }
    }
    let (all, known) = (volume(from)?, volume(&dims)?);
    if let Some(at) = rest {
        ensure(known > 0 && all % known == 0)?;
        dims[at] = all / known;
    } else {
        ensure(all == known)?;
    }
    Ok(dims)
}

fn flatten(op: &Op<'_>) -> Found<Vec<usize>> {
    let dims = op.dims(0)?;
    let at = match op.int("axis", 1) {
        at if at == dims.len() as i64 => dims.len(),
        at => axis(at, dims.len())?,
    };
    Ok(vec![volume(&dims[..at])?, volume(&dims[at..])?])
}

fn squeeze(op: &Op<'_>) -> Found<Vec<usize>> {
    let dims = op.dims(0)?;
    let gone = match op.input_or_list(1, "axes")? {
        Some(list) => axes(&list, dims.len())?,
        None => (0..dims.len()).filter(|&at| dims[at] == 1).collect(),
    };
    ensure(gone.iter().all(|&at| dims[at] == 1))?;
    Ok(dims.iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, &length)| length).collect())
}

fn unsqueeze(op: &Op<'_>) -> Found<Vec<usize>> {
    let dims = op.dims(0)?;
    let list = op.input_or_list(1, "axes")?.ok_or(Miss::Unknown)?;
    let rank = dims.len() + list.len();
    let new = axes(&list, rank)?;
    let mut old = dims.iter();
    let all = (0..rank).map(|at| if new.contains(&at) { Some(1) } else { old.next().copied() });
    let all: Option<Vec<usize>> = all.collect();
    // An axis that is named twice leaves one over.
    all.filter(|_| old.next().is_none()).ok_or(Miss::Wrong)
}

fn permuted(op: &Op<'_>) -> Found<Vec<usize>> {
    let dims = op.dims(0)?;
    Ok(permutation(op, dims.len())?.into_iter().map(|at| dims[at]).collect())
}

fn expand(op: &Op<'_>) -> Found<Vec<usize>> {
    let wanted: Vec<usize> = op.ints(1)?.into_iter().map(|n| length(n.into())).collect::<Found<_>>()?;
    broadcast(&[op.dims(0)?, &wanted])
}

fn tile(op: &Op<'_>) -> Found<Vec<usize>> {
    let (dims, times) = (op.dims(0)?, op.ints(1)?);
    ensure(dims.len() == times.len())?;
    dims.iter().zip(times).map(|(&length, times)| super::length(length as i128 * i128::from(times))).collect()
}

fn depth_to_space(op: &Op<'_>) -> Found<Vec<usize>> {
    let (&[batch, channels, height, width], block) = (op.dims(0)?, op.count("blocksize")?) else {
        return Err(Miss::Wrong);
    };
    let area = block.checked_mul(block).filter(|&area| area > 0).ok_or(Miss::Wrong)?;
    ensure(channels % area == 0)?;
    let stretched = |length: usize| super::length(length as i128 * block as i128);
    Ok(vec![batch, channels / area, stretched(height)?, stretched(width)?])
}

fn space_to_depth(op: &Op<'_>) -> Found<Vec<usize>> {
    let (&[batch, channels, height, width], block) = (op.dims(0)?, op.count("blocksize")?) else {
        return Err(Miss::Wrong);
    };
    ensure(block > 0 && height % block == 0 && width % block == 0)?;
    let area = block as i128 * block as i128;
    let channels = area.checked_mul(channels as i128).ok_or(Miss::Unknown)?;
    Ok(vec![batch, length(channels)?, height / block, width / block])
}
