//! Whether values come in one cluster or two.

use crate::evidence::Histogram;

/// The gap between the 95 % intervals of the two clusters of a distribution, over the pooled standard deviation; 0
/// where the intervals overlap, or where a cluster is a single value.
pub(super) fn discrepancy(histogram: &Histogram) -> f64 {
    let Some((low, high)) = two_means(histogram) else { return 0.0 };
    if low.count < 2.0 || high.count < 2.0 {
        return 0.0;
    }
    let (a, b) = (low.variance(), high.variance());
    let gap = high.mean() - low.mean() - 1.96 * (a.sqrt() + b.sqrt());
    let freedom = low.count + high.count - 2.0;
    let pooled = ((low.count - 1.0) * a + (high.count - 1.0) * b) / freedom;
    (gap / pooled.sqrt()).max(0.0)
}

/// Some values of a histogram, in bin widths from its first bin.
#[derive(Clone, Copy, Debug, Default)]
struct Cluster {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Cluster {
    fn mean(self) -> f64 {
        self.sum / self.count
    }

    /// Σ (x − mean)²
    fn spread(self) -> f64 {
        (self.squares - self.sum * self.sum / self.count).max(0.0)
    }

    /// Of its values, with what lies within a bin: 1/12 of its width squared.
    fn variance(self) -> f64 {
        self.spread() / (self.count - 1.0) + 1.0 / 12.0
    }

    fn plus(self, x: f64, count: f64) -> Self {
        Self { count: self.count + count, sum: self.sum + count * x, squares: self.squares + count * x * x }
    }

    fn minus(self, part: Self) -> Self {
        Self {
            count: self.count - part.count,
            sum: self.sum - part.sum,
            squares: self.squares - part.squares,
        }
    }
}

/// The two clusters with the least squares within, by trying every split; `None` of a single bin.
fn two_means(histogram: &Histogram) -> Option<(Cluster, Cluster)> {
    let bins: Vec<(f64, u32)> = histogram.bins().collect();
    let (first, width) = (bins.first()?.0, histogram.width());
    let place = |&(x, count): &(f64, u32)| ((x - first) / width, f64::from(count));
    let add = |cluster: Cluster, (x, count): (f64, f64)| cluster.plus(x, count);
    let all = bins.iter().map(place).fold(Cluster::default(), add);
    let (mut low, mut best, mut least) = (Cluster::default(), None, f64::INFINITY);
    for bin in &bins[..bins.len() - 1] {
        low = add(low, place(bin));
        let high = all.minus(low);
        let within = low.spread() + high.spread();
        if within < least {
            (least, best) = (within, Some((low, high)));
        }
    }
    best
}

#[cfg(test)]
pub(super) mod tests {
    use rand::RngExt;
    use rand::rngs::StdRng;

    use super::*;
    use crate::kernel::seed;

    pub(in crate::importance) fn uniform(stream: &mut StdRng) -> f64 {
        stream.random::<f64>()
    }

    /// Box and Muller (1958).
    pub(in crate::importance) fn normal(stream: &mut StdRng) -> f64 {
        let (a, b) = (1.0 - uniform(stream), uniform(stream));
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    fn discrepancy_of(n: usize, draw: impl FnMut(usize) -> f64) -> f64 {
        let values: Vec<f64> = (0..n).map(draw).collect();
        let mut histogram = Histogram::default();
        histogram.add(values.iter().copied());
        discrepancy(&histogram)
    }

    #[test]
    fn one_bump_is_one_mode() {
        let mut stream = seed::stream(2, "bumps");
        for (scale, shift) in [(1.0, 0.0), (1e-6, 3.0), (1e9, -1.0)] {
            for n in [1_000, 20_000, 200_000] {
                assert_eq!(discrepancy_of(n, |_| normal(&mut stream) * scale + shift), 0.0, "normal {n}");
                assert_eq!(discrepancy_of(n, |_| uniform(&mut stream) * scale + shift), 0.0, "uniform {n}");
            }
        }
        // What rectified and one-sided outputs look like.
        assert_eq!(discrepancy_of(20_000, |_| normal(&mut stream).max(0.0)), 0.0);
        assert_eq!(discrepancy_of(20_000, |_| -(1.0 - uniform(&mut stream)).ln()), 0.0);
        assert_eq!(discrepancy_of(3_000, |i| i as f64), 0.0);
        assert_eq!(discrepancy_of(50, |_| 0.1), 0.0);
        assert_eq!(discrepancy_of(50, |i| f64::from(u8::from(i == 7))), 0.0);
    }

    #[test]
    fn two_modes_give_the_gap_of_the_formula() {
        let mut stream = seed::stream(3, "modes");
        // Normal modes at ±δ/2: gap δ − 2·1.96 over 1, less what the bins widen the modes by.
        for distance in [6.0, 10.0] {
            let draw = |i: usize| distance * f64::from(u8::from(i.is_multiple_of(3))) + normal(&mut stream);
            let found = discrepancy_of(100_000, draw);
            let truth = distance - 2.0 * 1.96;
            assert!((found - truth).abs() < 0.05 * truth, "{distance}: {found} for {truth}");
        }
        // Points 63 bins apart, one bin wide: (63 − 2·1.96·√(1/12)) / √(1/12).
        let points = discrepancy_of(1000, |i| 63.0 * f64::from(u8::from(i.is_multiple_of(2))));
        let deviation = (1f64 / 12.0).sqrt();
        assert!((points - (62.5 - 3.92 * deviation) / deviation).abs() < 2.0, "{points}");
    }

    /// The split by brute force over the values themselves.
    #[test]
    fn two_means_are_the_best_of_all_splits() {
        let mut values: Vec<f64> = (0..40).map(|i| f64::from((i * i * 7) % 61)).collect();
        values.sort_by(f64::total_cmp);
        let mut histogram = Histogram::default();
        histogram.add(values.iter().copied());
        let spread = |v: &[f64]| {
            let mean = v.iter().sum::<f64>() / v.len() as f64;
            v.iter().map(|x| (x - mean).powi(2)).sum::<f64>()
        };
        let truth =
            (1..40).map(|k| spread(&values[..k]) + spread(&values[k..])).fold(f64::INFINITY, f64::min);
        let (low, high) = two_means(&histogram).unwrap();
        assert!((low.spread() + high.spread() - truth).abs() < 0.05 * truth);
        assert_eq!(low.count + high.count, 40.0);
    }
}
