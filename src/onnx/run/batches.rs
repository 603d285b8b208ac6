//! [`Batches`]: samples brought to the batches that a graph takes.

use std::collections::HashMap;

use crate::evidence::held_out::is_held_out;
use crate::onnx::graph::{Dim, Graph, ValueInfo};
use crate::onnx::run::inputs::Named;
use crate::onnx::run::values::{Values, name_of};
use crate::{Error, Result};

/// What is run one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Batches {
    Stacked { lanes: Vec<Lane>, samples: usize, size: usize },
    Each(Vec<Named>),
}

/// An input and how it goes into the batches.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    name: String,
    values: Values,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Whole,
    Rows,
    /// The graph has no axis of samples.
    Single,
}

impl Batches {
    /// How many samples there are.
    pub(crate) fn samples(&self) -> usize {
        match self {
            Self::Stacked { samples, .. } => *samples,
            Self::Each(samples) => samples.len(),
        }
    }

    /// How many batches there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Stacked { samples, size, .. } => samples.div_ceil(*size),
            Self::Each(samples) => samples.len(),
        }
    }

    /// How many samples a batch holds.
    pub(crate) fn samples_of(&self, batch: usize) -> usize {
        match self {
            Self::Stacked { samples, size, .. } => (samples - (batch * size).min(*samples)).min(*size),
            Self::Each(_) => 1,
        }
    }

    /// A batch, by its number.
    pub(crate) fn get(&self, batch: usize) -> Named {
        match self {
            Self::Each(samples) => samples[batch].clone(),
            Self::Stacked { lanes, size, .. } => {
                let of = |lane: &Lane| match lane.mode {
                    Mode::Whole => lane.values.clone(),
                    Mode::Rows => lane.values.rows(batch * size, self.samples_of(batch)),
                    Mode::Single => lane.values.at(batch),
                };
                lanes.iter().map(|lane| (lane.name.clone(), of(lane))).collect()
            }
        }
    }

    /// Which samples of a batch are held out of what methods learn from: by the values that the graph reads.
    pub(crate) fn held_out(&self, batch: usize) -> Vec<bool> {
        match self {
            Self::Each(samples) => {
                vec![is_held_out(samples[batch].iter().flat_map(|(_, values)| values.numbers()))]
            }
            Self::Stacked { lanes, size, .. } => {
                let of_sample = |k: usize| {
                    let lanes = lanes.iter().filter(|lane| lane.mode != Mode::Whole);
                    is_held_out(lanes.flat_map(|lane| lane.values.at(batch * size + k).numbers()))
                };
                (0..self.samples_of(batch)).map(of_sample).collect()
            }
        }
    }

    /// The same with at most so many samples in a batch, where the graph leaves that open.
    pub(crate) fn at_most(self, most: usize, graph: &Graph) -> Self {
        match self {
            Self::Stacked { lanes, samples, size } => {
                let inputs = graph.inputs();
                let fixed = lanes.iter().filter(|lane| lane.mode == Mode::Rows).any(|lane| {
                    let info = inputs.iter().find(|info| info.name == lane.name);
                    matches!(info.and_then(|i| i.dims.as_ref()?.first()), Some(Dim::Fixed(_)))
                });
                let size = if fixed { size } else { size.min(most.max(1)) };
                Self::Stacked { lanes, samples, size }
            }
            each @ Self::Each(_) => each,
        }
    }
}

/// The array that each input reads, in the type that it wants.
fn assign(arrays: &Named, wanted: &[ValueInfo]) -> Result<Named> {
    let rename = |name: &str| match (name, wanted) {
        ("", [only]) => only.name.clone(),
        (name, _) => name.to_owned(),
    };
    for (k, (name, _)) in arrays.iter().enumerate() {
        let name = rename(name);
        if !wanted.iter().any(|info| info.name == name) {
            let what =
                if name.is_empty() { "an array without a name".to_owned() } else { format!("`{name}`") };
            return Err(Error::name(format!("{what} is no input of the model")));
        }
        if arrays[..k].iter().any(|(other, _)| rename(other) == name) {
            return Err(Error::name(format!("input `{name}` is given twice")));
        }
    }
    let of = |info: &ValueInfo| {
        let found = arrays.iter().find(|(name, _)| rename(name) == info.name);
        let (_, values) = found.ok_or_else(|| Error::name(format!("input `{}` is not given", info.name)))?;
        let cast = values.cast(info.data_type).ok_or_else(|| {
            let (given, wants) = (values.type_name(), name_of(info.data_type));
            Error::shape(format!("input `{}`: {given} does not become {wants} without loss", info.name))
        });
        cast.map(|values| (info.name.clone(), values))
    };
    wanted.iter().map(of).collect()
}

