//! What names a size, operator by operator.

use crate::Result;
use crate::model::Parameter;
use crate::onnx::draft;
use crate::onnx::edit::{Edit, heads, indices, values};
use crate::onnx::shape::Origin;
use crate::onnx::trace::rewritten;
use crate::onnx::view::TensorId;

pub(super) fn rewrite(edit: &mut Edit<'_>) -> Result<()> {
    for node in 0..edit.view.nodes.len() {
        match edit.view.nodes[node].proto.operator().as_str() {
            "Conv" | "ConvTranspose" => groups(edit, node)?,
            "Reshape" => reshape(edit, node)?,
            "Expand" => expand(edit, node)?,
            "ConstantOfShape" => filled(edit, node)?,
            "Tile" => tile(edit, node)?,
            "Resize" => resize(edit, node)?,
            "Split" => split(edit, node)?,
            "Slice" => indices::slice(edit, node)?,
            "Gather" => indices::gather(edit, node)?,
            "LSTM" | "GRU" | "RNN" => hidden_size(edit, node)?,
            operator => heads::rewrite(edit, node, operator)?,
        }
    }
    Ok(())
}

/// Lengths of a node's first output before and after, when any changes.
fn output(edit: &Edit<'_>, node: usize) -> Option<(Vec<usize>, Vec<usize>)> {
    let tensor = edit.view.nodes[node].outputs.first().copied().flatten()?;
    changed(edit, tensor)
}

fn changed(edit: &Edit<'_>, tensor: TensorId) -> Option<(Vec<usize>, Vec<usize>)> {
    let (before, after) = (edit.dims(tensor)?.to_vec(), edit.dims_after(tensor)?);
    (before != after).then_some((before, after))
}

/// The numbers that an input holds, when they are known.
fn numbers(edit: &Edit<'_>, node: usize, input: usize) -> Option<Vec<i64>> {
    let tensor = edit.view.nodes[node].inputs.get(input).copied().flatten()?;
    let value = edit.traced.shapes.values[tensor].as_ref()?;
    Some(value.elements.iter().map(|e| e.number as i64).collect())
}

/// Groups of a convolution, from the model.
fn groups(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some(Some(weight)) = edit.view.nodes[node].inputs.get(1) else { return Ok(()) };
    let Some(at) = edit.traced.origins.iter().position(|o| o.tensor == *weight) else { return Ok(()) };
    let before = edit.traced.model.parameters()[at].groups();
    let after = edit.left.parameter(at).map_or(before, Parameter::groups);
    if after != before {
        edit.draft.node(edit.view, node)?.set_int("group", after as i64);
    }
    Ok(())
}

fn reshape(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some((before, after)) = output(edit, node) else { return Ok(()) };
    let new = |target: &[i64]| -> Vec<Option<i64>> {
        let lens = before.iter().zip(&after);
        // 0 and -1 follow the input.
        target.iter().zip(lens).map(|(&n, (&b, &a))| (n > 0 && n == b as i64).then_some(a as i64)).collect()
    };
    let proto = edit.view.nodes[node].proto;
    if proto.input.len() > 1 {
        if let Some(target) = spelled_out(edit, node, &after) {
            if proto.int("allowzero").is_some_and(|n| n != 0) {
                edit.draft.node(edit.view, node)?.set_int("allowzero", 0);
            }
            return values::replace(edit, node, 1, &[target.len()], &target);
        }
        return match numbers(edit, node, 1) {
            Some(target) => values::rewrite(edit, node, 1, new(&target)),
            None => Ok(()),
        };
    }
    let Some(target) = proto.ints("shape") else { return Ok(()) };
    let target: Vec<i64> = target.iter().zip(new(target)).map(|(&old, new)| new.unwrap_or(old)).collect();
    edit.draft.node(edit.view, node)?.set_ints("shape", target);
    Ok(())
}

