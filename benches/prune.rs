//! Thresholds found and masks applied, against one read and write of the weights.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use niwaki::importance::{Magnitude, Scores};
use niwaki::prune::{Mask, Pruner, Scope, Sparsity, Unstructured};
use niwaki::{Evidence, Model, Needs, Parameter, Result};

fn half(scope: Scope) -> Result<Unstructured> {
    Ok(Unstructured::new(Sparsity::new(0.5)?).scope(scope).include_ends())
}

/// From weights to pruned weights: the scores too.
fn prune(pruner: &Unstructured, model: &mut Model<f32>) -> Result<()> {
    let scores = Scores::compute(&Magnitude::l1(), model, &Evidence::new(model, Needs::MOMENTS))?;
    pruner.plan(model, &scores)?.apply_in_place(model)
}

fn unstructured(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prune");
    for shape in common::shapes() {
        let mut plain = common::weights(shape);
        let layer = Parameter::linear("fc", plain.clone());
        let model = Model::builder().parameter(layer).build().expect("one linear layer is a model");
        for (name, scope) in [("global half", Scope::Global), ("half of each row", Scope::PerRow)] {
            let pruner = half(scope).expect("a half is a sparsity");
            common::beside(
                &mut group,
                name,
                shape,
                || common::read_write(plain.as_slice_mut().unwrap_or_default()),
                || model.clone(),
                |model| prune(&pruner, model),
            );
        }
    }
    group.finish();
}

fn mask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mask");
    for shape in common::shapes() {
        let mut values = common::weights(shape).into_raw_vec_and_offset().0;
        let mut plain = values.clone();
        let mask = Mask::from_fn(&shape, |k| values[k] > 0.0);
        common::beside(
            &mut group,
            "mask applied in place",
            shape,
            || common::read_write(&mut plain),
            || (),
            |()| mask.apply(&mut values),
        );
    }
    group.finish();
}

criterion_group!(benches, mask, unstructured);
criterion_main!(benches);
