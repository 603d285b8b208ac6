//! A layer's codes and scales while they are learned.

use std::ops::Range;

use ndarray::Array2;
use ndarray::linalg::general_mat_mul;

use crate::evidence::objective::Rows;
use crate::kernel::{pack, par};
use crate::quantize::blocks::Blocks;
use crate::quantize::distillation::chunk::Chunk;
use crate::quantize::distillation::{descent, soft};
use crate::quantize::grid::{Grid, stored};
use crate::quantize::{QuantizedTensor, Scheme, Scope, Symmetry};
use crate::{Element, Error, Parameter, Result};

/// Rows that are learned together.
const ROWS: usize = 64;
/// Sweeps of the codes at most.
pub(super) const SWEEPS: usize = 10;
/// Scales that are tried first, from the widest that rows need down to a share of it.
const TRIES: usize = 16;

/// A layer's codes and scales.
#[derive(Clone, Debug)]
pub(super) struct Student<'a, F> {
    parameter: &'a Parameter<F>,
    pub(super) scheme: Scheme,
    pub(super) grid: Grid,
    blocks: Blocks,
    pub(super) rows: Rows,
    /// For each column of a row its scale, counted within the row, and the first column of each scale.
    pub(super) scale_of: Vec<usize>,
    pub(super) firsts: Vec<usize>,
    /// Whether all rows have the same scales.
    shared: bool,
    /// Codes less the zero point, row after row.
    steps: Vec<i16>,
    /// In the order of the tensor's.
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<u8>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    /// Steps of soft rounding.
    pub(super) steps: usize,
    /// Whether other scales are tried first.
    pub(super) search: bool,
}

impl<'a, F: Element> Student<'a, F> {
    /// What a tensor of integers holds.
    ///
    /// # Errors
    /// Another scheme.
    pub(super) fn new(parameter: &'a Parameter<F>, tensor: &QuantizedTensor) -> Result<Self> {
        let scheme = tensor.scheme().clone();
        let Scheme::Int { bits, symmetry, scope, scales } = scheme else {
            return Err(Error::unsupported(format!("layer `{}`: `{scheme}` has no steps", parameter.name())));
        };
        let (grid, rows) = (Grid { bits, symmetry, scales }, Rows::of(parameter));
        let blocks = Blocks::new(parameter.shape(), scope)?;
        let (mut scale_of, mut firsts, mut seen) = (Vec::with_capacity(rows.width), Vec::new(), Vec::new());
        for column in 0..rows.width {
            let scale = blocks.scale_of(rows.at(0, column));
            // Mostly the last one, or new.
            let known = seen.iter().rposition(|&other| other == scale);
            scale_of.push(known.unwrap_or(seen.len()));
            if known.is_none() {
                seen.push(scale);
                firsts.push(column);
            }
        }
        let shared = matches!(scope, Scope::Tensor | Scope::Model)
            || rows.count > 1 && blocks.scale_of(rows.at(1, 0)) == blocks.scale_of(rows.at(0, 0));
        let zeros = tensor.zero_points().unwrap_or_default().to_vec();
        let codes = tensor.codes()?;
        let step = |at: usize| match symmetry {
            Symmetry::Symmetric => i16::from(codes[at] as i8),
            Symmetry::Affine => i16::from(codes[at]) - i16::from(zeros[blocks.scale_of(at)]),
        };
        let steps = (0..rows.count * rows.width).map(|at| step(rows.at(at / rows.width, at % rows.width)));
        let (steps, scales) = (steps.collect(), tensor.scales().to_vec());
        Ok(Self { parameter, scheme, grid, blocks, rows, scale_of, firsts, shared, steps, scales, zeros })
    }

    /// The codes as a tensor.
    pub(super) fn tensor(&self) -> QuantizedTensor {
        let (rows, bits) = (self.rows, self.grid.bits.get());
        let mut codes = vec![0u8; self.steps.len()];
        for (k, &step) in self.steps.iter().enumerate() {
            let at = rows.at(k / rows.width, k % rows.width);
            let zero = self.zeros.get(self.blocks.scale_of(at)).copied().unwrap_or(0);
            codes[at] = (step + i16::from(zero)) as u8;
        }
        let nonzero = self.steps.iter().filter(|&&step| step != 0).count();
        let mut bytes = vec![0; pack::len(codes.len(), bits).unwrap_or(0)];
        pack::Code::pack(&codes, bits, &mut bytes);
        let (scales, zeros) = (self.scales.clone(), self.zeros.clone());
        QuantizedTensor::assemble(
            self.parameter.shape(),
            self.scheme.clone(),
            vec![bytes],
            scales,
            zeros,
            nonzero,
        )
    }

