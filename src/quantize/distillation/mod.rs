//! Learned rounding: the quantized layer is a student that is to answer as its teacher does.

mod adversary;
mod chunk;
mod descent;
mod exam;
mod shared;
mod soft;
mod student;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use ndarray::{Array1, Array2};

use crate::evidence::objective::Objective;
use crate::quantize::carry;
use crate::quantize::distillation::adversary::Inputs;
use crate::quantize::distillation::exam::Exam;
use crate::quantize::distillation::student::{Lesson, Student};
use crate::quantize::{Outcome, QuantizedTensor, Quantizer, Uniform};
use crate::{Element, Error, ErrorKind, Evidence, Kind, Layer, Model, Needs, Result};

/// Codes and scales that are learned, layer by layer, so that the quantized weights Ŵ (the student) answer to the inputs
/// of the calibration run as the weights W (the teacher) do.
///
/// What is made small is Σ δ·G·δᵀ over the rows δ of W − Ŵ, with G the Gram matrix of the layer's inputs
/// ([`Layer::gram`]), or of the weights that read them for an embedding ([`Layer::readers_gram`]). Inputs themselves are
/// not kept. A row takes the best of: the codes that its [`Uniform`] gives it; nearest codes at sixteen narrower ranges;
/// both improved code by code, with scales set to the least error in between; and soft rounding (`AdaRound`), in which
/// each code is ⌊w / scale⌋ + h(v) with a rectified sigmoid h, and gradient descent moves v and the scales, while a
/// regularizer grows that presses h to 0 or 1. Weights that are 0 stay 0, zero points stay as they are.
///
/// With [`adversarial`](Self::adversarial) an opponent then looks, within the mean and the covariance of the inputs,
/// for the input on which student and teacher differ most; the student goes on learning with that among its inputs,
/// and so on. That lowers the [worst case](Outcome::worst_case) at some cost on the average. The student of the round
/// with the smallest worst case is taken, unless nearest rounding is better than it on average; a note says so then.
///
/// About one sample in eight is held out ([`Needs::HELD_OUT`]), and [`QuantizedTensor::outcome`] has the error on those
/// beside that of nearest rounding. A layer in which nearest rounding is better there gets nearest rounding, and a note
/// says so. One scale for all layers ([`Uniform::per_model`]) stays what it is; only codes are learned.
///
/// Defaults: 400 steps of soft rounding, 0.01 of the mean diagonal added to G's, no opponent.
///
/// Nagel et al.: Up or down? Adaptive rounding for post-training quantization (2020).
///
/// ```
/// use ndarray::{Array, array};
/// use niwaki::quantize::{Bits, Distillation, Quantizer, Uniform};
/// use niwaki::{Evidence, Model, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc", array![[0.7, 0.16, -0.36, 0.25], [0.3, -1.4, 0.5, 0.11]]))
///     .build()?;
/// let distillation = Distillation::new(Uniform::new(Bits::new(3)?));
/// // Inputs that rise and fall together: an error in one can make up for that in another.
/// let inputs = Array::from_shape_fn((64, 4), |(i, j)| ((i * 37 % 64) as f32 + (i * j % 5) as f32) / 64.0);
/// let mut evidence = Evidence::new(&model, Quantizer::<f32>::needs(&distillation));
/// evidence.record_input("fc", &inputs)?;
/// let tensor = distillation.quantize(&evidence.layer(&model, "fc")?)?;
/// let outcome = tensor.outcome().unwrap();
/// assert!(outcome.error < 0.2 * outcome.nearest);
/// let (student, nearest) = outcome.held_out.unwrap();
/// assert!(student < nearest);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Distillation {
    student: Uniform,
    steps: usize,
    damp: f64,
    centred: bool,
    rounds: usize,
}

impl Distillation {
    /// A student with codes of this kind.
    pub fn new(student: Uniform) -> Self {
        Self { student, steps: 400, damp: 0.01, centred: false, rounds: 0 }
    }

