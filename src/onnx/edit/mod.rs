//! From a traced graph and a plan to a smaller graph.

mod arrays;
mod blocks;
mod check;
mod heads;
mod indices;
mod infos;
mod kept;
mod layout;
mod left;
mod maps;
mod quantized;
mod sizes;
mod slice;
mod values;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::compress::Compressed;
use crate::model::Model;
use crate::onnx::draft::Draft;
use crate::onnx::trace::Traced;
use crate::onnx::view::{TensorId, View};
use crate::onnx::{Graph, dead};
use crate::prune::Plan;
use crate::{Error, Result};

use kept::Kept;
use left::Left;

/// A graph with quantized weights.
///
/// ```
/// use niwaki::compress::Compressor;
/// use niwaki::onnx::Graph;
/// use niwaki::prune::Plan;
/// use niwaki::quantize::Uniform;
/// use niwaki::{Evidence, Needs};
///
/// # fn main() -> niwaki::Result<()> {
/// let traced = Graph::read("tests/data/onnx/unet.onnx")?.trace()?;
/// let (model, evidence) = (traced.model(), Evidence::new(traced.model(), Needs::MOMENTS));
/// let compressor = Compressor::builder().quantizer(Uniform::int8()).build()?;
/// let written = traced.apply_compressed(&Plan::new(model), &compressor.compress(model, &evidence)?)?;
/// // A transposed convolution lies in the graph in another order than in the model.
/// assert_eq!(written.plain, ["up2.weight"]);
/// assert!(written.graph.to_bytes()?.len() < traced.graph().to_bytes()?.len());
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct CompressedGraph {
    /// The graph.
    pub graph: Graph,
    /// Parameters that have codes, but whose decoded values the graph holds: those that share a tensor with others (a
    /// direction of a recurrent layer) or lie in it in another order (a transposed convolution).
    pub plain: Vec<String>,
}

impl Traced {
    /// The graph that the plan leaves, with the arrays of `model`: what the plan left of this one's, improved or not by
    /// a recovery.
    ///
    /// Weights and constants get smaller, and all that names a size follows: groups and hidden sizes, heads, targets of
    /// `Reshape`, sizes of `Split`, bounds of `Slice`, indices of `Gather`. A weight whose inputs go where the
    /// tensor that it reads keeps them gets a `Gather` in front, a map of which positions go a `Mul` with a constant
    /// mask behind. Removed blocks are passed by, and what nothing needs any more goes. Nothing else is touched.
    ///
    /// ```
    /// use niwaki::onnx::Graph;
    /// use niwaki::prune::Plan;
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let traced = Graph::read("tests/data/onnx/vgg.onnx")?.trace()?;
    /// let first = traced.model().couplings()[0].name();
    /// let plan = Plan::removing(traced.model(), first, &[0, 1])?;
    /// let smaller = plan.apply(traced.model())?;
    /// let graph = traced.apply(&plan, &smaller)?;
    /// assert_eq!(graph.trace()?.model().parameter_count(), smaller.parameter_count());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The plan or the model belongs to another graph. [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): an
    /// operator names a size in a way that cannot be rewritten. Before the graph is given, the shapes of all
    /// its tensors are inferred and compared with what the plan promises, so a wrong graph is an error too.
    pub fn apply(&self, plan: &Plan, model: &Model<f32>) -> Result<Graph> {
        let view = self.graph.view()?;
        let edit = Edit::new(self, &view, plan, model)?;
        edit.run()
    }

