//! [`Range`]: how far the codes of a block reach.

mod entropy;
mod half_quadratic;
mod mse;
mod percentile;

use std::borrow::Cow;

use crate::kernel::reduce;
use crate::quantize::grid::Grid;
use crate::{Element, Error, Kind, Layer, Result};

/// How the range of a block of weights is found. What lies outside is cut to its ends.
///
/// ```
/// use ndarray::Array;
/// use niwaki::quantize::{Bits, Quantizer, Range, Uniform};
/// use niwaki::{Layer, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// // Many small weights and a large one.
/// let weight = Array::from_shape_fn((1, 100), |(_, j)| if j == 0 { 3.0f32 } else { (j % 7) as f32 * 0.1 });
/// let weight = Parameter::linear("fc", weight);
/// let quantizer = Uniform::new(Bits::FOUR);
/// let step = |range| Ok::<_, niwaki::Error>(quantizer.range(range).quantize(&Layer::new(&weight))?.scales()[0]);
/// assert_eq!(step(Range::MinMax)?, 3.0 / 7.0);
/// assert_eq!(step(Range::percentile(98.0)?)?, 0.6 / 7.0);
/// # Ok(())
/// # }
/// ```
///
/// A range of less than all weights gives the many a finer step at the cost of the few. 0 is in every range, and
/// weights that are 0 have no say in where it ends.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Range {
    /// From the smallest weight to the largest (default).
    #[default]
    MinMax,
    /// Without the outermost weights; see [`Range::percentile`].
    Percentile(Percentile),
    /// Of 81 ranges, 100 % to 20 % of [`MinMax`](Self::MinMax)'s, the one with the smallest Σ h·(w − Q(w))². h is
    /// the mean square of the weight's input, where the evidence has inputs
    /// ([`Evidence::record_input`](crate::Evidence::record_input)), else 1.
    Mse,
    /// The range that loses the least information: magnitudes are counted in 2048 bins; a range of i bins, with
    /// everything above it counted in its last bin, is compared to itself merged into 2^(b−1) levels, by
    /// Kullback–Leibler divergence; the i with the smallest wins (every 16th i is tried). Affine ranges are cut to
    /// ± that range.
    ///
    /// Migacz: 8-bit inference with `TensorRT` (GTC 2017).
    Entropy,
    /// The scale, and for affine codes the zero point, of least Σ |(w − Q(w)) / scale|^0.7 that a half-quadratic search
    /// from the best of 100 %, 90 %, …, 20 % of [`MinMax`](Self::MinMax)'s finds. That exponent forgives a few weights that are cut a lot, and holds the many to
    /// their nearest code. No evidence is needed.
    ///
    /// Each of at most 20 rounds takes large errors out (a proximal step of the norm, its weight 10 at first and 1.01
    /// times as much each round), and solves for scale and zero point on the codes that the rest has now. The original
    /// moves the zero point alone and stores it in floating point. Here it is a code, so that a weight of 0 stays 0: moved
    /// alone it would come back to where it was nearly always, and the scale is what is found; symmetric codes have the
    /// same search without a zero point. The best of all is taken, [`MinMax`](Self::MinMax) included.
    ///
    /// Badri, Shaji: Half-quadratic quantization of large machine learning models (2023).
    HalfQuadratic,
}

impl Range {
    /// The smallest range that holds p percent of the weights that are not 0: of the magnitudes for symmetric
    /// codes, between the (100 − p) / 2 and the (100 + p) / 2 percentile for affine ones. Percentiles are nearest
    /// ranks: the ⌈p / 100 · n⌉-th of n.
    ///
    /// ```
    /// use niwaki::quantize::Range;
    /// assert!(Range::percentile(99.9).is_ok());
    /// assert_eq!(Range::percentile(0.0).unwrap_err().to_string(), "percentile 0 is outside (0, 100]");
    /// ```
    ///
    /// # Errors
    /// p is not in (0, 100].
    pub fn percentile(p: f64) -> Result<Self> {
        if p > 0.0 && p <= 100.0 {
            return Ok(Self::Percentile(Percentile(p)));
        }
        Err(Error::setting(format!("percentile {p} is outside (0, 100]")))
    }

