//! Weights that several blocks share become one copy for each.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::importance::Scores;
use crate::model::Selection;
use crate::prune::{Cut, Plan};
use crate::{Element, Error, Kind, Model, Parameter, Result};

/// A plan that gives blocks their own copies, and what it leaves.
pub(super) struct Unshared<'a, F: Element> {
    pub(super) plan: Plan,
    pub(super) model: Cow<'a, Model<F>>,
    pub(super) scores: Cow<'a, Scores<F>>,
    pub(super) copies: Selection,
}

impl<'a, F: Element> Unshared<'a, F> {
    /// Gives each block its own copy of what it shares, unless `keep_shared`.
    pub(super) fn new(model: &'a Model<F>, scores: &'a Scores<F>, keep_shared: bool) -> Result<Self> {
        let (model, scores) = (Cow::Borrowed(model), Cow::Borrowed(scores));
        let copies = if keep_shared { HashMap::new() } else { copies(&model)? };
        if copies.is_empty() {
            return Ok(Self { plan: Plan::new(&model), model, scores, copies: Selection::default() });
        }
        let mut shared: Vec<(&String, usize)> =
            copies.iter().filter(|(_, c)| c.len() > 1).map(|(name, c)| (name, c.len())).collect();
        shared.sort_unstable();
        let note = |(name, blocks): (&String, usize)| {
            format!("`{name}` is copied for {blocks} blocks that share it")
        };
        let notes = shared.into_iter().map(note).collect();
        let selection = Selection { copies, ..Selection::default() };
        let plan = Plan::of(&model, Cut { selection: selection.clone(), notes, ..Cut::default() })?;
        let (model, scores) = (model.select(&selection)?, scores.select(&selection));
        Ok(Self { plan, model: Cow::Owned(model), scores: Cow::Owned(scores), copies: selection })
    }
}

/// Which parameters are copied: (block, name of its copy) for each. A bias or norm follows its weight.
fn copies<F: Element>(model: &Model<F>) -> Result<HashMap<String, Vec<(String, String)>>> {
    let listing = |name: &str| -> Vec<&str> {
        let lists = |b: &&crate::Block| b.names().any(|n| n == name);
        model.blocks().iter().filter(lists).map(crate::Block::name).collect()
    };
    let own = |blocks: &[&str], name: &str| -> Vec<(String, String)> {
        blocks.iter().map(|&block| (block.to_owned(), format!("{block}/{name}"))).collect()
    };
    let mut copies = HashMap::new();
    for parameter in model.parameters() {
        let blocks = listing(parameter.name());
        if blocks.len() > 1 {
            copies.insert(parameter.name().to_owned(), own(&blocks, parameter.name()));
        }
    }
    for parameter in model.parameters() {
        let (name, owner) = (parameter.name(), owner(parameter));
        let Some((owner, blocks)) = owner.and_then(|of| Some((of, copies.get(of)?))) else { continue };
        if copies.contains_key(name) {
            continue;
        }
        let blocks: Vec<&str> = blocks.iter().map(|(block, _)| block.as_str()).collect();
        let followed = match listing(name).as_slice() {
            [] => own(&blocks, name),
            // Each block has a bias of its own on a weight that they share: it keeps its name.
            [block] if blocks.contains(block) => vec![((*block).to_owned(), name.to_owned())],
            listing => {
                let block = listing.first().copied().unwrap_or_default();
                return Err(Error::name(format!(
                    "block `{block}`: `{name}` belongs to `{owner}`, which the block does not list"
                )));
            }
        };
        copies.insert(name.to_owned(), followed);
    }
    let taken =
        |copy: &&(String, String)| model.find(&copy.1).is_some_and(|p| !copies.contains_key(p.name()));
    match copies.values().flatten().find(taken) {
        Some((block, name)) => {
            Err(Error::name(format!("block `{block}`: the name `{name}` of its copy is taken")))
        }
        None => Ok(copies),
    }
}

/// The weight that a bias or norm belongs to.
pub(super) fn owner<F: Element>(parameter: &Parameter<F>) -> Option<&str> {
    match parameter.kind() {
        Kind::Bias { of } | Kind::Norm { of: Some(of), .. } => Some(of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::importance::Magnitude;
    use crate::model::CoupledSlot;
    use crate::{Block, Coupling, Evidence, Needs};

    fn linear(name: &str) -> Parameter<f32> {
        Parameter::linear(name, Array2::ones((2, 2)))
    }

    fn bias(name: &str, of: &str) -> Parameter<f32> {
        Parameter::bias(name, Array1::zeros(2), of)
    }

    fn unshared(model: &Model<f32>) -> Result<Model<f32>> {
        let scores = Scores::compute(&Magnitude::l2(), model, &Evidence::new(model, Needs::MOMENTS))?;
        let unshared = Unshared::new(model, &scores, false)?;
        assert_eq!(unshared.plan.apply(model)?, *unshared.model);
        for weight in unshared.model.weights() {
            assert!(unshared.scores.layer(weight.name()).is_ok(), "{}", weight.name());
        }
        Ok(unshared.model.into_owned())
    }

    #[test]
    fn biases_follow_their_weights() {
        let model = Model::builder()
            .parameter(linear("w"))
            .parameter(bias("listed", "w"))
            .parameter(bias("left", "w"))
            .parameter(bias("own1", "w"))
            .parameter(bias("own2", "w"))
            .coupling(Coupling::builder("c").outputs(["w", "listed", "left", "own1", "own2"]))
            .block(Block::new("b1").parameters(["w", "listed", "own1"]))
            .block(Block::new("b2").parameters(["w", "listed", "own2"]))
            .build()
            .unwrap();
        let unshared = unshared(&model).unwrap();
        let names: Vec<&str> = unshared.parameters().iter().map(Parameter::name).collect();
        let expected = ["b1/w", "b2/w", "b1/listed", "b2/listed", "b1/left", "b2/left", "own1", "own2"];
        assert_eq!(names, expected);
        for (name, of) in [("b1/listed", "b1/w"), ("b2/left", "b2/w"), ("own1", "b1/w"), ("own2", "b2/w")] {
            assert_eq!(owner(unshared.parameter(name).unwrap()), Some(of));
        }
        let block = unshared.block("b2").unwrap();
        assert_eq!(block.parameter("w"), Some("b2/w"));
        assert_eq!(block.parameter("left"), Some("b2/left"));
        assert_eq!(block.parameter("own2"), Some("own2"));
        let slots: Vec<&str> = unshared.couplings()[0].slots().iter().map(CoupledSlot::parameter).collect();
        assert_eq!(slots, expected);
        assert_eq!(self::unshared(&unshared).unwrap(), unshared);
    }

    #[test]
    fn what_cannot_be_told_apart_is_an_error() {
        let shared = || {
            let builder = Model::builder().parameter(linear("w"));
            builder.block(Block::new("b1").parameters(["w"])).block(Block::new("b2").parameters(["w"]))
        };
        let taken = shared().parameter(linear("b2/w")).build().unwrap();
        assert!(unshared(&taken).unwrap_err().to_string().contains("`b2/w`"));
        let foreign = shared().parameter(bias("b", "w")).block(Block::new("b3").parameters(["b"])).build();
        assert!(unshared(&foreign.unwrap()).unwrap_err().to_string().contains("b3"));
    }
}
