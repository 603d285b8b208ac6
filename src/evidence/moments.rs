//! Count, mean, spread and extremes of many channels at once, mergeable.

use crate::Element;
use crate::evidence::sums::{Tile, tiles};
use crate::kernel::{par, reduce};

/// Independent sums of a run.
const LANES: usize = 8;
/// Values gone through twice at a time: they stay in the cache.
const RUN: usize = 1 << 13;

/// Running moments of `len` channels, in f64.
///
/// Merging two is exact up to rounding (Chan, Golub and LeVeque 1979), so the order and size of batches do not
/// matter; a channel that never changes has a spread of exactly 0.
///
/// ```
/// use ndarray::array;
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder().parameter(Parameter::linear("fc", array![[1.0f32], [2.0]])).build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_output("fc", &array![[1.0f32, 7.0], [-3.0, 7.0]])?;
/// let layer = evidence.layer(&model, "fc")?;
/// let units = layer.outputs()?.units();
/// assert_eq!((units.count(), units.mean(), units.max_abs()), (2, &[-1.0, 7.0][..], &[3.0, 7.0][..]));
/// assert_eq!((units.min(), units.max()), (&[-3.0, 7.0][..], &[1.0, 7.0][..]));
/// assert_eq!((units.variance(), units.std_dev()), (vec![4.0, 0.0], vec![2.0, 0.0]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: Vec<f64>,
    /// Σ (x − mean)²
    spread: Vec<f64>,
    max_abs: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
}

impl Moments {
    /// Moments of rows of `len` values, row-major.
    pub(crate) fn of_rows<F: Element>(rows: &[F], len: usize) -> Self {
        tiles(rows, len, Self::of_tile, |whole, tile| whole.merge(&tile)).into_iter().fold(
            Self::default(),
            |mut whole, part| {
                whole.count = part.count;
                whole.mean.extend(part.mean);
                whole.spread.extend(part.spread);
                whole.max_abs.extend(part.max_abs);
                whole.min.extend(part.min);
                whole.max.extend(part.max);
                whole
            },
        )
    }

    fn of_tile<F: Element>(tile: &Tile<'_, F>) -> Self {
        let mut rows = tile.rows();
        let Some(first) = rows.next() else { return Self::default() };
        let start: Vec<f64> = first.iter().map(|x| x.widen()).collect();
        let (mut low, mut high) = (first.to_vec(), first.to_vec());
        // Around the first row, so that a constant channel sums zeros.
        let (mut mean, mut count) = (vec![0.0; start.len()], 1);
        for row in rows {
            for ((sum, start), x) in mean.iter_mut().zip(&start).zip(row) {
                *sum += x.widen() - start;
            }
            low.iter_mut().zip(row).for_each(|(low, &x)| *low = if x < *low { x } else { *low });
            high.iter_mut().zip(row).for_each(|(high, &x)| *high = if x > *high { x } else { *high });
            count += 1;
        }
        for (mean, start) in mean.iter_mut().zip(start) {
            *mean = start + *mean / count as f64;
        }
        let mut spread = vec![0.0; mean.len()];
        for row in tile.rows() {
            for ((spread, mean), x) in spread.iter_mut().zip(&mean).zip(row) {
                let away = x.widen() - mean;
                *spread += away * away;
            }
        }
        let [min, max] = [low, high].map(|ends| ends.iter().map(|x| x.widen()).collect::<Vec<_>>());
        let max_abs = min.iter().zip(&max).map(|(low, high)| low.abs().max(high.abs())).collect();
        Self { count, mean, spread, max_abs, min, max }
    }