    /// Learns codes and scales for these matrices, one for each group. No row ends worse than it began; where rows
    /// share scales, all together do not.
    pub(super) fn learn(&mut self, grams: &[Array2<f64>], lesson: Lesson) {
        if self.shared {
            return self.learn_shared(grams, lesson);
        }
        self.change(|student, chunk, group| {
            let gram = &grams[group];
            let before = chunk.clone();
            let losses = chunk.losses(gram);
            let mut best = losses.clone();
            for share in student.tries().filter(|_| lesson.search) {
                let mut other = chunk.clone();
                other.scales = before.widest() * share;
                other.round();
                descent::descend(&mut other, gram, 1, false);
                let theirs = other.losses(gram);
                chunk.take_better(&mut best, &other, &theirs);
            }
            descent::descend(chunk, gram, SWEEPS, true);
            best = chunk.losses(gram);
            if lesson.steps > 0 {
                let mut other = chunk.clone();
                soft::learn(&mut other, gram, lesson.steps, true);
                descent::descend(&mut other, gram, SWEEPS, true);
                let theirs = other.losses(gram);
                chunk.take_better(&mut best, &other, &theirs);
            }
            student.settle(chunk, &before);
            descent::descend(chunk, gram, SWEEPS, false);
            let mut best = chunk.losses(gram);
            chunk.take_better(&mut best, &before, &losses);
        });
    }

    /// δ·G·δᵀ of each row.
    pub(super) fn losses(&self, grams: &[Array2<f64>]) -> Vec<f64> {
        let chunks = self.chunks();
        let of = |k: usize| self.chunk(chunks[k].clone()).losses(&grams[self.rows.group(chunks[k].start)]);
        par::map(chunks.len(), of).concat()
    }

    /// w·G·wᵀ of all rows.
    pub(super) fn teacher(&self, grams: &[Array2<f64>]) -> f64 {
        let chunks = self.chunks();
        let of = |k: usize| {
            let weights = self.chunk(chunks[k].clone()).weights;
            (weights.dot(&grams[self.rows.group(chunks[k].start)]) * weights).sum()
        };
        par::map(chunks.len(), of).iter().sum()
    }

    /// Dᵀ·D for each group, D what student and teacher differ by.
    pub(super) fn differences(&self) -> Vec<Array2<f64>> {
        let width = self.rows.width;
        let groups = self.rows.group(self.rows.count - 1) + 1;
        let mut all = vec![Array2::zeros((width, width)); groups];
        for rows in self.chunks() {
            let errors = self.chunk(rows.clone()).errors();
            general_mat_mul(1.0, &errors.t(), &errors, 1.0, &mut all[self.rows.group(rows.start)]);
        }
        all
    }

    /// Takes the rows of another student that lose less here; all or none where rows share scales. How many it took.
    pub(super) fn take_better(&mut self, other: &Self, grams: &[Array2<f64>]) -> usize {
        let (ours, theirs) = (self.losses(grams), other.losses(grams));
        if self.shared {
            let worse = theirs.iter().sum::<f64>() < ours.iter().sum::<f64>();
            if worse {
                *self = other.clone();
            }
            return if worse { self.rows.count } else { 0 };
        }
        let mut taken = 0;
        for row in (0..self.rows.count).filter(|&row| theirs[row] < ours[row]) {
            taken += 1;
            let own = row * self.rows.width..(row + 1) * self.rows.width;
            self.steps[own.clone()].copy_from_slice(&other.steps[own]);
            for scale in 0..self.firsts.len() {
                let at = self.scale_at(row, scale);
                self.scales[at] = other.scales[at];
            }
        }
        taken
    }

