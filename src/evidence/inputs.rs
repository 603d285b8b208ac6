//! Statistics of a weight's inputs, unfolded as the weight reads them.

use ndarray::{Array1, Array2, Axis};

use crate::evidence::gram::{self, Patches, Plain};
use crate::evidence::rows::Rows;
use crate::evidence::sums::Sums;
use crate::evidence::unfold::{Planes, Unfold};
use crate::evidence::{Shape, shifts, sums};
use crate::kernel::par;
use crate::{Element, Error, Kind, Result};

/// Channels of a group from which on a Gram matrix is made of shifted planes; patches of fewer are unfolded.
const SHIFTED: usize = 8;

/// What a weight read: for each group of a convolution (all else has one), statistics of its d input columns.
///
/// A linear layer has a column for each input feature. A convolution has one for each (channel of the group,
/// tap), in the order of its weights [out, channel, taps…]: its input is unfolded into the patches that each
/// output position sees, zeros of the padding included.
///
/// ```
/// use ndarray::{Array, array};
/// use niwaki::{Evidence, Geometry, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let conv = Parameter::conv("conv", Array::<f32, _>::ones((1, 1, 2)), Geometry::new());
/// let model = Model::builder().parameter(conv).build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// evidence.record_input("conv", &array![[[1.0f32, 2.0, 4.0]]])?;
/// let layer = evidence.layer(&model, "conv")?;
/// let inputs = layer.inputs()?;
/// // The kernel sees 1 2, then 2 4.
/// assert_eq!((inputs.rows(), inputs.groups()), (2, 1));
/// assert_eq!((inputs.mean(0), inputs.mean_squares(0)), (array![1.5, 3.0], array![2.5, 10.0]));
/// assert_eq!(inputs.norms(0)[1], 20f64.sqrt());
/// assert_eq!(inputs.max_abs(0), array![4.0, 4.0]);
/// assert_eq!(inputs.gram(0), Some(&array![[5.0, 10.0], [10.0, 20.0]]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    pub(super) rows: u64,
    pub(super) groups: Vec<Columns>,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    pub(super) sum: Array1<f64>,
    pub(super) squares: Array1<f64>,
    pub(super) peaks: Array1<f64>,
    pub(super) gram: Option<Array2<f64>>,
}

impl Inputs {
    /// Takes in one batch. Nothing changes where it does not fit.
    pub(super) fn record<F: Element>(
        slot: &mut Option<Self>,
        layer: &str,
        shape: &Shape,
        batch: &Rows<'_, F>,
        gram: bool,
    ) -> Result<()> {
        let wrong = |wants: String| {
            Err(Error::shape(format!("layer `{layer}`: its input {:?} should have {wants}", batch.dims)))
        };
        let Some(in_axis) = shape.in_axis.filter(|_| shape.kind != Kind::Embedding) else {
            return Err(Error::unsupported(format!("layer `{layer}`: an embedding's inputs are indices")));
        };
        let features = shape.dims[in_axis];
        let Kind::Conv(geometry) = shape.kind else {
            if batch.dims.len() < 2 || batch.dims.last() != Some(&features) {
                return wrong(format!("{features} features on its last axis"));
            }
            slot.get_or_insert_with(|| Self::empty(1, features, gram)).add_rows(&batch.values);
            return Ok(());
        };
        let (channels, kernel) = (features * geometry.groups, &shape.dims[2..]);
        if batch.dims.len() != kernel.len() + 2 || batch.dims[1] != channels {
            return wrong(format!("{channels} channels on axis 1 and {} axes of positions", kernel.len()));
        }
        let Some(unfold) = Unfold::new(geometry, kernel, &batch.dims[2..]) else {
            return wrong(format!("room for a kernel of {kernel:?}"));
        };
        let width = features * unfold.taps();
        slot.get_or_insert_with(|| Self::empty(geometry.groups, width, gram)).add_patches(batch, &unfold);
        Ok(())
    }

    /// Takes in rows that are unfolded already: for each group, rows of its columns.
    #[cfg(feature = "rten")]
    pub(super) fn record_columns(slot: &mut Option<Self>, groups: &[Array2<f64>], gram: bool) -> bool {
        let width = groups.first().map_or(0, Array2::ncols);
        let inputs = slot.get_or_insert_with(|| Self::empty(groups.len(), width, gram));
        let fits = |(columns, rows): (&Columns, &Array2<f64>)| columns.sum.len() == rows.ncols();
        if inputs.groups.len() != groups.len() || !inputs.groups.iter().zip(groups).all(fits) {
            return false;
        }
        for (columns, rows) in inputs.groups.iter_mut().zip(groups) {
            let values = rows.as_slice().unwrap_or_default();
            columns.add(&sums::of_columns(values, rows.ncols()));
            if let Some(gram) = &mut columns.gram {
                gram::add_rows(gram, values);
            }
        }
        inputs.rows += groups.first().map_or(0, Array2::nrows) as u64;
        true
    }

