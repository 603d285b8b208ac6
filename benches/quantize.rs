//! Ranges and codes, against one read of the weights.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use niwaki::quantize::{Quantizer, Uniform};
use niwaki::{Layer, Parameter};

fn int8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quantize");
    for shape in common::shapes() {
        let parameter = Parameter::linear("fc", common::weights(shape));
        common::beside(
            &mut group,
            "int8 per channel, range and codes",
            shape,
            || common::read(parameter.values()),
            || (),
            |()| Uniform::int8().quantize(&Layer::new(&parameter)),
        );
        let mut old = Uniform::int8().quantize(&Layer::new(&parameter)).ok();
        common::beside(
            &mut group,
            "int8 per channel, range and codes, memory kept",
            shape,
            || common::read(parameter.values()),
            || (),
            |()| {
                let memory = old.take().expect("the last run left one");
                old = Uniform::int8().requantize(&Layer::new(&parameter), memory).ok();
            },
        );
    }
    group.finish();
}

criterion_group!(benches, int8);
criterion_main!(benches);
