//! From a graph to couplings: what shrinks together, found by following each channel through the operators.

mod branches;
mod couple;
mod describe;
mod layers;
mod ops;
mod parameter;
mod scales;
mod settings;
mod space;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::Result;
use crate::model::{Coupling, Model, Parameter};
use crate::onnx::shape::{self, Shapes};
use crate::onnx::trace::step::{Choices, Tracer};
use crate::onnx::view::{TensorId, View};
use crate::onnx::{Dim, Graph};

pub(crate) use ops::reshape::rewritten;
pub(crate) use parameter::{Form, Origin};
pub use settings::Trace;

/// Which class each position of an axis belongs to; positions of one class stay or go together. `None` for an axis
/// that nothing is removed from: batches, times, places, and axes of length 1.
pub(crate) type Axis = Option<Arc<[u32]>>;

/// A graph and what was found in it: the model that it holds, and how that lies in the graph.
///
/// A coupling has the name of the first weight that makes its units (`#2` and so on where one makes the units of several),
/// a block that of the node that adds its branch. Parameters have the names of their tensors; those of a recurrent layer
/// with two directions end in `[0]` and `[1]`.
///
/// ```
/// use niwaki::onnx::Graph;
///
/// # fn main() -> niwaki::Result<()> {
/// let traced = Graph::read("examples/data/digits.onnx")?.trace()?;
/// let residual = traced.model().coupling("conv1.weight")?;
/// assert_eq!(residual.size(), 32);
/// assert!(residual.slots().iter().any(|slot| slot.parameter() == "conv3.weight"));
/// assert_eq!(traced.model().blocks()[0].name(), "/Add");
/// assert_eq!(traced.layers()?[1].macs, Some(9 * 32 * 32 * 64));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Traced {
    pub(crate) graph: Graph,
    pub(crate) model: Model<f32>,
    /// for each tensor of the view, each axis
    pub(crate) axes: Vec<Vec<Axis>>,
    pub(crate) shapes: Arc<Shapes>,
    /// for each tensor, whether each axis follows the size of the inputs
    pub(crate) dynamic: Arc<Vec<Vec<bool>>>,
    /// the sizes of inputs that shapes were computed for
    pub(crate) input_dims: HashMap<String, Vec<usize>>,
    /// where each parameter of the model comes from, in the model's order
    pub(crate) origins: Vec<Origin>,
    pub(crate) layers: Vec<LayerIo>,
    pub(crate) branches: Vec<Branch>,
    pub(crate) frozen: Vec<Frozen>,
}

/// Where a weight reads and answers. Feeds are of the main graph: what runs in a subgraph has none.
#[derive(Clone, Debug)]
pub(crate) struct LayerIo {
    pub(crate) parameter: String,
    /// the node, in the view
    pub(crate) node: usize,
    /// multiplications for one sample of the traced inputs
    pub(crate) macs: u64,
    pub(crate) input: Option<Feed>,
    /// bias added, nothing else done
    pub(crate) output: Option<Feed>,
    /// after what directly follows: normalization, activation
    pub(crate) activated: Option<Feed>,
}

/// A tensor, and how it is brought to the order in which [`Evidence`](crate::Evidence) takes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Feed {
    pub(crate) tensor: TensorId,
    pub(crate) order: Order,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// As it is: [samples, channels, places…] of a convolution, [samples, …, features] of all else.
    Plain,
    /// Features are on this axis and move to the end.
    Features(usize),
    /// [times, directions, samples, features]: that of one direction.
    Direction(usize),
    /// The same one step earlier (`back`: later), 0 at the start: what the layer's own units read.
    State { direction: usize, back: bool },
    /// Input of a transposed convolution: so many zeros between neighbours along each spatial axis make it the input of a
    /// plain one.
    Stretched(Vec<usize>),
}

/// A residual branch: a sum whose other side is what the branch reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    /// the block's name in the model
    pub(crate) block: String,
    /// the node that adds, in the view
    pub(crate) sum: usize,
    /// what goes in, and what comes out
    pub(crate) input: TensorId,
    pub(crate) output: TensorId,
}

/// Weights whose outputs keep their number, and why.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// The weight.
    pub parameter: String,
    /// How many of its units are held.
    pub units: usize,
    /// The operator that holds them: `Softmax`, `output`.
    pub operator: String,
    /// The name of its node, or of the output.
    pub node: String,
    /// Why.
    pub why: String,
}

/// A weight, and the node that it works in.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The weight.
    pub parameter: String,
    /// The node's operator: `Conv`, `MatMul`.
    pub operator: String,
    /// The node's name, or that of its first output where it has none.
    pub node: String,
    /// Multiplications for one sample of the traced sizes; `None` where the shape of the output is not known.
    pub macs: Option<u64>,
}