    /// Moments of each channel of [samples, `channels`, `run`], over samples and runs.
    pub(crate) fn of_runs<F: Element>(values: &[F], channels: usize, run: usize) -> Self {
        if run < LANES {
            return Self::of_rows(values, channels * run).pooled(run);
        }
        let of_channel = |channel: usize| {
            let samples = values.chunks_exact(channels * run).map(|sample| &sample[channel * run..][..run]);
            let parts = samples.flat_map(|values| values.chunks(RUN)).map(One::of);
            parts.reduce(One::join).unwrap_or_default()
        };
        let all = par::map(channels, of_channel);
        let of = |f: fn(&One) -> f64| all.iter().map(f).collect::<Vec<_>>();
        Self {
            count: all.first().map_or(0, |one| one.count),
            mean: of(|one| one.mean),
            spread: of(|one| one.spread),
            max_abs: of(|one| one.min.abs().max(one.max.abs())),
            min: of(|one| one.min),
            max: of(|one| one.max),
        }
    }

    /// Takes in what `other` saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        if other.count == 0 {
            return;
        }
        for at in 0..self.mean.len() {
            let one = One::join(self.one(at), other.one(at));
            self.mean[at] = one.mean;
            self.spread[at] = one.spread;
            self.max_abs[at] = self.max_abs[at].max(other.max_abs[at]);
            self.min[at] = one.min;
            self.max[at] = one.max;
        }
        self.count += other.count;
    }

    fn one(&self, at: usize) -> One {
        let (mean, spread) = (self.mean[at], self.spread[at]);
        One { count: self.count, mean, spread, min: self.min[at], max: self.max[at] }
    }

    /// Only these channels, in this order.
    pub(crate) fn select(&self, channels: &[usize]) -> Self {
        let of = |values: &[f64]| channels.iter().map(|&c| values[c]).collect();
        Self {
            count: self.count,
            mean: of(&self.mean),
            spread: of(&self.spread),
            max_abs: of(&self.max_abs),
            min: of(&self.min),
            max: of(&self.max),
        }
    }

    /// Neighbouring channels in runs of `run` taken as one channel each.
    pub(crate) fn pooled(&self, run: usize) -> Self {
        let run = run.max(1);
        let fold = |values: &[f64], f: fn(f64, f64) -> f64| -> Vec<f64> {
            values.chunks_exact(run).map(|run| run[1..].iter().fold(run[0], |a, &b| f(a, b))).collect()
        };
        // Around the first channel, so that constant channels have no spread.
        let mean_of = |run: &[f64]| run[0] + run.iter().map(|m| m - run[0]).sum::<f64>() / run.len() as f64;
        let mean: Vec<f64> = self.mean.chunks_exact(run).map(mean_of).collect();
        let between = |(means, mean): (&[f64], &f64)| {
            means.iter().map(|m| (m - mean) * (m - mean)).sum::<f64>() * self.count as f64
        };
        let within = self.spread.chunks_exact(run).map(|run| run.iter().sum::<f64>());
        let between = self.mean.chunks_exact(run).zip(&mean).map(between);
        Self {
            count: self.count * run as u64,
            spread: within.zip(between).map(|(a, b)| a + b).collect(),
            max_abs: fold(&self.max_abs, f64::max),
            min: fold(&self.min, f64::min),
            max: fold(&self.max, f64::max),
            mean,
        }
    }

    /// How many values each channel has seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean of each channel.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Largest absolute value of each channel.
    pub fn max_abs(&self) -> &[f64] {
        &self.max_abs
    }

    /// Smallest value of each channel.
    pub fn min(&self) -> &[f64] {
        &self.min
    }

    /// Largest value of each channel.
    pub fn max(&self) -> &[f64] {
        &self.max
    }

    /// Population variance of each channel: Σ (x − mean)² / n.
    pub fn variance(&self) -> Vec<f64> {
        self.spread.iter().map(|s| s / self.count.max(1) as f64).collect()
    }

    /// Population standard deviation of each channel.
    pub fn std_dev(&self) -> Vec<f64> {
        self.variance().into_iter().map(f64::sqrt).collect()
    }
}

