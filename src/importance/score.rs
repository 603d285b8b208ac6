//! What a criterion says of one layer.

use std::borrow::Cow;
use std::sync::Arc;

use ndarray::{Array1, ArrayD, Axis};

use crate::importance::{Norm, Surgery};
use crate::kernel::reduce;
use crate::model::{CoupledSlot, Selection};
use crate::{Element, Error, ErrorKind, Parameter, Result};

/// The score of one weight parameter: a number for each single weight, for each unit, or both; and for criteria
/// that have one, a map of positions.
///
/// | made by | a single weight's score | a unit's score |
/// |---|---|---|
/// | [`magnitude`](Self::magnitude) | \|w\| | the [`Norm`] of its slice |
/// | [`elements`](Self::elements) | as given | the norm of its slice of scores |
/// | [`units`](Self::units) | \|w\| times its unit's score | as given |
#[derive(Clone, Debug, PartialEq)]
pub struct Score<F> {
    weights: Weights<F>,
    norm: Norm,
    /// (axis, score of each index): in place of norms of slices
    along: Vec<(usize, Array1<F>)>,
    /// Scores of positions [units, positions…], and the parameter's axis that the units are on
    map: Option<(usize, ArrayD<F>)>,
    /// What it takes to make up for weights that go
    surgery: Option<Arc<Surgery>>,
}

/// Where the scores of single weights come from.
#[derive(Clone, Debug, PartialEq)]
enum Weights<F> {
    Magnitude,
    Elements(ArrayD<F>),
    Units,
}