    /// Steps of soft rounding; with 0 codes are only improved one by one, which takes a fraction of the time.
    ///
    /// ```
    /// # use niwaki::quantize::{Bits, Distillation, Uniform};
    /// let student = Uniform::new(Bits::FOUR);
    /// assert_eq!(Distillation::new(student).steps(400), Distillation::new(student));
    /// ```
    pub fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// What is added to the diagonal of G, as a share of its mean. More keeps codes nearer to the weights: for few
    /// samples.
    ///
    /// # Errors
    /// It is negative or not finite.
    ///
    /// ```
    /// # use niwaki::quantize::{Bits, Distillation, Uniform};
    /// let student = Distillation::new(Uniform::new(Bits::FOUR));
    /// assert!(student.clone().damp(0.1).is_ok());
    /// assert!(student.damp(-0.1).unwrap_err().to_string().contains("-0.1"));
    /// ```
    pub fn damp(self, damp: f64) -> Result<Self> {
        if damp >= 0.0 && damp.is_finite() {
            return Ok(Self { damp, ..self });
        }
        Err(Error::setting(format!("damp {damp} is not a number from 0 on")))
    }

    /// Learns around the mean of the inputs, where a bias or a batch norm can take what the mean makes of the errors:
    /// for use with [`correct_bias`](crate::compress::CompressorBuilder::correct_bias), and only with it. Errors are
    /// then reported around the mean too.
    ///
    /// ```
    /// use niwaki::Compressor;
    /// use niwaki::quantize::{Bits, Distillation, Uniform};
    ///
    /// let distillation = Distillation::new(Uniform::new(Bits::FOUR)).centred();
    /// assert!(Compressor::builder().quantizer(distillation).correct_bias().build().is_ok());
    /// ```
    pub fn centred(self) -> Self {
        Self { centred: true, ..self }
    }

