//! Statistics of a weight's inputs, unfolded as the weight reads them.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::evidence::Shape;
use crate::evidence::rows::Rows;
use crate::kernel::linalg;
use crate::{Error, Geometry, Kind, Result};

/// Rows unfolded at a time.
const ROWS: usize = 4096;

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
/// assert_eq!(inputs.gram(0), Some(&array![[5.0, 10.0], [10.0, 20.0]]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    rows: u64,
    groups: Vec<Columns>,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
struct Columns {
    sum: Array1<f64>,
    squares: Array1<f64>,
    gram: Option<Array2<f64>>,
}

impl Inputs {
    /// Statistics of one batch.
    pub(super) fn of(layer: &str, shape: &Shape, batch: &Rows, gram: bool) -> Result<Self> {
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
            let mut inputs = Self::empty(1, features, gram);
            batch.values.chunks(ROWS * features).for_each(|rows| inputs.add(0, rows));
            inputs.rows = (batch.values.len() / features) as u64;
            return Ok(inputs);
        };
        let (channels, kernel) = (features * geometry.groups, &shape.dims[2..]);
        if batch.dims.len() != kernel.len() + 2 || batch.dims[1] != channels {
            return wrong(format!("{channels} channels on axis 1 and {} axes of positions", kernel.len()));
        }
        let Some(unfold) = Unfold::new(geometry, kernel, &batch.dims[2..]) else {
            return wrong(format!("room for a kernel of {kernel:?}"));
        };
        let mut inputs = Self::empty(geometry.groups, features * unfold.taps(), gram);
        let (sample, per_group) = (channels * unfold.plane(), features * unfold.plane());
        let (mut table, mut rows) = (Vec::new(), Vec::new());
        for start in (0..unfold.positions).step_by(ROWS) {
            unfold.look_up(start..unfold.positions.min(start + ROWS), &mut table);
            for group in 0..geometry.groups {
                for image in batch.values.chunks_exact(sample) {
                    let image = &image[group * per_group..(group + 1) * per_group];
                    append_patches(image, unfold.plane(), &table, unfold.taps(), &mut rows);
                    if rows.len() >= ROWS * features * unfold.taps() {
                        inputs.add(group, &rows);
                        rows.clear();
                    }
                }
                inputs.add(group, &rows);
                rows.clear();
            }
        }
        inputs.rows = batch.dims[0] as u64 * unfold.positions as u64;
        Ok(inputs)
    }

    fn empty(groups: usize, width: usize, gram: bool) -> Self {
        let group = Columns {
            sum: Array1::zeros(width),
            squares: Array1::zeros(width),
            gram: gram.then(|| Array2::zeros((width, width))),
        };
        Self { rows: 0, groups: vec![group; groups] }
    }

    fn add(&mut self, group: usize, rows: &[f64]) {
        let columns = &mut self.groups[group];
        let width = columns.sum.len();
        let Ok(rows) = ArrayView2::from_shape((rows.len() / width, width), rows) else { return };
        for row in rows.rows() {
            columns.sum += &row;
            columns.squares.zip_mut_with(&row, |sum, x| *sum += x * x);
        }
        if let Some(gram) = &mut columns.gram {
            linalg::add_gram(gram, &rows);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        for (ours, theirs) in self.groups.iter_mut().zip(&other.groups) {
            ours.sum += &theirs.sum;
            ours.squares += &theirs.squares;
            if let (Some(ours), Some(theirs)) = (&mut ours.gram, &theirs.gram) {
                *ours += theirs;
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

    /// Σ x·xᵀ of a group; kept with [`Needs::GRAM`](crate::Needs::GRAM).
    pub fn gram(&self, group: usize) -> Option<&Array2<f64>> {
        self.groups.get(group)?.gram.as_ref()
    }
}

/// Where the patches of a convolution lie in a plane of its input.
struct Unfold<'a> {
    geometry: Geometry,
    kernel: &'a [usize],
    input: &'a [usize],
    output: Vec<usize>,
    /// output positions of one sample
    positions: usize,
}

impl<'a> Unfold<'a> {
    /// `None` where the kernel does not fit, or has more positions than can be counted.
    fn new(geometry: Geometry, kernel: &'a [usize], input: &'a [usize]) -> Option<Self> {
        let output = input.iter().zip(kernel).map(|(&len, &taps)| geometry.output_len(len, taps));
        let output = output.collect::<Option<Vec<_>>>()?;
        let positions = output.iter().try_fold(1usize, |n, &len| n.checked_mul(len))?;
        Some(Self { geometry, kernel, input, output, positions })
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn plane(&self) -> usize {
        self.input.iter().product()
    }

    /// For each of these output positions the plane index of each tap; `None` in the padding.
    fn look_up(&self, positions: Range<usize>, table: &mut Vec<Option<usize>>) {
        table.clear();
        for position in positions {
            let at = unravel(position, &self.output);
            table.extend((0..self.taps()).map(|tap| self.place(&at, &unravel(tap, self.kernel))));
        }
    }

    fn place(&self, at: &[usize], tap: &[usize]) -> Option<usize> {
        let Geometry { stride, padding, dilation, .. } = self.geometry;
        self.input.iter().enumerate().try_fold(0, |index, (axis, &len)| {
            let from = at[axis] * stride + tap[axis] * dilation;
            let inside = from.checked_sub(padding).filter(|&x| x < len)?;
            Some(index * len + inside)
        })
    }
}

/// Appends the patches of one image of [features, positions…], a row for each `taps` entries of the table.
fn append_patches(image: &[f64], plane: usize, table: &[Option<usize>], taps: usize, rows: &mut Vec<f64>) {
    for taps in table.chunks_exact(taps) {
        for plane in image.chunks_exact(plane) {
            rows.extend(taps.iter().map(|tap| tap.map_or(0.0, |at| plane[at])));
        }
    }
}

/// The index along each axis of a flat index.
fn unravel(mut flat: usize, dims: &[usize]) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    for axis in (0..dims.len()).rev() {
        index[axis] = flat % dims[axis];
        flat /= dims[axis];
    }
    index
}
