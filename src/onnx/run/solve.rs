//! A weight solved for what it is to answer to what it now reads.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayD, ArrayView2, Axis};

use crate::evidence::gram;
use crate::kernel::normal::Normal;
use crate::recover::columns::centred;
use crate::{Error, Parameter, Result};

/// With fewer rows for each column than this, several ridges are tried on rows that were held out.
const MANY: u64 = 20;
/// Multiples of the ridge that are tried.
const TRIED: [f64; 6] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5];

/// Sums over rows that a weight reads and the answers that it is to give.
#[derive(Debug)]
pub(crate) struct Sums {
    groups: Vec<[Share; 2]>,
}

/// Half of the rows of one group of a convolution; all else has one group.
#[derive(Clone, Debug)]
struct Share {
    rows: u64,
    inputs: Array1<f64>,
    answers: Array1<f64>,
    gram: Array2<f64>,
    /// [units, columns]
    cross: Array2<f64>,
}

/// Weights, and the constant to be added to each unit's answer.
#[derive(Debug)]
pub(crate) struct Solved {
    pub(crate) weights: ArrayD<f32>,
    pub(crate) constants: Option<Vec<f64>>,
}

impl Sums {
    pub(crate) fn new(parameter: &Parameter<f32>) -> Self {
        let (groups, width) = (parameter.groups().max(1), parameter.fan_in());
        let units = parameter.units() / groups;
        Self { groups: vec![[Share::new(units, width), Share::new(units, width)]; groups] }
    }

    /// Takes in rows of each group, and what all units are to answer to them. Neighbouring rows may be alike (places of
    /// one sample), so that the halves that are held out from each other are runs.
    ///
    /// # Errors
    /// Rows of another weight.
    pub(crate) fn add(&mut self, inputs: &[Array2<f64>], answers: &Array2<f64>) -> Result<()> {
        let (groups, per_group) = (self.groups.len(), self.groups.first().map_or(0, |g| g[0].answers.len()));
        let fits =
            |(group, x): (&[Share; 2], &Array2<f64>)| x.dim() == (answers.nrows(), group[0].inputs.len());
        let all = inputs.len() == groups && self.groups.iter().zip(inputs).all(fits);
        if !all || answers.ncols() != groups * per_group {
            return Err(Error::shape("rows of inputs and answers do not belong to each other"));
        }
        for (number, (group, x)) in self.groups.iter_mut().zip(inputs).enumerate() {
            let y = answers.slice_axis(Axis(1), (number * per_group..(number + 1) * per_group).into());
            let (x, y) = (x.view().split_at(Axis(0), x.nrows() / 2), y.split_at(Axis(0), y.nrows() / 2));
            // The longer half goes where there is less.
            let less = usize::from(group[0].rows > group[1].rows);
            group[1 - less].add(&x.0, &y.0);
            group[less].add(&x.1, &y.1);
        }
        Ok(())
    }

    /// For each unit the w with the least ‖y − X·w − c‖² + λ·‖w − w₀‖², w₀ the weights as they are and λ `ridge` times
    /// the mean diagonal of `XᵀX`; c is free with `constant`, else 0. A weight that is 0 stays so, and a unit that would
    /// answer worse keeps its weights. With few rows λ may be larger: each half of the rows is solved with several and
    /// judged by the other.
    pub(crate) fn solve(&self, parameter: &Parameter<f32>, ridge: f64, constant: bool) -> Solved {
        let mut weights = parameter.array().clone();
        let mut constants = Vec::with_capacity(parameter.units());
        let width = parameter.fan_in();
        let values = weights.as_slice_mut().unwrap_or_default();
        for (number, shares) in self.groups.iter().enumerate() {
            let units = shares[0].answers.len();
            let at = |row: usize, column: usize| index(parameter, number * units + row, column);
            let before: Vec<f64> = places(units, width).map(|(r, c)| values[at(r, c)].into()).collect();
            let whole = shares[0].joined(&shares[1]);
            let (ridge, better) = chosen(shares, &before, ridge, constant);
            let found = whole.fit(&before, ridge, constant);
            // What is judged is what is stored.
            let narrowed: Vec<f32> = found.iter().map(|w| *w as f32).collect();
            let stored: Vec<f64> = narrowed.iter().map(|w| f64::from(*w)).collect();
            let (own, former) = (whole.constants(&stored, constant), whole.constants(&before, constant));
            let (new, old) = (whole.losses(&stored, &own), whole.losses(&before, &former));
            for row in 0..units {
                let takes = better[row] && new[row] < old[row];
                if takes {
                    (0..width).for_each(|column| values[at(row, column)] = narrowed[row * width + column]);
                }
                constants.push(if takes { own[row] } else { former[row] });
            }
        }
        Solved { weights, constants: constant.then_some(constants) }
    }
}

