//! On a network of two layers whose gradients are written out.

use ndarray::{Array1, Array2, ArrayD, Axis, Ix1, Ix2, array};

use super::*;
use crate::quantize::{Bits, GroupSize, Range, Uniform};
use crate::{Element, ErrorKind, Model, Parameter, Result};

/// y = W₂·tanh(W₁·x + b), the answers of the original, and samples held out.
struct Net {
    inputs: Array2<f64>,
    answers: Array2<f64>,
    unseen: Option<(Array2<f64>, Array2<f64>)>,
}

fn wave(rows: usize, columns: usize, phase: f64) -> Array2<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        ((13 * i + 7 * j) as f64 * 0.61 + phase * (1 + i * j) as f64).sin()
    })
}

fn model() -> Model<f64> {
    Model::builder()
        .parameter(Parameter::linear("in", wave(10, 8, 0.3)))
        .parameter(Parameter::bias("b", Array1::zeros(10), "in"))
        .parameter(Parameter::linear("out", wave(3, 10, 0.7)))
        .parameter(Parameter::other("untouched", array![1.0, 2.0]))
        .build()
        .unwrap()
}

fn matrix(model: &Model<f64>, name: &str) -> Array2<f64> {
    model.parameter(name).unwrap().array().clone().into_dimensionality::<Ix2>().unwrap()
}

fn forward(model: &Model<f64>, inputs: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
    let bias = model.parameter("b").unwrap().array().clone().into_dimensionality::<Ix1>().unwrap();
    let hidden = (inputs.dot(&matrix(model, "in").t()) + &bias).mapv_into(f64::tanh);
    let answers = hidden.dot(&matrix(model, "out").t());
    (hidden, answers)
}

fn mean_square(error: &Array2<f64>) -> f64 {
    error.mapv(|e| e * e).sum() / error.len() as f64
}

impl Net {
    fn of(model: &Model<f64>) -> Self {
        let (inputs, unseen) = (wave(96, 8, 0.11), wave(50, 8, 0.17));
        let answers = forward(model, &inputs).1;
        let right = forward(model, &unseen).1;
        Self { inputs, answers, unseen: Some((unseen, right)) }
    }
}

impl Teacher<f64> for Net {
    fn loss(&mut self, student: &Model<f64>, _step: usize) -> Result<Loss<f64>> {
        let (hidden, answers) = forward(student, &self.inputs);
        let error = answers - &self.answers;
        let slope = &error * (2.0 / error.len() as f64);
        let inner = slope.dot(&matrix(student, "out")) * hidden.mapv(|h| 1.0 - h * h);
        Ok(Loss::new(mean_square(&error))
            .gradient("out", slope.t().dot(&hidden))
            .gradient("in", inner.t().dot(&self.inputs))
            .gradient("b", inner.sum_axis(Axis(0))))
    }

    fn held_out(&mut self, student: &Model<f64>) -> Result<Option<f64>> {
        let Some((unseen, right)) = &self.unseen else { return Ok(None) };
        Ok(Some(mean_square(&(forward(student, unseen).1 - right))))
    }
}

fn three() -> Training {
    Training::new(Uniform::new(Bits::new(3).unwrap()).range(Range::Mse)).steps(400).learning_rate(1e-2)
}

#[test]
fn the_gradients_of_these_tests_are_right() {
    let (model, changed) =
        (model(), model().with_values("b", Array1::linspace(-0.3, 0.4, 10).into_dyn()).unwrap());
    let mut net = Net::of(&model);
    let loss = net.loss(&changed, 0).unwrap();
    for (name, gradient) in loss.gradients() {
        for at in [0, 3, 7] {
            let moved = |by: f64| {
                let mut values = changed.parameter(name).unwrap().array().clone();
                values.as_slice_mut().unwrap()[at] += by;
                changed.clone().with_values(name, values).unwrap()
            };
            let [up, down] = [1e-6, -1e-6].map(|by| net.clone_loss(&moved(by)));
            let slope = (up - down) / 2e-6;
            assert!((slope - gradient.as_slice().unwrap()[at]).abs() < 1e-7, "{name} {at}");
        }
    }
}

