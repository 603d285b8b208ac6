//! Convolutions.

use super::window::Window;
use super::{Found, Miss, Op, Outputs, ensure, length, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    let dims = match op.node.op_type() {
        "Conv" | "ConvInteger" | "FusedConv" | "DeformConv" => conv(op, 1),
        "QLinearConv" => conv(op, 3),
        "ConvTranspose" | "ConvTransposeWithDynamicPads" => transpose(op),
        _ => return None,
    };
    Some(dims.map(one))
}

fn conv(op: &Op<'_>, kernel: usize) -> Found<Vec<usize>> {
    let (dims, kernel) = (op.dims(0)?, op.dims(kernel)?);
    let ([batch, channels, spatial @ ..], [out, of_group, sides @ ..]) = (dims, kernel) else {
        return Err(Miss::Wrong);
    };
    let groups = length(op.int("group", 1).into())?;
    ensure(spatial.len() == sides.len() && of_group.checked_mul(groups) == Some(*channels))?;
    ensure(groups > 0 && out % groups == 0)?;
    let window = Window::new(op, sides_of(op, sides)?)?;
    let mut dims = vec![*batch, *out];
    for (at, &whole) in spatial.iter().enumerate() {
        dims.push(window.count(at, whole)?);
    }
    Ok(dims)
}

fn transpose(op: &Op<'_>) -> Found<Vec<usize>> {
    let (dims, kernel) = (op.dims(0)?, op.dims(1)?);
    let ([batch, channels, spatial @ ..], [into, of_group, sides @ ..]) = (dims, kernel) else {
        return Err(Miss::Wrong);
    };
    ensure(spatial.len() == sides.len() && channels == into)?;
    let out = length(i128::from(op.int("group", 1)) * *of_group as i128)?;
    let mut all = vec![*batch, out];
    if let Some(wanted) = op.node.ints("output_shape").filter(|list| !list.is_empty()) {
        // Some exporters put batch and channels in front.
        let wanted = &wanted[wanted.len().saturating_sub(spatial.len())..];
        ensure(wanted.len() == spatial.len())?;
        for &wanted in wanted {
            all.push(length(wanted.into())?);
        }
        return Ok(all);
    }
    let window = Window::new(op, sides_of(op, sides)?)?;
    let more = op.list("output_padding", spatial.len(), 0)?;
    for (at, &whole) in spatial.iter().enumerate() {
        all.push(window.spread(at, whole, more[at])?);
    }
    Ok(all)
}

/// The kernel's sides, which an attribute may repeat.
fn sides_of(op: &Op<'_>, sides: &[usize]) -> Found<Vec<i64>> {
    let sides: Vec<i64> = sides.iter().map(|&side| side as i64).collect();
    match op.node.ints("kernel_shape") {
        Some(list) if !list.is_empty() => ensure(list == sides)?,
        _ => {}
    }
    Ok(sides)
}
