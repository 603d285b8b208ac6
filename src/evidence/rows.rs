//! A batch as the caller gave it, checked.

use std::borrow::Cow;

use ndarray::{ArrayRef, Dimension};

use crate::{Element, Error, ErrorKind, Result, kernel};

/// A batch in row-major order: the caller's own memory where that is in this order.
pub(crate) struct Rows<'a, F: Element> {
    pub(crate) values: Cow<'a, [F]>,
    pub(crate) dims: Vec<usize>,
}

impl<'a, F: Element> Rows<'a, F> {
    /// Checks a batch; `what` names it in errors.
    pub(crate) fn read<D: Dimension>(layer: &str, what: &str, array: &'a ArrayRef<F, D>) -> Result<Self> {
        if array.is_empty() || array.ndim() == 0 {
            let shape = array.shape();
            return Err(Error::shape(format!("layer `{layer}`: the {what} {shape:?} holds no samples")));
        }
        let values = match array.as_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(array.iter().copied().collect()),
        };
        match kernel::reduce::first_not_finite(&values) {
            None => Ok(Self { values, dims: array.shape().to_vec() }),
            Some(at) => Err(Error::new(
                ErrorKind::NotFinite,
                format!("layer `{layer}`: the {what} at flat index {at} is {}", values[at]),
            )),
        }
    }
}