/// Moments of one channel.
#[derive(Clone, Copy, Default)]
struct One {
    count: u64,
    mean: f64,
    spread: f64,
    min: f64,
    max: f64,
}

impl One {
    fn of<F: Element>(values: &[F]) -> Self {
        let Some(&first) = values.first() else { return Self::default() };
        let count = values.len();
        // Around the first value, so that a constant sums zeros.
        let first = first.widen();
        let mean = first + lanes(values, |x| x.widen() - first) / count as f64;
        let away = |x: F| x.widen() - mean;
        let spread = lanes(values, |x| away(x) * away(x));
        let (min, max) = reduce::min_max(values);
        Self { count: count as u64, mean, spread, min: min.widen(), max: max.widen() }
    }

    fn join(self, other: Self) -> Self {
        let (a, b) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        Self {
            count: self.count + other.count,
            mean: self.mean + delta * b / (a + b),
            spread: self.spread + other.spread + delta * delta * a * b / (a + b),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// Σ f(x) in independent lanes.
#[expect(clippy::inline_always, reason = "the closure has to end up in the loop for vector code")]
#[inline(always)]
fn lanes<F: Element>(values: &[F], f: impl Fn(F) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += f(chunk[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&x| f(x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_make_the_whole() {
        let rows: Vec<f64> = (0..60).map(|i| f64::from((i * 7) % 11) + 100.0).collect();
        let whole = Moments::of_rows(&rows, 3);
        let mut parts = Moments::of_rows(&rows[..9], 3);
        parts.merge(&Moments::of_rows(&rows[9..], 3));
        for (a, b) in whole.variance().iter().zip(parts.variance()) {
            assert!((a - b).abs() < 1e-12 * a.abs());
        }
        assert_eq!(whole.max(), parts.max());
        assert_eq!(whole.count(), 20);
    }

    #[test]
    fn a_constant_has_no_spread() {
        let mut moments = Moments::of_rows(&[0.1; 7], 1);
        moments.merge(&Moments::of_rows(&[0.1; 13], 1));
        assert_eq!(moments.variance(), [0.0]);
    }

    #[test]
    fn tiles_and_runs_are_the_whole() {
        // More rows and columns than a tile has, and more values than a run.
        for (rows, len) in [(200, 1500), (9000, 10), (3, 20_000)] {
            let values: Vec<f32> = (0..rows * len).map(|i| ((i * 7919) % 1013) as f32 - 500.5).collect();
            let moments = Moments::of_rows(&values, len);
            let runs = Moments::of_runs(&values, 2, len / 2);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * b.abs().max(1.0);
            for channel in 0..len {
                let seen: Vec<f64> =
                    values.iter().skip(channel).step_by(len).map(|&x| f64::from(x)).collect();
                let mean = seen.iter().sum::<f64>() / rows as f64;
                let variance = seen.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / rows as f64;
                let one = moments.select(&[channel]);
                assert!(near(one.mean()[0], mean) && near(one.variance()[0], variance), "{channel}");
                assert_eq!(one.min()[0], seen.iter().copied().fold(f64::MAX, f64::min));
                assert_eq!(one.max()[0], seen.iter().copied().fold(f64::MIN, f64::max));
            }
            let pooled = moments.pooled(len / 2);
            assert_eq!(
                (runs.count(), runs.min(), runs.max_abs()),
                (pooled.count(), pooled.min(), pooled.max_abs())
            );
            for unit in 0..2 {
                assert!(near(runs.mean()[unit], pooled.mean()[unit]));
                assert!(near(runs.variance()[unit], pooled.variance()[unit]));
            }
        }
    }

    #[test]
    fn pooling_joins_positions() {
        let pooled = Moments::of_rows(&[1.0, 3.0, 5.0, 5.0], 4).pooled(2);
        assert_eq!(pooled.mean(), [2.0, 5.0]);
        assert_eq!(pooled.variance(), [1.0, 0.0]);
        assert_eq!(pooled.count(), 2);
    }
}
