//! What calibration saw: statistics in constant memory, fed batch by batch from the caller's own forward pass.

mod histogram;
mod inputs;
mod layer;
mod moments;
mod outputs;
mod rows;

use std::collections::HashMap;
use std::ops::BitOr;

use ndarray::{ArrayD, ArrayRef, Dimension};

use crate::evidence::rows::Rows;
use crate::model::Selection;
use crate::{Element, Error, ErrorKind, Kind, Model, Parameter, Result, kernel};

pub use histogram::Histogram;
pub use inputs::Inputs;
pub use layer::Layer;
pub use moments::Moments;
pub use outputs::{Outputs, PositionStatistics};

/// Which statistics to keep. Moments of outputs and inputs are always kept when they are recorded; the rest costs
/// memory and is asked for, best by the stages that need it
/// ([`Compressor::needs`](crate::Compressor::needs)).
///
/// ```
/// use niwaki::Needs;
/// let needs = Needs::MAPS | Needs::GRAM;
/// assert!(needs.contains(Needs::GRAM) && !needs.contains(Needs::HISTOGRAMS));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs(u8);

impl Needs {
    /// Unit moments of outputs and column moments of inputs only.
    pub const MOMENTS: Self = Self(0);
    /// Moments of each position of an output map: five numbers for each of C·H·W.
    pub const MAPS: Self = Self(1);
    /// A histogram of each position (64 counts), and the maps: for [`TotalConfidence`](crate::importance::TotalConfidence).
    pub const HISTOGRAMS: Self = Self(1 | 2);
    /// Gram matrices of the inputs, d×d for d inputs of one output (channels times taps in a convolution).
    pub const GRAM: Self = Self(4);
    /// Gram matrices of the outputs, units×units: for [`Subset`](crate::importance::Subset).
    pub const OUTPUT_GRAM: Self = Self(8);
    /// Everything.
    pub const ALL: Self = Self(15);

    /// Whether all of `other` is asked for.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Needs {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What calibration saw of each layer and block.
///
/// A caller runs the network as always and hands over what passes by. `record_output` takes what a weight's
/// units answer (after batch norm and activation is best: what the next layer sees), `record_input` what a
/// weight reads. Batches may be of any size and order, and two halves merged equal the whole.
///
/// ```
/// use ndarray::{Array, array};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc.weight", array![[1.0, 2.0], [0.0, 1.0]]))
///     .build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// for batch in [array![[1.0f32, 0.0], [0.0, 1.0]], array![[1.0, 1.0], [2.0, 0.0]]] {
///     let y = batch.dot(&array![[1.0f32, 0.0], [2.0, 1.0]]);
///     evidence.record_input("fc.weight", &batch)?;
///     evidence.record_output("fc.weight", &y)?;
/// }
/// let layer = evidence.layer(&model, "fc.weight")?;
/// assert_eq!(layer.outputs()?.units().max_abs(), [3.0, 1.0]);
/// assert_eq!(layer.gram(0)?[[0, 0]], 6.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence<F> {
    needs: Needs,
    layers: HashMap<String, LayerEvidence<F>>,
    blocks: HashMap<String, Influence>,
}

/// What was seen of one weight. The parameter itself is kept without values, as the description that batches
/// are checked against.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerEvidence<F> {
    pub(crate) shape: Shape,
    pub(crate) outputs: Option<Outputs>,
    pub(crate) inputs: Option<Inputs>,
    pub(crate) gradient: Option<MeanArray<F>>,
    pub(crate) snapshot: Option<ArrayD<F>>,
    pub(crate) snapshot_gradient: Option<MeanArray<F>>,
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
    fn of<F: Element>(parameter: &Parameter<F>) -> Self {
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
pub(crate) struct MeanArray<F> {
    sum: ArrayD<F>,
    count: usize,
}

impl<F: Element> MeanArray<F> {
    fn add(slot: &mut Option<Self>, sum: ArrayD<F>, count: usize) {
        match slot {
            Some(mean) => {
                mean.sum += &sum;
                mean.count += count;
            }
            None => *slot = Some(Self { sum, count }),
        }
    }

    pub(crate) fn mean(&self) -> ArrayD<F> {
        let count = F::narrow(self.count as f64);
        self.sum.mapv(|x| x / count)
    }
}

/// Σ of 1 − cos(in, out) over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Influence {
    sum: f64,
    count: u64,
}

impl<F: Element> Evidence<F> {
    /// Evidence about this model's weights and blocks, with nothing seen yet.
    pub fn new(model: &Model<F>, needs: Needs) -> Self {
        let layers =
            model.weights().map(|p| (p.name().to_owned(), LayerEvidence::new(Shape::of(p)))).collect();
        let blocks = model.blocks().iter().map(|b| (b.name().to_owned(), Influence::default())).collect();
        Self { needs, layers, blocks }
    }

