//! The recovery that recovers nothing.

use crate::recover::{Recovery, Removal};
use crate::{Element, Model, Nothing, Result};

impl<F: Element> Recovery<F> for Nothing {
    fn recover(&self, pruned: Model<F>, _: &Removal<'_, F>) -> Result<Model<F>> {
        Ok(pruned)
    }
}
