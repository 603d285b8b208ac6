//! [`LeastSquares`]: layers of a pruned graph solved again, each for what it reads there.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Debug};

use crate::onnx::run::batches::Batches;
use crate::onnx::run::inputs::Inputs;
use crate::onnx::run::job::{Job, Sides, try_out};
use crate::onnx::run::levels::levels;
use crate::onnx::run::observe::{Progress, arranged, fitting};
use crate::onnx::run::rows::{Reads, answers, pick};
use crate::onnx::run::runner::Runner;
use crate::onnx::run::uses::Uses;
use crate::onnx::trace::{Feed, LayerIo, Order, Traced};
use crate::recover::columns::Columns;
use crate::recover::{Recovery, Removal};
use crate::{Error, Kind, Model, Result};

/// Rows of each layer unless told otherwise.
const ROWS: usize = 40_000;

/// Solves the layers of a pruned graph again, in the order in which they run, so that each answers what it did in the
/// original, to what it reads now: errors of layers before are made good by those after.
///
/// For every unit of a layer that lost inputs or single weights, or that reads what such a layer changed, with X the
/// inputs of the pruned graph, recovered so far, and y the unit's answers in the original, before normalization and
/// activation,
///
/// ```text
/// min over w, c of ‖y − X·w − c‖² + λ·‖w − w₀‖²        (XᵀX + λ·I)·(w − w₀) = Xᵀ·(y − X·w₀)
/// ```
///
/// around the means, where c goes into the bias, or out of the running mean of the batch norm that directly follows;
/// without either it is 0. λ is [`ridge`](Self::ridge) (default 1e-4) times the mean diagonal of `XᵀX`; with few rows
/// (less than 20 for each input) it may be larger, up to 1e5 times: the one by which each half of the rows tells most
/// about the other. At most [`rows`](Self::rows) rows (default 40,000) are taken of each layer, spread evenly over
/// samples and positions, and summed in f64 batch by batch. A weight that is exactly 0 stays 0, groups of a convolution
/// are solved each on their own, and a unit that would answer worse keeps its weights.
///
/// The last layer of a residual branch is to answer y and what the other side of the sum lost: (y + the original's
/// other side) − (the pruned graph's).
///
/// Layers that do not depend on each other are solved in one pass over the samples, which runs only what they need; a
/// chain of n layers costs about n / 2 runs of both graphs on all samples. Left as they are: recurrent layers,
/// embeddings, weights in subgraphs, weights that several nodes read, and copies that blocks got of a shared weight.
/// The removal's evidence is not used and may be empty.
///
/// After He, Zhang, Sun: Channel pruning for accelerating very deep neural networks (2017), whose reconstruction goes
/// through the network in the same way.
///
/// ```
/// use niwaki::Compressor;
/// use niwaki::importance::Subset;
/// use niwaki::onnx::{Graph, Inputs, LeastSquares, Observer, compare};
/// use niwaki::prune::{Channel, Sparsity};
///
/// # fn main() -> niwaki::Result<()> {
/// # #[cfg(feature = "npz")] {
/// let traced = Graph::read("examples/data/digits.onnx")?.trace()?;
/// let inputs = Inputs::read("examples/data/digits-calibration.npz")?;
/// let compressor = Compressor::builder()
///     .importance(Subset::new())
///     .pruner(Channel::new(Sparsity::new(0.5)?))
///     .recovery(LeastSquares::new(&traced, &inputs))
///     .build()?;
/// let mut evidence = compressor.evidence(traced.model());
/// Observer::new(&traced).inputs(false).run(&inputs, &mut evidence)?;
/// let plan = compressor.plan(traced.model(), &evidence)?;
/// let model = compressor.prune(traced.model(), &evidence)?;
/// let smaller = traced.apply(&plan, &model)?;
///
/// let test = Inputs::read("examples/data/digits-test.npz")?;
/// let comparison = compare(traced.graph(), &smaller, &test)?;
/// assert!(comparison.outputs[0].mean_cosine > 0.9);
/// # }
/// # Ok(())
/// # }
/// ```
pub struct LeastSquares<'a> {
    traced: &'a Traced,
    inputs: &'a Inputs,
    ridge: f64,
    rows: usize,
    progress: Option<Box<dyn Fn(Progress) + Send + Sync + 'a>>,
}

impl<'a> LeastSquares<'a> {
    /// A ridge of 1e-4 and 40,000 rows.
    pub fn new(traced: &'a Traced, inputs: &'a Inputs) -> Self {
        Self { traced, inputs, ridge: 1e-4, rows: ROWS, progress: None }
    }

    /// How strongly weights are held where they were, as a multiple of the mean square of an input: finite, at
    /// least 0.
    pub fn ridge(self, ridge: f64) -> Self {
        Self { ridge, ..self }
    }

    /// Rows of each layer; at least 1.
    pub fn rows(self, rows: usize) -> Self {
        Self { rows: rows.max(1), ..self }
    }

    /// Is told after each batch how many samples are done, of all passes together.
    pub fn progress(self, progress: impl Fn(Progress) + Send + Sync + 'a) -> Self {
        Self { progress: Some(Box::new(progress)), ..self }
    }

    fn check_ridge(&self) -> Result<()> {
        let ridge = self.ridge;
        if ridge.is_finite() && ridge >= 0.0 {
            return Ok(());
        }
        Err(Error::setting(format!("ridge {ridge} must be finite and at least 0")))
    }

