//! Making arrays smaller, in every slot at once.

use std::collections::{HashMap, HashSet};

use ndarray::ArrayD;

use crate::kernel::{gather::gather, par};
use crate::model::{Block, CoupledSlot, Coupling, Kind, Model, Parameter};
use crate::{Element, Error, Result};

/// Which positions of which axes stay, which parameters go whole, which get copies. A resolved
/// [`Plan`](crate::prune::Plan) step: models, scores and evidence are all cut by the same selection.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Channel, Pruner, Sparsity};
/// use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc1", array![[5.0], [1.0], [4.0]]))
///     .parameter(Parameter::linear("fc2", array![[5.0, 1.0, 4.0]]))
///     .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]))
///     .build()?;
/// let scores = Scores::compute(&Magnitude::l2(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let plan = Channel::new(Sparsity::new(0.4)?).plan(&model, &scores)?;
/// for selection in plan.selections() {
///     assert_eq!(selection.kept("fc2", 1), Some(&[0, 2][..]));
///     assert_eq!((selection.kept("fc2", 0), selection.drops("fc2")), (None, false));
///     assert_eq!(model.select(selection)?.parameter("fc2")?.values(), [5.0, 4.0]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// (parameter, axis) → positions that stay, ascending
    pub(crate) kept: HashMap<(String, usize), Vec<usize>>,
    /// coupling → indices that stay, ascending
    pub(crate) indices: HashMap<String, Vec<usize>>,
    /// blocks that go, and the parameters that go with them
    pub(crate) blocks: HashSet<String>,
    pub(crate) dropped: HashSet<String>,
    /// shared parameter → (block, name of the block's own copy)
    pub(crate) copies: HashMap<String, Vec<(String, String)>>,
}

impl Selection {
    /// Positions of a parameter's axis that stay; `None` when all do.
    pub fn kept(&self, parameter: &str, axis: usize) -> Option<&[usize]> {
        self.kept.get(&(parameter.to_owned(), axis)).map(Vec::as_slice)
    }

    /// As [`kept`](Self::kept), for an axis of `len` positions.
    ///
    /// # Errors
    /// It would keep a position past the end.
    pub(crate) fn kept_of(&self, parameter: &str, axis: usize, len: usize) -> Result<Option<&[usize]>> {
        match self.kept(parameter, axis) {
            Some(&[.., last]) if last >= len => Err(Error::shape(format!(
                "layer `{parameter}`: axis {axis} has {len} positions, and position {last} should stay: the \
                 selection was made for another model"
            ))),
            kept => Ok(kept),
        }
    }

    /// Whether a parameter goes whole.
    pub fn drops(&self, parameter: &str) -> bool {
        self.dropped.contains(parameter)
    }

    /// Whether everything stays as it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.dropped.is_empty() && self.copies.is_empty() && self.blocks.is_empty()
    }

    /// What a parameter is called after the cut: nothing when it goes, several names when it is copied.
    pub(crate) fn names_after(&self, parameter: &str) -> Vec<String> {
        match self.copies.get(parameter) {
            _ if self.drops(parameter) => Vec::new(),
            Some(copies) => copies.iter().map(|(_, name)| name.clone()).collect(),
            None => vec![parameter.to_owned()],
        }
    }

    /// Removes indices of a coupling: their positions in every slot.
    pub(crate) fn remove_indices(
        &mut self,
        coupling: &Coupling,
        lens: impl Fn(&str, usize) -> usize,
        gone: &[usize],
    ) {
        let gone_set: HashSet<usize> = gone.iter().copied().collect();
        for slot in coupling.slots() {
            let positions: HashSet<usize> =
                gone.iter().flat_map(|&i| slot.positions(i).iter().copied()).collect();
            self.remove_positions(
                slot.parameter(),
                slot.axis(),
                lens(slot.parameter(), slot.axis()),
                &positions,
            );
        }
        let stay = (0..coupling.size()).filter(|i| !gone_set.contains(i)).collect();
        self.indices.insert(coupling.name().to_owned(), stay);
    }

    /// Removes positions of one axis.
    pub(crate) fn remove_positions(
        &mut self,
        parameter: &str,
        axis: usize,
        len: usize,
        gone: &HashSet<usize>,
    ) {
        let kept = self.kept.entry((parameter.to_owned(), axis)).or_insert_with(|| (0..len).collect());
        kept.retain(|position| !gone.contains(position));
    }
}

