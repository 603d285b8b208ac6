//! [`Observer`]: evidence by running the graph.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Debug};

use ndarray::ArrayD;

use crate::model::Pattern;
use crate::onnx::run::feed::arrange;
use crate::onnx::run::inputs::Inputs;
use crate::onnx::run::memory;
use crate::onnx::run::rows::{Reads, pick};
use crate::onnx::run::runner::Runner;
use crate::onnx::run::runs::{Run, affordable};
use crate::onnx::run::values::Values;
use crate::onnx::trace::{Order, Traced};
use crate::onnx::view::{TensorId, View};
use crate::{Error, Evidence, Kind, Needs, Parameter, Result};

/// Bytes of the tensors that are asked for at a time.
const BYTES: usize = 256 << 20;
/// Bytes of Gram matrices unless told otherwise.
const MEMORY: u64 = 4 << 30;

/// How far a long run is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub done: usize,
    /// Of how much.
    pub total: usize,
}

/// Runs a graph and hands what passes by to an [`Evidence`].
///
/// Outputs are taken after the normalization and the activation that directly follow a weight: what the next layer
/// sees. Where the evidence keeps Gram matrices of inputs, not all rows that a layer reads are taken, which would cost
/// more than the network: at most [`rows`](Self::rows) for each sample, spread evenly over its positions. By default as
/// many as cost a 64th of the layer's own multiplications, but 8192 over all samples and two for each column if there
/// are as many. Everything is taken in one pass, in batches small enough that the tensors asked for stay under 256 MiB. The
/// Gram matrices of all layers are in memory at once, in f64; more than [`memory_limit`](Self::memory_limit) is an error
/// before the run.
///
/// Layers in subgraphs (`If`, `Loop`) are not seen, and embeddings have outputs only. The matrix by which units of a
/// recurrent layer read each other reads what they answered a step before, and 0 at the first step, whatever state the
/// graph starts from; of a `GRU` that resets states before they are read it is not seen.
///
/// ```
/// use niwaki::onnx::{Graph, Inputs, Observer};
/// use niwaki::{Evidence, Needs};
///
/// # fn main() -> niwaki::Result<()> {
/// # #[cfg(feature = "npz")] {
/// let traced = Graph::read("examples/data/digits.onnx")?.trace()?;
/// let inputs = Inputs::read("examples/data/digits-calibration.npz")?;
/// let mut evidence = Evidence::new(traced.model(), Needs::OUTPUT_GRAM);
/// let mut samples = 0;
/// Observer::new(&traced).inputs(false).progress(|p| samples = p.done).run(&inputs, &mut evidence)?;
/// assert_eq!(samples, 400);
/// for weight in traced.model().weights() {
///     assert!(evidence.layer(traced.model(), weight.name())?.outputs()?.gram().is_some());
/// }
/// # }
/// # Ok(())
/// # }
/// ```
pub struct Observer<'a> {
    traced: &'a Traced,
    layers: Vec<Pattern>,
    inputs: bool,
    outputs: bool,
    blocks: bool,
    rows: Option<usize>,
    memory: u64,
    progress: Option<Box<dyn FnMut(Progress) + 'a>>,
}

impl<'a> Observer<'a> {
    /// Inputs and outputs of all layers, and all blocks.
    pub fn new(traced: &'a Traced) -> Self {
        Self {
            traced,
            layers: Vec::new(),
            inputs: true,
            outputs: true,
            blocks: true,
            rows: None,
            memory: MEMORY,
            progress: None,
        }
    }

    /// Only layers that one of these matches.
    pub fn layers(self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        Self { layers: patterns.into_iter().collect(), ..self }
    }

    /// Whether what layers read is taken.
    pub fn inputs(self, inputs: bool) -> Self {
        Self { inputs, ..self }
    }

    /// Whether what layers answer is taken.
    pub fn outputs(self, outputs: bool) -> Self {
        Self { outputs, ..self }
    }

    /// Whether what goes into and comes out of residual branches is taken.
    pub fn blocks(self, blocks: bool) -> Self {
        Self { blocks, ..self }
    }

    /// Rows of each layer's inputs for each sample where Gram matrices are kept; at least 1.
    pub fn rows(self, rows: usize) -> Self {
        Self { rows: Some(rows.max(1)), ..self }
    }

