//! `If`.

use crate::onnx::view::Node;

use super::super::Value;
use super::{Known, Outputs};

/// The bodies that may run: the one that the condition names, where it is known.
pub(in super::super) fn sides<'a>(
    node: &'a Node<'_>,
    condition: Option<f64>,
) -> impl Iterator<Item = usize> + 'a {
    let runs = move |name: &str| match condition {
        None => true,
        Some(condition) => (name == "then_branch") == (condition != 0.0),
    };
    node.bodies.iter().filter(move |(name, _)| runs(name)).map(|&(_, body)| body)
}

/// What all of them give.
pub(in super::super) fn agree(
    sides: &[Vec<Option<Known<'_>>>],
    outputs: usize,
) -> (Outputs, Vec<Option<Value>>) {
    let known = |side: usize, at: usize| sides.get(side)?.get(at).copied().flatten();
    let dims = |at: usize| {
        let first = known(0, at)?.dims?;
        let same =
            (1..sides.len()).all(|side| known(side, at).is_some_and(|known| known.dims == Some(first)));
        same.then(|| first.to_vec())
    };
    let value = |at: usize| if sides.len() == 1 { known(0, at)?.value.cloned() } else { None };
    ((0..outputs).map(dims).collect(), (0..outputs).map(value).collect())
}