    /// Rounds against an opponent (default 0). Each makes learning about a quarter longer, and a few are enough.
    ///
    /// ```
    /// use ndarray::Array;
    /// use niwaki::quantize::{Bits, Distillation, Quantizer, Uniform};
    /// use niwaki::{Evidence, Model, Needs, Parameter};
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let weights = Array::from_shape_fn((8, 12), |(i, j)| ((5 * i + 3 * j) as f32).sin());
    /// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
    /// let mut evidence = Evidence::new(&model, Needs::HELD_OUT);
    /// let inputs = Array::from_shape_fn((200, 12), |(i, j)| ((i * i % 97) as f32 + (i * j % 31) as f32) / 64.0);
    /// evidence.record_input("fc", &inputs)?;
    /// let layer = evidence.layer(&model, "fc")?;
    /// let plain = Distillation::new(Uniform::new(Bits::new(3)?));
    /// let worst = |tensor: niwaki::quantize::QuantizedTensor| tensor.outcome().unwrap().worst_case.unwrap();
    /// let (alone, nearest) = worst(plain.quantize(&layer)?);
    /// let (opposed, _) = worst(plain.adversarial(4).quantize(&layer)?);
    /// assert!(opposed <= alone && opposed < nearest);
    /// # Ok(())
    /// # }
    /// ```
    pub fn adversarial(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    /// The student that learned what this layer does, or nearest rounding.
    fn learn<F: Element>(&self, layer: &Layer<'_, F>, nearest: QuantizedTensor) -> Result<QuantizedTensor> {
        let objective = match Objective::of(layer, self.centred) {
            Ok(objective) => objective,
            Err(error) if *layer.parameter().kind() == Kind::Embedding => {
                let notes = vec![format!("nearest rounding: {error}")];
                return Ok(nearest.with_outcome(Outcome { notes, ..Outcome::default() }));
            }
            Err(error) => return Err(error),
        };
        let plain: Vec<Array2<f64>> = objective.grams.iter().map(|gram| gram.clone().into_owned()).collect();
        let (mut grams, mut notes) = (plain.clone(), Vec::new());
        for gram in &mut grams {
            damp(gram, self.damp);
        }
        let floor = Student::new(layer.parameter(), &nearest)?;
        let mut student = floor.clone();
        student.learn(&grams, Lesson { steps: self.steps, search: true });
        // Judged without what was added to the diagonal.
        let mut rows_nearest = student.take_better(&floor, &plain);

        let inputs = self.inputs(layer, &plain)?;
        let held_out = match objective.samples.map(|_| self.held_out(layer)).transpose() {
            Err(error) if error.kind() == ErrorKind::MissingEvidence => {
                notes.push(error.to_string());
                None
            }
            held_out => held_out?,
        };
        let exam = Exam::new(&student, &plain, held_out.as_deref(), &inputs);
        let (nearest, mut marks) = (exam.marks(&floor), exam.marks(&student));
        if self.rounds > 0 && !inputs.is_empty() {
            let mut opposed = student.clone();
            self.play(&mut opposed, &inputs, &mut grams);
            grams.iter_mut().zip(&plain).for_each(|(gram, plain)| undamp(gram, plain, self.damp));
            let kept = opposed.take_better(&floor, &grams);
            let theirs = exam.marks(&opposed);
            if !theirs.pass(&nearest) {
                notes.push("no opponent: with it nearest rounding would be better on average".into());
            } else if theirs.worst_case < marks.worst_case {
                (student, marks, rows_nearest) = (opposed, theirs, kept);
            }
        }
        if !marks.pass(&nearest) {
            let [ours, theirs] = [&marks, &nearest].map(|marks| marks.held_out.unwrap_or(marks.error));
            notes.push(format!(
                "nearest rounding: what was learned is worse on held-out samples, {ours:.3e} against {theirs:.3e}"
            ));
            rows_nearest = floor.rows.count;
            (student, marks) = (floor, nearest.clone());
        }
        let outcome = Outcome {
            error: marks.error,
            nearest: nearest.error,
            held_out: marks.held_out.zip(nearest.held_out),
            worst_case: marks.worst_case.zip(nearest.worst_case),
            rows: student.rows.count,
            rows_nearest,
            notes,
        };
        Ok(student.tensor().with_outcome(outcome))
    }

    /// The game: each round the opponent finds inputs for each group, and the student learns with them. The student with
    /// the smallest worst case is what comes out.
    fn play<F: Element>(&self, student: &mut Student<'_, F>, inputs: &[Inputs], grams: &mut [Array2<f64>]) {
        let worst_of = |differences: &[Array2<f64>]| -> Vec<(Array1<f64>, f64)> {
            differences.iter().zip(inputs).map(|(m, inputs)| inputs.worst(m)).collect()
        };
        let total = |worst: &[(Array1<f64>, f64)]| worst.iter().map(|(_, worst)| worst).sum::<f64>();
        let mut differences = student.differences();
        let mut worst = worst_of(&differences);
        let (mut best, mut least) = (student.clone(), total(&worst));
        for _ in 0..if inputs.is_empty() { 0 } else { self.rounds } {
            for (((gram, inputs), m), (x, worst)) in
                grams.iter_mut().zip(inputs).zip(&differences).zip(&worst)
            {
                inputs.add_adversary(gram, m, x, *worst);
            }
            student.learn(grams, Lesson { steps: self.steps / 4, search: false });
            differences = student.differences();
            worst = worst_of(&differences);
            if total(&worst) < least {
                (best, least) = (student.clone(), total(&worst));
            }
        }
        *student = best;
    }

    /// Mean and covariance of the inputs of each group; none for an embedding.
    fn inputs<F: Element>(&self, layer: &Layer<'_, F>, grams: &[Array2<f64>]) -> Result<Vec<Inputs>> {
        if *layer.parameter().kind() == Kind::Embedding {
            return Ok(Vec::new());
        }
        let (seen, around) = (layer.inputs()?, self.is_centred(layer));
        let rows = seen.rows() as f64;
        let of = |(group, gram): (usize, &Array2<f64>)| {
            let mean = seen.mean(group);
            let mut covariance = gram / rows;
            if around {
                return Inputs { mean: Array1::zeros(mean.len()), covariance, rows };
            }
            add_outer(&mut covariance, -1.0, &mean, &mean);
            Inputs { mean, covariance, rows }
        };
        Ok(grams.iter().enumerate().map(of).collect())
    }

    /// The matrices of the samples that are held out, around the mean of the others where that is what is learned.
    fn held_out<F: Element>(&self, layer: &Layer<'_, F>) -> Result<Vec<Array2<f64>>> {
        let (held_out, seen) = (layer.held_out()?, layer.inputs()?);
        let n = held_out.rows() as f64;
        let of = |group: usize| {
            let mut gram = held_out.gram(group).cloned().unwrap_or_default();
            if self.is_centred(layer) {
                let (mean, own) = (seen.mean(group), held_out.mean(group));
                add_outer(&mut gram, -n, &mean, &own);
                add_outer(&mut gram, -n, &own, &mean);
                add_outer(&mut gram, n, &mean, &mean);
            }
            gram
        };
        Ok((0..held_out.groups()).map(of).collect())
    }

    fn is_centred<F: Element>(&self, layer: &Layer<'_, F>) -> bool {
        self.centred && layer.takes_constant()
    }
}

impl<F: Element> Quantizer<F> for Distillation {
    fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor> {
        self.learn(layer, self.student.quantize(layer)?)
    }

