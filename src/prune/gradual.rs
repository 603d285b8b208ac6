//! Pruning in steps, with the caller's fine tuning between them.

use crate::importance::{Importance, Scores};
use crate::prune::{Plan, Pruner, Schedule, Sparsity};
use crate::{Block, Coupling, Element, Error, Evidence, Kind, Model, Parameter, Result};

/// Prunes in steps t = 1 … T: score, plan at the step's sparsity, apply, and hand the model to the caller to
/// train. What is pruned stays pruned: after each training the masks of all steps so far are applied again.
///
/// Every sparsity is a fraction of the original. Pruners of single weights and tiles need nothing for that: what is 0
/// goes first and counts. Pruners that make arrays smaller are told what the fractions are of, with
/// [`Channel::relative_to`](crate::prune::Channel::relative_to) or
/// [`Modules::relative_to`](crate::prune::Modules::relative_to); without it each step takes its fraction of what
/// the last one left. The course starts at 0; [`starting_at`](Self::starting_at) says otherwise.
///
/// ```
/// use ndarray::Array;
/// use niwaki::importance::Magnitude;
/// use niwaki::prune::{Gradual, Schedule, Sparsity, Unstructured};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = Array::from_shape_fn((4, 5), |(i, j)| (1 + 5 * i + j) as f32);
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let gradual = Gradual::new(Schedule::Linear, 3, Sparsity::new(0.6)?)?;
/// let mut zeros = Vec::new();
/// let (pruned, plan) = gradual.run(
///     &model,
///     Evidence::new(&model, Needs::MOMENTS),
///     &Magnitude::l1(),
///     |sparsity| Unstructured::new(sparsity).include_ends(),
///     |_step, model, _evidence| {
///         zeros.push(20 - model.nonzero_count());
///         // Training moves every weight, the pruned ones too.
///         let trained = model.parameter("fc")?.array() + 0.1;
///         model.with_values("fc", trained)
///     },
/// )?;
/// assert_eq!(zeros, [4, 8, 12]);
/// assert_eq!(pruned.nonzero_count(), 8);
/// assert_eq!(plan.weight_mask("fc").map(|mask| mask.kept()), Some(8));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradual {
    schedule: Schedule,
    steps: usize,
    from: Sparsity,
    to: Sparsity,
}

impl Gradual {
    /// In `steps` steps to the sparsity `target`.
    ///
    /// # Errors
    /// No steps.
    pub fn new(schedule: Schedule, steps: usize, target: Sparsity) -> Result<Self> {
        if steps == 0 {
            return Err(Error::setting("gradual pruning takes at least 1 step"));
        }
        Ok(Self { schedule, steps, from: Sparsity::default(), to: target })
    }

    /// Where the course begins: `s_i` of the schedule, which lies before the first step. Default 0.
    pub fn starting_at(self, sparsity: Sparsity) -> Self {
        Self { from: sparsity, ..self }
    }

    /// The sparsity of each step.
    pub fn sparsities(&self) -> impl Iterator<Item = Sparsity> {
        let Self { schedule, steps, from, to } = *self;
        (1..=steps).map(move |step| schedule.at(step, steps, from, to))
    }

    /// Runs all steps. Gives back the pruned model and one plan for all that went, counted from `model`.
    ///
    /// `pruner` makes the pruner of a sparsity. `fine_tune` gets the number of the step (from 1), the pruned model
    /// and the evidence about it; it gives back the model with other values. The evidence, cut as the model was, is
    /// what the next step scores by: a caller that wants newer statistics records them and puts them in its place.
    ///
    /// # Errors
    /// The message names the step: whatever scoring and planning may say; what `fine_tune` gives back has other
    /// names, shapes, couplings or blocks than it was given, or a value that is not finite (and names the
    /// parameter). Feature maps cannot be pruned in more than one step: the model does not tell which positions are
    /// gone.
    pub fn run<F: Element, P: Pruner<F>>(
        &self,
        model: &Model<F>,
        mut evidence: Evidence<F>,
        importance: &(impl Importance<F> + ?Sized),
        pruner: impl Fn(Sparsity) -> P,
        mut fine_tune: impl FnMut(usize, Model<F>, &mut Evidence<F>) -> Result<Model<F>>,
    ) -> Result<(Model<F>, Plan)> {
        let (mut model, mut whole) = (model.clone(), Plan::new(model));
        for (step, sparsity) in (1..).zip(self.sparsities()) {
            let here = |e: Error| e.context(format!("step {step} of {}", self.steps));
            let scores = Scores::compute(importance, &model, &evidence).map_err(here)?;
            let plan = pruner(sparsity).plan(&model, &scores).map_err(here)?;
            if self.steps > 1 && plan.activation_masks().next().is_some() {
                return Err(here(Error::unsupported("feature maps are pruned in one step")));
            }
            plan.apply_in_place(&mut model).map_err(here)?;
            evidence = plan.apply_to_evidence(&evidence).map_err(here)?;
            whole = whole.then(plan).map_err(here)?;
            let layout = Layout::of(&model);
            model = fine_tune(step, model, &mut evidence).map_err(here)?;
            layout.check(&model).map_err(|e| here(e.context("after fine tuning")))?;
            whole.mask(&mut model).map_err(here)?;
        }
        Ok((model, whole))
    }
}

