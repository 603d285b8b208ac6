//! Count, mean, spread and extremes of many channels at once, mergeable.

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
    /// Moments of `rows` rows of `len` values, row-major.
    pub(crate) fn of_rows(rows: &[f64], len: usize) -> Self {
        let count = rows.len().checked_div(len).unwrap_or(0);
        let Some(first) = rows.get(..len).filter(|_| count > 0) else { return Self::default() };
        let mut moments = Self {
            count: count as u64,
            mean: vec![0.0; len],
            spread: vec![0.0; len],
            max_abs: vec![0.0; len],
            min: first.to_vec(),
            max: first.to_vec(),
        };
        // Around the first row, so that a constant channel sums zeros.
        for row in rows.chunks_exact(len) {
            for (at, &x) in row.iter().enumerate() {
                moments.mean[at] += x - first[at];
                moments.max_abs[at] = moments.max_abs[at].max(x.abs());
                moments.min[at] = moments.min[at].min(x);
                moments.max[at] = moments.max[at].max(x);
            }
        }
        for (mean, first) in moments.mean.iter_mut().zip(first) {
            *mean = first + *mean / count as f64;
        }
        for row in rows.chunks_exact(len) {
            for ((spread, mean), x) in moments.spread.iter_mut().zip(&moments.mean).zip(row) {
                *spread += (x - mean) * (x - mean);
            }
        }
        moments
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
        let (a, b) = (self.count as f64, other.count as f64);
        for at in 0..self.mean.len() {
            let delta = other.mean[at] - self.mean[at];
            self.mean[at] += delta * b / (a + b);
            self.spread[at] += other.spread[at] + delta * delta * a * b / (a + b);
            self.max_abs[at] = self.max_abs[at].max(other.max_abs[at]);
            self.min[at] = self.min[at].min(other.min[at]);
            self.max[at] = self.max[at].max(other.max[at]);
        }
        self.count += other.count;
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
    fn pooling_joins_positions() {
        let pooled = Moments::of_rows(&[1.0, 3.0, 5.0, 5.0], 4).pooled(2);
        assert_eq!(pooled.mean(), [2.0, 5.0]);
        assert_eq!(pooled.variance(), [1.0, 0.0]);
        assert_eq!(pooled.count(), 2);
    }
}
