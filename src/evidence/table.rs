//! Inputs that are rows of a table: what a layer reads that follows an embedding.

use ndarray::{Array1, Array2, Axis};

use crate::evidence::Inputs;
use crate::evidence::inputs::Columns;
use crate::kernel::linalg;

/// What the Gram matrix of a table's rows may differ by from the one that was recorded, against its norm.
const TOLERANCE: f64 = 1e-4;

impl Inputs {
    /// How often each row of a table [entries, features] was read, if these inputs are such rows and nothing else.
    ///
    /// With table E, inputs that are its rows have the Gram matrix Eᵀ·diag(f)·E. Where E has independent rows (at most as
    /// many as features), f is the diagonal of K⁻¹·E·G·Eᵀ·K⁻¹ with K = E·Eᵀ; that it gives back G is the test. A row of
    /// zeros counts 0.
    pub(crate) fn counts(&self, table: &Array2<f64>) -> Option<Array1<f64>> {
        let [columns] = &self.groups[..] else { return None };
        let gram = columns.gram.as_ref().filter(|gram| gram.nrows() == table.ncols())?;
        let alive: Vec<usize> =
            (0..table.nrows()).filter(|&k| table.row(k).iter().any(|x| *x != 0.0)).collect();
        if alive.is_empty() || alive.len() > table.ncols() {
            return None;
        }
        let rows = table.select(Axis(0), &alive);
        let factor = linalg::cholesky(rows.dot(&rows.t()))?;
        // K⁻¹·E, column by column of E.
        let mut solved: Vec<f64> = rows.t().iter().copied().collect();
        linalg::cholesky_solve_rows(&factor, &mut solved);
        let solved = Array2::from_shape_vec((table.ncols(), alive.len()), solved).ok()?;
        let products = gram.dot(&solved);
        let mut counts = Array1::zeros(table.nrows());
        for (k, &entry) in alive.iter().enumerate() {
            counts[entry] = solved.column(k).dot(&products.column(k)).max(0.0);
        }
        let again = Self::of_table(table, &counts);
        let apart = again.gram(0)? - gram;
        let norm = |m: &Array2<f64>| m.iter().map(|x| x * x).sum::<f64>().sqrt();
        (norm(&apart) <= TOLERANCE * norm(gram)).then_some(counts)
    }

    /// What a layer sees that reads each row of a table so often.
    pub(crate) fn of_table(table: &Array2<f64>, counts: &Array1<f64>) -> Self {
        let weighted = table * &counts.view().insert_axis(Axis(1));
        let gram = weighted.t().dot(table);
        let read = |column: ndarray::ArrayView1<'_, f64>| {
            column.iter().zip(counts).filter(|(_, f)| **f > 0.0).map(|(x, _)| x.abs()).fold(0.0, f64::max)
        };
        let columns = Columns {
            sum: weighted.sum_axis(Axis(0)),
            squares: gram.diag().to_owned(),
            peaks: table.columns().into_iter().map(read).collect(),
            gram: Some(gram),
        };
        Self { rows: counts.sum().round() as u64, groups: vec![columns] }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use crate::{Evidence, Model, Needs, Parameter};

    #[test]
    fn rows_of_a_table_are_counted() {
        let table = array![[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.25, 2.0, 1.0]];
        let model =
            Model::builder().parameter(Parameter::linear("w", Array2::<f64>::ones((2, 3)))).build().unwrap();
        let read = |rows: &[usize]| {
            let mut evidence = Evidence::new(&model, Needs::GRAM);
            evidence.record_input("w", &table.select(ndarray::Axis(0), rows)).unwrap();
            evidence
        };
        let evidence = read(&[0, 0, 2, 1, 0]);
        let inputs = evidence.layer(&model, "w").unwrap().inputs().unwrap();
        let counts = inputs.counts(&table).unwrap();
        assert!(
            counts.iter().zip([3.0, 0.0, 1.0]).all(|(a, b): (&f64, f64)| (a - b).abs() < 1e-9),
            "{counts}"
        );
        let mut evidence = read(&[0, 2]);
        evidence.record_input("w", &array![[0.0, 0.0, 0.1]]).unwrap();
        let inputs = evidence.layer(&model, "w").unwrap().inputs().unwrap();
        assert_eq!(inputs.counts(&table), None);
    }
}
