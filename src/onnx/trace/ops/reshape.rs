//! Reshapes: axes that are merged and split.
//!
//! Channel merged with places: each channel is a run of positions. An axis split in several: one of the parts carries
//! the units (heads, groups), the others are held; which one is a choice that the trace may try again with another
//! answer.

use crate::onnx::shape::Origin;
use crate::onnx::trace::Axis;
use crate::onnx::trace::step::Step;

pub(super) fn reshape(step: &mut Step<'_, '_, '_>) {
    between(step);
    let (Some(input), Some(output)) = (step.input(0), step.output(0)) else { return };
    // Lengths that the file names, or that are taken from the axis itself, follow; a target that is computed is
    // written anew, if that can be done.
    let axes = step.tracer.axes[output].clone();
    let fixed = |k: usize| {
        let element = step.value(1).and_then(|target| target.elements.get(k));
        element.is_some_and(|e| e.number <= 0.0 || matches!(e.origin, Origin::Constant(..)))
    };
    let computed = step.input(1).is_some() && (0..axes.len()).any(|k| axes[k].is_some() && !fixed(k));
    let pairs = |tensor| -> Vec<(usize, bool)> {
        step.dims_of(tensor).iter().copied().zip(step.tracer.dynamic[tensor].iter().copied()).collect()
    };
    if computed && rewritten(&pairs(input), &pairs(output)).is_none() {
        for axis in &axes {
            step.hold(axis, "its lengths are computed");
        }
    }
}

/// The target of a reshape without any computing, as far as axes that follow the size of the inputs go: 0 for one that
/// is the input's at the same place, -1 for one that is not; of these there can be only one. Axes are (length, whether
/// it follows).
pub(crate) fn rewritten(input: &[(usize, bool)], output: &[(usize, bool)]) -> Option<Vec<Option<i64>>> {
    let of = |(k, axis): (usize, &(usize, bool))| match axis.1 {
        false => None,
        true if input.get(k) == Some(axis) => Some(0),
        true => Some(-1),
    };
    let target: Vec<Option<i64>> = output.iter().enumerate().map(of).collect();
    (target.iter().filter(|number| **number == Some(-1)).count() <= 1).then_some(target)
}

pub(super) fn flatten(step: &mut Step<'_, '_, '_>) {
    between(step);
}

fn between(step: &mut Step<'_, '_, '_>) {
    let (from, to) = (step.dims(0), step.out_dims(0));
    let axes = step.axes(0);
    let mut out: Vec<Axis> = Vec::with_capacity(to.len());
    for (left, right) in segments(from, to) {
        let (dims, parts) = (&from[left.clone()], &to[right]);
        let whole = merge(step, dims, &axes[left]);
        out.extend(split(step, &whole, parts));
    }
    out.resize(to.len(), None);
    step.set(0, out);
}

type Range = std::ops::Range<usize>;

/// Runs of axes on both sides that hold the same places, as short as they can be.
pub(in crate::onnx::trace) fn segments(from: &[usize], to: &[usize]) -> Vec<(Range, Range)> {
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while i < from.len() || j < to.len() {
        let (start, begin) = (i, j);
        let (mut a, mut b) = (1usize, 1usize);
        // One axis of each side, then more of the side that holds less.
        if i < from.len() {
            a = from[i];
            i += 1;
        }
        if j < to.len() {
            b = to[j];
            j += 1;
        }
        while a != b {
            if a < b && i < from.len() {
                a = a.saturating_mul(from[i]);
                i += 1;
            } else if b < a && j < to.len() {
                b = b.saturating_mul(to[j]);
                j += 1;
            } else {
                return vec![(0..from.len(), 0..to.len())];
            }
        }
        found.push((start..i, begin..j));
    }
    found
}

/// The classes of several axes as one. One of them may be followed; of more the longest is and the rest is held.
fn merge(step: &mut Step<'_, '_, '_>, dims: &[usize], axes: &[Axis]) -> Axis {
    if let [axis] = axes {
        return axis.clone();
    }
    let followed: Vec<usize> = (0..axes.len()).filter(|&k| axes[k].is_some()).collect();
    // The outermost of equals: max_by_key takes the last.
    let carrier =
        followed.into_iter().rev().max_by_key(|&k| (!step.tracer.space.is_weak(&axes[k]), dims[k]))?;
    for (k, axis) in axes.iter().enumerate() {
        if k != carrier {
            step.hold(axis, "it is merged with a longer axis");
        }
    }
    let outer = dims[..carrier].iter().product();
    let inner = dims[carrier + 1..].iter().product();
    Step::spread(&axes[carrier], outer, inner)
}

/// The classes of one axis as several: those of the part that carries them.
fn split(step: &mut Step<'_, '_, '_>, axis: &Axis, parts: &[usize]) -> Vec<Axis> {
    let mut out = vec![None; parts.len()];
    let Some(classes) = axis else { return out };
    if let [_] = parts {
        return vec![axis.clone()];
    }
    let digit = |k: usize| {
        let inner: usize = parts[k + 1..].iter().product();
        let len = parts[k];
        move |position: usize| position / inner % len
    };
    let real: Vec<usize> = (0..parts.len()).filter(|&k| parts[k] > 1).collect();
    // Places that were merged before and come apart again.
    let roots: Vec<u32> = classes.iter().map(|&class| step.tracer.space.root(class)).collect();
    let already = real.iter().copied().find(|&k| {
        let of = digit(k);
        let mut first = vec![None; parts[k]];
        roots.iter().enumerate().all(|(p, &root)| *first[of(p)].get_or_insert(root) == root)
    });
    let carrier = already.or_else(|| choose(step, classes.len(), parts, &real));
    let Some(carrier) = carrier else { return out };
    out[carrier] = step.gather(axis, parts[carrier], digit(carrier));
    if already.is_none() {
        let key = (classes.len(), parts.to_vec());
        step.tracer.splits.push((key, real.len()));
    }
    out
}

/// The outermost part, unless the trace asks for another, or the parts are exchanged and merged again (a shuffle of
/// channels between groups): then the inner one, so that each group gives up the same places.
fn choose(step: &mut Step<'_, '_, '_>, len: usize, parts: &[usize], real: &[usize]) -> Option<usize> {
    if let Some(&asked) = step.tracer.choices.get(&(len, parts.to_vec())) {
        return real.get(asked).copied();
    }
    let view = step.tracer.view;
    let reader = step.output(0).and_then(|output| view.only_reader(output)).map(|node| &view.nodes[node]);
    let shuffled = reader.filter(|node| node.proto.op_type() == "Transpose").is_some_and(|node| {
        let next = node.outputs[0].and_then(|output| view.only_reader(output));
        next.is_some_and(|next| view.nodes[next].proto.op_type() == "Reshape")
            && step.out_dims(0).len() == step.dims(0).len() + 1
            && next
                .and_then(|next| view.nodes[next].outputs[0])
                .is_some_and(|t| step.dims_of(t) == step.dims(0))
    });
    if shuffled { real.last().copied() } else { real.first().copied() }
}
