//! Normal equations whose rows share one matrix but not their unknowns.

use std::collections::HashMap;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

use crate::kernel::{linalg, par};

/// Rows multiplied with the matrix, or iterated on, at a time.
const ROWS: usize = 32;
/// Iterations of conjugate gradients at most.
const ITERATIONS: usize = 96;
/// Residual, against the right-hand side, at which they stop.
const TOLERANCE: f64 = 1e-7;
/// How many times slower a multiplication is in a factorization of one row's own matrix than in a product of many
/// rows with the shared one.
const FACTOR_COST: usize = 2;
/// How often the ridge is raised tenfold when a matrix cannot be factored.
const RAISES: i32 = 6;

/// min over δ on a row's support of (e + δ)ᵀ·C·(e + δ) + λ·‖δ‖², C shared by all rows.
pub(crate) struct Normal {
    pub(crate) moments: Array2<f64>,
    pub(crate) ridge: f64,
}

impl Normal {
    /// C·e of each row of a row-major matrix.
    pub(crate) fn product(&self, rows: &[f64]) -> Vec<f64> {
        let d = self.moments.nrows();
        let mut product = vec![0.0; rows.len()];
        par::zip_chunks_mut(rows, ROWS * d, &mut product, ROWS * d, |_, rows, product| {
            multiply(rows, &self.moments, product);
        });
        product
    }

    /// δ of each row for right-hand sides −C·e; `free` says which columns of a row are in its support.
    ///
    /// Rows of equal support share one Cholesky factorization. Where that would cost more than iterating (many
    /// rows, each with a large support of its own), conjugate gradients with the diagonal as preconditioner run on
    /// many rows at a time; each step lowers the objective, so that stopping early is never worse than 0.
    pub(crate) fn solve(&self, rights: &[f64], free: &[bool]) -> Vec<f64> {
        let d = self.moments.nrows();
        let (mut direct, mut iterated) = (Vec::new(), Vec::new());
        for (support, rows) in by_support(free, d) {
            let s = support.len();
            let (factor, iterate) = (s * s / 3 * s * FACTOR_COST, rows.len() * ITERATIONS * 2 * d * d);
            if factor <= iterate {
                direct.push((support, rows));
            } else {
                iterated.extend(rows);
            }
        }
        let mut solution = vec![0.0; rights.len()];
        let mut put = |row: usize, columns: &[usize], values: &[f64]| {
            columns.iter().zip(values).for_each(|(c, v)| solution[row * d + c] = *v);
        };
        let solved = par::map(direct.len(), |k| self.factored(&direct[k].0, &direct[k].1, rights));
        for ((support, rows), values) in direct.into_iter().zip(solved) {
            match values {
                Some(values) => {
                    let values = values.chunks(support.len().max(1));
                    rows.iter().zip(values).for_each(|(&row, values)| put(row, &support, values));
                }
                None => iterated.extend(rows),
            }
        }
        let all: Vec<usize> = (0..d).collect();
        let solved = par::map_chunks(&iterated, ROWS, |_, rows| self.iterated(rows, rights, free));
        for (&row, values) in iterated.iter().zip(solved.iter().flat_map(|block| block.chunks(d))) {
            put(row, &all, values);
        }
        solution
    }

    /// Rows of one support, by factorization; `None` when the matrix cannot be factored.
    fn factored(&self, support: &[usize], rows: &[usize], rights: &[f64]) -> Option<Vec<f64>> {
        let d = self.moments.nrows();
        let own = self.moments.select(Axis(0), support).select(Axis(1), support);
        let least = 1e-10 * own.diag().mean().unwrap_or(0.0);
        let factor = (0..=RAISES).find_map(|raise| {
            let ridge = if raise == 0 { self.ridge } else { self.ridge.max(least) * 10f64.powi(raise) };
            let mut own = own.clone();
            own.diag_mut().iter_mut().for_each(|x| *x += ridge);
            linalg::cholesky(own)
        })?;
        let mut values: Vec<f64> =
            rows.iter().flat_map(|row| support.iter().map(move |c| rights[row * d + c])).collect();
        linalg::cholesky_solve_rows(&factor, &mut values);
        Some(values)
    }

    /// A few rows, each of its own support, by conjugate gradients.
    fn iterated(&self, rows: &[usize], rights: &[f64], free: &[bool]) -> Vec<f64> {
        let d = self.moments.nrows();
        let diagonal: Vec<f64> = self.moments.diag().iter().map(|x| x + self.ridge).collect();
        let mut states: Vec<State> = rows
            .iter()
            .map(|row| State::new(&rights[row * d..(row + 1) * d], &free[row * d..(row + 1) * d], &diagonal))
            .collect();
        let (mut directions, mut products) = (vec![0.0; rows.len() * d], vec![0.0; rows.len() * d]);
        for _ in 0..ITERATIONS {
            if states.iter().all(|s| s.done) {
                break;
            }
            for (state, direction) in states.iter().zip(directions.chunks_exact_mut(d)) {
                direction.copy_from_slice(&state.direction);
            }
            multiply(&directions, &self.moments, &mut products);
            for (state, product) in states.iter_mut().zip(products.chunks_exact_mut(d)) {
                state.step(product, self.ridge, &diagonal);
            }
        }
        states.into_iter().flat_map(|s| s.solution).collect()
    }
}

/// One row's conjugate gradients.
struct State<'a> {
    free: &'a [bool],
    solution: Vec<f64>,
    residual: Vec<f64>,
    direction: Vec<f64>,
    /// rᵀ·M⁻¹·r, and where it is small enough
    measure: f64,
    target: f64,
    done: bool,
}

