//! Which quantizer a weight gets.

use std::sync::{Arc, Mutex, PoisonError};

use niwaki::quantize::{QuantizedTensor, Quantizer};
use niwaki::{Evidence, Kind, Layer, Model, Needs, Parameter, Pattern, Result};

use crate::spell::Quantize;
use crate::stages::matching;

type Boxed = Box<dyn Quantizer<f32>>;

/// What was done with some weights in place of what was asked for: name and words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<(String, String)>>>);

impl Notes {
    /// All so far.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, name: &str, note: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), note));
    }
}

/// Leaves some weights as they are, and does with others what can be done.
#[derive(Debug)]
pub(crate) struct Chosen {
    quantizer: Boxed,
    learning: Option<Learning>,
    plain: Vec<String>,
    notes: Notes,
}

/// For weights that cannot learn, or not all of it.
#[derive(Debug)]
struct Learning {
    nearest: Boxed,
    /// takes no weights away
    full: Boxed,
    of: usize,
}

impl Chosen {
    pub(crate) fn new(quantize: &Quantize, centred: bool, model: &Model<f32>, notes: &Notes) -> Result<Self> {
        let learning = match quantize.nearest()?.filter(|_| quantize.learns()) {
            Some(nearest) => Some(Learning {
                nearest: Box::new(nearest),
                full: quantize.full().stage(centred)?,
                of: quantize.multiple(),
            }),
            None => None,
        };
        let (quantizer, plain) = (quantize.stage(centred)?, plain(quantize, model)?);
        Ok(Self { quantizer, learning, plain, notes: notes.clone() })
    }
}

impl Quantizer<f32> for Chosen {
    fn quantize(&self, layer: &Layer<'_, f32>) -> Result<QuantizedTensor> {
        let Some(learning) = &self.learning else { return self.quantizer.quantize(layer) };
        let parameter = layer.parameter();
        let embeds = *parameter.kind() == Kind::Embedding;
        // What is lost of an embedding is seen in what reads it.
        if !embeds && !layer.has_inputs() {
            let note = "its inputs were not seen: rounded to nearest, range by squared error";
            self.notes.push(layer.name(), note.to_owned());
            return learning.nearest.quantize(layer);
        }
        let inputs = if embeds { parameter.units() } else { parameter.fan_in() / parameter.taps().max(1) };
        if !inputs.is_multiple_of(learning.of) {
            let note = format!("its {inputs} inputs are not a multiple of {}: no weights went", learning.of);
            self.notes.push(layer.name(), note);
            return learning.full.quantize(layer);
        }
        self.quantizer.quantize(layer)
    }

    fn quantize_model(
        &self,
        model: &Model<f32>,
        evidence: &Evidence<f32>,
    ) -> Result<Vec<(String, QuantizedTensor)>> {
        if self.learning.is_none() {
            // Some have one scale for all weights together.
            let mut tensors = self.quantizer.quantize_model(model, evidence)?;
            tensors.retain(|(name, _)| !self.plain.contains(name));
            return Ok(tensors);
        }
        let mut tensors = Vec::new();
        for weight in model.weights().filter(|weight| self.plain.iter().all(|name| name != weight.name())) {
            let layer = evidence.layer(model, weight.name())?;
            tensors.push((weight.name().to_owned(), self.quantize(&layer)?));
        }
        Ok(tensors)
    }

    fn needs(&self) -> Needs {
        self.quantizer.needs()
    }

    fn check(&self) -> Result<()> {
        self.quantizer.check()
    }
}

/// Weights that `--quantize …,keep=PATTERN` leaves as they are.
fn plain(quantize: &Quantize, model: &Model<f32>) -> Result<Vec<String>> {
    let names = model.weights().map(Parameter::name).collect::<Vec<_>>();
    matching(&quantize.kept(), &names, "--quantize: keep")
}

/// Patterns of the weights that get codes.
pub(crate) fn coded(quantize: &Quantize, model: &Model<f32>) -> Result<Vec<Pattern>> {
    let plain = plain(quantize, model)?;
    let names = model.weights().map(Parameter::name);
    names.filter(|name| plain.iter().all(|p| p != name)).map(Pattern::new).collect()
}
