//! [`Layer`]: one weight with what is known about it, the argument of every score and every quantizer.

use ndarray::{Array2, ArrayD};

use crate::evidence::readers;
use crate::evidence::{Histogram, Inputs, LayerEvidence, Outputs, PositionStatistics};
use crate::{Element, Error, Kind, Model, NormRole, Parameter, Result};

/// One parameter and the evidence about it, borrowed.
///
/// Getters of evidence return an error that names the layer and what is missing, so that a criterion can ask
/// with `?`.
///
/// ```
/// use ndarray::array;
/// use niwaki::{ErrorKind, Layer, Parameter};
///
/// let parameter = Parameter::linear("fc.weight", array![[1.0f32, -2.0]]);
/// let layer = Layer::new(&parameter);
/// assert_eq!(layer.parameter().units(), 1);
/// let error = layer.outputs().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::MissingEvidence);
/// assert!(error.to_string().contains("fc.weight"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, F> {
    parameter: &'a Parameter<F>,
    evidence: Option<&'a LayerEvidence<F>>,
    model: Option<&'a Model<F>>,
    /// in place of those of the evidence
    inputs: Option<&'a Inputs>,
    seed: u64,
}

impl<'a, F: Element> Layer<'a, F> {
    /// A layer about which nothing was seen.
    pub fn new(parameter: &'a Parameter<F>) -> Self {
        Self { parameter, evidence: None, model: None, inputs: None, seed: 0 }
    }

    pub(crate) fn of_model(
        model: &'a Model<F>,
        parameter: &'a Parameter<F>,
        evidence: Option<&'a LayerEvidence<F>>,
    ) -> Self {
        Self { parameter, evidence, model: Some(model), inputs: None, seed: 0 }
    }

    /// The same layer with other weights of the same shape, which read other inputs.
    pub(crate) fn reading(self, parameter: &'a Parameter<F>, inputs: &'a Inputs) -> Self {
        Self { parameter, inputs: Some(inputs), ..self }
    }