/// The target of a reshape whose numbers are computed, and would not follow by themselves, as a constant.
fn spelled_out(edit: &Edit<'_>, node: usize, after: &[usize]) -> Option<Vec<i64>> {
    if !computed(edit, node, after) {
        return None;
    }
    let target = rewritten(&follows(edit, node, true)?, &follows(edit, node, false)?)?;
    Some(target.iter().zip(after).map(|(number, &len)| number.unwrap_or(len as i64)).collect())
}

/// Whether a target has numbers that are computed, or lengths of axes that are not to be these.
fn computed(edit: &Edit<'_>, node: usize, after: &[usize]) -> bool {
    let target = edit.view.nodes[node].inputs.get(1).copied().flatten();
    let Some(value) = target.and_then(|target| edit.traced.shapes.values[target].as_ref()) else {
        return true;
    };
    let missing = after.len().saturating_sub(value.elements.len());
    value.elements.iter().zip(after.iter().skip(missing)).any(|(element, &len)| match element.origin {
        _ if element.number <= 0.0 => false,
        Origin::Constant(..) => false,
        Origin::Length(tensor, axis) => {
            edit.dims_after(tensor).and_then(|dims| dims.get(axis).copied()) != Some(len)
        }
        Origin::Other => true,
    })
}

/// Lengths of the input or of the output, and whether each follows the size of the graph's inputs.
fn follows(edit: &Edit<'_>, node: usize, input: bool) -> Option<Vec<(usize, bool)>> {
    let node = &edit.view.nodes[node];
    let tensor = if input { &node.inputs } else { &node.outputs }.first().copied().flatten()?;
    let dynamic = edit.traced.dynamic.get(tensor)?;
    Some(edit.dims(tensor)?.iter().copied().zip(dynamic.iter().copied()).collect())
}

/// Sizes in front of which axes may be missing: they are those of the last axes.
fn aligned(target: &[i64], before: &[usize], after: &[usize]) -> Vec<Option<i64>> {
    let missing = before.len().saturating_sub(target.len());
    let lens = before.iter().zip(after).skip(missing);
    target.iter().zip(lens).map(|(&n, (&b, &a))| (n > 1 && n == b as i64).then_some(a as i64)).collect()
}

fn expand(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some((before, after)) = output(edit, node) else { return Ok(()) };
    if let Some(target) = expanded(edit, node, &after) {
        return values::replace(edit, node, 1, &[target.len()], &target);
    }
    match numbers(edit, node, 1) {
        Some(target) => values::rewrite(edit, node, 1, aligned(&target, &before, &after)),
        None => Ok(()),
    }
}

/// As [`spelled_out`], of an expansion.
fn expanded(edit: &Edit<'_>, node: usize, after: &[usize]) -> Option<Vec<i64>> {
    if !computed(edit, node, after) {
        return None;
    }
    let (from, to) = (follows(edit, node, true)?, follows(edit, node, false)?);
    let missing = to.len().saturating_sub(from.len());
    let number = |(k, &(len, dynamic)): (usize, &(usize, bool))| match k.checked_sub(missing) {
        // What is not repeated has its length from the input.
        Some(own) if from[own].0 == len => Some(1),
        _ if dynamic => None,
        _ => Some(after[k] as i64),
    };
    to.iter().enumerate().map(number).collect()
}

fn filled(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some((before, after)) = output(edit, node) else { return Ok(()) };
    match numbers(edit, node, 0) {
        Some(target) => values::rewrite(edit, node, 0, aligned(&target, &before, &after)),
        None => Ok(()),
    }
}

/// Repeats change where the channels are repeats of one.
fn tile(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some((_, after)) = output(edit, node) else { return Ok(()) };
    let input = edit.view.nodes[node].inputs.first().copied().flatten().and_then(|t| edit.dims_after(t));
    let (Some(repeats), Some(input)) = (numbers(edit, node, 1), input) else { return Ok(()) };
    let new =
        after.iter().zip(&input).map(|(&out, &len)| (len > 0 && out % len == 0).then(|| (out / len) as i64));
    let new = repeats.iter().zip(new).map(|(&old, new)| new.filter(|&new| new != old)).collect();
    values::rewrite(edit, node, 1, new)
}

