//! Repeated structures, removed whole.

use std::collections::HashSet;

use crate::importance::Scores;
use crate::prune::block::unshare::{Unshared, owner};
use crate::prune::rank::lowest;
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Plan, Pruner, Sparsity, Targets};
use crate::{Block, Element, Error, Model, Parameter, Result};

/// Removes blocks of the model ([`Block`]: residual branches, transformer layers) whole, those with the lowest
/// scores, ties by index.
///
/// The score of a block is the mean score of its weights; with [`by_influence`](Self::by_influence) it is
/// 1 − E[cos(x, y)] of what goes into the block and what comes out, from
/// [`Evidence::record_block`](crate::Evidence::record_block).
///
/// With a block go its parameters, except those that a block which stays lists too, and the biases and norms of
/// weights that go. Weights that several blocks share are first copied for each ([`block`](crate::prune::block)),
/// unless [`keep_shared`](Self::keep_shared). A forward pass asks [`Model::block`] whether the block is still
/// there. At least one block stays.
///
/// Men and others: `ShortGPT`: layers in large language models are more redundant than you expect (2024), for the
/// influence.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Modules, Pruner};
/// use niwaki::{Block, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("large", array![[3.0, 3.0]]))
///     .parameter(Parameter::linear("small", array![[1.0, 2.0]]))
///     .block(Block::new("block1").parameters(["large"]))
///     .block(Block::new("block2").parameters(["small"]))
///     .build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_block("block1", &array![[1.0, 0.0]], &array![[2.0, 0.0]])?;
/// evidence.record_block("block2", &array![[1.0, 0.0]], &array![[0.0, 2.0]])?;
/// let scores = Scores::compute(&Magnitude::l1(), &model, &evidence)?;
///
/// let shorter = Modules::count(1).plan(&model, &scores)?.apply(&model)?;
/// assert!(shorter.block("block2").is_none() && shorter.find("small").is_none());
/// // The first block does not turn its input: it has no influence.
/// let shorter = Modules::count(1).by_influence().plan(&model, &scores)?.apply(&model)?;
/// assert!(shorter.block("block1").is_none() && shorter.block("block2").is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Modules {
    amount: Amount,
    by_influence: bool,
    keep_shared: bool,
    /// names of the blocks that the amount is of, where they are not the model's own
    original: Option<Vec<String>>,
    pub(crate) targets: Targets,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Count(usize),
    Share(Sparsity),
}

impl Modules {
    /// This fraction of the blocks that take part goes.
    pub fn new(sparsity: Sparsity) -> Self {
        Self::of(Amount::Share(sparsity))
    }

    /// This many blocks go.
    pub fn count(blocks: usize) -> Self {
        Self::of(Amount::Count(blocks))
    }

    fn of(amount: Amount) -> Self {
        let targets = Targets::default();
        Self { amount, by_influence: false, keep_shared: false, original: None, targets }
    }

    /// Ranks by block influence, 0 for a block that only scales its input. Influences are those of the network as
    /// it was recorded: removing one block changes what the others see.
    pub fn by_influence(self) -> Self {
        Self { by_influence: true, ..self }
    }

    /// Leaves weights that several blocks share as they are: they go with the last block that lists them.
    pub fn keep_shared(self) -> Self {
        Self { keep_shared: true, ..self }
    }

    /// Takes the fraction or number of the blocks of this model, so that blocks which went since then count as
    /// gone: for work in several steps ([`Gradual`](crate::prune::Gradual)).
    pub fn relative_to<F: Element>(self, original: &Model<F>) -> Self {
        let names = original.blocks().iter().map(|b| b.name().to_owned());
        Self { original: Some(names.collect()), ..self }
    }

    target_setters!("block", exclude);

    /// How many of these blocks go.
    fn goes(&self, taking_part: &[&str], model_blocks: usize) -> Result<usize> {
        let here = taking_part.len();
        // Blocks that went took part.
        let original =
            self.original.as_ref().map_or(here, |names| names.len() - names.len().min(model_blocks) + here);
        let wanted = match self.amount {
            Amount::Count(count) => count,
            Amount::Share(sparsity) => sparsity.of(original),
        };
        let count = wanted.saturating_sub(original - here);
        if count >= model_blocks {
            return Err(Error::setting(format!(
                "{count} of {model_blocks} blocks would go: at least one must stay"
            )));
        }
        if count > here {
            return Err(Error::setting(format!("{count} blocks should go, but only {here} take part")));
        }
        Ok(count)
    }

