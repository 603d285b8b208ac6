//! Shapes of what an operator gives.

pub(super) mod branch;
pub(super) mod generate;
pub(super) mod join;
pub(super) mod layout;
pub(super) mod reduce;
pub(super) mod repeat;
pub(super) mod slice;

mod attention;
mod conv;
mod elementwise;
mod index;
mod linear;
mod pool;
mod recurrent;
mod resize;
mod signal;
mod window;

use crate::onnx::proto::NodeProto;
use crate::onnx::view::TensorId;

use super::{DEEPEST_RANK, MOST, Value};

pub(super) use elementwise::broadcast;
pub(super) use generate::constant;

pub(super) type Found<T> = Result<T, Miss>;

/// Of each output.
pub(super) type Outputs = Vec<Option<Vec<usize>>>;

/// Why there is no shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Something that it depends on is not known.
    Unknown,
    /// The inputs do not fit each other.
    Wrong,
}

/// What is known of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) id: TensorId,
    pub(super) dims: Option<&'a [usize]>,
    pub(super) value: Option<&'a Value>,
}

/// A node with what is known of its inputs.
#[derive(Debug)]
pub(super) struct Op<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) opset: i64,
    /// the first output
    pub(super) id: Option<TensorId>,
    /// `None` where an optional input is left out
    pub(super) inputs: Vec<Option<Known<'a>>>,
    pub(super) outputs: usize,
}

impl<'a> Op<'a> {
    pub(super) fn has(&self, at: usize) -> bool {
        self.inputs.get(at).is_some_and(Option::is_some)
    }

    pub(super) fn dims(&self, at: usize) -> Found<&'a [usize]> {
        self.inputs.get(at).copied().flatten().and_then(|known| known.dims).ok_or(Miss::Unknown)
    }

    pub(super) fn value(&self, at: usize) -> Found<&'a Value> {
        self.inputs.get(at).copied().flatten().and_then(|known| known.value).ok_or(Miss::Unknown)
    }

    /// Numbers of an input.
    pub(super) fn ints(&self, at: usize) -> Found<Vec<i64>> {
        self.value(at).map(Value::ints)
    }

    /// The number of an input that has one.
    pub(super) fn scalar(&self, at: usize) -> Found<f64> {
        self.value(at)?.scalar().ok_or(Miss::Wrong)
    }

    pub(super) fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.node.int(name).unwrap_or(otherwise)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    /// An attribute that counts something.
    pub(super) fn count(&self, name: &str) -> Found<usize> {
        length(self.node.int(name).ok_or(Miss::Unknown)?.into())
    }

    /// An attribute with one number for each of `len` axes.
    pub(super) fn list(&self, name: &str, len: usize, otherwise: i64) -> Found<Vec<i64>> {
        match self.node.ints(name) {
            None | Some([]) => Ok(vec![otherwise; len]),
            Some(list) if list.len() == len => Ok(list.to_vec()),
            Some(_) => Err(Miss::Wrong),
        }
    }

    /// Numbers that newer operator sets take as an input and older ones as an attribute; `None` where both are left
    /// out.
    pub(super) fn input_or_list(&self, at: usize, name: &str) -> Found<Option<Vec<i64>>> {
        if self.has(at) { self.ints(at).map(Some) } else { Ok(self.node.ints(name).map(<[i64]>::to_vec)) }
    }

    /// Whether the operator is one of ONNX Runtime's.
    pub(super) fn is_microsoft(&self) -> bool {
        self.node.domain.as_deref() == Some("com.microsoft")
    }
}

/// The shape of each output.
pub(super) fn infer(op: &Op<'_>) -> Found<Outputs> {
    if !matches!(op.node.domain.as_deref(), None | Some("" | "ai.onnx" | "com.microsoft")) {
        return Err(Miss::Unknown);
    }
    let families = [
        elementwise::infer,
        layout::infer,
        join::infer,
        slice::infer,
        index::infer,
        linear::infer,
        conv::infer,
        pool::infer,
        reduce::infer,
        resize::infer,
        recurrent::infer,
        generate::infer,
        attention::infer,
        signal::infer,
    ];
    families.iter().find_map(|infer| infer(op)).unwrap_or(Err(Miss::Unknown))
}

/// One output of this shape.
fn one(dims: Vec<usize>) -> Outputs {
    vec![Some(dims)]
}

/// A computed length: never negative, and not absurd.
fn length(number: i128) -> Found<usize> {
    match usize::try_from(number) {
        Ok(length) if length <= MOST => Ok(length),
        Ok(_) => Err(Miss::Unknown),
        Err(_) => Err(Miss::Wrong),
    }
}

/// How many elements.
fn volume(dims: &[usize]) -> Found<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or(Miss::Unknown)
}

/// An axis that may be counted from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Found<usize> {
    let axis = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank).ok_or(Miss::Wrong)
}

pub(super) fn axes(list: &[i64], rank: usize) -> Found<Vec<usize>> {
    ensure(list.len() <= DEEPEST_RANK)?;
    list.iter().map(|&at| axis(at, rank)).collect()
}

fn ensure(holds: bool) -> Found<()> {
    if holds { Ok(()) } else { Err(Miss::Wrong) }
}
