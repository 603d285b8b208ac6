//! Shapes of all tensors, and the values of those that hold shapes, for inputs of given sizes.

mod arithmetic;
mod lengths;
mod moves;
mod ops;
mod value;
mod walk;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::Result;
use crate::onnx::view::View;

pub(crate) use value::{Element, Origin, Value};

/// A tensor with more elements than this has no known shape: so many are a mistake or an attack.
const MOST: usize = 1 << 40;

/// Axes of a tensor whose shape is known.
const DEEPEST_RANK: usize = 64;

/// What is known of each tensor.
#[derive(Clone, Debug)]
pub(crate) struct Shapes {
    pub(crate) dims: Vec<Option<Vec<usize>>>,
    pub(crate) values: Vec<Option<Value>>,
}

/// Shapes for inputs of these sizes; axes that neither the file nor `inputs` fix get a length of their own.
///
/// Where operators find that their inputs do not fit each other, other lengths are tried, and those count with
/// which most tensors have a shape.
///
/// # Errors
/// `inputs` names what is no input, or contradicts what the file fixes.
pub(crate) fn infer(view: &View<'_>, inputs: &HashMap<String, Vec<usize>>) -> Result<Shapes> {
    lengths::check(view, inputs)?;
    let (plan, start) = (walk::Plan::new(view), start(view));
    let mut best: Option<(usize, Shapes)> = None;
    for guess in &lengths::GUESSES {
        let (shapes, broken) = walk::run(view, &plan, lengths::assume(view, inputs, *guess), start.clone());
        let known = shapes.dims.iter().flatten().count();
        if best.as_ref().is_none_or(|(most, _)| known > *most) {
            best = Some((known, shapes));
        }
        if !broken {
            break;
        }
    }
    Ok(best.map_or(start, |(_, shapes)| shapes))
}

/// What the file says of constants.
fn start(view: &View<'_>) -> Shapes {
    let constants = (0..view.tensors.len()).map(|id| view.constant(id));
    let dims = constants.clone().map(|proto| proto.and_then(|proto| fitting(value::dims(proto)?))).collect();
    let values = constants.enumerate().map(|(id, proto)| value::read(proto?, id)).collect();
    Shapes { dims, values }
}

/// These dimensions unless they are too many or too large.
fn fitting(dims: Vec<usize>) -> Option<Vec<usize>> {
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    (dims.len() <= DEEPEST_RANK && count <= MOST).then_some(dims)
}