    fn empty(groups: usize, width: usize, gram: bool) -> Self {
        let group = Columns {
            sum: Array1::zeros(width),
            squares: Array1::zeros(width),
            peaks: Array1::zeros(width),
            gram: gram.then(|| Array2::zeros((width, width))),
        };
        Self { rows: 0, groups: vec![group; groups] }
    }

    fn add_rows<F: Element>(&mut self, values: &[F]) {
        for columns in &mut self.groups {
            let width = columns.sum.len();
            let seen = sums::of_columns(values, width);
            columns.add(&seen);
            let (x, rows) = (Plain { values, width }, values.len() / width);
            match &mut columns.gram {
                Some(gram) if mild(&seen, rows) => gram::add_gram::<F>(gram, &x),
                Some(gram) => gram::add_gram::<f64>(gram, &x),
                None => {}
            }
            self.rows += rows as u64;
        }
    }

    fn add_patches<F: Element>(&mut self, batch: &Rows<'_, F>, unfold: &Unfold) {
        let (samples, dims) = (batch.dims[0], &batch.dims[2..]);
        let (sample, plane): (usize, usize) = (batch.values.len() / samples, dims.iter().product());
        let channels = batch.dims[1] / self.groups.len();
        let Sums { totals: sums, squares, peaks } = sums::of_columns(&batch.values, sample);
        let windows = |planes: &[f64]| {
            let channels =
                par::map(planes.len() / plane, |c| unfold.window_sums(&planes[c * plane..(c + 1) * plane]));
            channels.concat()
        };
        let (sums, squares) = (windows(&sums), windows(&squares));
        // Of the whole plane, for every tap.
        let most = |plane: &[f64]| plane.iter().fold(0.0, |most: f64, x| most.max(*x));
        let peaks: Vec<f64> = peaks.chunks_exact(plane).map(most).collect();
        let places = unfold.places();
        par::for_chunks_mut(&mut self.groups, 1, |group, columns| {
            let Some(columns) = columns.first_mut() else { return };
            let own = group * channels * unfold.taps()..(group + 1) * channels * unfold.taps();
            let peaks = &peaks[group * channels..(group + 1) * channels];
            let seen = Sums {
                totals: sums[own.clone()].to_vec(),
                squares: squares[own].to_vec(),
                peaks: peaks.iter().flat_map(|&peak| std::iter::repeat_n(peak, unfold.taps())).collect(),
            };
            columns.add(&seen);
            let Some(gram) = &mut columns.gram else { return };
            let values = &batch.values[group * channels * plane..];
            let planes = Planes { values, dims, sample };
            let patches = Patches { planes, unfold, places: &places, channels, samples };
            // Unfolding goes through the padding, which may be most of the patches.
            let padded = unfold.positions > 8 * plane;
            let shifted = padded || (channels >= SHIFTED && unfold.taps() > 1);
            match (mild(&seen, samples * unfold.positions), shifted) {
                (true, true) => shifts::add_gram::<F, F>(gram, &patches),
                (true, false) => gram::add_gram::<F>(gram, &patches),
                (false, true) => shifts::add_gram::<f64, F>(gram, &patches),
                (false, false) => gram::add_gram::<f64>(gram, &patches),
            }
        });
        self.rows += samples as u64 * unfold.positions as u64;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        for (ours, theirs) in self.groups.iter_mut().zip(&other.groups) {
            ours.sum += &theirs.sum;
            ours.squares += &theirs.squares;
            ours.peaks.zip_mut_with(&theirs.peaks, |peak, x| *peak = peak.max(*x));
            if let (Some(ours), Some(theirs)) = (&mut ours.gram, &theirs.gram) {
                *ours += theirs;
            }
        }
    }

