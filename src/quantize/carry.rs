//! What rounding an embedding lost goes into the weights that read it.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView2, Axis, Ix2};

use crate::evidence::Inputs;
use crate::evidence::objective::Rows;
use crate::kernel::normal::Normal;
use crate::model::CoupledSlot;
use crate::quantize::QuantizedTensor;
use crate::{Element, Evidence, Kind, Layer, Model, Parameter, Result};

/// How strongly weights are held where they were, against the mean square of an input.
const RIDGE: f64 = 0.01;

/// Quantizes embeddings, then all other weights, those that read embeddings solved again on the rounded entries.
///
/// A matrix that reads nothing but the rows of a table sees only as many different inputs as the table has entries. With
/// E the table, Ê as it decodes, f how often each entry was read, it becomes
///
/// ```text
/// W′ = W·(C + λ·I)·(G + λ·I)⁻¹      G = Êᵀ·diag(f)·Ê      C = Eᵀ·diag(f)·Ê
/// ```
///
/// (row by row on what is not 0, where single weights were pruned), and is then quantized by what it reads now, G. Where
/// the table has fewer entries than features this gives nearly all back. f comes out of the Gram matrix of the recorded
/// inputs, which also shows whether the matrix reads the table at all; where it cannot be found, nothing is solved again.
pub(super) fn quantize_model<F: Element>(
    model: &Model<F>,
    evidence: &Evidence<F>,
    centred: bool,
    quantize: impl Fn(&Layer<'_, F>) -> Result<QuantizedTensor>,
) -> Result<Vec<(String, QuantizedTensor)>> {
    let (mut tensors, mut solved) = (HashMap::new(), HashMap::new());
    for table in model.weights().filter(|p| *p.kind() == Kind::Embedding) {
        let codes = quantize(&evidence.layer(model, table.name())?)?;
        for reader in readers(model, table) {
            let layer = evidence.layer(model, reader.name())?;
            if let Some(read) = Read::of(&layer, table, &codes)? {
                solved.insert(reader.name().to_owned(), (read.solve(&layer, centred)?, read.after));
            }
        }
        tensors.insert(table.name().to_owned(), codes);
    }
    let mut all = Vec::new();
    for weight in model.weights() {
        let name = weight.name();
        let tensor = match (tensors.remove(name), solved.get(name)) {
            (Some(tensor), _) => tensor,
            (None, Some((weight, inputs))) => {
                quantize(&evidence.layer(model, name)?.reading(weight, inputs))?
            }
            (None, None) => quantize(&evidence.layer(model, name)?)?,
        };
        all.push((name.to_owned(), tensor));
    }
    Ok(all)
}

/// What the weights that read an embedding read once it is rounded, by name.
pub(crate) fn inputs_after<F: Element>(
    model: &Model<F>,
    evidence: &Evidence<F>,
    quantized: &[(String, QuantizedTensor)],
) -> Result<HashMap<String, Inputs>> {
    let mut inputs = HashMap::new();
    for (name, codes) in quantized {
        let Some(table) = model.find(name).filter(|p| *p.kind() == Kind::Embedding) else { continue };
        for reader in readers(model, table) {
            if let Some(read) = Read::of(&evidence.layer(model, reader.name())?, table, codes)? {
                inputs.insert(reader.name().to_owned(), read.after);
            }
        }
    }
    Ok(inputs)
}

/// Matrices whose inputs are coupled, one to one, to the features of a table.
fn readers<'a, F: Element>(model: &'a Model<F>, table: &Parameter<F>) -> Vec<&'a Parameter<F>> {
    let whole = |slot: &CoupledSlot, width: usize| {
        slot.all_positions().len() == width
            && slot.all_positions().iter().enumerate().all(|(k, at)| at[..] == [k])
    };
    let mut readers = Vec::new();
    for coupling in model.couplings() {
        let width = coupling.size();
        let makes = coupling.slots().iter().any(|slot| {
            slot.parameter() == table.name() && slot.axis() == table.out_axis() && whole(slot, width)
        });
        if !makes || table.shape().len() != 2 || table.shape()[table.out_axis()] != width {
            continue;
        }
        let reads = |slot: &&CoupledSlot| {
            let reader = model
                .find(slot.parameter())
                .filter(|p| p.kind().is_weight() && p.in_axis() == Some(slot.axis()));
            reader.is_some_and(|p| p.shape().len() == 2 && *p.kind() != Kind::Embedding) && whole(slot, width)
        };
        readers.extend(coupling.slots().iter().filter(reads).filter_map(|slot| model.find(slot.parameter())));
    }
    readers
}

/// A table before and after it was rounded, and what a layer reads of it.
struct Read {
    before: Array2<f64>,
    rounded: Array2<f64>,
    counts: Array1<f64>,
    after: Inputs,
}

impl Read {
    /// `None` where nothing was recorded, or other things than the table's rows.
    fn of<F: Element>(
        layer: &Layer<'_, F>,
        table: &Parameter<F>,
        codes: &QuantizedTensor,
    ) -> Result<Option<Self>> {
        let Some(inputs) = layer.has_inputs().then(|| layer.inputs()).transpose()? else { return Ok(None) };
        let entries = |array: ndarray::ArrayD<F>| {
            let rows = array.mapv(F::widen).into_dimensionality::<Ix2>().unwrap_or_default();
            if table.out_axis() == 1 { rows } else { rows.reversed_axes() }
        };
        let before = entries(table.array().clone());
        let Some(mut counts) = inputs.counts(&before) else { return Ok(None) };
        if let Ok(held_out) = layer.held_out() {
            let Some(more) = held_out.counts(&before) else { return Ok(None) };
            counts += &more;
        }
        let rounded = entries(codes.decode());
        let after = Inputs::of_table(&rounded, &counts);
        Ok(Some(Self { before, rounded, counts, after }))
    }

