//! Lengths of the axes that a file leaves open.

use std::collections::HashMap;

use crate::onnx::graph::{Dim, ValueInfo};
use crate::onnx::proto::dtype;
use crate::onnx::view::View;
use crate::{Error, Result};

/// Lengths for open axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    /// of the first axis, and of axes with "batch" in their name
    batch: usize,
    /// of the last two axes of an image, channels before them
    image: usize,
    /// of all others: words, frames, samples
    other: usize,
}

/// The first that breaks nothing counts. Samples of sound must be many, channels of an image net a multiple of 32.
pub(super) const GUESSES: [Guess; 22] = [
    guess(2, 64, 8),
    guess(1, 64, 8),
    guess(2, 224, 16),
    guess(2, 64, 64),
    guess(2, 32, 32),
    guess(2, 96, 96),
    guess(2, 128, 128),
    guess(2, 256, 256),
    guess(2, 224, 224),
    guess(2, 512, 512),
    guess(2, 640, 576),
    guess(2, 1024, 1024),
    guess(2, 64, 16000),
    guess(2, 64, 1),
    guess(1, 32, 32),
    guess(1, 64, 64),
    guess(1, 128, 128),
    guess(1, 224, 224),
    guess(1, 256, 256),
    guess(1, 512, 512),
    guess(1, 640, 576),
    guess(1, 64, 1),
];

/// What is assumed of one run.
#[derive(Debug)]
pub(super) struct Assumed {
    /// of the main graph's inputs, in their order
    pub(super) inputs: Vec<Option<Vec<usize>>>,
    /// lengths of named axes
    names: HashMap<String, usize>,
}

const fn guess(batch: usize, image: usize, other: usize) -> Guess {
    Guess { batch, image, other }
}

impl Assumed {
    /// The dimensions that a file declares, where they are fixed or their names are known.
    pub(super) fn declared(&self, dims: &[Dim]) -> Option<Vec<usize>> {
        let length = |dim: &Dim| match dim {
            Dim::Fixed(length) => Some(*length),
            Dim::Named(name) => computed(name, &self.names),
        };
        dims.iter().map(length).collect()
    }
}

/// # Errors
/// `given` names what is no input, or contradicts a rank or a length that the file fixes.
pub(super) fn check(view: &View<'_>, given: &HashMap<String, Vec<usize>>) -> Result<()> {
    let infos = infos(view);
    let mut names: Vec<&String> = given.keys().collect();
    names.sort();
    for name in names {
        let dims = &given[name];
        let Some(info) = infos.iter().find(|info| info.name == *name) else {
            let all: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            return Err(Error::name(format!("`{name}` is no input of the model, whose inputs are {all:?}")));
        };
        let Some(wanted) = &info.dims else { continue };
        let fits =
            |(dim, length): (&Dim, &usize)| *dim == Dim::Fixed(*length) || matches!(dim, Dim::Named(_));
        if wanted.len() != dims.len() || !wanted.iter().zip(dims).all(fits) {
            let wanted = show(wanted);
            return Err(Error::shape(format!(
                "input `{name}` is given as {dims:?}, but the model wants {wanted}"
            )));
        }
    }
    Ok(())
}

/// A length for each axis of each input: as given, as the file says, or a guess. One name has one length.
pub(super) fn assume(view: &View<'_>, given: &HashMap<String, Vec<usize>>, guess: Guess) -> Assumed {
    let infos = infos(view);
    let mut names: HashMap<String, usize> = HashMap::new();
    for info in &infos {
        for (dim, &length) in info.dims.iter().flatten().zip(given.get(&info.name).into_iter().flatten()) {
            if let Some(name) = named(dim) {
                names.entry(name.to_owned()).or_insert(length);
            }
        }
    }
    let mut sums = Vec::new();
    for info in infos.iter().filter(|info| !given.contains_key(&info.name)) {
        let dims = info.dims.as_deref().unwrap_or_default();
        for (axis, name) in dims.iter().enumerate().filter_map(|(axis, dim)| Some((axis, named(dim)?))) {
            if name.contains(['+', '*']) {
                sums.push((name.to_owned(), guess.length(info, axis)));
            } else {
                names.entry(name.to_owned()).or_insert_with(|| guess.length(info, axis));
            }
        }
    }
    for (name, otherwise) in sums {
        let length = computed(&name, &names).unwrap_or(otherwise);
        names.entry(name).or_insert(length);
    }
    let inputs = infos.iter().map(|info| {
        let length = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(length) => *length,
            Dim::Named(_) => named(dim).map_or_else(|| guess.length(info, axis), |name| names[name]),
        };
        let assumed = || Some(info.dims.as_ref()?.iter().enumerate().map(length).collect());
        given.get(&info.name).cloned().or_else(assumed).and_then(super::fitting)
    });
    Assumed { inputs: inputs.collect(), names }
}

impl Guess {
    fn length(&self, info: &ValueInfo, axis: usize) -> usize {
        let dims = info.dims.as_deref().unwrap_or_default();
        let is_image = dtype::is_float(info.data_type) && dims.len() == 4;
        let batch = match named(&dims[axis]) {
            Some(name) => name.to_lowercase().contains("batch"),
            None => false,
        };
        let fixed = |axis: usize| matches!(dims[axis], Dim::Fixed(_));
        if axis == 0 || batch {
            self.batch
        } else if is_image && ((axis > 1 && fixed(1)) || (axis < 3 && fixed(3))) {
            self.image
        } else {
            self.other
        }
    }
}

/// The main graph's inputs.
fn infos(view: &View<'_>) -> Vec<ValueInfo> {
    let protos: HashMap<_, _> = view.graphs[0]
        .proto
        .input
        .iter()
        .map(|info| (info.name.as_deref().unwrap_or_default(), info))
        .collect();
    let named = view.inputs().iter().map(|&id| view.tensors[id].name);
    named.filter_map(|name| protos.get(name).map(|info| ValueInfo::of(info))).collect()
}

/// The name of an axis, unless it says nothing.
fn named(dim: &Dim) -> Option<&str> {
    match dim {
        Dim::Named(name) if !matches!(name.as_str(), "" | "?" | "None" | "-1") => Some(name),
        _ => None,
    }
}

/// The length of a named axis, or of a sum or product of them: exporters write `past + 1`.
fn computed(name: &str, names: &HashMap<String, usize>) -> Option<usize> {
    let factor = |text: &str| text.trim().parse().ok().or_else(|| names.get(text.trim()).copied());
    let product = |text: &str| text.split('*').try_fold(1usize, |n, text| n.checked_mul(factor(text)?));
    let known = names.get(name).copied();
    known.or_else(|| name.split('+').try_fold(0usize, |n, text| n.checked_add(product(text)?)))
}

fn show(dims: &[Dim]) -> String {
    let show = |dim: &Dim| match dim {
        Dim::Fixed(length) => length.to_string(),
        Dim::Named(name) if name.is_empty() => "any".to_owned(),
        Dim::Named(name) => name.clone(),
    };
    format!("[{}]", dims.iter().map(show).collect::<Vec<_>>().join(", "))
}
