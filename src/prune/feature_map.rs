//! Positions within feature maps.

use std::borrow::Cow;

use ndarray::{ArrayD, ArrayViewD};

use crate::importance::Scores;
use crate::model::CoupledSlot;
use crate::prune::rank::lowest;
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Mask, Plan, Pruner, Sparsity, Targets};
use crate::{Coupling, Element, Error, Kind, Model, Needs, Parameter, Result};

/// Removes positions of feature maps: of each unit's H·W pixels the floor(H·W · s) with the lowest scores go, ties
/// by index. Every unit keeps the same number, at least one.
///
/// The scores are the map of a criterion that has one ([`Score::map`](crate::importance::Score::map),
/// [units, positions…]), so the outputs must be recorded with [`Needs::MAPS`]. By default every convolution with a
/// spatial map takes part, the first and the last too; [`exclude`](Self::exclude) leaves layers out,
/// [`set`](Self::set) gives one another sparsity, and what it names must have a map.
///
/// A criterion without a map (gradient compare, magnitude) still ranks positions that are flattened into the next
/// layer: by the norm of that layer's scores in the column that reads each of them.
///
/// The plan records a 0/1 mask of each map, [units, positions…] ([`Plan::activation_mask`]): the caller multiplies
/// the layer's output by it. Where the map is flattened into the next layer, the columns of that layer go for
/// real ([`Plan::kept`] of its input axis lists those that stay); the caller then flattens the map and keeps the
/// masked positions, in row-major order. That is so where
///
/// - a coupling holds this layer's output axis, and an input axis on which each unit stands for exactly as many
///   neighbours as its map has positions ([`Slot::repeat`](crate::Slot::repeat) of H·W), and
/// - no other layer with a score map of that size answers in the same coupling: of a sum of two branches, or of a chain
///   of depthwise convolutions, neither map alone is what is flattened.
///
/// A map recorded before pooling has more positions than are flattened: only its mask is planned then. Record the
/// output as the next layer sees it to have the columns removed.
///
/// ```
/// use ndarray::{Array, Array1};
/// use niwaki::importance::{Importance, Score, Scores};
/// use niwaki::prune::{FeatureMap, Pruner, Sparsity};
/// use niwaki::{Coupling, Evidence, Geometry, Layer, Model, Needs, Parameter, Result, Slot};
///
/// /// Every unit's map is 0 1 / 2 3.
/// #[derive(Debug)]
/// struct ByPosition;
///
/// impl Importance<f32> for ByPosition {
///     fn score(&self, layer: &Layer<'_, f32>) -> Result<Score<f32>> {
///         let units = layer.parameter().units();
///         let map = Array::from_shape_fn((units, 2, 2), |(_, y, x)| (2 * y + x) as f32);
///         Ok(Score::units(0, Array1::ones(units)).with_map(0, map.into_dyn()))
///     }
/// }
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::conv("conv", Array::ones((3, 1, 3, 3)), Geometry::new()))
///     .parameter(Parameter::linear("fc", Array::from_shape_fn((1, 12), |(_, j)| j as f32)))
///     .coupling(Coupling::builder("c").outputs(["conv"]).slot(Slot::input("fc").repeat(4)))
///     .build()?;
/// let scores = Scores::compute(&ByPosition, &model, &Evidence::new(&model, Needs::MAPS))?;
/// let plan = FeatureMap::new(Sparsity::new(0.5)?).plan(&model, &scores)?;
/// assert_eq!(plan.activation_mask("conv").map(|mask| mask.kept()), Some(3 * 2));
/// assert_eq!(plan.apply(&model)?.parameter("fc")?.values(), [2.0, 3.0, 6.0, 7.0, 10.0, 11.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMap {
    sparsity: Sparsity,
    pub(crate) targets: Targets,
}

impl FeatureMap {
    /// This fraction of each unit's positions goes.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity, targets: Targets::default() }
    }

    target_setters!("layer");
}

impl<F: Element> Pruner<F> for FeatureMap {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        let mut cut = Cut::default();
        for layer in self.layers(model, scores)? {
            if layer.count() > 0 {
                layer.cut(model, scores, &mut cut)?;
            }
        }
        Plan::of(model, cut)
    }

    fn needs(&self) -> Needs {
        Needs::MAPS
    }

    fn check(&self) -> Result<()> {
        self.targets.check()
    }
}

