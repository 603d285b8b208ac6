//! Numbers that operators move without changing them.

use super::ops::{Op, Outputs, axis, constant, generate, join, layout, slice};
use super::value::{Element, MOST_ELEMENTS, Origin, Value};

/// The values of the outputs, whose shapes are known; `None` for an operator that does not move.
pub(super) fn evaluate(op: &Op<'_>, dims: &Outputs) -> Option<Vec<Option<Value>>> {
    if !matches!(op.node.domain.as_deref(), None | Some("" | "ai.onnx")) {
        return None;
    }
    let first = dims.first().and_then(Option::as_deref);
    let value = match op.node.op_type() {
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            op.value(0).ok().zip(first).and_then(|(value, dims)| value.reshaped(dims))
        }
        "Split" => return Some(split(op, dims).unwrap_or_default()),
        "Constant" => op.id.and_then(|id| constant(op.node, id)),
        "Shape" => shape(op),
        "Size" => op.dims(0).ok().and_then(size),
        "Cast" => cast(op),
        "Concat" => concat(op, first),
        "ConstantOfShape" => filled(op, first),
        "Gather" => gather(op, first),
        "Slice" | "Transpose" | "Expand" | "Tile" => first.and_then(|dims| picked(op, dims)),
        "Where" => first.and_then(|dims| chosen(op, dims)),
        _ => return None,
    };
    Some(vec![value])
}

/// Distances between neighbours along each axis of a tensor that is stretched to `dims`: 0 along stretched ones.
pub(super) fn strides(from: &[usize], dims: &[usize]) -> Vec<i64> {
    let mut strides = vec![0; dims.len()];
    let mut step = 1;
    for (at, &length) in from.iter().enumerate().rev() {
        if let Some(at) = (at + dims.len()).checked_sub(from.len()) {
            strides[at] = if length == 1 { 0 } else { step };
        }
        step *= length as i64;
    }
    strides
}

/// Places of all elements in their order, for these distances along the axes.
pub(super) fn places(dims: &[usize], start: i64, strides: &[i64]) -> Vec<usize> {
    let mut places = vec![start];
    for (&length, &stride) in dims.iter().zip(strides) {
        if places.len().saturating_mul(length) > MOST_ELEMENTS {
            return Vec::new();
        }
        let along = |&place: &i64| (0..length as i64).map(move |at| place + at * stride);
        places = places.iter().flat_map(along).collect();
    }
    places.into_iter().map(|place| usize::try_from(place).unwrap_or(usize::MAX)).collect()
}

fn take(value: &Value, dims: &[usize], places: &[usize]) -> Option<Value> {
    let elements: Option<Vec<Element>> = places.iter().map(|&at| value.elements.get(at).copied()).collect();
    Value::new(dims.to_vec(), elements?, value.is_int)
}

fn shape(op: &Op<'_>) -> Option<Value> {
    let known = op.inputs.first().copied().flatten()?;
    let dims = known.dims?;
    let range = generate::lengths(op, dims.len());
    let length = |at: usize| Element { number: dims[at] as f64, origin: Origin::Length(known.id, at) };
    let elements: Vec<Element> = range.map(length).collect();
    Value::new(vec![elements.len()], elements, true)
}

fn size(dims: &[usize]) -> Option<Value> {
    let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    Value::new(vec![], vec![Element::other(size as f64)], true)
}

fn cast(op: &Op<'_>) -> Option<Value> {
    use crate::onnx::proto::dtype;
    let value = op.value(0).ok()?;
    let to = op.node.int("to").and_then(|to| i32::try_from(to).ok())?;
    let is_int = !dtype::is_float(to);
    let convert = |x: f64| match to {
        dtype::BOOL => f64::from(u8::from(x != 0.0)),
        _ if is_int => x.trunc(),
        _ => f64::from(x as f32),
    };
    let elements = value.elements.iter().map(|&element| {
        let number = convert(element.number);
        if number.to_bits() == element.number.to_bits() { element } else { Element::other(number) }
    });
    Value::new(value.dims.clone(), elements.collect(), is_int)
}

fn filled(op: &Op<'_>, dims: Option<&[usize]>) -> Option<Value> {
    let dims = dims?;
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MOST_ELEMENTS)?;
    let given = op.node.attr("value").and_then(|a| a.t.as_option());
    let (number, is_int) = match given {
        Some(tensor) => {
            let value = super::value::read(tensor, 0)?;
            (value.scalar()?, value.is_int)
        }
        None => (0.0, false),
    };
    Value::new(dims.to_vec(), vec![Element::other(number); count], is_int)
}