impl Net {
    fn clone_loss(&self, student: &Model<f64>) -> f64 {
        mean_square(&(forward(student, &self.inputs).1 - &self.answers))
    }
}

#[test]
fn layers_make_good_what_others_lose() {
    let model = model();
    let group = GroupSize::new(4).unwrap();
    let uniform = Uniform::new(Bits::new(3).unwrap());
    for quantizer in
        [uniform, uniform.affine(), uniform.per_group(group), uniform.per_tensor(), uniform.f16_scales()]
    {
        let mut net = Net::of(&model);
        let training = Training::new(quantizer).steps(400).learning_rate(1e-2);
        let distilled = training.run(&model, &mut net).unwrap();
        let (nearest, best) = (distilled.held_out()[0].1, distilled.best());
        assert!(best < 0.5 * nearest, "{quantizer:?}: {nearest} {best}");
        let compressed = distilled.compressed();
        compressed.verify().unwrap();
        // What is stored is what was trained.
        let decoded = compressed.decode().unwrap();
        assert_eq!(net.held_out(&decoded).unwrap(), Some(best));
        assert_eq!(decoded.parameter("untouched").unwrap().values(), [1.0, 2.0]);
        assert!(decoded.parameter("b").unwrap().values().iter().all(|b| *b != 0.0));
    }
}

#[test]
fn pruned_weights_stay_zero() {
    let whole = model();
    let mut weights = whole.parameter("in").unwrap().array().clone();
    weights.iter_mut().filter(|w| w.abs() < 0.5).for_each(|w| *w = 0.0);
    let zeros = weights.iter().filter(|w| **w == 0.0).count();
    let pruned = whole.clone().with_values("in", weights.clone()).unwrap();
    for training in [three(), Training::new(Uniform::new(Bits::FOUR).affine()).steps(200).learning_rate(1e-2)]
    {
        let distilled = training.clone().run(&pruned, &mut Net::of(&whole)).unwrap();
        let decoded = distilled.compressed().array("in").unwrap();
        assert!(zeros > 20 && decoded.iter().zip(&weights).all(|(d, w)| *w != 0.0 || *d == 0.0));
        assert!(distilled.best() < 0.5 * distilled.held_out()[0].1);
        // In floats too.
        let distilled = training.exclude("in").run(&pruned, &mut Net::of(&whole)).unwrap();
        let trained = distilled.compressed().array("in").unwrap();
        assert!(trained.iter().zip(&weights).all(|(d, w)| (*w == 0.0) == (*d == 0.0)));
        assert!(trained != weights);
    }
}

