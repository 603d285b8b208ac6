//! Single weights.

use std::borrow::Cow;

use crate::importance::{Elements, Scores};
use crate::kernel::par;
use crate::kernel::select::{self, Cut as Threshold};
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Mask, Plan, Pruner, Sparsity, Targets};
use crate::{Element, Model, Parameter, Result};

/// Among which weights the lowest scores are looked for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each layer gives up its share (default).
    #[default]
    PerLayer,
    /// One threshold over all layers; a layer with a sparsity of its own stays apart.
    Global,
    /// Each output row gives up its share.
    PerRow,
}

/// Sets single weights to zero: of n, the floor(n · s) with the lowest scores, ties by index.
///
/// Weights that are 0 already count as gone and go first. The first and the last weight of the model are kept
/// unless [`include_ends`](Self::include_ends) or [`set`](Self::set) asks for them. Default scope: per layer.
///
/// Han, Pool, Tran, Dally: Learning both weights and connections for efficient neural networks (2015).
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Pruner, Scope, Sparsity, Unstructured};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = array![[1.0f32, -2.0, 9.0], [-3.0, 4.0, 5.0]];
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let scores = Scores::compute(&Magnitude::l1(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let pruner = Unstructured::new(Sparsity::new(0.34)?).scope(Scope::PerRow).include_ends();
/// let pruned = pruner.plan(&model, &scores)?.apply(&model)?;
/// assert_eq!(pruned.parameter("fc")?.values(), [0.0, -2.0, 9.0, 0.0, 4.0, 5.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Unstructured {
    sparsity: Sparsity,
    scope: Scope,
    pub(crate) targets: Targets,
}

impl Unstructured {
    /// This fraction of each layer's weights goes.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity, scope: Scope::PerLayer, targets: Targets::default() }
    }

    /// Among which weights the lowest are looked for.
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    target_setters!("weight", ends);
}

impl<F: Element> Pruner<F> for Unstructured {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        let mut ranked = Vec::new();
        for (name, sparsity) in self.targets.weights(model, self.sparsity)? {
            let parameter = model.parameter(name)?;
            ranked.push(Ranked {
                parameter,
                sparsity,
                scores: rank(scores.layer(name)?.per_element(parameter), parameter),
            });
        }
        let mut masks = Vec::with_capacity(ranked.len());
        let (pooled, apart): (Vec<_>, Vec<_>) =
            ranked.iter().partition(|r| self.scope == Scope::Global && r.sparsity == self.sparsity);
        for layer in apart {
            let mask =
                if self.scope == Scope::PerRow { layer.per_row() } else { layer.mask(layer.threshold()) };
            masks.push((layer.parameter.name().to_owned(), mask));
        }
        masks.extend(global(&pooled, self.sparsity));
        Plan::of(model, Cut { masks, ..Cut::default() })
    }

    fn check(&self) -> Result<()> {
        self.targets.check()
    }
}

/// A layer and the numbers its weights are ranked by.
struct Ranked<'a, F: Element> {
    parameter: &'a Parameter<F>,
    sparsity: Sparsity,
    scores: Elements<'a, F>,
}

/// Scores with the weights that are 0 already in the last place.
fn rank<'a, F: Element>(scores: Elements<'a, F>, parameter: &Parameter<F>) -> Elements<'a, F> {
    let weights = parameter.values();
    match scores {
        Elements::Each(scores) if weights.iter().any(|w| w.is_zero()) => {
            let rank = |(&score, w): (&F, &F)| if w.is_zero() { F::neg_infinity() } else { score };
            Elements::Each(Cow::Owned(scores.iter().zip(weights).map(rank).collect()))
        }
        scores => scores,
    }
}