/// The ridge by which each half of the rows tells most about the other, and which units are then better off than with
/// the weights that they have. With many rows, or weights that lost different inputs, it is the one that was asked for.
fn chosen(shares: &[Share; 2], before: &[f64], ridge: f64, constant: bool) -> (f64, Vec<bool>) {
    let (units, width) = (shares[0].answers.len(), shares[0].inputs.len());
    let support = |row: &[f64]| row.iter().map(|w| *w == 0.0).collect::<Vec<_>>();
    let mut rows = before.chunks(width.max(1)).map(support);
    let alike = rows.next().is_none_or(|first| rows.all(|row| row == first));
    let few = shares.iter().all(|s| s.rows > 1) && shares[0].rows + shares[1].rows < MANY * width as u64;
    if !few || !alike || ridge == 0.0 {
        return (ridge, vec![true; units]);
    }
    let held_out = |ridge: Option<f64>| {
        let of = |[learns, judges]: [&Share; 2]| {
            let weights = ridge.map_or_else(|| before.to_vec(), |r| learns.fit(before, r, constant));
            judges.losses(&weights, &learns.constants(&weights, constant))
        };
        let (first, second) = (of([&shares[0], &shares[1]]), of([&shares[1], &shares[0]]));
        first.iter().zip(&second).map(|(a, b)| a + b).collect::<Vec<f64>>()
    };
    let tried = TRIED.map(|factor| (factor * ridge, held_out(Some(factor * ridge))));
    let total = |losses: &[f64]| losses.iter().sum::<f64>();
    let best = tried.into_iter().min_by(|a, b| total(&a.1).total_cmp(&total(&b.1)));
    let as_they_are = held_out(None);
    match best {
        Some((best, losses)) => (best, losses.iter().zip(&as_they_are).map(|(new, old)| new < old).collect()),
        None => (ridge, vec![true; units]),
    }
}

impl Share {
    fn new(units: usize, width: usize) -> Self {
        Self {
            rows: 0,
            inputs: Array1::zeros(width),
            answers: Array1::zeros(units),
            gram: Array2::zeros((width, width)),
            cross: Array2::zeros((units, width)),
        }
    }

    fn add(&mut self, x: &ArrayView2<'_, f64>, y: &ArrayView2<'_, f64>) {
        self.rows += x.nrows() as u64;
        self.inputs += &x.sum_axis(Axis(0));
        self.answers += &y.sum_axis(Axis(0));
        gram::add_rows(&mut self.gram, x.as_slice().unwrap_or_default());
        general_mat_mul(1.0, &y.t(), x, 1.0, &mut self.cross);
    }

    fn joined(&self, other: &Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            inputs: &self.inputs + &other.inputs,
            answers: &self.answers + &other.answers,
            gram: &self.gram + &other.gram,
            cross: &self.cross + &other.cross,
        }
    }

    /// Rows of weights, one after another.
    fn fit(&self, before: &[f64], ridge: f64, constant: bool) -> Vec<f64> {
        let (units, width, n) = (self.answers.len(), self.inputs.len(), self.rows.max(1) as f64);
        let means = &self.inputs / n;
        let moments = if constant { centred(&self.gram, &means, self.rows) } else { self.gram.clone() };
        let ridge = ridge * moments.diag().mean().unwrap_or(0.0);
        let normal = Normal { moments, ridge };
        let reached = normal.product(before);
        let shift =
            |row: usize, column: usize| if constant { means[column] * self.answers[row] } else { 0.0 };
        let rights: Vec<f64> = places(units, width)
            .zip(&reached)
            .map(|((r, c), reached)| self.cross[[r, c]] - shift(r, c) - reached)
            .collect();
        let free: Vec<bool> = before.iter().map(|&w| w != 0.0).collect();
        let solution = normal.solve(&rights, &free);
        before.iter().zip(&solution).map(|(w, d)| w + d).collect()
    }

    /// What is to be added to each unit's answers so that their mean is right.
    fn constants(&self, weights: &[f64], constant: bool) -> Vec<f64> {
        let n = self.rows.max(1) as f64;
        let reads = |weights: &[f64]| self.inputs.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>();
        let of = |(weights, y): (&[f64], &f64)| if constant { (y - reads(weights)) / n } else { 0.0 };
        weights.chunks(self.inputs.len().max(1)).zip(&self.answers).map(of).collect()
    }

    /// Σ (y − x·w − c)² over the rows for each unit, without Σ y².
    fn losses(&self, weights: &[f64], constants: &[f64]) -> Vec<f64> {
        let Ok(weights) = ArrayView2::from_shape((self.answers.len(), self.inputs.len()), weights) else {
            return Vec::new();
        };
        let (products, reads) = (weights.dot(&self.gram), weights.dot(&self.inputs));
        let of = |(unit, &c): (usize, &f64)| {
            let w = weights.row(unit);
            products.row(unit).dot(&w) - 2.0 * self.cross.row(unit).dot(&w)
                + 2.0 * c * (reads[unit] - self.answers[unit])
                + self.rows as f64 * c * c
        };
        constants.iter().enumerate().map(of).collect()
    }
}