fn concat(op: &Op<'_>, dims: Option<&[usize]>) -> Option<Value> {
    let dims = dims?;
    let values: Option<Vec<&Value>> = (0..op.inputs.len()).map(|at| op.value(at).ok()).collect();
    let values = values?;
    let at = axis(op.node.int("axis").unwrap_or(1), dims.len()).ok()?;
    let outer: usize = dims[..at].iter().product();
    let mut elements = Vec::new();
    for row in 0..outer {
        for value in &values {
            let part = value.elements.len() / outer;
            elements.extend_from_slice(value.elements.get(row * part..(row + 1) * part)?);
        }
        if elements.len() > MOST_ELEMENTS {
            return None;
        }
    }
    Value::new(dims.to_vec(), elements, values.first()?.is_int)
}

fn split(op: &Op<'_>, dims: &Outputs) -> Option<Vec<Option<Value>>> {
    let value = op.value(0).ok()?;
    let at = axis(op.node.int("axis").unwrap_or(0), value.dims.len()).ok()?;
    let all = strides(&value.dims, &value.dims);
    let step = value.dims[at + 1..].iter().product::<usize>() as i64;
    let mut start = 0;
    let parts = join::parts(op, value.dims[at]).ok()?;
    let part = |(length, dims): (usize, &Option<Vec<usize>>)| {
        let from = start;
        start += length as i64 * step;
        let dims = dims.as_deref()?;
        take(value, dims, &places(dims, from, &all))
    };
    Some(parts.into_iter().zip(dims).map(part).collect())
}

fn gather(op: &Op<'_>, dims: Option<&[usize]>) -> Option<Value> {
    let (value, indices) = (op.value(0).ok()?, op.ints(1).ok()?);
    let at = axis(op.node.int("axis").unwrap_or(0), value.dims.len()).ok()?;
    let outer: usize = value.dims[..at].iter().product();
    let inner: usize = value.dims[at + 1..].iter().product();
    let mut places = Vec::new();
    for row in 0..outer {
        for &index in &indices {
            let index = axis(index, value.dims[at]).ok()?;
            let from = (row * value.dims[at] + index) * inner;
            places.extend(from..from + inner);
            if places.len() > MOST_ELEMENTS {
                return None;
            }
        }
    }
    take(value, dims?, &places)
}

/// Operators whose result is a walk with steady steps through the input.
fn picked(op: &Op<'_>, dims: &[usize]) -> Option<Value> {
    let value = op.value(0).ok()?;
    let own = |from: &[usize]| strides(from, from);
    let (start, steps) = match op.node.op_type() {
        "Slice" => {
            let cuts = slice::cuts(op, &value.dims).ok()?;
            let along = own(&value.dims);
            let start = cuts.iter().zip(&along).map(|(cut, stride)| cut.start as i64 * stride).sum();
            let steps = cuts.iter().zip(&along).map(|(cut, stride)| cut.step.checked_mul(*stride));
            // Along an axis of one element no step is taken.
            let steps = steps.zip(&cuts).map(|(step, cut)| if cut.length > 1 { step } else { Some(0) });
            (start, steps.collect::<Option<Vec<i64>>>()?)
        }
        "Transpose" => {
            let along = own(&value.dims);
            let order = layout::permutation(op, value.dims.len()).ok()?;
            (0, order.into_iter().map(|at| along[at]).collect())
        }
        "Expand" => (0, strides(&value.dims, dims)),
        _ => return tiled(value, dims),
    };
    take(value, dims, &places(dims, start, &steps))
}

fn tiled(value: &Value, dims: &[usize]) -> Option<Value> {
    let along = strides(&value.dims, &value.dims);
    let mut all = vec![0];
    for ((&whole, &length), &stride) in dims.iter().zip(&value.dims).zip(&along) {
        if all.len() * whole > MOST_ELEMENTS {
            return None;
        }
        let places = |&place: &usize| (0..whole).map(move |at| place + (at % length) * stride as usize);
        all = all.iter().flat_map(places).collect();
    }
    take(value, dims, &all)
}

fn chosen(op: &Op<'_>, dims: &[usize]) -> Option<Value> {
    let values = [op.value(0).ok()?, op.value(1).ok()?, op.value(2).ok()?];
    let at = values.map(|value| places(dims, 0, &strides(&value.dims, dims)));
    let [condition, yes, no] = [0, 1, 2].map(|i| take(values[i], dims, &at[i]));
    let (condition, yes, no) = (condition?, yes?, no?);
    let pairs = yes.elements.into_iter().zip(no.elements);
    let elements = condition.numbers().zip(pairs).map(|(c, (yes, no))| if c == 0.0 { no } else { yes });
    Value::new(dims.to_vec(), elements.collect(), yes.is_int)
}
