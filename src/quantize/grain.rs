//! Which weights share a scale, before the parameter is known.

use crate::quantize::{GroupSize, Scope};
use crate::{Element, Kind, Parameter};

/// A [`Scope`] whose axis the parameter chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Grain {
    Model,
    Tensor,
    /// The output axis; for an embedding its entries.
    Channel,
    Axis(usize),
    Group(GroupSize),
}

impl Grain {
    pub(crate) fn scope<F: Element>(self, parameter: &Parameter<F>) -> Scope {
        match self {
            Self::Model => Scope::Model,
            Self::Tensor => Scope::Tensor,
            // What a lookup reads is one entry.
            Self::Channel if *parameter.kind() == Kind::Embedding => {
                Scope::Channel { axis: 1 - parameter.out_axis().min(1) }
            }
            Self::Channel => Scope::Channel { axis: parameter.out_axis() },
            Self::Axis(axis) => Scope::Channel { axis },
            Self::Group(size) => Scope::Group { size, axis: group_axis(parameter) },
        }
    }
}

/// Along the inputs of each output; for an embedding along the features of each entry, which is what a lookup
/// reads.
fn group_axis<F: Element>(parameter: &Parameter<F>) -> usize {
    if parameter.shape().len() < 2 {
        return 0;
    }
    let features_first = (*parameter.kind() == Kind::Embedding) == (parameter.out_axis() == 0);
    usize::from(!features_first)
}