/// What a weight answers to rows of its inputs, without a bias: [rows, units].
pub(crate) fn product(parameter: &Parameter<f32>, inputs: &[Array2<f64>]) -> Array2<f64> {
    let (units, rows) = (parameter.units(), inputs.first().map_or(0, Array2::nrows));
    let (values, per_group) = (parameter.values(), (units / inputs.len().max(1)).max(1));
    Array2::from_shape_fn((rows, units), |(row, unit)| {
        inputs.get(unit / per_group).map_or(0.0, |group| {
            let of = |(column, x): (usize, &f64)| x * f64::from(values[index(parameter, unit, column)]);
            group.row(row).iter().enumerate().map(of).sum()
        })
    })
}

fn places(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

/// Flat index of a row's column; exchanged axes hold a matrix [in, out].
fn index(parameter: &Parameter<f32>, row: usize, column: usize) -> usize {
    if parameter.is_row_major() {
        row * parameter.fan_in() + column
    } else {
        row + column * parameter.shape()[1]
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;
    use crate::Geometry;

    fn rows(n: usize, d: usize, salt: usize) -> Array2<f64> {
        Array2::from_shape_fn((n, d), |(i, j)| ((i * 31 + j * 17 + i * j * 7 + salt) % 23) as f64 / 5.0 - 2.0)
    }

    #[test]
    fn exact_weights_and_constants_are_found() {
        let truth = array![[1.0f32, -2.0, 0.5], [0.25, 3.0, -1.0]];
        for turned in [false, true] {
            let start = Array::from_shape_fn((2, 3), |(i, j)| 0.1 + (i + j) as f32);
            let parameter = if turned {
                Parameter::linear("fc", start.t().to_owned()).axes(1, 0)
            } else {
                Parameter::linear("fc", start)
            };
            let x = rows(200, 3, 1);
            let y = x.dot(&truth.mapv(f64::from).t()) + &array![4.0, -1.0];
            let mut sums = Sums::new(&parameter);
            sums.add(&[x], &y).unwrap();
            let solved = sums.solve(&parameter, 1e-9, true);
            let weights = if turned { solved.weights.t().to_owned() } else { solved.weights };
            assert!((weights - truth.clone().into_dyn()).iter().all(|d| d.abs() < 1e-5));
            let constants = solved.constants.unwrap();
            assert!((constants[0] - 4.0).abs() < 1e-5 && (constants[1] + 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn groups_are_solved_on_their_own_and_zeros_stay() {
        let weights = Array::from_shape_vec((2, 1, 2), vec![0.0f32, 1.0, 1.0, 1.0]).unwrap();
        let conv = Parameter::conv("conv", weights, Geometry::new().groups(2));
        let (a, b) = (rows(100, 2, 1), rows(100, 2, 9));
        let mut y = Array2::zeros((100, 2));
        y.column_mut(0).assign(&(&a.column(0) * 2.0 + &a.column(1) * 3.0));
        y.column_mut(1).assign(&(&b.column(0) * -1.0 + &b.column(1) * 0.5));
        let mut sums = Sums::new(&conv);
        sums.add(&[a.clone(), b], &y).unwrap();
        let solved = sums.solve(&conv, 0.0, false);
        let found = solved.weights.as_slice().unwrap();
        assert_eq!(found[0], 0.0);
        let alone = a.column(1).dot(&y.column(0)) / a.column(1).dot(&a.column(1));
        assert!((f64::from(found[1]) - alone).abs() < 1e-5);
        assert!((found[2] + 1.0).abs() < 1e-5 && (found[3] - 0.5).abs() < 1e-5);
        assert!(solved.constants.is_none());
        assert!(sums.add(&[a], &y).is_err());
    }
}