    /// What it keeps.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Takes in a batch of a weight's outputs: [samples, units, positions…] for a convolution,
    /// [samples, …, units] for all else (hidden units of a recurrent cell, not gate rows).
    ///
    /// # Errors
    /// An unknown layer, a shape that does not fit it or differs from earlier batches, a value that is not
    /// finite. The evidence is then as before.
    pub fn record_output<D: Dimension>(&mut self, layer: &str, output: &ArrayRef<F, D>) -> Result<()> {
        let needs = self.needs;
        let entry = self.entry(layer)?;
        let rows = Rows::read(layer, "output", output)?;
        let batch = Outputs::of(layer, &entry.shape, rows, needs)?;
        match &mut entry.outputs {
            Some(outputs) => outputs.merge(layer, &batch),
            None => {
                entry.outputs = Some(batch);
                Ok(())
            }
        }
    }

    /// Takes in a batch of a weight's inputs: [samples, channels, positions…] for a convolution, which unfolds
    /// them by its [`Geometry`](crate::Geometry), [samples, …, features] for all else.
    ///
    /// # Errors
    /// As [`record_output`](Self::record_output); also for an embedding, whose inputs are indices.
    pub fn record_input<D: Dimension>(&mut self, layer: &str, input: &ArrayRef<F, D>) -> Result<()> {
        let gram = self.needs.contains(Needs::GRAM);
        let entry = self.entry(layer)?;
        let rows = Rows::read(layer, "input", input)?;
        let batch = Inputs::of(layer, &entry.shape, rows, gram)?;
        match &mut entry.inputs {
            Some(inputs) => inputs.merge(&batch),
            None => entry.inputs = Some(batch),
        }
        Ok(())
    }

    /// Takes in the gradient of the loss in a weight, of the weight's shape; several are averaged.
    ///
    /// # Errors
    /// An unknown layer, another shape, or a value that is not finite.
    pub fn record_gradient<D: Dimension>(&mut self, layer: &str, gradient: &ArrayRef<F, D>) -> Result<()> {
        let entry = self.entry(layer)?;
        let gradient = entry.array_of_shape(layer, "gradient", gradient)?;
        MeanArray::add(&mut entry.gradient, gradient, 1);
        Ok(())
    }

    /// Keeps the weights of an earlier training step, for
    /// [`GradientCompare`](crate::importance::GradientCompare).
    ///
    /// # Errors
    /// The two models differ in the names or shapes of their weights; the message names the first difference.
    pub fn record_snapshot(&mut self, earlier: &Model<F>) -> Result<()> {
        for (name, entry) in &self.layers {
            if earlier.find(name).is_none() {
                return Err(Error::name(format!(
                    "layer `{name}`: the snapshot has no parameter of this name"
                )));
            }
            let (old, new) = (earlier.parameter(name)?.shape(), &entry.shape.dims);
            if old != new {
                return Err(Error::shape(format!(
                    "layer `{name}`: the snapshot's shape {old:?} is not {new:?}"
                )));
            }
        }
        if let Some(more) = earlier.weights().find(|p| !self.layers.contains_key(p.name())) {
            return Err(Error::name(format!("layer `{}` of the snapshot is not in the model", more.name())));
        }
        for (name, entry) in &mut self.layers {
            entry.snapshot = Some(earlier.parameter(name)?.array().clone());
        }
        Ok(())
    }

    /// Takes in the gradient at the snapshot, as [`record_gradient`](Self::record_gradient).
    ///
    /// # Errors
    /// As [`record_gradient`](Self::record_gradient).
    pub fn record_snapshot_gradient<D: Dimension>(
        &mut self,
        layer: &str,
        gradient: &ArrayRef<F, D>,
    ) -> Result<()> {
        let entry = self.entry(layer)?;
        let gradient = entry.array_of_shape(layer, "gradient", gradient)?;
        MeanArray::add(&mut entry.snapshot_gradient, gradient, 1);
        Ok(())
    }

    /// Takes in what went into a block and what came out, of one shape. Rows are compared along the last axis
    /// (tokens); with four axes or more, whole samples are (feature maps).
    ///
    /// # Errors
    /// An unknown block, two shapes, or a value that is not finite.
    pub fn record_block<D: Dimension>(
        &mut self,
        block: &str,
        x: &ArrayRef<F, D>,
        y: &ArrayRef<F, D>,
    ) -> Result<()> {
        if !self.blocks.contains_key(block) {
            return Err(Error::name(format!("evidence for block `{block}`, which the model does not have")));
        }
        let (x, y) = (Rows::read(block, "block input", x)?, Rows::read(block, "block output", y)?);
        if x.dims != y.dims {
            return Err(Error::shape(format!(
                "block `{block}`: input {:?} and output {:?} differ",
                x.dims, y.dims
            )));
        }
        let width = match x.dims.len() {
            0 => 1,
            1..=3 => x.dims[x.dims.len() - 1],
            _ => x.dims[1..].iter().product(),
        };
        if let Some(influence) = self.blocks.get_mut(block) {
            for (x, y) in x.values.chunks(width).zip(y.values.chunks(width)) {
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let norms = (dot(x, x) * dot(y, y)).sqrt();
                influence.sum += 1.0 - if norms > 0.0 { dot(x, y) / norms } else { 1.0 };
                influence.count += 1;
            }
        }
        Ok(())
    }

