//! Operators that put axes together, or take parts of them.

use crate::onnx::shape::{Origin, Value};
use crate::onnx::trace::Axis;
use crate::onnx::trace::step::{Role, Step, wrap};

pub(super) fn concat(step: &mut Step<'_, '_, '_>) {
    let inputs = step.inputs();
    let Some((_, others)) = inputs.split_first() else { return };
    let rank = step.out_dims(0).len();
    let Some(along) = wrap(step.proto().int("axis").unwrap_or(1), rank) else {
        return step.stop("its axis does not fit");
    };
    if inputs.iter().any(|&input| step.dims_of(input).len() != rank) {
        return step.stop("its shapes do not fit");
    }
    let mut axes: Vec<Axis> = step.axes(0);
    for &input in others {
        for at in (0..rank).filter(|&at| at != along) {
            let other = step.tracer.axes[input][at].clone();
            step.join(&axes[at], &other);
            axes[at] = axes[at].clone().or(other);
        }
    }
    axes[along] = None;
    if inputs.iter().any(|&input| step.tracer.axes[input][along].is_some()) {
        let mut classes = Vec::new();
        for &input in &inputs {
            let part = step.tracer.axes[input][along].clone();
            classes.extend(part.unwrap_or_else(|| held_run(step, step.dims_of(input)[along])).iter());
        }
        axes[along] = Some(classes.into());
    }
    step.set(0, axes);
}

/// Positions that stay whatever happens.
fn held_run(step: &mut Step<'_, '_, '_>, len: usize) -> std::sync::Arc<[u32]> {
    let run = step.tracer.space.fresh(len.max(2));
    step.hold(&run, "it is put beside something that keeps its size");
    run.map(|run| run[..len].into()).unwrap_or_default()
}

pub(super) fn split(step: &mut Step<'_, '_, '_>) {
    let axes = step.axes(0);
    let Some(along) = wrap(step.proto().int("axis").unwrap_or(0), axes.len()) else {
        return step.stop("its axis does not fit");
    };
    if step.value(1).is_some_and(computed) {
        step.hold(&axes[along], "its parts are computed");
    }
    let mut start = 0;
    for k in 0..step.node().outputs.len() {
        let len = step.out_dims(k).get(along).copied().unwrap_or(0);
        let mut part = axes.clone();
        part[along] = axes[along].as_ref().and_then(|axis| axis.get(start..start + len)).map(Into::into);
        // A part of one position is an axis of length 1, which is not followed.
        if len == 1 {
            let single = part[along].take();
            step.hold(&single, "it is taken out alone");
        }
        step.set(k, part);
        start += len;
    }
}

fn computed(value: &Value) -> bool {
    value.elements.iter().any(|element| !matches!(element.origin, Origin::Constant(..)))
}

pub(super) fn slice(step: &mut Step<'_, '_, '_>) {
    let mut axes = step.axes(0);
    let (dims, out) = (step.dims(0), step.out_dims(0));
    if dims.len() != out.len() {
        return step.stop("its shapes do not fit");
    }
    let list = |name: &str, k: usize| -> Option<Vec<i64>> {
        let attribute = step.proto().ints(name).map(<[i64]>::to_vec);
        attribute.or_else(|| step.value(k).map(|v| v.elements.iter().map(|e| e.number as i64).collect()))
    };
    let (starts, ends) = (list("starts", 1), list("ends", 2));
    let (named, steps) = (list("axes", 3), list("steps", 4));
    let (Some(starts), Some(ends)) = (starts, ends) else { return step.stop("its bounds are computed") };
    let named = named.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let fixed = (1..3).all(|k| step.value(k).is_none_or(|v| !computed(v)));
    for (k, &axis) in named.iter().enumerate() {
        let Some(at) = wrap(axis, axes.len()) else { return step.stop("its axes do not fit") };
        let Some(classes) = axes[at].clone() else { continue };
        let by = steps.as_ref().and_then(|steps| steps.get(k).copied()).unwrap_or(1);
        let (Some(&start), Some(&end)) = (starts.get(k), ends.get(k)) else { continue };
        let len = dims[at] as i64;
        let bound = |at: i64| (if at < 0 { at.saturating_add(len) } else { at }).clamp(0, len) as usize;
        if by != 1 || !fixed {
            step.hold(&axes[at], "it takes every so many, or its bounds are computed");
        }
        let part: Vec<u32> = match by {
            1 => classes.get(bound(start)..bound(end)).unwrap_or_default().to_vec(),
            _ => vec![classes[0]; out[at]],
        };
        axes[at] = Some(part.into());
        if out[at] == 1 {
            let single = axes[at].take();
            step.hold(&single, "it is taken out alone");
        }
    }
    step.set(0, axes);
}

pub(super) fn gather(step: &mut Step<'_, '_, '_>) {
    let mut axes = step.axes(0);
    let dims = step.dims(0);
    let Some(along) = wrap(step.proto().int("axis").unwrap_or(0), axes.len()) else {
        return step.stop("its axis does not fit");
    };
    let taken = axes.remove(along);
    let indices = step.value(1).filter(|value| !computed(value));
    let picked: Vec<Axis> = match (indices, &taken) {
        (Some(value), Some(classes)) if value.dims.len() == 1 && value.elements.len() > 1 => {
            let of = |number: f64| {
                let at = if number < 0.0 { number + dims[along] as f64 } else { number };
                classes.get(at as usize).copied()
            };
            let picked: Option<Vec<u32>> = value.elements.iter().map(|e| of(e.number)).collect();
            vec![picked.map(Into::into)]
        }
        _ => {
            step.hold(&taken, "single positions are looked up");
            vec![None; step.dims(1).len()]
        }
    };
    if dims.len() == 2 && along == 0 && indices.is_none() {
        step.weight(0, Role::Embedding, [1, 0], None);
    }
    axes.splice(along..along, picked);
    step.set(0, axes);
}

/// What is padded is held: its places move, even where its length stays.
pub(super) fn pad(step: &mut Step<'_, '_, '_>) {
    let rank = step.dims(0).len();
    let list = |attribute: &str, k: usize| -> Option<Vec<i64>> {
        let given = step.proto().ints(attribute).map(<[i64]>::to_vec);
        given.or_else(|| step.value(k).map(|v| v.elements.iter().map(|e| e.number as i64).collect()))
    };
    let (pads, named) = (list("pads", 1), list("axes", 3));
    let named = named.unwrap_or_else(|| (0..rank as i64).collect());
    let padded = |at: usize| {
        let place = named.iter().position(|&axis| wrap(axis, rank) == Some(at));
        match (&pads, place) {
            (Some(pads), Some(k)) => [k, k + named.len()].iter().any(|&k| pads.get(k) != Some(&0)),
            (Some(_), None) => false,
            (None, _) => true,
        }
    };
    let padded: Vec<bool> = (0..rank).map(padded).collect();
    moved(step, "it is padded", |at| padded[at]);
}

pub(super) fn resize(step: &mut Step<'_, '_, '_>) {
    moved(step, "it is resized", |_| false);
}

/// Holds the axes whose places move, or whose length changes.
fn moved(step: &mut Step<'_, '_, '_>, why: &'static str, moves: impl Fn(usize) -> bool) {
    let mut axes = step.axes(0);
    let (dims, out) = (step.dims(0), step.out_dims(0));
    if dims.len() != out.len() {
        return step.stop("its shapes do not fit");
    }
    for at in 0..axes.len() {
        if dims[at] != out[at] || moves(at) {
            let axis = axes[at].take();
            step.hold(&axis, why);
        }
    }
    step.set(0, axes);
}