    /// Multiplies each channel of each group; a channel is as many columns as it has taps.
    pub(super) fn rescale(&mut self, factors: &[Vec<f64>]) {
        for (columns, channels) in self.groups.iter_mut().zip(factors) {
            let taps = columns.sum.len() / channels.len().max(1);
            let of: Array1<f64> = channels.iter().flat_map(|&f| std::iter::repeat_n(f, taps)).collect();
            if of.len() == columns.sum.len() {
                columns.rescale(&of);
            }
        }
    }

    /// Only these groups, and in each the columns of these channels (`taps` columns a channel).
    pub(super) fn select(&self, groups: Option<&[usize]>, channels: Option<&[usize]>, taps: usize) -> Self {
        let all: Vec<usize> = (0..self.groups.len()).collect();
        let columns = channels.map(|c| c.iter().flat_map(|c| c * taps..(c + 1) * taps).collect::<Vec<_>>());
        let cut = |&g: &usize| match &columns {
            None => self.groups[g].clone(),
            Some(columns) => Columns {
                sum: self.groups[g].sum.select(Axis(0), columns),
                squares: self.groups[g].squares.select(Axis(0), columns),
                peaks: self.groups[g].peaks.select(Axis(0), columns),
                gram: self.groups[g]
                    .gram
                    .as_ref()
                    .map(|m| m.select(Axis(0), columns).select(Axis(1), columns)),
            },
        };
        Self { rows: self.rows, groups: groups.unwrap_or(&all).iter().map(cut).collect() }
    }

    /// How many rows were seen: samples times the positions that read them.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Mean of each column of a group; empty for a group that is not there.
    pub fn mean(&self, group: usize) -> Array1<f64> {
        let rows = self.rows.max(1) as f64;
        self.groups.get(group).map_or_else(|| Array1::zeros(0), |columns| &columns.sum / rows)
    }

    /// ‖`x_j‖₂` over all rows, for each column of a group; empty for a group that is not there.
    pub fn norms(&self, group: usize) -> Array1<f64> {
        self.groups.get(group).map_or_else(|| Array1::zeros(0), |columns| columns.squares.mapv(f64::sqrt))
    }

    /// Mean square of each column of a group; empty for a group that is not there.
    pub fn mean_squares(&self, group: usize) -> Array1<f64> {
        let rows = self.rows.max(1) as f64;
        self.groups.get(group).map_or_else(|| Array1::zeros(0), |columns| &columns.squares / rows)
    }

    /// Largest |x| of each column of a group, of a convolution that of the whole channel, which one of its taps may not
    /// reach; empty for a group that is not there.
    pub fn max_abs(&self, group: usize) -> Array1<f64> {
        self.groups.get(group).map_or_else(|| Array1::zeros(0), |columns| columns.peaks.clone())
    }

    /// Σ x·xᵀ of a group; kept with [`Needs::GRAM`](crate::Needs::GRAM).
    ///
    /// Runs of at most 512 rows are multiplied in the element type and added up in f64: for f32 within about 10⁻⁷ of
    /// ‖`x_i`‖·‖`x_j`‖. Where a column's mean is more than 8 times its standard deviation, or its squares are out of the
    /// range of f32, products are in f64 too.
    pub fn gram(&self, group: usize) -> Option<&Array2<f64>> {
        self.groups.get(group)?.gram.as_ref()
    }
}

impl Columns {
    fn rescale(&mut self, factors: &Array1<f64>) {
        self.sum *= factors;
        self.squares *= &(factors * factors);
        self.peaks *= factors;
        if let Some(gram) = &mut self.gram {
            *gram *= factors;
            gram.axis_iter_mut(Axis(0)).zip(factors).for_each(|(mut row, &factor)| row *= factor);
        }
    }

    fn add(&mut self, seen: &Sums) {
        self.sum.iter_mut().zip(&seen.totals).for_each(|(sum, x)| *sum += x);
        self.squares.iter_mut().zip(&seen.squares).for_each(|(sum, x)| *sum += x);
        self.peaks.iter_mut().zip(&seen.peaks).for_each(|(peak, x)| *peak = peak.max(*x));
    }
}

/// Whether the Gram matrix may be made of products in the element type: no column's mean is more than 8 times its
/// standard deviation, so that what they lose is as small beside its part around the mean, and none is so large or
/// small that squares leave the range of f32.
fn mild(seen: &Sums, rows: usize) -> bool {
    let rows = rows as f64;
    seen.totals.iter().zip(&seen.squares).all(|(sum, &square)| {
        let in_range = square == 0.0 || square < 1e30 && square > 1e-24 * rows;
        in_range && 65.0 * sum * sum <= 64.0 * square * rows
    })
}
