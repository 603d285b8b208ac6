//! Whole units: smaller arrays in every coupled slot.

use crate::importance::Scores;
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Plan, Pruner, Scope, Sparsity, Targets};
use crate::{Coupling, Element, Error, Model, Result};

/// Removes units: channels, neurons, heads, hidden units, whatever the model's couplings describe.
///
/// The score of index i of a coupling is the mean over its slots of the norm of the slice's scores (L2 unless the
/// criterion says otherwise), each slot first divided by its own mean. A criterion that scores units speaks only
/// where they are outputs.
///
/// Defaults: per coupling; at least one unit stays; no rounding; no cap. [`exclude`](Self::exclude) and
/// [`set`](Self::set) take names of couplings. What the network reads and answers keeps its shape as long as no
/// coupling holds it.
///
/// Fang, Ma, Song, Mi, Wang: DepGraph: towards any structural pruning (2023), whose normalization this is.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Channel, Pruner, Sparsity};
/// use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc1", array![[1.0, 1.0], [5.0, 5.0]]))
///     .parameter(Parameter::linear("fc2", array![[1.0, 5.0]]))
///     .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]))
///     .build()?;
/// let scores = Scores::compute(&Magnitude::l2(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let plan = Channel::new(Sparsity::new(0.5)?).plan(&model, &scores)?;
/// let smaller = plan.apply(&model)?;
/// assert_eq!(smaller.parameter("fc1")?.array(), &array![[5.0, 5.0]].into_dyn());
/// assert_eq!(smaller.parameter("fc2")?.array(), &array![[5.0]].into_dyn());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    sparsity: Sparsity,
    global: bool,
    round_to: usize,
    min_units: usize,
    max_sparsity: Option<Sparsity>,
    pub(crate) targets: Targets,
}

impl Channel {
    /// This fraction of each coupling's units goes.
    pub fn new(sparsity: Sparsity) -> Self {
        Self {
            sparsity,
            global: false,
            round_to: 1,
            min_units: 1,
            max_sparsity: None,
            targets: Targets::default(),
        }
    }

    /// Whether one ranking over all couplings decides, not one for each. [`Scope::PerRow`] has no meaning for
    /// units and is taken as per coupling.
    pub fn scope(self, scope: Scope) -> Self {
        Self { global: scope == Scope::Global, ..self }
    }

    /// Keeps a multiple of this many units in each coupling, rounding up what stays.
    pub fn round_to(self, multiple: usize) -> Self {
        Self { round_to: multiple, ..self }
    }

    /// Keeps at least this many units in each coupling (all of a coupling that has fewer).
    pub fn min_units(self, units: usize) -> Self {
        Self { min_units: units, ..self }
    }

    /// Removes at most this fraction of any coupling: a guard for global ranking.
    pub fn max_sparsity(self, sparsity: Sparsity) -> Self {
        Self { max_sparsity: Some(sparsity), ..self }
    }

    target_setters!("coupling");

    /// How many units of a coupling go when `wanted` should.
    fn allowed(&self, size: usize, wanted: usize) -> usize {
        let cap = self.max_sparsity.map_or(wanted, |s| s.of(size).min(wanted));
        let stay = (size - cap.min(size)).max(self.min_units).next_multiple_of(self.round_to);
        size - stay.min(size)
    }
}

impl<F: Element> Pruner<F> for Channel {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        <Self as Pruner<F>>::check(self)?;
        let names: Vec<&str> = model.couplings().iter().map(Coupling::name).collect();
        if names.is_empty() {
            return Err(Error::setting("the model has no couplings, so no units can be removed"));
        }
        let mut ranked = Vec::new();
        for (name, sparsity) in self.targets.resolve(&names, self.sparsity)? {
            let coupling = model.coupling(name)?;
            if self.round_to > coupling.size() {
                let (to, size) = (self.round_to, coupling.size());
                return Err(Error::setting(format!(
                    "coupling `{name}`: `round_to` {to} exceeds its {size} units"
                )));
            }
            ranked.push((coupling, sparsity, index_scores(model, coupling, scores)?));
        }
        let counts = self.counts(&ranked);
        let mut cut = Cut::default();
        for ((coupling, _, scores), count) in ranked.iter().zip(counts) {
            let gone = lowest(scores, self.allowed(coupling.size(), count));
            if gone.is_empty() {
                continue;
            }
            let len = |name: &str, axis: usize| model.find(name).map_or(0, |p| p.shape()[axis]);
            cut.selection.remove_indices(coupling, len, &gone);
            let (name, size, many) = (coupling.name(), coupling.size(), gone.len());
            cut.notes.push(format!("coupling `{name}`: {many} of {size} units go: {}", shorten(&gone)));
        }
        Plan::of(model, cut)
    }

    fn check(&self) -> Result<()> {
        if self.round_to == 0 {
            return Err(Error::setting("`round_to` must be at least 1"));
        }
        if self.min_units == 0 {
            return Err(Error::setting("`min_units` must be at least 1"));
        }
        self.targets.check()
    }
}

impl Channel {
    /// How many units of each coupling should go.
    fn counts(&self, ranked: &[(&Coupling, Sparsity, Vec<f64>)]) -> Vec<usize> {
        let apart = |s: Sparsity| !self.global || s != self.sparsity;
        let mut all: Vec<(f64, usize)> = Vec::new();
        for (k, (_, sparsity, scores)) in ranked.iter().enumerate() {
            if !apart(*sparsity) {
                all.extend(scores.iter().map(|&score| (score, k)));
            }
        }
        let wanted = self.sparsity.of(all.len());
        // Stable: ties stay in the order of couplings, and within one in the order of indices.
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut counts = vec![0; ranked.len()];
        all[..wanted].iter().for_each(|&(_, k)| counts[k] += 1);
        for (count, (coupling, sparsity, _)) in counts.iter_mut().zip(ranked) {
            if apart(*sparsity) {
                *count = sparsity.of(coupling.size());
            }
        }
        counts
    }
}

/// The score of each index: the mean over slots of weights, each divided by its own mean.
fn index_scores<F: Element>(model: &Model<F>, coupling: &Coupling, scores: &Scores<F>) -> Result<Vec<f64>> {
    let (mut total, mut slots, mut error) = (vec![0.0; coupling.size()], 0usize, None);
    for slot in coupling.slots() {
        let parameter = model.parameter(slot.parameter())?;
        if !parameter.kind().is_weight() {
            continue;
        }
        let score = match scores.layer(slot.parameter()) {
            Ok(score) => score,
            Err(missing) => {
                error = error.or(Some(missing));
                continue;
            }
        };
        let Some(own) = score.per_index(parameter, slot) else { continue };
        let mean = own.iter().map(|s| s.abs()).sum::<f64>() / own.len() as f64;
        let unit = if mean > 0.0 { mean } else { 1.0 };
        total.iter_mut().zip(&own).for_each(|(sum, s)| *sum += s / unit);
        slots += 1;
    }
    if slots > 0 {
        return Ok(total.iter().map(|sum| sum / slots as f64).collect());
    }
    let name = coupling.name();
    Err(match error {
        Some(error) => error.context(format!("coupling `{name}`")),
        None => Error::missing(format!("coupling `{name}`: the criterion scores none of its slots")),
    })
}

/// The `count` indices with the lowest scores, ties by index, ascending.
fn lowest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The first dozen numbers of a list.
fn shorten(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(12).map(ToString::to_string).collect();
    let more = if numbers.len() > 12 { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
}