impl<F: Element> Model<F> {
    /// The model without what the selection leaves out.
    ///
    /// # Errors
    /// An axis would be left empty, the groups of a convolution uneven, or the selection was made for another
    /// model.
    pub fn select(&self, selection: &Selection) -> Result<Self> {
        let mut parameters = Vec::with_capacity(self.parameters.len());
        let left: Vec<&Parameter<F>> =
            self.parameters.iter().filter(|p| !selection.drops(p.name())).collect();
        let cuts = par::map(left.len(), |k| cut(left[k], selection));
        for (parameter, cut) in left.into_iter().zip(cuts) {
            let cut = cut?;
            match selection.copies.get(parameter.name()) {
                None => parameters.push(cut),
                Some(copies) => parameters.extend(
                    copies.iter().map(|(block, name)| own_copy(&cut, block, name.clone(), selection)),
                ),
            }
        }
        let couplings = self.couplings.iter().filter_map(|c| cut_coupling(c, selection)).collect();
        let mut blocks: Vec<Block> =
            self.blocks.iter().filter(|b| !selection.blocks.contains(b.name())).cloned().collect();
        let mut shared: Vec<_> = selection.copies.iter().collect();
        shared.sort_unstable();
        for (shared, copies) in shared {
            for (block, name) in copies {
                blocks.iter_mut().filter(|b| b.name() == block).for_each(|b| b.rename(shared, name));
            }
        }
        let passages = self.passages.iter().filter_map(|p| p.cut(selection)).collect();
        Ok(Self::assemble(parameters, couplings, passages, blocks))
    }
}

/// The coupling with its slots renumbered; `None` when no slot is left.
fn cut_coupling(coupling: &Coupling, selection: &Selection) -> Option<Coupling> {
    let all: Vec<usize> = (0..coupling.size()).collect();
    let indices = selection.indices.get(coupling.name()).unwrap_or(&all);
    let mut slots = Vec::new();
    for slot in coupling.slots() {
        let renumber = selection.kept(slot.parameter(), slot.axis()).map(|kept| {
            let places = kept.iter().enumerate().map(|(new, &old)| (old, new));
            places.collect::<HashMap<usize, usize>>()
        });
        let positions: Vec<Vec<usize>> = indices
            .iter()
            .map(|&i| {
                let old = slot.positions(i).iter();
                match &renumber {
                    None => old.copied().collect(),
                    Some(map) => old.filter_map(|p| map.get(p).copied()).collect(),
                }
            })
            .collect();
        for parameter in selection.names_after(slot.parameter()) {
            slots.push(CoupledSlot { parameter, axis: slot.axis(), positions: positions.clone() });
        }
    }
    let name = coupling.name().to_owned();
    (!slots.is_empty()).then(|| Coupling::from_parts(name, indices.len(), slots, coupling.is_homogeneous()))
}

/// The parameter without the positions that go; a convolution's group count follows its filters.
fn cut<F: Element>(parameter: &Parameter<F>, selection: &Selection) -> Result<Parameter<F>> {
    let shape = parameter.shape();
    let mut kept = Vec::with_capacity(shape.len());
    for (axis, &len) in shape.iter().enumerate() {
        kept.push(selection.kept_of(parameter.name(), axis, len)?);
        if kept[axis].is_some_and(<[usize]>::is_empty) {
            let name = parameter.name();
            return Err(Error::setting(format!(
                "layer `{name}`: all {len} positions of axis {axis} would go"
            )));
        }
    }
    if kept.iter().all(Option::is_none) {
        return Ok(parameter.clone());
    }
    let left: Vec<usize> = shape.iter().zip(&kept).map(|(&len, k)| k.map_or(len, <[usize]>::len)).collect();
    let values = gather(parameter.values(), shape, &kept);
    let array = ArrayD::from_shape_vec(left, values).map_err(|e| Error::shape(e.to_string()))?;
    let cut = parameter.with_array(array);
    match (parameter.kind(), selection.kept(parameter.name(), 0)) {
        (Kind::Conv(geometry), Some(kept)) if geometry.groups > 1 => {
            let groups = groups_left(parameter, geometry.groups, kept)?;
            Ok(cut.described(Kind::Conv(geometry.groups(groups))))
        }
        _ => Ok(cut),
    }
}

/// How many groups are left, all of equal size.
fn groups_left<F: Element>(parameter: &Parameter<F>, groups: usize, kept: &[usize]) -> Result<usize> {
    let per_group = parameter.shape()[0] / groups;
    let mut counts = vec![0; groups];
    for row in kept {
        counts[row / per_group] += 1;
    }
    counts.retain(|&n| n > 0);
    if counts.iter().any(|&n| n != counts[0]) {
        let name = parameter.name();
        return Err(Error::setting(format!(
            "layer `{name}`: its {groups} groups would keep {counts:?} filters"
        )));
    }
    Ok(counts.len())
}

/// A shared parameter as one block's own; a bias follows the block's copy of its weight.
fn own_copy<F: Element>(
    parameter: &Parameter<F>,
    block: &str,
    name: String,
    selection: &Selection,
) -> Parameter<F> {
    let own = |of: &String| {
        let copies = selection.copies.get(of).into_iter().flatten();
        copies.clone().find(|(b, _)| b == block).map_or_else(|| of.clone(), |(_, name)| name.clone())
    };
    let kind = match parameter.kind() {
        Kind::Bias { of } => Kind::Bias { of: own(of) },
        Kind::Norm { role, of: Some(of) } => Kind::Norm { role: *role, of: Some(own(of)) },
        kind => kind.clone(),
    };
    let (out_axis, in_axis) = (parameter.out_axis(), parameter.in_axis());
    let copy = parameter.clone().described(kind).renamed(name);
    match in_axis {
        Some(in_axis) => copy.axes(out_axis, in_axis),
        None => copy,
    }
}