impl FeatureMap {
    /// The layers that take part.
    fn layers<'a, F: Element>(
        &self,
        model: &'a Model<F>,
        scores: &'a Scores<F>,
    ) -> Result<Vec<Mapped<'a, F>>> {
        let names: Vec<&str> = model.weights().map(Parameter::name).collect();
        let (mut layers, mut missing) = (Vec::new(), None);
        for (name, sparsity) in self.targets.resolve(&names, self.sparsity)? {
            let parameter = model.parameter(name)?;
            let asked_for = self.targets.names(name)?;
            if !asked_for && !matches!(parameter.kind(), Kind::Conv(_)) {
                continue;
            }
            match position_scores(model, scores, parameter) {
                Ok(map) => layers.push(Mapped { parameter, map, sparsity }),
                Err(error) if asked_for => return Err(error),
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        if layers.is_empty() {
            let none = || Error::setting("no layer takes part: there is no convolution, or all are excluded");
            return Err(missing.unwrap_or_else(none));
        }
        Ok(layers)
    }
}

/// The scores of a layer's positions.
fn spatial_map<'a, F: Element>(scores: &'a Scores<F>, name: &str) -> Result<&'a ArrayD<F>> {
    let map = scores.layer(name)?.map().filter(|map| map.ndim() > 1);
    map.ok_or_else(|| Error::missing(format!("layer `{name}`: its score has no map of positions")))
}

/// The scores of a layer's positions: the criterion's own map, else what it says of the weights that read them.
fn position_scores<'a, F: Element>(
    model: &Model<F>,
    scores: &'a Scores<F>,
    parameter: &Parameter<F>,
) -> Result<Cow<'a, ArrayD<F>>> {
    match spatial_map(scores, parameter.name()) {
        Ok(map) => Ok(Cow::Borrowed(map)),
        Err(error) => column_scores(model, scores, parameter).map(Cow::Owned).ok_or(error),
    }
}

/// Of a map that is flattened into a layer: the norm of that layer's scores in the column that reads each position,
/// as [units, positions]. `None` where the map is not flattened, or where others answer in the same coupling.
fn column_scores<F: Element>(
    model: &Model<F>,
    scores: &Scores<F>,
    parameter: &Parameter<F>,
) -> Option<ArrayD<F>> {
    let units = parameter.units();
    let answers = |slot: &&CoupledSlot| {
        model.find(slot.parameter()).is_some_and(|p| p.kind().is_weight() && p.out_axis() == slot.axis())
    };
    for coupling in model.couplings().iter().filter(|c| c.size() == units) {
        let mut answering = coupling.slots().iter().filter(answers);
        if answering.next().is_none_or(|own| own.parameter() != parameter.name())
            || answering.next().is_some()
        {
            continue;
        }
        for slot in coupling.slots() {
            let places = slot.positions(0).len();
            if places < 2 || !reads_maps(model, slot, places) {
                continue;
            }
            let reader = model.find(slot.parameter())?;
            let columns = slot.all_positions().iter().flatten().map(|&p| vec![p]).collect();
            let alone = CoupledSlot { positions: columns, ..slot.clone() };
            let norms = scores.layer(slot.parameter()).ok()?.per_index(reader, &alone)?;
            return ArrayD::from_shape_vec(vec![units, places], norms.into_iter().map(F::narrow).collect())
                .ok();
        }
    }
    None
}

/// A layer that takes part.
struct Mapped<'a, F: Clone> {
    parameter: &'a Parameter<F>,
    /// [units, positions…]
    map: Cow<'a, ArrayD<F>>,
    sparsity: Sparsity,
}

