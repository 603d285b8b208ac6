//! From classes to couplings.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::{CoupledSlot, Coupling, Parameter};
use crate::onnx::trace::space::Space;
use crate::onnx::trace::{Axis, Form, Frozen, Origin};

/// What a class has in one axis of one parameter.
type Places = BTreeMap<(usize, usize), Vec<usize>>;

/// Classes of each axis of a parameter, which may be a part of its tensor.
pub(super) fn parameter_axes(axes: &[Axis], form: Form) -> Vec<Axis> {
    match form {
        Form::Whole => axes.to_vec(),
        Form::Direction(_) => axes.get(1..).unwrap_or_default().to_vec(),
        Form::Transposed { groups } => {
            let mut turned = axes.to_vec();
            let rows = axes[0].as_ref().map_or(0, |axis| axis.len());
            if groups > 1 && rows == groups {
                let per_out = axes[1].as_ref().map_or(1, |axis| axis.len());
                let each = |axis: &std::sync::Arc<[u32]>| {
                    axis.iter().flat_map(|&c| std::iter::repeat_n(c, per_out)).collect()
                };
                turned[0] = axes[0].as_ref().map(each);
                turned[1] = None;
                return turned;
            }
            // Rows of every group see the same number of columns; the coupling shows those of the first.
            turned[0] = axes[1].as_ref().map(|axis| (0..groups).flat_map(|_| axis.iter().copied()).collect());
            turned[1] = axes[0].as_ref().and_then(|axis| axis.get(..rows / groups)).map(Into::into);
            turned
        }
    }
}

/// Everything that can go as one, and what is held.
///
/// Classes that lie in the same axes of the same parameters, equally often, are the units of one coupling. A class
/// counts only if it is an output of some weight.
pub(super) fn couple(
    parameters: &[Parameter<f32>],
    origins: &[Origin],
    axes: &[Vec<Axis>],
    space: &mut Space,
) -> (Vec<Coupling>, Vec<Frozen>) {
    let mut classes: BTreeMap<u32, Places> = BTreeMap::new();
    let mut makers: HashMap<u32, usize> = HashMap::new();
    for (number, (parameter, origin)) in parameters.iter().zip(origins).enumerate() {
        for (axis, positions) in parameter_axes(&axes[origin.tensor], origin.form).iter().enumerate() {
            for (position, &class) in positions.iter().flat_map(|axis| axis.iter()).enumerate() {
                let root = space.root(class);
                classes.entry(root).or_default().entry((number, axis)).or_default().push(position);
                if parameter.kind().is_weight() && axis == parameter.out_axis() {
                    makers.entry(root).or_insert(number);
                }
            }
        }
    }
    let mut held: BTreeMap<(usize, String, String, &'static str), HashSet<u32>> = BTreeMap::new();
    let mut units: BTreeMap<Vec<(usize, usize, usize)>, Vec<u32>> = BTreeMap::new();
    for (&root, places) in &classes {
        let Some(&maker) = makers.get(&root) else { continue };
        if let Some(reason) = space.held(root) {
            let key = (maker, reason.operator.clone(), reason.node.clone(), reason.why);
            held.entry(key).or_default().insert(root);
            continue;
        }
        let signature = places.iter().map(|(&(number, axis), p)| (number, axis, p.len())).collect();
        units.entry(signature).or_default().push(root);
    }
    let frozen = held.into_iter().map(|((maker, operator, node, why), roots)| Frozen {
        parameter: parameters[maker].name().to_owned(),
        units: roots.len(),
        operator,
        node,
        why: why.to_owned(),
    });
    let mut couplings: Vec<(usize, usize, Vec<u32>)> = Vec::new();
    let mut entangled = Vec::new();
    for (signature, roots) in units {
        if let [root] = roots[..] {
            // Alone it would be all that the layer has.
            let alone =
                signature.iter().any(|&(number, axis, held)| held == parameters[number].shape()[axis]);
            if alone {
                entangled.push(makers[&root]);
                continue;
            }
        }
        let maker = roots.iter().filter_map(|root| makers.get(root)).min().copied().unwrap_or(0);
        let out = parameters[maker].out_axis();
        let first = |root: &u32| classes[root].get(&(maker, out)).and_then(|p| p.first().copied());
        let mut roots = roots;
        roots.sort_by_key(first);
        let start = roots.first().and_then(first).unwrap_or(0);
        couplings.push((maker, start, roots));
    }
    couplings.sort_unstable();
    let mut used: HashMap<String, usize> = HashMap::new();
    let couplings = couplings.into_iter().map(|(maker, _, roots)| {
        let name = parameters[maker].name();
        let times = used.entry(name.to_owned()).or_default();
        *times += 1;
        let name = if *times == 1 { name.to_owned() } else { format!("{name}#{times}") };
        let slots = classes[&roots[0]].keys().map(|&(number, axis)| CoupledSlot {
            parameter: parameters[number].name().to_owned(),
            axis,
            positions: roots.iter().map(|root| classes[root][&(number, axis)].clone()).collect(),
        });
        Coupling::from_parts(name, roots.len(), slots.collect(), false)
    });
    let frozen = frozen.chain(entangled.into_iter().map(|maker| Frozen {
        parameter: parameters[maker].name().to_owned(),
        units: parameters[maker].units(),
        operator: "graph".to_owned(),
        node: parameters[maker].name().to_owned(),
        why: "its units go only all together".to_owned(),
    }));
    (couplings.collect(), frozen.collect())
}
