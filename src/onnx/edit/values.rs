//! Sizes that a node reads from an input.

use std::collections::BTreeMap;

use crate::onnx::draft::{self, Constant};
use crate::onnx::edit::{Edit, Promise};
use crate::onnx::file;
use crate::onnx::proto::{TensorProto, dtype};
use crate::onnx::shape::Origin;
use crate::onnx::view::TensorId;
use crate::{Error, Result};

/// Makes a node read these numbers; `None` leaves one as it is. Numbers that are copied from constants are changed,
/// those that are computed from lengths are left to follow by themselves, which is checked in the end.
///
/// # Errors
/// The constant cannot be changed.
pub(super) fn rewrite(
    edit: &mut Edit<'_>,
    node: usize,
    input: usize,
    numbers: Vec<Option<i64>>,
) -> Result<()> {
    let Some(tensor) = edit.view.nodes[node].inputs.get(input).copied().flatten() else { return Ok(()) };
    let Some(value) = edit.traced.shapes.values[tensor].as_ref() else { return Ok(()) };
    let mut changes: Vec<(usize, TensorId, usize, i64)> = Vec::new();
    let mut current: Vec<i64> = Vec::with_capacity(value.elements.len());
    let mut constant = true;
    for (at, element) in value.elements.iter().enumerate() {
        let number = element.number as i64;
        let new = numbers.get(at).copied().flatten().unwrap_or(number);
        match element.origin {
            Origin::Constant(source, place) if new != number => changes.push((at, source, place, new)),
            Origin::Constant(..) => {}
            _ => constant = false,
        }
        current.push(new);
    }
    edit.promises.push(Promise { node, input, numbers });
    if changes.is_empty() {
        return Ok(());
    }
    if constant {
        let dims = value.dims.clone();
        return replace(edit, node, input, &dims, &current);
    }
    let stays = |&(_, source, place, _): &(usize, TensorId, usize, i64)| {
        // What is copied twice may change at one place only.
        value.elements.iter().filter(|e| e.origin == Origin::Constant(source, place)).count() > 1
    };
    let places = if changes.iter().any(stays) { None } else { in_place(edit, node, &changes) };
    match places {
        Some(places) => put(edit, &places),
        None => add(edit, node, input, &changes, value.elements.len()),
    }
}

/// Makes a node read a constant with these numbers: its own, if no other node reads that, or a new one.
pub(super) fn replace(
    edit: &mut Edit<'_>,
    node: usize,
    input: usize,
    dims: &[usize],
    numbers: &[i64],
) -> Result<()> {
    let view = edit.view;
    let Some(tensor) = view.nodes[node].inputs.get(input).copied().flatten() else { return Ok(()) };
    let own = view.only_reader(tensor) == Some(node);
    let mut data_type = dtype::INT64;
    match edit.draft.constant(view, tensor)? {
        Some(Constant::Tensor(proto)) => {
            data_type = proto.data_type.unwrap_or(dtype::INT64);
            if own {
                fill(proto, data_type, dims, numbers)?;
                edit.arrays.insert(tensor, dims.to_vec());
                return Ok(());
            }
        }
        Some(Constant::Attribute(attribute)) if own && !attribute.ints.is_empty() && dims.len() == 1 => {
            attribute.ints = numbers.to_vec();
            return Ok(());
        }
        _ => {}
    }
    let mut proto = TensorProto::default();
    fill(&mut proto, data_type, dims, numbers)?;
    let graph = view.nodes[node].graph;
    let name = edit.draft.add_initializer(graph, &format!("{}_cut", view.tensors[tensor].name), proto)?;
    edit.draft.node(view, node)?.input[input] = name;
    Ok(())
}

