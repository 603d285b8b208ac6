//! Positions that nodes name: bounds of `Slice`, indices of `Gather`.

use crate::Result;
use crate::onnx::edit::{Edit, values};
use crate::onnx::shape::Origin;

/// Bounds of a slice of an axis that loses positions: what stays of what it took.
pub(super) fn slice(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let Some(data) = edit.view.nodes[node].inputs.first().copied().flatten() else { return Ok(()) };
    let Some(dims) = edit.dims(data) else { return Ok(()) };
    if (0..dims.len()).all(|axis| edit.positions_of(data, axis).is_none()) {
        return Ok(());
    }
    let (Some(starts), Some(ends)) = (list(edit, node, "starts", 1), list(edit, node, "ends", 2)) else {
        return Err(edit.stuck(node, "its bounds are computed"));
    };
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let axes = list(edit, node, "axes", 3).unwrap_or(all);
    let steps = list(edit, node, "steps", 4).unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
        return Err(edit.stuck(node, "its bounds differ in number"));
    }
    let (mut new_starts, mut new_ends) = (vec![None; starts.len()], vec![None; starts.len()]);
    for (i, &axis) in axes.iter().enumerate() {
        let axis = usize::try_from(axis.rem_euclid(dims.len().max(1) as i64)).unwrap_or_default();
        let Some(kept) = edit.positions_of(data, axis) else { continue };
        let bounds = Bounds { start: starts[i], end: ends[i], step: steps[i] };
        match bounds.after(dims[axis], &kept) {
            Some((start, end)) => (new_starts[i], new_ends[i]) = (Some(start), Some(end)),
            None => return Err(edit.stuck(node, "what stays of its positions is no regular run any more")),
        }
    }
    let proto = edit.view.nodes[node].proto;
    if proto.input.len() > 1 {
        values::rewrite(edit, node, 1, new_starts)?;
        return values::rewrite(edit, node, 2, new_ends);
    }
    let merge =
        |old: Vec<i64>, new: Vec<Option<i64>>| old.iter().zip(new).map(|(&o, n)| n.unwrap_or(o)).collect();
    let proto = edit.draft.node(edit.view, node)?;
    proto.set_ints("starts", merge(starts, new_starts));
    proto.set_ints("ends", merge(ends, new_ends));
    Ok(())
}

/// Integers of an attribute or of an input.
fn list(edit: &Edit<'_>, node: usize, name: &str, input: usize) -> Option<Vec<i64>> {
    if let Some(ints) = edit.view.nodes[node].proto.ints(name) {
        return Some(ints.to_vec());
    }
    let tensor = edit.view.nodes[node].inputs.get(input).copied().flatten()?;
    let value = edit.traced.shapes.values[tensor].as_ref()?;
    Some(value.elements.iter().map(|e| e.number as i64).collect())
}

/// As ONNX writes them: from the end where negative, too far ends cut off.
struct Bounds {
    start: i64,
    end: i64,
    step: i64,
}

impl Bounds {
    /// First position and the one past the last, on an axis of `len`.
    fn range(&self, len: usize) -> (i64, i64) {
        let len = len as i64;
        let (least, most) = if self.step > 0 { (0, len) } else { (-1, len - 1) };
        let at = |bound: i64| if bound < 0 { bound.saturating_add(len) } else { bound };
        (at(self.start).clamp(least.max(0), most.max(0)), at(self.end).clamp(least, most))
    }

    fn positions(&self, len: usize) -> Vec<i64> {
        let (mut at, end) = self.range(len);
        let mut positions = Vec::new();
        while (self.step > 0 && at < end) || (self.step < 0 && at > end) {
            positions.push(at);
            at = at.saturating_add(self.step);
        }
        positions
    }

    /// Bounds, with the same step, of what stays; `None` when there are none such.
    fn after(&self, len: usize, kept: &[usize]) -> Option<(i64, i64)> {
        let left: Vec<i64> = self
            .positions(len)
            .iter()
            .filter_map(|&at| kept.binary_search(&usize::try_from(at).ok()?).ok())
            .map(|at| at as i64)
            .collect();
        if self.positions(kept.len()) == left {
            return Some((self.start, self.end));
        }
        let (&first, &last) = (left.first()?, left.last()?);
        let past = last + self.step.signum();
        // One before the first position counts from the end.
        let past = if past < 0 { past - kept.len() as i64 } else { past };
        let new = Self { start: first, end: past, step: self.step };
        (new.positions(kept.len()) == left).then_some((new.start, new.end))
    }
}

/// Constant indices into an axis that loses positions are renumbered; those of positions that go are dropped.
pub(super) fn gather(edit: &mut Edit<'_>, node: usize) -> Result<()> {
    let [Some(data), Some(at)] = edit.view.nodes[node].inputs[..] else { return Ok(()) };
    let Some(dims) = edit.dims(data) else { return Ok(()) };
    let axis = edit.view.nodes[node].proto.int("axis").unwrap_or(0).rem_euclid(dims.len().max(1) as i64);
    let axis = usize::try_from(axis).unwrap_or_default();
    let Some(kept) = edit.positions_of(data, axis) else { return Ok(()) };
    let Some(value) = edit.traced.shapes.values[at].as_ref() else {
        return Err(edit.stuck(node, "its indices into an axis that gets shorter are computed"));
    };
    let len = dims[axis] as i64;
    let new = |number: f64| {
        let index = number as i64;
        let index = usize::try_from(if index < 0 { index + len } else { index }).ok()?;
        kept.binary_search(&index).ok().map(|at| at as i64)
    };
    let new: Vec<Option<i64>> = value.elements.iter().map(|e| new(e.number)).collect();
    if new.iter().all(Option::is_some) {
        return values::rewrite(edit, node, 1, new);
    }
    let constant = value.elements.iter().all(|e| matches!(e.origin, Origin::Constant(..)));
    if value.dims.len() != 1 || !constant {
        return Err(edit.stuck(node, "an index of a position that goes cannot be dropped"));
    }
    let left: Vec<i64> = new.into_iter().flatten().collect();
    values::replace(edit, node, 1, &[left.len()], &left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_what_stays() {
        let kept = [0, 2, 3, 6];
        let after = |start, end, step| Bounds { start, end, step }.after(8, &kept);
        assert_eq!(after(0, 4, 1), Some((0, 3)));
        assert_eq!(after(4, i64::MAX, 1), Some((3, 4)));
        assert_eq!(after(0, i64::MAX, 1), Some((0, i64::MAX)));
        // Reversed whole: the bounds need no change.
        assert_eq!(after(-1, i64::MIN + 1, -1), Some((-1, i64::MIN + 1)));
        // 6 and 2 of 6, 4, 2.
        assert_eq!(after(6, 1, -2), Some((3, 0)));
        // 0, 2 and 6 of the even ones lie at 0, 1 and 3.
        assert_eq!(after(0, 8, 2), None);
    }
}
