//! Whole units: smaller arrays in every coupled slot.

use std::collections::BTreeMap;

use crate::importance::Scores;
use crate::prune::rank::{lowest, shorten};
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Plan, Pruner, Scope, Sparsity, Targets};
use crate::{Coupling, Element, Error, Model, Result};

/// Removes units: channels, neurons, heads, hidden units, whatever the model's couplings describe.
///
/// The score of index i of a coupling is the mean over its slots of the norm of the slice's scores (L2 unless the
/// criterion says otherwise), each slot first divided by its own mean. A criterion that scores units speaks only
/// where they are outputs.
///
/// Defaults: per coupling; at least one unit stays; no rounding; no cap. Where a limit keeps units that a global
/// ranking would remove, no others go in their place. [`exclude`](Self::exclude) and
/// [`set`](Self::set) take names of couplings. What the network reads and answers keeps its shape as long as no
/// coupling holds it.
///
/// Fang, Ma, Song, Mi, Wang: `DepGraph`: towards any structural pruning (2023), whose normalization this is.
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
    /// sizes that the fractions are of, where they are not the couplings' own
    original: Option<BTreeMap<String, usize>>,
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
            original: None,
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

    /// Takes fractions of the sizes that couplings have in this model, so that units which went since then count
    /// as gone: for work in several steps ([`Gradual`](crate::prune::Gradual)). Without it, half of what is left
    /// goes each time.
    ///
    /// ```
    /// # use ndarray::Array;
    /// # use niwaki::importance::{Magnitude, Scores};
    /// # use niwaki::prune::{Channel, Pruner, Sparsity};
    /// # use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
    /// # fn main() -> niwaki::Result<()> {
    /// # let weights = Array::from_shape_fn((10, 2), |(i, j)| (1 + i + j) as f32);
    /// # let model = Model::builder().parameter(Parameter::linear("fc", weights));
    /// # let model = model.coupling(Coupling::builder("hidden").outputs(["fc"])).build()?;
    /// let mut smaller = model.clone(); // coupling `hidden` has 10 units
    /// for sparsity in [0.3, 0.5, 0.7] {
    ///     let scores = Scores::compute(&Magnitude::l2(), &smaller, &Evidence::new(&smaller, Needs::MOMENTS))?;
    ///     let pruner = Channel::new(Sparsity::new(sparsity)?).relative_to(&model);
    ///     smaller = pruner.plan(&smaller, &scores)?.apply(&smaller)?;
    /// }
    /// assert_eq!(smaller.coupling("hidden")?.size(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn relative_to<F: Element>(self, original: &Model<F>) -> Self {
        let sizes = original.couplings().iter().map(|c| (c.name().to_owned(), c.size()));
        Self { original: Some(sizes.collect()), ..self }
    }

    target_setters!("coupling");

    /// The size that fractions of this coupling are of, and how many of these units are gone.
    fn original(&self, coupling: &Coupling) -> Result<(usize, usize)> {
        let (name, size) = (coupling.name(), coupling.size());
        let Some(sizes) = &self.original else { return Ok((size, 0)) };
        let original = sizes.get(name).filter(|&&original| original >= size);
        let original = original.ok_or_else(|| {
            Error::name(format!("coupling `{name}` of {size} units is no part of the original model's"))
        })?;
        Ok((*original, original - size))
    }

    /// How many units of a coupling go when `wanted` should.
    fn allowed(&self, ranked: &Ranked<'_>, wanted: usize) -> usize {
        let size = ranked.coupling.size();
        let cap = self.max_sparsity.map_or(wanted, |s| ranked.goes(s).min(wanted));
        let stay = (size - cap.min(size)).max(self.min_units).min(size).next_multiple_of(self.round_to);
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
            let (original, gone) = self.original(coupling)?;
            let scores = index_scores(model, coupling, scores)?;
            ranked.push(Ranked { coupling, sparsity, scores, original, gone });
        }
        let counts = self.counts(&ranked);
        let mut cut = Cut::default();
        for (ranked, count) in ranked.iter().zip(counts) {
            let coupling = ranked.coupling;
            let gone = lowest(&ranked.scores, self.allowed(ranked, count));
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

/// A coupling, and what decides about its units.
struct Ranked<'a> {
    coupling: &'a Coupling,
    sparsity: Sparsity,
    scores: Vec<f64>,
    /// the size that fractions are of, and how many of these are gone
    original: usize,
    gone: usize,
}

