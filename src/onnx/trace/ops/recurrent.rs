//! Recurrent layers: x [times, samples, features], w [directions, gates·hidden, features], r [directions, gates·hidden,
//! hidden], b [directions, 2·gates·hidden], states [directions, samples, hidden].

use crate::onnx::trace::step::{Role, Step};

/// A hidden unit is the same place in each gate, in both directions, in both matrices.
pub(super) fn layer(step: &mut Step<'_, '_, '_>, gates: usize) {
    let (w, r) = (step.dims(1), step.dims(2));
    if w.len() != 3 || r.len() != 3 || w[1] != gates * r[2] || r[1] != w[1] {
        return step.stop("its shapes do not fit");
    }
    let hidden = r[2];
    step.weight(1, Role::Recurrent { gates, own: false }, [1, 2], Some(0));
    step.weight(2, Role::Recurrent { gates, own: true }, [1, 2], None);
    let (features, columns) = (step.axis(0, 2), step.axis(1, 2));
    step.join(&features, &columns);
    let units = step.axis(2, 2);
    for (k, per) in [(1, gates), (2, gates), (3, 2 * gates)] {
        if step.input(k).is_none() {
            continue;
        }
        let rows = step.axis(k, 1);
        let own = if step.dims(k).get(1) == Some(&(per * hidden)) {
            step.gather(&rows, hidden, |row| row % hidden)
        } else {
            None
        };
        step.join(&units, &own);
    }
    // Initial states, and the weights by which an LSTM's gates look into the cell.
    for k in [5, 6] {
        if step.input(k).is_some() {
            let state = step.axis(k, 2);
            step.join(&units, &state);
        }
    }
    if step.input(7).is_some() {
        let looks = step.axis(7, 1);
        let own = step.gather(&looks, hidden, |row| row % hidden);
        step.join(&units, &own);
    }
    for k in [1, 2, 3, 5, 6, 7] {
        let directions = step.axis(k, 0);
        step.hold(&directions, "a direction goes only whole");
    }
    if step.proto().int("layout").unwrap_or(0) != 0 {
        step.hold(&units, "samples come first here");
    }
    for k in 0..step.node().outputs.len() {
        let rank = step.out_dims(k).len();
        let mut axes = vec![None; rank];
        if let Some(last) = axes.last_mut() {
            last.clone_from(&units);
        }
        step.set(k, axes);
    }
}
