//! From classes to passages.

use std::collections::{BTreeMap, HashMap};

use super::{Part, Scales};
use crate::model::{CoupledSlot, Passage};

/// A side of a parameter's axis.
type Place = (usize, usize, bool);

impl Scales<'_, '_, '_> {
    /// Classes that lie in the same axes of the same parameters, equally often, are the units of one passage. A class
    /// counts where something makes it and some weight reads it.
    pub(super) fn collect(mut self) -> Vec<Passage> {
        self.settle_operands();
        let mut classes: BTreeMap<u32, BTreeMap<Place, Vec<usize>>> = BTreeMap::new();
        for part in &self.parts {
            for (position, &class) in part.classes.iter().enumerate() {
                let root = self.sets.root(class);
                let place = (part.parameter, part.axis, part.makes);
                classes.entry(root).or_default().entry(place).or_default().push(position);
            }
        }
        classes.remove(&0);
        classes.retain(|_, places| [true, false].iter().all(|side| places.keys().any(|p| p.2 == *side)));
        let mut alike: BTreeMap<Vec<(Place, usize)>, Vec<u32>> = BTreeMap::new();
        for (&root, places) in &classes {
            let signature = places.iter().map(|(&place, positions)| (place, positions.len())).collect();
            alike.entry(signature).or_default().push(root);
        }
        let maker = |root: u32| classes[&root].iter().find(|(place, _)| place.2);
        let mut units: Vec<(usize, usize, Vec<u32>)> = Vec::new();
        for mut roots in alike.into_values() {
            let first = |root: &u32| maker(*root).map_or((0, 0), |(place, p)| (place.0, p[0]));
            roots.sort_by_key(first);
            let (number, start) = roots.first().map_or((0, 0), first);
            units.push((number, start, roots));
        }
        units.sort_unstable();
        let mut used: HashMap<&str, usize> = HashMap::new();
        let passages = units.into_iter().map(|(number, _, roots)| {
            let name = self.parameters[number].name();
            let times = used.entry(name).or_default();
            *times += 1;
            let name = if *times == 1 { name.to_owned() } else { format!("{name}#{times}") };
            let side = |makes: bool| {
                let places = classes[&roots[0]].keys().filter(move |place| place.2 == makes);
                let slot = |place: &Place| CoupledSlot {
                    parameter: self.parameters[place.0].name().to_owned(),
                    axis: place.1,
                    positions: roots.iter().map(|root| classes[root][place].clone()).collect(),
                };
                places.map(slot).collect::<Vec<_>>()
            };
            Passage::from_parts(name, roots.len(), side(true), side(false))
        });
        passages.collect()
    }

    /// Constants become parts along the one axis on which their classes differ; what differs along several stays.
    fn settle_operands(&mut self) {
        let operands = std::mem::take(&mut self.operands);
        loop {
            let mut changed = false;
            for (_, classes) in &operands {
                let compact = classes.clone().compact(&mut self.sets);
                let differing = (0..compact.rank()).filter(|&axis| compact.differs(axis)).count();
                if differing > 1 && !self.sets.is_held(&compact) {
                    self.sets.hold(&compact);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        for (parameter, classes) in operands {
            let compact = classes.clone().compact(&mut self.sets);
            let axis = (0..compact.rank()).find(|&axis| compact.differs(axis)).unwrap_or(0);
            let Some(&len) = classes.0.shape().get(axis) else { continue };
            if let Some(classes) = compact.of_axis(axis, len) {
                self.parts.push(Part { parameter, axis, makes: true, classes });
            }
        }
    }
}
