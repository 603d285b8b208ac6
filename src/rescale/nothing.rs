//! The method that moves no scales.

use crate::rescale::{Migration, Rescale};
use crate::{Element, Evidence, Model, Nothing, Result};

impl<F: Element> Rescale<F> for Nothing {
    fn plan(&self, _: &Model<F>, _: &Evidence<F>) -> Result<Migration> {
        Ok(Migration::default())
    }
}
