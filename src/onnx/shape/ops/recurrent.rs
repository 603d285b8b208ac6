//! Recurrent operators.

use super::{Found, Miss, Op, Outputs, ensure, length};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    match op.node.op_type() {
        "LSTM" | "GRU" | "RNN" | "DynamicQuantizeLSTM" => Some(recurrent(op)),
        _ => None,
    }
}

/// All steps, the last state, and the last cell of an LSTM.
fn recurrent(op: &Op<'_>) -> Found<Outputs> {
    let &[first, second, _] = op.dims(0)? else { return Err(Miss::Wrong) };
    let hidden = match op.node.int("hidden_size") {
        Some(hidden) => length(hidden.into())?,
        None => *op.dims(2)?.get(2).ok_or(Miss::Wrong)?,
    };
    let directions = if op.node.text("direction") == Some("bidirectional") { 2 } else { 1 };
    if let Ok(weights) = op.dims(1) {
        ensure(weights.first() == Some(&directions))?;
    }
    let (all, last) = if op.flag("layout") {
        (vec![first, second, directions, hidden], vec![first, directions, hidden])
    } else {
        (vec![first, directions, second, hidden], vec![directions, second, hidden])
    };
    Ok(vec![Some(all), Some(last.clone()), Some(last)])
}
