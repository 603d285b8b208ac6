//! Small tensors whose numbers are known.

use crate::onnx::file::{floats, integers};
use crate::onnx::proto::{TensorProto, dtype};
use crate::onnx::view::TensorId;

/// Elements of the largest tensor whose numbers are followed.
pub(super) const MOST_ELEMENTS: usize = 1024;

/// A small tensor whose numbers are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) dims: Vec<usize>,
    pub(crate) elements: Vec<Element>,
    /// of an integer or boolean type
    pub(crate) is_int: bool,
}

/// A number, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) number: f64,
    pub(crate) origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Copied from this place of a constant.
    Constant(TensorId, usize),
    /// The length of this axis.
    Length(TensorId, usize),
    /// Computed.
    Other,
}

impl Value {
    /// `None` where the numbers are not as many as the dimensions say.
    pub(super) fn new(dims: Vec<usize>, elements: Vec<Element>, is_int: bool) -> Option<Self> {
        let dims = super::fitting(dims)?;
        let fits = dims.iter().product::<usize>() == elements.len();
        (fits && elements.len() <= MOST_ELEMENTS).then_some(Self { dims, elements, is_int })
    }

    /// The same numbers in another shape.
    pub(super) fn reshaped(&self, dims: &[usize]) -> Option<Self> {
        Self::new(dims.to_vec(), self.elements.clone(), self.is_int)
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> + '_ {
        self.elements.iter().map(|e| e.number)
    }

    /// As integers; those beyond the range of i64 become its ends, which is what slices mean by them.
    pub(super) fn ints(&self) -> Vec<i64> {
        self.numbers().map(|number| number as i64).collect()
    }

    /// The only number.
    pub(super) fn scalar(&self) -> Option<f64> {
        match self.elements[..] {
            [element] => Some(element.number),
            _ => None,
        }
    }
}

impl Element {
    pub(super) fn other(number: f64) -> Self {
        Self { number, origin: Origin::Other }
    }
}

/// Dimensions of a constant.
pub(super) fn dims(tensor: &TensorProto) -> Option<Vec<usize>> {
    tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect()
}

/// Numbers of a constant, unless it is large.
pub(super) fn read(tensor: &TensorProto, id: TensorId) -> Option<Value> {
    let dims = dims(tensor)?;
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if count > MOST_ELEMENTS {
        return None;
    }
    let is_int = !dtype::is_float(tensor.data_type.unwrap_or_default());
    // Numbers that decide shapes are never in external files.
    let numbers: Vec<f64> = if is_int {
        integers(tensor, None).ok()?.into_iter().map(|x| x as f64).collect()
    } else {
        floats(tensor, None).ok()?.iter().map(|&x| f64::from(x)).collect()
    };
    let numbers = numbers.into_iter().enumerate();
    let elements = numbers.map(|(at, number)| Element { number, origin: Origin::Constant(id, at) }).collect();
    Value::new(dims, elements, is_int)
}