/// All of a model but its values.
struct Layout {
    parameters: Vec<Outline>,
    couplings: Vec<Coupling>,
    blocks: Vec<Block>,
}

/// A parameter without its values.
struct Outline {
    name: String,
    shape: Vec<usize>,
    kind: Kind,
    axes: (usize, Option<usize>),
}

impl Layout {
    fn of<F: Element>(model: &Model<F>) -> Self {
        let parameter = |p: &Parameter<F>| Outline {
            name: p.name().to_owned(),
            shape: p.shape().to_vec(),
            kind: p.kind().clone(),
            axes: (p.out_axis(), p.in_axis()),
        };
        Self {
            parameters: model.parameters().iter().map(parameter).collect(),
            couplings: model.couplings().to_vec(),
            blocks: model.blocks().to_vec(),
        }
    }

    /// Errors unless the model has this layout, and finite values.
    fn check<F: Element>(&self, model: &Model<F>) -> Result<()> {
        for Outline { name, shape, kind, axes } in &self.parameters {
            let new = model.parameter(name)?;
            if new.shape() != shape {
                let new = new.shape();
                return Err(Error::shape(format!("parameter `{name}`: shape {new:?} in place of {shape:?}")));
            }
            if (new.kind(), (new.out_axis(), new.in_axis())) != (kind, *axes) {
                return Err(Error::setting(format!(
                    "parameter `{name}` became another kind, or has other axes"
                )));
            }
        }
        if let Some(more) =
            model.parameters().iter().find(|p| !self.parameters.iter().any(|q| q.name == p.name()))
        {
            return Err(Error::name(format!("parameter `{}` is new", more.name())));
        }
        if model.couplings() != self.couplings || model.blocks() != self.blocks {
            return Err(Error::setting("the model has other couplings or blocks"));
        }
        model.check_finite()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array1, Array2};

    use super::*;
    use crate::importance::{Magnitude, Score};
    use crate::prune::{Channel, FeatureMap, NOfM, Scope, Unstructured};
    use crate::{ErrorKind, Geometry, Layer, Needs};

    fn model() -> Model<f32> {
        let values = |rows, columns| {
            Array2::from_shape_fn((rows, columns), |(i, j)| (1 + (i * columns + j) * 7 % 31) as f32)
        };
        Model::builder()
            .parameter(Parameter::linear("a", values(5, 4)))
            .parameter(Parameter::bias("a.bias", Array1::ones(5), "a"))
            .parameter(Parameter::linear("b", values(4, 5)))
            .coupling(Coupling::builder("hidden").outputs(["a", "a.bias"]).inputs(["b"]))
            .build()
            .unwrap()
    }

    fn gradual(steps: usize, to: f64) -> Gradual {
        Gradual::new(Schedule::Linear, steps, Sparsity::new(to).unwrap()).unwrap()
    }

    fn nothing(model: &Model<f32>) -> Evidence<f32> {
        Evidence::new(model, Needs::MOMENTS)
    }

    /// Every value moves.
    fn train(_: usize, mut model: Model<f32>, _: &mut Evidence<f32>) -> Result<Model<f32>> {
        for name in model.parameters().iter().map(|p| p.name().to_owned()).collect::<Vec<_>>() {
            let moved = model.parameter(&name)?.array() * 0.5 + 3.0;
            model.set_values(&name, moved)?;
        }
        Ok(model)
    }

    #[test]
    fn arrays_shrink_to_the_fraction_of_the_original() {
        let model = model();
        let mut sizes = Vec::new();
        let (smaller, plan) = gradual(5, 0.5)
            .run(
                &model,
                nothing(&model),
                &Magnitude::l2(),
                |sparsity| Channel::new(sparsity).relative_to(&model),
                |step, model, evidence| {
                    sizes.push(model.coupling("hidden")?.size());
                    train(step, model, evidence)
                },
            )
            .unwrap();
        assert_eq!(sizes, [5, 4, 4, 3, 3]);
        assert_eq!(smaller.parameter("b").unwrap().shape(), [4, 3]);
        assert_eq!(plan.parameter_counts(), (model.parameter_count(), smaller.parameter_count()));
        let kept = plan.kept("a", 0).unwrap();
        assert_eq!((kept.len(), plan.kept("b", 1).unwrap()), (3, kept));
    }