    /// The same layer with another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The seed of what is random about this layer, together with its name (default 0).
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The parameter's name.
    pub fn name(&self) -> &'a str {
        self.parameter.name()
    }

    /// The parameter: values, kind, axes.
    pub fn parameter(&self) -> &'a Parameter<F> {
        self.parameter
    }

    /// What its units answered.
    ///
    /// # Errors
    /// [`ErrorKind::MissingEvidence`](crate::ErrorKind::MissingEvidence), as for all getters below.
    pub fn outputs(&self) -> Result<&'a Outputs> {
        self.seen(|e| e.outputs.as_ref(), "outputs (Evidence::record_output)")
    }

    /// Statistics of each position of its output map.
    ///
    /// # Errors
    /// No outputs were recorded, or without [`Needs::MAPS`](crate::Needs::MAPS).
    pub fn positions(&self) -> Result<&'a PositionStatistics> {
        self.outputs()?.positions().ok_or_else(|| self.missing("output maps (Needs::MAPS)"))
    }

    /// The distribution over samples at each position of its output map, in row-major order.
    ///
    /// # Errors
    /// No outputs were recorded, or without [`Needs::HISTOGRAMS`](crate::Needs::HISTOGRAMS).
    pub fn histograms(&self) -> Result<&'a [Histogram]> {
        let histograms = self.outputs()?.positions().and_then(PositionStatistics::histograms);
        histograms.ok_or_else(|| self.missing("output histograms (Needs::HISTOGRAMS)"))
    }

    /// Covariance of its units' outputs.
    ///
    /// # Errors
    /// No outputs were recorded, or without [`Needs::OUTPUT_GRAM`](crate::Needs::OUTPUT_GRAM).
    pub fn output_covariance(&self) -> Result<Array2<f64>> {
        let covariance = self.outputs()?.covariance();
        covariance.ok_or_else(|| self.missing("output Gram matrices (Needs::OUTPUT_GRAM)"))
    }

    /// What it read; with [`Needs::HELD_OUT`](crate::Needs::HELD_OUT) without the samples that are held out, unless
    /// there are no others.
    ///
    /// # Errors
    /// No inputs were recorded.
    pub fn inputs(&self) -> Result<&'a Inputs> {
        match self.inputs {
            Some(inputs) => Ok(inputs),
            None => {
                self.seen(|e| e.inputs.as_ref().or(e.held_out.as_ref()), "inputs (Evidence::record_input)")
            }
        }
    }

    /// What it read of the samples that are held out, about one in eight.
    ///
    /// # Errors
    /// No inputs were recorded, or without [`Needs::HELD_OUT`](crate::Needs::HELD_OUT), or so few samples that none of
    /// them is held out, or all would be.
    pub fn held_out(&self) -> Result<&'a Inputs> {
        // Rows of a table are all that there can be: what it learns from is also what comes.
        if let Some(inputs) = self.inputs {
            return Ok(inputs);
        }
        let held_out = |e: &'a LayerEvidence<F>| e.held_out.as_ref().filter(|_| e.inputs.is_some());
        self.seen(held_out, "inputs of held-out samples (Needs::HELD_OUT)")
    }

    /// Whether inputs were recorded: for methods that use them when they are there.
    pub fn has_inputs(&self) -> bool {
        self.inputs().is_ok()
    }

    /// Σ x·xᵀ of its inputs, for one group of a convolution.
    ///
    /// # Errors
    /// No inputs were recorded, or without [`Needs::GRAM`](crate::Needs::GRAM), or there is no such group.
    pub fn gram(&self, group: usize) -> Result<&'a Array2<f64>> {
        let inputs = self.inputs()?;
        if group >= inputs.groups() {
            let (name, groups) = (self.name(), inputs.groups());
            return Err(Error::setting(format!("layer `{name}`: group {group} of {groups}")));
        }
        inputs.gram(group).ok_or_else(|| self.missing("input Gram matrices (Needs::GRAM)"))
    }

    /// Σ Wᵀ·W over the weights that read this layer's outputs through a coupling: what an error in each output, and
    /// in each pair of them, costs the layers that follow. `None` without a model, or where none reads all of them.
    ///
    /// An embedding has no inputs to weigh its columns by; its errors reach the network through these.
    pub fn readers_gram(&self) -> Option<Array2<f64>> {
        readers::gram(self.model?, self.parameter)
    }

    /// Whether a bias, or the running mean of a batch norm that directly follows, can take a constant that is to be
    /// added to this weight's outputs.
    pub fn takes_constant(&self) -> bool {
        let Some(model) = self.model.filter(|_| *self.parameter.kind() != Kind::Embedding) else {
            return false;
        };
        model.bias_of(self.name()).is_some() || model.norm_of(self.name(), NormRole::Mean).is_some()
    }

    /// The mean gradient of the loss in its weights.
    ///
    /// # Errors
    /// No gradient was recorded.
    pub fn gradient(&self) -> Result<ArrayD<F>> {
        let seen = self.seen(|e| e.gradient.as_ref(), "gradients (Evidence::record_gradient)");
        seen.map(super::MeanArray::mean)
    }

    /// Its weights at an earlier training step.
    ///
    /// # Errors
    /// No snapshot was recorded.
    pub fn snapshot(&self) -> Result<&'a ArrayD<F>> {
        self.seen(|e| e.snapshot.as_ref(), "snapshots (Evidence::record_snapshot)")
    }

    /// The mean gradient at that step.
    ///
    /// # Errors
    /// No gradient was recorded there.
    pub fn snapshot_gradient(&self) -> Result<ArrayD<F>> {
        let what = "gradients at the snapshot (Evidence::record_snapshot_gradient)";
        self.seen(|e| e.snapshot_gradient.as_ref(), what).map(super::MeanArray::mean)
    }

    fn seen<T>(&self, of: impl Fn(&'a LayerEvidence<F>) -> Option<&'a T>, what: &str) -> Result<&'a T> {
        self.evidence.and_then(of).ok_or_else(|| self.missing(what))
    }

    fn missing(&self, what: &str) -> Error {
        Error::missing(format!("layer `{}`: no {what} were recorded", self.name()))
    }
}
