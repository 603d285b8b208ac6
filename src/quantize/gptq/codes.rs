//! Codes as the sweep chooses them.

use std::ops::Range as Columns;

use crate::Element;
use crate::kernel::round::{clamp, half_even, integer};
use crate::kernel::sweep::{Choice, Thinning};
use crate::quantize::Range;
use crate::quantize::grid::{Fit, Grid};
use crate::quantize::ranges::{Importance, Piece};

/// The scales of a chunk of rows: [slots, lanes], a slot for each scale that the columns of a row have.
#[derive(Debug)]
pub(super) struct Scales<'a> {
    pub(super) fits: Vec<Fit>,
    /// The slot of each column in the order of the sweep.
    pub(super) slots: &'a [usize],
    /// Found when the sweep reaches them: the range, and how much of it; slots are this many columns each.
    pub(super) found: Option<(Range, f64, usize)>,
    /// What an error in each column counts.
    pub(super) importance: &'a [f64],
}

/// Codes of a chunk of rows. Everything is [columns in the order of the sweep, lanes].
pub(super) struct Codes<'a, F> {
    grid: Grid,
    lanes: usize,
    pub(super) scales: Scales<'a>,
    pub(super) thinning: Thinning<'a, F>,
    block: usize,
    loaded: Option<usize>,
    scale: Vec<F>,
    low: Vec<F>,
    high: Vec<F>,
    zero: Vec<u8>,
    pub(super) chosen: Vec<u8>,
}

impl<'a, F: Element> Codes<'a, F> {
    /// `block` columns are thinned out together.
    pub(super) fn new(
        grid: Grid,
        lanes: usize,
        scales: Scales<'a>,
        thinning: Thinning<'a, F>,
        block: usize,
    ) -> Self {
        let none = vec![F::zero(); lanes];
        Self {
            grid,
            lanes,
            chosen: vec![0; thinning.keeps.len()],
            scales,
            thinning,
            block,
            loaded: None,
            scale: none.clone(),
            low: none.clone(),
            high: none,
            zero: vec![0; lanes],
        }
    }

    /// The scales of a slot.
    fn load(&mut self, slot: usize) {
        if self.loaded == Some(slot) {
            return;
        }
        self.loaded = Some(slot);
        for (lane, &fit) in self.scales.fits[slot * self.lanes..(slot + 1) * self.lanes].iter().enumerate() {
            let step = self.grid.step(fit);
            (self.scale[lane], self.low[lane], self.high[lane]) = (step.scale, step.low, step.high);
            self.zero[lane] = step.zero;
        }
    }

    /// The scales of a group from the weights that stay in it, as they now are.
    fn find(&mut self, columns: Columns<usize>, weights: &[F]) {
        let Some((range, share, size)) = self.scales.found else { return };
        let lanes = self.lanes;
        let importance: Vec<F> =
            self.scales.importance[columns.clone()].iter().map(|&h| F::narrow(h)).collect();
        let keeps = &self.thinning.keeps[columns.start * lanes..];
        let slot = columns.start / size * lanes;
        let mut values = vec![F::zero(); columns.len()];
        for lane in 0..lanes {
            let at = |k: usize| k * lanes + lane;
            values.iter_mut().enumerate().for_each(|(k, to)| *to = weights[at(k)] * keeps[at(k)]);
            let (low, high) = if range == Range::MinMax {
                let ends = values.iter().fold((F::zero(), F::zero()), |(a, b), &w| (a.min(w), b.max(w)));
                (ends.0.widen(), ends.1.widen())
            } else {
                let importance = Importance::Each(importance.clone());
                range.find(self.grid, &[Piece { values: values.as_slice().into(), importance }])
            };
            let fit = self.grid.fit(low * share, high * share);
            self.scales.fits[slot + lane] = fit.unwrap_or(Fit::NONE);
        }
    }
}

impl<F: Element> Choice<F> for Codes<'_, F> {
    fn section(&self) -> usize {
        self.scales.found.map_or_else(|| self.thinning.section(self.block), |(_, _, size)| size)
    }

    fn look(&mut self, columns: Columns<usize>, weights: &[F]) {
        self.thinning.look(columns.clone(), weights);
        self.find(columns, weights);
    }

    fn choose(&mut self, column: usize, weights: &[F], values: &mut [F]) {
        self.load(self.scales.slots[column]);
        let at = column * self.lanes..(column + 1) * self.lanes;
        let keeps = &self.thinning.keeps[at.clone()];
        let steps = values.iter_mut().zip(weights).zip(self.scale.iter().zip(&self.low).zip(&self.high));
        for (((to, &w), ((&scale, &low), &high)), &keep) in steps.zip(keeps) {
            *to = half_even(clamp(w / scale, low, high)) * keep;
        }
        for ((code, &steps), &zero) in self.chosen[at].iter_mut().zip(values.iter()).zip(&self.zero) {
            *code = (integer(steps) as u8).wrapping_add(zero);
        }
        values.iter_mut().zip(&self.scale).for_each(|(to, &scale)| *to *= scale);
    }
}
