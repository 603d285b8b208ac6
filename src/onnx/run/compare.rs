//! [`compare`]: how far one graph's answers are from another's, and what it saves.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use ndarray::ArrayD;

use crate::onnx::run::batches::Batches;
use crate::onnx::run::inputs::{Inputs, Named};
use crate::onnx::run::runner::Runner;
use crate::onnx::{Graph, Values};
use crate::{Error, Result};

/// Times that a graph is timed at most, and for how long both together.
const TURNS: usize = 50;
const LONG: Duration = Duration::from_secs(2);

/// What [`compare`] found.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Each output that both graphs have, in the order of the first one's.
    pub outputs: Vec<OutputComparison>,
    /// Samples that were run.
    pub samples: usize,
    /// Bytes of each graph as a file, external data included.
    pub bytes: [u64; 2],
    /// Milliseconds that each graph takes for a single sample (a batch of the graph's own size where that is
    /// fixed): the median of runs in turns.
    pub milliseconds: [f64; 2],
}

/// How far one output is from the other graph's.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct OutputComparison {
    /// Its name.
    pub name: String,
    /// The mean over samples of the cosine between the two answers, all numbers of a sample taken as one vector.
    pub mean_cosine: f64,
    /// The least over samples.
    pub least_cosine: f64,
    /// The largest difference between two numbers.
    pub largest_difference: f64,
    /// The share of rows along the last axis whose largest number is in the same place; `None` where that axis has
    /// one number.
    pub top1_agreement: Option<f64>,
}

/// Runs two graphs on the same samples and compares outputs of the same name.
///
/// Samples are run one at a time, by rten with all its optimizations, on all cores. Two answers that are both all 0
/// have cosine 1, 0 if only one is.
///
/// ```
/// use niwaki::onnx::{Graph, Inputs, compare};
///
/// # fn main() -> niwaki::Result<()> {
/// # #[cfg(feature = "npz")] {
/// let graph = Graph::read("examples/data/digits.onnx")?;
/// let comparison = compare(&graph, &graph, &Inputs::read("examples/data/digits-test.npz")?)?;
/// println!("{comparison}");
/// assert_eq!(comparison.samples, 360);
/// assert_eq!(comparison.outputs[0].largest_difference, 0.0);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Inputs that do not fit, operators that cannot be run, no output in common, or outputs of different shapes.
pub fn compare(a: &Graph, b: &Graph, inputs: &Inputs) -> Result<Comparison> {
    let batches = [inputs.fit(a)?.at_most(1, a), inputs.fit(b)?.at_most(1, b)];
    if batches[0].len() != batches[1].len() {
        return Err(Error::shape("the two graphs take batches of different sizes"));
    }
    let others = b.outputs();
    let names: Vec<String> =
        a.outputs().into_iter().map(|o| o.name).filter(|n| others.iter().any(|o| o.name == *n)).collect();
    if names.is_empty() {
        return Err(Error::name("the two graphs have no output of the same name"));
    }
    let runners = [Runner::new(a)?, Runner::new(b)?];
    let mut sums: Vec<Sums> = names.iter().map(|_| Sums::default()).collect();
    let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
    for batch in 0..batches[0].len() {
        let first = runners[0].run(&batches[0].get(batch), &outputs)?;
        let second = runners[1].run(&batches[1].get(batch), &outputs)?;
        for (((sums, name), x), y) in sums.iter_mut().zip(&outputs).zip(&first).zip(&second) {
            sums.add(name, &numbers(x), &numbers(y), batches[0].samples_of(batch))?;
        }
    }
    let bytes = [a.to_bytes()?.len() as u64, b.to_bytes()?.len() as u64];
    let milliseconds = time(&runners, &batches, &outputs)?;
    let outputs = sums.into_iter().zip(names).map(|(sums, name)| sums.finish(name)).collect();
    Ok(Comparison { outputs, samples: batches[0].samples(), bytes, milliseconds })
}

impl Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for o in &self.outputs {
            let (name, mean, least, far) = (&o.name, o.mean_cosine, o.least_cosine, o.largest_difference);
            write!(f, "{name}: cosine {mean:.6} (least {least:.6}), largest difference {far:.3e}")?;
            if let Some(share) = o.top1_agreement {
                write!(f, ", same top 1 {:.2} %", 100.0 * share)?;
            }
            writeln!(f)?;
        }
        let ([x, y], [s, t]) = (self.bytes, self.milliseconds);
        write!(f, "{} samples; {x} -> {y} bytes; {s:.3} -> {t:.3} ms", self.samples)
    }
}

