//! How values are distributed, in constant memory and whatever their range.

/// Bins of one histogram.
const BINS: usize = 64;

/// A histogram of 64 bins whose width is a power of two and whose edges are multiples of it.
///
/// The width is the smallest power of two for which the range seen so far spans at most 64 bins. A wider range
/// joins neighbours pairwise, which is exact, so the histogram depends on what was seen and not on the order
/// or the batches. Cost of the binning: a value is known to 1/32 to 1/64 of the range. A bin's count stops at
/// 2³² − 1.
///
/// ```
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder().parameter(Parameter::linear("fc", ndarray::array![[1.0f32]])).build()?;
/// let mut evidence = Evidence::new(&model, Needs::HISTOGRAMS);
/// evidence.record_output("fc", &ndarray::array![[0.0f32], [0.5], [63.0], [0.25]])?;
/// let layer = evidence.layer(&model, "fc")?;
/// let histograms = layer.positions()?.histograms().unwrap_or_default();
/// assert_eq!(histograms[0].count(), 4);
/// // From 0 to 63 in bins of 1, the last bin's centre cut to the largest value.
/// assert_eq!(histograms[0].bins().collect::<Vec<_>>(), [(0.5, 3), (63.0, 1)]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// log₂ of the width
    power: i32,
    /// floor(x / width) of the first bin
    first: i64,
    counts: Vec<u32>,
    min: f64,
    max: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { power: FINEST, first: 0, counts: Vec::new(), min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

/// No width is below 2^-1000, so that bin numbers stay finite.
const FINEST: i32 = -1000;

impl Histogram {
    /// Counts values.
    pub(crate) fn add(&mut self, values: impl Iterator<Item = f64> + Clone) {
        let (low, high) =
            values.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        if low > high {
            return;
        }
        self.widen_to(low, high);
        let width = 2f64.powi(self.power);
        for x in values {
            let bin = floor_bin(x, width) as i64 - self.first;
            let count = &mut self.counts[bin as usize];
            *count = count.saturating_add(1);
        }
    }

    /// Takes in what `other` counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        self.widen_to(other.min, other.max);
        let shift = self.power - other.power;
        for (k, &count) in other.counts.iter().enumerate() {
            if count > 0 {
                let bin = shift_bin(other.first + k as i64, shift) - self.first;
                let ours = &mut self.counts[bin as usize];
                *ours = ours.saturating_add(count);
            }
        }
    }

    /// Makes room for a range, joining bins where it has to.
    fn widen_to(&mut self, low: f64, high: f64) {
        let (low, high) = (low.min(self.min), high.max(self.max));
        if (low, high) == (self.min, self.max) {
            return;
        }
        let power = fitting_power(low, high);
        let width = 2f64.powi(power);
        let (first, last) = (floor_bin(low, width) as i64, floor_bin(high, width) as i64);
        let mut counts = vec![0u32; (last - first + 1) as usize];
        for (k, &count) in self.counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let joined = &mut counts[(shift_bin(self.first + k as i64, power - self.power) - first) as usize];
            *joined = joined.saturating_add(count);
        }
        *self = Self { power, first, counts, min: low, max: high };
    }

    /// (centre, count) of the bins that are not empty, ascending. A bin's centre is cut to the range seen, so
    /// that a constant is itself.
    pub fn bins(&self) -> impl Iterator<Item = (f64, u32)> {
        let width = 2f64.powi(self.power);
        let centre = move |k: usize| ((self.first + k as i64) as f64 + 0.5) * width;
        let filled = self.counts.iter().enumerate().filter(|&(_, &count)| count > 0);
        filled.map(move |(k, &count)| (centre(k).clamp(self.min, self.max), count))
    }

    /// How wide a bin is.
    pub fn width(&self) -> f64 {
        2f64.powi(self.power)
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&n| u64::from(n)).sum()
    }
}

/// The number of a value's bin. The quotient of a tiny negative value may round to −0, whose floor is not −1.
fn floor_bin(x: f64, width: f64) -> f64 {
    let bin = (x / width).floor();
    if x < 0.0 { bin.min(-1.0) } else { bin }
}

/// The number of a bin after `shift` pairwise joins.
fn shift_bin(bin: i64, shift: i32) -> i64 {
    bin >> shift.clamp(0, 63)
}

/// The smallest power of two, as width, for which low..=high spans at most [`BINS`] bins.
fn fitting_power(low: f64, high: f64) -> i32 {
    let spans = |power: i32| {
        let width = 2f64.powi(power);
        floor_bin(high, width) - floor_bin(low, width) < BINS as f64
            && high.abs().max(low.abs()) / width < 2f64.powi(52)
    };
    let range = (high - low).max(low.abs().max(high.abs()) * f64::EPSILON).max(2f64.powi(FINEST));
    // The range of two huge numbers may be past the largest one.
    let range = range.min(f64::MAX);
    let mut power = (range.log2() as i32 - 8).max(FINEST);
    while !spans(power) {
        power += 1;
    }
    while power > FINEST && spans(power - 1) {
        power -= 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add(values.iter().copied());
        histogram
    }

    #[test]
    fn order_and_batches_do_not_matter() {
        let values: Vec<f64> = (0..200).map(|i| f64::from((i * 37) % 101).powi(2) - 300.0).collect();
        let whole = of(&values);
        for split in [1, 50, 199] {
            let mut parts = of(&values[split..]);
            parts.merge(&of(&values[..split]));
            assert_eq!(parts, whole);
        }
        let mut one_by_one = Histogram::default();
        for &x in &values {
            one_by_one.add([x].into_iter());
        }
        assert_eq!(one_by_one, whole);
        assert_eq!(whole.count(), 200);
        assert_eq!(whole.width(), 256.0);
        assert!(whole.counts.len() > BINS / 2 - 1 && whole.counts.len() <= BINS);
    }

    #[test]
    fn constants_stay_themselves() {
        for x in [0.0, 0.1, -1e30, 1e-300] {
            assert_eq!(of(&[x; 9]).bins().collect::<Vec<_>>(), [(x, 9)]);
        }
        assert_eq!(Histogram::default().count(), 0);
    }

    #[test]
    fn the_ends_of_the_number_line() {
        let values = [-1e-300, f64::MAX, -5e-324, f64::MIN, 1e-310, 0.0, 1.0];
        let whole = of(&values);
        assert_eq!(whole.count(), 7);
        let mut one_by_one = Histogram::default();
        for x in values {
            one_by_one.merge(&of(&[x]));
        }
        assert_eq!(one_by_one, whole);
    }

    #[test]
    fn counts_stop_at_the_top() {
        let mut doubled = of(&[1.0]);
        for _ in 0..40 {
            let other = doubled.clone();
            doubled.merge(&other);
        }
        assert_eq!(doubled.count(), u64::from(u32::MAX));
    }
}
