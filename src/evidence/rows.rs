//! A batch as the caller gave it, checked and widened.

use ndarray::{ArrayRef, Dimension};

use crate::{Element, Error, ErrorKind, Result};

/// A batch in row-major order.
pub(crate) struct Rows {
    pub(crate) values: Vec<f64>,
    pub(crate) dims: Vec<usize>,
}

impl Rows {
    /// Widens a batch; `what` names it in errors.
    pub(crate) fn read<F: Element, D: Dimension>(
        layer: &str,
        what: &str,
        array: &ArrayRef<F, D>,
    ) -> Result<Self> {
        let values: Vec<f64> = match array.as_slice() {
            Some(slice) => slice.iter().map(|x| x.widen()).collect(),
            None => array.iter().map(|x| x.widen()).collect(),
        };
        if array.is_empty() || array.ndim() == 0 {
            let shape = array.shape();
            return Err(Error::shape(format!("layer `{layer}`: the {what} {shape:?} holds no samples")));
        }
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(Self { values, dims: array.shape().to_vec() }),
            Some(at) => Err(Error::new(
                ErrorKind::NotFinite,
                format!("layer `{layer}`: the {what} at flat index {at} is {}", values[at]),
            )),
        }
    }
}