    /// As [`apply`](Self::apply), with weights in the form in which they were compressed: codes become integer
    /// initializers with a `DequantizeLinear` behind (a `Cast`, `Sub` and `Mul` where the model's operator set is too
    /// old for that), f16 and bf16 become initializers of that type with a `Cast` behind. The operator set stays. Only
    /// weights are quantized: the graph computes with the decoded values, to the last bit those of
    /// [`Compressed::decode`].
    ///
    /// # Errors
    /// As [`apply`](Self::apply); or a scheme that ONNX has no operators for: planes, fixed point of more than 8 bits,
    /// 8-bit floats; any codes below operator set 7, bf16 below 13.
    pub fn apply_compressed(&self, plan: &Plan, compressed: &Compressed<f32>) -> Result<CompressedGraph> {
        let view = self.graph.view()?;
        let model = compressed.decode()?;
        let edit = Edit::new(self, &view, plan, &model)?;
        edit.run_compressed(compressed)
    }
}

/// One edit on its way.
struct Edit<'t> {
    traced: &'t Traced,
    view: &'t View<'t>,
    plan: &'t Plan,
    left: Left<'t>,
    kept: Kept,
    draft: Draft,
    /// shapes that the tensors of parameters will have
    arrays: HashMap<TensorId, Vec<usize>>,
    /// weights behind a `Gather`
    gathered: HashSet<TensorId>,
    /// numbers that an input of a node must hold in the end
    promises: Vec<Promise>,
}

struct Promise {
    node: usize,
    input: usize,
    numbers: Vec<Option<i64>>,
}

impl<'t> Edit<'t> {
    fn new(traced: &'t Traced, view: &'t View<'t>, plan: &'t Plan, left: &'t Model<f32>) -> Result<Self> {
        let left = Left::new(traced, plan, left)?;
        Ok(Self {
            traced,
            view,
            plan,
            kept: Kept::new(traced, &left),
            left,
            draft: Draft::new(&traced.graph.model, view),
            arrays: HashMap::new(),
            gathered: HashSet::new(),
            promises: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Graph> {
        self.edit()?;
        let wanted = check::Wanted::new(&self);
        let (view, traced) = (self.view, self.traced);
        let graph = Graph { model: self.draft.finish()?, folder: traced.graph.folder.clone() };
        let graph = dead::remove(view, graph)?;
        wanted.check(&graph, &traced.input_dims)?;
        Ok(graph)
    }

    fn run_compressed(mut self, compressed: &Compressed<f32>) -> Result<CompressedGraph> {
        self.edit()?;
        let wanted = check::Wanted::new(&self);
        let (view, traced, left) = (self.view, self.traced, self.left);
        let mut graph = Graph { model: self.draft.finish()?, folder: traced.graph.folder.clone() };
        graph = dead::remove(view, graph)?;
        let plain = quantized::store(traced, &left, view, &mut graph, compressed)?;
        wanted.check(&graph, &traced.input_dims)?;
        Ok(CompressedGraph { graph, plain })
    }

    fn edit(&mut self) -> Result<()> {
        arrays::put(self)?;
        sizes::rewrite(self)?;
        maps::put(self)?;
        blocks::remove(self)?;
        infos::update(self)
    }

    fn dims(&self, tensor: TensorId) -> Option<&'t [usize]> {
        self.traced.shapes.dims.get(tensor)?.as_deref()
    }

    /// The shape that a tensor will have.
    fn dims_after(&self, tensor: TensorId) -> Option<Vec<usize>> {
        if let Some(dims) = self.arrays.get(&tensor) {
            return Some(dims.clone());
        }
        let dims = self.dims(tensor)?.iter().enumerate();
        Some(
            dims.map(|(axis, &len)| self.positions_of(tensor, axis).map_or(len, |kept| kept.len())).collect(),
        )
    }

    /// Positions of a tensor's axis that stay; `None` when all do.
    fn positions_of(&self, tensor: TensorId, axis: usize) -> Option<Vec<usize>> {
        self.kept.positions(self.traced.axes.get(tensor)?.get(axis)?)
    }

    /// An error about a node that cannot be brought to its new sizes.
    fn stuck(&self, node: usize, what: &str) -> Error {
        let proto = self.view.nodes[node].proto;
        Error::unsupported(format!("node `{}` ({}): {what}", proto.title(), proto.operator()))
    }
}