/// The constants' elements to change, when nothing else reads them.
fn in_place(
    edit: &mut Edit<'_>,
    node: usize,
    changes: &[(usize, TensorId, usize, i64)],
) -> Option<BTreeMap<(TensorId, usize), i64>> {
    let mut places = BTreeMap::new();
    for &(_, source, place, new) in changes {
        let writable = matches!(edit.draft.constant(edit.view, source), Ok(Some(_)));
        if !writable
            || !leads_to(edit, source, node)
            || places.insert((source, place), new).is_some_and(|n| n != new)
        {
            return None;
        }
    }
    Some(places)
}

/// Whether a tensor is read by one node, whose output by one node, and so on to this one.
fn leads_to(edit: &Edit<'_>, tensor: TensorId, node: usize) -> bool {
    let mut tensor = tensor;
    while let Some(reader) = edit.view.only_reader(tensor) {
        if reader == node {
            return true;
        }
        match edit.view.nodes[reader].outputs[..] {
            [Some(output)] => tensor = output,
            _ => return false,
        }
    }
    false
}

fn put(edit: &mut Edit<'_>, places: &BTreeMap<(TensorId, usize), i64>) -> Result<()> {
    for (&(tensor, place), &number) in places {
        match edit.draft.constant(edit.view, tensor)? {
            Some(Constant::Tensor(proto)) => {
                let mut numbers = file::integers(proto, edit.traced.graph.folder.as_deref())?;
                let element =
                    numbers.get_mut(place).ok_or_else(|| Error::format("a constant is too short"))?;
                *element = number;
                let dims = file::dims(proto)?;
                fill(proto, proto.data_type.unwrap_or(dtype::INT64), &dims, &numbers)?;
            }
            Some(Constant::Attribute(attribute)) => match attribute.ints.get_mut(place) {
                Some(element) => *element = number,
                None => attribute.i = Some(number),
            },
            None => {}
        }
    }
    Ok(())
}

/// Adds what the numbers become more, which is below 0, in front of the node.
fn add(
    edit: &mut Edit<'_>,
    node: usize,
    input: usize,
    changes: &[(usize, TensorId, usize, i64)],
    len: usize,
) -> Result<()> {
    let view = edit.view;
    let Some(tensor) = view.nodes[node].inputs[input] else { return Ok(()) };
    if view.opset < 7 {
        return Err(edit.stuck(node, "a size in it cannot be rewritten below operator set 7"));
    }
    let Some(value) = edit.traced.shapes.values[tensor].as_ref() else { return Ok(()) };
    let mut more = vec![0; len];
    for &(at, _, _, new) in changes {
        more[at] = new.wrapping_sub(value.elements[at].number as i64);
    }
    let (graph, at, name) = (view.nodes[node].graph, view.nodes[node].at, view.tensors[tensor].name);
    let more =
        edit.draft.add_initializer(graph, &format!("{name}_change"), draft::integers(&value.dims, &more))?;
    let sum = edit.draft.name(&format!("{name}_cut"));
    edit.draft.insert(graph, at, draft::node("Add", &sum, &[name, &more], &sum));
    edit.draft.node(view, node)?.input[input] = sum;
    Ok(())
}

/// Puts integers in a tensor of 32 or 64 bits.
pub(super) fn fill(proto: &mut TensorProto, data_type: i32, dims: &[usize], numbers: &[i64]) -> Result<()> {
    let bytes: Vec<u8> = match data_type {
        dtype::INT64 => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
        dtype::INT32 => numbers.iter().flat_map(|&n| (n as i32).to_le_bytes()).collect(),
        _ => {
            let name = proto.name.as_deref().unwrap_or_default();
            return Err(Error::unsupported(format!(
                "constant `{name}` holds sizes in a type that is no integer"
            )));
        }
    };
    proto.data_type = Some(data_type);
    proto.dims = dims.iter().map(|&d| d as i64).collect();
    proto.raw_data = Some(bytes.into());
    proto.int64_data.clear();
    proto.int32_data.clear();
    proto.external_data.clear();
    proto.data_location = None;
    Ok(())
}
