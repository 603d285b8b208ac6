//! Blocks of ggml, against one read of the weights.
//!
//! `--once` is for `benches/peers/ggml_quantize.py`: it quantizes `weights.f32` of the folder `NIWAKI_PEER` once to each
//! format, says how long that took, and writes the blocks beside it.

mod common;

use std::path::Path;
use std::time::Instant;

use criterion::{Criterion, criterion_group};
use ndarray::Array2;
use niwaki::quantize::{BlockFormat, Ggml, Quantizer};
use niwaki::{Layer, Parameter, Result};

const FORMATS: [BlockFormat; 6] = [
    BlockFormat::Q8_0,
    BlockFormat::Q4_0,
    BlockFormat::Q4_1,
    BlockFormat::Q5_0,
    BlockFormat::Q4K,
    BlockFormat::Q6K,
];

fn blocks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("blocks");
    for [rows, columns] in common::shapes() {
        // Whole blocks.
        let shape = [rows, columns.next_multiple_of(256)];
        let parameter = Parameter::linear("fc", common::weights(shape));
        for format in FORMATS {
            common::beside(
                &mut group,
                &format.to_string(),
                shape,
                || common::read(parameter.values()),
                || (),
                |()| Ggml::new(format).quantize(&Layer::new(&parameter)),
            );
        }
    }
    group.finish();
}

fn once(folder: &Path) -> Result<()> {
    let bytes = std::fs::read(folder.join("weights.f32"))?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let [rows, _] = common::shapes()[0];
    let columns = values.len() / rows;
    let weights = Array2::from_shape_vec((rows, columns), values).unwrap_or_default();
    let parameter = Parameter::linear("fc", weights);
    for format in FORMATS {
        let start = Instant::now();
        let tensor = Ggml::new(format).quantize(&Layer::new(&parameter))?;
        println!("seconds {format} {}", start.elapsed().as_secs_f64());
        if let Some(part) = tensor.parts().first() {
            std::fs::write(folder.join(format!("{format}.blocks")), &part.bytes)?;
        }
    }
    Ok(())
}

criterion_group!(benches, blocks);

fn main() {
    match std::env::var("NIWAKI_PEER") {
        Ok(folder) if std::env::args().any(|arg| arg == "--once") => {
            once(Path::new(&folder)).expect("the weights can be quantized");
        }
        _ => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}
