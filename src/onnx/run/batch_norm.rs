//! [`BatchNorm`]: running statistics measured again on the pruned graph.

use std::collections::{HashMap, HashSet};

use ndarray::Array1;

use crate::onnx::run::inputs::Inputs;
use crate::onnx::run::levels::levels;
use crate::onnx::run::observe::fitting;
use crate::onnx::run::runner::Runner;
use crate::onnx::run::uses::Uses;
use crate::onnx::run::values::Values;
use crate::onnx::trace::Traced;
use crate::onnx::view::{TensorId, View};
use crate::recover::columns::Columns;
use crate::recover::{Recovery, Removal};
use crate::{Error, ErrorKind, Kind, Model, NormRole, Result};

/// Measures running means and variances again, on what the pruned graph gives each batch norm, in the order in which
/// they run: each sees those before it corrected already.
///
/// Only batch norms that follow, however far, a layer whose weights changed are measured; a graph in which they are
/// folded into convolutions has none. The variance is the unbiased one over samples and positions, as training keeps
/// it. All samples are run once for each batch norm that depends on another. The removal's evidence is not used and may
/// be empty.
///
/// Li, Wu, Su, Wang: `EagleEye`: fast sub-net evaluation for efficient neural network pruning (2020), whose adaptive
/// batch normalization this is.
///
/// ```
/// use niwaki::onnx::{BatchNorm, Graph, Inputs};
/// use niwaki::prune::Plan;
/// use niwaki::recover::{Recovery, Removal};
/// use niwaki::{Evidence, Needs};
///
/// # fn main() -> niwaki::Result<()> {
/// # #[cfg(feature = "npz")] {
/// let traced = Graph::read("examples/data/digits.onnx")?.trace()?;
/// let inputs = Inputs::read("examples/data/digits-calibration.npz")?;
/// let plan = Plan::removing(traced.model(), traced.model().couplings()[0].name(), &[0])?;
/// let pruned = plan.apply(traced.model())?;
/// let nothing = Evidence::new(traced.model(), Needs::MOMENTS);
/// let removal = Removal::new(traced.model(), &plan, &nothing);
/// // This network's batch norms are folded.
/// assert_eq!(BatchNorm::new(&traced, &inputs).recover(pruned.clone(), &removal)?, pruned);
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    traced: &'a Traced,
    inputs: &'a Inputs,
}

impl<'a> BatchNorm<'a> {
    /// The recovery.
    pub fn new(traced: &'a Traced, inputs: &'a Inputs) -> Self {
        Self { traced, inputs }
    }

    /// The batch norms by their nodes.
    fn norms(&self, view: &View<'_>) -> HashMap<usize, Norm> {
        let mut norms: HashMap<usize, Norm> = HashMap::new();
        for (parameter, origin) in self.traced.model.parameters().iter().zip(&self.traced.origins) {
            let Kind::Norm { role, .. } = parameter.kind() else { continue };
            for &number in &view.tensors[origin.tensor].readers {
                let node = &view.nodes[number];
                let Some(Some(reads)) = node.inputs.first().copied() else { continue };
                if node.proto.operator() != "BatchNormalization" || node.graph != 0 {
                    continue;
                }
                let norm = norms.entry(number).or_insert_with(|| Norm { reads, mean: None, variance: None });
                match role {
                    NormRole::Mean => norm.mean = Some(parameter.name().to_owned()),
                    NormRole::Variance => norm.variance = Some(parameter.name().to_owned()),
                    _ => {}
                }
            }
        }
        norms
    }
}

/// A batch norm: what it reads, and its statistics.
struct Norm {
    reads: TensorId,
    mean: Option<String>,
    variance: Option<String>,
}

