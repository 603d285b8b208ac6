//! The range that loses the least information.

use super::{Piece, chunks, min_max};
use crate::Element;
use crate::quantize::grid::Grid;

const BINS: usize = 2048;
/// Ranges of every so many bins are tried.
const STRIDE: usize = 16;

pub(super) fn find<F: Element>(grid: Grid, pieces: &[Piece<'_, F>]) -> (f64, f64) {
    let (low, high) = min_max(pieces);
    let reach = high.max(-low);
    let width = reach / BINS as f64;
    if width <= f64::from(f32::MIN_POSITIVE) {
        return (low, high);
    }
    let parts = chunks(pieces, |values, _| count(values, width));
    let mut counts = vec![0.0; BINS];
    for part in parts {
        counts.iter_mut().zip(part).for_each(|(sum, n)| *sum += f64::from(n));
    }
    let levels = 1 << (grid.bits.get() - 1);
    let bins = best(&counts, levels);
    let cut = if bins == BINS { reach } else { width * bins as f64 };
    (low.max(-cut), high.min(cut))
}

fn count<F: Element>(values: &[F], width: f64) -> Vec<u32> {
    let mut counts = vec![0; BINS];
    for w in values.iter().filter(|w| !w.is_zero()) {
        counts[((w.widen().abs() / width) as usize).min(BINS - 1)] += 1;
    }
    counts
}

/// The number of bins whose distribution survives a merge into `levels` best.
fn best(counts: &[f64], levels: usize) -> usize {
    // Running sums of counts, of bins that are not empty, and of p·ln p.
    let mut sums = vec![[0.0; 3]];
    for &n in counts {
        let [mass, bins, entropy] = sums[sums.len() - 1];
        sums.push([mass + n, bins + f64::from(u8::from(n > 0.0)), entropy + x_ln_x(n)]);
    }
    let start = levels.max(STRIDE).next_multiple_of(STRIDE);
    let tries = (start..=counts.len()).step_by(STRIDE).map(|i| (divergence(counts, &sums, levels, i), i));
    tries.min_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map_or(counts.len(), |(_, i)| i)
}

/// KL(P‖Q) over the first `bins`: P holds everything above them in its last bin; Q is the first bins alone, each
/// level's count shared evenly by those of its bins that P has something in.
fn divergence(counts: &[f64], sums: &[[f64; 3]], levels: usize, bins: usize) -> f64 {
    let (total, inside) = (sums[sums.len() - 1][0], sums[bins][0]);
    let last = counts[bins - 1];
    let full = last + total - inside;
    if inside == 0.0 {
        return f64::INFINITY;
    }
    // Σ p ln p with the last bin filled up, all over the total.
    let own = sums[bins][2] - x_ln_x(last) + x_ln_x(full);
    let mut cross = 0.0;
    for level in 0..levels {
        let (from, to) = (level * bins / levels, (level + 1) * bins / levels);
        let mut mass = sums[to][0] - sums[from][0];
        let mut used = sums[to][1] - sums[from][1];
        let share = mass;
        if level + 1 == levels {
            mass += full - last;
            used += f64::from(u8::from(last == 0.0 && full > 0.0));
        }
        if mass > 0.0 {
            if share == 0.0 {
                return f64::INFINITY;
            }
            cross += mass * (share / used).ln();
        }
    }
    (own - cross) / total - (total / inside).ln()
}

fn x_ln_x(x: f64) -> f64 {
    if x > 0.0 { x * x.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bin by bin.
    fn plain(counts: &[f64], levels: usize, bins: usize) -> f64 {
        let mut p = counts[..bins].to_vec();
        p[bins - 1] += counts[bins..].iter().sum::<f64>();
        let mut q = vec![0.0; bins];
        for level in 0..levels {
            let range = level * bins / levels..(level + 1) * bins / levels;
            let mass: f64 = counts[range.clone()].iter().sum();
            let used = p[range.clone()].iter().filter(|&&n| n > 0.0).count() as f64;
            range.filter(|&j| p[j] > 0.0).for_each(|j| q[j] = mass / used);
        }
        let (p_sum, q_sum) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
        let term =
            |(&p, &q): (&f64, &f64)| if p > 0.0 { p / p_sum * (p / p_sum / (q / q_sum)).ln() } else { 0.0 };
        p.iter().zip(&q).map(term).sum()
    }

    #[test]
    fn equals_the_definition() {
        let counts: Vec<f64> = (0..256)
            .map(|i: u32| f64::from((i * 7919 % 13) * (256 - i) / 40 * u32::from(!i.is_multiple_of(5))))
            .collect();
        let mut sums = vec![[0.0; 3]];
        for &n in &counts {
            let [a, b, c] = sums[sums.len() - 1];
            sums.push([a + n, b + f64::from(u8::from(n > 0.0)), c + x_ln_x(n)]);
        }
        for (levels, bins) in [(8, 16), (8, 64), (16, 48), (128, 256), (1, 32)] {
            let (fast, slow) = (divergence(&counts, &sums, levels, bins), plain(&counts, levels, bins));
            assert!((fast - slow).abs() < 1e-9, "{levels} {bins}: {fast} {slow}");
        }
    }

    #[test]
    fn cuts_a_lonely_outlier() {
        // 100 000 weights in the lowest eighth, and one at the end.
        let mut counts = vec![0.0; BINS];
        (0..BINS / 8).for_each(|i| counts[i] = 400.0 - i as f64);
        counts[BINS - 1] = 1.0;
        let bins = best(&counts, 128);
        assert!((BINS / 8..BINS / 4).contains(&bins), "{bins}");
    }
}
