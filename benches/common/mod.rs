//! What every bench shares: weights, the floors that times are held against, and the run that sets them side by side.
//!
//! A floor is the least that any method could do: one plain read of the array with all threads, or one read and
//! write of it. Floor and work run in turns, so that what else the machine does hits both, and the ratio of their
//! medians is printed beside criterion's own figures.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Throughput};
use ndarray::Array2;
use rayon::prelude::*;

/// Elements that a thread takes at a time.
const CHUNK: usize = 1 << 16;

/// Whether this run only shows that the benches work (`cargo bench -- --test`, `cargo test --benches`).
pub(crate) fn is_test() -> bool {
    let args: Vec<String> = std::env::args().collect();
    args.iter().any(|a| a == "--test") || !args.iter().any(|a| a == "--bench")
}

/// Shapes of the matrices: 16.8 M and 100 M weights, a tiny one in a test run. `NIWAKI_BENCH_ROWS=4096,10000` names
/// the sides of square ones.
pub(crate) fn shapes() -> Vec<[usize; 2]> {
    let sides = match std::env::var("NIWAKI_BENCH_ROWS") {
        Ok(text) => text.split(',').filter_map(|side| side.trim().parse().ok()).collect(),
        Err(_) if is_test() => vec![64],
        Err(_) => vec![4096, 10_000],
    };
    sides.into_iter().map(|side| [side, side]).collect()
}

/// Weights that are spread as a trained layer's are: the sum of four uniform numbers, standard deviation 0.02.
pub(crate) fn weights([rows, columns]: [usize; 2]) -> Array2<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    Array2::from_shape_simple_fn((rows, columns), || {
        (uniform() + uniform() + uniform() + uniform()) * (0.02 * 1.732)
    })
}

/// One read of all values, on all threads.
pub(crate) fn read(values: &[f32]) {
    let xor = |chunk: &[f32]| chunk.iter().fold(0u32, |sum, x| sum ^ x.to_bits());
    black_box(values.par_chunks(CHUNK).map(xor).reduce(|| 0, |a, b| a ^ b));
}

/// One read and one write of all values, on all threads.
pub(crate) fn read_write(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|x| *x = -*x));
}

/// Times `work` under criterion, `floor` before each run of it, and prints the ratio of the medians.
///
/// `prepare` makes what `work` uses up; its time does not count, nor does that of dropping what `work` gives back.
pub(crate) fn beside<A, B>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    shape: [usize; 2],
    mut floor: impl FnMut(),
    mut prepare: impl FnMut() -> A,
    mut work: impl FnMut(&mut A) -> B,
) {
    let elements = (shape[0] * shape[1]) as u64;
    group.throughput(Throughput::ElementsAndBytes { elements, bytes: 4 * elements });
    group.sample_size(15).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let (mut floors, mut works) = (Vec::new(), Vec::new());
    group.bench_function(BenchmarkId::new(name, format!("{}x{}", shape[0], shape[1])), |bencher| {
        bencher.iter_custom(|times| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                let mut input = prepare();
                floors.push(time(&mut floor).0);
                let (spent, output) = time(|| work(&mut input));
                drop(black_box(output));
                works.push(spent);
                total += spent;
            }
            total
        });
    });
    // Nothing was run when a filter leaves the bench out.
    if let (Some([floor, low]), Some([work, quick])) = (middle_and_least(floors), middle_and_least(works)) {
        let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
        println!(
            "{name} {}x{}: {work:.2?}, floor {floor:.2?}, ratio {:.2} (best of each: {quick:.2?}, {low:.2?}, {:.2})",
            shape[0],
            shape[1],
            ratio(work, floor),
            ratio(quick, low)
        );
    }
}

fn time<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let output = f();
    (start.elapsed(), output)
}

fn middle_and_least(mut times: Vec<Duration>) -> Option<[Duration; 2]> {
    times.sort_unstable();
    Some([*times.get(times.len() / 2)?, *times.first()?])
}
