//! [`Migration`]: which scales shall move.

use std::collections::{HashMap, HashSet};

use crate::kernel::reduce;
use crate::model::{CoupledSlot, Passage};
use crate::{Element, Error, ErrorKind, Evidence, Model, Parameter, Result};

/// A factor for each unit of some passages. What makes the unit is divided by it and what reads the unit is multiplied
/// by it, so that the network answers as before.
///
/// ```
/// use ndarray::array;
/// use niwaki::rescale::Migration;
/// use niwaki::{Coupling, Model, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let hidden = Coupling::builder("hidden").outputs(["fc1", "fc1.bias"]).inputs(["fc2"]).homogeneous();
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc1", array![[8.0, 4.0], [1.0, 2.0]]))
///     .parameter(Parameter::bias("fc1.bias", array![2.0, 1.0], "fc1"))
///     .parameter(Parameter::linear("fc2", array![[1.0, 3.0]]))
///     .coupling(hidden)
///     .build()?;
/// let moved = Migration::new().scale("hidden", vec![4.0, 0.5])?.apply(&model)?;
/// assert_eq!(moved.parameter("fc1")?.values(), [2.0, 1.0, 2.0, 4.0]);
/// assert_eq!(moved.parameter("fc1.bias")?.values(), [0.5, 2.0]);
/// assert_eq!(moved.parameter("fc2")?.values(), [4.0, 1.5]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migration {
    /// By name of the passage.
    factors: Vec<(String, Vec<f64>)>,
}

impl Migration {
    /// Nothing moves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also divides the units of a passage by these factors; on a passage that has some already they multiply.
    ///
    /// # Errors
    /// A factor that is not a positive number, or another count than before.
    pub fn scale(mut self, passage: impl Into<String>, factors: Vec<f64>) -> Result<Self> {
        let passage = passage.into();
        if let Some((unit, factor)) = factors.iter().enumerate().find(|(_, f)| !(f.is_finite() && **f > 0.0))
        {
            return Err(Error::setting(format!(
                "passage `{passage}`: the factor {factor} of unit {unit} is not a positive number"
            )));
        }
        match self.factors.iter_mut().find(|(name, _)| *name == passage) {
            None => self.factors.push((passage, factors)),
            Some((_, old)) if old.len() == factors.len() => {
                old.iter_mut().zip(factors).for_each(|(old, factor)| *old *= factor);
            }
            Some((_, old)) => return Err(wrong_count(&passage, old.len(), factors.len())),
        }
        Ok(self)
    }

    /// This migration, then another of the model that it leaves.
    ///
    /// # Errors
    /// As [`scale`](Self::scale).
    pub fn then(self, next: Self) -> Result<Self> {
        next.factors.into_iter().try_fold(self, |all, (passage, factors)| all.scale(passage, factors))
    }

    /// Whether nothing moves.
    pub fn is_empty(&self) -> bool {
        self.factors.is_empty()
    }

    /// The factors of each passage, by name.
    pub fn factors(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.factors.iter().map(|(name, factors)| (name.as_str(), factors.as_slice()))
    }

    /// The model with its scales moved.
    ///
    /// # Errors
    /// A passage that is not in the model or has another size, or a weight that would leave the range of its type.
    pub fn apply<F: Element>(&self, model: &Model<F>) -> Result<Model<F>> {
        let mut moved = model.clone();
        for (passage, factors) in self.passages(model)? {
            for slot in passage.makers() {
                multiply(&mut moved, slot, |unit| factors[unit].recip())?;
            }
            for slot in passage.readers() {
                multiply(&mut moved, slot, |unit| factors[unit])?;
            }
        }
        Ok(moved)
    }