    fn score<F: Element>(&self, block: &Block, model: &Model<F>, scores: &Scores<F>) -> Result<f64> {
        let name = block.name();
        if self.by_influence {
            let missing = || {
                Error::missing(format!("block `{name}`: no influence was recorded (Evidence::record_block)"))
            };
            return scores.block_influence(name).ok_or_else(missing);
        }
        let (mut sum, mut count) = (0.0, 0);
        for weight in block.names().filter_map(|name| model.find(name)).filter(|p| p.kind().is_weight()) {
            let score = scores.layer(weight.name()).map_err(|e| e.context(format!("block `{name}`")))?;
            sum += score.mean(weight) * weight.values().len() as f64;
            count += weight.values().len();
        }
        if count == 0 {
            return Err(Error::missing(format!("block `{name}`: it has no weights to score")));
        }
        Ok(sum / count as f64)
    }
}

impl<F: Element> Pruner<F> for Modules {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        if model.blocks().is_empty() {
            return Err(Error::setting("the model has no blocks that could be removed"));
        }
        let names: Vec<&str> = model.blocks().iter().map(Block::name).collect();
        let resolved = self.targets.resolve(&names, Sparsity::default())?;
        let taking_part: Vec<&str> = resolved.into_iter().map(|(name, _)| name).collect();
        let count = self.goes(&taking_part, names.len())?;
        if count == 0 {
            return Ok(Plan::new(model));
        }
        let Unshared { mut plan, model, scores, .. } = Unshared::new(model, scores, self.keep_shared)?;
        let blocks: Vec<&Block> = model.blocks().iter().filter(|b| taking_part.contains(&b.name())).collect();
        let ranks = blocks.iter().map(|b| self.score(b, &model, &scores)).collect::<Result<Vec<f64>>>()?;
        let mut cut = Cut::default();
        for at in lowest(&ranks, count) {
            let (name, score) = (blocks[at].name(), ranks[at]);
            cut.selection.blocks.insert(name.to_owned());
            cut.notes.push(format!("block `{name}` goes (score {score:.4})"));
        }
        cut.selection.dropped = dropped(&model, &cut.selection.blocks)?;
        plan.push(cut)?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        self.targets.check()
    }
}

