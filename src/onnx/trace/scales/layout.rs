//! Operators that move places without computing.

use ndarray::{Axis, Slice};

use super::classes::Classes;
use super::{Scales, input};
use crate::onnx::shape::{Origin, Value};
use crate::onnx::trace::ops::reshape::segments;
use crate::onnx::trace::step::wrap;
use crate::onnx::view::Node;

impl<'g> Scales<'_, '_, 'g> {
    /// Axes that are merged or split are followed position by position, unless they are as long as the inputs make them.
    pub(super) fn reshape(&mut self, node: &Node<'g>) {
        let (Some(x), Some(y)) = (input(node, 0), node.outputs[0]) else { return self.stop(node) };
        let classes = self.get(x);
        let (from, to) = (self.dims(x), self.dims(y));
        let (mut long, mut out) = (classes.0.shape().to_vec(), vec![1; to.len()]);
        for (left, right) in segments(from, to) {
            if !left.clone().any(|axis| classes.differs(axis)) {
                continue;
            }
            let follows = left.clone().any(|axis| self.tracer.dynamic[x][axis])
                || right.clone().any(|axis| self.tracer.dynamic[y][axis]);
            if left.len() == 1 && right.len() == 1 {
                out[right.start] = long[left.start];
            } else if follows {
                return self.stop(node);
            } else {
                left.for_each(|axis| long[axis] = from[axis]);
                right.for_each(|axis| out[axis] = to[axis]);
            }
        }
        let moved = classes.spread(&long).and_then(|all| all.0.into_shape_with_order(out).ok());
        match moved {
            Some(moved) => self.set(node, 0, Classes(moved)),
            None => self.stop(node),
        }
    }

    /// Axes of length 1 come or go.
    pub(super) fn same_places(&mut self, node: &Node<'g>) {
        let (Some(x), Some(y)) = (input(node, 0), node.outputs[0]) else { return self.stop(node) };
        let classes = self.get(x);
        let mut left = classes.0.shape().iter().zip(self.dims(x)).filter(|(_, len)| **len != 1);
        let next = |&len: &usize| if len == 1 { Some(1) } else { left.next().map(|(own, _)| *own) };
        let shape: Option<Vec<usize>> = self.dims(y).iter().map(next).collect();
        let moved = shape.and_then(|shape| classes.0.clone().into_shape_with_order(shape).ok());
        match moved {
            Some(moved) => self.set(node, 0, Classes(moved)),
            None => self.stop(node),
        }
    }