    /// What the evidence says of the model with its scales moved: inputs are scaled. Outputs, gradients and snapshots of
    /// weights that change, and outputs of weights whose units do, are no longer known.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_to_evidence<F: Element>(
        &self,
        model: &Model<F>,
        evidence: &Evidence<F>,
    ) -> Result<Evidence<F>> {
        let mut read: HashMap<&str, Vec<Vec<f64>>> = HashMap::new();
        let mut made = HashSet::new();
        for (passage, factors) in self.passages(model)? {
            made.extend(passage.makers().iter().filter_map(|slot| weight_of(model, slot)));
            for slot in passage.readers() {
                let parameter = model.parameter(slot.parameter())?;
                let inputs = read.entry(parameter.name()).or_insert_with(|| ones(parameter));
                divide_inputs(inputs, parameter, slot, factors);
            }
        }
        Ok(evidence.rescaled(&read, &made))
    }

    fn passages<'a, F: Element>(&'a self, model: &'a Model<F>) -> Result<Vec<(&'a Passage, &'a [f64])>> {
        let of = |(name, factors): &'a (String, Vec<f64>)| {
            let passage = model.passage(name)?;
            if passage.size() == factors.len() {
                Ok((passage, factors.as_slice()))
            } else {
                Err(wrong_count(name, passage.size(), factors.len()))
            }
        };
        self.factors.iter().map(of).collect()
    }
}

fn wrong_count(passage: &str, size: usize, factors: usize) -> Error {
    Error::shape(format!("passage `{passage}` has {size} units, not {factors}"))
}

/// The weight whose outputs a maker is part of.
fn weight_of<'a, F: Element>(model: &'a Model<F>, slot: &CoupledSlot) -> Option<&'a str> {
    let parameter = model.find(slot.parameter())?;
    match parameter.kind() {
        crate::Kind::Bias { of } | crate::Kind::Norm { of: Some(of), .. } => Some(of),
        kind => kind.is_weight().then(|| parameter.name()),
    }
}

/// Multiplies the positions of each unit.
fn multiply<F: Element>(
    model: &mut Model<F>,
    slot: &CoupledSlot,
    factor: impl Fn(usize) -> f64,
) -> Result<()> {
    let shape = model.parameter(slot.parameter())?.shape();
    let len = shape.get(slot.axis()).copied().unwrap_or(1);
    let inner: usize = shape.iter().skip(slot.axis() + 1).product();
    let mut factors = vec![1.0; len];
    for (unit, positions) in slot.all_positions().iter().enumerate() {
        for &position in positions {
            factors[position] *= factor(unit);
        }
    }
    let values = model.values_mut(slot.parameter())?;
    for (at, run) in values.chunks_exact_mut(inner.max(1)).enumerate() {
        let factor = factors[at % len.max(1)];
        for w in run {
            *w = F::narrow(w.widen() * factor);
        }
    }
    match reduce::first_not_finite(values) {
        None => Ok(()),
        Some(at) => Err(Error::new(
            ErrorKind::NotFinite,
            format!("parameter `{}`: the value at flat index {at} leaves its range", slot.parameter()),
        )),
    }
}

/// A factor for each input channel of each group of a weight.
fn ones<F: Element>(parameter: &Parameter<F>) -> Vec<Vec<f64>> {
    vec![vec![1.0; parameter.fan_in() / parameter.taps().max(1)]; parameter.groups()]
}

