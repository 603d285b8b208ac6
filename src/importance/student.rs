//! The quantile of Student's t that 95 % confidence intervals need.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// The 97.5 % quantile of the normal distribution.
const NORMAL: f64 = 1.959_963_984_540_054;

/// From here on the expansion is exact to nine digits.
const MANY: u64 = 60;

/// The 97.5 % quantile of Student's t with `freedom` ≥ 1 degrees of freedom: a 95 % interval is ± this many standard
/// errors.
///
/// Up to 60 degrees from the closed form of P(|t| ≤ x), by bisection; above that by the expansion of Cornish and
/// Fisher (Abramowitz and Stegun 1964, 26.7.3, 26.7.4 and 26.7.5).
pub(super) fn quantile_975(freedom: u64) -> f64 {
    if freedom >= MANY {
        return expansion(freedom as f64);
    }
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if inside(middle, freedom) < 0.95 {
            low = middle;
        } else {
            high = middle;
        }
    }
    (freedom.max(1) as f64).sqrt() * low.tan()
}

/// P(|t| ≤ √ν·tan θ): a finite series in cos θ.
fn inside(angle: f64, freedom: u64) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // Even ν: sin θ·(1 + 1/2·cos² θ + 1·3/(2·4)·cos⁴ θ + …); odd ν: sin θ·(cos θ + 2/3·cos³ θ + …).
    let (mut term, mut sum, mut k) = (if odd { cos } else { 1.0 }, 0.0, if odd { 3 } else { 2 });
    while k <= freedom {
        sum += term;
        term *= cos * cos * (k - 1) as f64 / k as f64;
        k += 2;
    }
    if odd { FRAC_2_PI * (angle + sin * sum) } else { sin * sum }
}

fn expansion(freedom: f64) -> f64 {
    let (z, s) = (NORMAL, NORMAL * NORMAL);
    let terms = [
        z * (s + 1.0) / 4.0,
        z * ((5.0 * s + 16.0) * s + 3.0) / 96.0,
        z * (((3.0 * s + 19.0) * s + 17.0) * s - 15.0) / 384.0,
        z * ((((79.0 * s + 776.0) * s + 1482.0) * s - 1920.0) * s - 945.0) / 92_160.0,
    ];
    z + terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The printed tables, e.g. NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
    #[test]
    fn equals_the_tables() {
        let table = [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (10, 2.228),
            (20, 2.086),
            (30, 2.042),
            (60, 2.000),
            (100, 1.984),
        ];
        for (freedom, value) in table {
            let found = quantile_975(freedom);
            assert!((found - value).abs() <= 0.0005, "{freedom}: {found}");
        }
        assert!((quantile_975(u64::MAX) - 1.96).abs() < 0.0005);
    }

    #[test]
    fn the_two_ways_agree_where_they_meet() {
        // ν = 1 and 2 are known in closed form.
        assert!((quantile_975(1) - (0.475 * std::f64::consts::PI).tan()).abs() < 1e-10);
        assert!((quantile_975(2) - 0.95 * (2.0 / (1.0 - 0.95f64.powi(2))).sqrt()).abs() < 1e-10);
        let series = quantile_975(MANY - 1);
        assert!((series - expansion((MANY - 1) as f64)).abs() < 1e-8);
        assert!((1..200).all(|n| quantile_975(n) > quantile_975(n + 1)));
    }
}