impl Ranked<'_> {
    /// How many more go at this sparsity.
    fn goes(&self, sparsity: Sparsity) -> usize {
        sparsity.of(self.original).saturating_sub(self.gone)
    }
}

impl Channel {
    /// How many units of each coupling should go.
    fn counts(&self, ranked: &[Ranked<'_>]) -> Vec<usize> {
        let apart = |s: Sparsity| !self.global || s != self.sparsity;
        let (mut all, mut original, mut gone) = (Vec::new(), 0, 0);
        for (k, pooled) in ranked.iter().enumerate().filter(|(_, r)| !apart(r.sparsity)) {
            all.extend(pooled.scores.iter().map(|&score| (score, k)));
            original += pooled.original;
            gone += pooled.gone;
        }
        let wanted = self.sparsity.of(original).saturating_sub(gone);
        // Stable: ties stay in the order of couplings, and within one in the order of indices.
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut counts = vec![0; ranked.len()];
        all.iter().take(wanted).for_each(|&(_, k)| counts[k] += 1);
        for (count, ranked) in counts.iter_mut().zip(ranked) {
            if apart(ranked.sparsity) {
                *count = ranked.goes(ranked.sparsity);
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

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, array};

    use super::*;
    use crate::importance::{Magnitude, Norm};
    use crate::{Evidence, Needs, Parameter, Slot};

    /// Each coupling `name` is the rows of a weight of that name; row i of it holds `rows[i]` twice.
    fn model(couplings: &[(&str, &[f32])]) -> Model<f32> {
        let add = |builder: crate::ModelBuilder<f32>, (name, rows): &(&str, &[f32])| {
            let weight = Array2::from_shape_fn((rows.len(), 2), |(i, _)| rows[i]);
            builder
                .parameter(Parameter::linear(*name, weight))
                .coupling(Coupling::builder(*name).outputs([*name]))
        };
        couplings.iter().fold(Model::builder(), add).build().unwrap()
    }

    fn plan(pruner: &Channel, model: &Model<f32>) -> Result<Plan> {
        let scores = Scores::compute(&Magnitude::l2(), model, &Evidence::new(model, Needs::MOMENTS))?;
        pruner.plan(model, &scores)
    }

    fn kept(pruner: &Channel, model: &Model<f32>, name: &str) -> Vec<usize> {
        let kept = plan(pruner, model).unwrap().kept(name, 0);
        kept.unwrap_or_else(|| (0..model.coupling(name).unwrap().size()).collect())
    }

    fn at(sparsity: f64) -> Channel {
        Channel::new(Sparsity::new(sparsity).unwrap())
    }

    #[test]
    fn limits_keep_units() {
        let model = model(&[("a", &[8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])]);
        assert_eq!(kept(&at(0.5), &model, "a"), [0, 5, 6, 7]);
        assert_eq!(kept(&at(0.5).round_to(3), &model, "a"), [0, 3, 4, 5, 6, 7]);
        assert_eq!(kept(&at(0.2).round_to(8), &model, "a").len(), 8);
        assert_eq!(kept(&at(0.99), &model, "a"), [0]);
        assert_eq!(kept(&at(0.99).min_units(3), &model, "a"), [0, 6, 7]);
        assert_eq!(kept(&at(0.5).min_units(usize::MAX).round_to(3), &model, "a").len(), 8);
        assert_eq!(kept(&at(0.9).max_sparsity(Sparsity::new(0.25).unwrap()), &model, "a").len(), 6);
        let error = plan(&at(0.5).round_to(9), &model).unwrap_err().to_string();
        assert_eq!(error, "coupling `a`: `round_to` 9 exceeds its 8 units");
        assert!(plan(&at(0.5).round_to(0), &model).is_err() && plan(&at(0.5).min_units(0), &model).is_err());
    }

    #[test]
    fn global_ranks_by_scores_over_each_mean() {
        // Over their means: a 0.4 0.8 1.2 1.6, b 0.1 0.1 1.9 1.9.
        let model = model(&[("a", &[1.0, 2.0, 3.0, 4.0]), ("b", &[10.0, 10.0, 190.0, 190.0])]);
        let global = at(0.375).scope(Scope::Global);
        assert_eq!(kept(&global, &model, "a"), [1, 2, 3]);
        assert_eq!(kept(&global, &model, "b"), [2, 3]);
        let apart = global.clone().set("b", Sparsity::new(0.25).unwrap());
        assert_eq!(kept(&apart, &model, "a"), [1, 2, 3]);
        assert_eq!(kept(&apart, &model, "b"), [1, 2, 3]);
        assert_eq!(kept(&global.exclude("b"), &model, "b").len(), 4);
    }

    #[test]
    fn ties_go_by_index() {
        assert_eq!(kept(&at(0.5), &model(&[("a", &[1.0; 5])]), "a"), [2, 3, 4]);
    }

    #[test]
    fn steps_count_from_the_original() {
        let original = model(&[("a", &[1.0, 2.0, 3.0, 4.0, 5.0]), ("b", &[5.0, 4.0, 3.0])]);
        for scope in [Scope::PerLayer, Scope::Global] {
            let mut model = original.clone();
            for step in 1..=5 {
                let pruner = at(f64::from(step) / 10.0).scope(scope).relative_to(&original);
                model = plan(&pruner, &model).unwrap().apply(&model).unwrap();
            }
            let left: usize = model.couplings().iter().map(Coupling::size).sum();
            assert_eq!(left, if scope == Scope::Global { 4 } else { 3 + 2 }, "{scope:?}");
        }
        let other = model(&[("c", &[1.0, 2.0])]);
        assert!(plan(&at(0.5).relative_to(&original), &other).is_err());
    }

    #[test]
    fn the_score_is_the_mean_over_slots_of_scores_over_their_means() {
        let model = Model::builder()
            .parameter(Parameter::linear("a", array![[3.0, 4.0], [0.0, 15.0]]))
            .parameter(Parameter::bias("a.bias", Array1::from(vec![100.0, 0.0]), "a"))
            .parameter(Parameter::linear("b", array![[6.0, 0.0, 1.0], [8.0, 10.0, 0.0]]))
            .coupling(Coupling::builder("hidden").outputs(["a", "a.bias"]).slot(Slot::input("b").offset(0)))
            .build()
            .unwrap();
        let evidence = Evidence::new(&model, Needs::MOMENTS);
        let scores = Scores::compute(&Magnitude::l2(), &model, &evidence).unwrap();
        let coupling = model.coupling("hidden").unwrap();
        // Rows of a: 5 and 15 over 10; columns of b: 10 and 10 over 10.
        assert_eq!(index_scores::<f64>(&model, coupling, &scores).unwrap(), [0.75, 1.25]);
        let smaller = at(0.5).plan(&model, &scores).unwrap().apply(&model).unwrap();
        assert_eq!(smaller.parameter("b").unwrap().array(), &array![[0.0, 1.0], [10.0, 0.0]].into_dyn());
        assert_eq!(smaller.parameter("a.bias").unwrap().values(), [0.0]);
    }

    #[test]
    fn signed_sums_rank_as_they_are() {
        let model = model(&[("a", &[1.0, -5.0, 2.0])]);
        let score = crate::importance::Score::magnitude(Norm::Sum);
        let slot = &model.couplings()[0].slots()[0];
        let sums = score.per_index(model.parameter("a").unwrap(), slot).unwrap();
        assert_eq!(sums, [2.0, -10.0, 4.0]);
    }
}
