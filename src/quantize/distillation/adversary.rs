//! The other side of the game: inputs on which student and teacher differ most.

use ndarray::{Array1, Array2};

/// Rounds of the search, which ends before when an input does not get worse by this share.
const ROUNDS: usize = 200;
const SETTLED: f64 = 1e-9;

/// Inputs that a layer may meet: mean + L·z, with L·Lᵀ their covariance and ‖z‖² at most the number of columns, which
/// is what it is on average.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) mean: Array1<f64>,
    pub(super) covariance: Array2<f64>,
    /// How many rows were recorded.
    pub(super) rows: f64,
}

impl Inputs {
    /// The input x with the largest x·M·xᵀ for M = Dᵀ·D, D what student and teacher differ by; with that number.
    ///
    /// The largest of a convex function over an ellipsoid is found by going, again and again, to the point of the
    /// ellipsoid that lies furthest along the gradient. No step lowers it; it is the top eigenvector where the mean is
    /// 0, and may be a local largest where it is not.
    pub(super) fn worst(&self, m: &Array2<f64>) -> (Array1<f64>, f64) {
        let value = |x: &Array1<f64>| x.dot(&m.dot(x));
        let mut x = self.mean.clone();
        let mut worst = value(&x);
        // Where the mean says nothing, the column in which they differ most.
        let most = (0..m.nrows()).max_by(|&a, &b| m[[a, a]].total_cmp(&m[[b, b]])).unwrap_or(0);
        let mut slope = if worst > 0.0 { m.dot(&x) } else { m.row(most).to_owned() };
        for _ in 0..ROUNDS {
            let along = self.covariance.dot(&slope);
            let length = slope.dot(&along).sqrt();
            if length.is_nan() || length <= 0.0 {
                break;
            }
            let next = &self.mean + &(along * ((m.nrows() as f64).sqrt() / length));
            let found = value(&next);
            if found.is_nan() || found <= worst * (1.0 + SETTLED) {
                break;
            }
            slope = m.dot(&next);
            (x, worst) = (next, found);
        }
        (x, worst)
    }

    /// gram += n / d · x·xᵀ for the worst input x, and n · C·M·C / λ: inputs spread over all directions in which
    /// student and teacher differ, each by its share in the largest, λ. Either counts, of n rows, as many as inputs have
    /// along one of d directions.
    pub(super) fn add_adversary(&self, gram: &mut Array2<f64>, m: &Array2<f64>, x: &Array1<f64>, worst: f64) {
        if worst <= 0.0 {
            return;
        }
        let width = m.nrows() as f64;
        for (mut row, &a) in gram.rows_mut().into_iter().zip(x) {
            row.scaled_add(a * self.rows / width, x);
        }
        let spread = self.covariance.dot(m).dot(&self.covariance);
        gram.scaled_add(self.rows * width / worst, &spread);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn without_a_mean_it_is_the_top_eigenvector() {
        let inputs = Inputs { mean: Array1::zeros(2), covariance: array![[4.0, 0.0], [0.0, 1.0]], rows: 1.0 };
        // L·M·L = [[12, 2], [2, 6]], largest eigenvalue 9 + √13.
        let (x, worst) = inputs.worst(&array![[3.0, 1.0], [1.0, 6.0]]);
        assert!((worst - 2.0 * (9.0 + 13f64.sqrt())).abs() < 1e-6, "{worst}");
        assert!((x[0] * x[0] / 4.0 + x[1] * x[1] - 2.0).abs() < 1e-9);
        assert_eq!(inputs.worst(&Array2::zeros((2, 2))).1, 0.0);
    }

    #[test]
    fn no_input_of_the_ellipsoid_is_worse() {
        let inputs =
            Inputs { mean: array![0.5, -0.2], covariance: array![[2.0, 0.6], [0.6, 1.0]], rows: 1.0 };
        let m = array![[1.0, -0.7], [-0.7, 2.0]];
        let worst = inputs.worst(&m).1;
        let l = array![[2f64.sqrt(), 0.0], [0.6 / 2f64.sqrt(), 0.82f64.sqrt()]];
        let most = (0..3600)
            .map(|k| {
                let angle = f64::from(k) * std::f64::consts::PI / 1800.0;
                let z = array![angle.cos(), angle.sin()] * 2f64.sqrt();
                let x = &inputs.mean + &l.dot(&z);
                x.dot(&m.dot(&x))
            })
            .fold(0.0, f64::max);
        assert!((worst / most - 1.0).abs() < 1e-5, "{worst} {most}");
    }
}
