//! The sweep over all rows of a weight, beside nearest rounding.

use super::Gptq;
use super::group::{Group, stride};
use crate::Element;
use crate::evidence::objective::{Objective, Rows};
use crate::kernel::par;
use crate::quantize::blocks::Blocks;
use crate::quantize::grid::{Fit, Grid};
use crate::quantize::{Outcome, Range};

/// Nearest rounding of the same weight, from which the sweep starts and with which it is compared.
#[derive(Debug)]
pub(crate) struct Start<'a, F> {
    pub(crate) values: &'a [F],
    /// Neighbouring columns that belong to one channel.
    pub(crate) taps: usize,
    pub(crate) grid: Grid,
    pub(crate) blocks: Blocks,
    pub(crate) range: Range,
    /// A code a byte, in the order of the weights.
    pub(crate) codes: Vec<u8>,
    pub(crate) fits: Vec<Fit>,
}

/// Codes, a byte each in the order of the weights, and their scales.
#[derive(Debug)]
pub(crate) struct Learned {
    pub(crate) codes: Vec<u8>,
    pub(crate) fits: Vec<Fit>,
    pub(crate) outcome: Outcome,
}

/// Rounds a weight.
pub(crate) fn learn<F: Element>(gptq: Gptq, objective: &Objective<'_>, start: Start<'_, F>) -> Learned {
    let rows = objective.rows;
    let groups = par::map(objective.grams.len(), |group| Group::new(gptq, objective, group, &start).sweep());
    let (mut sums, mut notes, mut kept) = (Sums::default(), Vec::new(), 0);
    if let Some(samples) = objective.samples.filter(|&n| n < rows.width as u64) {
        let width = rows.width;
        notes.push(format!("{samples} rows of inputs for {width} columns: damping stands in for the rest"));
    }
    let stride = stride(rows);
    if stride > 1 {
        notes.push(format!("the errors told are those of one row in {stride}"));
    }
    let Start { blocks, mut codes, mut fits, .. } = start;
    for (group, (chunks, note)) in groups.into_iter().enumerate() {
        notes.extend(note.filter(|note| !notes.contains(note)));
        let mut row = rows.of_group(group).start;
        for chunk in chunks {
            for lane in 0..chunk.lanes {
                chunk.put(lane, row + lane, rows, blocks, &mut codes, &mut fits);
            }
            kept += chunk.nearest;
            sums.add(&chunk.sums);
            row += chunk.lanes;
        }
    }
    let share = |sum: f64| if sums.weights > 0.0 { sum / sums.weights } else { 0.0 };
    let outcome = Outcome {
        error: share(sums.error),
        nearest: share(sums.nearest),
        rows: rows.count,
        rows_nearest: kept,
        notes,
        ..Outcome::default()
    };
    Learned { codes, fits, outcome }
}

/// Σ over rows of x·G·xᵀ.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) error: f64,
    pub(super) nearest: f64,
    pub(super) weights: f64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.error += other.error;
        self.nearest += other.nearest;
        self.weights += other.weights;
    }
}

/// What became of some rows.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) lanes: usize,
    /// [lanes, columns]; empty where nearest rounding stays
    pub(super) codes: Vec<u8>,
    /// [slots, lanes], and the first column of each slot
    pub(super) fits: Vec<Fit>,
    pub(super) columns: Vec<usize>,
    /// How many rows nearest rounding serves better.
    pub(super) nearest: usize,
    pub(super) sums: Sums,
}

impl Chunk {
    /// Writes a row where it belongs.
    fn put(&self, lane: usize, row: usize, rows: Rows, blocks: Blocks, codes: &mut [u8], fits: &mut [Fit]) {
        let own = self.codes.chunks_exact(rows.width).nth(lane).unwrap_or_default();
        if rows.at(row, 0) + 1 == rows.at(row, 1) {
            let start = rows.at(row, 0);
            codes[start..start + own.len()].copy_from_slice(own);
        } else {
            own.iter().enumerate().for_each(|(column, &code)| codes[rows.at(row, column)] = code);
        }
        for (slot, &column) in self.columns.iter().enumerate() {
            fits[blocks.scale_of(rows.at(row, column))] = self.fits[slot * self.lanes + lane];
        }
    }
}
