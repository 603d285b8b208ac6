//! Ranges by running the graph.

use std::borrow::Cow;

use ndarray::ArrayD;

use crate::kernel::reduce;
use crate::onnx::Graph;
use crate::onnx::integer::insert::GRID;
use crate::onnx::integer::{IntegerGraph, Qdq, TensorRanges};
use crate::onnx::run::{Inputs, Runner, Values};
use crate::quantize::{Importance, Piece, Range};
use crate::{Error, Result};

/// Bytes of the tensors that are asked for at a time.
const BYTES: usize = 64 << 20;
/// Numbers of a tensor by which a range is found.
const SAMPLE: usize = 1 << 16;

impl Qdq {
    /// Runs a graph on all samples and finds the ranges of the tensors that will have codes.
    ///
    /// # Errors
    /// Inputs that do not fit the graph, an operator that cannot be run, a tensor that is no array of floats or holds a
    /// number that is not finite.
    pub fn observe(&self, graph: &Graph, inputs: &Inputs) -> Result<TensorRanges> {
        let names = self.tensors(graph)?;
        if names.is_empty() {
            return Ok(TensorRanges::default());
        }
        let given: Vec<String> = graph.inputs().into_iter().map(|info| info.name).collect();
        let asked: Vec<&str> =
            names.iter().filter(|name| !given.contains(name)).map(String::as_str).collect();
        let runner = Runner::exact(graph)?;
        let single = inputs.fit(graph)?.at_most(1, graph);
        let bytes: usize =
            runner.run(&single.get(0), &asked)?.iter().map(|v| 4 * v.shape().iter().product::<usize>()).sum();
        let each = bytes / single.samples_of(0).max(1);
        let batches = inputs.fit(graph)?.at_most(BYTES / each.max(1), graph);
        let share = if self.range == Range::MinMax { 0 } else { (SAMPLE / batches.len()).max(1) };
        let mut seen: Vec<Seen> = names.iter().map(|_| Seen::default()).collect();
        for batch in 0..batches.len() {
            let reads = batches.get(batch);
            let mut made = runner.run(&reads, &asked)?.into_iter();
            for (name, seen) in names.iter().zip(&mut seen) {
                let made = if given.contains(name) {
                    reads.iter().find(|(input, _)| input == name).map(|(_, values)| values.clone())
                } else {
                    made.next()
                };
                let Some(made) = made else { continue };
                seen.add(floats(name, &made)?, share);
            }
        }
        let range = |(name, seen): (&String, Seen)| {
            let found = seen.range(self.range);
            let (low, high) = found.ok_or_else(|| {
                Error::unsupported(format!("tensor `{name}`: it holds a number that is not finite"))
            })?;
            Ok((name.clone(), low, high))
        };
        TensorRanges::new(names.iter().zip(seen).map(range).collect::<Result<Vec<_>>>()?)
    }

    /// [`observe`](Self::observe), then [`apply`](Self::apply).
    ///
    /// # Errors
    /// As these two.
    pub fn run(&self, graph: &Graph, inputs: &Inputs) -> Result<IntegerGraph> {
        self.apply(graph, &self.observe(graph, inputs)?)
    }
}

fn floats<'v>(name: &str, values: &'v Values) -> Result<&'v ArrayD<f32>> {
    let wrong = || Error::unsupported(format!("tensor `{name}`: {} have no codes", values.type_name()));
    values.floats().ok_or_else(wrong)
}

/// What was seen of a tensor.
#[derive(Debug, Default)]
struct Seen {
    low: f32,
    high: f32,
    broken: bool,
    /// numbers by which ranges are found
    sample: Vec<f32>,
}

impl Seen {
    /// Takes in all numbers of an array, and `share` of them as a sample.
    fn add(&mut self, array: &ArrayD<f32>, share: usize) {
        let own: Vec<f32>;
        let values = if let Some(values) = array.as_slice() {
            values
        } else {
            own = array.iter().copied().collect();
            &own
        };
        self.broken |= reduce::first_not_finite(values).is_some();
        let (low, high) = reduce::par_min_max(values);
        (self.low, self.high) = (self.low.min(low), self.high.max(high));
        if share > 0 {
            // An odd step does not stay on one channel where their number is even.
            let step = values.len().div_ceil(share) | 1;
            let start = self.sample.len() % step;
            self.sample.extend(values.iter().skip(start).step_by(step));
        }
    }

    /// The range; `None` when not all numbers were finite.
    fn range(mut self, range: Range) -> Option<(f32, f32)> {
        if self.broken {
            return None;
        }
        if range == Range::MinMax {
            return Some((self.low, self.high));
        }
        self.sample.extend([self.low, self.high]);
        let sample = Piece { values: Cow::Owned(self.sample), importance: Importance::Equal };
        let (low, high) = range.find(GRID, &[sample]);
        Some((low as f32, high as f32))
    }
}