    /// # Errors
    /// As [`quantize`](Quantizer::quantize); also when there was nothing to learn any layer from.
    fn quantize_model(
        &self,
        model: &Model<F>,
        evidence: &Evidence<F>,
    ) -> Result<Vec<(String, QuantizedTensor)>> {
        let tensors = if self.student.is_per_model() {
            let nearest = self.student.quantize_model(model, evidence)?;
            let one = |(name, tensor): (String, QuantizedTensor)| {
                let learned = self.learn(&evidence.layer(model, &name)?, tensor)?;
                Ok((name, learned))
            };
            nearest.into_iter().map(one).collect::<Result<Vec<_>>>()?
        } else {
            carry::quantize_model(model, evidence, self.centred, |layer| self.quantize(layer))?
        };
        let learned = |(_, tensor): &(String, QuantizedTensor)| tensor.outcome().is_some_and(|o| o.rows > 0);
        if tensors.is_empty() || tensors.iter().any(learned) {
            return Ok(tensors);
        }
        Err(Error::missing("no layer has inputs, or weights that read it, to learn its rounding from"))
    }

    fn needs(&self) -> Needs {
        Needs::HELD_OUT
    }

    fn check(&self) -> Result<()> {
        Quantizer::<F>::check(&self.student)
    }
}

/// What damping adds to the diagonal.
fn added(plain: &Array2<f64>, share: f64) -> f64 {
    share * plain.diag().sum() / plain.nrows().max(1) as f64
}

fn damp(gram: &mut Array2<f64>, share: f64) {
    let added = added(gram, share);
    gram.diag_mut().mapv_inplace(|x| x + added);
}

fn undamp(gram: &mut Array2<f64>, plain: &Array2<f64>, share: f64) {
    let added = added(plain, share);
    gram.diag_mut().mapv_inplace(|x| x - added);
}

/// m += weight · a·bᵀ.
fn add_outer(m: &mut Array2<f64>, weight: f64, a: &Array1<f64>, b: &Array1<f64>) {
    for (mut row, &a) in m.rows_mut().into_iter().zip(a) {
        row.scaled_add(weight * a, b);
    }
}
