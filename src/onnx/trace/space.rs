//! Classes of positions that stay or go together: disjoint sets, some of them held.

use std::sync::Arc;

use crate::onnx::trace::Axis;

/// Why a class is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) operator: String,
    pub(super) node: String,
    pub(super) why: &'static str,
    /// Only because a statistic over the channels would change; can be asked for.
    pub(super) statistic: bool,
}

#[derive(Debug, Default)]
pub(super) struct Space {
    parent: Vec<u32>,
    /// made by repeating one value: any length would do
    weak: Vec<bool>,
    /// index into reasons, of roots
    held: Vec<Option<u32>>,
    reasons: Vec<Reason>,
}

impl Space {
    /// A class for each position; none for an axis of one.
    pub(super) fn fresh(&mut self, len: usize) -> Axis {
        if len < 2 {
            return None;
        }
        let first = self.parent.len() as u32;
        self.parent.extend(first..first + len as u32);
        self.held.resize(self.parent.len(), None);
        self.weak.resize(self.parent.len(), false);
        Some((first..first + len as u32).collect())
    }

    /// A class for each position of an axis along which one value is repeated.
    pub(super) fn repeated(&mut self, len: usize) -> Axis {
        let axis = self.fresh(len);
        for &class in axis.iter().flat_map(|axis| axis.iter()) {
            self.weak[class as usize] = true;
        }
        axis
    }

    /// Whether an axis has nothing but repeated values so far.
    pub(super) fn is_weak(&mut self, axis: &Axis) -> bool {
        axis.iter().flat_map(|axis| axis.iter()).all(|&class| {
            let root = self.root(class);
            self.weak[root as usize]
        })
    }

    pub(super) fn root(&mut self, mut class: u32) -> u32 {
        while self.parent[class as usize] != class {
            let above = self.parent[self.parent[class as usize] as usize];
            self.parent[class as usize] = above;
            class = above;
        }
        class
    }

    pub(super) fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        // The lower number stays, whatever the order of the two.
        let (low, high) = (a.min(b), a.max(b));
        if low == high {
            return;
        }
        self.parent[high as usize] = low;
        self.weak[low as usize] &= self.weak[high as usize];
        let other = self.held[high as usize];
        let held = &mut self.held[low as usize];
        let firm = |reason: Option<u32>, reasons: &[Reason]| {
            reason.is_some_and(|at| !reasons[at as usize].statistic)
        };
        if held.is_none() || (!firm(*held, &self.reasons) && firm(other, &self.reasons)) {
            *held = other;
        }
    }

    pub(super) fn reason(&mut self, reason: Reason) -> u32 {
        let found = self.reasons.iter().rposition(|r| *r == reason);
        let at = found.unwrap_or_else(|| {
            self.reasons.push(reason);
            self.reasons.len() - 1
        });
        at as u32
    }

    pub(super) fn hold(&mut self, class: u32, reason: u32) {
        let root = self.root(class) as usize;
        let firmer =
            |old: u32| self.reasons[old as usize].statistic && !self.reasons[reason as usize].statistic;
        if self.held[root].is_none_or(firmer) {
            self.held[root] = Some(reason);
        }
    }

    pub(super) fn hold_all(&mut self, axis: &Axis, reason: u32) {
        for &class in axis.iter().flat_map(|axis| axis.iter()) {
            self.hold(class, reason);
        }
    }

    /// Why a class is held, if it is.
    pub(super) fn held(&mut self, class: u32) -> Option<&Reason> {
        let root = self.root(class) as usize;
        self.held[root].map(|at| &self.reasons[at as usize])
    }

    /// Classes that only a statistic holds are held no more.
    pub(super) fn let_statistics_go(&mut self) {
        for held in &mut self.held {
            *held = held.filter(|&at| !self.reasons[at as usize].statistic);
        }
    }

    /// The same axis with the numbers of the sets.
    pub(super) fn resolve(&mut self, axis: &Axis) -> Axis {
        let axis = axis.as_ref()?;
        Some(axis.iter().map(|&class| self.root(class)).collect::<Arc<[u32]>>())
    }
}
