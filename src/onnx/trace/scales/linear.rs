//! Weights: their columns read, their rows make.

use super::classes::Classes;
use super::{Scales, flag, input};
use crate::onnx::trace::Form;
use crate::onnx::trace::step::wrap;
use crate::onnx::view::{Node, TensorId};

impl<'g> Scales<'_, '_, 'g> {
    /// x [n, c, …], w [o, c / groups, …], b [o].
    pub(super) fn conv(&mut self, _: usize, node: &Node<'g>) {
        let (Some(x), Some(w)) = (input(node, 0), input(node, 1)) else { return self.stop(node) };
        let groups = node.proto.int("group").unwrap_or(1).max(1) as usize;
        let (x_dims, dims) = (self.dims(x), self.dims(w));
        let fits = x_dims.len() >= 3
            && dims.len() == x_dims.len()
            && dims[1].checked_mul(groups) == Some(x_dims[1])
            && dims[0].is_multiple_of(groups);
        let weight = self.weight(node, 1, [0, 1]).filter(|_| fits);
        let channels = self.get(x).of_axis(1, x_dims.get(1).copied().unwrap_or(1));
        let (Some((number, [out, inp])), Some(channels)) = (weight, channels) else { return self.stop(node) };
        if groups == 1 {
            self.part(number, inp, false, &Classes::along(channels, 0, 1));
        } else if dims[1] == 1 {
            // A row reads the channel of its group.
            let per_out = dims[0] / groups;
            let rows = (0..dims[0]).map(|row| channels[row / per_out]).collect();
            self.part(number, out, false, &Classes::along(rows, 0, 1));
        } else {
            // A column reads the same place of every group.
            let (first, others) = channels.split_at(dims[1]);
            for group in others.chunks(dims[1]) {
                first.iter().zip(group).for_each(|(&a, &b)| self.sets.join(a, b));
            }
            self.part(number, inp, false, &Classes::along(first.to_vec(), 0, 1));
        }
        self.rows(node, number, out, 1);
    }

    /// x [n, c, …], w [c, o, …], b [o]; in the model w is [o, c, …].
    pub(super) fn transposed(&mut self, _: usize, node: &Node<'g>) {
        let (Some(x), Some(w)) = (input(node, 0), input(node, 1)) else { return self.stop(node) };
        let (x_dims, dims) = (self.dims(x), self.dims(w));
        let fits = x_dims.len() >= 3 && dims.len() == x_dims.len() && dims[0] == x_dims[1];
        let weight = self.weight(node, 1, [1, 0]).filter(|_| fits);
        let channels = self.get(x).of_axis(1, x_dims.get(1).copied().unwrap_or(1));
        let (Some((number, [out, inp])), Some(channels)) = (weight, channels) else { return self.stop(node) };
        self.part(number, inp, false, &Classes::along(channels, 0, 1));
        self.rows(node, number, out, 1);
    }

    /// The units that a weight makes along an axis of the output, bias added.
    fn rows(&mut self, node: &Node<'g>, number: usize, out: usize, axis: usize) {
        let count = self.parameters[number].shape()[out];
        let Some(mut rows) = Classes::fresh(&mut self.sets, &[count]) else { return self.stop(node) };
        self.part(number, out, true, &rows);
        if let Some(bias) = input(node, 2) {
            let bias = self.operand(bias);
            match Classes::meet(&mut self.sets, &[rows.clone(), bias.clone()]) {
                Some(both) if both.rank() == 1 => rows = both,
                _ => {
                    self.sets.hold(&rows);
                    self.sets.hold(&bias);
                }
            }
        }
        let rank = node.outputs[0].map_or(0, |output| self.dims(output).len());
        self.set(node, 0, Classes::along(rows.to_vec(), axis, rank));
    }

    /// a […, m, k] · b […, k, n].
    pub(super) fn matmul(&mut self, _: usize, node: &Node<'g>) {
        let (Some(a), Some(b)) = (input(node, 0), input(node, 1)) else { return self.stop(node) };
        let (a_dims, b_dims) = (self.dims(a), self.dims(b));
        if a_dims.len() < 2 || b_dims.len() < 2 {
            return self.stop(node);
        }
        let inner = a_dims.len() - 1;
        if b_dims.len() == 2
            && let Some((number, [out, inp])) = self.weight(node, 1, [1, 0])
        {
            let Some(features) = self.get(a).of_axis(inner, a_dims[inner]) else { return self.stop(node) };
            self.part(number, inp, false, &Classes::along(features, 0, 1));
            return self.rows(node, number, out, inner);
        }
        // A product of two that are computed has the factors of both: one of them stays.
        let (left, right) = (self.get(a), self.get(b));
        let within = left.differs(inner) || right.differs(right.rank() - 2);
        let passing = match (self.sets.is_held(&left), self.sets.is_held(&right)) {
            _ if within => return self.stop(node),
            (true, true) => return,
            (true, false) => right,
            (false, true) => left,
            (false, false) => return self.stop(node),
        };
        let rank = node.outputs[0].map_or(0, |output| self.dims(output).len());
        self.set(node, 0, passing.raised(rank));
    }