/// Sums over samples of one output.
#[derive(Debug, Default)]
struct Sums {
    samples: usize,
    cosines: f64,
    least: Option<f64>,
    far: f64,
    rows: usize,
    agree: usize,
    wide: bool,
}

impl Sums {
    fn add(&mut self, name: &str, x: &ArrayD<f32>, y: &ArrayD<f32>, samples: usize) -> Result<()> {
        if x.shape() != y.shape() {
            let (x, y) = (x.shape(), y.shape());
            return Err(Error::shape(format!("output `{name}`: {x:?} and {y:?}")));
        }
        let width = x.shape().last().copied().unwrap_or(1);
        let (x, y) = (x.iter().copied().collect::<Vec<f32>>(), y.iter().copied().collect::<Vec<f32>>());
        self.agree(&x, &y, width);
        let far = x
            .iter()
            .zip(&y)
            .map(|(a, b)| if a.total_cmp(b).is_eq() { 0.0 } else { f64::from((a - b).abs()) });
        // NaN on one side only is as far as can be.
        self.far = far.map(|d| if d.is_nan() { f64::INFINITY } else { d }).fold(self.far, f64::max);
        // Several samples are run at once only where the first axis is that of the batch.
        let each = (x.len() / samples.max(1)).max(1);
        for (x, y) in x.chunks(each).zip(y.chunks(each)) {
            let cosine = cosine(x, y);
            self.samples += 1;
            self.cosines += cosine;
            self.least = Some(self.least.map_or(cosine, |least| least.min(cosine)));
        }
        Ok(())
    }

    fn agree(&mut self, x: &[f32], y: &[f32], width: usize) {
        let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at);
        self.wide |= width > 1;
        for (x, y) in x.chunks_exact(width.max(1)).zip(y.chunks_exact(width.max(1))) {
            self.rows += 1;
            self.agree += usize::from(best(x) == best(y));
        }
    }

    fn finish(self, name: String) -> OutputComparison {
        OutputComparison {
            name,
            mean_cosine: self.cosines / self.samples.max(1) as f64,
            least_cosine: self.least.unwrap_or(1.0),
            largest_difference: self.far,
            top1_agreement: self.wide.then(|| self.agree as f64 / self.rows.max(1) as f64),
        }
    }
}

fn numbers(values: &Values) -> ArrayD<f32> {
    match values {
        Values::Float(array) => array.clone(),
        Values::Int(array) => array.mapv(|x| x as f32),
        Values::Bool(array) => array.mapv(|x| f32::from(u8::from(x))),
    }
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let (xx, yy) = (dot(x, x), dot(y, y));
    match (xx > 0.0, yy > 0.0) {
        (true, true) => (dot(x, y) / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0),
        (false, false) if xx.total_cmp(&yy).is_eq() => 1.0,
        _ => 0.0,
    }
}

/// The median time of each, run in turns on the first few batches.
fn time(runners: &[Runner; 2], batches: &[Batches; 2], outputs: &[&str]) -> Result<[f64; 2]> {
    let named: Vec<[Named; 2]> =
        (0..batches[0].len().min(TURNS)).map(|k| [batches[0].get(k), batches[1].get(k)]).collect();
    let mut times = [Vec::new(), Vec::new()];
    let start = Instant::now();
    for turn in 0..TURNS {
        // What ran just before must not always be the same.
        for side in [turn % 2, 1 - turn % 2] {
            let named = &named[turn % named.len()][side];
            let now = Instant::now();
            runners[side].run(named, outputs)?;
            times[side].push(now.elapsed().as_secs_f64() * 1e3);
        }
        if start.elapsed() > LONG && turn >= 2 {
            break;
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn differences_are_summed_over_samples() {
        let x = array![[1.0f32, 0.0], [0.0, 2.0]].into_dyn();
        let y = array![[1.0f32, 0.0], [2.0, 0.0]].into_dyn();
        let mut sums = Sums::default();
        sums.add("y", &x, &y, 2).unwrap();
        let found = sums.finish("y".into());
        assert_eq!((found.mean_cosine, found.least_cosine), (0.5, 0.0));
        assert_eq!((found.largest_difference, found.top1_agreement), (2.0, Some(0.5)));
        assert!(Sums::default().add("y", &x, &array![1.0f32].into_dyn(), 2).is_err());
        assert_eq!((cosine(&[0.0], &[0.0]), cosine(&[0.0], &[1.0])), (1.0, 0.0));
    }
}
