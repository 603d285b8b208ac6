//! The model that a plan left, beside the traced one.

use crate::model::{Model, Parameter};
use crate::onnx::trace::Traced;
use crate::prune::Plan;
use crate::{Error, Result};

/// What became of each parameter of the traced model.
pub(super) struct Left<'t> {
    plan: &'t Plan,
    old: &'t Model<f32>,
    new: &'t Model<f32>,
    /// by their numbers in the traced model; `None` for one that is gone
    names: Vec<Option<String>>,
}

impl<'t> Left<'t> {
    /// # Errors
    /// The model is not what the plan leaves of the traced one.
    pub(super) fn new(traced: &'t Traced, plan: &'t Plan, new: &'t Model<f32>) -> Result<Self> {
        let names = traced.model.parameters().iter().map(|p| name_after(p.name(), plan, new));
        let left = Self { plan, old: &traced.model, new, names: names.collect::<Result<_>>()? };
        (0..left.names.len()).try_for_each(|at| left.check(at))?;
        Ok(left)
    }

    /// The parameter by this number in the traced model, as it is now, if it is there.
    pub(super) fn parameter(&self, at: usize) -> Option<&'t Parameter<f32>> {
        self.new.find(self.names[at].as_deref()?)
    }

    /// The number of the parameter that is called this now.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|after| after.as_deref() == Some(name))
    }

    /// Positions of an axis of a parameter that stay; `None` when all do.
    pub(super) fn kept(&self, at: usize, axis: usize) -> Option<Vec<usize>> {
        let old = self.old.parameters()[at].name();
        let first = self.plan.kept(old, axis);
        match self.names[at]
            .as_deref()
            .filter(|name| *name != old)
            .and_then(|name| self.plan.kept(name, axis))
        {
            None => first,
            Some(then) => Some(match first {
                None => then,
                Some(first) => then.iter().filter_map(|&p| first.get(p).copied()).collect(),
            }),
        }
    }

    fn check(&self, at: usize) -> Result<()> {
        let Some(ours) = self.parameter(at) else { return Ok(()) };
        let name = ours.name();
        let mut shape = self.old.parameters()[at].shape().to_vec();
        for (axis, len) in shape.iter_mut().enumerate() {
            let Some(kept) = self.kept(at, axis) else { continue };
            if kept.last().is_some_and(|last| last >= len) {
                return Err(Error::shape(format!("parameter `{name}`: the plan was made for another graph")));
            }
            *len = kept.len();
        }
        if ours.shape() != shape {
            let given = ours.shape();
            return Err(Error::shape(format!("parameter `{name}` {given:?}: the plan leaves {shape:?}")));
        }
        Ok(())
    }
}

/// What a parameter is called by now. Copies that blocks got of it are one array in the graph still, so they must be
/// equal.
fn name_after(name: &str, plan: &Plan, new: &Model<f32>) -> Result<Option<String>> {
    if new.find(name).is_some() {
        return Ok(Some(name.to_owned()));
    }
    let copies = plan.selections().filter_map(|s| s.copies.get(name)).flatten();
    let copies: Vec<&Parameter<f32>> = copies.filter_map(|(_, copy)| new.find(copy)).collect();
    let differs = copies.iter().find(|copy| copy.array() != copies[0].array());
    if let Some(copy) = differs {
        let (a, b) = (copies[0].name(), copy.name());
        return Err(Error::unsupported(format!(
            "parameter `{name}`: `{a}` and `{b}` differ, and in the graph they are one array; plan with `keep_shared`"
        )));
    }
    let known = plan.selections().any(|s| s.drops(name) || s.copies.contains_key(name));
    match copies.first() {
        Some(copy) => Ok(Some(copy.name().to_owned())),
        None if known => Ok(None),
        None => {
            Err(Error::name(format!("parameter `{name}`: the plan leaves it, the model does not have it")))
        }
    }
}
