//! Graphs that run: evidence, recovery and comparison.

mod batch_norm;
mod batches;
mod compare;
mod dialect;
mod feed;
mod inputs;
mod job;
mod least_squares;
mod levels;
mod mean_fold;
mod memory;
mod observe;
mod rows;
mod runner;
mod runs;
mod solve;
mod uses;
mod values;

pub use batch_norm::BatchNorm;
pub use compare::{Comparison, OutputComparison, compare};
pub use inputs::Inputs;
pub use least_squares::LeastSquares;
pub use mean_fold::MeanFold;
pub use observe::{Observer, Progress};
pub use runner::Runner;
pub use values::Values;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
