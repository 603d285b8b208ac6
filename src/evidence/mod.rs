//! What calibration saw: statistics in constant memory, fed batch by batch from the caller's own forward pass.

pub(crate) mod gram;
mod histogram;
mod inputs;
mod layer;
mod moments;
mod needs;
mod outputs;
mod rows;
mod seen;
mod shifts;
mod sums;
mod unfold;

use std::collections::HashMap;

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
        let gram = self.needs.contains(Needs::GRAM);
        let entry = self.entry(layer)?;
        let rows = Rows::read(layer, "input", input)?;
        Inputs::record(&mut entry.inputs, layer, &entry.shape, &rows, gram)
    }

    /// Takes in some rows of a weight's inputs as [`Inputs`] has them: for each group, rows of its columns.
    #[cfg(feature = "rten")]
    pub(crate) fn record_columns(&mut self, layer: &str, groups: &[ndarray::Array2<f64>]) -> Result<()> {
        let gram = self.needs.contains(Needs::GRAM);
        let entry = self.entry(layer)?;
        if Inputs::record_columns(&mut entry.inputs, groups, gram) {
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
        Ok(Layer::with_evidence(parameter, evidence))
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