    pub(super) fn tries(&self) -> impl Iterator<Item = f64> + use<F> {
        // Fewer codes are worth cutting more weights for.
        let least = match self.grid.levels() {
            ..=1.0 => 0.25,
            ..=3.0 => 0.4,
            _ => 0.5,
        };
        (0..TRIES).map(move |k| least + (1.0 - least) * k as f64 / (TRIES - 1) as f64)
    }

    pub(super) fn scale_at(&self, row: usize, scale: usize) -> usize {
        self.blocks.scale_of(self.rows.at(row, self.firsts[scale]))
    }

    /// Runs of rows of one group each.
    pub(super) fn chunks(&self) -> Vec<Range<usize>> {
        let groups = 0..self.rows.group(self.rows.count - 1) + 1;
        let of_group = |group: usize| {
            let rows = self.rows.of_group(group);
            rows.clone().step_by(ROWS).map(move |start| start..(start + ROWS).min(rows.end))
        };
        groups.flat_map(of_group).collect()
    }

    pub(super) fn chunk(&self, rows: Range<usize>) -> Chunk<'_> {
        let (width, values) = (self.rows.width, self.parameter.values());
        let at = |(row, k): (usize, usize)| self.scale_at(rows.start + row, k);
        let scales = (rows.len(), self.firsts.len());
        Chunk {
            weights: Array2::from_shape_fn((rows.len(), width), |(row, column)| {
                values[self.rows.at(rows.start + row, column)].widen()
            }),
            steps: Array2::from_shape_fn((rows.len(), width), |(row, column)| {
                f64::from(self.steps[(rows.start + row) * width + column])
            }),
            scales: Array2::from_shape_fn(scales, |place| f64::from(self.scales[at(place)])),
            ends: Array2::from_shape_fn(scales, |place| {
                self.grid.ends(self.zeros.get(at(place)).copied().unwrap_or(0))
            }),
            scale_of: &self.scale_of,
        }
    }

    /// Lets `f` change each chunk, of which it is told the group.
    pub(super) fn change(&mut self, f: impl Fn(&Self, &mut Chunk<'_>, usize) + Sync + Send) {
        let chunks = self.chunks();
        let changed = par::map(chunks.len(), |k| {
            let mut chunk = self.chunk(chunks[k].clone());
            f(self, &mut chunk, self.rows.group(chunks[k].start));
            (chunk.steps.mapv(|step| step as i16), chunk.scales.mapv(|scale| scale as f32))
        });
        for (rows, (steps, scales)) in chunks.into_iter().zip(changed) {
            let from = rows.start * self.rows.width;
            self.steps[from..from + steps.len()].iter_mut().zip(steps).for_each(|(ours, step)| *ours = step);
            for ((row, k), scale) in scales.indexed_iter() {
                let at = self.scale_at(rows.start + row, k);
                self.scales[at] = *scale;
            }
        }
    }

    /// A scale as it can be stored; `None` where there is no such number.
    pub(super) fn storable(&self, scale: f64, ends: (f64, f64)) -> Option<f64> {
        let reach = ends.1.max(-ends.0);
        let near = match self.grid.symmetry {
            Symmetry::Symmetric => self.grid.fit(0.0, scale * reach).ok()?.scale,
            Symmetry::Affine => stored(scale as f32, self.grid.scales).ok()?,
        };
        // What is too small for a step comes back as 1.
        let fits = scale >= f64::from(f32::MIN_POSITIVE) && (reach as f32 * near).is_finite();
        fits.then_some(f64::from(near))
    }

    /// Makes all scales storable; a row in which one is not goes back to what it was.
    fn settle(&self, chunk: &mut Chunk<'_>, before: &Chunk<'_>) {
        for row in 0..chunk.weights.nrows() {
            let scales: Option<Vec<f64>> = (0..chunk.scales.ncols())
                .map(|k| self.storable(chunk.scales[[row, k]], chunk.ends[[row, k]]))
                .collect();
            if let Some(scales) = scales {
                scales.iter().enumerate().for_each(|(k, &s)| chunk.scales[[row, k]] = s);
            } else {
                chunk.steps.row_mut(row).assign(&before.steps.row(row));
                chunk.scales.row_mut(row).assign(&before.scales.row(row));
            }
        }
    }
}
