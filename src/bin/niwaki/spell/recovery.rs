//! Names of recoveries.

use clap::ValueEnum;

/// What gives accuracy back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Give {
    /// Solves each layer again, in graph order, for what it reads now
    LeastSquares,
    /// Folds the mean of what went into biases
    MeanFold,
    /// Moves the weights that stay to make up for single weights that went
    #[value(name = "sparsegpt")]
    SparseGpt,
    /// Estimates the means and variances of batch norms again
    BatchNorm,
}

/// As it would be written.
impl std::fmt::Display for Give {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LeastSquares => "least-squares",
            Self::MeanFold => "mean-fold",
            Self::SparseGpt => "sparsegpt",
            Self::BatchNorm => "batch-norm",
        })
    }
}
