//! [`Trace`]: how a graph is traced.

use std::collections::HashMap;

use crate::Result;
use crate::onnx::{Graph, Traced};

/// Settings of a trace.
///
/// Shapes are computed for inputs of one size. Axes that the file fixes have theirs; others get a length of their own
/// unless [`input`](Self::input) says one. A network whose reshapes depend on the size of its images wants a real one.
///
/// Units over which a statistic is taken (channels of a layer norm, logits of a softmax, channels that are averaged)
/// keep their number: without some of them the statistic, and so all others, would change, and what is left would not
/// answer as the network with those units at zero does. [`through_statistics`](Self::through_statistics) couples them
/// all the same.
///
/// ```
/// use niwaki::onnx::{Graph, Trace};
///
/// # fn main() -> niwaki::Result<()> {
/// let graph = Graph::read("examples/data/digits.onnx")?;
/// let traced = Trace::new().input("image", [1, 1, 8, 8]).run(&graph)?;
/// assert_eq!(traced.model().parameter_count(), 39_882);
/// let error = Trace::new().input("picture", [1, 1, 8, 8]).run(&graph).unwrap_err();
/// assert!(error.to_string().contains("picture"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    inputs: HashMap<String, Vec<usize>>,
    through_statistics: bool,
}

impl Trace {
    /// Sizes from the file, statistics kept.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how long the axes of an input are.
    pub fn input(mut self, name: impl Into<String>, dims: impl Into<Vec<usize>>) -> Self {
        self.inputs.insert(name.into(), dims.into());
        self
    }

    /// Lets units go over which statistics are taken.
    pub fn through_statistics(self) -> Self {
        Self { through_statistics: true, ..self }
    }

    /// Traces a graph.
    ///
    /// # Errors
    /// Sizes that the graph does not take, or weights that are not finite.
    pub fn run(&self, graph: &Graph) -> Result<Traced> {
        super::trace(graph, &self.inputs, self.through_statistics)
    }
}

impl Graph {
    /// Finds what shrinks together: [`Trace`] with its defaults.
    ///
    /// # Errors
    /// As [`Trace::run`].
    pub fn trace(&self) -> Result<Traced> {
        Trace::new().run(self)
    }
}
