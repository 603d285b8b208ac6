//! Scales moved from one weight into the next: the network answers as before, and its weights are easier to round.

mod awq;
mod equalize;
mod migration;
mod nothing;
mod smooth;
mod units;

use std::fmt::Debug;

use crate::prune::Then;
use crate::{Element, Evidence, Model, Needs, Result};

pub use awq::Awq;
pub use equalize::Equalize;
pub use migration::Migration;
pub use smooth::Smooth;

/// Chooses factors for the units of a model's [passages](crate::Model::passages).
pub trait Rescale<F: Element>: Debug + Send + Sync {
    /// The factors by which units shall be divided where they are made, and multiplied where they are read. Nothing is
    /// changed: [`Migration::apply`] does that.
    ///
    /// # Errors
    /// Evidence that the method needs is missing; the message names the layer.
    fn plan(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Migration>;

    /// The statistics that [`Evidence`] must keep for this method.
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

macro_rules! forward_rescale {
    ($($pointer:ty),*) => {$(
        impl<F: Element, T: Rescale<F> + ?Sized> Rescale<F> for $pointer {
            fn plan(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Migration> {
                (**self).plan(model, evidence)
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

forward_rescale!(&T, Box<T>, std::sync::Arc<T>);

/// The second plans on what the first leaves.
impl<F: Element, A: Rescale<F>, B: Rescale<F>> Rescale<F> for Then<A, B> {
    fn plan(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Migration> {
        let first = self.first.plan(model, evidence)?;
        let (moved, left) = (first.apply(model)?, first.apply_to_evidence(model, evidence)?);
        first.then(self.second.plan(&moved, &left)?)
    }

    fn needs(&self) -> Needs {
        self.first.needs() | self.second.needs()
    }

    fn check(&self) -> Result<()> {
        self.first.check()?;
        self.second.check()
    }
}
