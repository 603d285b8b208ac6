//! One stage after another.

use crate::importance::Scores;
use crate::prune::{Plan, Pruner};
use crate::{Element, Model, Needs, Result};

/// Two stages in a row. As a pruner: the second plans on what the first leaves, with the same scores. As a
/// recovery: the second starts from what the first gave back.
///
/// ```
/// use ndarray::Array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Channel, Pruner, Sparsity, Then, Unstructured};
/// use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("a", Array::from_shape_fn((4, 3), |(i, j)| (1 + i + j) as f32)))
///     .parameter(Parameter::linear("b", Array::from_shape_fn((2, 4), |(i, j)| (1 + i + j) as f32)))
///     .coupling(Coupling::builder("hidden").outputs(["a"]).inputs(["b"]))
///     .build()?;
/// let scores = Scores::compute(&Magnitude::l2(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let half = Sparsity::new(0.5)?;
/// let both = Then::new(Channel::new(half), Unstructured::new(half).include_ends());
/// let smaller = both.plan(&model, &scores)?.apply(&model)?;
/// assert_eq!(smaller.parameter("b")?.shape(), [2, 2]);
/// assert_eq!(smaller.nonzero_count(), 3 + 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Then<A, B> {
    pub(crate) first: A,
    pub(crate) second: B,
}

impl<A, B> Then<A, B> {
    /// `first`, then `second`.
    pub fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<F: Element, A: Pruner<F>, B: Pruner<F>> Pruner<F> for Then<A, B> {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        let first = self.first.plan(model, scores)?;
        if first.is_empty() {
            return self.second.plan(model, scores);
        }
        let left = first.apply(model)?;
        let scores = first.selections().fold(scores.clone(), |scores, selection| scores.select(selection));
        let second = self.second.plan(&left, &scores)?;
        first.then(second)
    }

    fn needs(&self) -> Needs {
        self.first.needs() | self.second.needs()
    }

    fn check(&self) -> Result<()> {
        self.first.check()?;
        self.second.check()
    }
}
