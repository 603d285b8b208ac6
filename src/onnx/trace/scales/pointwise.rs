//! Operators that work on each place alone, and those that slide or reduce.

use super::classes::Classes;
use super::{Scales, input, narrows};
use crate::onnx::trace::step::wrap;
use crate::onnx::view::Node;

impl<'g> Scales<'_, '_, 'g> {
    /// f(s·x) = s·f(x) for s > 0.
    pub(super) fn pass(&mut self, node: &Node<'g>) {
        let Some(x) = input(node, 0).filter(|_| !narrows(node.proto)) else { return self.stop(node) };
        // Slopes of a leaky ReLU stay; a dropout that may be at work is not looked at.
        node.inputs.iter().skip(1).flatten().for_each(|&tensor| self.hold(tensor));
        if node.proto.op_type() == "Dropout" && input(node, 2).is_some() {
            return self.stop(node);
        }
        let rank = node.outputs[0].map_or(0, |output| self.dims(output).len());
        let classes = self.get(x);
        if classes.rank() == rank {
            self.set(node, 0, classes);
        } else {
            self.stop(node);
        }
    }

    /// Inputs that are added, or compared, have one factor. Those before `from` only choose.
    pub(super) fn join(&mut self, node: &Node<'g>, from: usize) {
        node.inputs.iter().take(from).flatten().for_each(|&tensor| self.hold(tensor));
        let inputs: Vec<_> = node.inputs.iter().skip(from).flatten().copied().collect();
        // Two constants, or one and what stays, make nothing that could move.
        if !inputs.iter().any(|tensor| self.of.contains_key(tensor)) {
            return;
        }
        let all: Vec<Classes> = inputs.iter().map(|&tensor| self.operand(tensor)).collect();
        match Classes::meet(&mut self.sets, &all) {
            Some(classes) => self.set(node, 0, classes),
            None => all.iter().for_each(|classes| self.sets.hold(classes)),
        }
    }

    /// A product has the factors of both: one side stays. Where both would, a constant makes units of its own.
    pub(super) fn product(&mut self, node: &Node<'g>) {
        let [Some(a), Some(b)] = [input(node, 0), input(node, 1)] else { return self.stop(node) };
        let sides = [self.get(a), self.get(b)];
        let passing = match [self.sets.is_held(&sides[0]), self.sets.is_held(&sides[1])] {
            [false, false] => return self.stop(node),
            [false, true] => sides[0].clone(),
            [true, false] => sides[1].clone(),
            [true, true] => {
                let vector = [a, b].into_iter().find(|&side| self.own(side).is_some());
                let Some(vector) = vector else { return };
                self.operand(vector)
            }
        };
        let rank = node.outputs[0].map_or(0, |output| self.dims(output).len());
        self.set(node, 0, passing.raised(rank));
    }

    pub(super) fn quotient(&mut self, node: &Node<'g>) {
        let [Some(a), Some(b)] = [input(node, 0), input(node, 1)] else { return self.stop(node) };
        self.hold(b);
        let rank = node.outputs[0].map_or(0, |output| self.dims(output).len());
        let classes = self.get(a).raised(rank);
        self.set(node, 0, classes);
    }

    /// Places of a channel have one factor, or the channel stays.
    pub(super) fn pool(&mut self, node: &Node<'g>) {
        let Some(x) = input(node, 0) else { return };
        let classes = self.get(x);
        if (2..classes.rank()).any(|axis| classes.differs(axis)) {
            return self.stop(node);
        }
        self.set(node, 0, classes);
    }

    pub(super) fn reduce(&mut self, node: &Node<'g>) {
        let Some(x) = input(node, 0) else { return };
        let (classes, rank) = (self.get(x), self.dims(x).len());
        let named: Option<Vec<i64>> = match node.proto.ints("axes") {
            Some(ints) => Some(ints.to_vec()),
            None => self.value(node, 1).map(|v| v.elements.iter().map(|e| e.number as i64).collect()),
        };
        if named.is_none() && input(node, 1).is_some() {
            return self.stop(node);
        }
        let named = named.unwrap_or_default();
        let gone: Vec<usize> = match &named[..] {
            [] if node.proto.int("noop_with_empty_axes") == Some(1) => Vec::new(),
            [] => (0..rank).collect(),
            named => named.iter().filter_map(|&axis| wrap(axis, rank)).collect(),
        };
        if gone.iter().any(|&axis| classes.differs(axis)) {
            return self.stop(node);
        }
        let keep = node.proto.int("keepdims").unwrap_or(1) != 0;
        let mut left = classes.0;
        for axis in (0..rank).rev().filter(|axis| !keep && gone.contains(axis)) {
            left = left.index_axis_move(ndarray::Axis(axis), 0);
        }
        self.set(node, 0, Classes(left));
    }
}
