//! Batches of a convolution taken in, against one read of the batch, or for Gram matrices against the convolution
//! itself, as a product with patches that are already there.

mod common;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::{Array2, Array4};
use niwaki::{Evidence, Geometry, Model, Needs, Parameter};
use rayon::prelude::*;

/// A 3×3 convolution, as many filters as channels, and a batch of what it reads.
struct Layer {
    model: Model<f32>,
    batch: Array4<f32>,
    patches: Vec<Array2<f32>>,
    filters: Array2<f32>,
}

impl Layer {
    fn new(samples: usize, channels: usize, side: usize) -> Self {
        let filters = common::weights([channels, channels * 9]);
        let weight =
            Array4::from_shape_fn((channels, channels, 3, 3), |(o, i, y, x)| filters[[o, i * 9 + y * 3 + x]]);
        let conv = Parameter::conv("conv", weight, Geometry::new().padding(1));
        let model = Model::builder().parameter(conv).build().expect("one convolution is a model");
        let values = common::weights([samples * channels, side * side]).into_raw_vec_and_offset().0;
        let batch = Array4::from_shape_vec((samples, channels, side, side), values);
        let batch = batch.expect("as many values as the shape says").mapv(|x| x.max(0.0));
        let patches = vec![common::weights([side * side, channels * 9]); samples];
        Self { model, batch, patches, filters }
    }

    /// The products of the convolution, on all threads.
    fn run(&self) {
        let filters = self.filters.t();
        self.patches.par_iter().for_each(|patches| drop(black_box(patches.dot(&filters))));
    }

    fn evidence(&self, needs: Needs) -> Evidence<f32> {
        Evidence::new(&self.model, needs)
    }
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evidence");
    let sizes =
        if common::is_test() { vec![(2, 4, 6)] } else { vec![(16, 64, 28), (16, 16, 112), (16, 256, 7)] };
    for (samples, channels, side) in sizes {
        let layer = Layer::new(samples, channels, side);
        let shape = [samples * channels, side * side];
        let values = layer.batch.as_slice().unwrap_or_default();
        let (batch, read, run) = (&layer.batch, || common::read(values), || layer.run());
        for (name, needs) in
            [("moments", Needs::MOMENTS), ("maps", Needs::MAPS), ("output gram", Needs::OUTPUT_GRAM)]
        {
            let record = |e: &mut Evidence<f32>| e.record_output("conv", batch);
            common::beside(
                &mut group,
                &format!("output, {name}"),
                shape,
                read,
                || layer.evidence(needs),
                record,
            );
        }
        let record = |e: &mut Evidence<f32>| e.record_input("conv", batch);
        common::beside(&mut group, "input, moments", shape, read, || layer.evidence(Needs::MOMENTS), record);
        common::beside(&mut group, "input, gram", shape, run, || layer.evidence(Needs::GRAM), record);
    }
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);