/// One sample, run on its own.
pub(super) fn one(sample: &Named, wanted: &[ValueInfo]) -> Result<Named> {
    let mut arrays = assign(sample, wanted)?;
    for ((_, values), info) in arrays.iter_mut().zip(wanted) {
        if fits(values.shape(), info.dims.as_deref()) {
            continue;
        }
        let row = values.as_one_row();
        if !fits(row.shape(), info.dims.as_deref()) {
            return Err(misfit(info, values));
        }
        *values = row;
    }
    Ok(arrays)
}

/// Samples on first axes.
pub(super) fn stacked(arrays: &Named, wanted: &[ValueInfo], batch: usize) -> Result<Batches> {
    let (mut lanes, mut samples, mut size) = (Vec::new(), None, None);
    for ((name, values), info) in assign(arrays, wanted)?.into_iter().zip(wanted) {
        let mode = mode(&values, info).ok_or_else(|| misfit(info, &values))?;
        if mode != Mode::Whole {
            let count = values.shape().first().copied().unwrap_or(1);
            let first = samples.get_or_insert((count, name.clone()));
            if first.0 != count {
                let (other, others) = (&first.1, first.0);
                return Err(Error::shape(format!("`{name}` has {count} samples, `{other}` has {others}")));
            }
        }
        lanes.push(Lane { name, values, mode });
    }
    let bound = bound(&lanes, wanted);
    for (lane, info) in lanes.iter().zip(wanted).filter(|(lane, _)| lane.mode != Mode::Whole) {
        let fixed = match info.dims.as_ref().and_then(|dims| dims.first()) {
            _ if lane.mode == Mode::Single => Some(1),
            Some(Dim::Fixed(len)) => Some(*len),
            Some(Dim::Named(name)) => bound.get(name.as_str()).copied(),
            None => None,
        };
        if let Some(fixed) = fixed {
            let name = &lane.name;
            if *size.get_or_insert(fixed) != fixed {
                return Err(Error::shape(format!(
                    "`{name}` is read {fixed} samples at a time, others are not"
                )));
            }
            if fixed == 0 || !lane.values.shape()[0].is_multiple_of(fixed) {
                let count = lane.values.shape()[0];
                return Err(Error::shape(format!("`{name}`: {count} samples are not batches of {fixed}")));
            }
        }
    }
    let samples = samples.map_or(1, |(count, _)| count);
    Ok(Batches::Stacked { lanes, samples, size: size.unwrap_or(batch) })
}

/// How an array goes into batches; `None` when it does not fit.
fn mode(values: &Values, info: &ValueInfo) -> Option<Mode> {
    let shape = values.shape();
    let Some(dims) = info.dims.as_deref() else {
        return Some(if shape.is_empty() { Mode::Whole } else { Mode::Rows });
    };
    match dims.first() {
        None | Some(Dim::Fixed(_)) if fits(shape, Some(dims)) => Some(Mode::Whole),
        Some(_) if shape.len() == dims.len() && fits(&shape[1..], Some(&dims[1..])) => Some(Mode::Rows),
        _ if shape.len() == dims.len() + 1 && fits(&shape[1..], Some(dims)) => Some(Mode::Single),
        _ => None,
    }
}

/// Lengths that arrays which go whole into every batch give to named axes.
fn bound<'a>(lanes: &[Lane], wanted: &'a [ValueInfo]) -> HashMap<&'a str, usize> {
    let whole = lanes.iter().zip(wanted).filter(|(lane, _)| lane.mode == Mode::Whole);
    let named = whole.flat_map(|(lane, info)| info.dims.iter().flatten().zip(lane.values.shape()));
    let name = |(dim, &len): (&'a Dim, &usize)| match dim {
        Dim::Named(name) if !name.is_empty() => Some((name.as_str(), len)),
        _ => None,
    };
    named.filter_map(name).collect()
}

fn fits(shape: &[usize], dims: Option<&[Dim]>) -> bool {
    dims.is_none_or(|dims| {
        let same = |(dim, len): (&Dim, &usize)| matches!(dim, Dim::Named(_)) || *dim == Dim::Fixed(*len);
        dims.len() == shape.len() && dims.iter().zip(shape).all(same)
    })
}

fn misfit(info: &ValueInfo, values: &Values) -> Error {
    Error::shape(format!("input `{}`: an array of shape {:?}", info.name, values.shape()))
}