    /// The most bytes that the Gram matrices of inputs and outputs may take, all layers together (default 4 GiB): for
    /// each layer 8·d² for d columns (channels of a group times taps), times its groups, and up to 4 MiB of rows that
    /// wait to be multiplied; twice that with [`Needs::HELD_OUT`].
    ///
    /// ```
    /// # fn main() -> niwaki::Result<()> {
    /// # #[cfg(feature = "npz")] {
    /// use niwaki::onnx::{Graph, Inputs, Observer};
    /// use niwaki::{Evidence, Needs};
    ///
    /// let traced = Graph::read("examples/data/digits.onnx")?.trace()?;
    /// let inputs = Inputs::read("examples/data/digits-calibration.npz")?;
    /// let mut evidence = Evidence::new(traced.model(), Needs::GRAM);
    /// let error = Observer::new(&traced).memory_limit(1 << 20).run(&inputs, &mut evidence).unwrap_err();
    /// assert!(error.to_string().contains("more than the limit of 1.0 MiB; the largest: `"));
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_limit(self, bytes: u64) -> Self {
        Self { memory: bytes, ..self }
    }

    /// Is told after each batch how many samples are done.
    pub fn progress(self, progress: impl FnMut(Progress) + 'a) -> Self {
        Self { progress: Some(Box::new(progress)), ..self }
    }

    /// Runs the graph on all samples.
    ///
    /// # Errors
    /// Inputs that do not fit the graph, an operator that cannot be run, evidence about another model, a pattern
    /// that matches nothing, Gram matrices that would take more memory than they may, or a value that is not finite. The
    /// evidence may then hold part of the samples.
    pub fn run(mut self, inputs: &Inputs, evidence: &mut Evidence<f32>) -> Result<()> {
        let weights = || self.traced.model.weights().map(Parameter::name);
        self.layers.iter().try_for_each(|pattern| pattern.check_matches(weights()))?;
        let batches = inputs.fit(&self.traced.graph)?;
        let view = self.traced.graph.view()?;
        let runner = Runner::exact(&self.traced.graph)?;
        let mut wanted = self.wanted(&view, &runner, batches.samples());
        if wanted.tasks.is_empty() {
            return Ok(());
        }
        memory::check(self.bytes(&wanted, evidence.needs()), self.memory)?;
        let batches = batches.at_most(fitting(self.traced, &view, &wanted.tensors), &self.traced.graph);
        let names: Vec<&str> = wanted.tensors.iter().map(|&t| view.tensors[t].name).collect();
        let (mut done, total) = (0, batches.samples());
        for batch in 0..batches.len() {
            let tensors = runner.run(&batches.get(batch), &names)?;
            let samples = batches.samples_of(batch);
            let apart = evidence.needs().contains(Needs::HELD_OUT);
            let held_out = if apart { batches.held_out(batch) } else { vec![false; samples] };
            for task in &mut wanted.tasks {
                self.record(task, &tensors, &held_out, done, evidence)?;
            }
            done += samples;
            if let Some(progress) = &mut self.progress {
                progress(Progress { done, total });
            }
        }
        for task in &mut wanted.tasks {
            if let Task::Input { layer, runs, .. } = task {
                runs[0].flush(layer, false, evidence)?;
                runs[1].flush(layer, true, evidence)?;
            }
        }
        Ok(())
    }

    /// What is to be taken from which tensors.
    fn wanted(&self, view: &View<'_>, runner: &Runner, samples: usize) -> Wanted<'a> {
        let mut wanted = Wanted::default();
        let visible = |t: TensorId| view.tensors[t].graph == 0 && runner.has(view.tensors[t].name);
        for layer in &self.traced.layers {
            let name = layer.parameter.as_str();
            if !self.layers.is_empty() && !self.layers.iter().any(|p| p.matches(name)) {
                continue;
            }
            let Some(parameter) = self.traced.model.find(name) else { continue };
            let reads = self.inputs && *parameter.kind() != Kind::Embedding;
            if let Some(feed) = layer.input.as_ref().filter(|f| reads && visible(f.tensor)) {
                let rows = self.rows.unwrap_or_else(|| affordable(layer, parameter, samples));
                let (tensor, order, runs) = (wanted.place(feed.tensor), &feed.order, <[Run; 2]>::default());
                wanted.tasks.push(Task::Input { layer: name, tensor, order, rows, runs });
            }
            let output = layer.activated.as_ref().or(layer.output.as_ref());
            if let Some(feed) = output.filter(|f| self.outputs && visible(f.tensor)) {
                let tensor = wanted.place(feed.tensor);
                wanted.tasks.push(Task::Output { layer: name, tensor, order: &feed.order });
            }
        }
        for branch in self.traced.branches.iter().filter(|_| self.blocks) {
            if visible(branch.input) && visible(branch.output) {
                let (input, output) = (wanted.place(branch.input), wanted.place(branch.output));
                wanted.tasks.push(Task::Block { block: &branch.block, input, output });
            }
        }
        wanted
    }

    /// What matrices of each layer will take.
    fn bytes<'w>(&self, wanted: &Wanted<'w>, needs: Needs) -> Vec<(&'w str, u64)> {
        let of = |layer: &str, count: fn(&Parameter<f32>, Needs) -> u64| {
            self.traced.model.find(layer).map_or(0, |parameter| count(parameter, needs))
        };
        // A weight that several nodes run has one matrix for all.
        let mut layers = BTreeMap::<&str, [u64; 2]>::new();
        for task in &wanted.tasks {
            match task {
                Task::Input { layer, .. } => {
                    layers.entry(layer).or_default()[0] = of(layer, memory::of_inputs);
                }
                Task::Output { layer, .. } => {
                    layers.entry(layer).or_default()[1] = of(layer, memory::of_outputs);
                }
                Task::Block { .. } => {}
            }
        }
        layers.into_iter().map(|(layer, bytes)| (layer, bytes.iter().sum())).collect()
    }

