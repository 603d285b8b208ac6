//! Activations in 8 bits: layers that compute in integers.

mod choose;
mod dynamic;
mod insert;
#[cfg(feature = "rten")]
mod observe;
mod weights;

use std::collections::HashMap;

use crate::onnx::Graph;
use crate::quantize::Range;
use crate::{Error, Result};

/// Quantizes the activations of a graph whose weights have codes, to 8 bits with ranges known beforehand (static
/// quantization).
///
/// Each tensor between layers gets a `QuantizeLinear` and a `DequantizeLinear` behind it: u8, one scale s and zero point z
/// for the whole tensor, x ≈ (q − z)·s, with 0 exactly in the range. Runtimes that know the pattern (ONNX
/// Runtime, `TensorRT`, `OpenVINO`) fuse each layer between two pairs into one that computes in integers; others run the
/// graph as it stands and answer the same up to rounding.
///
/// Layers that compute in integers are `Conv`, `Gemm` and `MatMul` whose weight has codes of 8 bits, with a scale for each
/// channel or one for all: [`Traced::apply_compressed`](crate::onnx::Traced::apply_compressed) makes these, so which
/// layers take part is which weights were quantized. Their biases become i32, with the scale of input times weight.
/// What such layers read has codes, and what convolutions answer, behind a `Relu` or `Clip` that follows; what other layers
/// answer only if it is read in codes, so that the answers of the network are floats. Between them codes pass through
/// `MaxPool`, `Reshape`, `Transpose`, `Flatten` and the like unchanged, and `Add`, `Mul`, `Concat` and poolings take part
/// where all that they read has codes.
///
/// A graph is made ready by [`prepared`](Self::prepared), before its weights get codes.
///
/// ```
/// # fn main() -> niwaki::Result<()> {
/// # #[cfg(all(feature = "npz", feature = "rten"))] {
/// use niwaki::Compressor;
/// use niwaki::onnx::{Graph, Inputs, Qdq, compare};
/// use niwaki::prune::Plan;
/// use niwaki::quantize::Uniform;
///
/// let graph = Graph::read("examples/data/digits.onnx")?;
/// let traced = Qdq::prepared(&graph)?.trace()?;
/// let compressor = Compressor::builder().quantizer(Uniform::int8()).build()?;
/// let codes = compressor.compress(traced.model(), &compressor.evidence(traced.model()))?;
/// let coded = traced.apply_compressed(&Plan::new(traced.model()), &codes)?.graph;
///
/// let calibration = Inputs::read("examples/data/digits-calibration.npz")?;
/// let made = Qdq::new().run(&coded, &calibration)?;
/// assert!(made.left.is_empty());
/// let test = Inputs::read("examples/data/digits-test.npz")?;
/// let comparison = compare(&graph, &made.graph, &test)?;
/// assert!(comparison.outputs[0].mean_cosine > 0.999);
/// # }
/// # Ok(())
/// # }
/// ```
///
/// Jacob and others: Quantization and training of neural networks for efficient integer-arithmetic-only inference (2018),
/// for integers with zero points; Nagel and others: A white paper on neural network quantization (2021), for where codes go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Qdq {
    range: Range,
    signed: bool,
}

/// A graph with layers that compute in integers.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct IntegerGraph {
    /// The graph.
    pub graph: Graph,
    /// Tensors that have codes, by name.
    pub tensors: Vec<String>,
    /// Layers that compute in floats.
    pub left: Vec<FloatLayer>,
}

/// A layer that computes in floats.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatLayer {
    /// The node's name, or that of its first output where it has none.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why it does.
    pub why: String,
}

/// Between which numbers tensors lie, by name.
///
/// ```
/// use niwaki::onnx::TensorRanges;
///
/// # fn main() -> niwaki::Result<()> {
/// let ranges = TensorRanges::new([("image", 0.0, 1.0)])?;
/// assert_eq!(ranges.get("image"), Some((0.0, 1.0)));
/// assert!(TensorRanges::new([("image", 1.0, f32::NAN)]).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorRanges {
    ranges: HashMap<String, (f32, f32)>,
}

impl TensorRanges {
    /// From names, lowest and highest numbers.
    ///
    /// # Errors
    /// A range ends before it begins, or at no finite number.
    pub fn new<N: Into<String>>(ranges: impl IntoIterator<Item = (N, f32, f32)>) -> Result<Self> {
        let checked = ranges.into_iter().map(|(name, low, high)| {
            let name = name.into();
            if low.is_finite() && high.is_finite() && low <= high {
                return Ok((name, (low, high)));
            }
            Err(Error::setting(format!("tensor `{name}`: {low} to {high} is no range")))
        });
        Ok(Self { ranges: checked.collect::<Result<_>>()? })
    }

    /// The lowest and highest number of a tensor.
    pub fn get(&self, name: &str) -> Option<(f32, f32)> {
        self.ranges.get(name).copied()
    }
}

impl Qdq {
    /// Ranges from the smallest number seen to the largest.
    pub fn new() -> Self {
        Self::default()
    }

    /// How ranges are found from what was seen (default [`Range::MinMax`]). All others than that look at a sample: at most
    /// 65,536 numbers of each tensor, spread evenly over samples and places.
    pub fn range(self, range: Range) -> Self {
        Self { range, ..self }
    }

    /// Keeps weights in i8, their zero points 0, as `TensorRT` wants them. Otherwise they become u8 around 128, the same
    /// numbers: x86 processors without VNNI multiply u8 by i8 with sums of two that stop at 2¹⁵ − 1, which costs accuracy
    /// that no calibration sees.
    pub fn signed_weights(self) -> Self {
        Self { signed: true, ..self }
    }

    /// A graph in which weights can get codes that integer kernels take: of operator set 13 at least
    /// ([`Graph::raised`]), and with normalizations folded into convolutions ([`Graph::folded`]).
    ///
    /// # Errors
    /// As these two.
    pub fn prepared(graph: &Graph) -> Result<Graph> {
        graph.raised(13)?.folded()
    }

    /// Names of the tensors whose ranges [`apply`](Self::apply) reads.
    ///
    /// # Errors
    /// The graph does not hold together.
    pub fn tensors(&self, graph: &Graph) -> Result<Vec<String>> {
        let view = graph.view()?;
        let choice = choose::choose(&view, &HashMap::new(), graph.folder.as_deref());
        let roots = choice.tensors.iter().filter(|id| !choice.roots.contains_key(id));
        Ok(roots.map(|&id| view.tensors[id].name.to_owned()).collect())
    }

    /// The graph with codes in these ranges.
    ///
    /// A layer whose bias would be past i32 in its scale stays in floats, which [`IntegerGraph::left`] says.
    ///
    /// # Errors
    /// [`ErrorKind::Name`](crate::ErrorKind::Name): there is no range for a tensor that needs one.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the graph's operator set is below 10, or a range is too
    /// wide for a scale in f32.
    pub fn apply(&self, graph: &Graph, ranges: &TensorRanges) -> Result<IntegerGraph> {
        insert::insert(graph, ranges, self.signed)
    }
}