/// What is read shrinks by the factors of its units.
fn divide_inputs<F: Element>(
    inputs: &mut [Vec<f64>],
    parameter: &Parameter<F>,
    slot: &CoupledSlot,
    factors: &[f64],
) {
    let per_group = parameter.shape()[parameter.out_axis()] / parameter.groups();
    for (positions, factor) in slot.all_positions().iter().zip(factors) {
        if parameter.in_axis() == Some(slot.axis()) {
            for group in inputs.iter_mut() {
                for &position in positions {
                    group[position] /= factor;
                }
            }
            continue;
        }
        // Rows of a convolution whose groups read one channel each.
        let groups: HashSet<usize> = positions.iter().map(|p| p / per_group).collect();
        for group in groups {
            inputs[group].iter_mut().for_each(|x| *x /= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array1, Array2, Axis, array};

    use super::*;
    use crate::prune::{Channel, Plan, Pruner, Sparsity, Then};
    use crate::rescale::{Equalize, Rescale};
    use crate::{Coupling, Kind, Needs, NormRole, Slot, importance};

    fn wave(shape: (usize, usize), step: f64) -> Array2<f64> {
        Array::from_shape_fn(shape, |(i, j)| ((i * 5 + j + 1) as f64 * step).sin() * (1.0 + i as f64))
    }

    fn vector(len: usize, step: f64) -> Array1<f64> {
        (0..len).map(|k| 1.0 + 0.5 * (k as f64 * step).sin()).collect()
    }

    fn norm(name: &str, values: Array1<f64>, role: NormRole) -> Parameter<f64> {
        Parameter::new(name, values, Kind::Norm { role, of: Some("fc1".into()) })
    }

    /// fc1, batch norm, `ReLU`, fc2 (stored [in, out]), fc3 of that twice.
    fn network() -> Model<f64> {
        Model::builder()
            .parameter(Parameter::linear("fc1", wave((4, 3), 0.7)))
            .parameter(Parameter::bias("fc1.bias", vector(4, 1.1), "fc1"))
            .parameter(norm("scale", vector(4, 0.9), NormRole::Scale))
            .parameter(norm("shift", vector(4, 0.6), NormRole::Shift))
            .parameter(norm("mean", vector(4, 0.4), NormRole::Mean))
            .parameter(norm("variance", vector(4, 0.3), NormRole::Variance))
            .parameter(Parameter::linear("fc2", wave((4, 2), 1.3)).axes(1, 0))
            .parameter(Parameter::bias("fc2.bias", vector(2, 0.8), "fc2"))
            .parameter(Parameter::linear("fc3", wave((3, 4), 0.4)))
            .coupling(
                Coupling::builder("hidden")
                    .outputs(["fc1", "fc1.bias", "scale", "shift", "mean", "variance"])
                    .inputs(["fc2"])
                    .homogeneous(),
            )
            .coupling(
                Coupling::builder("twice")
                    .outputs(["fc2", "fc2.bias"])
                    .slot(Slot::input("fc3").copies(2))
                    .homogeneous(),
            )
            .build()
            .unwrap()
    }

    fn matrix(model: &Model<f64>, name: &str) -> Array2<f64> {
        model.parameter(name).unwrap().array().clone().into_dimensionality().unwrap()
    }

    fn row(model: &Model<f64>, name: &str) -> Array1<f64> {
        model.parameter(name).unwrap().array().clone().into_dimensionality().unwrap()
    }

    /// What each layer reads, and the answer.
    fn forward(model: &Model<f64>, x: &Array2<f64>) -> [Array2<f64>; 4] {
        let row = |name| row(model, name);
        let y = x.dot(&matrix(model, "fc1").t()) + &row("fc1.bias");
        let spread = row("variance").mapv(|v| (v + 1e-3).sqrt());
        let y = ((y - &row("mean")) / &spread * &row("scale") + &row("shift")).mapv(|x| x.max(0.0));
        let z = (y.dot(&matrix(model, "fc2")) + &row("fc2.bias")).mapv(|x| x.max(0.1 * x));
        let zz = ndarray::concatenate(Axis(1), &[z.view(), z.view()]).unwrap();
        let answer = zz.dot(&matrix(model, "fc3").t());
        [x.clone(), y, zz, answer]
    }

    fn evidence(model: &Model<f64>, x: &Array2<f64>) -> Evidence<f64> {
        let [one, two, three, _] = forward(model, x);
        let mut evidence = Evidence::new(model, Needs::GRAM);
        for (name, x) in [("fc1", one), ("fc2", two), ("fc3", three)] {
            evidence.record_input(name, &x).unwrap();
        }
        evidence
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>) {
        let size = a.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12 * size), "{a} {b}");
    }

    #[test]
    fn the_network_answers_as_before() {
        let (model, x) = (network(), wave((9, 3), 0.37));
        let seen = evidence(&model, &x);
        let migration = Equalize::new().plan(&model, &seen).unwrap();
        assert!(migration.factors().flat_map(|(_, f)| f).any(|f| (f - 1.0).abs() > 0.1));
        let moved = migration.apply(&model).unwrap();
        close(&forward(&model, &x)[3], &forward(&moved, &x)[3]);
        // The norm takes the factor, what stands before it stays.
        for name in ["fc1", "fc1.bias", "mean", "variance"] {
            assert_eq!(moved.parameter(name).unwrap(), model.parameter(name).unwrap());
        }
        let (foretold, again) = (migration.apply_to_evidence(&model, &seen).unwrap(), evidence(&moved, &x));
        for name in ["fc1", "fc2", "fc3"] {
            let gram = |e: &Evidence<f64>| e.layer(&moved, name).unwrap().gram(0).unwrap().clone();
            close(&gram(&foretold), &gram(&again));
            let mean = |e: &Evidence<f64>| e.layer(&moved, name).unwrap().inputs().unwrap().mean(0);
            close(&mean(&foretold).insert_axis(Axis(0)), &mean(&again).insert_axis(Axis(0)));
        }
    }

    #[test]
    fn scales_move_after_units_went() {
        let (model, x) = (network(), wave((9, 3), 0.37));
        let plan = Plan::removing(&model, "hidden", &[1]).unwrap();
        let cut = plan.apply(&model).unwrap();
        assert_eq!(cut.passage("hidden").unwrap().size(), 3);
        let seen = Evidence::new(&cut, Needs::MOMENTS);
        let moved = Equalize::new().plan(&cut, &seen).unwrap().apply(&cut).unwrap();
        assert_ne!(moved, cut);
        close(&forward(&cut, &x)[3], &forward(&moved, &x)[3]);
        let scores = importance::Scores::compute(&importance::Magnitude::l2(), &moved, &seen).unwrap();
        assert!(Channel::new(Sparsity::new(0.5).unwrap()).plan(&moved, &scores).is_ok());
    }

    #[test]
    fn one_after_the_other() {
        let (model, x) = (network(), wave((9, 3), 0.37));
        let twice = Then::new(Equalize::new().iterations(1), Equalize::new());
        let both = twice.plan(&model, &evidence(&model, &x)).unwrap();
        close(&forward(&model, &x)[3], &forward(&both.apply(&model).unwrap(), &x)[3]);
        assert_eq!(both.factors().count(), 2);
    }

    #[test]
    fn what_cannot_be_moved() {
        let model = network();
        let apply = |name: &str, factors| Migration::new().scale(name, factors).unwrap().apply(&model);
        assert!(apply("none", vec![1.0]).is_err() && apply("hidden", vec![1.0]).is_err());
        assert!(Migration::new().scale("x", vec![0.0]).is_err());
        assert!(Migration::new().scale("x", vec![f64::NAN]).is_err());
        let huge = Migration::new().scale("twice", vec![1e-300, 1.0]).unwrap();
        let huge = huge.scale("twice", vec![1e-300, 1.0]);
        assert!(huge.and_then(|huge| huge.apply(&model)).is_err());
        // A recurrent cell, and a norm between weights of one coupling.
        let cell = Model::<f32>::builder()
            .parameter(Parameter::recurrent("cell", Array::ones((4, 3)), 4))
            .parameter(Parameter::linear("fc", Array::ones((2, 1))))
            .coupling(Coupling::builder("hidden").outputs(["cell"]).inputs(["fc"]).homogeneous());
        assert!(cell.build().unwrap_err().to_string().contains("the hidden units of `cell`"));
        let between = Model::<f32>::builder()
            .parameter(Parameter::linear("a", array![[1.0], [2.0]]))
            .parameter(Parameter::norm("norm", array![1.0, 1.0], NormRole::Scale))
            .parameter(Parameter::linear("b", array![[1.0, 2.0]]))
            .coupling(Coupling::builder("x").outputs(["a", "norm"]).inputs(["b"]).homogeneous());
        assert!(between.build().unwrap_err().to_string().contains("`norm`"));
    }

    #[test]
    fn a_depthwise_convolution_hands_on() {
        let conv = |name: &str, values: Vec<f32>, channels: usize, geometry| {
            let shape = (values.len() / channels, channels, 1);
            Parameter::conv(name, Array::from_shape_vec(shape, values).unwrap(), geometry)
        };
        let plain = crate::Geometry::new;
        let model = Model::<f32>::builder()
            .parameter(conv("a", vec![8.0, 1.0], 1, plain()))
            .parameter(conv("depth", vec![3.0, 5.0], 1, plain().groups(2)))
            .parameter(Parameter::bias("depth.bias", array![1.0f32, 1.0], "depth"))
            .parameter(conv("b", vec![2.0, 4.0], 2, plain()))
            .coupling(
                Coupling::builder("x").outputs(["a", "depth", "depth.bias"]).inputs(["b"]).homogeneous(),
            )
            .build()
            .unwrap();
        let moved = Migration::new().scale("x", vec![2.0, 0.5]).unwrap().apply(&model).unwrap();
        let values = |name: &str| moved.parameter(name).unwrap().values().to_vec();
        assert_eq!((values("a"), values("depth")), (vec![4.0, 2.0], vec![3.0, 5.0]));
        assert_eq!((values("depth.bias"), values("b")), (vec![0.5, 2.0], vec![4.0, 2.0]));
    }
}
