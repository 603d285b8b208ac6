//! Which weights go while errors are fed forward.

use std::ops::Range;

use crate::Element;
use crate::kernel::sweep::Choice;

/// What is to go from a chunk of rows.
#[derive(Clone, Copy)]
pub(crate) enum Pattern<'a> {
    /// Only what is 0 already.
    Zeros,
    /// Of the first k cells of the whole weight, counted chunk by chunk, this many. `before` are the cells of the
    /// chunks before this one.
    Share { quota: &'a (dyn Fn(usize) -> usize + Sync), before: usize },
    /// All but `keep` of every `of` columns in the order of the sweep.
    NOfM { keep: usize, of: usize },
}

impl std::fmt::Debug for Pattern<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Zeros => write!(f, "Zeros"),
            Self::Share { before, .. } => write!(f, "Share({before})"),
            Self::NOfM { keep, of } => write!(f, "NOfM({keep}, {of})"),
        }
    }
}

/// Which weights of a chunk of rows stay: 1 or 0, [columns in the order of the sweep, lanes].
#[derive(Debug)]
pub(crate) struct Thinning<'a, F> {
    pattern: Pattern<'a>,
    lanes: usize,
    costs: &'a [f64],
    pub(crate) keeps: Vec<F>,
    /// Weights that went from the columns that were looked at.
    gone: usize,
}

impl<'a, F: Element> Thinning<'a, F> {
    /// For weights of which those that are 0 stay 0. `costs` are those of the feedback.
    pub(crate) fn new(pattern: Pattern<'a>, costs: &'a [f64], weights: &[F], lanes: usize) -> Self {
        let keeps = weights.iter().map(|w| if w.is_zero() { F::zero() } else { F::one() }).collect();
        Self { pattern, lanes, costs, keeps, gone: 0 }
    }

    /// Where it is known what stays.
    pub(crate) fn known(keeps: Vec<F>, lanes: usize) -> Self {
        Self { pattern: Pattern::Zeros, lanes, costs: &[], keeps, gone: 0 }
    }

    /// Columns that must be looked at together, where up to `block` are asked for; 0 for none.
    pub(crate) fn section(&self, block: usize) -> usize {
        match self.pattern {
            Pattern::Zeros => 0,
            Pattern::Share { .. } => block,
            Pattern::NOfM { of, .. } => of,
        }
    }

    /// Takes those weights of some columns whose loss costs least after what the columns before ask of
    /// them: their square times the cost of their column.
    pub(crate) fn look(&mut self, columns: Range<usize>, weights: &[F]) {
        let lanes = self.lanes;
        let cells = columns.start * lanes..columns.end * lanes;
        let keeps = &mut self.keeps[cells.clone()];
        let cost = |k: usize, keeps: &[F]| {
            let cost = weights[k].widen().powi(2) * self.costs[columns.start + k / lanes];
            if keeps[k].is_zero() { -1.0 } else { cost }
        };
        match self.pattern {
            Pattern::Zeros => {}
            Pattern::Share { quota, before } => {
                let quota = (quota(before + cells.end) - quota(before)).saturating_sub(self.gone);
                let mut order: Vec<(f64, usize)> = (0..keeps.len()).map(|k| (cost(k, keeps), k)).collect();
                let by_cost = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
                if quota < order.len() {
                    order.select_nth_unstable_by(quota, by_cost);
                }
                order.iter().take(quota).for_each(|&(_, k)| keeps[k] = F::zero());
                self.gone += keeps.iter().filter(|keep| keep.is_zero()).count();
            }
            Pattern::NOfM { keep, of } => {
                let units = columns.len() / of;
                let mut order = Vec::with_capacity(of);
                for (unit, lane) in (0..units).flat_map(|unit| (0..lanes).map(move |lane| (unit, lane))) {
                    order.clear();
                    order
                        .extend((0..of).map(|k| (unit * of + k) * lanes + lane).map(|k| (cost(k, keeps), k)));
                    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    order.iter().take(of - keep).for_each(|&(_, k)| keeps[k] = F::zero());
                }
            }
        }
    }
}

/// Weights that stay keep what the sweep makes of them; the others become 0.
#[derive(Debug)]
pub(crate) struct Values<'a, F> {
    pub(crate) thinning: Thinning<'a, F>,
    /// Columns that are thinned out together.
    pub(crate) block: usize,
    /// [columns in the order of the sweep, lanes]
    pub(crate) chosen: Vec<F>,
}

impl<'a, F: Element> Values<'a, F> {
    pub(crate) fn new(thinning: Thinning<'a, F>, block: usize) -> Self {
        let chosen = vec![F::zero(); thinning.keeps.len()];
        Self { thinning, block, chosen }
    }
}

impl<F: Element> Choice<F> for Values<'_, F> {
    fn section(&self) -> usize {
        self.thinning.section(self.block)
    }

    fn look(&mut self, columns: Range<usize>, weights: &[F]) {
        self.thinning.look(columns, weights);
    }

    fn choose(&mut self, column: usize, weights: &[F], values: &mut [F]) {
        let at = column * weights.len()..(column + 1) * weights.len();
        let kept = values.iter_mut().zip(weights).zip(&self.thinning.keeps[at.clone()]);
        kept.for_each(|((to, &w), &keep)| *to = w * keep);
        self.chosen[at].copy_from_slice(values);
    }
}