impl<'a> State<'a> {
    fn new(right: &[f64], free: &'a [bool], diagonal: &[f64]) -> Self {
        let residual: Vec<f64> = right.iter().zip(free).map(|(&b, &f)| if f { b } else { 0.0 }).collect();
        let direction: Vec<f64> = residual.iter().zip(diagonal).map(|(r, m)| scaled(*r, *m)).collect();
        let measure: f64 = residual.iter().zip(&direction).map(|(r, z)| r * z).sum();
        let target = measure * TOLERANCE * TOLERANCE;
        let solution = vec![0.0; right.len()];
        Self { free, solution, residual, direction, measure, target, done: measure <= 0.0 }
    }

    /// `product` is C·direction.
    fn step(&mut self, product: &mut [f64], ridge: f64, diagonal: &[f64]) {
        if self.done {
            return;
        }
        let mut curvature = 0.0;
        for ((q, &p), &free) in product.iter_mut().zip(&self.direction).zip(self.free) {
            *q = if free { *q + ridge * p } else { 0.0 };
            curvature += *q * p;
        }
        let length = self.measure / curvature;
        self.done = curvature <= 0.0 || !length.is_finite();
        if self.done {
            return;
        }
        let mut measure = 0.0;
        for (k, q) in product.iter().enumerate() {
            self.solution[k] += length * self.direction[k];
            self.residual[k] -= length * q;
            measure += self.residual[k] * scaled(self.residual[k], diagonal[k]);
        }
        let keep = measure / self.measure;
        for (k, p) in self.direction.iter_mut().enumerate() {
            *p = scaled(self.residual[k], diagonal[k]) + keep * *p;
        }
        self.measure = measure;
        self.done = measure <= self.target;
    }
}

/// x / m; a dead column, with no ridge to hold it, stays where it is.
fn scaled(x: f64, m: f64) -> f64 {
    if m > 0.0 { x / m } else { 0.0 }
}

/// Rows of equal support, in the order in which they first come.
fn by_support(free: &[bool], d: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut seen: HashMap<&[bool], usize> = HashMap::new();
    let mut clusters: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    for (row, free) in free.chunks(d.max(1)).enumerate() {
        let at = *seen.entry(free).or_insert(clusters.len());
        if at == clusters.len() {
            clusters.push(((0..d).filter(|&c| free[c]).collect(), Vec::new()));
        }
        clusters[at].1.push(row);
    }
    clusters
}

/// product = rows · C, for a symmetric C.
fn multiply(rows: &[f64], moments: &Array2<f64>, product: &mut [f64]) {
    let d = moments.nrows();
    let shape = (rows.len() / d.max(1), d);
    let rows = ArrayView2::from_shape(shape, rows);
    if let (Ok(rows), Ok(mut product)) = (rows, ArrayViewMut2::from_shape(shape, product)) {
        general_mat_mul(1.0, &rows, moments, 0.0, &mut product);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(n: usize, d: usize) -> Normal {
        let x = Array2::from_shape_fn((n, d), |(i, j)| {
            f64::from(((i * 7919 + j * 104_729 + i * j * 31) % 1009) as u32) / 1009.0 - 0.3
        });
        let moments = x.t().dot(&x);
        let ridge = 1e-3 * moments.diag().mean().unwrap();
        Normal { moments, ridge }
    }

    #[test]
    fn iterating_comes_to_what_factoring_gives() {
        let (d, rows) = (90, 40);
        for n in [300, 50] {
            let normal = problem(n, d);
            let free: Vec<bool> = (0..rows * d).map(|k| (k * 48_271) % 7 < 4).collect();
            let rights: Vec<f64> = (0..rows * d).map(|k| ((k * 16_807) % 101) as f64 - 50.0).collect();
            let exact = normal.solve(&rights, &free);
            let every: Vec<usize> = (0..rows).collect();
            let near = normal.iterated(&every, &rights, &free);
            let size = exact.iter().map(|x| x * x).sum::<f64>();
            let apart = exact.iter().zip(&near).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            assert!(apart < 1e-8 * size, "{n} samples: {apart} of {size}");
            assert!(near.iter().zip(&free).all(|(x, free)| *free || *x == 0.0));
        }
    }

    #[test]
    fn rows_of_large_supports_are_iterated() {
        let d = 400;
        let normal = problem(600, d);
        let free: Vec<bool> = (0..2 * d).map(|k| k != 7 && k != d + 30).collect();
        let rights: Vec<f64> = (0..2 * d).map(|k| ((k * 16_807) % 101) as f64 - 50.0).collect();
        let solution = normal.solve(&rights, &free);
        assert_eq!(solution, normal.iterated(&[0, 1], &rights, &free));
        for (row, gone) in [7, 30].into_iter().enumerate() {
            let support: Vec<usize> = (0..d).filter(|&c| c != gone).collect();
            let exact = normal.factored(&support, &[row], &rights).unwrap();
            let size = exact.iter().map(|x| x * x).sum::<f64>();
            let apart = support.iter().zip(&exact).map(|(c, x)| (solution[row * d + c] - x).powi(2));
            assert!(apart.sum::<f64>() < 1e-6 * size);
        }
    }

    #[test]
    fn dead_columns_and_no_ridge_are_solvable() {
        let mut normal = problem(20, 30);
        normal.ridge = 0.0;
        normal.moments.row_mut(3).fill(0.0);
        normal.moments.column_mut(3).fill(0.0);
        let free = vec![true; 60];
        let truth: Vec<f64> = (0..60).map(f64::from).collect();
        let rights = normal.product(&truth);
        for solution in [normal.solve(&rights, &free), normal.iterated(&[0, 1], &rights, &free)] {
            let back = normal.product(&solution);
            assert!(back.iter().zip(&rights).all(|(a, b)| (a - b).abs() < 1e-3 * b.abs().max(1.0)));
        }
    }
}
