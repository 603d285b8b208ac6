//! [`Graph::folded`]: what weights can take in.

mod convolution;
mod transpose;

use crate::Result;
use crate::onnx::draft::Draft;
use crate::onnx::{Graph, dead};

impl Graph {
    /// The graph with batch norms, and constants that are added to each channel, folded into the convolutions directly
    /// before them: w' = w·γ/√(σ² + ε), b' = (b − μ)·γ/√(σ² + ε) + β, computed in f64. It answers the same but for
    /// rounding. Weights that only a `Transpose` reads have their axes exchanged in the file. Integer kernels need
    /// this: they take a convolution and its bias at once, and a weight as it is.
    ///
    /// ```
    /// use niwaki::onnx::Graph;
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let graph = Graph::read("tests/data/onnx/mobilenetv2.onnx")?;
    /// let folded = graph.folded()?;
    /// let norms = |graph: &Graph| Ok::<_, niwaki::Error>(graph.trace()?.model().parameters().iter().filter(|p| {
    ///     matches!(p.kind(), niwaki::Kind::Norm { .. })
    /// }).count());
    /// assert!(norms(&graph)? > 0);
    /// assert_eq!(norms(&folded)?, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Values that are in a data file cannot be read, or folded ones are past the range of their type.
    pub fn folded(&self) -> Result<Self> {
        let view = self.view()?;
        let folder = self.folder.as_deref();
        let mut draft = Draft::new(&self.model, &view);
        let mut gone = convolution::fold(&view, &mut draft, folder)?;
        gone.extend(transpose::fold(&view, &mut draft, folder)?);
        if gone.is_empty() {
            return Ok(self.clone());
        }
        // No node was put in, so that places are those of before.
        let mut at = 0;
        draft.graph(0)?.node.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        dead::remove(&view, Self { model: draft.finish()?, folder: self.folder.clone() })
    }
}