    #[test]
    fn what_is_pruned_stays_zero() {
        let model = model();
        let mut zeros: Option<Vec<bool>> = None;
        let pruner = |sparsity| Unstructured::new(sparsity).scope(Scope::Global).include_ends();
        let (left, _) = gradual(4, 0.8)
            .run(&model, nothing(&model), &Magnitude::l1(), pruner, |step, model, evidence| {
                let values = model.weights().flat_map(|p| p.values().to_vec());
                let now: Vec<bool> = values.map(|w| w == 0.0).collect();
                assert!(zeros.iter().flatten().zip(&now).all(|(before, now)| *now || !before));
                assert_eq!(now.iter().filter(|zero| **zero).count(), step * 8);
                zeros = Some(now);
                train(step, model, evidence)
            })
            .unwrap();
        assert_eq!(
            left.weights().map(|p| p.values().iter().filter(|w| **w == 0.0).count()).sum::<usize>(),
            32
        );
    }

    #[test]
    fn newer_evidence_is_what_the_next_step_scores_by() {
        /// Scores units by the largest output seen.
        #[derive(Debug)]
        struct Seen;
        impl Importance<f32> for Seen {
            fn score(&self, layer: &Layer<'_, f32>) -> Result<Score<f32>> {
                let seen = layer.outputs()?.units().max_abs().to_vec();
                Ok(Score::units(0, seen.into_iter().map(|x| x as f32).collect()))
            }
        }
        let model = model();
        let record = |model: &Model<f32>, outputs: Vec<f32>| -> Result<Evidence<f32>> {
            let mut evidence = nothing(model);
            evidence.record_output("a", &Array2::from_shape_vec((1, outputs.len()), outputs).unwrap())?;
            Ok(evidence)
        };
        let (_, plan) = gradual(2, 0.4)
            .run(
                &model,
                record(&model, vec![1.0, 2.0, 3.0, 4.0, 5.0]).unwrap(),
                &Seen,
                |sparsity| Channel::new(sparsity).relative_to(&model),
                |step, model, evidence| {
                    if step == 1 {
                        *evidence = record(&model, vec![9.0, 9.0, 9.0, 1.0])?;
                    }
                    Ok(model)
                },
            )
            .unwrap();
        assert_eq!(plan.kept("a", 0), Some(vec![1, 2, 3]));
    }

    #[test]
    fn what_comes_back_is_checked() {
        let model = model();
        let run = |tune: &dyn Fn(Model<f32>) -> Result<Model<f32>>| {
            let pruner = |sparsity| Unstructured::new(sparsity).include_ends();
            let gradual = gradual(3, 0.5);
            let tuned = gradual.run(&model, nothing(&model), &Magnitude::l1(), pruner, |step, model, _| {
                if step == 2 { tune(model) } else { Ok(model) }
            });
            tuned.unwrap_err().to_string()
        };
        assert_eq!(run(&|_| Err(Error::setting("no data"))), "step 2 of 3: no data");
        let other = |_| Model::builder().parameter(Parameter::linear("a", Array2::ones((5, 3)))).build();
        let shape = "step 2 of 3: after fine tuning: parameter `a`: shape [5, 3] in place of [5, 4]";
        assert_eq!(run(&other), shape);
        let bare = |model: Model<f32>| {
            let builder = Model::builder();
            model.parameters().iter().cloned().fold(builder, crate::ModelBuilder::parameter).build()
        };
        assert!(run(&bare).contains("other couplings"));
        let broken = |mut model: Model<f32>| {
            model.values_mut("b")?[3] = f32::NAN;
            Ok(model)
        };
        let message = run(&broken);
        assert!(message.starts_with("step 2 of 3: after fine tuning: parameter `b`"), "{message}");
    }

    #[test]
    fn feature_maps_take_one_step() {
        #[derive(Debug)]
        struct Map;
        impl Importance<f32> for Map {
            fn score(&self, _: &Layer<'_, f32>) -> Result<Score<f32>> {
                Ok(Score::units(0, Array1::ones(1)).with_map(0, Array::ones((1, 2, 2)).into_dyn()))
            }
        }
        let conv = Parameter::conv("c", Array::ones((1, 1, 3, 3)), Geometry::new());
        let model = Model::builder().parameter(conv).build().unwrap();
        let run =
            |steps| gradual(steps, 0.5).run(&model, nothing(&model), &Map, FeatureMap::new, |_, m, _| Ok(m));
        assert!(run(1).unwrap().1.activation_mask("c").is_some());
        assert_eq!(run(2).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn any_pruner_and_any_start() {
        let model = model();
        let start = gradual(2, 0.5).starting_at(Sparsity::new(0.3).unwrap());
        assert_eq!(start.sparsities().map(Sparsity::removed).collect::<Vec<_>>(), [0.4, 0.5]);
        let (pruned, _) = start
            .run(&model, nothing(&model), &Magnitude::l1(), |_| NOfM::new(2, 4).unwrap().include("a"), train)
            .unwrap();
        assert_eq!(pruned.parameter("a").unwrap().values().iter().filter(|w| **w == 0.0).count(), 10);
        assert!(Gradual::new(Schedule::Cubic, 0, Sparsity::default()).is_err());
    }
}
