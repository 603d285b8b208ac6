//! Convolutions and what slides like them.

use crate::onnx::trace::Axis;
use crate::onnx::trace::step::{Role, Step};

/// x [n, c, …], w [o, c / groups, …], b [o].
pub(super) fn conv(step: &mut Step<'_, '_, '_>) {
    let (x, w) = (step.dims(0), step.dims(1));
    let groups = step.proto().int("group").unwrap_or(1).max(1) as usize;
    if x.len() < 3
        || w.len() != x.len()
        || Some(x[1]) != w[1].checked_mul(groups)
        || !w[0].is_multiple_of(groups)
    {
        return step.stop("its shapes do not fit");
    }
    step.weight(1, Role::Conv, [0, 1], Some(0));
    let (channels, out) = (step.axis(0, 1), step.axis(1, 0));
    if groups == 1 {
        let columns = step.axis(1, 1);
        step.join(&channels, &columns);
    } else {
        let (per_in, per_out) = (w[1], w[0] / groups);
        grouped(step, &channels, &out, per_in, per_out);
        let columns = step.axis(1, 1);
        if let Some(columns) = &columns {
            let copies = Step::spread(&Some(columns.clone()), groups, 1);
            step.join(&channels, &copies);
        }
    }
    finish(step, out, w[0]);
}

/// x [n, c, …], w [c, o / groups, …], b [o].
pub(super) fn transposed(step: &mut Step<'_, '_, '_>) {
    let (x, w) = (step.dims(0), step.dims(1));
    let groups = step.proto().int("group").unwrap_or(1).max(1) as usize;
    if x.len() < 3 || w.len() != x.len() || x[1] != w[0] || !w[0].is_multiple_of(groups) {
        return step.stop("its shapes do not fit");
    }
    step.weight(1, Role::Transposed, [1, 0], Some(0));
    let (channels, rows) = (step.axis(0, 1), step.axis(1, 0));
    step.join(&channels, &rows);
    let columns = step.axis(1, 1);
    let (per_in, per_out) = (w[0] / groups, w[1]);
    let out = if groups == 1 {
        columns
    } else if per_in == 1 {
        // A channel goes with all that it makes.
        step.hold(&columns, "a group goes whole");
        Step::spread(&channels, 1, per_out)
    } else {
        let out = Step::spread(&columns, groups, 1);
        grouped(step, &channels, &out, per_in, per_out);
        out
    };
    finish(step, out, w[1].saturating_mul(groups));
}

/// Groups of channels that do not see each other. Where a group reads one channel, channel and filters are one; else the
/// same place in every group is, on both sides.
fn grouped(step: &mut Step<'_, '_, '_>, channels: &Axis, out: &Axis, per_in: usize, per_out: usize) {
    if per_in == 1 {
        let filters = out.as_ref().map_or(0, |axis| axis.len());
        let of_group = step.gather(out, filters / per_out.max(1), |o| o / per_out);
        step.join(channels, &of_group);
        return;
    }
    step.gather(channels, per_in, |c| c % per_in);
    step.gather(out, per_out, |o| o % per_out);
}

fn finish(step: &mut Step<'_, '_, '_>, out: Axis, filters: usize) {
    if step.input(2).is_some() && step.dims(2) == [filters] {
        let bias = step.axis(2, 0);
        step.join(&out, &bias);
    }
    let rank = step.out_dims(0).len();
    if rank < 2 {
        return step.hold(&out, "its shapes do not fit");
    }
    let mut axes = vec![None; rank];
    // The samples of a batch are not followed.
    axes[0] = step.axis(0, 0);
    axes[1] = out;
    step.set(0, axes);
}

/// Channels pass; places are not followed.
pub(super) fn pool(step: &mut Step<'_, '_, '_>) {
    if step.out_dims(0).len() != step.dims(0).len() {
        return step.stop("its shapes do not fit");
    }
    let mut axes = vec![None; step.out_dims(0).len()];
    for (at, axis) in step.axes(0).into_iter().enumerate() {
        if at < 2 {
            axes[at] = axis;
        } else {
            step.hold(&axis, "it slides along this axis");
        }
    }
    for k in 0..step.node().outputs.len() {
        step.set(k, axes.clone());
    }
}
