//! Weights that are transposed before they are read.

use std::collections::HashSet;
use std::path::Path;

use crate::Result;
use crate::onnx::draft::{self, Constant, Draft};
use crate::onnx::file;
use crate::onnx::proto::dtype;
use crate::onnx::view::View;

/// Exchanges the axes of weights that only a `Transpose` reads; gives the places of those nodes in the main graph.
pub(super) fn fold(view: &View<'_>, new: &mut Draft, folder: Option<&Path>) -> Result<HashSet<usize>> {
    let mut gone = HashSet::new();
    for (at, node) in view.nodes.iter().enumerate() {
        let ([Some(weight)], [Some(output)]) = (&node.inputs[..], &node.outputs[..]) else { continue };
        let whole = node.graph == 0 && view.tensors[*weight].graph == 0 && view.tensors[*output].answers == 0;
        if node.proto.operator() != "Transpose" || !whole || view.only_reader(*weight) != Some(at) {
            continue;
        }
        let Some(proto) = view.constant(*weight).filter(|p| p.data_type.is_some_and(dtype::is_float)) else {
            continue;
        };
        let rank = proto.dims.len();
        let axes: Vec<usize> = match node.proto.ints("perm") {
            Some(axes) => axes.iter().filter_map(|&axis| usize::try_from(axis).ok()).collect(),
            None => (0..rank).rev().collect(),
        };
        let distinct: HashSet<usize> = axes.iter().copied().filter(|&axis| axis < rank).collect();
        if axes.len() != rank || distinct.len() != rank {
            continue;
        }
        let array = file::floats(proto, folder)?.permuted_axes(axes).as_standard_layout().into_owned();
        let Some(Constant::Tensor(own)) = new.constant(view, *weight)? else { continue };
        file::put_floats(own, &array)?;
        for &reader in &view.tensors[*output].readers {
            let (from, to) = (view.tensors[*output].name, view.tensors[*weight].name);
            draft::rename(&mut new.node(view, reader)?.input, from, to);
        }
        gone.insert(node.at);
    }
    Ok(gone)
}
