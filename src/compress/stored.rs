//! The forms that a parameter is stored in.

use ndarray::ArrayD;

use crate::model::Mask;
use crate::quantize::QuantizedTensor;
use crate::{Element, Error, Result};

/// A parameter as it is stored.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Stored<F> {
    /// All values.
    Dense(ArrayD<F>),
    /// A bitmap and the values that are not 0.
    Sparse(SparseTensor<F>),
    /// Codes.
    Quantized(QuantizedTensor),
}

impl<F: Element> Stored<F> {
    /// A parameter that is not quantized, in the form that takes fewer bytes.
    pub fn of(array: ArrayD<F>) -> Self {
        let nonzero = array.iter().filter(|v| !v.is_zero()).count();
        let sparse_bytes = SparseTensor::<F>::bytes_for(array.len(), nonzero);
        if sparse_bytes < array.len() * F::BYTES {
            Self::Sparse(SparseTensor::of(&array))
        } else {
            Self::Dense(array)
        }
    }

    /// The shape it decodes to.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Dense(array) => array.shape(),
            Self::Sparse(sparse) => sparse.shape(),
            Self::Quantized(quantized) => quantized.shape(),
        }
    }

    /// The values.
    pub fn decode(&self) -> ArrayD<F> {
        match self {
            Self::Dense(array) => array.clone(),
            Self::Sparse(sparse) => sparse.decode(),
            Self::Quantized(quantized) => quantized.decode(),
        }
    }

    /// Bytes of its arrays as stored, scales and bitmaps included.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(array) => array.len() * F::BYTES,
            Self::Sparse(sparse) => sparse.bytes(),
            Self::Quantized(quantized) => quantized.bytes(),
        }
    }
}

/// A bitmap and the values whose bit is set, in row-major order.
///
/// ```
/// use ndarray::array;
/// use niwaki::compress::SparseTensor;
/// let array = array![[0.0f32, 2.0], [0.0, 0.0]].into_dyn();
/// let sparse = SparseTensor::of(&array);
/// assert_eq!((sparse.values(), sparse.bytes()), (&[2.0f32][..], 8 + 4));
/// assert_eq!(sparse.decode(), array);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SparseTensor<F> {
    support: Mask,
    values: Vec<F>,
}

impl<F: Element> SparseTensor<F> {
    /// The values that are not 0.
    pub fn of(array: &ArrayD<F>) -> Self {
        let dense = array.as_standard_layout();
        let all = dense.as_slice().unwrap_or_default();
        let support = Mask::from_values(array.shape(), all, |_| |v: &F| !v.is_zero());
        Self { support, values: all.iter().copied().filter(|v| !v.is_zero()).collect() }
    }

    /// From its two arrays.
    ///
    /// # Errors
    /// The bitmap does not have as many bits set as there are values.
    pub fn from_parts(support: Mask, values: Vec<F>) -> Result<Self> {
        if support.kept() == values.len() {
            return Ok(Self { support, values });
        }
        let (set, given) = (support.kept(), values.len());
        Err(Error::format(format!(
            "a sparse tensor's bitmap has {set} bits set, but there are {given} values"
        )))
    }

    /// The shape it decodes to.
    pub fn shape(&self) -> &[usize] {
        self.support.shape()
    }

    /// Which elements have values.
    pub fn support(&self) -> &Mask {
        &self.support
    }

    /// The values that are not 0.
    pub fn values(&self) -> &[F] {
        &self.values
    }

    /// All values.
    pub fn decode(&self) -> ArrayD<F> {
        let mut next = self.values.iter();
        let value = |k: usize| {
            if self.support.keeps(k) { next.next().copied().unwrap_or_default() } else { F::zero() }
        };
        let all = (0..self.support.len()).map(value).collect();
        ArrayD::from_shape_vec(self.shape(), all).unwrap_or_default()
    }

    /// Bytes as stored: the bitmap in words of 64 bits, and the values.
    pub fn bytes(&self) -> usize {
        Self::bytes_for(self.support.len(), self.values.len())
    }

    fn bytes_for(len: usize, nonzero: usize) -> usize {
        len.div_ceil(64) * 8 + nonzero * F::BYTES
    }
}