    /// op(a) · op(b) + c.
    pub(super) fn gemm(&mut self, _: usize, node: &Node<'g>) {
        let turned = usize::from(flag(node.proto, "transB"));
        let Some(a) = input(node, 0).filter(|&a| self.dims(a).len() == 2) else { return self.stop(node) };
        let weight = self.weight(node, 1, [1 - turned, turned]).filter(|_| !flag(node.proto, "transA"));
        let features = self.get(a).of_axis(1, self.dims(a)[1]);
        let (Some((number, [out, inp])), Some(features)) = (weight, features) else { return self.stop(node) };
        // What is added otherwise than as a vector is not looked at.
        if input(node, 2).is_some_and(|c| self.dims(c) != [self.parameters[number].shape()[out]]) {
            self.stop(node);
        }
        self.part(number, inp, false, &Classes::along(features, 0, 1));
        self.rows(node, number, out, 1);
    }

    /// Columns of the matrices that read the input; the cells' own state stays.
    pub(super) fn recurrent(&mut self, node: &Node<'g>) {
        let (Some(x), Some(w)) = (input(node, 0), input(node, 1)) else { return self.stop(node) };
        let x_dims = self.dims(x);
        let directions: Vec<usize> = match self.own(w) {
            Some(all) if all.iter().all(|(_, form)| matches!(form, Form::Direction(_))) => {
                all.iter().map(|(number, _)| *number).collect()
            }
            _ => return self.stop(node),
        };
        let features = (x_dims.len() == 3).then(|| self.get(x).of_axis(2, x_dims[2])).flatten();
        let Some(features) = features.filter(|_| !flag(node.proto, "layout")) else { return self.stop(node) };
        for number in directions {
            self.part(number, 1, false, &Classes::along(features.clone(), 0, 1));
        }
        node.inputs.iter().skip(2).flatten().for_each(|&tensor| self.hold(tensor));
    }

    /// A normalization does not let its input's factors through. Its scale and shift make units of their own: of channels,
    /// or of the last axis.
    pub(super) fn norm(&mut self, node: &Node<'g>, channels: bool) {
        let vectors: Vec<TensorId> = (1..3).filter_map(|k| input(node, k)).collect();
        let operands: Vec<Classes> = if self.is_plain_norm(node, channels, &vectors) {
            vectors.iter().map(|&vector| self.operand(vector)).collect()
        } else {
            Vec::new()
        };
        self.stop(node);
        let rank = input(node, 0).map_or(0, |x| self.dims(x).len());
        if let Some(units) = Classes::meet(&mut self.sets, &operands) {
            self.set(node, 0, Classes::along(units.to_vec(), if channels { 1 } else { rank - 1 }, rank));
        }
    }

    /// Whether its vectors have one number for each channel, or for each place on the last axis.
    fn is_plain_norm(&self, node: &Node<'g>, channels: bool, vectors: &[TensorId]) -> bool {
        let Some(x) = input(node, 0) else { return false };
        let rank = self.dims(x).len();
        let axis = if channels { 1 } else { rank.wrapping_sub(1) };
        let last = channels || wrap(node.proto.int("axis").unwrap_or(-1), rank) == Some(axis);
        let len = self.dims(x).get(axis);
        let fits = |&vector: &TensorId| len.is_some_and(|&len| self.dims(vector) == [len]);
        last && !flag(node.proto, "training_mode") && vectors.iter().all(fits)
    }

    /// An embedding's features, or a tensor of which places are taken.
    pub(super) fn gather(&mut self, node: &Node<'g>) {
        let (Some(data), Some(indices)) = (input(node, 0), input(node, 1)) else { return self.stop(node) };
        let rank = self.dims(data).len();
        let Some(along) = wrap(node.proto.int("axis").unwrap_or(0), rank) else { return self.stop(node) };
        let more = self.dims(indices).len();
        if let Some((number, [features, _])) =
            self.weight(node, 0, [1, 0]).filter(|_| rank == 2 && along == 0)
        {
            let Some(classes) = Classes::fresh(&mut self.sets, &[self.parameters[number].shape()[features]])
            else {
                return;
            };
            self.part(number, features, true, &classes);
            return self.set(node, 0, Classes::along(classes.to_vec(), more, more + 1));
        }
        let classes = self.get(data);
        if classes.differs(along) {
            return self.stop(node);
        }
        let mut taken = classes.0.index_axis_move(ndarray::Axis(along), 0);
        for _ in 0..more {
            taken = taken.insert_axis(ndarray::Axis(along));
        }
        self.set(node, 0, Classes(taken));
    }
}