    pub(super) fn transpose(&mut self, node: &Node<'g>) {
        let Some(x) = input(node, 0) else { return };
        let (classes, rank) = (self.get(x), self.dims(x).len());
        let order: Vec<usize> = match node.proto.ints("perm") {
            Some(perm) => perm.iter().filter_map(|&axis| wrap(axis, rank)).collect(),
            None => (0..rank).rev().collect(),
        };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return self.stop(node);
        }
        let turned = classes.0.permuted_axes(order).as_standard_layout().into_owned();
        self.set(node, 0, Classes(turned));
    }

    /// `Expand` and `Tile`: what is repeated has one factor already.
    pub(super) fn repeat(&mut self, node: &Node<'g>) {
        let (Some(x), Some(y)) = (input(node, 0), node.outputs[0]) else { return self.stop(node) };
        let raised = self.get(x).raised(self.dims(y).len());
        if raised.fits(self.dims(y)) { self.set(node, 0, raised) } else { self.stop(node) }
    }

    pub(super) fn concat(&mut self, node: &Node<'g>) {
        let Some(y) = node.outputs[0] else { return };
        let rank = self.dims(y).len();
        let Some(along) = wrap(node.proto.int("axis").unwrap_or(1), rank) else { return self.stop(node) };
        let inputs: Vec<_> = node.inputs.iter().flatten().copied().collect();
        let parts: Vec<Classes> = inputs.iter().map(|&tensor| self.get(tensor)).collect();
        if parts.iter().any(|part| part.rank() != rank) {
            return self.stop(node);
        }
        // As long along the axis as each part is, and elsewhere as long as the longest.
        let most = |axis: usize| parts.iter().map(|part| part.0.shape()[axis]).max().unwrap_or(1);
        let long: Option<Vec<Classes>> = parts
            .iter()
            .zip(&inputs)
            .map(|(part, &tensor)| {
                let own = self.dims(tensor)[along];
                let dims: Vec<usize> =
                    (0..rank).map(|axis| if axis == along { own } else { most(axis) }).collect();
                part.spread(&dims)
            })
            .collect();
        let Some(long) = long else { return self.stop(node) };
        let views: Vec<_> = long.iter().map(|part| part.0.view()).collect();
        match ndarray::concatenate(Axis(along), &views) {
            Ok(all) => self.set(node, 0, Classes(all.as_standard_layout().into_owned())),
            Err(_) => self.stop(node),
        }
    }

    pub(super) fn split(&mut self, node: &Node<'g>) {
        let Some(x) = input(node, 0) else { return };
        let (classes, dims) = (self.get(x), self.dims(x));
        let Some(along) = wrap(node.proto.int("axis").unwrap_or(0), dims.len()) else {
            return self.stop(node);
        };
        let mut start = 0;
        for k in 0..node.outputs.len() {
            let Some(output) = node.outputs[k] else { return self.stop(node) };
            let len = self.dims(output).get(along).copied().unwrap_or(0);
            let end = start + len;
            if !classes.differs(along) {
                self.set(node, k, classes.clone());
            } else if end <= dims[along] && !self.tracer.dynamic[x][along] {
                let part = classes.0.slice_axis(Axis(along), Slice::from(start..end));
                self.set(node, k, Classes(part.to_owned()));
            } else {
                return self.stop(node);
            }
            start = end;
        }
    }

    /// Places are followed where the bounds are written in the file and it takes one after the other.
    pub(super) fn slice(&mut self, node: &Node<'g>) {
        let Some(x) = input(node, 0) else { return };
        let (mut classes, dims) = (self.get(x), self.dims(x));
        let list = |name: &str, k: usize| match (node.proto.ints(name), self.value(node, k)) {
            (Some(ints), _) => Some(ints.to_vec()),
            (None, Some(value)) => fixed(value),
            (None, None) => None,
        };
        let (starts, ends) = (list("starts", 1), list("ends", 2));
        let (named, steps) = (list("axes", 3), list("steps", 4));
        let unknown = |list: &Option<Vec<i64>>, k| list.is_none() && input(node, k).is_some();
        if unknown(&named, 3) || unknown(&steps, 4) {
            return self.stop(node);
        }
        let count = starts.as_ref().map_or(dims.len(), Vec::len);
        let named = named.unwrap_or_else(|| (0..count as i64).collect());
        for (k, &axis) in named.iter().enumerate() {
            let Some(at) = wrap(axis, dims.len()) else { return self.stop(node) };
            if !classes.differs(at) {
                continue;
            }
            let by = steps.as_ref().map_or(Some(1), |steps| steps.get(k).copied());
            let bounds = [&starts, &ends].map(|list| list.as_ref().and_then(|list| list.get(k).copied()));
            let ([Some(start), Some(end)], Some(1)) = (bounds, by) else { return self.stop(node) };
            let len = dims[at] as i64;
            let place = |p: i64| (if p < 0 { p.saturating_add(len) } else { p }).clamp(0, len) as usize;
            let (start, end) = (place(start), place(end));
            if start >= end || self.tracer.dynamic[x][at] {
                return self.stop(node);
            }
            classes = Classes(classes.0.slice_axis(Axis(at), Slice::from(start..end)).to_owned());
        }
        self.set(node, 0, classes);
    }

    /// Zeros, or copies of what is there, along axes of one class.
    pub(super) fn pad(&mut self, node: &Node<'g>) {
        let Some(x) = input(node, 0) else { return };
        let (classes, rank) = (self.get(x), self.dims(x).len());
        let constant = node.proto.text("mode").unwrap_or("constant") == "constant";
        let zero = match input(node, 2) {
            Some(_) => self.value(node, 2).is_some_and(|v| v.elements.iter().all(|e| e.number == 0.0)),
            None => node.proto.float("value").unwrap_or(0.0) == 0.0,
        };
        let pads = match node.proto.ints("pads") {
            Some(pads) => Some(pads.to_vec()),
            None => self.value(node, 1).and_then(fixed),
        };
        let named = match (input(node, 3), self.value(node, 3)) {
            (Some(_), Some(value)) => fixed(value),
            (Some(_), None) => None,
            (None, _) => Some((0..rank as i64).collect()),
        };
        let (Some(named), true) = (named, zero || !constant) else { return self.stop(node) };
        for axis in (0..rank).filter(|&axis| classes.differs(axis)) {
            let place = named.iter().position(|&a| wrap(a, rank) == Some(axis));
            let still = place.is_none_or(|k| {
                let pads = pads.as_deref().unwrap_or_default();
                [k, k + named.len()].iter().all(|&k| pads.get(k) == Some(&0))
            });
            if !still {
                return self.stop(node);
            }
        }
        self.set(node, 0, classes);
    }

    /// Weighted means of places, along axes of one class.
    pub(super) fn resize(&mut self, node: &Node<'g>) {
        let (Some(x), Some(y)) = (input(node, 0), node.outputs[0]) else { return self.stop(node) };
        let (classes, from, to) = (self.get(x), self.dims(x), self.dims(y));
        let crops = node.proto.text("coordinate_transformation_mode") == Some("tf_crop_and_resize");
        let moved = (0..from.len()).any(|axis| classes.differs(axis) && from.get(axis) != to.get(axis));
        if crops || moved { self.stop(node) } else { self.set(node, 0, classes) }
    }
}

/// Numbers that stand in the file.
fn fixed(value: &Value) -> Option<Vec<i64>> {
    let one =
        |e: &crate::onnx::shape::Element| matches!(e.origin, Origin::Constant(..)).then_some(e.number as i64);
    value.elements.iter().map(one).collect()
}