    /// The layer's weights for the rounded rows.
    fn solve<F: Element>(&self, layer: &Layer<'_, F>, centred: bool) -> Result<Parameter<F>> {
        let (parameter, rows) = (layer.parameter(), Rows::of(layer.parameter()));
        let total = self.counts.sum().max(1.0);
        let centre = |table: &Array2<f64>| {
            if !(centred && layer.takes_constant()) {
                return table.clone();
            }
            let mean = (table * &self.counts.view().insert_axis(Axis(1))).sum_axis(Axis(0)) / total;
            table - &mean
        };
        let (before, rounded) = (centre(&self.before), centre(&self.rounded));
        let weighted = &rounded * &self.counts.view().insert_axis(Axis(1));
        let moments = weighted.t().dot(&rounded);
        let ridge = RIDGE * moments.diag().mean().unwrap_or(0.0);
        // W·(C − G) for C = Eᵀ·diag(f)·Ê
        let apart = (before - &rounded).t().dot(&weighted);
        let values = parameter.values();
        let weights: Vec<f64> = (0..rows.count)
            .flat_map(|row| (0..rows.width).map(move |column| values[rows.at(row, column)].widen()))
            .collect();
        let free: Vec<bool> = weights.iter().map(|w| *w != 0.0).collect();
        let view = ArrayView2::from_shape((rows.count, rows.width), &weights);
        let rights = view.map(|w| w.dot(&apart)).unwrap_or_default();
        let rights: Vec<f64> = rights.iter().copied().collect();
        let moved = Normal { moments, ridge }.solve(&rights, &free);
        let mut array = parameter.array().clone();
        if let Some(all) = array.as_slice_mut() {
            for row in 0..rows.count {
                for column in 0..rows.width {
                    let at = row * rows.width + column;
                    if free[at] {
                        all[rows.at(row, column)] = F::narrow(weights[at] + moved[at]);
                    }
                }
            }
        }
        let solved = parameter.with_array(array);
        solved.check_finite()?;
        Ok(solved)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array;

    use super::*;
    use crate::quantize::{Bits, Quantizer, Uniform};
    use crate::{Coupling, Needs};

    /// A table of five entries and a matrix that reads it, some of whose weights are 0; entry k is read k times.
    fn read_table(masked: bool) -> (Model<f64>, Evidence<f64>, Array2<f64>) {
        let table = Array::from_shape_fn((5, 12), |(i, j)| ((17 * i * j + 5 * i + 3 * j * j) as f64).sin());
        let weights = Array::from_shape_fn((4, 12), |(i, j)| {
            if masked && (i + j) % 3 == 0 { 0.0 } else { ((7 * i + 3 * j) as f64).cos() }
        });
        let model = Model::builder()
            .parameter(Parameter::embedding("table", table.clone()))
            .parameter(Parameter::linear("w", weights))
            .coupling(Coupling::builder("features").outputs(["table"]).inputs(["w"]))
            .build()
            .unwrap();
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        let rows: Vec<usize> = (0..5).flat_map(|k| std::iter::repeat_n(k, k)).collect();
        evidence.record_input("w", &table.select(Axis(0), &rows)).unwrap();
        (model, evidence, table)
    }

    /// Mean square error of the matrix's answers, the weights of the matrix hardly rounded.
    fn error(model: &Model<f64>, table: &Array2<f64>, tensors: &[(String, QuantizedTensor)]) -> f64 {
        let two = |array: ndarray::ArrayD<f64>| array.into_dimensionality::<Ix2>().unwrap();
        let before = table.dot(&two(model.parameter("w").unwrap().array().clone()).t());
        let after = two(tensors[0].1.decode()).dot(&two(tensors[1].1.decode()).t());
        (before - after).slice_axis(Axis(0), ndarray::Slice::from(1..)).mapv(|x| x * x).mean().unwrap()
    }

    #[test]
    fn readers_make_good_what_the_table_lost() {
        for (masked, least) in [(false, 30.0), (true, 3.0)] {
            let (model, evidence, table) = read_table(masked);
            let quantize = |layer: &Layer<'_, f64>| {
                let bits = if layer.name() == "table" { Bits::new(3)? } else { Bits::EIGHT };
                Uniform::new(bits).quantize(layer)
            };
            let names = ["table", "w"];
            let alone: Vec<_> = names
                .map(|name| (name.to_owned(), quantize(&evidence.layer(&model, name).unwrap()).unwrap()))
                .into();
            let carried = quantize_model(&model, &evidence, false, quantize).unwrap();
            let (alone, carried_error) = (error(&model, &table, &alone), error(&model, &table, &carried));
            assert!(carried_error < alone / least, "{carried_error} against {alone}");
            let weights = model.parameter("w").unwrap().array();
            let decoded = carried[1].1.decode::<f64>();
            assert!(weights.iter().zip(&decoded).all(|(w, d)| *w != 0.0 || *d == 0.0));
            assert_eq!(inputs_after(&model, &evidence, &carried).unwrap().len(), 1);
        }
    }

    #[test]
    fn other_inputs_than_the_table_change_nothing() {
        let (model, mut evidence, _) = read_table(false);
        evidence.record_input("w", &Array::<f64, _>::ones((1, 12))).unwrap();
        let quantize = |layer: &Layer<'_, f64>| Uniform::int8().quantize(layer);
        let carried = quantize_model(&model, &evidence, false, quantize).unwrap();
        assert_eq!(carried[1].1, quantize(&evidence.layer(&model, "w").unwrap()).unwrap());
    }
}
