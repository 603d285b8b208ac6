//! Accuracy given back without training.

mod batch_norm;
mod bias;
pub(crate) mod columns;
mod least_squares;
mod mean_fold;
mod nothing;
mod sparse_gpt;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

use crate::prune::{Plan, Then};
use crate::{Element, Evidence, Model, Needs, Result};

pub use batch_norm::BatchNorm;
pub use bias::correct_bias;
pub use least_squares::LeastSquares;
pub use mean_fold::MeanFold;
pub use sparse_gpt::SparseGpt;

/// What was cut: the model before, the plan, and the evidence about that model.
#[derive(Clone, Copy, Debug)]
pub struct Removal<'a, F> {
    original: &'a Model<F>,
    plan: &'a Plan,
    evidence: &'a Evidence<F>,
}

impl<'a, F: Element> Removal<'a, F> {
    /// What `plan` takes from `original`, which `evidence` is about.
    pub fn new(original: &'a Model<F>, plan: &'a Plan, evidence: &'a Evidence<F>) -> Self {
        Self { original, plan, evidence }
    }

    /// The model before.
    pub fn original(&self) -> &'a Model<F> {
        self.original
    }

    /// What went.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// What was seen of the original.
    pub fn evidence(&self) -> &'a Evidence<F> {
        self.evidence
    }
}

/// Changes what a pruner left so that the network answers more like it did.
pub trait Recovery<F: Element>: Debug + Send + Sync {
    /// The pruned model with better values; names and shapes stay, and so does a masked weight's 0. `pruned` is
    /// what the removal's plan left of the original, perhaps with some values changed since.
    ///
    /// # Errors
    /// Missing evidence, or nowhere to put what is given back; the message names the layer.
    fn recover(&self, pruned: Model<F>, removal: &Removal<'_, F>) -> Result<Model<F>>;

    /// The statistics that [`Evidence`] must keep for this recovery.
    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }

    /// Checks the settings; [`Compressor`](crate::Compressor)'s builder calls it.
    ///
    /// # Errors
    /// A setting outside its range.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

macro_rules! forward_recovery {
    ($($pointer:ty),*) => {$(
        impl<F: Element, T: Recovery<F> + ?Sized> Recovery<F> for $pointer {
            fn recover(&self, pruned: Model<F>, removal: &Removal<'_, F>) -> Result<Model<F>> {
                (**self).recover(pruned, removal)
            }

            fn needs(&self) -> Needs {
                (**self).needs()
            }

            fn check(&self) -> Result<()> {
                (**self).check()
            }
        }
    )*};
}

forward_recovery!(&T, Box<T>, std::sync::Arc<T>);

impl<F: Element, A: Recovery<F>, B: Recovery<F>> Recovery<F> for Then<A, B> {
    fn recover(&self, pruned: Model<F>, removal: &Removal<'_, F>) -> Result<Model<F>> {
        let first = self.first.recover(pruned, removal)?;
        self.second.recover(first, removal)
    }

    fn needs(&self) -> Needs {
        self.first.needs() | self.second.needs()
    }

    fn check(&self) -> Result<()> {
        self.first.check()?;
        self.second.check()
    }
}