    /// The range (min, max) for these weights.
    pub(crate) fn find<F: Element>(self, grid: Grid, pieces: &[Piece<'_, F>]) -> (f64, f64) {
        match self {
            Self::MinMax => min_max(pieces),
            Self::Percentile(Percentile(p)) => percentile::find(p, grid, pieces),
            Self::Mse => mse::find(grid, pieces),
            Self::Entropy => entropy::find(grid, pieces),
            Self::HalfQuadratic => half_quadratic::find(grid, pieces),
        }
    }
}

/// A percentage in (0, 100]; made by [`Range::percentile`].
///
/// ```
/// use niwaki::quantize::Range;
/// let (a, b) = (Range::percentile(99.0)?, Range::percentile(99.9)?);
/// assert!(matches!((a, b), (Range::Percentile(a), Range::Percentile(b)) if a < b));
/// # Ok::<(), niwaki::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percentile(f64);

/// Weights of a block that lie together, and what an error in each of them counts.
#[derive(Debug)]
pub(crate) struct Piece<'a, F: Clone> {
    pub(crate) values: Cow<'a, [F]>,
    pub(crate) importance: Importance<'a, F>,
}

#[derive(Debug)]
pub(crate) enum Importance<'a, F> {
    Equal,
    /// By input column; the first value has this flat index.
    Columns(&'a Columns<F>, usize),
    Each(Vec<F>),
}

impl<F: Element> Importance<'_, F> {
    /// What values `start..start + out.len()` of the piece count.
    fn fill(&self, start: usize, out: &mut [F]) {
        match self {
            Self::Equal => out.fill(F::one()),
            Self::Columns(columns, first) => columns.fill(first + start, out),
            Self::Each(all) => out.copy_from_slice(&all[start..start + out.len()]),
        }
    }
}

/// Mean square of the input that each weight multiplies.
#[derive(Debug)]
pub(crate) struct Columns<F> {
    /// One after the other for each group of a convolution.
    squares: Vec<Vec<F>>,
    /// Neighbours in memory that read the same input.
    inner: usize,
    /// Weights of one group.
    group: usize,
}

impl<F: Element> Columns<F> {
    /// `None` when no inputs were recorded.
    pub(crate) fn of(layer: &Layer<'_, F>) -> Result<Option<Self>> {
        let parameter = layer.parameter();
        if !layer.has_inputs() || *parameter.kind() == Kind::Embedding {
            return Ok(None);
        }
        let inputs = layer.inputs()?;
        let squares = |group| inputs.mean_squares(group).iter().map(|&h| F::narrow(h)).collect();
        let inner = if parameter.out_axis() == 0 { 1 } else { parameter.shape()[parameter.out_axis()] };
        Ok(Some(Self {
            squares: (0..inputs.groups()).map(squares).collect(),
            inner,
            group: parameter.values().len() / inputs.groups().max(1),
        }))
    }

    pub(crate) fn fill(&self, first: usize, out: &mut [F]) {
        for (at, out) in (first..).zip(out) {
            let squares = &self.squares[at / self.group];
            *out = squares[at / self.inner % squares.len()];
        }
    }
}

fn min_max<F: Element>(pieces: &[Piece<'_, F>]) -> (f64, f64) {
    let all = pieces.iter().map(|piece| reduce::par_min_max(&piece.values));
    all.fold((0.0, 0.0), |(low, high), (min, max)| (low.min(min.widen()), high.max(max.widen())))
}

/// Calls of `f` for chunks of all pieces with their importance, in order.
fn chunks<F: Element, T: Send>(pieces: &[Piece<'_, F>], f: impl Fn(&[F], &[F]) -> T + Sync + Send) -> Vec<T> {
    use crate::kernel::par::{self, CHUNK};
    let one = |piece: &Piece<'_, F>| {
        par::map_chunks(&piece.values, CHUNK, |k, values| {
            let mut importance = vec![F::one(); values.len()];
            piece.importance.fill(k * CHUNK, &mut importance);
            f(values, &importance)
        })
    };
    pieces.iter().flat_map(one).collect()
}
