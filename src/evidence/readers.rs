//! What the weights that read a layer's outputs make of an error in them.

use ndarray::Array2;

use crate::model::CoupledSlot;
use crate::{Element, Model, Parameter};

/// Σ Wᵀ·W over the input slots of the couplings that hold the layer's output axis; `None` when there are none.
pub(super) fn gram<F: Element>(model: &Model<F>, layer: &Parameter<F>) -> Option<Array2<f64>> {
    let width = *layer.shape().get(layer.out_axis())?;
    let mut gram = Array2::zeros((width, width));
    let mut found = false;
    for coupling in model.couplings() {
        let makes = |slot: &&CoupledSlot| slot.parameter() == layer.name() && slot.axis() == layer.out_axis();
        let Some(makes) = coupling.slots().iter().find(makes) else { continue };
        for slot in coupling.slots() {
            let Some(reader) = model.find(slot.parameter()).filter(|p| reads(p, slot)) else { continue };
            found = true;
            // Columns of the reader, by the output of the layer that each stands for.
            let columns: Vec<(usize, usize)> = (0..coupling.size())
                .flat_map(|unit| {
                    let made = makes.positions(unit).iter();
                    made.flat_map(move |&made| slot.positions(unit).iter().map(move |&read| (made, read)))
                })
                .collect();
            add(&mut gram, reader, slot.axis(), &columns);
        }
    }
    found.then_some(gram)
}

fn reads<F: Element>(parameter: &Parameter<F>, slot: &CoupledSlot) -> bool {
    parameter.kind().is_weight()
        && parameter.in_axis() == Some(slot.axis())
        && parameter.shape().len() == 2
        && parameter.groups() == 1
}

/// gram += the products of a matrix's columns.
fn add<F: Element>(gram: &mut Array2<f64>, matrix: &Parameter<F>, axis: usize, columns: &[(usize, usize)]) {
    let values = matrix.array().mapv(F::widen);
    let Ok(values) = values.into_dimensionality::<ndarray::Ix2>() else { return };
    let values = if axis == 1 { values } else { values.reversed_axes() };
    let products = values.t().dot(&values);
    for &(i, a) in columns {
        for &(j, b) in columns {
            gram[[i, j]] += products[[a, b]];
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use crate::{Coupling, Evidence, Model, Needs, Parameter};

    #[test]
    fn readers_add_up() {
        let model = Model::<f32>::builder()
            .parameter(Parameter::embedding("table", array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
            .parameter(Parameter::linear("a", array![[1.0, 2.0]]))
            .parameter(Parameter::linear("b", array![[0.0], [3.0]]).axes(1, 0))
            .coupling(Coupling::builder("features").outputs(["table"]).inputs(["a", "b"]))
            .build()
            .unwrap();
        let evidence = Evidence::new(&model, Needs::MOMENTS);
        let gram = evidence.layer(&model, "table").unwrap().readers_gram();
        assert_eq!(gram, Some(array![[1.0, 2.0], [2.0, 4.0 + 9.0]]));
        assert_eq!(evidence.layer(&model, "a").unwrap().readers_gram(), None);
    }
}
