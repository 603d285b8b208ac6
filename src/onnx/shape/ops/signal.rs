//! Operators on sound.

use super::{Found, Miss, Op, Outputs, axis, ensure, length, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    let dims = match op.node.op_type() {
        "DFT" => transform(op),
        "STFT" => frames(op),
        "MelWeightMatrix" => mel(op),
        _ => return None,
    };
    Some(dims.map(one))
}

fn transform(op: &Op<'_>) -> Found<Vec<usize>> {
    let mut dims = op.dims(0)?.to_vec();
    let at = match op.opset {
        ..20 => op.int("axis", 1),
        _ if op.has(2) => op.scalar(2)? as i64,
        _ => -2,
    };
    let at = axis(at, dims.len())?;
    if op.has(1) {
        dims[at] = length(op.scalar(1)? as i128)?;
    }
    if op.flag("onesided") {
        dims[at] = dims[at] / 2 + 1;
    }
    *dims.last_mut().ok_or(Miss::Wrong)? = 2;
    Ok(dims)
}

fn frames(op: &Op<'_>) -> Found<Vec<usize>> {
    let (&[batch, samples, ..], step) = (op.dims(0)?, length(op.scalar(1)? as i128)?) else {
        return Err(Miss::Wrong);
    };
    let frame = match (op.has(3), op.has(2)) {
        (true, _) => length(op.scalar(3)? as i128)?,
        (_, true) => *op.dims(2)?.first().ok_or(Miss::Wrong)?,
        _ => return Err(Miss::Wrong),
    };
    ensure(step > 0 && frame > 0 && samples >= frame)?;
    let bins = if op.int("onesided", 1) != 0 { frame / 2 + 1 } else { frame };
    Ok(vec![batch, (samples - frame) / step + 1, bins, 2])
}

fn mel(op: &Op<'_>) -> Found<Vec<usize>> {
    Ok(vec![length(op.scalar(1)? as i128 / 2 + 1)?, length(op.scalar(0)? as i128)?])
}
