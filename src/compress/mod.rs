//! All stages in one: [`Compressor`], what it makes ([`Compressed`]) and what that weighs ([`Report`]).

mod builder;
mod compressed;
#[cfg(feature = "safetensors")]
mod file;
#[cfg(feature = "gguf")]
mod gguf;
#[cfg(feature = "safetensors")]
mod kind;
mod report;
mod stored;

use std::borrow::Cow;

use crate::importance::{Importance, Magnitude, Scores};
use crate::prune::{Plan, Pruner};
use crate::quantize::Quantizer;
use crate::recover::{self, Recovery, Removal};
use crate::rescale::Rescale;
use crate::{Element, Evidence, Model, Nothing, Result};

pub use builder::CompressorBuilder;
pub use compressed::{Compressed, Entry};
pub use report::{Report, Row};
pub use stored::{SparseTensor, Stored};

/// Scores, plans, applies, recovers and quantizes, in this order.
///
/// Generic over its stages; a program that reads its settings at run time boxes them (`Box<dyn Pruner<f32>>` is
/// a [`Pruner`]). A stage that is left out is [`Nothing`]; the criterion is [`Magnitude`] unless another is set.
///
/// ```
/// use ndarray::Array;
/// use niwaki::importance::Magnitude;
/// use niwaki::prune::{Channel, Sparsity};
/// use niwaki::quantize::Uniform;
/// use niwaki::{Compressor, Coupling, Model, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let wave = |shape: (usize, usize)| Array::from_shape_fn(shape, |(i, j)| ((3 * i + 5 * j) as f32).sin());
/// let model = Model::builder()
///     .parameter(Parameter::linear("fc1", wave((32, 64))))
///     .parameter(Parameter::linear("fc2", wave((10, 32))))
///     .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]))
///     .build()?;
/// let compressor = Compressor::builder()
///     .importance(Magnitude::l1())
///     .pruner(Channel::new(Sparsity::new(0.5)?))
///     .quantizer(Uniform::int8())
///     .build()?;
/// let evidence = compressor.evidence(&model); // magnitudes need nothing recorded
/// let plan = compressor.plan(&model, &evidence)?;
/// assert_eq!(plan.parameter_counts(), (32 * 64 + 10 * 32, 16 * 64 + 10 * 16));
/// let compressed = compressor.compress(&model, &evidence)?;
/// compressed.verify()?;
/// assert_eq!(compressed.array("fc2")?.shape(), [10, 16]);
/// println!("{}", compressed.report());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Compressor<I = Magnitude, P = Nothing, R = Nothing, Q = Nothing, S = Nothing> {
    importance: I,
    pruner: P,
    recovery: R,
    quantizer: Q,
    rescale: S,
    correct_bias: bool,
    seed: u64,
}

impl Compressor {
    /// Starts with the criterion [`Magnitude`], no pruner, no recovery, no quantizer.
    pub fn builder() -> CompressorBuilder<Magnitude, Nothing, Nothing, Nothing, Nothing> {
        CompressorBuilder::new()
    }
}

impl<I, P, R, Q, S> Compressor<I, P, R, Q, S> {
    /// Evidence about a model that will keep what these stages need, with nothing seen yet.
    pub fn evidence<F: Element>(&self, model: &Model<F>) -> Evidence<F>
    where
        I: Importance<F>,
        P: Pruner<F>,
        R: Recovery<F>,
        Q: Quantizer<F>,
        S: Rescale<F>,
    {
        let importance = self.importance.needs() | self.pruner.needs();
        let after = self.recovery.needs() | self.rescale.needs() | self.quantizer.needs();
        Evidence::new(model, importance | after)
    }

    /// What would go: the plan of [`compress`](Self::compress), without doing it.
    ///
    /// # Errors
    /// As the criterion and the pruner.
    pub fn plan<F: Element>(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Plan>
    where
        I: Importance<F>,
        P: Pruner<F>,
    {
        let scores = Scores::seeded(&self.importance, model, evidence, self.seed)?;
        self.pruner.plan(model, &scores)
    }

    /// The pruned and recovered model, not quantized.
    ///
    /// # Errors
    /// As the criterion, the pruner and the recovery.
    pub fn prune<F: Element>(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Model<F>>
    where
        I: Importance<F>,
        P: Pruner<F>,
        R: Recovery<F>,
    {
        self.cut(model, evidence, &self.plan(model, evidence)?)
    }

    /// Runs all stages. The model given is not changed.
    ///
    /// # Errors
    /// As the stages; nothing is left half done.
    pub fn compress<F: Element>(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Compressed<F>>
    where
        I: Importance<F>,
        P: Pruner<F>,
        R: Recovery<F>,
        Q: Quantizer<F>,
        S: Rescale<F>,
    {
        self.compress_by(&self.plan(model, evidence)?, model, evidence)
    }

    /// As [`compress`](Self::compress), by a plan that was made before: looked at, or changed by
    /// [`Plan::then`].
    ///
    /// # Errors
    /// As the stages, or the plan was made for another model.
    pub fn compress_by<F: Element>(
        &self,
        plan: &Plan,
        model: &Model<F>,
        evidence: &Evidence<F>,
    ) -> Result<Compressed<F>>
    where
        R: Recovery<F>,
        Q: Quantizer<F>,
        S: Rescale<F>,
    {
        let pruned = self.cut(model, evidence, plan)?;
        let left = if plan.cuts_arrays() {
            Cow::Owned(plan.apply_to_evidence(evidence)?)
        } else {
            Cow::Borrowed(evidence)
        };
        let migration = self.rescale.plan(&pruned, &left)?;
        let (mut pruned, left) = if migration.is_empty() {
            (pruned, left)
        } else {
            let left = Cow::Owned(migration.apply_to_evidence(&pruned, &left)?);
            (migration.apply(&pruned)?, left)
        };
        let quantized = self.quantizer.quantize_model(&pruned, &left)?;
        if self.correct_bias {
            recover::correct_bias(&mut pruned, &quantized, &left)?;
        }
        Compressed::assemble(model, pruned, quantized, plan)
    }

    fn cut<F: Element>(&self, model: &Model<F>, evidence: &Evidence<F>, plan: &Plan) -> Result<Model<F>>
    where
        R: Recovery<F>,
    {
        let pruned = plan.apply(model)?;
        let mut recovered = self.recovery.recover(pruned, &Removal::new(model, plan, evidence))?;
        recovered.check_finite()?;
        plan.mask(&mut recovered)?;
        Ok(recovered)
    }
}
