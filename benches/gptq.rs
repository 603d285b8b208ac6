//! GPTQ to int4 groups of 128 from a Gram matrix that is there, against the factorization and the products that it
//! cannot do without.
//!
//! `cargo bench --bench gptq -- --once` runs it once and, where `NIWAKI_PEER` names a folder, writes there what
//! `benches/peers/torch_gptq.py` compares.

mod common;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::{Criterion, criterion_group};
use ndarray::{Array2, Axis, Slice};
use niwaki::quantize::{Bits, Gptq, GroupSize, QuantizedTensor, Quantizer, Uniform};
use niwaki::{Evidence, Model, Needs, Parameter, Result};
use rayon::prelude::*;

/// A layer, and evidence of inputs that depend on each other.
struct Layer {
    model: Model<f32>,
    evidence: Evidence<f32>,
}

impl Layer {
    fn new(side: usize) -> Self {
        let parameter = Parameter::linear("fc", common::weights([side, side]));
        let model = Model::builder().parameter(parameter).build().expect("one linear layer is a model");
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        // Each input is the mean of its neighbours and of a few that all share.
        let noise = common::weights([2 * side, side]);
        let shared = noise.slice_axis(Axis(1), Slice::from(..side.div_ceil(64)));
        let mix = common::weights([side.div_ceil(64), side]);
        let inputs = shared.dot(&mix) * 400.0 + &noise;
        evidence.record_input("fc", &inputs).expect("inputs fit the layer");
        Self { model, evidence }
    }

    fn quantize(&self) -> Result<QuantizedTensor> {
        let groups = GroupSize::new(128)?;
        let quantizer = Uniform::new(Bits::FOUR).per_group(groups).rounding(Gptq::new());
        quantizer.quantize(&self.evidence.layer(&self.model, "fc")?)
    }
}

/// The products of all rows with half of the Gram matrix.
fn products(weights: &Array2<f32>) {
    let half = weights.slice_axis(Axis(1), Slice::from(..weights.ncols() / 2));
    let half = half.slice_axis(Axis(0), Slice::from(..)).to_owned();
    let multiply = |rows: ndarray::ArrayView2<'_, f32>| drop(black_box(rows.dot(&half)));
    (0..weights.nrows().div_ceil(256)).into_par_iter().for_each(|k| {
        multiply(weights.slice_axis(Axis(0), Slice::from(k * 256..((k + 1) * 256).min(weights.nrows()))));
    });
}

fn gptq(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gptq");
    for [side, _] in common::shapes().into_iter().take(1) {
        let layer = Layer::new(side);
        let weights = common::weights([side, side]);
        common::beside(
            &mut group,
            "int4, groups of 128",
            [side, side],
            || products(&weights),
            || (),
            |()| layer.quantize(),
        );
    }
    group.finish();
}

/// One run, timed by hand.
fn once(side: usize) -> Result<()> {
    let layer = Layer::new(side);
    let (start, busy) = (Instant::now(), processor());
    let tensor = layer.quantize()?;
    println!("seconds {}", start.elapsed().as_secs_f64());
    println!("processor {}", processor() - busy);
    println!("{:?}", tensor.outcome());
    let Ok(folder) = std::env::var("NIWAKI_PEER") else { return Ok(()) };
    let write = |name: &str, values: &mut dyn Iterator<Item = f32>| {
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        std::fs::write(Path::new(&folder).join(name), bytes)
    };
    write("weights.f32", &mut layer.model.parameter("fc")?.values().iter().copied())?;
    let gram = layer.evidence.layer(&layer.model, "fc")?.gram(0)?;
    write("gram.f32", &mut gram.iter().map(|&x| x as f32))?;
    write("decoded.f32", &mut tensor.decode::<f32>().iter().copied())?;
    Ok(())
}

/// Seconds of processor time so far, of all threads, where Linux tells them.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

criterion_group!(benches, gptq);

fn main() {
    if std::env::args().any(|arg| arg == "--once") {
        once(common::shapes()[0][0]).expect("the layer can be quantized");
    } else {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
