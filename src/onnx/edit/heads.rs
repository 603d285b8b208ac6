//! Attributes that count heads or groups.

use std::ops::Range;

use crate::Result;
use crate::onnx::edit::Edit;
use crate::onnx::view::TensorId;

pub(super) fn rewrite(edit: &mut Edit<'_>, node: usize, operator: &str) -> Result<()> {
    match operator {
        "GroupNormalization" => groups(edit, node, "num_groups", 1),
        "com.microsoft.GroupNorm" => {
            let last = edit.view.nodes[node].proto.int("channels_last").unwrap_or(1) != 0;
            groups(edit, node, "groups", if last { -1 } else { 1 })
        }
        "com.microsoft.Attention" => packed(edit, node),
        "com.microsoft.GroupQueryAttention" => grouped_query(edit, node),
        "Attention" => {
            heads(edit, node, 0, "q_num_heads")?;
            heads(edit, node, 1, "kv_num_heads")
        }
        "com.microsoft.MultiHeadAttention" | "com.microsoft.RotaryEmbedding" | "RotaryEmbedding" => {
            heads(edit, node, 0, "num_heads")
        }
        _ => Ok(()),
    }
}

fn input(edit: &Edit<'_>, node: usize, input: usize) -> Option<TensorId> {
    edit.view.nodes[node].inputs.get(input).copied().flatten()
}

/// Groups of channels: those that lose all of theirs are no more, the others keep equal numbers.
fn groups(edit: &mut Edit<'_>, node: usize, name: &str, axis: i64) -> Result<()> {
    let Some(data) = input(edit, node, 0) else { return Ok(()) };
    let Some(dims) = edit.dims(data) else { return Ok(()) };
    let axis = usize::try_from(axis.rem_euclid(dims.len().max(1) as i64)).unwrap_or_default();
    let (Some(kept), Some(count)) = (edit.positions_of(data, axis), edit.view.nodes[node].proto.int(name))
    else {
        return Ok(());
    };
    let count = usize::try_from(count).unwrap_or_default().max(1);
    let mut left = counts(&kept, 0..dims[axis], count);
    left.retain(|&n| n > 0);
    if left.iter().any(|&n| n != left[0]) {
        return Err(edit.stuck(node, &format!("its groups would keep {left:?} channels")));
    }
    edit.draft.node(edit.view, node)?.set_int(name, left.len() as i64);
    Ok(())
}

/// Heads of a tensor [samples, times, heads · size].
fn heads(edit: &mut Edit<'_>, node: usize, at: usize, name: &str) -> Result<()> {
    let count = edit.view.nodes[node].proto.int(name).filter(|&n| n > 0);
    let (Some(data), Some(count)) = (input(edit, node, at), count) else { return Ok(()) };
    let Some(dims) = edit.dims(data) else { return Ok(()) };
    // With four axes heads have their own; packed, [samples, times, heads, 3, size], they do too.
    let axis = match dims.len() {
        3 | 5 => 2,
        4 => 1,
        _ => return Ok(()),
    };
    let Some(kept) = edit.positions_of(data, axis) else { return Ok(()) };
    let left = whole(edit, node, &kept, 0..dims[axis], count as usize)?;
    edit.draft.node(edit.view, node)?.set_int(name, left as i64);
    Ok(())
}

/// Weights [in, q + k + v]: the sizes of the three are an attribute where they are not equal.
fn packed(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let proto = edit.view.nodes[node].proto;
    let (Some(weights), Some(count)) = (input(edit, node, 1), proto.int("num_heads").filter(|&n| n > 0))
    else {
        return Ok(());
    };
    let Some(&[_, len]) = edit.dims(weights) else { return Ok(()) };
    let Some(kept) = edit.positions_of(weights, 1) else { return Ok(()) };
    let given = proto.ints("qkv_hidden_sizes").filter(|sizes| sizes.len() == 3);
    let sizes = given.map_or(vec![len / 3; 3], |sizes| sizes.iter().map(|&n| n.max(0) as usize).collect());
    let (mut start, mut after, mut left) = (0, Vec::new(), Vec::new());
    for size in &sizes {
        let part = start..size.saturating_add(start);
        after.push(kept.iter().filter(|at| part.contains(at)).count() as i64);
        left.push(whole(edit, node, &kept, part, count as usize)?);
        start = size.saturating_add(start);
    }
    if left.iter().any(|&n| n != left[0]) {
        return Err(
            edit.stuck(node, &format!("{left:?} heads would be left of its queries, keys and values"))
        );
    }
    let proto = edit.draft.node(edit.view, node)?;
    proto.set_int("num_heads", left[0] as i64);
    if given.is_some() {
        proto.set_ints("qkv_hidden_sizes", after);
    }
    Ok(())
}

/// Keys and values have tensors of their own, or lie behind the queries in one.
fn grouped_query(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    if input(edit, node, 1).is_some() {
        heads(edit, node, 0, "num_heads")?;
        return heads(edit, node, 1, "kv_num_heads");
    }
    let proto = edit.view.nodes[node].proto;
    let of = |name| proto.int(name).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let (Some(queries), Some(keys), Some(data)) = (of("num_heads"), of("kv_num_heads"), input(edit, node, 0))
    else {
        return Ok(());
    };
    let Some(&[_, _, len]) = edit.dims(data) else { return Ok(()) };
    let Some(kept) = edit.positions_of(data, 2) else { return Ok(()) };
    let size = len / (queries + 2 * keys);
    let (q, k) = (queries * size, keys * size);
    let queries = whole(edit, node, &kept, 0..q, queries)?;
    let left = [whole(edit, node, &kept, q..q + k, keys)?, whole(edit, node, &kept, q + k..q + 2 * k, keys)?];
    if left[0] != left[1] {
        return Err(edit.stuck(node, &format!("{left:?} heads would be left of its keys and values")));
    }
    let proto = edit.draft.node(edit.view, node)?;
    proto.set_int("num_heads", queries as i64);
    proto.set_int("kv_num_heads", left[0] as i64);
    Ok(())
}

/// How many positions stay of each of the equal parts of a range.
fn counts(kept: &[usize], range: Range<usize>, parts: usize) -> Vec<usize> {
    let size = (range.len() / parts).max(1);
    let mut counts = vec![0; parts];
    for at in kept.iter().filter(|at| range.contains(at)) {
        if let Some(count) = counts.get_mut((at - range.start) / size) {
            *count += 1;
        }
    }
    counts
}

/// How many of the heads in a range stay: each whole, or not at all, as its size is in the scale of its scores.
fn whole(edit: &Edit<'_>, node: usize, kept: &[usize], range: Range<usize>, heads: usize) -> Result<usize> {
    let size = range.len() / heads;
    let left = counts(kept, range, heads);
    match left.iter().find(|&&n| n > 0 && n != size) {
        Some(n) => Err(edit.stuck(node, &format!("a head would keep {n} of its {size} features"))),
        None => Ok(left.iter().filter(|&&n| n > 0).count()),
    }
}
