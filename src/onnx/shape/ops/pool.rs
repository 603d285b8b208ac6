//! Poolings.

use super::window::Window;
use super::{Found, Miss, Op, Outputs, ensure, length, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    Some(match op.node.op_type() {
        "MaxPool" => pool(op).map(|dims| vec![Some(dims.clone()), Some(dims)]),
        "AveragePool" | "LpPool" | "QLinearAveragePool" => pool(op).map(one),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" | "QLinearGlobalAveragePool" => global(op),
        "MaxUnpool" => unpool(op),
        "MaxRoiPool" => regions(op, op.node.ints("pooled_shape").unwrap_or_default(), 1),
        "RoiAlign" => regions(op, &[op.int("output_height", 1), op.int("output_width", 1)], 1),
        "GridSample" => grid(op),
        "AffineGrid" => affine_grid(op),
        "Col2Im" => columns(op),
        _ => return None,
    })
}

fn pool(op: &Op<'_>) -> Found<Vec<usize>> {
    let [batch, channels, spatial @ ..] = op.dims(0)? else { return Err(Miss::Wrong) };
    ensure(!op.flag("channels_last"))?;
    let kernel = op.node.ints("kernel_shape").ok_or(Miss::Wrong)?.to_vec();
    ensure(kernel.len() == spatial.len())?;
    let window = Window::new(op, kernel)?;
    let mut dims = vec![*batch, *channels];
    for (at, &whole) in spatial.iter().enumerate() {
        dims.push(window.count(at, whole)?);
    }
    Ok(dims)
}

fn global(op: &Op<'_>) -> Found<Outputs> {
    let mut dims = op.dims(0)?.to_vec();
    ensure(dims.len() >= 2 && !op.flag("channels_last"))?;
    dims[2..].fill(1);
    Ok(one(dims))
}

fn unpool(op: &Op<'_>) -> Found<Outputs> {
    if op.has(2) {
        let dims = op.ints(2)?.into_iter().map(|n| length(n.into()));
        return Ok(one(dims.collect::<Found<_>>()?));
    }
    let [batch, channels, spatial @ ..] = op.dims(0)? else { return Err(Miss::Wrong) };
    let kernel = op.node.ints("kernel_shape").ok_or(Miss::Wrong)?.to_vec();
    ensure(kernel.len() == spatial.len())?;
    let window = Window::new(op, kernel)?;
    let mut dims = vec![*batch, *channels];
    for (at, &whole) in spatial.iter().enumerate() {
        dims.push(window.spread(at, whole, 0)?);
    }
    Ok(one(dims))
}

/// A small map for each of the boxes that an input lists.
fn regions(op: &Op<'_>, sides: &[i64], boxes: usize) -> Found<Outputs> {
    let (dims, boxes) = (op.dims(0)?, op.dims(boxes)?);
    let mut all = vec![*boxes.first().ok_or(Miss::Wrong)?, *dims.get(1).ok_or(Miss::Wrong)?];
    for &side in sides {
        all.push(length(side.into())?);
    }
    Ok(one(all))
}

fn grid(op: &Op<'_>) -> Found<Outputs> {
    let ([batch, channels, ..], [_, sides @ .., _]) = (op.dims(0)?, op.dims(1)?) else {
        return Err(Miss::Wrong);
    };
    Ok(one([&[*batch, *channels], sides].concat()))
}

fn affine_grid(op: &Op<'_>) -> Found<Outputs> {
    let size = op.ints(1)?;
    let [batch, _, sides @ ..] = size.as_slice() else { return Err(Miss::Wrong) };
    let mut dims = vec![length((*batch).into())?];
    for &side in sides {
        dims.push(length(side.into())?);
    }
    dims.push(sides.len());
    Ok(one(dims))
}

fn columns(op: &Op<'_>) -> Found<Outputs> {
    let (&[batch, rows, _], sides, block) = (op.dims(0)?, op.ints(1)?, op.ints(2)?) else {
        return Err(Miss::Wrong);
    };
    let area = block.iter().try_fold(1i64, |area, &side| area.checked_mul(side)).ok_or(Miss::Wrong)?;
    let area = length(area.into())?;
    ensure(area > 0 && rows % area == 0)?;
    let mut dims = vec![batch, rows / area];
    for side in sides {
        dims.push(length(side.into())?);
    }
    Ok(one(dims))
}
