//! How codes and their scales lie in an ONNX model.

use crate::quantize::Scope;
use crate::{Error, Result};

/// How codes and scales lie: in ONNX's own order, or so that scales are broadcast.
pub(super) struct Layout {
    pub(super) codes: Vec<usize>,
    pub(super) scales: Vec<usize>,
    /// settings of `DequantizeLinear`
    pub(super) axis: Option<usize>,
    pub(super) block: Option<usize>,
    /// the group of each weight along an axis, where the last group is short
    pub(super) groups: Option<(usize, Vec<i64>)>,
}

/// As `DequantizeLinear` takes them. Groups go along the axes behind the first as one.
pub(super) fn direct(dims: &[usize], scope: Scope) -> Layout {
    let plain = Layout { codes: dims.to_vec(), scales: Vec::new(), axis: None, block: None, groups: None };
    match scope {
        Scope::Model | Scope::Tensor => plain,
        Scope::Channel { axis } => Layout { scales: vec![dims[axis]], axis: Some(axis), ..plain },
        Scope::Group { size, axis } => {
            let codes = rows(dims);
            let len = codes[axis.min(1)];
            let block = size.get().min(len).max(1);
            let mut scales = codes.clone();
            scales[axis.min(1)] = len.div_ceil(block);
            Layout { codes, scales, axis: Some(axis.min(1)), block: Some(block), groups: None }
        }
    }
}

/// So that scales are broadcast: [rows, groups, size] or [groups, size, columns] where groups are all of one size, else
/// with a scale for each weight.
pub(super) fn broadcast(dims: &[usize], scope: Scope, opset: i64) -> Result<Layout> {
    if opset < 7 {
        return Err(Error::unsupported(format!("codes need operator set 7, and the model has {opset}")));
    }
    let plain = Layout { codes: dims.to_vec(), scales: Vec::new(), axis: None, block: None, groups: None };
    match scope {
        Scope::Model | Scope::Tensor => Ok(plain),
        Scope::Channel { axis } => {
            let mut scales = vec![1; dims.len()];
            scales[axis] = dims[axis];
            Ok(Layout { scales, ..plain })
        }
        Scope::Group { size, axis } => {
            let matrix = rows(dims);
            let len = matrix[axis.min(1)];
            let size = size.get().min(len).max(1);
            if !len.is_multiple_of(size) {
                let of = (0..len).map(|at| (at / size) as i64).collect();
                let mut scales = matrix.clone();
                scales[axis.min(1)] = len.div_ceil(size);
                return Ok(Layout { codes: matrix, scales, groups: Some((axis.min(1), of)), ..plain });
            }
            let groups = len / size;
            let (codes, scales) = if axis == 0 {
                (vec![groups, size, matrix[1]], vec![groups, 1, matrix[1]])
            } else {
                (vec![matrix[0], groups, size], vec![matrix[0], groups, 1])
            };
            Ok(Layout { codes, scales, ..plain })
        }
    }
}

fn rows(dims: &[usize]) -> Vec<usize> {
    vec![dims.first().copied().unwrap_or(1), dims.iter().skip(1).product()]
}
