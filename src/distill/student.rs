//! [`Student`]: the network in training.

use ndarray::ArrayD;

use crate::distill::Loss;
use crate::distill::adam::Adam;
use crate::kernel::{par, reduce};
use crate::quantize::{Coding, QuantizedTensor};
use crate::{Element, Error, ErrorKind, Kind, Model, NormRole, Parameter, Result};

/// Weights in codes, by name.
pub(super) type Codes = Vec<(String, QuantizedTensor)>;

/// The model as it is after rounding, and behind it what the optimizer moves.
pub(super) struct Student<F> {
    model: Model<F>,
    learners: Vec<Learner<F>>,
}

/// All that training changes: for one parameter, in the model's order.
#[derive(Clone)]
pub(super) struct Learned<F> {
    values: Vec<F>,
    codes: Option<(Coding, Vec<f64>)>,
}

/// One parameter and its optimizer.
struct Learner<F> {
    name: String,
    learned: Learned<F>,
    /// Which values may move; all, when there is none.
    free: Option<Vec<bool>>,
    values: Adam<F>,
    scales: Adam<f64>,
    gradient: Vec<F>,
    pull: Vec<f64>,
    outcome: Result<()>,
    /// Not a parameter but a measurement: the running mean or variance of a batch norm.
    measured: bool,
}

impl<F: Element> Student<F> {
    /// `codes` says which weights are rounded, and to what steps.
    pub(super) fn new(model: &Model<F>, codes: &[(String, QuantizedTensor)]) -> Result<Self> {
        let coding = |p: &Parameter<F>| -> Result<Option<Coding>> {
            let tensor = codes.iter().find(|(name, _)| name == p.name());
            let coding = tensor.map(|(_, tensor)| Coding::of(tensor)).transpose();
            coding.map_err(|error| error.context(format!("layer `{}`", p.name())))
        };
        let learner = |p: &Parameter<F>| Ok(Learner::new(p, coding(p)?));
        let learners = model.parameters().iter().map(learner).collect::<Result<_>>()?;
        let mut student = Self { model: model.clone(), learners };
        student.round()?;
        Ok(student)
    }

    /// The model with the values that the codes decode to.
    pub(super) fn model(&self) -> &Model<F> {
        &self.model
    }

    /// Moves everything that the loss has a gradient for.
    ///
    /// # Errors
    /// A gradient of no parameter, of another shape, twice, or not finite; a weight without one; or the training
    /// diverged.
    pub(super) fn learn(&mut self, loss: Loss<F>, rate: f64, scale_rate: f64) -> Result<()> {
        self.learners.iter_mut().for_each(|learner| learner.gradient.clear());
        for (name, gradient) in loss.into_gradients() {
            let learner = self.learners.iter_mut().find(|learner| learner.name == name);
            let learner = learner.ok_or_else(|| {
                Error::name(format!("there is a gradient of `{name}`, but no such parameter"))
            })?;
            learner.take(&gradient, self.model.parameter(&name)?.shape())?;
        }
        let silent = |learner: &&Learner<F>| learner.learned.codes.is_some() && learner.gradient.is_empty();
        if let Some(learner) = self.learners.iter().find(silent) {
            return Err(Error::missing(format!(
                "layer `{}` is to be trained, but the loss has no gradient of it",
                learner.name
            )));
        }
        par::for_chunks_mut(&mut self.learners, 1, |_, learner| {
            learner
                .iter_mut()
                .filter(|l| !l.gradient.is_empty() && !l.measured)
                .for_each(|l| l.learn(rate, scale_rate));
        });
        for learner in &self.learners {
            learner.outcome.clone().map_err(|e| e.context(format!("parameter `{}`", learner.name)))?;
        }
        self.round()
    }

    /// What was learned so far.
    pub(super) fn learned(&self) -> Vec<Learned<F>> {
        self.learners.iter().map(|learner| learner.learned.clone()).collect()
    }