    /// Takes in what another evidence about the same model saw.
    ///
    /// # Errors
    /// The two are about different layers or shapes, keep different statistics, or hold different snapshots.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.needs != other.needs {
            return Err(Error::setting("the two evidences keep different statistics"));
        }
        let mut merged = self.clone();
        for (name, theirs) in &other.layers {
            merged.entry(name)?.merge(name, theirs)?;
        }
        for (name, theirs) in &other.blocks {
            let ours = merged.blocks.get_mut(name);
            let ours = ours.ok_or_else(|| Error::name(format!("block `{name}` is in one evidence only")))?;
            ours.sum += theirs.sum;
            ours.count += theirs.count;
        }
        *self = merged;
        Ok(())
    }

    /// A layer of the model with what was seen of it.
    ///
    /// # Errors
    /// No such parameter, or the evidence is about another shape of it.
    pub fn layer<'a>(&'a self, model: &'a Model<F>, name: &str) -> Result<Layer<'a, F>> {
        let parameter = model.parameter(name)?;
        let evidence = self.layers.get(name);
        if let Some(evidence) = evidence.filter(|e| e.shape.dims != parameter.shape()) {
            let (theirs, ours) = (&evidence.shape.dims, parameter.shape());
            return Err(Error::shape(format!("layer `{name}` {ours:?}: the evidence is about {theirs:?}")));
        }
        Ok(Layer::with_evidence(parameter, evidence))
    }

    /// Block influence 1 − E[cos(in, out)] (ShortGPT, Men 2024): 0 for a block that changes nothing. `None`
    /// when nothing was recorded.
    pub fn block_influence(&self, block: &str) -> Option<f64> {
        self.blocks.get(block).filter(|b| b.count > 0).map(|b| b.sum / b.count as f64)
    }

    /// What remains to be said of the model after a cut: the same statistics for the units, inputs and layers
    /// that stay.
    ///
    /// # Errors
    /// The selection was made for another model.
    pub fn select(&self, selection: &Selection) -> Result<Self> {
        let mut layers = HashMap::new();
        for (name, entry) in &self.layers {
            let cut = entry.select(name, selection)?;
            for after in selection.names_after(name) {
                layers.insert(after, cut.clone());
            }
        }
        let blocks = self.blocks.iter().filter(|(name, _)| !selection.blocks.contains(*name));
        let blocks = blocks.map(|(name, influence)| (name.clone(), *influence)).collect();
        Ok(Self { needs: self.needs, layers, blocks })
    }

    fn entry(&mut self, layer: &str) -> Result<&mut LayerEvidence<F>> {
        let entry = self.layers.get_mut(layer);
        entry.ok_or_else(|| {
            Error::name(format!("evidence for layer `{layer}`, which is no weight of the model"))
        })
    }
}

impl<F: Element> LayerEvidence<F> {
    fn new(shape: Shape) -> Self {
        Self { shape, outputs: None, inputs: None, gradient: None, snapshot: None, snapshot_gradient: None }
    }

    fn array_of_shape<D: Dimension>(
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

    fn merge(&mut self, name: &str, other: &Self) -> Result<()> {
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
        match (&mut self.inputs, &other.inputs) {
            (Some(ours), Some(theirs)) => ours.merge(theirs),
            (ours, theirs) => *ours = ours.take().or_else(|| theirs.clone()),
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

    fn select(&self, name: &str, selection: &Selection) -> Result<Self> {
        let cut = |array: &ArrayD<F>| {
            (0..array.ndim()).fold(array.clone(), |array, axis| match selection.kept(name, axis) {
                Some(kept) => array.select(ndarray::Axis(axis), kept),
                None => array,
            })
        };
        let cut_mean = |m: &MeanArray<F>| MeanArray { sum: cut(&m.sum), count: m.count };
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
        Ok(Self {
            outputs: self
                .outputs
                .as_ref()
                .map(|o| unit_rows.as_deref().map_or_else(|| o.clone(), |u| o.select(u))),
            inputs: self.inputs.as_ref().map(|i| i.select(groups_kept.as_deref(), columns, taps)),
            gradient: self.gradient.as_ref().map(cut_mean),
            snapshot: self.snapshot.as_ref().map(cut),
            snapshot_gradient: self.snapshot_gradient.as_ref().map(cut_mean),
            shape,
        })
    }
}