impl<F: Element> Ranked<'_, F> {
    fn values(&self) -> &[F] {
        match &self.scores {
            Elements::Magnitude(weights) => weights,
            Elements::Each(scores) => scores,
        }
    }

    /// Bits of the keys, and the key of a value.
    fn key(&self) -> (u32, fn(&F) -> u64) {
        match self.scores {
            Elements::Magnitude(_) => (F::MAGNITUDE_BITS, |w| w.magnitude_key()),
            Elements::Each(_) => (F::MAGNITUDE_BITS + 1, |s| s.order_key()),
        }
    }

    fn threshold(&self) -> Threshold {
        let (values, (bits, key)) = (self.values(), self.key());
        // Called by name: a function pointer would not be inlined into the loop.
        match self.scores {
            Elements::Magnitude(_) => {
                select::smallest(&[values], |w: &F| w.magnitude_key(), bits, self.sparsity.of(values.len()))
            }
            Elements::Each(_) => select::smallest(&[values], key, bits, self.sparsity.of(values.len())),
        }
    }

    /// Keeps what lies above the threshold; of the ties the first by index go.
    fn mask(&self, threshold: Threshold) -> Mask {
        match self.scores {
            Elements::Magnitude(_) => self.mask_by(threshold, |w: &F| w.magnitude_key()),
            Elements::Each(_) => self.mask_by(threshold, |s: &F| s.order_key()),
        }
    }

    fn mask_by(
        &self,
        Threshold { key: least, ties }: Threshold,
        key: impl Fn(&F) -> u64 + Copy + Sync + Send,
    ) -> Mask {
        let (shape, values) = (self.parameter.shape(), self.values());
        if ties == 0 {
            return Mask::from_values(shape, values, |_| move |v: &F| key(v) >= least);
        }
        let tied =
            par::map_chunks(values, par::CHUNK, |_, chunk| chunk.iter().filter(|v| key(v) == least).count());
        let before: Vec<usize> =
            tied.iter().scan(0, |sum, n| Some(std::mem::replace(sum, *sum + n))).collect();
        Mask::from_values(shape, values, |chunk| {
            let mut ties = ties.saturating_sub(before[chunk]);
            move |v: &F| {
                let goes_by_tie = key(v) == least && ties > 0;
                ties -= usize::from(goes_by_tie);
                key(v) >= least && !goes_by_tie
            }
        })
    }

    /// Each output row on its own.
    fn per_row(&self) -> Mask {
        let (parameter, values, (bits, key)) = (self.parameter, self.values(), self.key());
        let (shape, axis) = (parameter.shape(), parameter.out_axis());
        let (rows, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let row_of = |k: usize| k / inner % rows;
        let mut members = vec![Vec::with_capacity(values.len() / rows); rows];
        (0..values.len()).for_each(|k| members[row_of(k)].push(k));
        let thresholds = par::map(rows, |row| {
            let keys: Vec<u64> = members[row].iter().map(|&k| key(&values[k])).collect();
            let threshold = select::smallest(&[&keys], |&k| k, bits, self.sparsity.of(keys.len()));
            // The last tie that goes, so that each weight can be judged alone.
            let mut tied = members[row].iter().zip(&keys).filter(|&(_, &k)| k == threshold.key);
            let last = threshold.ties.checked_sub(1).and_then(|n| tied.nth(n));
            (threshold.key, last.map(|(&k, _)| k))
        });
        Mask::from_fn(shape, |k| {
            let (least, last_tie) = thresholds[row_of(k)];
            let key = key(&values[k]);
            key > least || (key == least && last_tie.is_none_or(|last| k > last))
        })
    }
}

/// One threshold over all these layers.
fn global<F: Element>(layers: &[&Ranked<'_, F>], sparsity: Sparsity) -> Vec<(String, Mask)> {
    let parts: Vec<&[F]> = layers.iter().map(|l| l.values()).collect();
    let count = sparsity.of(parts.iter().map(|p| p.len()).sum());
    // Layers of one criterion are ranked alike: a criterion gives the same kind of score to each.
    let magnitude = layers.iter().all(|l| matches!(l.scores, Elements::Magnitude(_)));
    let threshold = if magnitude {
        select::smallest(&parts, |w: &F| w.magnitude_key(), F::MAGNITUDE_BITS, count)
    } else {
        select::smallest(&parts, |s: &F| s.order_key(), F::MAGNITUDE_BITS + 1, count)
    };
    let mut ties = threshold.ties;
    let mask = |layer: &&Ranked<'_, F>| {
        let own = Threshold { ties, ..threshold };
        let key = layer.key().1;
        ties -= ties
            .min(layer.values().iter().filter(|v| key(v) == threshold.key).count() * usize::from(ties > 0));
        (layer.parameter.name().to_owned(), layer.mask(own))
    };
    layers.iter().map(mask).collect()
}
