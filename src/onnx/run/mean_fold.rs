//! [`MeanFold`]: the mean of what is gone becomes a constant, where a graph has a place for it.

use crate::onnx::trace::Traced;
use crate::recover::columns::{Columns, Constant};
use crate::recover::{Recovery, Removal};
use crate::{Model, Result};

/// As [`recover::MeanFold`](crate::recover::MeanFold), for networks as graphs have them: a layer with neither bias nor
/// batch norm, and a layer in a subgraph, which has no evidence, are left as they are instead of being an error.
///
/// Needs moments of the inputs of layers that lost some.
///
/// ```
/// use niwaki::onnx::{Graph, Inputs, MeanFold};
/// use niwaki::prune::Plan;
/// use niwaki::recover::{Recovery, Removal};
/// use niwaki::{Evidence, Needs};
///
/// # fn main() -> niwaki::Result<()> {
/// # #[cfg(feature = "npz")] {
/// let traced = Graph::read("examples/data/digits.onnx")?.trace()?;
/// let mut evidence = Evidence::new(traced.model(), Needs::MOMENTS);
/// traced.observe(&Inputs::read("examples/data/digits-calibration.npz")?, &mut evidence)?;
/// let plan = Plan::removing(traced.model(), traced.model().couplings()[0].name(), &[0])?;
/// let pruned = plan.apply(traced.model())?;
/// let removal = Removal::new(traced.model(), &plan, &evidence);
/// assert_ne!(MeanFold::new(&traced).recover(pruned.clone(), &removal)?, pruned);
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MeanFold<'a> {
    traced: &'a Traced,
}

impl<'a> MeanFold<'a> {
    /// The recovery.
    pub fn new(traced: &'a Traced) -> Self {
        Self { traced }
    }
}

impl Recovery<f32> for MeanFold<'_> {
    fn recover(&self, pruned: Model<f32>, removal: &Removal<'_, f32>) -> Result<Model<f32>> {
        let mut model = pruned.clone();
        for columns in Columns::all(removal, &pruned)?.iter().filter(|c| c.lost()) {
            let name = columns.original.name();
            let seen = self.traced.layers.iter().any(|l| l.parameter == name && l.input.is_some());
            let Some(constant) = Constant::of(removal, &pruned, columns)?.filter(|_| seen) else { continue };
            let (_, inputs) = columns.evidence(removal)?;
            let added = columns.shortfall(inputs, |row| columns.now(row));
            constant.put(&mut model, columns, &added)?;
        }
        Ok(model)
    }
}
