//! Operators that cut axes or add to them.

use super::{Found, Miss, Op, Outputs, axes, ensure, length, one};

/// What is taken along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Cut {
    pub(in super::super) start: usize,
    pub(in super::super) step: i64,
    pub(in super::super) length: usize,
}

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    let dims = match op.node.op_type() {
        "Slice" => {
            op.dims(0).and_then(|dims| Ok(cuts(op, dims)?.into_iter().map(|cut| cut.length).collect()))
        }
        "Pad" => pad(op),
        "CenterCropPad" => crop(op),
        _ => return None,
    };
    Some(dims.map(one))
}

/// What a slice takes along each axis.
pub(in super::super) fn cuts(op: &Op<'_>, dims: &[usize]) -> Found<Vec<Cut>> {
    let starts = op.input_or_list(1, "starts")?.ok_or(Miss::Unknown)?;
    let ends = op.input_or_list(2, "ends")?.ok_or(Miss::Unknown)?;
    let along = match op.input_or_list(3, "axes")? {
        Some(list) => axes(&list, dims.len())?,
        None => (0..starts.len()).collect(),
    };
    let steps = if op.has(4) { op.ints(4)? } else { vec![1; starts.len()] };
    ensure(starts.len() == ends.len() && starts.len() == along.len() && starts.len() == steps.len())?;
    let mut cuts: Vec<Cut> = dims.iter().map(|&length| Cut { start: 0, step: 1, length }).collect();
    for (at, axis) in along.into_iter().enumerate() {
        *cuts.get_mut(axis).ok_or(Miss::Wrong)? = cut(dims[axis], starts[at], ends[at], steps[at])?;
    }
    Ok(cuts)
}

fn cut(whole: usize, start: i64, end: i64, step: i64) -> Found<Cut> {
    ensure(step != 0)?;
    let whole = whole as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(whole) } else { at };
    // Backwards, the place before the first element is an end too.
    let (low, high) = if step > 0 { (0, whole) } else { (-1, whole - 1) };
    let start = from_front(start).clamp(low.max(0).min(high), high);
    let end = from_front(end).clamp(low, high);
    let span = if step > 0 { end - start } else { start - end };
    let length = if span <= 0 { 0 } else { (span as u64).div_ceil(step.unsigned_abs()) as usize };
    Ok(Cut { start: usize::try_from(start).unwrap_or(0), step, length })
}

fn pad(op: &Op<'_>) -> Found<Vec<usize>> {
    let dims = op.dims(0)?;
    let pads = match op.input_or_list(1, "pads")? {
        Some(pads) => pads,
        None => op.node.ints("paddings").ok_or(Miss::Unknown)?.to_vec(),
    };
    let along = if op.has(3) { axes(&op.ints(3)?, dims.len())? } else { (0..dims.len()).collect() };
    ensure(pads.len() == 2 * along.len())?;
    let reflects = op.node.text("mode") == Some("reflect");
    let mut out = dims.to_vec();
    for (at, &axis) in along.iter().enumerate() {
        let (before, after) = (i128::from(pads[at]), i128::from(pads[at + along.len()]));
        let whole = dims[axis] as i128;
        ensure(!reflects || before.max(after) < whole.max(1))?;
        out[axis] = length(whole + before + after)?;
    }
    Ok(out)
}

fn crop(op: &Op<'_>) -> Found<Vec<usize>> {
    let (dims, wanted) = (op.dims(0)?, op.ints(1)?);
    let along = match op.node.ints("axes") {
        Some(list) => axes(list, dims.len())?,
        None => (0..dims.len()).collect(),
    };
    ensure(along.len() == wanted.len())?;
    let mut out = dims.to_vec();
    for (axis, wanted) in along.into_iter().zip(wanted) {
        out[axis] = length(wanted.into())?;
    }
    Ok(out)
}
