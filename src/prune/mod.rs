//! What goes: pruners turn scores into a [`Plan`], which is looked at, and then applied.

pub mod block;
mod channel;
mod feature_map;
mod gradual;
mod n_of_m;
mod nothing;
mod plan;
mod rank;
mod schedule;
mod shrink;
mod sparse_gpt;
mod targets;
mod then;
mod unstructured;

use std::fmt::Debug;

use crate::importance::Scores;
use crate::{Element, Model, Needs, Result};

pub use crate::model::{Mask, Sparsity};
pub use block::{Modules, Pool, Tiles};
pub use channel::Channel;
pub use feature_map::FeatureMap;
pub use gradual::Gradual;
pub use n_of_m::NOfM;
pub(crate) use plan::Cut;
pub use plan::Plan;
pub use schedule::Schedule;
pub use shrink::Shrink;
pub use sparse_gpt::SparseGpt;
pub(crate) use targets::Targets;
pub use then::Then;
pub use unstructured::{Scope, Unstructured};

/// Decides what goes. A pruner changes nothing: its plan does, when it is applied.
pub trait Pruner<F: Element>: Debug + Send + Sync {
    /// Plans what would go from the model, by these scores.
    ///
    /// # Errors
    /// A pattern that matches nothing, a score that is missing, a layer that would be left empty.
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan>;

    /// The statistics that the scores must have been made from, beyond what the criterion itself needs: feature-map
    /// pruning reads maps.
    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }

    /// Checks what can be checked without a model; [`Compressor`](crate::Compressor)'s builder calls it.
    ///
    /// # Errors
    /// A setting outside its range, or a pattern that is no regular expression.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

macro_rules! forward_pruner {
    ($($pointer:ty),*) => {$(
        impl<F: Element, T: Pruner<F> + ?Sized> Pruner<F> for $pointer {
            fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
                (**self).plan(model, scores)
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

forward_pruner!(&T, Box<T>, std::sync::Arc<T>);
