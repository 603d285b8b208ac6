//! What the evidence says of a passage's units.

use ndarray::Array1;

use crate::evidence::Inputs;
use crate::model::{CoupledSlot, Passage};
use crate::{Element, Error, Evidence, Model, Result};

/// Errors when there are passages, but nothing was recorded of what any weight reads through them.
pub(super) fn check<F: Element>(model: &Model<F>, evidence: &Evidence<F>) -> Result<()> {
    let readers: Vec<&str> =
        model.passages().iter().flat_map(Passage::readers).map(CoupledSlot::parameter).collect();
    for &name in &readers {
        if evidence.layer(model, name)?.has_inputs() {
            return Ok(());
        }
    }
    match readers.first() {
        None => Ok(()),
        Some(name) => Err(Error::missing(format!(
            "layer `{name}`: no inputs (Evidence::record_input) were recorded of it, nor of any other layer that \
             scales could be moved to"
        ))),
    }
}

/// The mean over all weights that read a unit of what a statistic says of their columns; `None` where no inputs of any
/// reader were recorded.
pub(super) fn of_inputs<F: Element>(
    model: &Model<F>,
    evidence: &Evidence<F>,
    passage: &Passage,
    statistic: impl Fn(&Inputs, usize) -> Array1<f64>,
) -> Result<Option<Vec<f64>>> {
    let mut sums = vec![(0.0, 0usize); passage.size()];
    let mut found = false;
    for slot in passage.readers() {
        let layer = evidence.layer(model, slot.parameter())?;
        if !layer.has_inputs() || layer.inputs()?.rows() == 0 {
            continue;
        }
        found = true;
        let (inputs, parameter) = (layer.inputs()?, layer.parameter());
        let (taps, groups) = (parameter.taps(), inputs.groups());
        let per_group = (parameter.shape()[parameter.out_axis()] / groups.max(1)).max(1);
        let columns: Vec<Array1<f64>> = (0..groups).map(|group| statistic(inputs, group)).collect();
        for ((sum, count), positions) in sums.iter_mut().zip(slot.all_positions()) {
            let mut add = |columns: &[f64]| {
                *sum += columns.iter().sum::<f64>();
                *count += columns.len();
            };
            for &position in positions {
                if parameter.in_axis() == Some(slot.axis()) {
                    for columns in columns.iter().filter_map(|c| c.as_slice()) {
                        add(columns.get(position * taps..(position + 1) * taps).unwrap_or_default());
                    }
                } else {
                    // A row of a convolution whose groups read one channel each.
                    add(columns.get(position / per_group).and_then(|c| c.as_slice()).unwrap_or_default());
                }
            }
        }
    }
    Ok(found.then(|| sums.into_iter().map(|(sum, count)| sum / count.max(1) as f64).collect()))
}
