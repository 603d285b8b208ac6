//! Products of matrices.

use std::collections::BTreeMap;

use crate::onnx::trace::Axis;
use crate::onnx::trace::step::{Role, Step};

/// a […, m, k] · b […, k, n].
pub(super) fn matmul(step: &mut Step<'_, '_, '_>) {
    let (a, b) = (step.dims(0), step.dims(1));
    if a.is_empty() || b.is_empty() {
        return step.stop("its shapes do not fit");
    }
    // A vector is a row on the left and a column on the right.
    let (inner_a, inner_b) = (a.len() - 1, b.len().saturating_sub(2));
    let (left, right) = (step.axes(0), step.axes(1));
    step.join(&left[inner_a], &right[inner_b]);
    if b.len() == 2 {
        step.weight(1, Role::Linear, [1, 0], Some(0));
    }
    if a.len() == 2 {
        step.weight(0, Role::Linear, [0, 1], Some(1));
    }
    let rank = step.out_dims(0).len();
    if rank < usize::from(a.len() > 1) + usize::from(b.len() > 1) {
        return step.stop("its shapes do not fit");
    }
    let mut axes: Vec<Axis> = vec![None; rank];
    let mut end = rank;
    if b.len() > 1 {
        end -= 1;
        axes[end].clone_from(&right[b.len() - 1]);
    }
    if a.len() > 1 {
        end -= 1;
        axes[end].clone_from(&left[a.len() - 2]);
    }
    let batch = |dims: &[usize], axes: &[Axis], from_end: usize| -> Option<(usize, Axis)> {
        let at = dims.len().checked_sub(3 + from_end)?;
        Some((dims[at], axes[at].clone()))
    };
    for from_end in 0..end {
        let axis = match (batch(a, &left, from_end), batch(b, &right, from_end)) {
            (Some((m, a)), Some((n, b))) if m == n => {
                step.join(&a, &b);
                a.or(b)
            }
            (Some((1, _)) | None, Some((_, b))) => b,
            (Some((_, a)), _) => a,
            (None, None) => None,
        };
        axes[end - 1 - from_end] = axis;
    }
    step.set(0, axes);
}

/// op(a) · op(b) + c.
pub(super) fn gemm(step: &mut Step<'_, '_, '_>) {
    let turned = |name| step.proto().int(name).unwrap_or(0) != 0;
    let (turn_a, turn_b) = (usize::from(turned("transA")), usize::from(turned("transB")));
    if step.dims(0).len() != 2 || step.dims(1).len() != 2 || step.out_dims(0).len() != 2 {
        return step.stop("its shapes do not fit");
    }
    let (m, k) = (step.axis(0, turn_a), step.axis(0, 1 - turn_a));
    let (other, n) = (step.axis(1, turn_b), step.axis(1, 1 - turn_b));
    step.join(&k, &other);
    step.weight(1, Role::Linear, [1 - turn_b, turn_b], Some(0));
    step.weight(0, Role::Linear, [turn_a, 1 - turn_a], Some(1));
    let out = step.out_dims(0);
    let (c, axes) = (step.dims(2), step.axes(2));
    for (from_end, (&len, axis)) in c.iter().rev().zip(axes.iter().rev()).enumerate() {
        if len == out[1 - from_end.min(1)] {
            step.join(if from_end == 0 { &n } else { &m }, axis);
        }
    }
    step.set(0, vec![m, n]);
}

/// Axes of the same letter are one.
pub(super) fn einsum(step: &mut Step<'_, '_, '_>) {
    let equation: String =
        step.proto().text("equation").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    let Some((inputs, output)) = equation.split_once("->") else {
        return step.stop("its equation is not understood");
    };
    let terms: Vec<Vec<char>> = inputs.split(',').map(|term| term.chars().collect()).collect();
    let fits = terms.iter().enumerate().all(|(k, term)| {
        let twice = (1..term.len()).any(|at| term[at..].contains(&term[at - 1]));
        term.len() == step.dims(k).len() && term.iter().all(char::is_ascii_alphabetic) && !twice
    });
    if !fits || output.len() != step.out_dims(0).len() {
        return step.stop("its equation is not understood");
    }
    let mut letters: BTreeMap<char, Axis> = BTreeMap::new();
    for (k, term) in terms.iter().enumerate() {
        for (at, letter) in term.iter().enumerate() {
            let axis = step.axis(k, at);
            if let Some(other) = letters.get(letter).cloned() {
                step.join(&other, &axis);
                letters.insert(*letter, other.or(axis));
            } else {
                letters.insert(*letter, axis);
            }
        }
        if term.len() == 2 && terms.len() == 2 {
            let (out, inp) = if output.contains(term[0]) { (0, 1) } else { (1, 0) };
            step.weight(k, Role::Linear, [out, inp], None);
        }
    }
    step.set(0, output.chars().map(|letter| letters.get(&letter).cloned().flatten()).collect());
}
