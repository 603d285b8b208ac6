//! What the parts of a model must not do to each other.

use std::collections::{BTreeMap, HashMap};

use crate::model::{CoupledSlot, Coupling, Kind, Parameter};
use crate::{Element, Error, Result};

/// A bias or batch norm must fit the weight that it says it follows.
pub(super) fn owner<F: Element>(parameter: &Parameter<F>, all: &[Parameter<F>]) -> Result<()> {
    let Some(of) = followed(parameter) else { return Ok(()) };
    let name = parameter.name();
    let owner = all.iter().find(|p| p.name() == of);
    let owner =
        owner.ok_or_else(|| Error::name(format!("`{name}` belongs to `{of}`, which is not there")))?;
    if !owner.kind().is_weight() {
        return Err(Error::shape(format!("`{name}` belongs to `{of}`, which is no weight")));
    }
    let (rows, len) = (owner.shape()[owner.out_axis()], parameter.shape()[0]);
    if rows != len {
        return Err(Error::shape(format!("`{name}` has {len} values, but `{of}` has {rows} output rows")));
    }
    Ok(())
}

/// No position of an axis may belong to two index spaces, or twice to one.
pub(super) fn overlap(couplings: &[Coupling]) -> Result<()> {
    let mut owners: HashMap<(&str, usize, usize), &str> = HashMap::new();
    for coupling in couplings {
        for slot in coupling.slots() {
            for &position in slot.positions.iter().flatten() {
                let key = (slot.parameter(), slot.axis(), position);
                if let Some(other) = owners.insert(key, coupling.name()) {
                    return Err(Error::shape(format!(
                        "slot `{}` axis {} of coupling `{}` and the slot of coupling `{other}` on the same axis \
                         both hold position {position}",
                        slot.parameter(),
                        slot.axis(),
                        coupling.name(),
                    )));
                }
            }
        }
    }
    Ok(())
}

/// On a grouped convolution's filters, an index is whole groups or the same share of each group.
pub(super) fn groups<'a, F: Element>(
    couplings: &[Coupling],
    find: impl Fn(&str) -> Option<&'a Parameter<F>>,
) -> Result<()> {
    for (coupling, slot, parameter) in output_slots(couplings, find) {
        let groups = parameter.groups();
        let per_group = parameter.shape()[parameter.out_axis()] / groups;
        for index in 0..coupling.size() {
            let mut counts = vec![0; groups];
            slot.positions(index).iter().for_each(|p| counts[p / per_group] += 1);
            let whole = counts.iter().all(|&n| n == 0 || n == per_group);
            let share = counts.iter().all(|&n| n == counts[0]);
            if !whole && !share {
                return Err(across(
                    coupling,
                    slot,
                    &format!(
                        "index {index} is neither whole groups of the {groups}, nor an equal share of each"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// On a recurrent cell's rows, an index is the same hidden units in each gate.
pub(super) fn gates<'a, F: Element>(
    couplings: &[Coupling],
    find: impl Fn(&str) -> Option<&'a Parameter<F>>,
) -> Result<()> {
    for (coupling, slot, parameter) in output_slots(couplings, find) {
        let Kind::Recurrent { gates } = *parameter.kind() else { continue };
        for index in 0..coupling.size() {
            let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
            for row in slot.positions(index) {
                *rows.entry(row % parameter.units()).or_default() += 1;
            }
            if let Some((unit, n)) = rows.into_iter().find(|&(_, n)| n != gates) {
                let what = format!("index {index} holds {n} of the {gates} gates of hidden unit {unit}");
                return Err(across(coupling, slot, &what));
            }
        }
    }
    Ok(())
}

/// Positions of an axis that couplings hold: which coupling, and which of its indices.
type Held<'a> = BTreeMap<usize, (&'a str, usize)>;

/// What belongs to a weight's outputs must lose what they lose, or the two would no longer fit.
pub(super) fn followers<F: Element>(parameters: &[Parameter<F>], couplings: &[Coupling]) -> Result<()> {
    let mut holders: HashMap<(&str, usize), Held<'_>> = HashMap::new();
    for coupling in couplings {
        for slot in coupling.slots() {
            let held = holders.entry((slot.parameter(), slot.axis())).or_default();
            for (index, positions) in slot.positions.iter().enumerate() {
                held.extend(positions.iter().map(|&p| (p, (coupling.name(), index))));
            }
        }
    }
    let none = BTreeMap::new();
    for parameter in parameters {
        let Some(of) = followed(parameter) else { continue };
        let Some(owner) = parameters.iter().find(|p| p.name() == of) else { continue };
        let theirs = holders.get(&(of, owner.out_axis())).unwrap_or(&none);
        let ours = holders.get(&(parameter.name(), 0)).unwrap_or(&none);
        let differs = |p: &usize| theirs.get(p) != ours.get(p);
        if let Some(at) = theirs.keys().chain(ours.keys()).find(|p| differs(p)) {
            let holder = |held: &Held<'_>| match held.get(at) {
                Some((coupling, index)) => format!("index {index} of coupling `{coupling}`"),
                None => "in no coupling".to_owned(),
            };
            return Err(Error::shape(format!(
                "slot `{of}` axis {}: position {at} is {}, but in slot `{}` axis 0, which belongs to it, it is {}",
                owner.out_axis(),
                holder(theirs),
                parameter.name(),
                holder(ours),
            )));
        }
    }
    Ok(())
}

/// The weight that a bias or batch norm belongs to.
fn followed<F: Element>(parameter: &Parameter<F>) -> Option<&str> {
    match parameter.kind() {
        Kind::Bias { of } | Kind::Norm { of: Some(of), .. } => Some(of),
        _ => None,
    }
}

/// The slots that are on a weight's output axis.
fn output_slots<'a, 'b, F: Element>(
    couplings: &'b [Coupling],
    find: impl Fn(&str) -> Option<&'a Parameter<F>>,
) -> impl Iterator<Item = (&'b Coupling, &'b CoupledSlot, &'a Parameter<F>)> {
    let slots = couplings.iter().flat_map(|coupling| coupling.slots().iter().map(move |s| (coupling, s)));
    slots.filter_map(move |(coupling, slot)| {
        let parameter = find(slot.parameter())?;
        let outputs = parameter.kind().is_weight() && slot.axis() == parameter.out_axis();
        outputs.then_some((coupling, slot, parameter))
    })
}

fn across(coupling: &Coupling, slot: &CoupledSlot, what: &str) -> Error {
    let (name, parameter, axis) = (coupling.name(), slot.parameter(), slot.axis());
    Error::shape(format!("coupling `{name}`: slot `{parameter}` axis {axis}: {what}"))
}
