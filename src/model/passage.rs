//! Where scales may move: units that are made by some parameters and read by others, with nothing between that would
//! notice a positive factor.

use std::collections::{HashMap, HashSet};

use crate::model::{CoupledSlot, Coupling, Kind, NormRole, Parameter, Selection};
use crate::{Element, Error, Result};

/// Units between the parameters that make them and the weights that read them: a unit may be divided by any positive
/// factor where it is made, and multiplied by it where it is read, and the network answers as before.
///
/// Each coupling that was declared [`homogeneous`](crate::model::CouplingBuilder::homogeneous) gives one;
/// [`ModelBuilder::passage`](crate::ModelBuilder::passage) declares one that is not pruned (behind a layer norm), and a
/// traced graph has those that were found in it. [`rescale`](crate::rescale) moves scales through them.
///
/// ```
/// use ndarray::Array;
/// use niwaki::{Coupling, Model, NormRole, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::norm("norm.weight", Array::ones(4), NormRole::Scale))
///     .parameter(Parameter::norm("norm.bias", Array::zeros(4), NormRole::Shift))
///     .parameter(Parameter::linear("query", Array::ones((3, 4))))
///     .passage(Coupling::builder("norm").outputs(["norm.weight", "norm.bias"]).inputs(["query"]))
///     .build()?;
/// let passage = &model.passages()[0];
/// assert_eq!((passage.name(), passage.size(), passage.makers().len()), ("norm", 4, 2));
/// assert_eq!(passage.readers()[0].parameter(), "query");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    name: String,
    size: usize,
    makers: Vec<CoupledSlot>,
    readers: Vec<CoupledSlot>,
}

impl Passage {
    pub(crate) fn from_parts(
        name: String,
        size: usize,
        makers: Vec<CoupledSlot>,
        readers: Vec<CoupledSlot>,
    ) -> Self {
        Self { name, size, makers, readers }
    }

    /// Its name: that of the coupling, or in a traced graph that of the first parameter that makes its units.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many units it has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What is divided: rows of weights, biases, scales and shifts of normalizations.
    pub fn makers(&self) -> &[CoupledSlot] {
        &self.makers
    }

    /// What is multiplied: columns of weights.
    pub fn readers(&self) -> &[CoupledSlot] {
        &self.readers
    }

    /// Sorts the slots of a coupling; `None` where nothing reads its units.
    ///
    /// # Errors
    /// A slot that no factor passes.
    pub(super) fn of<F: Element>(coupling: &Coupling, parameters: &[Parameter<F>]) -> Result<Option<Self>> {
        let context = |what: &str| {
            Error::unsupported(format!("coupling `{}`: no scale passes {what}", coupling.name()))
        };
        let (mut makers, mut readers) = (Vec::new(), Vec::new());
        let (mut weights, mut loose) = (false, None);
        for slot in coupling.slots() {
            let Some(parameter) = parameters.iter().find(|p| p.name() == slot.parameter()) else { continue };
            let name = parameter.name();
            if parameter.in_axis() == Some(slot.axis()) && parameter.kind().is_weight() {
                readers.push(slot.clone());
                continue;
            }
            match parameter.kind() {
                Kind::Recurrent { .. } => return Err(context(&format!("the hidden units of `{name}`"))),
                Kind::Linear | Kind::Conv(_) | Kind::Embedding if slot.axis() == parameter.out_axis() => {
                    weights = true;
                    if !norm_follows(name, parameters, coupling.name())?
                        && !passes_whole_groups(parameter, slot)
                    {
                        makers.push(slot.clone());
                    }
                }
                Kind::Bias { of } => {
                    if !norm_follows(of, parameters, coupling.name())? {
                        makers.push(slot.clone());
                    }
                }
                Kind::Norm { role: NormRole::Mean | NormRole::Variance, of } => {
                    loose = loose.or(of.is_none().then_some(name));
                }
                Kind::Norm { of, .. } => {
                    loose = loose.or(of.is_none().then_some(name));
                    makers.push(slot.clone());
                }
                _ => return Err(context(&format!("`{name}`, of which nothing is known"))),
            }
        }
        // Such a normalization makes units of its own; it cannot also stand between weights of one coupling.
        if let Some(name) = loose.filter(|_| weights) {
            return Err(context(&format!("the normalization `{name}`, which follows no single weight")));
        }
        let whole = !makers.is_empty() && !readers.is_empty();
        let name = coupling.name().to_owned();
        Ok(whole.then(|| Self { name, size: coupling.size(), makers, readers }))
    }