    fn record(
        &self,
        task: &mut Task<'_>,
        tensors: &[Values],
        held_out: &[bool],
        salt: usize,
        evidence: &mut Evidence<f32>,
    ) -> Result<()> {
        match task {
            Task::Input { layer, tensor, order, rows, runs } => {
                let parameter = self.traced.model.parameter(layer)?;
                let array = arranged(layer, &tensors[*tensor], order)?;
                if !evidence.needs().contains(Needs::GRAM) {
                    return evidence.record_input(layer, &**array);
                }
                let reads = Reads::new(parameter, &array)?;
                let rows = pick(reads.rows(), rows.saturating_mul(held_out.len()), salt);
                let sides = reads.sides(&rows, held_out);
                for ((run, rows), held_out) in runs.iter_mut().zip(&sides).zip([false, true]) {
                    reads.append(rows, &mut run.groups)?;
                    run.rows += rows.len();
                    if run.full() {
                        run.flush(layer, held_out, evidence)?;
                    }
                }
                Ok(())
            }
            Task::Output { layer, tensor, order } => {
                evidence.record_output(layer, &**arranged(layer, &tensors[*tensor], order)?)
            }
            Task::Block { block, input, output } => {
                let (x, y) = (floats(block, &tensors[*input])?, floats(block, &tensors[*output])?);
                evidence.record_block(block, &**x, &**y)
            }
        }
    }
}

impl Debug for Observer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, inputs, outputs, blocks, rows, .. } = self;
        let settings = (layers, inputs, outputs, blocks, rows);
        f.debug_tuple("Observer").field(&settings).finish()
    }
}

impl Traced {
    /// Runs the graph on all samples and hands what passes by to an evidence about its
    /// [`model`](Self::model): [`Observer`] with its defaults.
    ///
    /// # Errors
    /// As [`Observer::run`].
    pub fn observe(&self, inputs: &Inputs, evidence: &mut Evidence<f32>) -> Result<()> {
        Observer::new(self).run(inputs, evidence)
    }
}

#[derive(Default)]
struct Wanted<'a> {
    tensors: Vec<TensorId>,
    places: HashMap<TensorId, usize>,
    tasks: Vec<Task<'a>>,
}

enum Task<'a> {
    Input { layer: &'a str, tensor: usize, order: &'a Order, rows: usize, runs: [Run; 2] },
    Output { layer: &'a str, tensor: usize, order: &'a Order },
    Block { block: &'a str, input: usize, output: usize },
}

impl Wanted<'_> {
    fn place(&mut self, tensor: TensorId) -> usize {
        *self.places.entry(tensor).or_insert_with(|| {
            self.tensors.push(tensor);
            self.tensors.len() - 1
        })
    }
}

/// How many samples keep these tensors in bounded memory.
pub(crate) fn fitting(traced: &Traced, view: &View<'_>, tensors: &[TensorId]) -> usize {
    let dims = |t: TensorId| traced.shapes.dims[t].as_deref();
    let bytes: usize = tensors.iter().map(|&t| 4 * dims(t).map_or(0, |d| d.iter().product())).sum();
    let samples = view.inputs().iter().filter_map(|&t| dims(t)?.first().copied()).min();
    (BYTES / (bytes / samples.unwrap_or(1).max(1)).max(1)).max(1)
}

/// A tensor as a layer's input or output.
pub(crate) fn arranged<'v>(layer: &str, values: &'v Values, order: &Order) -> Result<Cow<'v, ArrayD<f32>>> {
    let array = floats(layer, values)?;
    if *order == Order::Plain {
        return Ok(Cow::Borrowed(array));
    }
    let arranged = arrange(array.clone(), order).map_err(|e| e.context(format!("layer `{layer}`")))?;
    Ok(Cow::Owned(arranged))
}

fn floats<'v>(what: &str, values: &'v Values) -> Result<&'v ArrayD<f32>> {
    let wrong = || Error::unsupported(format!("`{what}` computes with {}", values.type_name()));
    values.floats().ok_or_else(wrong)
}
