//! Which units say what the others say.

use crate::importance::{Importance, Score, narrow};
use crate::kernel::{par, reduce};
use crate::{Element, Layer, Needs, Result};

/// The rank of each unit in a greedy selection of columns: n for the first chosen, 1 for the last.
///
/// On the n×n covariance of the units' outputs. With r the column of a unit in the residual R (at first the covariance)
/// and v its own entry there, the unit explains Σr² / v of the variance that the chosen ones leave. Each step takes the
/// unit that explains most, and takes its part out of the others: R −= r·rᵀ / v. Units whose residual variance is at most 1e-12 of the trace of the second moments are explained already; once all
/// are, the rest follow by index, those that never varied (dead ones) last. Ties break by index.
///
/// The natural partner of `LeastSquares`, which solves the next layer again for the units that stay: what they
/// explain, it recovers. A single weight's score is |w| times its unit's. Needs [`Needs::OUTPUT_GRAM`]; without it
/// the error names the layer. Time n³/3 multiply-adds and as much for the gains, memory n² numbers.
///
/// Farahat, Ghodsi, Kamel: An efficient greedy method for unsupervised feature selection (2011).
///
/// ```
/// use ndarray::{Array2, array};
/// use niwaki::importance::{Importance, Subset};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let fc = Parameter::linear("fc", Array2::<f32>::ones((3, 2)));
/// let model = Model::builder().parameter(fc).build()?;
/// let mut evidence = Evidence::new(&model, Needs::OUTPUT_GRAM);
/// // The second unit is twice the first, the third never answers.
/// evidence.record_output("fc", &array![[1.0f32, 2.0, 0.0], [-2.0, -4.0, 0.0], [0.5, 1.0, 0.0]])?;
/// let score = Subset::new().score(&evidence.layer(&model, "fc")?)?;
/// assert_eq!(score.per_unit(model.parameter("fc")?).to_vec(), [3.0, 2.0, 1.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subset;

impl Subset {
    /// The criterion; it has no settings.
    pub fn new() -> Self {
        Self
    }
}

impl<F: Element> Importance<F> for Subset {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let covariance = layer.output_covariance()?;
        let means = layer.outputs()?.units().mean();
        // Second moments: their rounding is what is left in the covariance of units with a large mean.
        let trace = covariance.diag().sum() + means.iter().map(|m| m * m).sum::<f64>();
        let n = covariance.nrows();
        let order = order(n, covariance.iter().copied(), 1e-12 * trace);
        let mut scores = vec![0.0; n];
        order.iter().enumerate().for_each(|(step, &unit)| scores[unit] = (n - step) as f64);
        Ok(Score::units(layer.parameter().out_axis(), narrow(scores)))
    }

    fn needs(&self) -> Needs {
        Needs::OUTPUT_GRAM
    }
}

/// All units in the order they are chosen.
fn order(n: usize, covariance: impl Iterator<Item = f64>, tolerance: f64) -> Vec<usize> {
    let mut residual = Residual::new(n, covariance);
    let dead: Vec<bool> = (0..n).map(|i| residual.at(i, i) <= tolerance).collect();
    let mut chosen = Vec::with_capacity(n);
    while let Some(best) = residual.best(tolerance) {
        chosen.push(residual.units[best]);
        residual.take_out(best);
    }
    let mut rest = residual.units;
    rest.sort_unstable_by_key(|&unit| (dead[unit], unit));
    chosen.extend(rest);
    chosen
}

/// The variance that the chosen units leave to the others.
struct Residual {
    /// a row for each unit left: its residual covariances with them, unused space, and last the sum of their squares
    rows: Vec<f64>,
    stride: usize,
    /// which unit each row and column is of
    units: Vec<usize>,
}

impl Residual {
    fn new(n: usize, covariance: impl Iterator<Item = f64>) -> Self {
        let (mut rows, stride) = (vec![0.0; n * (n + 1)], n + 1);
        for (k, value) in covariance.enumerate().take(n * n) {
            rows[k / n * stride + k % n] = value;
        }
        let mut residual = Self { rows, stride, units: (0..n).collect() };
        residual.subtract(&vec![0.0; n]);
        residual
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.rows[row * self.stride + column]
    }

