//! Codes one by one: each moves to where the error of its row is least while the others stay.

use ndarray::{Array2, Axis, Slice};

use crate::quantize::distillation::chunk::Chunk;

/// Moves codes, column after column, until none moves or so many sweeps are done. With `refit` each scale is set,
/// before each sweep and after the last, to where the error is least.
///
/// Neither step can raise δ·G·δᵀ of any row.
pub(super) fn descend(chunk: &mut Chunk<'_>, gram: &Array2<f64>, sweeps: usize, refit: bool) {
    let mut pull = chunk.errors().dot(gram);
    for _ in 0..sweeps {
        if refit {
            refit_scales(chunk, gram, &mut pull);
        }
        if !sweep(chunk, gram, &mut pull) {
            break;
        }
    }
    if refit {
        refit_scales(chunk, gram, &mut pull);
    }
}

/// One sweep; `pull` is δ·G. Whether a code moved.
fn sweep(chunk: &mut Chunk<'_>, gram: &Array2<f64>, pull: &mut Array2<f64>) -> bool {
    let mut moved = false;
    for ((column, &k), gram) in chunk.scale_of.iter().enumerate().zip(gram.rows()) {
        let own = gram[column];
        if own.is_nan() || own <= 0.0 {
            continue;
        }
        for row in 0..chunk.weights.nrows() {
            // A weight of 0 stays one.
            if chunk.weights[[row, column]] == 0.0 {
                continue;
            }
            let (scale, (low, high)) = (chunk.scales[[row, k]], chunk.ends[[row, k]]);
            let before = chunk.steps[[row, column]];
            let wanted = before + pull[[row, column]] / (own * scale);
            let step = wanted.round_ties_even().clamp(low, high);
            if (step - before).abs() > 0.5 {
                chunk.steps[[row, column]] = step;
                pull.row_mut(row).scaled_add((before - step) * scale, &gram);
                moved = true;
            }
        }
    }
    moved
}

/// Sets each scale of each row to the least error, the others as they are.
fn refit_scales(chunk: &mut Chunk<'_>, gram: &Array2<f64>, pull: &mut Array2<f64>) {
    let mut start = 0;
    while start < chunk.scale_of.len() {
        let k = chunk.scale_of[start];
        let stop = start + chunk.scale_of[start..].iter().take_while(|&&other| other == k).count();
        let columns = Slice::from(start..stop);
        let steps = chunk.steps.slice_axis(Axis(1), columns);
        // How the pull falls as the scale grows.
        let falls = steps.dot(&gram.slice_axis(Axis(0), columns));
        for (row, (steps, falls)) in steps.rows().into_iter().zip(falls.rows()).enumerate() {
            let slope: f64 = steps.iter().zip(falls.slice_axis(Axis(0), columns)).map(|(q, f)| q * f).sum();
            let force: f64 =
                steps.iter().zip(pull.row(row).slice_axis(Axis(0), columns)).map(|(q, p)| q * p).sum();
            let scale = chunk.scales[[row, k]] + force / slope;
            if slope > 0.0 && scale.is_finite() && scale > 0.0 {
                pull.row_mut(row).scaled_add(chunk.scales[[row, k]] - scale, &falls);
                chunk.scales[[row, k]] = scale;
            }
        }
        start = stop;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::distillation::testing::chunk;

    #[test]
    fn no_sweep_raises_a_rows_error() {
        for (scale_of, refit) in
            [(vec![0; 12], true), (vec![0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2], true), (vec![0; 12], false)]
        {
            let (mut chunk, gram) = chunk(&scale_of, 5, 3.0);
            let mut before = chunk.losses(&gram);
            for _ in 0..6 {
                descend(&mut chunk, &gram, 1, refit);
                let after = chunk.losses(&gram);
                assert!(
                    before.iter().zip(&after).all(|(b, a)| *a <= b * (1.0 + 1e-12)),
                    "{before:?} {after:?}"
                );
                before = after;
            }
            assert!(chunk.steps.iter().all(|q| q.abs() <= 3.0 && q.fract() == 0.0));
            assert_eq!(chunk.steps[[0, 3]], 0.0);
        }
    }

    #[test]
    fn a_single_move_is_the_best_of_all() {
        let (mut chunk, gram) = chunk(&[0; 12], 4, 7.0);
        descend(&mut chunk, &gram, 100, false);
        let settled = chunk.losses(&gram);
        for (row, &settled) in settled.iter().enumerate() {
            for column in (0..12).filter(|&c| chunk.weights[[row, c]] != 0.0) {
                for step in -7..=7 {
                    let mut other = chunk.clone();
                    other.steps[[row, column]] = f64::from(step);
                    assert!(other.losses(&gram)[row] >= settled * (1.0 - 1e-12));
                }
            }
        }
    }
}