impl Traced {
    /// The network as a model: parameters in the order in which they run, couplings, blocks.
    pub fn model(&self) -> &Model<f32> {
        &self.model
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The weights that were found to work in a node, in the model's order.
    ///
    /// # Errors
    /// None that tracing the graph would not have shown.
    pub fn layers(&self) -> Result<Vec<LayerInfo>> {
        let view = self.graph.view()?;
        let info = |layer: &LayerIo| {
            let node = &view.nodes[layer.node];
            let output = node.outputs.first().copied().flatten();
            let known = output.is_some_and(|output| self.shapes.dims[output].is_some());
            LayerInfo {
                parameter: layer.parameter.clone(),
                operator: node.proto.operator(),
                node: node.proto.title().to_owned(),
                macs: known.then_some(layer.macs),
            }
        };
        Ok(self.layers.iter().map(info).collect())
    }

    /// What cannot be removed, and why.
    pub fn frozen(&self) -> &[Frozen] {
        &self.frozen
    }
}

/// How often a trace is made again with other answers to how axes are split.
const RETRIES: usize = 24;

/// Traces a graph for inputs of these sizes (all axes of an input that is named; others are guessed). With
/// `through_statistics`, channels over which statistics are taken are coupled as well.
pub(crate) fn trace(
    graph: &Graph,
    inputs: &HashMap<String, Vec<usize>>,
    through_statistics: bool,
) -> Result<Traced> {
    let view = graph.view()?;
    let shapes = shape::infer(&view, inputs)?;
    let dynamic = dynamic(graph, &view, &shapes);
    let follow = |choices| Tracer::follow(&view, (&shapes, &dynamic), choices, through_statistics);
    let first = follow(Choices::new());
    // What the parameters are does not depend on how axes are split.
    let (parameters, origins) = describe::parameters(graph, &first)?;
    let mut best = Attempt::new(first, &parameters, &origins);
    let mut tried = HashSet::new();
    for _ in 0..RETRIES {
        let open = best.tracer.splits.iter().find_map(|(key, parts)| {
            let next = (0..*parts).find(|&next| !tried.contains(&(key.clone(), next)))?;
            Some((key.clone(), next))
        });
        let Some((key, next)) = open else { break };
        tried.insert((key.clone(), next));
        let mut choices = best.tracer.choices.clone();
        choices.insert(key, next);
        let other = Attempt::new(follow(choices), &parameters, &origins);
        if other.free > best.free {
            best = other;
        }
    }
    best.finish(graph, inputs, parameters, origins)
}

/// Which axes follow the size of the inputs: those that change when every axis that the file leaves open is doubled.
/// What cannot be computed then is taken to follow.
fn dynamic(graph: &Graph, view: &View<'_>, shapes: &Shapes) -> Vec<Vec<bool>> {
    let doubled = graph.inputs().into_iter().zip(view.inputs()).filter_map(|(info, &tensor)| {
        let dims = shapes.dims[tensor].as_ref()?;
        let named = info.dims?;
        let longer = dims.iter().zip(&named).map(|(&len, dim)| match dim {
            Dim::Fixed(_) => len,
            Dim::Named(_) => 2 * len,
        });
        Some((info.name, longer.collect()))
    });
    let other = shape::infer(view, &doubled.collect()).ok();
    let axes = |tensor: usize| {
        let dims = shapes.dims[tensor].as_deref().unwrap_or_default();
        let longer =
            other.as_ref().and_then(|other| other.dims[tensor].as_ref()).filter(|l| l.len() == dims.len());
        let follows = |axis: usize| longer.is_none_or(|longer| longer[axis] != dims[axis]);
        (0..dims.len()).map(follows).collect()
    };
    (0..view.tensors.len()).map(axes).collect()
}

/// One way to answer how axes are split.
struct Attempt<'v, 'g> {
    tracer: Tracer<'v, 'g>,
    couplings: Vec<Coupling>,
    frozen: Vec<Frozen>,
    /// weights that couplings reach
    free: usize,
}

impl<'v, 'g> Attempt<'v, 'g> {
    fn new(mut tracer: Tracer<'v, 'g>, parameters: &[Parameter<f32>], origins: &[Origin]) -> Self {
        let (couplings, frozen) = couple::couple(parameters, origins, &tracer.axes, &mut tracer.space);
        let weights: HashMap<&str, &Parameter<f32>> =
            parameters.iter().filter(|p| p.kind().is_weight()).map(|p| (p.name(), p)).collect();
        let free = couplings.iter().flat_map(Coupling::slots).filter_map(|slot| {
            let parameter = weights.get(slot.parameter())?;
            let held = slot.all_positions().iter().map(Vec::len).sum::<usize>();
            Some(held * (parameter.array().len() / parameter.shape()[slot.axis()].max(1)))
        });
        let free = free.sum();
        Self { tracer, couplings, frozen, free }
    }

    fn finish(
        mut self,
        graph: &Graph,
        inputs: &HashMap<String, Vec<usize>>,
        parameters: Vec<Parameter<f32>>,
        origins: Vec<Origin>,
    ) -> Result<Traced> {
        let layers = layers::layers(&self.tracer, &parameters, &origins);
        let (blocks, branches) = branches::branches(&self.tracer, &parameters, &origins);
        let passages = scales::passages(&self.tracer, &parameters, &origins);
        let axes = std::mem::take(&mut self.tracer.axes);
        let space = &mut self.tracer.space;
        let axes = axes.iter().map(|axes| axes.iter().map(|axis| space.resolve(axis)).collect()).collect();
        let mut builder = Model::builder();
        for parameter in parameters {
            builder = builder.parameter(parameter);
        }
        for coupling in self.couplings {
            builder = builder.coupled(coupling);
        }
        for passage in passages {
            builder = builder.passing(passage);
        }
        for block in blocks {
            builder = builder.block(block);
        }
        Ok(Traced {
            graph: graph.clone(),
            model: builder.build()?,
            axes,
            shapes: Arc::new(self.tracer.shapes.clone()),
            dynamic: Arc::new(self.tracer.dynamic.to_vec()),
            input_dims: inputs.clone(),
            origins,
            layers,
            branches,
            frozen: self.frozen,
        })
    }
}
