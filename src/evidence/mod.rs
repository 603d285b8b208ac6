//! What calibration saw: statistics in constant memory, fed batch by batch from the caller's own forward pass.

pub(crate) mod gram;
pub(crate) mod held_out;
mod histogram;
mod inputs;
mod layer;
mod moments;
mod needs;
pub(crate) mod objective;
mod outputs;
mod readers;
mod rows;
mod seen;
mod shifts;
mod sums;
mod table;
mod unfold;

use std::collections::{HashMap, HashSet};

use ndarray::{ArrayRef, Dimension};

use crate::evidence::rows::Rows;
use crate::evidence::seen::{MeanArray, Shape};
use crate::model::Selection;
use crate::{Element, Error, Model, Result};

pub use histogram::Histogram;
pub use inputs::Inputs;
pub use layer::Layer;
pub use moments::Moments;
pub use needs::Needs;
pub use outputs::{Outputs, PositionStatistics};
pub(crate) use seen::LayerEvidence;

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
        let batch = Outputs::of(layer, &entry.shape, &rows, needs)?;
        match &mut entry.outputs {
            Some(outputs) => outputs.merge(layer, &batch)?,
            None => entry.outputs = Some(batch),
        }
        Ok(())
    }

    /// Takes in a batch of a weight's inputs: [samples, channels, positions…] for a convolution, which unfolds
    /// them by its [`Geometry`](crate::Geometry), [samples, …, features] for all else.
    ///
    /// # Errors
    /// As [`record_output`](Self::record_output); also for an embedding, whose inputs are indices.
    pub fn record_input<D: Dimension>(&mut self, layer: &str, input: &ArrayRef<F, D>) -> Result<()> {
        self.take_input(layer, None, input)
    }

    /// As [`record_input`](Self::record_input), where entries of the first axis are not samples themselves: one step of
    /// many sentences, say. `samples` has for each the number of the sample that it belongs to, which decides whether
    /// it is held out ([`Needs::HELD_OUT`]); so a whole sentence is, in all layers.
    ///
    /// ```
    /// use ndarray::Array;
    /// use niwaki::{Evidence, Model, Needs, Parameter};
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let model = Model::<f32>::builder().parameter(Parameter::linear("fc", Array::ones((2, 3)))).build()?;
    /// let mut evidence = Evidence::new(&model, Needs::HELD_OUT);
    /// let sentences: Vec<u64> = (0..50).collect();
    /// for step in 0..4 {
    ///     evidence.record_input_of("fc", &sentences, &Array::from_elem((50, 3), step as f32))?;
    /// }
    /// let layer = evidence.layer(&model, "fc")?;
    /// assert_eq!(layer.inputs()?.rows() + layer.held_out()?.rows(), 4 * 50);
    /// assert_eq!(layer.inputs()?.mean(0)[0], layer.held_out()?.mean(0)[0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`record_input`](Self::record_input); another number of samples than entries.
    pub fn record_input_of<D: Dimension>(
        &mut self,
        layer: &str,
        samples: &[u64],
        input: &ArrayRef<F, D>,
    ) -> Result<()> {
        let entries = input.shape().first().copied().unwrap_or(0);
        if samples.len() != entries {
            let given = samples.len();
            return Err(Error::shape(format!(
                "layer `{layer}`: {given} samples for {entries} entries of its input"
            )));
        }
        self.take_input(layer, Some(samples), input)
    }

    fn take_input<D: Dimension>(
        &mut self,
        layer: &str,
        samples: Option<&[u64]>,
        input: &ArrayRef<F, D>,
    ) -> Result<()> {
        let needs = self.needs;
        let entry = self.entry(layer)?;
        let batch = Rows::read(layer, "input", input)?;
        let gram = needs.contains(Needs::GRAM);
        if !needs.contains(Needs::HELD_OUT) {
            return Inputs::record(&mut entry.inputs, layer, &entry.shape, &batch, gram);
        }
        let [ours, held_out] = held_out::split(&batch, samples);
        for (slot, batch) in [(&mut entry.inputs, ours), (&mut entry.held_out, held_out)] {
            if let Some(batch) = batch {
                Inputs::record(slot, layer, &entry.shape, &batch, gram)?;
            }
        }
        Ok(())
    }

    /// Takes in some rows of a weight's inputs as [`Inputs`] has them: for each group, rows of its columns; of samples
    /// that are held out, or of others.
    #[cfg(feature = "rten")]
    pub(crate) fn record_columns(
        &mut self,
        layer: &str,
        groups: &[ndarray::Array2<f64>],
        held_out: bool,
    ) -> Result<()> {
        let gram = self.needs.contains(Needs::GRAM);
        let entry = self.entry(layer)?;
        let slot = if held_out { &mut entry.held_out } else { &mut entry.inputs };
        if Inputs::record_columns(slot, groups, gram) {
            return Ok(());
        }
        Err(Error::shape(format!("layer `{layer}`: rows of inputs have other columns than those before")))
    }

    /// Takes in the gradient of the loss in a weight, of the weight's shape; several are averaged.
    ///
    /// # Errors
    /// An unknown layer, another shape, or a value that is not finite.
    pub fn record_gradient<D: Dimension>(&mut self, layer: &str, gradient: &ArrayRef<F, D>) -> Result<()> {
        let entry = self.entry(layer)?;
        let gradient = entry.array_of_shape(layer, "gradient", gradient)?;
        MeanArray::add(&mut entry.gradient, gradient.mapv(F::widen), 1);
        Ok(())
    }

    /// Keeps the weights of an earlier training step, for
    /// [`GradientCompare`](crate::importance::GradientCompare).
    ///
    /// # Errors
    /// The two models differ in the names or shapes of their weights; the message names the first difference.
    pub fn record_snapshot(&mut self, earlier: &Model<F>) -> Result<()> {
        for parameter in earlier.parameters() {
            let (name, old) = (parameter.name(), parameter.shape());
            match self.layers.get(name).map(|entry| &entry.shape.dims) {
                Some(new) if old != new => {
                    return Err(Error::shape(format!(
                        "layer `{name}`: the snapshot's shape {old:?} is not {new:?}"
                    )));
                }
                None if parameter.kind().is_weight() => {
                    return Err(Error::name(format!("layer `{name}` of the snapshot is not in the model")));
                }
                _ => {}
            }
        }
        if let Some(name) = self.layers.keys().filter(|name| earlier.find(name).is_none()).min() {
            return Err(Error::name(format!("layer `{name}`: the snapshot has no parameter of this name")));
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
        MeanArray::add(&mut entry.snapshot_gradient, gradient.mapv(F::widen), 1);
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
                influence.sum += 1.0 - cosine(x, y);
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
        for name in names_of_both("layer", &self.layers, &other.layers)? {
            if let (Some(ours), Some(theirs)) = (merged.layers.get_mut(name), other.layers.get(name)) {
                ours.merge(name, theirs)?;
            }
        }
        for name in names_of_both("block", &self.blocks, &other.blocks)? {
            if let (Some(ours), Some(theirs)) = (merged.blocks.get_mut(name), other.blocks.get(name)) {
                ours.sum += theirs.sum;
                ours.count += theirs.count;
            }
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
        Ok(Layer::of_model(model, parameter, evidence))
    }

    /// Block influence 1 − E[cos(in, out)] (`ShortGPT`, Men 2024): 0 for a block that changes nothing. `None`
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

    /// What it says after scales have moved: a factor for each input channel of each group of the layers in `read`, and
    /// other units in those in `made`.
    pub(crate) fn rescaled(&self, read: &HashMap<&str, Vec<Vec<f64>>>, made: &HashSet<&str>) -> Self {
        let mut rescaled = self.clone();
        for (name, entry) in &mut rescaled.layers {
            let (read, made) = (read.get(name.as_str()), made.contains(name.as_str()));
            if read.is_some() || made {
                entry.rescale(read.map(Vec::as_slice), made);
            }
        }
        rescaled
    }

    /// What it says of these layers alone.
    pub(crate) fn only(&self, names: &[&str]) -> Self {
        let layers = self.layers.iter().filter(|(name, _)| names.contains(&name.as_str()));
        let layers = layers.map(|(name, entry)| (name.clone(), entry.clone())).collect();
        Self { needs: self.needs, layers, blocks: HashMap::new() }
    }

    fn entry(&mut self, layer: &str) -> Result<&mut LayerEvidence<F>> {
        let entry = self.layers.get_mut(layer);
        entry.ok_or_else(|| {
            Error::name(format!("evidence for layer `{layer}`, which is no weight of the model"))
        })
    }
}

/// Of two rows; 1 where one of them is 0.
fn cosine<F: Element>(x: &[F], y: &[F]) -> f64 {
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y).map(|(x, y)| (x.widen(), y.widen())) {
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    let norms = (xx * yy).sqrt();
    if norms > 0.0 { xy / norms } else { 1.0 }
}

/// The names of both maps in order; an error when one is in one of them only.
fn names_of_both<'a, T>(
    what: &str,
    ours: &'a HashMap<String, T>,
    theirs: &'a HashMap<String, T>,
) -> Result<Vec<&'a str>> {
    let mut names: Vec<&str> = ours.keys().chain(theirs.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    match names.iter().find(|&&name| !ours.contains_key(name) || !theirs.contains_key(name)) {
        Some(name) => Err(Error::name(format!("{what} `{name}` is in one evidence only"))),
        None => Ok(names),
    }
}
