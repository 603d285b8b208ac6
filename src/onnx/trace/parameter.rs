//! How a parameter of the model lies in a tensor of the graph.

use ndarray::{ArrayD, Axis};

use crate::onnx::view::TensorId;

/// Where a parameter comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// an initializer, or the output of a `Constant` node
    pub(crate) tensor: TensorId,
    pub(crate) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The tensor as it is.
    Whole,
    /// One direction of a recurrent layer: this index of axis 0.
    Direction(usize),
    /// A transposed convolution [in, out / groups, taps…] as the plain one that reads its stretched input:
    /// [out, in / groups, taps…], taps in reverse.
    Transposed { groups: usize },
}

impl Form {
    /// The parameter in a tensor.
    pub(crate) fn read(self, tensor: &ArrayD<f32>) -> ArrayD<f32> {
        match self {
            Self::Whole => tensor.clone(),
            Self::Direction(d) => tensor.index_axis(Axis(0), d).to_owned(),
            Self::Transposed { groups } => turn(tensor, groups),
        }
    }

    /// The tensor that holds these parameters: one, or one for each direction.
    pub(crate) fn join(self, parameters: &[&ArrayD<f32>]) -> Option<ArrayD<f32>> {
        match (self, parameters) {
            (Self::Whole, [one]) => Some((*one).clone()),
            (Self::Transposed { groups }, [one]) => Some(turn(one, groups)),
            (Self::Direction(_), all) => {
                let views: Vec<_> = all.iter().map(|a| a.view()).collect();
                ndarray::stack(Axis(0), &views).ok()
            }
            _ => None,
        }
    }
}

/// [a, b / groups, taps…] to [b, a / groups, taps…] with taps in reverse; its own inverse.
fn turn(array: &ArrayD<f32>, groups: usize) -> ArrayD<f32> {
    let mut per_group: Vec<ArrayD<f32>> = Vec::with_capacity(groups);
    let rows = array.shape()[0] / groups.max(1);
    for group in array.axis_chunks_iter(Axis(0), rows.max(1)) {
        let mut turned = group.to_owned();
        turned.swap_axes(0, 1);
        for axis in 2..turned.ndim() {
            turned.invert_axis(Axis(axis));
        }
        per_group.push(turned);
    }
    let views: Vec<_> = per_group.iter().map(|a| a.view()).collect();
    let joined = ndarray::concatenate(Axis(0), &views);
    joined.map_or_else(|_| array.clone(), |a| a.as_standard_layout().into_owned())
}
