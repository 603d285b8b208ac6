//! [`Values`]: an array of any type that a graph reads or answers.

use ndarray::{Array, ArrayD, Axis, Dimension, Slice};

use crate::evidence::held_out::number;
use crate::onnx::proto::dtype;

/// Integers up to here are exact in f32.
const EXACT: u64 = 1 << 24;

/// An array that a graph reads or answers. Integers of all widths are held as i64.
///
/// ```
/// use ndarray::array;
/// use niwaki::onnx::Values;
///
/// let tokens = Values::from(array![[101i32, 7, 102]]);
/// assert_eq!(tokens.shape(), [1, 3]);
/// assert_eq!(tokens.type_name(), "i64");
/// assert!(Values::from(array![1.0f32]).floats().is_some());
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Floating-point numbers.
    Float(ArrayD<f32>),
    /// Integers.
    Int(ArrayD<i64>),
    /// Truth values.
    Bool(ArrayD<bool>),
}

impl Values {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Float(a) => a.shape(),
            Self::Int(a) => a.shape(),
            Self::Bool(a) => a.shape(),
        }
    }

    /// `f32`, `i64` or `bool`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Float(_) => "f32",
            Self::Int(_) => "i64",
            Self::Bool(_) => "bool",
        }
    }

    /// The floating-point numbers, if it holds such.
    pub fn floats(&self) -> Option<&ArrayD<f32>> {
        if let Self::Float(array) = self { Some(array) } else { None }
    }

    /// The same numbers as ONNX's type of this number; `None` when some would change.
    pub(crate) fn cast(&self, data_type: i32) -> Option<Self> {
        match (data_type, self) {
            (0, any) => Some(any.clone()),
            (of, Self::Float(a)) if dtype::is_float(of) => Some(Self::Float(a.clone())),
            (of, Self::Int(a)) if dtype::is_float(of) => {
                let exact = a.iter().all(|x| x.unsigned_abs() <= EXACT);
                exact.then(|| Self::Float(a.mapv(|x| x as f32)))
            }
            (of, Self::Bool(a)) if dtype::is_float(of) => {
                Some(Self::Float(a.mapv(|x| f32::from(u8::from(x)))))
            }
            (dtype::BOOL, Self::Bool(a)) => Some(Self::Bool(a.clone())),
            (dtype::BOOL, Self::Int(a)) => {
                a.iter().all(|x| matches!(x, 0 | 1)).then(|| Self::Bool(a.mapv(|x| x == 1)))
            }
            (of, Self::Int(a)) => {
                let (least, most) = range(of)?;
                a.iter().all(|x| (least..=most).contains(x)).then(|| Self::Int(a.clone()))
            }
            (of, Self::Bool(a)) => range(of).map(|_| Self::Int(a.mapv(i64::from))),
            _ => None,
        }
    }

    /// Its values as numbers that say which they are.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        match self {
            Self::Float(a) => a.iter().map(number).collect(),
            Self::Int(a) => a.iter().map(|&x| x as u64).collect(),
            Self::Bool(a) => a.iter().map(|&x| u64::from(x)).collect(),
        }
    }

    /// Some of the positions of axis 0, those after each other.
    pub(crate) fn rows(&self, from: usize, count: usize) -> Self {
        let slice = Slice::from(from..from + count);
        match self {
            Self::Float(a) => Self::Float(a.slice_axis(Axis(0), slice).to_owned()),
            Self::Int(a) => Self::Int(a.slice_axis(Axis(0), slice).to_owned()),
            Self::Bool(a) => Self::Bool(a.slice_axis(Axis(0), slice).to_owned()),
        }
    }

    /// One position of axis 0, without the axis.
    pub(crate) fn at(&self, index: usize) -> Self {
        match self {
            Self::Float(a) => Self::Float(a.index_axis(Axis(0), index).to_owned()),
            Self::Int(a) => Self::Int(a.index_axis(Axis(0), index).to_owned()),
            Self::Bool(a) => Self::Bool(a.index_axis(Axis(0), index).to_owned()),
        }
    }

    /// With an axis of length 1 in front.
    pub(crate) fn as_one_row(&self) -> Self {
        match self.clone() {
            Self::Float(a) => Self::Float(a.insert_axis(Axis(0))),
            Self::Int(a) => Self::Int(a.insert_axis(Axis(0))),
            Self::Bool(a) => Self::Bool(a.insert_axis(Axis(0))),
        }
    }
}

/// The least and the largest number of an integer type.
fn range(data_type: i32) -> Option<(i64, i64)> {
    match data_type {
        dtype::UINT8 => Some((0, u8::MAX.into())),
        dtype::INT8 => Some((i8::MIN.into(), i8::MAX.into())),
        dtype::INT32 => Some((i32::MIN.into(), i32::MAX.into())),
        dtype::INT64 => Some((i64::MIN, i64::MAX)),
        _ => None,
    }
}

/// What ONNX calls a type.
pub(crate) fn name_of(data_type: i32) -> &'static str {
    match data_type {
        0 => "any",
        dtype::FLOAT => "f32",
        dtype::UINT8 => "u8",
        dtype::INT8 => "i8",
        dtype::INT32 => "i32",
        dtype::INT64 => "i64",
        dtype::BOOL => "bool",
        dtype::FLOAT16 => "f16",
        dtype::DOUBLE => "f64",
        dtype::BFLOAT16 => "bf16",
        _ => "another type",
    }
}

macro_rules! from_arrays {
    ($($from:ty => $to:ident by $convert:expr),*) => {$(
        impl<D: Dimension> From<Array<$from, D>> for Values {
            fn from(array: Array<$from, D>) -> Self {
                Self::$to(array.mapv($convert).into_dyn().as_standard_layout().into_owned())
            }
        }
    )*};
}

from_arrays!(
    f32 => Float by |x| x, f64 => Float by |x| x as f32,
    i64 => Int by |x| x, i32 => Int by i64::from, i8 => Int by i64::from, u8 => Int by i64::from,
    bool => Bool by |x| x
);

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn only_what_loses_nothing_is_converted() {
        let ints = Values::from(array![0i64, 1, 300]);
        assert_eq!(ints.cast(dtype::INT32), Some(ints.clone()));
        assert_eq!(ints.cast(dtype::FLOAT), Some(Values::from(array![0.0f32, 1.0, 300.0])));
        assert_eq!((ints.cast(dtype::UINT8), ints.cast(dtype::BOOL)), (None, None));
        assert_eq!(Values::from(array![1u8, 0]).cast(dtype::BOOL), Some(Values::from(array![true, false])));
        assert_eq!(Values::from(array![true]).cast(dtype::INT64), Some(Values::from(array![1i64])));
        assert_eq!(Values::from(array![(1i64 << 24) + 1]).cast(dtype::FLOAT), None);
        assert_eq!(Values::from(array![1.0f32]).cast(dtype::INT64), None);
    }
}
