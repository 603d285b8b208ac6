//! How much memory the matrices of evidence take, before they are there.

use crate::evidence::Needs;
use crate::onnx::run::runs;
use crate::{Error, Parameter, Result};

/// Layers that an error names.
const NAMED: usize = 3;

/// Bytes of what is kept of a layer's inputs: a matrix for each group, and rows that wait to be multiplied; twice, where
/// samples are held out.
pub(super) fn of_inputs(parameter: &Parameter<f32>, needs: Needs) -> u64 {
    if !needs.contains(Needs::GRAM) {
        return 0;
    }
    let (columns, groups) = (parameter.fan_in() as u64, parameter.groups().max(1) as u64);
    let sides = if needs.contains(Needs::HELD_OUT) { 2 } else { 1 };
    let matrices = square(columns).saturating_mul(groups);
    matrices.saturating_add(runs::bytes(columns.saturating_mul(groups))).saturating_mul(sides)
}

/// Bytes of what is kept of a layer's outputs.
pub(super) fn of_outputs(parameter: &Parameter<f32>, needs: Needs) -> u64 {
    if needs.contains(Needs::OUTPUT_GRAM) { square(parameter.units() as u64) } else { 0 }
}

fn square(side: u64) -> u64 {
    side.saturating_mul(side).saturating_mul(size_of::<f64>() as u64)
}

/// Errors when all together are more than `limit`, and names the largest.
pub(super) fn check(mut layers: Vec<(&str, u64)>, limit: u64) -> Result<()> {
    let total = layers.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    if total <= limit {
        return Ok(());
    }
    layers.sort_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
    let count = layers.iter().filter(|(_, bytes)| *bytes > 0).count();
    let largest: Vec<String> =
        layers.iter().take(NAMED).map(|(name, bytes)| format!("`{name}` {}", told(*bytes))).collect();
    Err(Error::setting(format!(
        "the Gram matrices of {count} layers take {}, more than the limit of {}; the largest: {}",
        told(total),
        told(limit),
        largest.join(", ")
    )))
}

/// Bytes in words: `12.5 MiB`.
fn told(bytes: u64) -> String {
    let steps = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match steps.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array;

    use super::*;
    use crate::Geometry;

    #[test]
    fn bytes_are_those_of_all_groups() {
        let conv = Parameter::conv("c", Array::<f32, _>::ones((8, 4, 3)), Geometry::new().groups(2));
        assert_eq!(of_inputs(&conv, Needs::MOMENTS), 0);
        assert_eq!(of_inputs(&conv, Needs::GRAM), 2 * 12 * 12 * 8 + 512 * 24 * 8);
        assert_eq!(of_inputs(&conv, Needs::HELD_OUT), 2 * of_inputs(&conv, Needs::GRAM));
        assert_eq!((of_outputs(&conv, Needs::GRAM), of_outputs(&conv, Needs::OUTPUT_GRAM)), (0, 8 * 8 * 8));
    }

    #[test]
    fn what_is_too_large_is_named() {
        let layers = vec![("a", 1 << 20), ("b", 3 << 29), ("c", 0), ("d", 2048), ("e", 1023)];
        assert!(check(layers.clone(), u64::MAX).is_ok());
        let error = check(layers, 1 << 30).unwrap_err().to_string();
        let wanted = "the Gram matrices of 4 layers take 1.5 GiB, more than the limit of 1.0 GiB; the largest: \
                      `b` 1.5 GiB, `a` 1.0 MiB, `d` 2.0 KiB";
        assert_eq!(error, wanted);
    }
}
