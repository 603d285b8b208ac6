//! [`Training`]: settings, and the loop.

use crate::distill::adam::course;
use crate::distill::student::{Codes, Learned, Student};
use crate::distill::{Distilled, Loss, Teacher};
use crate::model::Mask;
use crate::prune::{Cut, Plan};
use crate::quantize::{Quantizer, Uniform};
use crate::{Compressed, Element, Error, ErrorKind, Layer, Model, Parameter, Pattern, Result};

/// Trains a network whose weights are rounded in every step.
///
/// The forward pass sees ŵ = s·(clamp(round(w / s) + z) − z). In the backward pass rounding counts as the identity
/// within its range and as a constant outside of it (straight through); the scale s gets the gradient that follows
/// (learned step size), and moves on a logarithmic axis, so that it stays above 0. Zero points z stay as they are.
/// Weights, biases and whatever else the teacher has gradients for are moved by Adam, at a rate that rises over the
/// first twentieth of the steps and falls to 0 along a cosine. Only weights get codes; scales start from those that the
/// quantizer finds. Running means and variances of batch norms are measurements, and stay.
///
/// A weight that is 0 stays exactly 0, so a pruned network is trained with its masks. With samples held out, the
/// result is the best of the students that were looked at, nearest rounding among them: it is never worse there.
///
/// Defaults: 2,000 steps, learning rate 3e-4 for the parameters and 1e-3 for the logarithms of the scales, a look at
/// what is held out ten times.
///
/// Esser, `McKinstry`, Bablani, Appuswamy, Modha: Learned step size quantization (2020); Hinton, Vinyals, Dean:
/// Distilling the knowledge in a neural network (2015); Bengio, Léonard, Courville: Estimating or propagating
/// gradients through stochastic neurons (2013).
///
/// ```
/// use ndarray::array;
/// use niwaki::distill::{Loss, Training};
/// use niwaki::quantize::{Bits, Uniform};
/// use niwaki::{Model, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = array![[0.9f32, 0.4, 0.0, -0.3]];
/// let model = Model::builder().parameter(Parameter::linear("fc", weights.clone())).build()?;
/// // The loss ‖w − w₀‖² has the gradient 2·(w − w₀).
/// let mut teacher = |student: &Model<f32>, _step: usize| {
///     let error = student.parameter("fc")?.array() - &weights;
///     Ok(Loss::new(f64::from(error.mapv(|e| e * e).sum())).gradient("fc", error * 2.0))
/// };
/// let training = Training::new(Uniform::new(Bits::new(2)?)).steps(200).learning_rate(1e-2).scale_rate(1e-2);
/// let distilled = training.run(&model, &mut teacher)?;
/// let losses = distilled.losses();
/// assert!(losses[199] < losses[0]);
/// assert_eq!(distilled.compressed().array("fc")?[[0, 2]], 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    quantizer: Uniform,
    steps: usize,
    rate: f64,
    scale_rate: f64,
    looks: usize,
    excluded: Vec<String>,
}

impl Training {
    /// Weights in codes of this kind.
    pub fn new(quantizer: Uniform) -> Self {
        Self { quantizer, steps: 2000, rate: 3e-4, scale_rate: 1e-3, looks: 10, excluded: Vec::new() }
    }

    /// How often the teacher is asked for a loss. At least 1.
    pub fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// By about how much a step moves a weight when the rate is highest.
    pub fn learning_rate(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    /// By about which fraction of itself a step moves a scale when the rate is highest; 0 leaves scales as they are.
    pub fn scale_rate(self, rate: f64) -> Self {
        Self { scale_rate: rate, ..self }
    }

    /// How often the held-out loss is looked at: evenly, last after the last step. At least 1.
    pub fn looks(self, looks: usize) -> Self {
        Self { looks, ..self }
    }

    /// Weights whose name matches get no codes, but are trained all the same: an exact name or a `re:` pattern.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excluded.push(pattern.into());
        self
    }

