//! Numbers that operators compute.

use super::moves::{places, strides};
use super::ops::{Op, broadcast, reduce};
use super::value::{Element, MOST_ELEMENTS, Origin, Value};

/// The value of the only output.
pub(super) fn evaluate(op: &Op<'_>) -> Option<Value> {
    if !matches!(op.node.domain.as_deref(), None | Some("" | "ai.onnx")) {
        return None;
    }
    let value = match op.node.op_type() {
        "Neg" => each(op, |x| -x),
        "Abs" => each(op, f64::abs),
        "Sqrt" => each(op, f64::sqrt),
        "Floor" => each(op, f64::floor),
        "Ceil" => each(op, f64::ceil),
        "Round" => each(op, f64::round_ties_even),
        "Relu" => each(op, |x| x.max(0.0)),
        "Reciprocal" => each(op, f64::recip),
        "Sign" => each(op, |x| if x == 0.0 { 0.0 } else { x.signum() }),
        "Not" => each(op, |x| f64::from(x == 0.0)),
        "ReduceProd" => reduced(op, |row| row.iter().product()),
        "ReduceSum" => reduced(op, |row| row.iter().sum()),
        "ReduceMax" => reduced(op, |row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        "ReduceMin" => reduced(op, |row| row.iter().copied().fold(f64::INFINITY, f64::min)),
        "ReduceMean" => reduced(op, |row| row.iter().sum::<f64>() / row.len() as f64),
        "Range" => range(op),
        "Clip" => clipped(op),
        _ => folded(op),
    };
    value.filter(|value| value.numbers().all(f64::is_finite))
}

fn each(op: &Op<'_>, of: impl Fn(f64) -> f64) -> Option<Value> {
    let value = op.value(0).ok()?;
    let elements = value.elements.iter().map(|e| Element::other(round(of(e.number), value.is_int)));
    Value::new(value.dims.clone(), elements.collect(), value.is_int)
}

/// Operators on two tensors or more, from left to right.
fn folded(op: &Op<'_>) -> Option<Value> {
    let (name, count) = (op.node.op_type(), op.inputs.len());
    let compares = matches!(
        name,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor"
    );
    if !compares && !matches!(name, "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Min" | "Max" | "Sum") {
        return None;
    }
    let mut left = op.value(0).ok()?.clone();
    let by_sign = op.node.int("fmod").unwrap_or(0) == 0;
    for at in 1..count {
        let right = op.value(at).ok()?;
        let dims = broadcast(&[&left.dims, &right.dims]).ok()?;
        let is_int = left.is_int;
        let of = |a: f64, b: f64| compute(name, a, b, is_int, by_sign);
        let pairs = [&left, right].map(|value| places(&dims, 0, &strides(&value.dims, &dims)));
        let pair = |(&a, &b): (&usize, &usize)| Some((left.elements.get(a)?, right.elements.get(b)?));
        let pairs = pairs[0].iter().zip(&pairs[1]).map(pair);
        let elements =
            pairs.map(|pair| pair.map(|(a, b)| joined(name, *a, *b, round(of(a.number, b.number), is_int))));
        left = Value::new(dims, elements.collect::<Option<_>>()?, is_int || compares)?;
    }
    Some(left)
}

/// One number; integers are divided toward zero.
#[expect(clippy::float_cmp, reason = "`Equal` means equal")]
fn compute(name: &str, a: f64, b: f64, is_int: bool, by_sign: bool) -> f64 {
    match name {
        "Add" | "Sum" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" if is_int => (a / b).trunc(),
        "Div" => a / b,
        "Mod" if by_sign => a - (a / b).floor() * b,
        "Mod" => a % b,
        "Pow" => a.powf(b),
        "Min" => a.min(b),
        "Max" => a.max(b),
        "Equal" => f64::from(a == b),
        "Less" => f64::from(a < b),
        "LessOrEqual" => f64::from(a <= b),
        "Greater" => f64::from(a > b),
        "GreaterOrEqual" => f64::from(a >= b),
        "And" => f64::from(a != 0.0 && b != 0.0),
        "Or" => f64::from(a != 0.0 || b != 0.0),
        _ => f64::from((a != 0.0) != (b != 0.0)),
    }
}

/// The result with where it comes from: times one, plus zero and the like leave a number what it was.
fn joined(name: &str, a: Element, b: Element, number: f64) -> Element {
    let is = |element: Element, number: f64| element.number.to_bits() == number.to_bits();
    let kept = match name {
        "Mul" | "Div" if is(b, 1.0) => a.origin,
        "Mul" if is(a, 1.0) => b.origin,
        "Add" | "Sum" | "Sub" if is(b, 0.0) => a.origin,
        "Add" | "Sum" if is(a, 0.0) => b.origin,
        _ => Origin::Other,
    };
    Element { number, origin: kept }
}

/// What a tensor of the type holds of a number.
fn round(number: f64, is_int: bool) -> f64 {
    if is_int { number.trunc() } else { f64::from(number as f32) }
}

fn reduced(op: &Op<'_>, of: impl Fn(&[f64]) -> f64) -> Option<Value> {
    let value = op.value(0).ok()?;
    let rank = value.dims.len();
    let gone = reduce::reduced(op, rank).ok()?;
    let along = strides(&value.dims, &value.dims);
    let split = |inside: bool| -> (Vec<usize>, Vec<i64>) {
        let axes = (0..rank).filter(|at| gone.contains(at) == inside);
        axes.map(|at| (value.dims[at], along[at])).unzip()
    };
    let ((kept, steps), (inner, inner_steps)) = (split(false), split(true));
    let keep = op.node.int("keepdims").unwrap_or(1) != 0;
    let dims = if keep {
        (0..rank).map(|at| if gone.contains(&at) { 1 } else { value.dims[at] }).collect()
    } else {
        kept.clone()
    };
    let row = |start: usize| {
        let row: Option<Vec<f64>> = places(&inner, start as i64, &inner_steps)
            .into_iter()
            .map(|at| Some(value.elements.get(at)?.number))
            .collect();
        row.map(|row| Element::other(round(of(&row), value.is_int)))
    };
    let elements: Option<Vec<Element>> = places(&kept, 0, &steps).into_iter().map(row).collect();
    Value::new(dims, elements?, value.is_int)
}

fn range(op: &Op<'_>) -> Option<Value> {
    let (start, end, step) = (op.scalar(0).ok()?, op.scalar(1).ok()?, op.scalar(2).ok()?);
    let count = ((end - start) / step).ceil().max(0.0);
    if step == 0.0 || count > MOST_ELEMENTS as f64 {
        return None;
    }
    let elements: Vec<Element> =
        (0..count as usize).map(|at| Element::other(start + at as f64 * step)).collect();
    Value::new(vec![elements.len()], elements, op.value(0).ok()?.is_int)
}

fn clipped(op: &Op<'_>) -> Option<Value> {
    let bound = |at: usize, name: &str, otherwise: f64| {
        if op.has(at) { op.scalar(at).ok() } else { Some(op.node.float(name).map_or(otherwise, f64::from)) }
    };
    let (low, high) = (bound(1, "min", f64::NEG_INFINITY)?, bound(2, "max", f64::INFINITY)?);
    each(op, |x| x.max(low).min(high))
}