impl<F: Element> Mapped<'_, F> {
    /// Positions of one unit's map.
    fn places(&self) -> usize {
        self.map.shape()[1..].iter().product()
    }

    /// How many of them go.
    fn count(&self) -> usize {
        self.sparsity.of(self.places())
    }

    fn cut(&self, model: &Model<F>, scores: &Scores<F>, cut: &mut Cut) -> Result<()> {
        let (name, places, count) = (self.parameter.name(), self.places(), self.count());
        let of_unit = |map: ArrayViewD<'_, F>| {
            let scores: Vec<f64> = map.iter().map(|s| s.widen()).collect();
            lowest(&scores, count)
        };
        let gone: Vec<Vec<usize>> = self.map.outer_iter().map(of_unit).collect();
        let mut note = format!("layer `{name}`: {count} of {places} positions of each map go");
        for coupling in model.couplings() {
            let Some(units) = self.units_in(coupling, model, scores) else { continue };
            for slot in coupling.slots().iter().filter(|slot| reads_maps(model, slot, places)) {
                let columns = units.iter().zip(slot.all_positions());
                let columns = columns.flat_map(|(&unit, columns)| gone[unit].iter().map(|&p| columns[p]));
                let len = model.parameter(slot.parameter())?.shape()[slot.axis()];
                cut.selection.remove_positions(slot.parameter(), slot.axis(), len, &columns.collect());
                note = format!("{note}, and with them columns of `{}`", slot.parameter());
            }
        }
        let mut keeps = vec![true; self.map.len()];
        for (unit, gone) in gone.iter().enumerate() {
            for place in gone {
                keeps[unit * places + place] = false;
            }
        }
        let mask = Mask::from_fn(self.map.shape(), |k| keeps[k]);
        cut.maps.push((name.to_owned(), self.parameter.out_axis(), mask));
        cut.notes.push(note);
        Ok(())
    }

    /// The unit that each index of a coupling is, if the layer answers in it and no other with such a map does.
    fn units_in(&self, coupling: &Coupling, model: &Model<F>, scores: &Scores<F>) -> Option<Vec<usize>> {
        let answers = |slot: &&CoupledSlot| {
            model.find(slot.parameter()).is_some_and(|p| {
                let map = position_scores(model, scores, p).ok();
                let places = map.map(|map| map.len() / map.shape()[0].max(1));
                p.kind().is_weight() && p.out_axis() == slot.axis() && places == Some(self.places())
            })
        };
        let mut answering = coupling.slots().iter().filter(answers);
        let (own, more) = (answering.next()?, answering.next());
        if more.is_some() || own.parameter() != self.parameter.name() {
            return None;
        }
        let unit = |positions: &Vec<usize>| match positions.as_slice() {
            [unit] if *unit < self.map.shape()[0] => Some(*unit),
            _ => None,
        };
        own.all_positions().iter().map(unit).collect()
    }
}