    /// Trains. The model given is the one to start from, pruned or not; it is not changed.
    ///
    /// # Errors
    /// A setting outside its range or a pattern that matches no weight; as the quantizer, which has no evidence here;
    /// as the teacher. A loss or gradient that is not finite, a gradient of another shape or of no parameter, or none
    /// of a weight that gets codes; these messages name the step and the parameter.
    pub fn run<F: Element, T: Teacher<F> + ?Sized>(
        &self,
        model: &Model<F>,
        teacher: &mut T,
    ) -> Result<Distilled<F>> {
        self.check()?;
        let mut student = Student::new(model, &self.codes(model)?)?;
        let mut losses = Vec::with_capacity(self.steps);
        let mut held_out = Vec::new();
        let mut best: Option<(f64, usize, Vec<Learned<F>>)> = None;
        let mut look = |student: &Student<F>, teacher: &mut T, step: usize| -> Result<bool> {
            let Some(loss) = teacher.held_out(student.model())? else { return Ok(false) };
            check_loss(loss)?;
            held_out.push((step, loss));
            if best.as_ref().is_none_or(|(lowest, ..)| loss <= *lowest) {
                best = Some((loss, step, student.learned()));
            }
            Ok(true)
        };
        let looks = look(&student, teacher, 0).map_err(|e| e.context("before the first step"))?;
        for step in 0..self.steps {
            let here = |e: Error| e.context(format!("step {step} of {}", self.steps));
            let loss: Loss<F> = teacher.loss(student.model(), step).map_err(here)?;
            losses.push(check_loss(loss.value()).map_err(here)?);
            let factor = course(step, self.steps);
            student.learn(loss, self.rate * factor, self.scale_rate * factor).map_err(here)?;
            let done = step + 1;
            if looks && done * self.looks / self.steps > step * self.looks / self.steps {
                look(&student, teacher, done).map_err(here)?;
            }
        }
        let (step, learned) = match best {
            Some((_, step, learned)) => (step, learned),
            None => (self.steps, student.learned()),
        };
        let (trained, tensors) = student.finish(model, learned)?;
        let compressed = Compressed::assemble(model, trained, tensors, &zeros(model)?)?;
        Ok(Distilled { compressed, losses, held_out, step })
    }

    /// The codes that training starts from.
    fn codes<F: Element>(&self, model: &Model<F>) -> Result<Codes> {
        let names: Vec<&str> = model.weights().map(Parameter::name).collect();
        let excluded: Result<Vec<Pattern>> = self
            .excluded
            .iter()
            .map(|text| {
                let pattern = Pattern::new(text.as_str())?;
                pattern.check_matches(names.iter().copied())?;
                Ok(pattern)
            })
            .collect();
        let excluded = excluded?;
        let coded = model.weights().filter(|p| !excluded.iter().any(|pattern| pattern.matches(p.name())));
        let tensor = |p: &Parameter<F>| Ok((p.name().to_owned(), self.quantizer.quantize(&Layer::new(p))?));
        let codes = coded.map(tensor).collect::<Result<Vec<_>>>()?;
        if codes.is_empty() {
            return Err(Error::setting("no weight gets codes: the model has none, or all are excluded"));
        }
        Ok(codes)
    }

    fn check(&self) -> Result<()> {
        Quantizer::<f32>::check(&self.quantizer)?;
        for (what, count) in [("steps", self.steps), ("looks", self.looks)] {
            if count == 0 {
                return Err(Error::setting(format!("training with 0 {what}: it takes at least 1")));
            }
        }
        for (what, rate) in [("learning rate", self.rate), ("rate of the scales", self.scale_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(Error::setting(format!("{what} {rate} is outside [0, 1]")));
            }
        }
        Ok(())
    }
}

fn check_loss(loss: f64) -> Result<f64> {
    if loss.is_finite() {
        Ok(loss)
    } else {
        Err(Error::new(ErrorKind::NotFinite, format!("the loss is {loss}")))
    }
}

/// A plan by which the weights go that are 0 already.
fn zeros<F: Element>(model: &Model<F>) -> Result<Plan> {
    let mask = |p: &Parameter<F>| {
        let values = p.values();
        (p.name().to_owned(), Mask::from_fn(p.shape(), |at| !values[at].is_zero()))
    };
    Plan::of(model, Cut { masks: model.weights().map(mask).collect(), ..Cut::default() })
}
