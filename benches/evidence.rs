//! Batches of a convolution taken in, against one read of the batch, or for Gram matrices against the convolution
//! itself, as a product with patches that are already there.
//!
//! `cargo bench --bench evidence -- --gram` takes in 16,384 inputs of 4096 columns, and holds the time against as many
//! multiplications in products of 1024 × 1024 matrices.

mod common;

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group};
use ndarray::linalg::general_mat_mul;
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

/// Gram matrix and products in turns, timed by hand.
fn gram() {
    let (rows, columns, side) = (16_384usize, 4096usize, 1024usize);
    let layer = Parameter::linear("fc", Array2::<f32>::zeros((1, columns)));
    let model = Model::builder().parameter(layer).build().expect("one linear layer is a model");
    let inputs = common::weights([rows, columns]);
    let matrix = common::weights([side, side]);
    // The matrix is symmetric: half of it needs to be computed.
    let products = (rows * columns / side * columns / side / side).div_ceil(2);
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        (0..products).into_par_iter().for_each_init(
            || Array2::zeros((side, side)),
            |product, _| general_mat_mul(1.0, &matrix, &matrix, 0.0, black_box(product)),
        );
        let floor = start.elapsed().as_secs_f64();
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        let start = Instant::now();
        evidence.record_input("fc", &inputs).expect("inputs fit the layer");
        let work = start.elapsed().as_secs_f64();
        drop(black_box(evidence));
        println!("gram {work:.2} s, products {floor:.2} s, {:.0} % of their speed", 100.0 * floor / work);
        ratios.push(floor / work);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median {:.0} %", 100.0 * ratios[2]);
}

criterion_group!(benches, record);

fn main() {
    if std::env::args().any(|arg| arg == "--gram") {
        gram();
    } else {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
