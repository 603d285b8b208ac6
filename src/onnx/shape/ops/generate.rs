//! Operators whose result has a shape of its own.

use crate::onnx::proto::NodeProto;
use crate::onnx::view::TensorId;

use super::super::{Element, Origin, Value};
use super::{Found, Op, Outputs, ensure, length, one};

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    let dims = match op.node.op_type() {
        "Shape" => op.dims(0).map(|dims| vec![lengths(op, dims.len()).len()]),
        "Size" => Ok(vec![]),
        "ConstantOfShape" => op.ints(0).and_then(|list| given(&list)),
        "RandomNormal" | "RandomUniform" => given(op.node.ints("shape").unwrap_or_default()),
        "Range" => range(op),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => {
            op.scalar(0).and_then(|size| Ok(vec![length(size as i128)?]))
        }
        _ => return None,
    };
    Some(dims.map(one))
}

/// The axes whose lengths a `Shape` gives.
pub(in super::super) fn lengths(op: &Op<'_>, rank: usize) -> std::ops::Range<usize> {
    let rank = rank as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize;
    let (start, end) = (place(op.int("start", 0)), place(op.int("end", rank)));
    start..end.max(start)
}

/// The numbers of a `Constant` node that holds no tensor.
pub(in super::super) fn constant(node: &NodeProto, id: TensorId) -> Option<Value> {
    if node.operator() != "Constant" {
        return None;
    }
    let number = |number: &str| node.attr(number);
    let (dims, numbers, is_int): (_, Vec<f64>, _) = if let Some(x) = number("value_int") {
        (vec![], vec![x.i? as f64], true)
    } else if let Some(x) = number("value_float") {
        (vec![], vec![x.f?.into()], false)
    } else if let Some(x) = number("value_ints") {
        (vec![x.ints.len()], x.ints.iter().map(|&x| x as f64).collect(), true)
    } else {
        let floats = &number("value_floats")?.floats;
        (vec![floats.len()], floats.iter().map(|&x| x.into()).collect(), false)
    };
    let numbers = numbers.into_iter().enumerate();
    let elements = numbers.map(|(at, number)| Element { number, origin: Origin::Constant(id, at) }).collect();
    Value::new(dims, elements, is_int)
}

fn given(list: &[i64]) -> Found<Vec<usize>> {
    list.iter().map(|&n| length(n.into())).collect()
}

fn range(op: &Op<'_>) -> Found<Vec<usize>> {
    let (start, end, step) = (op.scalar(0)?, op.scalar(1)?, op.scalar(2)?);
    ensure(step != 0.0)?;
    Ok(vec![length(((end - start) / step).ceil().max(0.0) as i128)?])
}
