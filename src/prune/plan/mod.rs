//! [`Plan`]: what is to go. Decided and printable, not done yet.

mod table;

use std::collections::BTreeMap;

use crate::model::Selection;
use crate::prune::Mask;
use crate::{Element, Error, Evidence, Model, Result};

/// What would go from one model, and what that would save.
///
/// Nothing changes until [`apply`](Self::apply), which does all of it or nothing. Printing a plan shows every
/// coupling, layer and block that it touches.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Pruner, Sparsity, Unstructured};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = array![[1.0f32, -2.0], [3.0, -4.0]];
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let scores = Scores::compute(&Magnitude::l1(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let plan = Unstructured::new(Sparsity::new(0.5)?).include_ends().plan(&model, &scores)?;
/// assert!(plan.to_string().contains("4 -> 2"));
/// assert_eq!(plan.apply(&model)?.parameter("fc")?.values(), [0.0, 0.0, 3.0, -4.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    before: Vec<Outline>,
    /// as it will be; those that go are not in it
    after: Vec<Outline>,
    selections: Vec<Selection>,
    /// weights that stay, in the shapes that they will have
    masks: BTreeMap<String, Mask>,
    /// positions that stay of a weight's output map, and the axis of the weight that its units are on
    maps: BTreeMap<String, (usize, Mask)>,
    notes: Vec<String>,
    element_bytes: usize,
}

/// A parameter without its values.
#[derive(Clone, Debug, PartialEq)]
struct Outline {
    name: String,
    /// the parameter of the planned model that it comes from
    origin: String,
    shape: Vec<usize>,
}

impl Outline {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One step of a plan, as a pruner decides it.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) selection: Selection,
    pub(crate) masks: Vec<(String, Mask)>,
    pub(crate) maps: Vec<(String, usize, Mask)>,
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// A plan for this model by which nothing goes.
    pub fn new<F: Element>(model: &Model<F>) -> Self {
        let outline = |p: &crate::Parameter<F>| Outline {
            name: p.name().to_owned(),
            origin: p.name().to_owned(),
            shape: p.shape().to_vec(),
        };
        let before: Vec<Outline> = model.parameters().iter().map(outline).collect();
        Self {
            after: before.clone(),
            before,
            selections: Vec::new(),
            masks: BTreeMap::new(),
            maps: BTreeMap::new(),
            notes: Vec::new(),
            element_bytes: F::BYTES,
        }
    }

    /// A plan by which these units of a coupling go: for a choice that no criterion made.
    ///
    /// ```
    /// use ndarray::Array;
    /// use niwaki::prune::Plan;
    /// use niwaki::{Coupling, Model, Parameter};
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let model = Model::<f32>::builder()
    ///     .parameter(Parameter::linear("a", Array::from_shape_fn((3, 1), |(i, _)| i as f32)))
    ///     .parameter(Parameter::linear("b", Array::ones((2, 3))))
    ///     .coupling(Coupling::builder("hidden").outputs(["a"]).inputs(["b"]))
    ///     .build()?;
    /// let smaller = Plan::removing(&model, "hidden", &[1])?.apply(&model)?;
    /// assert_eq!(smaller.parameter("a")?.values(), [0.0, 2.0]);
    /// assert_eq!(smaller.parameter("b")?.shape(), [2, 2]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No such coupling, an index past its units, or a layer that would be left without any.
    pub fn removing<F: Element>(model: &Model<F>, coupling: &str, units: &[usize]) -> Result<Self> {
        let (coupling, size) = model.coupling(coupling).map(|c| (c, c.size()))?;
        if let Some(unit) = units.iter().find(|&&unit| unit >= size) {
            let name = coupling.name();
            return Err(Error::setting(format!("coupling `{name}`: unit {unit} of {size} units")));
        }
        let mut cut = Cut::default();
        let len = |name: &str, axis: usize| model.find(name).map_or(0, |p| p.shape()[axis]);
        cut.selection.remove_indices(coupling, len, units);
        Self::of(model, cut)
    }

    /// A plan of one step.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn of<F: Element>(model: &Model<F>, cut: Cut) -> Result<Self> {
        let mut plan = Self::new(model);
        plan.push(cut)?;
        Ok(plan)
    }

    /// Adds a step, planned on what the steps before leave.
    ///
    /// # Errors
    /// An axis would be left empty.
    pub(crate) fn push(&mut self, cut: Cut) -> Result<()> {
        self.outline(&cut.selection)?;
        self.carry(&cut.selection);
        self.selections.push(cut.selection);
        for (name, mask) in cut.masks.into_iter().filter(|(_, mask)| mask.kept() < mask.len()) {
            self.add_mask(name, mask);
        }
        for (name, axis, mask) in cut.maps {
            self.add_map(name, axis, mask);
        }
        self.notes.extend(cut.notes);
        Ok(())
    }

    /// The plan by which `second`, planned on what this one leaves, follows.
    ///
    /// # Errors
    /// `second` was planned on something else; the message names the first layer that differs.
    pub fn then(mut self, second: Self) -> Result<Self> {
        self.check_leaves(&second)?;
        for selection in &second.selections {
            self.carry(selection);
        }
        for (name, mask) in second.masks {
            self.add_mask(name, mask);
        }
        for (name, (axis, mask)) in second.maps {
            self.add_map(name, axis, mask);
        }
        let origins: BTreeMap<&str, &str> =
            self.after.iter().map(|o| (o.name.as_str(), o.origin.as_str())).collect();
        let after = second.after.into_iter().map(|outline| {
            let origin =
                origins.get(outline.origin.as_str()).map_or(outline.origin.clone(), |&o| o.to_owned());
            Outline { origin, ..outline }
        });
        self.after = after.collect();
        self.selections.extend(second.selections);
        self.notes.extend(second.notes);
        Ok(self)
    }

    /// Errors unless this plan leaves what `second` begins with.
    fn check_leaves(&self, second: &Self) -> Result<()> {
        let shapes = |outlines: &[Outline]| -> BTreeMap<String, Vec<usize>> {
            outlines.iter().map(|o| (o.name.clone(), o.shape.clone())).collect()
        };
        let (left, wanted) = (shapes(&self.after), shapes(&second.before));
        for (name, shape) in &wanted {
            match left.get(name) {
                Some(ours) if ours == shape => {}
                Some(ours) => {
                    return Err(Error::shape(format!(
                        "layer `{name}`: the first plan leaves {ours:?}, the second was made for {shape:?}"
                    )));
                }
                None => {
                    return Err(Error::name(format!("layer `{name}`: the first plan does not leave it")));
                }
            }
        }
        match left.keys().find(|name| !wanted.contains_key(*name)) {
            Some(name) => Err(Error::name(format!("layer `{name}`: the second plan does not know it"))),
            None => Ok(()),
        }
    }

    fn outline(&mut self, selection: &Selection) -> Result<()> {
        let mut after = Vec::with_capacity(self.after.len());
        for outline in &self.after {
            let mut shape = outline.shape.clone();
            for (axis, len) in shape.iter_mut().enumerate() {
                let Some(kept) = selection.kept(&outline.name, axis) else { continue };
                if kept.is_empty() {
                    return Err(Error::setting(format!(
                        "layer `{}`: all {len} positions of axis {axis} would go",
                        outline.name
                    )));
                }
                *len = kept.len();
            }
            for name in selection.names_after(&outline.name) {
                after.push(Outline { name, origin: outline.origin.clone(), shape: shape.clone() });
            }
        }
        self.after = after;
        Ok(())
    }

    /// Brings masks to the shapes that a selection leaves.
    fn carry(&mut self, selection: &Selection) {
        let mut masks = BTreeMap::new();
        for (name, mask) in std::mem::take(&mut self.masks) {
            let axes = 0..mask.shape().len();
            let cut = axes.fold(mask, |mask, axis| match selection.kept(&name, axis) {
                Some(kept) => mask.select(axis, kept),
                None => mask,
            });
            masks.extend(selection.names_after(&name).into_iter().map(|after| (after, cut.clone())));
        }
        self.masks = masks;
        let mut maps = BTreeMap::new();
        for (name, (axis, mask)) in std::mem::take(&mut self.maps) {
            let cut = match selection.kept(&name, axis) {
                Some(kept) => {
                    let units = mask.shape()[0];
                    mask.select(0, &kept.iter().copied().filter(|&p| p < units).collect::<Vec<_>>())
                }
                None => mask,
            };
            maps.extend(selection.names_after(&name).into_iter().map(|after| (after, (axis, cut.clone()))));
        }
        self.maps = maps;
    }

    fn add_mask(&mut self, name: String, mask: Mask) {
        let both = match self.masks.remove(&name) {
            Some(old) => mask.and(&old),
            None => mask,
        };
        self.masks.insert(name, both);
    }

    fn add_map(&mut self, name: String, axis: usize, mask: Mask) {
        let both = match self.maps.remove(&name) {
            Some((_, old)) => mask.and(&old),
            None => mask,
        };
        self.maps.insert(name, (axis, both));
    }

    /// The model without what goes. The model given is not changed.
    ///
    /// # Errors
    /// The plan was made for another model.
    pub fn apply<F: Element>(&self, model: &Model<F>) -> Result<Model<F>> {
        self.check(model)?;
        let mut smaller = match self.selections.split_first() {
            None => model.clone(),
            Some((first, rest)) => {
                rest.iter().try_fold(model.select(first)?, |model, selection| model.select(selection))?
            }
        };
        self.mask(&mut smaller)?;
        Ok(smaller)
    }

    /// As [`apply`](Self::apply), on the model given: masks are applied in place, without a copy of the weights.
    /// On an error the model is as before.
    ///
    /// # Errors
    /// The plan was made for another model.
    pub fn apply_in_place<F: Element>(&self, model: &mut Model<F>) -> Result<()> {
        if !self.cuts_arrays() {
            self.check(model)?;
            return self.mask(model);
        }
        *model = self.apply(model)?;
        Ok(())
    }

    /// Zeroes the masked weights of a model that has the shapes this plan leaves: what a fine-tuning step may
    /// have changed is zero again.
    ///
    /// # Errors
    /// A masked weight is not there or has another shape; nothing is changed then.
    pub fn mask<F: Element>(&self, model: &mut Model<F>) -> Result<()> {
        for (name, mask) in &self.masks {
            let shape = model.parameter(name)?.shape();
            if shape != mask.shape() {
                let wants = mask.shape();
                return Err(Error::shape(format!("layer `{name}` {shape:?}: the plan masks {wants:?}")));
            }
        }
        for (name, mask) in &self.masks {
            mask.apply(model.values_mut(name)?);
        }
        Ok(())
    }

    fn check<F: Element>(&self, model: &Model<F>) -> Result<()> {
        for outline in &self.before {
            let (name, planned) = (&outline.name, &outline.shape);
            let shape = model.parameter(name)?.shape();
            if shape != planned {
                return Err(Error::shape(format!(
                    "layer `{name}` {shape:?}: the plan was made for {planned:?}"
                )));
            }
        }
        if let Some(more) =
            model.parameters().iter().find(|p| !self.before.iter().any(|o| o.name == p.name()))
        {
            return Err(Error::name(format!("layer `{}`: the plan does not know it", more.name())));
        }
        Ok(())
    }

    /// The evidence about what stays.
    ///
    /// # Errors
    /// The evidence is about another model.
    pub fn apply_to_evidence<F: Element>(&self, evidence: &Evidence<F>) -> Result<Evidence<F>> {
        self.selections.iter().try_fold(evidence.clone(), |evidence, selection| evidence.select(selection))
    }

    /// Whether arrays get smaller, move or go: with masks alone they do not.
    pub(crate) fn cuts_arrays(&self) -> bool {
        self.selections.iter().any(|s| !s.is_empty())
    }

    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        !self.cuts_arrays() && self.masks.is_empty() && self.maps.is_empty()
    }

    /// Which weights of a layer stay, in the shape that it will have; `None` when no mask is planned for it.
    pub fn weight_mask(&self, layer: &str) -> Option<&Mask> {
        self.masks.get(layer)
    }

    /// Which positions of a layer's output map stay: the caller multiplies by it, or keeps only these positions
    /// where the map is flattened. `None` when all do.
    pub fn activation_mask(&self, layer: &str) -> Option<&Mask> {
        self.maps.get(layer).map(|(_, mask)| mask)
    }

    /// All activation masks, by layer.
    pub fn activation_masks(&self) -> impl Iterator<Item = (&str, &Mask)> {
        self.maps.iter().map(|(name, (_, mask))| (name.as_str(), mask))
    }

    /// The steps' selections, in order.
    pub fn selections(&self) -> impl Iterator<Item = &Selection> {
        self.selections.iter()
    }

    /// Positions of one axis of a parameter of the planned model that stay; `None` when all do, or when the
    /// parameter goes whole or is copied.
    pub fn kept(&self, parameter: &str, axis: usize) -> Option<Vec<usize>> {
        let mut kept: Option<Vec<usize>> = None;
        for selection in &self.selections {
            let Some(stay) = selection.kept(parameter, axis) else { continue };
            kept = Some(kept.map_or_else(|| stay.to_vec(), |old| stay.iter().map(|&p| old[p]).collect()));
        }
        kept
    }

    /// Parameters before and after, weights masked to zero not counted.
    pub fn parameter_counts(&self) -> (usize, usize) {
        (self.before.iter().map(Outline::len).sum(), self.after.iter().map(|o| self.left(o)).sum())
    }

    /// Bytes of the plain arrays before and after: what smaller arrays save. What masked weights save shows when
    /// they are stored.
    pub fn dense_bytes(&self) -> (usize, usize) {
        let bytes =
            |outlines: &[Outline]| outlines.iter().map(Outline::len).sum::<usize>() * self.element_bytes;
        (bytes(&self.before), bytes(&self.after))
    }

    /// Weights of a parameter that will not be masked.
    fn left(&self, outline: &Outline) -> usize {
        self.masks.get(&outline.name).map_or(outline.len(), Mask::kept)
    }
}