impl Recovery<f32> for BatchNorm<'_> {
    fn recover(&self, pruned: Model<f32>, removal: &Removal<'_, f32>) -> Result<Model<f32>> {
        let view = self.traced.graph.view()?;
        let norms = self.norms(&view);
        let columns = Columns::all(removal, &pruned)?;
        let changed: HashSet<&str> =
            columns.iter().filter(|c| c.changed()).map(|c| c.original.name()).collect();
        let layers = self.traced.layers.iter().filter(|l| changed.contains(l.parameter.as_str()));
        let changed = layers.map(|l| l.node).collect();
        let levels = levels(&view, &norms.keys().copied().collect(), &changed);
        let batches = self.inputs.fit(&self.traced.graph)?;
        let uses = Uses::new(self.traced, &view);
        let mut model = pruned;
        for level in levels {
            let graph = self.traced.apply(removal.plan(), &model)?;
            let (runner, now) = (Runner::exact(&graph)?, graph.view()?);
            let of = |number: usize| {
                let norm = &norms[&number];
                uses.input_now(number, norm.reads, &now).map(|name| (norm, name, Statistics::default()))
            };
            let mut jobs: Vec<_> = level.into_iter().filter_map(of).collect();
            let tensors: Vec<TensorId> = jobs.iter().map(|(norm, ..)| norm.reads).collect();
            let batches = batches.clone().at_most(fitting(self.traced, &view, &tensors), &self.traced.graph);
            let names: Vec<String> = jobs.iter().map(|(_, name, _)| name.clone()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            for batch in 0..batches.len() {
                let tensors = runner.run(&batches.get(batch), &names)?;
                for ((_, name, statistics), values) in jobs.iter_mut().zip(&tensors) {
                    statistics.add(name, values)?;
                }
            }
            for (norm, _, statistics) in &jobs {
                for (parameter, values) in
                    [(&norm.mean, statistics.means()), (&norm.variance, statistics.variances())]
                {
                    let Some(name) = parameter else { continue };
                    model.set_values(name, values.into_dyn())?;
                }
            }
        }
        Ok(model)
    }
}

/// Sums of each channel, around the first value of it.
#[derive(Debug, Default)]
struct Statistics {
    rows: u64,
    first: Vec<f64>,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Statistics {
    /// Takes in [samples, channels, positions…].
    fn add(&mut self, name: &str, values: &Values) -> Result<()> {
        let wrong = || Error::shape(format!("tensor `{name}` of shape {:?} has no channels", values.shape()));
        let array = values.floats().filter(|a| a.ndim() >= 2 && !a.is_empty()).ok_or_else(wrong)?;
        let (channels, places) = (array.shape()[1], array.shape()[2..].iter().product::<usize>());
        let all = array.as_slice().ok_or_else(wrong)?;
        if let Some(x) = all.iter().find(|x| !x.is_finite()) {
            return Err(Error::new(ErrorKind::NotFinite, format!("tensor `{name}`: a value is {x}")));
        }
        if self.rows == 0 {
            self.first = (0..channels).map(|c| f64::from(all[c * places])).collect();
            (self.sums, self.squares) = (vec![0.0; channels], vec![0.0; channels]);
        }
        if self.sums.len() != channels {
            return Err(wrong());
        }
        for (k, channel) in all.chunks_exact(places).enumerate() {
            let first = self.first[k % channels];
            for &x in channel {
                let x = f64::from(x) - first;
                self.sums[k % channels] += x;
                self.squares[k % channels] += x * x;
            }
        }
        self.rows += (array.shape()[0] * places) as u64;
        Ok(())
    }

    fn means(&self) -> Array1<f32> {
        let n = self.rows.max(1) as f64;
        self.first.iter().zip(&self.sums).map(|(first, sum)| (first + sum / n) as f32).collect()
    }

    fn variances(&self) -> Array1<f32> {
        let n = self.rows.max(1) as f64;
        let of = |(sum, squares): (&f64, &f64)| (squares - sum * sum / n).max(0.0) / (n - 1.0).max(1.0);
        self.sums.iter().zip(&self.squares).map(|pair| of(pair) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn statistics_are_those_of_all_batches() {
        let mut statistics = Statistics::default();
        statistics.add("x", &Values::from(array![[[1.0f32, 2.0], [5.0, 5.0]]])).unwrap();
        statistics.add("x", &Values::from(array![[[3.0f32, 6.0], [5.0, 5.0]]])).unwrap();
        assert_eq!(statistics.means(), array![3.0, 5.0]);
        assert_eq!(statistics.variances(), array![14.0 / 3.0, 0.0]);
        assert!(statistics.add("x", &Values::from(array![1.0f32])).is_err());
        assert!(statistics.add("x", &Values::from(array![[f32::NAN, 1.0]])).is_err());
    }
}
