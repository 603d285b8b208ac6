//! [`Inputs`]: what a graph is run on.

#[cfg(feature = "npz")]
use std::collections::BTreeMap;
#[cfg(feature = "npz")]
use std::path::Path;

#[cfg(feature = "npz")]
use crate::format::npz::{Numbers, read_numbers};
use crate::onnx::graph::Graph;
use crate::onnx::run::batches::{Batches, describe, one, stacked};
use crate::onnx::run::values::Values;
use crate::{Error, Result};

/// Samples in a batch unless told otherwise.
const BATCH: usize = 32;

/// Arrays by the name of the graph's input that reads them; the empty name is that of the only one.
pub(crate) type Named = Vec<(String, Values)>;

/// Samples that a graph is run on: for evidence, for recovery, for a comparison.
///
/// One array for each input of the graph, the samples on its first axis; all have as many. They are run in batches of
/// at most [`batch`](Self::batch) (default 32); a graph of a fixed batch size gets that many at a time. An array that is
/// all that the graph wants of an input whose first axis has a fixed length (a state [2, 1, 128], a scalar) goes
/// whole into every batch. An array with one axis more than the graph wants has the samples on that axis, and they are
/// run one by one.
///
/// [`samples`](Self::samples) takes a list instead, whose items are run on their own and may differ in length.
///
/// Whether they fit a graph is seen when they are used with one: a wrong name, type or shape is an error that lists
/// what the graph reads. Integers and truth values become the type that is wanted where that loses nothing.
///
/// ```
/// use ndarray::{Array, array};
/// use niwaki::onnx::Inputs;
///
/// let images = Inputs::new([("x", Array::<f32, _>::zeros((100, 1, 28, 28)).into())]).batch(10);
/// let sentences = Inputs::samples([
///     [("tokens", array![[101i64, 7, 102]].into())],
///     [("tokens", array![[101i64, 7, 8, 9, 102]].into())],
/// ]);
/// # let _ = (images, sentences);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    sets: Sets,
    batch: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Sets {
    /// Samples on the first axis.
    Stacked(Named),
    /// Each on its own.
    Each(Vec<Named>),
}

impl Inputs {
    /// Arrays with the samples on their first axis, by the name of the input.
    pub fn new<N: Into<String>>(arrays: impl IntoIterator<Item = (N, Values)>) -> Self {
        Self { sets: Sets::Stacked(named(arrays)), batch: BATCH }
    }

    /// An array for the only input of a graph.
    pub fn single(array: impl Into<Values>) -> Self {
        Self::new([("", array.into())])
    }

    /// Samples that are run one after the other, each with an array for each input as the graph wants it; the axis of
    /// samples, of length 1, may be left out.
    pub fn samples<N: Into<String>, S: IntoIterator<Item = (N, Values)>>(
        samples: impl IntoIterator<Item = S>,
    ) -> Self {
        Self { sets: Sets::Each(samples.into_iter().map(named).collect()), batch: BATCH }
    }

    /// Reads an npz archive of one array for each input, the samples on the first axis, or a single npy array for the
    /// only input of a graph.
    ///
    /// An archive whose arrays are all named `0/tokens`, `0/mask`, `1/tokens` and so on holds
    /// [`samples`](Self::samples) that are run on their own.
    ///
    /// # Errors
    /// The file cannot be read or does not hold what it promises, or an array holds no numbers.
    #[cfg(feature = "npz")]
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let arrays = read_numbers(path.as_ref())?.into_iter().map(|(name, numbers)| {
            let values = match numbers {
                Numbers::Float(array) => Values::Float(array),
                Numbers::Int(array) => Values::Int(array),
                Numbers::Bool(array) => Values::Bool(array),
            };
            (name, values)
        });
        let arrays: Named = arrays.collect();
        let mut samples: BTreeMap<usize, Named> = BTreeMap::new();
        for (name, values) in &arrays {
            let Some((Ok(sample), name)) = name.split_once('/').map(|(k, name)| (k.parse(), name)) else {
                return Ok(Self::new(arrays));
            };
            samples.entry(sample).or_default().push((name.to_owned(), values.clone()));
        }
        Ok(if samples.is_empty() { Self::new(arrays) } else { Self::samples(samples.into_values()) })
    }

    /// How many samples at most are run at a time; at least 1.
    pub fn batch(self, samples: usize) -> Self {
        Self { batch: samples.max(1), ..self }
    }

    /// The samples as the batches of a graph.
    ///
    /// # Errors
    /// They do not fit the graph; the message lists what it reads.
    pub(crate) fn fit(&self, graph: &Graph) -> Result<Batches> {
        let wanted = graph.inputs();
        let batches = match &self.sets {
            Sets::Stacked(arrays) => stacked(arrays, &wanted, self.batch),
            Sets::Each(samples) => {
                let whole = |(k, sample): (usize, &Named)| {
                    one(sample, &wanted).map_err(|e| e.context(format!("sample {k}")))
                };
                let batches = samples.iter().enumerate().map(whole).collect::<Result<_>>();
                batches.map(Batches::Each)
            }
        };
        let batches = batches.map_err(|e| {
            let list: Vec<String> = wanted.iter().map(describe).collect();
            Error::new(e.kind(), format!("{e}; the model reads {}", list.join(", ")))
        })?;
        if batches.samples() == 0 {
            return Err(Error::setting("the inputs hold no samples"));
        }
        Ok(batches)
    }
}

pub(crate) fn named<N: Into<String>>(arrays: impl IntoIterator<Item = (N, Values)>) -> Named {
    arrays.into_iter().map(|(name, values)| (name.into(), values)).collect()
}
