//! What rounding a weight costs the network: Σ over its rows of δ·G·δᵀ, for an error δ in a row.

use std::borrow::Cow;

use ndarray::{Array1, Array2};

use crate::{Element, Error, Kind, Layer, Parameter, Result};

/// A weight as rows that each multiply the same columns, group by group of a convolution, and the matrix G of each
/// group.
///
/// Rows are outputs and columns unfolded inputs, and G is the Gram matrix of the inputs. An embedding's rows are its
/// entries and its columns their features; G is Σ Wᵀ·W of the weights that read them.
#[derive(Debug)]
pub(crate) struct Objective<'a> {
    /// G of each group, d×d.
    pub(crate) grams: Vec<Cow<'a, Array2<f64>>>,
    /// Rows of the inputs that G was made of; `None` where it was made of weights.
    pub(crate) samples: Option<u64>,
    pub(crate) rows: Rows,
}

/// Where the rows of a weight lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    /// How many rows there are, all groups together.
    pub(crate) count: usize,
    /// Columns of a row.
    pub(crate) width: usize,
    groups: usize,
    contiguous: bool,
}

impl<'a> Objective<'a> {
    /// `centred`: around the mean of the inputs, where a bias or a batch norm takes the difference of the means.
    ///
    /// # Errors
    /// Gram matrices were not recorded, or an embedding is not coupled to weights that read it.
    pub(crate) fn of<F: Element>(layer: &Layer<'a, F>, centred: bool) -> Result<Self> {
        let (parameter, name) = (layer.parameter(), layer.name());
        let rows = Rows::of(parameter);
        if *parameter.kind() == Kind::Embedding {
            let gram = layer.readers_gram().filter(|gram| gram.nrows() == rows.width).ok_or_else(|| {
                Error::missing(format!(
                    "layer `{name}`: no coupling says which weights read the features of this embedding"
                ))
            })?;
            return Ok(Self { grams: vec![Cow::Owned(gram)], samples: None, rows });
        }
        let inputs = layer.inputs()?;
        if inputs.rows() == 0 {
            return Err(Error::missing(format!(
                "layer `{name}`: the inputs that were recorded hold no rows"
            )));
        }
        let gram = |group: usize| -> Result<Cow<'a, Array2<f64>>> {
            let gram = layer.gram(group)?;
            if (gram.nrows(), inputs.groups()) != (rows.width, rows.groups) {
                let (seen, groups, width) = (gram.nrows(), inputs.groups(), rows.width);
                return Err(Error::shape(format!(
                    "layer `{name}`: {groups} groups of {seen} inputs were recorded, it has {} of {width}",
                    rows.groups
                )));
            }
            if !(centred && layer.takes_constant()) {
                return Ok(Cow::Borrowed(gram));
            }
            Ok(Cow::Owned(around_mean(gram, &inputs.mean(group), inputs.rows())))
        };
        let grams = (0..rows.groups).map(gram).collect::<Result<_>>()?;
        Ok(Self { grams, samples: Some(inputs.rows()), rows })
    }
}

impl Rows {
    pub(crate) fn of<F: Element>(parameter: &Parameter<F>) -> Self {
        let (shape, len) = (parameter.shape(), parameter.values().len());
        // An embedding's errors leave it feature by feature: its entries are the rows.
        let contiguous = (*parameter.kind() == Kind::Embedding) != (parameter.out_axis() == 0);
        let count = if contiguous { shape.first() } else { shape.get(1) }.copied().unwrap_or(1).max(1);
        Self { count, width: len / count, groups: parameter.groups(), contiguous }
    }

    /// The group of a row.
    pub(crate) fn group(self, row: usize) -> usize {
        row / (self.count / self.groups).max(1)
    }

    /// Rows of a group.
    pub(crate) fn of_group(self, group: usize) -> std::ops::Range<usize> {
        let per_group = self.count / self.groups;
        group * per_group..(group + 1) * per_group
    }

    /// The flat index of a weight.
    pub(crate) fn at(self, row: usize, column: usize) -> usize {
        if self.contiguous { row * self.width + column } else { column * self.count + row }
    }
}

/// Σ (x − mean)·(x − mean)ᵀ.
pub(crate) fn around_mean(gram: &Array2<f64>, mean: &Array1<f64>, rows: u64) -> Array2<f64> {
    let n = rows as f64;
    let mut centred = gram.clone();
    for (mut row, &m) in centred.rows_mut().into_iter().zip(mean) {
        row.scaled_add(-n * m, mean);
    }
    centred
}