/// Scores of single weights, in row-major order.
#[derive(Debug)]
pub(crate) enum Elements<'a, F: Clone> {
    /// |w| of these weights.
    Magnitude(&'a [F]),
    Each(Cow<'a, [F]>),
}

impl<F: Element> Score<F> {
    /// |w|, and the norm of its slice for a unit. Nothing is stored: the weights are read when needed.
    pub fn magnitude(norm: Norm) -> Self {
        Self { weights: Weights::Magnitude, norm, along: Vec::new(), map: None, surgery: None }
    }

    /// A score for each weight, of the weight's shape; a unit's is the L2 norm of its slice.
    pub fn elements(scores: ArrayD<F>) -> Self {
        let scores =
            if scores.is_standard_layout() { scores } else { scores.as_standard_layout().into_owned() };
        Self {
            weights: Weights::Elements(scores),
            norm: Norm::L2,
            along: Vec::new(),
            map: None,
            surgery: None,
        }
    }

    /// A score for each output unit; `out_axis` is the [parameter's](Parameter::out_axis).
    pub fn units(out_axis: usize, scores: Array1<F>) -> Self {
        Self {
            weights: Weights::Units,
            norm: Norm::L2,
            along: vec![(out_axis, scores)],
            map: None,
            surgery: None,
        }
    }

    /// Another norm for slices.
    pub fn norm(self, norm: Norm) -> Self {
        Self { norm, ..self }
    }

    /// Scores for the slices of one axis, in place of their norms.
    pub fn along(mut self, axis: usize, scores: Array1<F>) -> Self {
        self.along.push((axis, scores));
        self
    }

    /// A score for each position of the output map, [units, positions…].
    pub fn with_map(self, out_axis: usize, map: ArrayD<F>) -> Self {
        Self { map: Some((out_axis, map)), ..self }
    }

    pub(crate) fn with_surgery(self, surgery: Surgery) -> Self {
        Self { surgery: Some(Arc::new(surgery)), ..self }
    }

    /// What [`BrainSurgeon`](crate::importance::BrainSurgeon) knows of the layer beyond its scores.
    pub(crate) fn surgery(&self) -> Option<&Surgery> {
        self.surgery.as_deref()
    }

    /// The score of each position of the output map, where the criterion has that form.
    pub fn map(&self) -> Option<&ArrayD<F>> {
        self.map.as_ref().map(|(_, map)| map)
    }

    /// The score of each output unit.
    pub fn per_unit(&self, parameter: &Parameter<F>) -> Array1<f64> {
        let axis = parameter.out_axis();
        let (units, rows) = (parameter.units(), parameter.shape().get(axis).copied().unwrap_or(0));
        let positions = (0..units).map(|u| (u..rows).step_by(units).collect()).collect();
        let slot = CoupledSlot { parameter: parameter.name().to_owned(), axis, positions };
        self.per_index(parameter, &slot).map_or_else(|| Array1::zeros(units), Array1::from)
    }

    /// The score of each single weight, of the weight's shape.
    pub fn per_weight(&self, parameter: &Parameter<F>) -> ArrayD<F> {
        let values = match self.per_element(parameter) {
            Elements::Magnitude(weights) => weights.iter().map(|w| w.abs()).collect(),
            Elements::Each(scores) => scores.into_owned(),
        };
        ArrayD::from_shape_vec(parameter.array().raw_dim(), values)
            .unwrap_or_else(|_| ArrayD::zeros(parameter.array().raw_dim()))
    }

    /// The score of each single weight, without a copy where that can be.
    pub(crate) fn per_element<'a>(&'a self, parameter: &'a Parameter<F>) -> Elements<'a, F> {
        match (&self.weights, self.scores_along(parameter.out_axis())) {
            (Weights::Elements(scores), _) => {
                Elements::Each(Cow::Borrowed(scores.as_slice().unwrap_or_default()))
            }
            (Weights::Units, Some(units)) => {
                let axis = parameter.out_axis();
                let inner: usize = parameter.shape()[axis + 1..].iter().product();
                let rows = parameter.shape()[axis];
                let scaled = parameter.values().iter().enumerate();
                let scaled = scaled.map(|(k, w)| w.abs() * units[k / inner % rows % units.len()]);
                Elements::Each(Cow::Owned(scaled.collect()))
            }
            _ => Elements::Magnitude(parameter.values()),
        }
    }

    /// The score of each index of a coupling in one slot; `None` where this criterion says nothing about that
    /// axis.
    pub(crate) fn per_index(&self, parameter: &Parameter<F>, slot: &CoupledSlot) -> Option<Vec<f64>> {
        if let Some(scores) = self.scores_along(slot.axis()) {
            let mean = |positions: &Vec<usize>| {
                let sum: f64 = positions.iter().map(|p| scores[p % scores.len()].widen()).sum();
                sum / positions.len().max(1) as f64
            };
            return Some(slot.positions.iter().map(mean).collect());
        }
        let values = match &self.weights {
            Weights::Magnitude => parameter.values(),
            Weights::Elements(scores) => scores.as_slice().unwrap_or_default(),
            Weights::Units => return None,
        };
        let partial = reduce::along(values, parameter.shape(), slot.axis(), self.norm);
        let norm = |positions: &Vec<usize>| {
            let parts = positions.iter().map(|&p| partial[p]);
            self.norm.finish(parts.reduce(|a, b| self.norm.join(a, b)).unwrap_or(0.0))
        };
        Some(slot.positions.iter().map(norm).collect())
    }

    /// The norm by which scores of slices are taken.
    pub(crate) fn slice_norm(&self) -> Norm {
        self.norm
    }

    /// Mean score of the single weights.
    pub(crate) fn mean(&self, parameter: &Parameter<F>) -> f64 {
        let sum = match self.per_element(parameter) {
            Elements::Magnitude(weights) => reduce::abs_sum(weights),
            Elements::Each(scores) => reduce::sum(&scores),
        };
        sum / parameter.values().len().max(1) as f64
    }

    fn scores_along(&self, axis: usize) -> Option<&Array1<F>> {
        self.along.iter().find(|(a, _)| *a == axis).map(|(_, scores)| scores)
    }

    /// Errors unless the score fits the parameter and is finite.
    pub(crate) fn check(&self, parameter: &Parameter<F>) -> Result<()> {
        let (name, shape) = (parameter.name(), parameter.shape());
        let fail = |what: String| Err(Error::shape(format!("layer `{name}` {shape:?}: {what}")));
        if let Weights::Elements(scores) = &self.weights
            && scores.shape() != shape
        {
            return fail(format!("its scores have the shape {:?}", scores.shape()));
        }
        for (axis, scores) in &self.along {
            let axis = *axis;
            let len = shape.get(axis).copied().unwrap_or(0);
            let fits =
                scores.len() == len || (axis == parameter.out_axis() && scores.len() == parameter.units());
            if !fits || scores.is_empty() {
                return fail(format!("{} scores along axis {axis}", scores.len()));
            }
        }
        if self.map().is_some_and(|m| m.shape().first() != Some(&parameter.units())) {
            return fail("its map of scores does not have its units on the first axis".into());
        }
        let elements = match &self.weights {
            Weights::Elements(scores) => scores.as_slice(),
            _ => None,
        };
        let arrays = self.along.iter().filter_map(|(_, s)| s.as_slice());
        let arrays = arrays.chain(elements).chain(self.map().and_then(|m| m.as_slice()));
        for values in arrays {
            if let Some(at) = reduce::first_not_finite(values) {
                return Err(Error::new(
                    ErrorKind::NotFinite,
                    format!("layer `{name}`: score {} at flat index {at} is not finite", values[at]),
                ));
            }
        }
        Ok(())
    }

    /// The score of what stays of this layer after a cut.
    pub(crate) fn select(&self, name: &str, selection: &Selection) -> Self {
        let mut cut = self.clone();
        // Its matrices are those of all inputs.
        let is_cut = |axis| selection.kept(name, axis).is_some();
        if let Some(surgery) = &self.surgery
            && (0..surgery.axes).any(is_cut)
        {
            cut.surgery = None;
        }
        if let Weights::Elements(scores) = &mut cut.weights {
            for axis in 0..scores.ndim() {
                if let Some(kept) = selection.kept(name, axis) {
                    *scores = scores.select(Axis(axis), kept);
                }
            }
        }
        // Unit scores of a recurrent cell are shorter than its axis: its first gate's rows stand for the units.
        let stay = |axis: usize, len: usize| {
            let kept = selection.kept(name, axis)?;
            Some(kept.iter().copied().filter(|&p| p < len).collect::<Vec<_>>())
        };
        for (axis, scores) in &mut cut.along {
            if let Some(stay) = stay(*axis, scores.len()) {
                *scores = scores.select(Axis(0), &stay);
            }
        }
        if let Some((axis, map)) = &mut cut.map
            && let Some(stay) = stay(*axis, map.shape()[0])
        {
            *map = map.select(Axis(0), &stay);
        }
        cut
    }
}
