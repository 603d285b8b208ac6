//! The pruner that prunes nothing.

use crate::importance::Scores;
use crate::nothing::Nothing;
use crate::prune::{Plan, Pruner};
use crate::{Element, Model, Result};

impl<F: Element> Pruner<F> for Nothing {
    fn plan(&self, model: &Model<F>, _: &Scores<F>) -> Result<Plan> {
        Ok(Plan::new(model))
    }
}