/// Sizes; scales stay what they are.
fn resize(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some((before, after)) = output(edit, node) else { return Ok(()) };
    let Some(sizes) = numbers(edit, node, 3) else { return Ok(()) };
    let rank = before.len() as i64;
    let new = match edit.view.nodes[node].proto.ints("axes") {
        None => aligned(&sizes, &before, &after),
        Some(axes) => {
            let at = |axis: &i64| usize::try_from(axis.rem_euclid(rank.max(1))).unwrap_or_default();
            let lens = axes.iter().map(at).map(|axis| (before.get(axis), after.get(axis)));
            let pairs = sizes.iter().zip(lens);
            pairs
                .map(|(&n, (b, a))| a.filter(|_| b.is_some_and(|&b| b as i64 == n)).map(|&a| a as i64))
                .collect()
        }
    };
    values::rewrite(edit, node, 3, new)
}

/// Each part keeps what stays of it. Parts that are equal no more get their sizes spelled out.
fn split(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let proto = edit.view.nodes[node].proto;
    let Some(data) = edit.view.nodes[node].inputs.first().copied().flatten() else { return Ok(()) };
    let Some(dims) = edit.dims(data) else { return Ok(()) };
    let axis =
        usize::try_from(proto.int("axis").unwrap_or(0).rem_euclid(dims.len().max(1) as i64)).unwrap_or(0);
    let Some(kept) = edit.positions_of(data, axis) else { return Ok(()) };
    let len = dims[axis];
    let given = proto.ints("split").map(<[i64]>::to_vec).or_else(|| numbers(edit, node, 1));
    if given.is_none() && proto.input.get(1).is_some_and(|name| !name.is_empty()) {
        return Err(edit.stuck(node, "the sizes of its parts are computed"));
    }
    let parts = proto.int("num_outputs").map_or(proto.output.len(), |n| n.max(1) as usize).max(1);
    let sizes: Vec<usize> = match &given {
        Some(sizes) => sizes.iter().map(|&n| n.max(0) as usize).collect(),
        None => equal(len, parts),
    };
    let mut start = 0;
    let mut after: Vec<usize> = Vec::with_capacity(sizes.len());
    for size in &sizes {
        after.push(kept.iter().filter(|&&at| (start..size.saturating_add(start)).contains(&at)).count());
        start = size.saturating_add(start);
    }
    if given.is_none() && equal(kept.len(), parts) == after {
        return Ok(());
    }
    let after: Vec<i64> = after.iter().map(|&n| n as i64).collect();
    if given.is_some() && proto.input.len() > 1 {
        return values::rewrite(edit, node, 1, after.into_iter().map(Some).collect());
    }
    if edit.view.opset < 13 {
        edit.draft.node(edit.view, node)?.set_ints("split", after);
        return Ok(());
    }
    let wanted = format!("{}_sizes", proto.title());
    let sizes = draft::integers(&[after.len()], &after);
    let name = edit.draft.add_initializer(edit.view.nodes[node].graph, &wanted, sizes)?;
    let proto = edit.draft.node(edit.view, node)?;
    proto.attribute.retain(|a| a.name.as_deref() != Some("num_outputs"));
    proto.input.truncate(1);
    proto.input.push(name);
    Ok(())
}

/// Parts of equal size; the last is what remains.
fn equal(len: usize, parts: usize) -> Vec<usize> {
    let size = len.div_ceil(parts);
    (0..parts).map(|part| size.min(len.saturating_sub(part * size))).collect()
}

fn hidden_size(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some(Some(recurrence)) = edit.view.nodes[node].inputs.get(2) else { return Ok(()) };
    let Some((before, after)) = changed(edit, *recurrence) else { return Ok(()) };
    match (before[..].last(), after[..].last()) {
        (Some(before), Some(&after)) if *before != after => {
            edit.draft.node(edit.view, node)?.set_int("hidden_size", after as i64);
            Ok(())
        }
        _ => Ok(()),
    }
}
