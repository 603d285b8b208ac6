//! [`Tensors`]: what a file of arrays holds.

use std::collections::{BTreeMap, HashMap};

use ndarray::ArrayD;

use crate::{Element, Error, Result};

/// A tensor that was left out on reading because it holds no weights: integers, booleans, text.
///
/// PyTorch's batch norms store one such counter each, `num_batches_tracked`.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Its type, as the file calls it: `I64`, `|b1`.
    pub dtype: String,
}

/// Named arrays in file order, with the file's metadata.
///
/// They are numbers of type `F` whatever the file's floating-point type was, in row-major order, and may hold NaN
/// or infinity: [`ModelBuilder::build`](crate::ModelBuilder::build) is what refuses those.
///
/// ```
/// # fn main() -> niwaki::Result<()> {
/// # #[cfg(feature = "safetensors")] {
/// use ndarray::ArrayD;
/// use niwaki::Model;
/// use niwaki::format::safetensors::{self, WriteOptions};
///
/// # let path = std::env::temp_dir().join(format!("niwaki-tensors-{}.safetensors", std::process::id()));
/// let weight = ArrayD::from_elem(vec![3, 4], 0.5f32);
/// safetensors::write(&path, [("fc.weight", weight.view())], &WriteOptions::new().metadata("step", "100"))?;
///
/// let tensors = safetensors::read::<f32>(&path)?;
/// assert_eq!(tensors.array("fc.weight")?, weight);
/// assert_eq!(tensors.metadata()["step"], "100");
/// assert!(tensors.skipped().is_empty());
/// let model = Model::builder().tensors(tensors).build()?;
/// assert_eq!(model.parameter_count(), 12);
/// # std::fs::remove_file(path)?;
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensors<F> {
    arrays: Vec<(String, ArrayD<F>)>,
    index: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    skipped: Vec<Skipped>,
}

impl<F: Element> Tensors<F> {
    /// Arrays in order; a name that is there already is an error.
    pub(crate) fn new(
        arrays: Vec<(String, ArrayD<F>)>,
        metadata: BTreeMap<String, String>,
        skipped: Vec<Skipped>,
    ) -> Result<Self> {
        let mut index = HashMap::with_capacity(arrays.len());
        for (at, (name, _)) in arrays.iter().enumerate() {
            if index.insert(name.clone(), at).is_some() {
                return Err(Error::format(format!("two tensors are named `{name}`")));
            }
        }
        Ok(Self { arrays, index, metadata, skipped })
    }

    /// The array of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Name`](crate::ErrorKind::Name) when there is none; the message says so if it was skipped.
    pub fn array(&self, name: &str) -> Result<&ArrayD<F>> {
        self.find(name).ok_or_else(|| match self.skipped.iter().find(|s| s.name == name) {
            Some(s) => Error::name(format!("tensor `{name}` is of type {} and was skipped", s.dtype)),
            None => Error::name(format!("the file has no tensor `{name}`")),
        })
    }

    /// The array of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&ArrayD<F>> {
        self.index.get(name).map(|&at| &self.arrays[at].1)
    }

    /// Names and arrays, in file order.
    pub fn iter(&self) -> Iter<'_, F> {
        self.arrays.iter().map(|(name, array)| (name.as_str(), array))
    }

    /// How many arrays there are.
    pub fn len(&self) -> usize {
        self.arrays.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.arrays.is_empty()
    }

    /// The file's own words, key to value; an npz archive has none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensors that were left out because they are no floating-point numbers.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// All tensors of several files, in order; a later file's word of metadata replaces an earlier one's.
    #[cfg(feature = "safetensors")]
    pub(crate) fn join(files: Vec<Self>) -> Result<Self> {
        let (mut arrays, mut metadata, mut skipped) = (Vec::new(), BTreeMap::new(), Vec::new());
        for file in files {
            arrays.extend(file.arrays);
            metadata.extend(file.metadata);
            skipped.extend(file.skipped);
        }
        Self::new(arrays, metadata, skipped)
    }
}

/// Names and arrays of [`Tensors`], in order.
pub type Iter<'a, F> = std::iter::Map<
    std::slice::Iter<'a, (String, ArrayD<F>)>,
    fn(&'a (String, ArrayD<F>)) -> (&'a str, &'a ArrayD<F>),
>;

impl<F> IntoIterator for Tensors<F> {
    type Item = (String, ArrayD<F>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.arrays.into_iter()
    }
}

impl<'a, F: Element> IntoIterator for &'a Tensors<F> {
    type Item = (&'a str, &'a ArrayD<F>);
    type IntoIter = Iter<'a, F>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An empty folder for a test's files.
#[cfg(test)]
pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("niwaki-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A file of the shared test data, if it is there; says so if it is not.
#[cfg(test)]
pub(crate) fn shared(name: &str) -> Option<std::path::PathBuf> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if !path.exists() {
        println!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}