#[test]
fn the_best_student_is_taken() {
    let model = model();
    // So fast that it does harm, and then no time to settle.
    let wild = three().steps(7).learning_rate(1.0).scale_rate(1.0).looks(7);
    let distilled = wild.run(&model, &mut Net::of(&model)).unwrap();
    let held_out = distilled.held_out();
    assert_eq!(held_out.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    let lowest = held_out.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
    assert_eq!(distilled.best(), lowest);
    assert!(distilled.best() <= held_out[0].1);
    assert!(distilled.to_string().contains("held out"));

    // Without samples held out, the last.
    let mut net = Net { unseen: None, ..Net::of(&model) };
    let distilled = three().steps(5).run(&model, &mut net).unwrap();
    assert!(distilled.held_out().is_empty() && distilled.best().is_nan());
    assert_eq!((distilled.step(), distilled.losses().len()), (5, 5));
    assert!(!distilled.to_string().contains("held out"));
}

#[test]
fn one_answer() {
    let run = || three().steps(50).run(&model(), &mut Net::of(&model())).unwrap().into_compressed();
    assert!(run() == run());
}

#[test]
fn scales_can_stand_still() {
    let model = model();
    let uniform = Uniform::new(Bits::FOUR);
    let fixed = Training::new(uniform).steps(20).scale_rate(0.0).run(&model, &mut Net::of(&model)).unwrap();
    let scales = |compressed: &crate::Compressed<f64>| match compressed.entry("in").unwrap().stored() {
        crate::compress::Stored::Quantized(tensor) => tensor.scales().to_vec(),
        _ => Vec::new(),
    };
    let compressor = crate::Compressor::builder().quantizer(uniform).build_for::<f64>().unwrap();
    let nearest = compressor.compress(&model, &compressor.evidence(&model)).unwrap();
    assert_eq!(scales(fixed.compressed()), scales(&nearest));
    assert_eq!(scales(&nearest).len(), 10);
}

/// What one wrong answer of a teacher leads to.
fn refused(answer: impl Fn(Loss<f64>) -> Loss<f64>) -> crate::Error {
    let model = model();
    let mut net = Net::of(&model);
    let mut wrong = |student: &Model<f64>, step: usize| {
        let loss = net.loss(student, step)?;
        Ok(if step == 2 { answer(loss) } else { loss })
    };
    three().run(&model, &mut wrong).unwrap_err()
}

fn with<F: Element>(loss: &Loss<F>, name: &str, gradient: ArrayD<F>) -> Loss<F> {
    let others = loss.gradients().filter(|(other, _)| *other != name);
    let kept = others.fold(Loss::new(loss.value()), |kept, (other, g)| kept.gradient(other, g.clone()));
    kept.gradient(name, gradient)
}

#[test]
fn wrong_answers_are_errors() {
    let cases = [
        (refused(|loss| loss.gradient("up", array![1.0])), ErrorKind::Name, "`up`"),
        (refused(|loss| loss.gradient("b", Array1::zeros(10))), ErrorKind::Name, "two gradients"),
        (refused(|loss| with(&loss, "in", Array2::zeros((8, 10)).into_dyn())), ErrorKind::Shape, "[10, 8]"),
        (refused(|loss| with(&loss, "b", array![f64::NAN].into_dyn())), ErrorKind::Shape, "`b`"),
        (
            refused(|loss| with(&loss, "out", Array2::from_elem((3, 10), f64::NAN).into_dyn())),
            ErrorKind::NotFinite,
            "`out`",
        ),
        (refused(|_| Loss::new(f64::INFINITY)), ErrorKind::NotFinite, "the loss is inf"),
        (refused(|_| Loss::new(1.0)), ErrorKind::MissingEvidence, "`in`"),
    ];
    for (error, kind, part) in cases {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(part) && text.contains("step 2 of 400"), "{text}");
    }
}

#[test]
fn settings_are_checked() {
    let model = model();
    let uniform = Uniform::new(Bits::FOUR);
    for (training, kind) in [
        (three().steps(0), ErrorKind::Setting),
        (three().looks(0), ErrorKind::Setting),
        (three().learning_rate(-1.0), ErrorKind::Setting),
        (three().learning_rate(f64::NAN), ErrorKind::Setting),
        (three().scale_rate(2.0), ErrorKind::Setting),
        (three().exclude("up"), ErrorKind::Name),
        (three().exclude("in").exclude("out"), ErrorKind::Setting),
        (Training::new(Uniform::new(Bits::new(1).unwrap())), ErrorKind::Setting),
        (Training::new(uniform.per_model()), ErrorKind::Unsupported),
    ] {
        let error = training.run(&model, &mut Net::of(&model)).unwrap_err();
        assert_eq!(error.kind(), kind, "{training:?}: {error}");
    }
}

#[test]
fn a_training_that_diverges_is_an_error() {
    let model = Model::builder().parameter(Parameter::linear("fc", array![[1.0f32, 3e38]])).build().unwrap();
    let mut teacher = |student: &Model<f32>, _: usize| {
        let shape = student.parameter("fc")?.shape().to_vec();
        Ok(Loss::new(1.0).gradient("fc", ArrayD::from_elem(shape, -1.0)))
    };
    let error =
        Training::new(Uniform::int8()).steps(100).scale_rate(1.0).run(&model, &mut teacher).unwrap_err();
    assert!(error.to_string().contains("`fc`"), "{error}");
}