/// Whether a slot is inputs of a weight, and each index stands for the positions of one map.
fn reads_maps<F: Element>(model: &Model<F>, slot: &CoupledSlot, places: usize) -> bool {
    let reads = model.find(slot.parameter()).is_some_and(|p| p.in_axis() == Some(slot.axis()));
    reads && slot.all_positions().iter().all(|positions| positions.len() == places)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ndarray::{Array, Array1, Array3};

    use super::*;
    use crate::importance::{Importance, Score};
    use crate::prune::{Channel, Then};
    use crate::{Evidence, Geometry, Layer, Slot};

    /// Maps by layer.
    #[derive(Debug)]
    struct Maps(HashMap<&'static str, Array3<f32>>);

    impl Importance<f32> for Maps {
        fn score(&self, layer: &Layer<'_, f32>) -> Result<Score<f32>> {
            let units = layer.parameter().units();
            let score = Score::units(0, Array1::from_iter((0..units).map(|u| u as f32)));
            Ok(match self.0.get(layer.name()) {
                Some(map) => score.with_map(0, map.clone().into_dyn()),
                None => score,
            })
        }
    }

    /// conv1 -> pool -> conv2 -> flatten of 2·2 -> fc; fc's column j holds j.
    fn model() -> crate::ModelBuilder<f32> {
        let conv = |name, shape| Parameter::conv(name, Array::ones(shape), Geometry::new().padding(1));
        Model::builder()
            .parameter(conv("conv1", (2, 1, 3, 3)))
            .parameter(conv("conv2", (3, 2, 3, 3)))
            .parameter(Parameter::linear("fc", Array::from_shape_fn((1, 12), |(_, j)| j as f32)))
            .coupling(Coupling::builder("c1").outputs(["conv1"]).inputs(["conv2"]))
            .coupling(Coupling::builder("c2").outputs(["conv2"]).slot(Slot::input("fc").repeat(4)))
    }

    fn maps() -> Maps {
        let falling = Array3::from_shape_fn((2, 4, 4), |(_, y, x)| -((4 * y + x) as f32));
        let mixed = [[1.0, 1.0, 0.0, 2.0], [5.0, -5.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0]].concat();
        let mixed = Array3::from_shape_vec((3, 2, 2), mixed).unwrap();
        Maps(HashMap::from([("conv1", falling), ("conv2", mixed)]))
    }

    fn plan(pruner: &dyn Pruner<f32>, maps: &Maps, model: &Model<f32>) -> Result<Plan> {
        pruner.plan(model, &Scores::compute(maps, model, &Evidence::new(model, Needs::MAPS))?)
    }

    fn half() -> FeatureMap {
        FeatureMap::new(Sparsity::new(0.5).unwrap())
    }

    fn places(plan: &Plan, layer: &str) -> Vec<usize> {
        let mask = plan.activation_mask(layer).unwrap();
        (0..mask.len()).filter(|&k| mask.keeps(k)).collect()
    }

    #[test]
    fn lowest_positions_go_and_their_columns_with_them() {
        let model = model().build().unwrap();
        let plan = plan(&half(), &maps(), &model).unwrap();
        // Ties by index: of 1 1 0 2 go the 0 and the first 1.
        assert_eq!(places(&plan, "conv2"), [1, 3, 6, 7, 10, 11]);
        assert_eq!(places(&plan, "conv1"), [(0..8), (16..24)].into_iter().flatten().collect::<Vec<_>>());
        let smaller = plan.apply(&model).unwrap();
        assert_eq!(smaller.parameter("fc").unwrap().values(), [1.0, 3.0, 6.0, 7.0, 10.0, 11.0]);
        assert_eq!(smaller.find("conv2"), model.find("conv2"));
        assert_eq!(smaller.coupling("c2").unwrap().slots()[1].positions(2), [4, 5]);
    }

    #[test]
    fn every_unit_keeps_at_least_one() {
        let model = model().build().unwrap();
        let most = FeatureMap::new(Sparsity::new(0.999_999_999_9).unwrap());
        let plan = plan(&most, &maps(), &model).unwrap();
        assert_eq!(places(&plan, "conv2"), [3, 7, 11]);
        assert_eq!(places(&plan, "conv1"), [0, 16]);
    }

    #[test]
    fn a_map_before_pooling_is_masked_only() {
        let model = model().build().unwrap();
        let mut maps = maps();
        maps.0.insert("conv2", Array3::from_shape_fn((3, 4, 4), |(_, y, x)| (y + x) as f32));
        let plan = plan(&half(), &maps, &model).unwrap();
        assert_eq!(plan.activation_mask("conv2").unwrap().kept(), 3 * 8);
        assert_eq!(plan.apply(&model).unwrap(), model);
    }

    #[test]
    fn a_sum_of_branches_is_masked_only() {
        let branch = Parameter::conv("branch", Array::ones((3, 2, 1, 1)), Geometry::new());
        let coupling = Coupling::builder("c2").outputs(["conv2", "branch"]);
        let model = Model::builder()
            .parameter(model().build().unwrap().parameter("conv2").unwrap().clone())
            .parameter(branch)
            .parameter(Parameter::linear("fc", Array::ones((1, 12))))
            .coupling(coupling.slot(Slot::input("fc").repeat(4)))
            .build()
            .unwrap();
        let mut maps = maps();
        assert_eq!(plan(&half(), &maps, &model).unwrap().kept("fc", 1).map(|kept| kept.len()), Some(6));
        maps.0.insert("branch", Array3::ones((3, 2, 2)));
        assert_eq!(plan(&half(), &maps, &model).unwrap().kept("fc", 1), None);
    }

    #[test]
    fn who_takes_part() {
        let model = model().build().unwrap();
        let mut maps = maps();
        let quarter = Sparsity::new(0.25).unwrap();
        let one = plan(&half().exclude("conv1").set("conv2", quarter), &maps, &model).unwrap();
        assert_eq!(one.activation_masks().count(), 1);
        assert_eq!(one.activation_mask("conv2").unwrap().kept(), 9);
        let error = plan(&half().set("fc", quarter), &maps, &model).unwrap_err();
        assert_eq!(error.to_string(), "layer `fc`: its score has no map of positions");
        maps.0.remove("conv1");
        assert_eq!(plan(&half(), &maps, &model).unwrap().activation_masks().count(), 1);
        assert!(plan(&half().set("conv1", quarter), &maps, &model).is_err());
        maps.0.clear();
        assert!(plan(&half(), &maps, &model).unwrap_err().to_string().contains("conv1"));
        assert!(plan(&half().exclude("none"), &maps, &model).is_err());
    }

    #[test]
    fn channels_and_positions_in_either_order() {
        let (model, maps) = (model().build().unwrap(), maps());
        let channels = Channel::new(Sparsity::new(0.34).unwrap()).exclude("c1");
        let first = plan(&Then::new(channels.clone(), half()), &maps, &model).unwrap();
        let second = plan(&Then::new(half(), channels), &maps, &model).unwrap();
        for plan in [&first, &second] {
            assert_eq!(places(plan, "conv2"), [2, 3, 6, 7]);
            let fc = plan.apply(&model).unwrap();
            assert_eq!(fc.parameter("fc").unwrap().values(), [6.0, 7.0, 10.0, 11.0]);
        }
    }
}
