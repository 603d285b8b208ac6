//! Operators that stretch axes.

use super::{Found, Miss, Op, Outputs, axes, ensure, length, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    let dims = match op.node.op_type() {
        "Resize" if op.opset < 11 => scaled(op, scales(op, 1)),
        "Resize" => resize(op),
        "Upsample" => scaled(op, scales(op, 1)),
        _ => return None,
    };
    Some(dims.map(one))
}

/// Factors from an input, or from an attribute in old files.
fn scales(op: &Op<'_>, at: usize) -> Found<Vec<f32>> {
    if op.has(at) {
        return Ok(op.value(at)?.numbers().map(|x| x as f32).collect());
    }
    let list = op.node.attr("scales").map(|a| a.floats.clone());
    list.filter(|list| !list.is_empty()).ok_or(Miss::Unknown)
}

fn resize(op: &Op<'_>) -> Found<Vec<usize>> {
    // Exporters give an empty tensor for the one of scales and sizes that is not used.
    let given = |at: usize| op.has(at) && op.dims(at) != Ok(&[0]);
    if given(3) { sized(op) } else { scaled(op, scales(op, 2)) }
}

fn scaled(op: &Op<'_>, scales: Found<Vec<f32>>) -> Found<Vec<usize>> {
    let (dims, scales) = (op.dims(0)?, scales?);
    let along = along(op, dims.len())?;
    ensure(along.len() == scales.len())?;
    let mut out = dims.to_vec();
    for (axis, scale) in along.into_iter().zip(scales) {
        // In f32, as the runtimes compute it.
        let stretched = (dims[axis] as f32 * scale).floor();
        ensure(scale > 0.0 && stretched.is_finite())?;
        out[axis] = length(stretched as i128)?;
    }
    Ok(out)
}

fn sized(op: &Op<'_>) -> Found<Vec<usize>> {
    let (dims, sizes) = (op.dims(0)?, op.ints(3)?);
    let along = along(op, dims.len())?;
    ensure(along.len() == sizes.len())?;
    let sizes: Vec<usize> = sizes.into_iter().map(|n| length(n.into())).collect::<Found<_>>()?;
    let factors = along.iter().zip(&sizes).map(|(&axis, &size)| size as f32 / dims[axis] as f32);
    let factor = match op.node.text("keep_aspect_ratio_policy") {
        Some("not_larger") => factors.reduce(f32::min),
        Some("not_smaller") => factors.reduce(f32::max),
        _ => None,
    };
    let mut out = dims.to_vec();
    for (axis, size) in along.into_iter().zip(sizes) {
        out[axis] = match factor {
            Some(factor) => length((dims[axis] as f32 * factor).round() as i128)?,
            None => size,
        };
    }
    Ok(out)
}

fn along(op: &Op<'_>, rank: usize) -> Found<Vec<usize>> {
    match op.node.ints("axes") {
        Some(list) if !list.is_empty() => axes(list, rank),
        _ => Ok((0..rank).collect()),
    }
}