    /// The row that explains most; `None` when nothing is left to explain.
    fn best(&self, tolerance: f64) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for row in (0..self.units.len()).filter(|&row| self.at(row, row) > tolerance) {
            let gain = self.at(row, self.stride - 1) / self.at(row, row);
            let beats = |(other, most): (usize, f64)| {
                gain > most || (gain >= most && self.units[row] < self.units[other])
            };
            if best.is_none_or(beats) {
                best = Some((row, gain));
            }
        }
        best.map(|(row, _)| row)
    }

    /// Removes a unit and what it explains of the others.
    fn take_out(&mut self, row: usize) {
        let (n, stride) = (self.units.len(), self.stride);
        let root = self.at(row, row).sqrt();
        let mut part: Vec<f64> = self.rows[row * stride..][..n].iter().map(|x| x / root).collect();
        // The last row and column move into its place.
        let last = n - 1;
        (0..n).for_each(|k| self.rows[k * stride + row] = self.rows[k * stride + last]);
        self.rows.copy_within(last * stride..(last + 1) * stride, row * stride);
        self.units.swap_remove(row);
        part.swap_remove(row);
        self.subtract(&part);
    }

    /// R −= part·partᵀ, and the sums of squares.
    fn subtract(&mut self, part: &[f64]) {
        let (n, stride) = (part.len(), self.stride);
        let per_task = (par::CHUNK / stride).max(1);
        par::for_chunks_mut(&mut self.rows[..n * stride], per_task * stride, |task, rows| {
            for (k, row) in rows.chunks_exact_mut(stride).enumerate() {
                let factor = part[task * per_task + k];
                row.iter_mut().zip(part).for_each(|(x, p)| *x -= factor * p);
                row[stride - 1] = reduce::square_sum(&row[..n]);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, Axis, array};
    use rand::RngExt;

    use super::*;
    use crate::kernel::{linalg, seed};
    use crate::{ErrorKind, Evidence, Model, Parameter};

    fn ranks(output: &Array2<f64>) -> Vec<f64> {
        let weights = Array2::<f64>::ones((output.ncols(), 1));
        let model = Model::builder().parameter(Parameter::linear("fc", weights)).build().unwrap();
        let mut evidence = Evidence::new(&model, Needs::OUTPUT_GRAM);
        evidence.record_output("fc", output).unwrap();
        let layer = evidence.layer(&model, "fc").unwrap();
        let score = Subset::new().score(&layer).unwrap();
        score.check(layer.parameter()).unwrap();
        score.per_unit(layer.parameter()).to_vec()
    }

    fn noise(rows: usize, columns: usize, name: &str) -> Array2<f64> {
        let mut stream = seed::stream(5, name);
        Array2::from_shape_simple_fn((rows, columns), || stream.random::<f64>() - 0.5)
    }

    /// Variance left when these columns are regressed on: the trace of the Schur complement.
    fn left(covariance: &Array2<f64>, chosen: &[usize]) -> f64 {
        let total = covariance.diag().sum();
        let inner = covariance.select(Axis(0), chosen).select(Axis(1), chosen);
        let Some(l) = linalg::cholesky(inner) else { return total };
        let explained = |j: usize| {
            let b: Array1<f64> = chosen.iter().map(|&i| covariance[[i, j]]).collect();
            let mut x = b.clone();
            linalg::cholesky_solve(&l, &mut x);
            b.dot(&x)
        };
        total - (0..covariance.nrows()).map(explained).sum::<f64>()
    }

    #[test]
    fn each_step_is_the_best_regression() {
        let mixed = noise(400, 12, "x").dot(&noise(12, 12, "mix"));
        let mean = mixed.mean_axis(Axis(0)).unwrap();
        let centred = &mixed - &mean;
        let covariance = centred.t().dot(&centred) / 400.0;
        let order = order(12, covariance.iter().copied(), 0.0);
        for step in 0..11 {
            let with = |j: usize| [&order[..step], &[j]].concat();
            let best = order[step..].iter().map(|&j| left(&covariance, &with(j)));
            let best = best.fold(f64::INFINITY, f64::min);
            let found = left(&covariance, &order[..=step]);
            assert!(found <= best + 1e-9 * covariance.diag().sum(), "{step}: {found} {best}");
        }
        let scores = ranks(&mixed);
        assert!(order.iter().enumerate().all(|(step, &unit)| scores[unit] == (12 - step) as f64));
    }

    #[test]
    fn copies_and_sums_wait_and_dead_units_are_last() {
        let base = noise(500, 3, "base");
        let (x, y, z) = (base.column(0), base.column(1), base.column(2));
        let mut output = Array2::zeros((500, 7));
        output.column_mut(1).assign(&(&x * 10.0 + 1e3));
        output.column_mut(2).assign(&(&x * 5.0));
        output.column_mut(3).assign(&(&y * 8.0));
        output.column_mut(4).fill(3.7);
        output.column_mut(5).assign(&(&z * 0.5));
        output.column_mut(6).assign(&(&x * 0.1 + &y * 0.1));
        let scores = ranks(&output);
        // First three that span all; then copies by index; then the dead, by index.
        assert!([1, 3, 5].iter().all(|&unit| scores[unit] > 4.0), "{scores:?}");
        assert_eq!([scores[2], scores[6], scores[0], scores[4]], [4.0, 3.0, 2.0, 1.0]);
    }

    #[test]
    fn ties_break_by_index() {
        assert_eq!(order(4, Array2::eye(4).iter().copied(), 1e-12), [0, 1, 2, 3]);
        assert_eq!(order(3, Array2::zeros((3, 3)).iter().copied(), 0.0), [0, 1, 2]);
        assert_eq!(order(0, std::iter::empty(), 0.0), [0; 0]);
    }

    #[test]
    fn names_what_is_missing() {
        let model = Model::builder().parameter(Parameter::linear("fc", array![[1.0f64]])).build().unwrap();
        let mut evidence = Evidence::new(&model, Needs::MOMENTS);
        evidence.record_output("fc", &array![[1.0]]).unwrap();
        let error = Subset::new().score(&evidence.layer(&model, "fc").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingEvidence);
        assert!(error.to_string().contains("`fc`") && error.to_string().contains("OUTPUT_GRAM"));
    }
}
