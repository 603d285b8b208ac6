//! Attention in one node.

use super::{Found, Miss, Op, Outputs, ensure, length};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    Some(match op.node.op_type() {
        "Attention" if op.is_microsoft() => packed(op),
        "Attention" => standard(op),
        "MultiHeadAttention" => multi_head(op),
        "GroupQueryAttention" => grouped(op),
        "EmbedLayerNormalization" => embed(op),
        _ => return None,
    })
}

/// Batch, heads, steps and numbers a head of a query, key or value with heads on an axis of their own or not.
fn heads(dims: &[usize], count: Option<usize>) -> Found<[usize; 4]> {
    match (dims, count) {
        (&[batch, heads, steps, size], _) => Ok([batch, heads, steps, size]),
        (&[batch, steps, all], Some(heads)) if heads > 0 && all % heads == 0 => {
            Ok([batch, heads, steps, all / heads])
        }
        _ => Err(Miss::Wrong),
    }
}

/// Of ONNX: the result, keys and values with those of the past in front, and the scores.
fn standard(op: &Op<'_>) -> Found<Outputs> {
    let (query, key, value) = (op.dims(0)?, op.dims(1)?, op.dims(2)?);
    let (of_query, of_key) = (op.count("q_num_heads").ok(), op.count("kv_num_heads").ok());
    let [batch, query_heads, steps, _] = heads(query, of_query)?;
    let [_, key_heads, key_steps, key_size] = heads(key, of_key)?;
    let [_, value_heads, _, value_size] = heads(value, of_key)?;
    let past = if op.has(4) { *op.dims(4)?.get(2).ok_or(Miss::Wrong)? } else { 0 };
    let total = past + key_steps;
    let result = if query.len() == 3 {
        vec![batch, steps, query_heads.checked_mul(value_size).ok_or(Miss::Unknown)?]
    } else {
        vec![batch, query_heads, steps, value_size]
    };
    Ok(vec![
        Some(result),
        Some(vec![batch, key_heads, total, key_size]),
        Some(vec![batch, value_heads, total, value_size]),
        Some(vec![batch, query_heads, steps, total]),
    ])
}

/// Of ONNX Runtime, with the projections inside.
fn packed(op: &Op<'_>) -> Found<Outputs> {
    let (&[batch, steps, _], &[_, all]) = (op.dims(0)?, op.dims(1)?) else { return Err(Miss::Wrong) };
    let hidden = match op.node.ints("qkv_hidden_sizes") {
        Some(&[_, _, value]) => length(value.into())?,
        _ => all / 3,
    };
    let heads = op.count("num_heads")?;
    ensure(heads > 0)?;
    let mut past = if op.has(4) { op.dims(4)?.to_vec() } else { vec![2, batch, heads, 0, hidden / heads] };
    let with_past =
        past.get_mut(3).map(|length| *length += if op.flag("past_present_share_buffer") { 0 } else { steps });
    let present = with_past.map(|()| past);
    Ok(vec![Some(vec![batch, steps, hidden]), present])
}

/// Of ONNX Runtime, with queries, keys and values apart or in one tensor.
fn multi_head(op: &Op<'_>) -> Found<Outputs> {
    let query = op.dims(0)?;
    let heads = op.count("num_heads")?;
    ensure(heads > 0 && query.len() >= 3)?;
    let (batch, steps) = (query[0], query[1]);
    let of_query = if let &[_, _, heads, 3, size] = query { heads.checked_mul(size) } else { Some(query[2]) };
    let of_query = of_query.ok_or(Miss::Unknown)?;
    let (hidden, key_steps) = match (op.dims(1), op.dims(2)) {
        (_, Ok(&[_, steps, hidden])) => (hidden, steps),
        (_, Ok(&[_, heads, steps, size])) => (heads.checked_mul(size).ok_or(Miss::Unknown)?, steps),
        (Ok(&[_, steps, ..]), _) if !op.has(2) => (of_query, steps),
        _ if op.has(1) => return Err(Miss::Unknown),
        _ => (of_query, steps),
    };
    let past = if op.has(6) { *op.dims(6)?.get(2).ok_or(Miss::Wrong)? } else { 0 };
    let present = |hidden: usize| Some(vec![batch, heads, past + key_steps, hidden / heads]);
    Ok(vec![Some(vec![batch, steps, hidden]), present(of_query), present(hidden)])
}

/// Of ONNX Runtime: several heads of the query share one of key and value.
fn grouped(op: &Op<'_>) -> Found<Outputs> {
    let &[batch, steps, all] = op.dims(0)? else { return Err(Miss::Wrong) };
    let (heads, shared) = (op.count("num_heads")?, op.count("kv_num_heads")?);
    ensure(heads > 0 && shared > 0)?;
    // Without keys, they and the values follow the queries in one tensor.
    let parts =
        if op.has(1) { Some(heads) } else { shared.checked_mul(2).and_then(|n| n.checked_add(heads)) };
    let size = all / parts.ok_or(Miss::Wrong)?;
    let hidden = heads.checked_mul(size).ok_or(Miss::Unknown)?;
    let past = match op.dims(3) {
        Ok(dims) => Some(*dims.get(2).ok_or(Miss::Wrong)?),
        Err(_) if op.has(3) => None,
        Err(_) => Some(0),
    };
    // The total says whether the past is a buffer that has room for the new steps.
    let total = match (past, op.scalar(6)) {
        (Some(past), Ok(total)) => Some(past.max(length(total as i128)?)),
        (Some(past), Err(_)) => Some(past + steps),
        (None, _) => None,
    };
    let present = total.map(|total| vec![batch, shared, total, size]);
    Ok(vec![Some(vec![batch, steps, hidden]), present.clone(), present])
}

fn embed(op: &Op<'_>) -> Found<Outputs> {
    let (&[batch, steps], &[_, hidden]) = (op.dims(0)?, op.dims(2)?) else { return Err(Miss::Wrong) };
    let sum = vec![batch, steps, hidden];
    Ok(vec![Some(sum.clone()), Some(vec![batch]), Some(sum)])
}
