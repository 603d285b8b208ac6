//! ONNX files: read, traced for what shrinks together, pruned, written.
//!
//! A [`Graph`] is a file in memory. [`Graph::trace`] follows each channel through the operators and gives a [`Traced`]:
//! the [`Model`](crate::Model) that the graph holds, with its couplings and blocks, and what cannot be removed, and why.
//! From there on it is a model like any other. [`Traced::apply`] writes a plan back into the graph, with all that names
//! a size.
//!
//! ```
//! use niwaki::Compressor;
//! use niwaki::onnx::Graph;
//! use niwaki::prune::{Channel, Sparsity};
//!
//! # fn main() -> niwaki::Result<()> {
//! let graph = Graph::read("examples/data/digits.onnx")?;
//! let traced = graph.trace()?;
//! assert_eq!(traced.model().couplings().len(), 3);
//! assert_eq!(traced.frozen()[0].why, "the graph answers with it"); // ten digits stay ten
//!
//! let half = Channel::new(Sparsity::new(0.5)?);
//! let compressor = Compressor::builder().pruner(half).build()?;
//! let plan = compressor.plan(traced.model(), &compressor.evidence(traced.model()))?;
//! let smaller = traced.apply(&plan, &plan.apply(traced.model())?)?;
//! assert!(smaller.to_bytes()?.len() < graph.to_bytes()?.len() / 3);
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `rten` the graph can be run: an `Observer` feeds evidence from `Inputs`, `LeastSquares` solves the
//! layers of the pruned graph again in the order in which they run, and `compare` sets two graphs side by side.
//!
//! Fang and others: `DepGraph`: towards any structural pruning (2023), for groups of layers that shrink together.

mod dead;
mod draft;
mod edit;
mod file;
mod fold;
mod graph;
mod integer;
mod opset;
mod proto;
#[cfg(feature = "rten")]
mod run;
mod shape;
mod trace;
mod view;

pub use edit::CompressedGraph;
pub use graph::{Dim, Graph, ValueInfo};
pub use integer::{FloatLayer, IntegerGraph, Qdq, TensorRanges};
#[cfg(feature = "rten")]
pub use run::{
    BatchNorm, Comparison, Inputs, LeastSquares, MeanFold, Observer, OutputComparison, Progress, Runner,
    Values, compare,
};
pub use trace::{Frozen, LayerInfo, Trace, Traced};
