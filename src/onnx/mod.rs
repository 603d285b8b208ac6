//! ONNX files: read, traced for what shrinks together, pruned, written.

mod edit;
mod file;
mod graph;
mod proto;
#[cfg(feature = "rten")]
mod run;
mod shape;
mod trace;
mod view;

pub use edit::CompressedGraph;
pub use graph::{Dim, Graph, ValueInfo};
#[cfg(feature = "rten")]
pub use run::{
    BatchNorm, Comparison, Inputs, LeastSquares, MeanFold, Observer, OutputComparison, Progress, Runner,
    Values, compare,
};
pub use trace::{Frozen, LayerInfo, Trace, Traced};