/// `x: f32 [n, 3, 48, 192]`.
pub(super) fn describe(info: &ValueInfo) -> String {
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(len) => len.to_string(),
        Dim::Named(name) if name.is_empty() => "?".to_owned(),
        Dim::Named(name) => name.clone(),
    };
    let dims = info.dims.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>().join(", "));
    format!("`{}`: {} [{}]", info.name, name_of(info.data_type), dims.unwrap_or_else(|| "…".to_owned()))
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, array};

    use super::*;
    use crate::ErrorKind;
    use crate::onnx::run::inputs::named;

    fn wants(name: &str, data_type: i32, dims: &[i64]) -> ValueInfo {
        let dim = |d: &i64| usize::try_from(*d).map_or(Dim::Named("batch".into()), Dim::Fixed);
        ValueInfo { name: name.into(), data_type, dims: Some(dims.iter().map(dim).collect()) }
    }

    fn zeros(shape: &[usize]) -> Values {
        Values::from(ArrayD::<f32>::zeros(shape))
    }

    #[test]
    fn samples_come_in_batches_of_the_size_that_the_graph_takes() {
        let open = [wants("x", 1, &[-1, 3])];
        let batches = stacked(&named([("", zeros(&[70, 3]))]), &open, 32).unwrap();
        assert_eq!((batches.samples(), batches.len(), batches.samples_of(2)), (70, 3, 6));
        assert_eq!(batches.get(2)[0].1.shape(), [6, 3]);
        let fixed = [wants("x", 1, &[1, 3])];
        let batches = stacked(&named([("x", zeros(&[5, 3]))]), &fixed, 32).unwrap();
        assert_eq!((batches.len(), batches.get(4)[0].1.shape()), (5, &[1, 3][..]));
        let none = [wants("x", 1, &[4, 3])];
        let batches = stacked(&named([("x", zeros(&[5, 4, 3]))]), &none, 32).unwrap();
        assert_eq!((batches.len(), batches.get(4)[0].1.shape()), (5, &[4, 3][..]));
        let error = stacked(&named([("x", zeros(&[5, 3]))]), &none, 32).unwrap_err();
        assert_eq!(error.to_string(), "`x`: 5 samples are not batches of 4");
    }

    #[test]
    fn states_go_whole_into_every_batch_and_say_how_many_samples_it_has() {
        let wanted = [wants("input", 1, &[-1, 512]), wants("state", 1, &[2, -1, 128]), wants("sr", 7, &[])];
        let rate = Values::from(ndarray::arr0(16_000i64));
        let arrays = named([("sr", rate), ("state", zeros(&[2, 1, 128])), ("input", zeros(&[9, 512]))]);
        let batches = stacked(&arrays, &wanted, 32).unwrap();
        assert_eq!((batches.samples(), batches.len()), (9, 9));
        assert_eq!(batches.get(8)[1].1.shape(), [2, 1, 128]);
    }

    #[test]
    fn what_does_not_fit_says_what_is_wanted() {
        let wanted = [wants("x", 1, &[-1, 3]), wants("mask", 9, &[-1])];
        let mut arrays = named([("x", zeros(&[2, 3]))]);
        let kind = |arrays: &Named| stacked(arrays, &wanted, 1).unwrap_err().kind();
        assert_eq!(kind(&arrays), ErrorKind::Name);
        arrays.push(("mask".into(), Values::from(array![1i64, 0, 1])));
        assert_eq!(kind(&arrays), ErrorKind::Shape);
        arrays[1].1 = Values::from(array![1i64, 2]);
        assert_eq!(kind(&arrays), ErrorKind::Shape);
        arrays[1].1 = Values::from(array![1i64, 0]);
        assert_eq!(stacked(&arrays, &wanted, 1).unwrap().get(1)[1].1, Values::from(array![false]));
        arrays.push(("y".into(), zeros(&[2])));
        assert_eq!(kind(&arrays), ErrorKind::Name);
        assert_eq!(describe(&wanted[0]), "`x`: f32 [batch, 3]");
    }

    #[test]
    fn samples_of_other_lengths_are_run_on_their_own() {
        let wanted = [wants("tokens", 7, &[-1, -1])];
        let one =
            |values: Values| one(&named([("tokens", values)]), &wanted).map(|arrays| arrays[0].1.clone());
        assert_eq!(one(Values::from(array![1i64, 2, 3])).unwrap().shape(), [1, 3]);
        assert_eq!(one(Values::from(array![[1i64, 2]])).unwrap().shape(), [1, 2]);
        assert_eq!(one(zeros(&[1, 2])).unwrap_err().kind(), ErrorKind::Shape);
    }
}
