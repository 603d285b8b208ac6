//! Norms of channels, against one read of the weights.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use niwaki::importance::{Importance, Magnitude};
use niwaki::{Layer, Parameter};

fn norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("importance");
    for shape in common::shapes() {
        let rows = Parameter::linear("fc", common::weights(shape));
        let columns = rows.clone().axes(1, 0);
        for (axis, parameter) in [("output", &rows), ("input", &columns)] {
            for (norm, magnitude) in [("l1", Magnitude::l1()), ("l2", Magnitude::l2())] {
                let per_unit = |(): &mut ()| {
                    magnitude.score(&Layer::new(parameter)).map(|score| score.per_unit(parameter))
                };
                let name = format!("{norm} norms along the {axis} axis");
                common::beside(
                    &mut group,
                    &name,
                    shape,
                    || common::read(parameter.values()),
                    || (),
                    per_unit,
                );
            }
        }
    }
    group.finish();
}

criterion_group!(benches, norms);
criterion_main!(benches);
