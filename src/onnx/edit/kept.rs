//! Which classes of positions a plan leaves.

use std::collections::HashMap;

use crate::onnx::edit::left::Left;
use crate::onnx::trace::{Axis, Form, Traced};

/// The classes that go; all others stay.
#[derive(Debug)]
pub(super) struct Kept {
    /// whether any position of the class stays
    stays: HashMap<u32, bool>,
}

impl Kept {
    /// A class stays when any position of any parameter's axis with that class does. Parameters that go whole say
    /// nothing about the classes on their axes.
    pub(super) fn new(traced: &Traced, left: &Left<'_>) -> Self {
        let mut stays: HashMap<u32, bool> = HashMap::new();
        for (at, origin) in traced.origins.iter().enumerate() {
            if left.parameter(at).is_none() {
                continue;
            }
            let shape = traced.model.parameters()[at].shape();
            let axes = &traced.axes[origin.tensor];
            for (axis, classes) in axes.iter().enumerate() {
                let Some(classes) = classes else { continue };
                let alive = alive(|axis| left.kept(at, axis), shape, origin.form, axis, classes.len());
                for (class, alive) in classes.iter().zip(alive) {
                    *stays.entry(*class).or_default() |= alive;
                }
            }
        }
        stays.retain(|_, stays| !*stays);
        Self { stays }
    }

    /// Positions of an axis that stay; `None` when all do.
    pub(super) fn positions(&self, axis: &Axis) -> Option<Vec<usize>> {
        let classes = axis.as_deref()?;
        if self.stays.is_empty() || !classes.iter().any(|c| self.goes(*c)) {
            return None;
        }
        Some((0..classes.len()).filter(|&at| !self.goes(classes[at])).collect())
    }

    fn goes(&self, class: u32) -> bool {
        self.stays.contains_key(&class)
    }
}

/// Which positions of a tensor's axis stay by what the plan says of the parameter that it holds.
fn alive(
    kept: impl Fn(usize) -> Option<Vec<usize>>,
    shape: &[usize],
    form: Form,
    axis: usize,
    len: usize,
) -> Vec<bool> {
    let of = |axis: usize, len: usize| -> Vec<bool> {
        match kept(axis) {
            None => vec![true; len],
            Some(kept) => {
                let mut alive = vec![false; len];
                kept.iter().filter(|&&at| at < len).for_each(|&at| alive[at] = true);
                alive
            }
        }
    };
    match (form, axis) {
        (Form::Direction(_), 0) => vec![true; len],
        (Form::Direction(_), _) => of(axis - 1, len),
        // [in, out / groups, …] holds the parameter [out, in / groups, …].
        (Form::Transposed { groups }, 0 | 1) => {
            let (outs, ins) = (of(0, shape[0]), of(1, shape[1]));
            let (rows, per_group) = (outs.len() / groups.max(1), ins.len().max(1));
            if axis == 1 {
                return (0..len)
                    .map(|o| (0..groups).any(|g| outs.get(g * rows + o) == Some(&true)))
                    .collect();
            }
            let group = |g: usize| outs.iter().skip(g * rows).take(rows).any(|&alive| alive);
            (0..len).map(|i| ins[i % per_group] && group(i / per_group)).collect()
        }
        (Form::Whole | Form::Transposed { .. }, _) => of(axis, len),
    }
}
