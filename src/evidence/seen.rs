//! What was seen of one weight.

use ndarray::{ArrayD, ArrayRef, Axis, Dimension};

use crate::evidence::{Inputs, Outputs};
use crate::model::Selection;
use crate::{Element, Error, ErrorKind, Kind, Parameter, Result, kernel};

/// What was seen of one weight. The parameter itself is kept without values, as the description that batches
/// are checked against.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerEvidence<F> {
    pub(crate) shape: Shape,
    pub(crate) outputs: Option<Outputs>,
    pub(crate) inputs: Option<Inputs>,
    pub(crate) held_out: Option<Inputs>,
    pub(crate) gradient: Option<MeanArray>,
    pub(crate) snapshot: Option<ArrayD<F>>,
    pub(crate) snapshot_gradient: Option<MeanArray>,
}

/// What the evidence must know of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) dims: Vec<usize>,
    pub(crate) out_axis: usize,
    pub(crate) in_axis: Option<usize>,
    pub(crate) units: usize,
}

impl Shape {
    pub(super) fn of<F: Element>(parameter: &Parameter<F>) -> Self {
        Self {
            kind: parameter.kind().clone(),
            dims: parameter.shape().to_vec(),
            out_axis: parameter.out_axis(),
            in_axis: parameter.in_axis(),
            units: parameter.units(),
        }
    }
}

/// A mean of arrays, kept as their sum and count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MeanArray {
    sum: ArrayD<f64>,
    count: usize,
}

impl MeanArray {
    pub(super) fn add(slot: &mut Option<Self>, sum: ArrayD<f64>, count: usize) {
        match slot {
            Some(mean) => {
                mean.sum += &sum;
                mean.count += count;
            }
            None => *slot = Some(Self { sum, count }),
        }
    }

    pub(crate) fn mean<F: Element>(&self) -> ArrayD<F> {
        let count = self.count as f64;
        self.sum.mapv(|x| F::narrow(x / count))
    }
}

impl<F: Element> LayerEvidence<F> {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            outputs: None,
            inputs: None,
            held_out: None,
            gradient: None,
            snapshot: None,
            snapshot_gradient: None,
        }
    }

    pub(super) fn array_of_shape<D: Dimension>(
        &self,
        layer: &str,
        what: &str,
        array: &ArrayRef<F, D>,
    ) -> Result<ArrayD<F>> {
        if array.shape() != self.shape.dims {
            let (given, dims) = (array.shape(), &self.shape.dims);
            return Err(Error::shape(format!("layer `{layer}`: {what} {given:?} for weights {dims:?}")));
        }
        let array = array.to_owned().into_dyn().as_standard_layout().into_owned();
        match kernel::reduce::first_not_finite(array.as_slice().unwrap_or_default()) {
            None => Ok(array),
            Some(at) => Err(Error::new(
                ErrorKind::NotFinite,
                format!("layer `{layer}`: {what} at flat index {at} is not finite"),
            )),
        }
    }

    pub(super) fn merge(&mut self, name: &str, other: &Self) -> Result<()> {
        if self.shape != other.shape {
            let (ours, theirs) = (&self.shape.dims, &other.shape.dims);
            return Err(Error::shape(format!(
                "layer `{name}`: evidence about {ours:?} and about {theirs:?}"
            )));
        }
        if other.snapshot.is_some() && self.snapshot.is_some() && self.snapshot != other.snapshot {
            return Err(Error::setting(format!(
                "layer `{name}`: the two evidences hold different snapshots"
            )));
        }
        match (&mut self.outputs, &other.outputs) {
            (Some(ours), Some(theirs)) => ours.merge(name, theirs)?,
            (ours, theirs) => *ours = ours.take().or_else(|| theirs.clone()),
        }
        for (ours, theirs) in [(&mut self.inputs, &other.inputs), (&mut self.held_out, &other.held_out)] {
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => ours.merge(theirs),
                (ours, theirs) => *ours = ours.take().or_else(|| theirs.clone()),
            }
        }
        self.snapshot = self.snapshot.take().or_else(|| other.snapshot.clone());
        for (ours, theirs) in
            [(&mut self.gradient, &other.gradient), (&mut self.snapshot_gradient, &other.snapshot_gradient)]
        {
            if let Some(theirs) = theirs {
                MeanArray::add(ours, theirs.sum.clone(), theirs.count);
            }
        }
        Ok(())
    }

    /// Another scale of each input channel of each group, or of its units.
    pub(super) fn rescale(&mut self, read: Option<&[Vec<f64>]>, made: bool) {
        for inputs in [&mut self.inputs, &mut self.held_out].into_iter().flatten() {
            inputs.rescale(read.unwrap_or_default());
        }
        if made {
            self.outputs = None;
        }
        self.gradient = None;
        self.snapshot = None;
        self.snapshot_gradient = None;
    }

    pub(super) fn select(&self, name: &str, selection: &Selection) -> Result<Self> {
        for (axis, &len) in self.shape.dims.iter().enumerate() {
            selection.kept_of(name, axis, len)?;
        }
        let cut_mean = |m: &MeanArray| MeanArray { sum: cut(&m.sum, name, selection), count: m.count };
        let Shape { units, out_axis, in_axis, .. } = self.shape;
        let rows = selection.kept(name, out_axis);
        let unit_rows: Option<Vec<usize>> =
            rows.map(|kept| kept.iter().copied().filter(|&r| r < units).collect());
        let columns = in_axis.and_then(|axis| selection.kept(name, axis));
        let mut shape = self.shape.clone();
        for (axis, len) in shape.dims.iter_mut().enumerate() {
            *len = selection.kept(name, axis).map_or(*len, <[usize]>::len);
        }
        let groups_kept = match (&mut shape.kind, rows) {
            (Kind::Conv(geometry), Some(rows)) if geometry.groups > 1 => {
                let per_group = self.shape.dims[0] / geometry.groups;
                let mut kept: Vec<usize> = rows.iter().map(|row| row / per_group).collect();
                kept.dedup();
                geometry.groups = kept.len();
                Some(kept)
            }
            _ => None,
        };
        shape.units = unit_rows.as_ref().map_or(units, Vec::len);
        let taps = if matches!(shape.kind, Kind::Conv(_)) { shape.dims[2..].iter().product() } else { 1 };
        let cut_inputs = |i: &Inputs| i.select(groups_kept.as_deref(), columns, taps);
        Ok(Self {
            outputs: self
                .outputs
                .as_ref()
                .map(|o| unit_rows.as_deref().map_or_else(|| o.clone(), |u| o.select(u))),
            inputs: self.inputs.as_ref().map(cut_inputs),
            held_out: self.held_out.as_ref().map(cut_inputs),
            gradient: self.gradient.as_ref().map(cut_mean),
            snapshot: self.snapshot.as_ref().map(|s| cut(s, name, selection)),
            snapshot_gradient: self.snapshot_gradient.as_ref().map(cut_mean),
            shape,
        })
    }
}

/// What a selection leaves of an array of the shape of a parameter.
fn cut<T: Clone>(array: &ArrayD<T>, parameter: &str, selection: &Selection) -> ArrayD<T> {
    (0..array.ndim()).fold(array.clone(), |array, axis| match selection.kept(parameter, axis) {
        Some(kept) => array.select(Axis(axis), kept),
        None => array,
    })
}