    /// Takes rows of all jobs, batch by batch.
    fn collect(
        &self,
        jobs: &mut [Job<'_>],
        sides: &Sides<'_>,
        batches: &Batches,
        done: Progress,
    ) -> Result<()> {
        let (mut seen, all) = (0, batches.samples());
        for batch in 0..batches.len() {
            let (named, samples) = (batches.get(batch), batches.samples_of(batch));
            if batch == 0 {
                try_out(jobs, sides, &named)?;
            }
            let skips = || jobs.iter().filter_map(|job| job.skip.as_ref());
            let before: Vec<&str> =
                jobs.iter().map(|job| job.output).chain(skips().map(|skip| skip.before)).collect();
            let before = sides.before.run(&named, &before)?;
            let now: Vec<&str> = jobs
                .iter()
                .map(|job| job.input_now.as_str())
                .chain(skips().map(|skip| skip.now.as_str()))
                .collect();
            let now = sides.now.run(&named, &now)?;
            let mut skipped = before[jobs.len()..].iter().zip(&now[jobs.len()..]);
            let most = (self.rows as u64 * samples as u64).div_ceil(all as u64) as usize;
            for ((job, before), now) in jobs.iter_mut().zip(&before).zip(&now) {
                let skipped = job.skip.as_ref().and_then(|_| skipped.next());
                if !job.sound {
                    continue;
                }
                let name = job.parameter.name();
                let (x, y) =
                    (arranged(name, now, &job.reads.order)?, arranged(name, before, &job.answers.order)?);
                let reads = Reads::new(&job.parameter, &x)?;
                let rows = pick(reads.rows(), most, seen);
                let mut y = answers(job.original, &y, reads.rows(), &rows, &job.units)? + &job.shift;
                if let (Some(skip), Some((before, now))) = (&job.skip, skipped) {
                    let plain = |values| arranged(name, values, &Order::Plain);
                    let (before, now) = (plain(before)?, plain(now)?);
                    let all: Vec<usize> = (0..job.units.len()).collect();
                    let before = answers(job.original, &before, reads.rows(), &rows, &job.units)?;
                    let now = answers(&job.parameter, &now, reads.rows(), &rows, &all)?;
                    y += &skip.lost(&before, &now);
                }
                job.sums.add(&reads.gather(&rows)?, &y)?;
            }
            seen += samples;
            if let Some(progress) = &self.progress {
                progress(Progress { done: done.done + seen, ..done });
            }
        }
        Ok(())
    }
}

impl Recovery<f32> for LeastSquares<'_> {
    fn recover(&self, pruned: Model<f32>, removal: &Removal<'_, f32>) -> Result<Model<f32>> {
        self.check_ridge()?;
        let view = self.traced.graph.view()?;
        let before = Runner::exact(&self.traced.graph)?;
        let batches = self.inputs.fit(&self.traced.graph)?;
        let uses = Uses::new(self.traced, &view);
        let columns = Columns::all(removal, &pruned)?;
        let same = columns.iter().filter(|c| c.original.name() == c.pruned.name());
        let columns: HashMap<&str, &Columns<'_, f32>> = same.map(|c| (c.pruned.name(), c)).collect();
        let lost: HashSet<&str> = columns.values().filter(|c| c.lost()).map(|c| c.pruned.name()).collect();
        let solvable = |layer: &LayerIo| {
            let name = layer.parameter.as_str();
            let plain = |c: &&Columns<'_, f32>| matches!(c.pruned.kind(), Kind::Linear | Kind::Conv(_));
            let seen = |feed: &Option<Feed>| feed.as_ref().is_some_and(|f| uses.runs(&before, f.tensor));
            columns.get(name).is_some_and(plain)
                && uses.once(name)
                && seen(&layer.input)
                && seen(&layer.output)
        };
        let layers = || self.traced.layers.iter();
        let solved: HashSet<usize> =
            layers().filter(|layer| solvable(layer)).map(|layer| layer.node).collect();
        let changed = layers().filter(|l| lost.contains(l.parameter.as_str())).map(|l| l.node).collect();
        let levels = levels(&view, &solved, &changed);
        let mut model = pruned.clone();
        let total = levels.len() * batches.samples();
        for (number, level) in levels.iter().enumerate() {
            let graph = self.traced.apply(removal.plan(), &model)?;
            let sides = Sides { view: &view, before: &before, now: &Runner::exact(&graph)? };
            let view_now = graph.view()?;
            let mut jobs: Vec<Job<'_>> = Vec::with_capacity(level.len());
            for layer in layers().filter(|l| level.contains(&l.node) && solvable(l)) {
                jobs.extend(Job::new(layer, columns[layer.parameter.as_str()], &model, &uses, &view_now)?);
            }
            let tensors: Vec<_> =
                jobs.iter().flat_map(|job| [job.reads.tensor, job.answers.tensor]).collect();
            let batches = batches.clone().at_most(fitting(self.traced, &view, &tensors), &self.traced.graph);
            let done = Progress { done: number * batches.samples(), total };
            self.collect(&mut jobs, &sides, &batches, done)?;
            for job in jobs.iter().filter(|job| job.sound) {
                job.solve(self.ridge, &mut model)?;
            }
        }
        Ok(model)
    }

    fn check(&self) -> Result<()> {
        self.check_ridge()
    }
}

impl Debug for LeastSquares<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeastSquares").field("ridge", &self.ridge).field("rows", &self.rows).finish()
    }
}