/// The parameters that go with these blocks.
fn dropped<F: Element>(model: &Model<F>, blocks: &HashSet<String>) -> Result<HashSet<String>> {
    let listed = |gone: bool| {
        let blocks = model.blocks().iter().filter(move |b| blocks.contains(b.name()) == gone);
        blocks.flat_map(|b| b.names().map(|name| (name, b.name())))
    };
    let staying: Vec<(&str, &str)> = listed(false).collect();
    let stays = |name: &str| staying.iter().find(|(stays, _)| *stays == name).map(|(_, block)| *block);
    let mut dropped: HashSet<String> =
        listed(true).filter(|(name, _)| stays(name).is_none()).map(|(name, _)| name.to_owned()).collect();
    let follows = |p: &&Parameter<F>| owner(p).is_some_and(|of| dropped.contains(of));
    let followers: Vec<&str> = model.parameters().iter().filter(follows).map(Parameter::name).collect();
    for name in followers {
        if let Some(block) = stays(name) {
            return Err(Error::name(format!(
                "block `{block}`: `{name}` belongs to a weight that would go with another block"
            )));
        }
        dropped.insert(name.to_owned());
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, array};

    use super::*;
    use crate::importance::Magnitude;
    use crate::{Coupling, ErrorKind, Evidence, Needs};

    /// Four blocks; `w{i}` is all of the i-th size; the last two share `shared` and its bias.
    fn model() -> Model<f32> {
        let sizes = [3.0, 1.0, 2.0, 2.0];
        let mut builder = Model::builder()
            .parameter(Parameter::linear("shared", array![[9.0, 9.0]]))
            .parameter(Parameter::bias("shared.bias", Array1::zeros(1), "shared"));
        for (i, size) in sizes.into_iter().enumerate() {
            let name = format!("w{i}");
            let mut names = vec![name.clone()];
            if i > 1 {
                names.extend(["shared".to_owned(), "shared.bias".to_owned()]);
            }
            builder = builder
                .parameter(Parameter::linear(name.clone(), Array2::from_elem((2, 2), size)))
                .parameter(Parameter::bias(format!("{name}.bias"), Array1::zeros(2), name))
                .block(Block::new(format!("b{i}")).parameters(names));
        }
        builder.coupling(Coupling::builder("c").outputs(["w0", "w0.bias", "w1", "w1.bias"])).build().unwrap()
    }

    fn plan(pruner: &Modules, model: &Model<f32>) -> Result<Plan> {
        let scores = Scores::compute(&Magnitude::l1(), model, &Evidence::new(model, Needs::MOMENTS))?;
        pruner.plan(model, &scores)
    }

    fn left(pruner: &Modules, model: &Model<f32>) -> Model<f32> {
        plan(pruner, model).unwrap().apply(model).unwrap()
    }

    fn names(model: &Model<f32>) -> (Vec<&str>, Vec<&str>) {
        let blocks = model.blocks().iter().map(Block::name).collect();
        (blocks, model.parameters().iter().map(Parameter::name).collect())
    }

    #[test]
    fn lowest_blocks_go_with_their_parameters() {
        let model = model();
        let one = left(&Modules::count(1), &model);
        assert_eq!(names(&one).0, ["b0", "b2", "b3"]);
        // Unlisted biases follow their weights; shared weights became copies.
        let parameters = [
            "b2/shared",
            "b3/shared",
            "b2/shared.bias",
            "b3/shared.bias",
            "w0",
            "w0.bias",
            "w2",
            "w2.bias",
            "w3",
            "w3.bias",
        ];
        assert_eq!(names(&one).1, parameters);
        assert_eq!(one.coupling("c").unwrap().slots().len(), 2);
        // Means by size: b0 3, b2 and b3 (4·2 + 2·9) / 6.
        assert_eq!(names(&left(&Modules::count(2), &model)).0, ["b2", "b3"]);
        let three = left(&Modules::new(Sparsity::new(0.75).unwrap()), &model);
        assert_eq!(names(&three), (vec!["b3"], vec!["b3/shared", "b3/shared.bias", "w3", "w3.bias"]));
        assert_eq!(three.block("b3").unwrap().parameter("shared.bias"), Some("b3/shared.bias"));
    }

    #[test]
    fn shared_weights_can_stay_shared() {
        let kept = left(&Modules::count(3).keep_shared(), &model());
        assert_eq!(names(&kept), (vec!["b3"], vec!["shared", "shared.bias", "w3", "w3.bias"]));
        let gone = left(&Modules::count(3).keep_shared().exclude("b0"), &model());
        assert_eq!(names(&gone), (vec!["b0"], vec!["w0", "w0.bias"]));
    }

    #[test]
    fn one_block_stays() {
        let error = |pruner: Modules| plan(&pruner, &model()).unwrap_err();
        assert_eq!(error(Modules::count(4)).to_string(), "4 of 4 blocks would go: at least one must stay");
        assert_eq!(error(Modules::count(9)).kind(), ErrorKind::Setting);
        let excluded = error(Modules::count(3).exclude("b0").exclude("b1"));
        assert_eq!(excluded.to_string(), "3 blocks should go, but only 2 take part");
        assert_eq!(error(Modules::count(1).exclude("b7")).kind(), ErrorKind::Name);
        assert!(plan(&Modules::count(0), &model()).unwrap().is_empty());
    }

    #[test]
    fn influence_must_be_recorded() {
        let model = model();
        let mut evidence = Evidence::new(&model, Needs::MOMENTS);
        let (x, y) = (array![[1.0f32, 0.0]], array![[1.0, 1.0]]);
        for block in ["b0", "b1", "b2"] {
            evidence.record_block(block, &x, &y).unwrap();
        }
        let plan = |evidence: &Evidence<f32>| {
            let scores = Scores::compute(&Magnitude::l1(), &model, evidence)?;
            Modules::count(1).by_influence().plan(&model, &scores)
        };
        let error = plan(&evidence).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingEvidence);
        assert!(error.to_string().contains("`b3`"), "{error}");
        evidence.record_block("b3", &x, &x).unwrap();
        let shorter = plan(&evidence).unwrap().apply(&model).unwrap();
        assert_eq!(names(&shorter).0, ["b0", "b1", "b2"]);
    }

    #[test]
    fn steps_count_from_the_original() {
        let original = model();
        let mut model = original.clone();
        for (step, expected) in [(1, 3), (2, 2), (3, 1)] {
            let share = Sparsity::new(f64::from(step) / 4.0).unwrap();
            model = left(&Modules::new(share).relative_to(&original), &model);
            assert_eq!(model.blocks().len(), expected);
        }
    }
}
