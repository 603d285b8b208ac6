//! The property: a model with units removed, and the same model with those units zeroed.

use std::collections::HashMap;

use ndarray::{Array1, ArrayD, Axis};
use niwaki::importance::{Importance, Score, Scores};
use niwaki::prune::{Channel, Plan, Pruner, Sparsity};
use niwaki::{Evidence, Kind, Layer, Model, Needs, NormRole, Result};
use proptest::collection::vec;
use proptest::strategy::Strategy;

/// Indices that go, for each coupling by name.
pub(crate) type Gone = Vec<(String, Vec<usize>)>;

/// For each index of each coupling whether it goes; [`gone`] reads it.
pub(crate) fn choices() -> impl Strategy<Value = Vec<bool>> {
    vec(proptest::bool::ANY, 64)
}

/// What goes by these choices; of each coupling at least one index stays.
pub(crate) fn gone(model: &Model<f32>, choices: &[bool]) -> Gone {
    let mut choices = choices.iter().copied().cycle();
    let mut one = |size: usize| -> Vec<usize> {
        let chosen: Vec<usize> = (0..size).filter(|_| choices.next().unwrap_or(false)).collect();
        if chosen.len() == size { chosen[1..].to_vec() } else { chosen }
    };
    model.couplings().iter().map(|c| (c.name().to_owned(), one(c.size()))).collect()
}

/// The same choice by hand.
pub(crate) fn these(gone: &[(&str, &[usize])]) -> Gone {
    gone.iter().map(|&(name, indices)| (name.to_owned(), indices.to_vec())).collect()
}

/// Scores 0 for positions that should go and 1 for the rest, along every axis.
#[derive(Debug)]
struct Chosen(HashMap<(String, usize), Vec<usize>>);

impl Importance<f32> for Chosen {
    fn score(&self, layer: &Layer<'_, f32>) -> Result<Score<f32>> {
        let shape = layer.parameter().shape();
        let mut score = Score::elements(ArrayD::ones(shape));
        for (axis, &len) in shape.iter().enumerate() {
            let mut along = Array1::ones(len);
            let low = self.0.get(&(layer.name().to_owned(), axis));
            low.into_iter().flatten().for_each(|&at| along[at] = 0.0);
            score = score.along(axis, along);
        }
        Ok(score)
    }
}

/// A plan by which exactly these indices go.
pub(crate) fn plan(model: &Model<f32>, gone: &Gone) -> Result<Plan> {
    let mut low: HashMap<(String, usize), Vec<usize>> = HashMap::new();
    let mut pruner = Channel::new(Sparsity::new(0.0)?);
    for (name, indices) in gone {
        let coupling = model.coupling(name)?;
        for slot in coupling.slots() {
            let positions = low.entry((slot.parameter().to_owned(), slot.axis())).or_default();
            for &i in indices {
                positions.extend(slot.positions(i));
            }
        }
        pruner = pruner.set(name, Sparsity::new(indices.len() as f64 / coupling.size() as f64)?);
    }
    let scores = Scores::compute(&Chosen(low), model, &Evidence::new(model, Needs::MOMENTS))?;
    pruner.plan(model, &scores)
}

/// The model with the units' weights, biases, scales and shifts set to 0, so that they answer 0.
fn zeroed(model: &Model<f32>, gone: &Gone) -> Result<Model<f32>> {
    let mut zeroed = model.clone();
    for (name, indices) in gone {
        for slot in model.coupling(name)?.slots() {
            let parameter = zeroed.parameter(slot.parameter())?;
            let statistics =
                matches!(parameter.kind(), Kind::Norm { role: NormRole::Mean | NormRole::Variance, .. });
            if statistics || slot.axis() != parameter.out_axis() {
                continue;
            }
            let mut array = parameter.array().clone();
            for &position in indices.iter().flat_map(|&i| slot.positions(i)) {
                array.index_axis_mut(Axis(slot.axis()), position).fill(0.0);
            }
            zeroed = zeroed.with_values(slot.parameter(), array)?;
        }
    }
    Ok(zeroed)
}

/// The smaller model and the zeroed one. Checks that the model itself stays as it was, that every axis loses
/// exactly its positions, and that couplings shrink with it.
pub(crate) fn removed_and_zeroed(model: &Model<f32>, gone: &Gone) -> Result<(Model<f32>, Model<f32>)> {
    let before = model.clone();
    let plan = plan(model, gone)?;
    let smaller = plan.apply(model)?;
    assert_eq!(*model, before, "the model given has changed");
    let mut shapes: HashMap<String, Vec<usize>> =
        model.parameters().iter().map(|p| (p.name().to_owned(), p.shape().to_vec())).collect();
    for (name, indices) in gone {
        let (old, new) = (model.coupling(name)?, smaller.coupling(name)?);
        assert_eq!(new.size(), old.size() - indices.len());
        for slot in old.slots() {
            let lost: usize = indices.iter().map(|&i| slot.positions(i).len()).sum();
            shapes.entry(slot.parameter().to_owned()).and_modify(|shape| shape[slot.axis()] -= lost);
        }
    }
    for parameter in smaller.parameters() {
        assert_eq!(parameter.shape(), shapes[parameter.name()], "{}", parameter.name());
    }
    for coupling in smaller.couplings() {
        for slot in coupling.slots() {
            let len = smaller.parameter(slot.parameter())?.shape()[slot.axis()];
            assert!((0..coupling.size()).flat_map(|i| slot.positions(i)).all(|&p| p < len));
        }
    }
    Ok((smaller, zeroed(model, gone)?))
}

/// Runs both.
pub(crate) fn removing_is_zeroing(
    model: &Model<f32>,
    gone: &Gone,
    forward: impl Fn(&Model<f32>) -> ArrayD<f32>,
) -> Result<()> {
    let (smaller, zeroed) = removed_and_zeroed(model, gone)?;
    assert_close(&forward(&smaller), &forward(&zeroed));
    Ok(())
}

/// Equal to 1e-5 of the largest value.
pub(crate) fn assert_close(a: &ArrayD<f32>, b: &ArrayD<f32>) {
    assert_eq!(a.shape(), b.shape());
    let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= 1e-5 * largest, "{x} and {y} differ in {a} and {b}");
    }
}