    /// The model, with the values as they were in weights that have codes, and as learned in all else; and the codes.
    pub(super) fn finish(self, original: &Model<F>, learned: Vec<Learned<F>>) -> Result<(Model<F>, Codes)> {
        let (mut model, mut tensors) = (original.clone(), Vec::new());
        for (learner, learned) in self.learners.into_iter().zip(learned) {
            match learned.codes {
                Some((coding, _)) => tensors.push((learner.name, coding.encode(&learned.values))),
                None => model.values_mut(&learner.name)?.copy_from_slice(&learned.values),
            }
        }
        Ok((model, tensors))
    }

    /// Brings the model up to date.
    fn round(&mut self) -> Result<()> {
        for learner in &self.learners {
            let values = self.model.values_mut(&learner.name)?;
            match &learner.learned.codes {
                Some((coding, _)) => coding.round(&learner.learned.values, values),
                None => values.copy_from_slice(&learner.learned.values),
            }
        }
        Ok(())
    }
}

impl<F: Element> Learner<F> {
    fn new(parameter: &Parameter<F>, coding: Option<Coding>) -> Self {
        let values = parameter.values().to_vec();
        let is_pruned = parameter.kind().is_weight() && values.iter().any(F::is_zero);
        let codes = coding.map(|coding| {
            let logarithms: Vec<f64> = coding.scales().map(|scale| f64::from(scale).ln()).collect();
            (coding, logarithms)
        });
        let scales = codes.as_ref().map_or(0, |(_, logarithms)| logarithms.len());
        Self {
            name: parameter.name().to_owned(),
            free: is_pruned.then(|| values.iter().map(|v| !v.is_zero()).collect()),
            values: Adam::new(values.len()),
            scales: Adam::new(scales),
            gradient: Vec::new(),
            pull: vec![0.0; scales],
            outcome: Ok(()),
            measured: matches!(
                parameter.kind(),
                Kind::Norm { role: NormRole::Mean | NormRole::Variance, .. }
            ),
            learned: Learned { values, codes },
        }
    }

    fn take(&mut self, gradient: &ArrayD<F>, shape: &[usize]) -> Result<()> {
        let name = &self.name;
        if gradient.shape() != shape {
            let given = gradient.shape();
            return Err(Error::shape(format!(
                "parameter `{name}` {shape:?}: its gradient has the shape {given:?}"
            )));
        }
        if !self.gradient.is_empty() {
            return Err(Error::name(format!("parameter `{name}` has two gradients")));
        }
        self.gradient.extend(gradient.iter());
        match reduce::first_not_finite(&self.gradient) {
            None => Ok(()),
            Some(at) => Err(not_finite(format!(
                "parameter `{name}`: its gradient is {} at flat index {at}",
                self.gradient[at]
            ))),
        }
    }

    fn learn(&mut self, rate: f64, scale_rate: f64) {
        self.outcome = self.step(rate, scale_rate);
    }

    fn step(&mut self, rate: f64, scale_rate: f64) -> Result<()> {
        let Learned { values, codes } = &mut self.learned;
        if let Some((coding, logarithms)) = codes {
            coding.pull(values, &mut self.gradient, &mut self.pull);
            self.scales.step(logarithms, &self.pull, scale_rate);
            for (at, logarithm) in logarithms.iter().enumerate() {
                coding.set_scale(at, logarithm.exp())?;
            }
        }
        if let Some(free) = &self.free {
            let held = self.gradient.iter_mut().zip(free).filter(|(_, free)| !**free);
            held.for_each(|(gradient, _)| *gradient = F::zero());
        }
        self.values.step(values, &self.gradient, rate);
        match reduce::first_not_finite(values) {
            None => Ok(()),
            Some(at) => Err(not_finite(format!("the value at flat index {at} became {}", values[at]))),
        }
    }
}

fn not_finite(message: String) -> Error {
    Error::new(ErrorKind::NotFinite, message)
}