    /// What a selection leaves of it; `None` where it leaves no maker or no reader.
    pub(super) fn cut(&self, selection: &Selection) -> Option<Self> {
        let (mut makers, mut readers) = (Vec::new(), Vec::new());
        for (slots, left) in [(&self.makers, &mut makers), (&self.readers, &mut readers)] {
            left.extend(slots.iter().flat_map(|slot| cut_slot(slot, selection)));
        }
        let held = |slots: &[CoupledSlot], unit: usize| slots.iter().any(|s| !s.positions(unit).is_empty());
        let units: HashSet<usize> =
            (0..self.size).filter(|&unit| held(&makers, unit) && held(&readers, unit)).collect();
        // Units that lost one side move no more; the other side then keeps its scale.
        for slot in makers.iter_mut().chain(&mut readers) {
            let positions = std::mem::take(&mut slot.positions).into_iter().enumerate();
            slot.positions = positions.filter(|(unit, _)| units.contains(unit)).map(|(_, p)| p).collect();
        }
        let name = self.name.clone();
        (!units.is_empty()).then_some(Self { name, size: units.len(), makers, readers })
    }
}

/// The slot with its positions renumbered, once for each copy of its parameter.
fn cut_slot(slot: &CoupledSlot, selection: &Selection) -> Vec<CoupledSlot> {
    let renumber: Option<HashMap<usize, usize>> = selection
        .kept(slot.parameter(), slot.axis())
        .map(|kept| kept.iter().enumerate().map(|(new, &old)| (old, new)).collect());
    let place = |&old: &usize| match &renumber {
        None => Some(old),
        Some(map) => map.get(&old).copied(),
    };
    let positions: Vec<Vec<usize>> =
        slot.all_positions().iter().map(|p| p.iter().filter_map(place).collect()).collect();
    let names = selection.names_after(slot.parameter());
    let of = |parameter| CoupledSlot { parameter, axis: slot.axis(), positions: positions.clone() };
    names.into_iter().map(of).collect()
}

/// Whether a batch norm directly follows the weight: its scale and shift then take the factor.
///
/// # Errors
/// It has no scale.
fn norm_follows<F: Element>(weight: &str, parameters: &[Parameter<F>], coupling: &str) -> Result<bool> {
    let of = |p: &&Parameter<F>| matches!(p.kind(), Kind::Norm { of: Some(of), .. } if of == weight);
    let mut parts = parameters.iter().filter(of).peekable();
    if parts.peek().is_none() {
        return Ok(false);
    }
    if parts.any(|p| matches!(p.kind(), Kind::Norm { role: NormRole::Scale, .. })) {
        return Ok(true);
    }
    Err(Error::unsupported(format!(
        "coupling `{coupling}`: no scale passes the normalization that follows `{weight}` and has no scale of its own"
    )))
}

/// Whether each unit is whole groups of a convolution: it then goes in with the factor that it comes out with.
fn passes_whole_groups<F: Element>(parameter: &Parameter<F>, slot: &CoupledSlot) -> bool {
    let groups = parameter.groups();
    if groups < 2 {
        return false;
    }
    let per_group = parameter.shape()[0] / groups;
    slot.all_positions().iter().all(|positions| {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for position in positions {
            *counts.entry(position / per_group).or_default() += 1;
        }
        counts.len() < groups && counts.values().all(|&n| n == per_group)
    })
}
