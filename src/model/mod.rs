//! What a network is to this crate: named [`Parameter`]s in order, the [`Coupling`]s between them, and the
//! [`Block`]s that can be removed whole. No graph and no forward pass: those stay with the caller.

mod block;
mod builder;
mod check;
mod coupling;
pub(crate) mod geometry;
mod mask;
mod parameter;
mod passage;
mod pattern;
mod select;
mod slot;
mod sparsity;

use std::collections::HashMap;

use crate::{Element, Error, Result};

pub use block::Block;
pub use builder::ModelBuilder;
pub use coupling::{CoupledSlot, Coupling, CouplingBuilder};
pub use geometry::Geometry;
pub use mask::Mask;
pub use parameter::{Kind, NormRole, Parameter};
pub use passage::Passage;
pub use pattern::Pattern;
pub use select::Selection;
pub use slot::Slot;
pub use sparsity::Sparsity;

/// A network's parameters, with what binds them together.
///
/// A model is checked once, when [`ModelBuilder::build`] makes it: names are unique, arrays are finite and not
/// empty, couplings fit the shapes. What changes it ([`Plan::apply`](crate::prune::Plan::apply), a recovery)
/// gives a new one.
///
/// ```
/// use ndarray::Array;
/// use niwaki::{Coupling, Model, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// // Two linear layers: 8 inputs, 4 hidden units, 3 outputs.
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc1.weight", Array::ones((4, 8))))
///     .parameter(Parameter::bias("fc1.bias", Array::zeros(4), "fc1.weight"))
///     .parameter(Parameter::linear("fc2.weight", Array::ones((3, 4))))
///     .coupling(Coupling::builder("hidden").outputs(["fc1.weight", "fc1.bias"]).inputs(["fc2.weight"]))
///     .build()?;
/// assert_eq!(model.coupling("hidden")?.size(), 4);
/// assert_eq!(model.parameter_count(), 4 * 8 + 4 + 3 * 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Model<F> {
    parameters: Vec<Parameter<F>>,
    index: HashMap<String, usize>,
    couplings: Vec<Coupling>,
    passages: Vec<Passage>,
    blocks: Vec<Block>,
}

impl<F: Element> Model<F> {
    /// Starts a model.
    pub fn builder() -> ModelBuilder<F> {
        ModelBuilder::default()
    }

    /// All parameters, in the order in which they were given.
    pub fn parameters(&self) -> &[Parameter<F>] {
        &self.parameters
    }

    /// The parameter of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Name`](crate::ErrorKind::Name) when there is none.
    pub fn parameter(&self, name: &str) -> Result<&Parameter<F>> {
        self.find(name).ok_or_else(|| Error::name(format!("the model has no parameter `{name}`")))
    }

    /// The parameter of this name, if it is (still) there.
    pub fn find(&self, name: &str) -> Option<&Parameter<F>> {
        self.index.get(name).map(|&at| &self.parameters[at])
    }

    /// The weights: linear, convolution, recurrent and embedding parameters, in order.
    pub fn weights(&self) -> impl Iterator<Item = &Parameter<F>> {
        self.parameters.iter().filter(|p| p.kind().is_weight())
    }

    /// All couplings.
    pub fn couplings(&self) -> &[Coupling] {
        &self.couplings
    }

    /// The coupling of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Name`](crate::ErrorKind::Name) when there is none.
    pub fn coupling(&self, name: &str) -> Result<&Coupling> {
        self.couplings
            .iter()
            .find(|c| c.name() == name)
            .ok_or_else(|| Error::name(format!("the model has no coupling `{name}`")))
    }

    /// Where scales may move.
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// The passage of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Name`](crate::ErrorKind::Name) when there is none.
    pub fn passage(&self, name: &str) -> Result<&Passage> {
        let found = self.passages.iter().find(|p| p.name() == name);
        found.ok_or_else(|| Error::name(format!("the model has no passage `{name}`")))
    }

    /// All blocks that can be removed whole.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The block of this name, if it is (still) there: a forward pass asks before it runs the block.
    pub fn block(&self, name: &str) -> Option<&Block> {
        self.blocks.iter().find(|b| b.name() == name)
    }

    /// The bias that belongs to this weight, if there is one.
    pub fn bias_of(&self, weight: &str) -> Option<&Parameter<F>> {
        self.parameters.iter().find(|p| matches!(p.kind(), Kind::Bias { of } if of == weight))
    }

    /// The part of the normalization that directly follows this weight, if there is one.
    pub fn norm_of(&self, weight: &str, part: NormRole) -> Option<&Parameter<F>> {
        self.parameters
            .iter()
            .find(|p| matches!(p.kind(), Kind::Norm { role, of: Some(of) } if *role == part && of == weight))
    }

    /// How many numbers the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|p| p.array().len()).sum()
    }

    /// How many of them are not zero.
    pub fn nonzero_count(&self) -> usize {
        self.parameters.iter().map(|p| p.values().iter().filter(|v| !v.is_zero()).count()).sum()
    }

    /// Bytes of the plain arrays.
    pub fn dense_bytes(&self) -> usize {
        self.parameter_count() * F::BYTES
    }

    /// The same model with other values in one parameter.
    ///
    /// # Errors
    /// No such parameter, another shape, or a value that is not finite.
    pub fn with_values(mut self, name: &str, array: ndarray::ArrayD<F>) -> Result<Self> {
        self.set_values(name, array)?;
        Ok(self)
    }

    /// Puts other values in one parameter; on an error nothing changes.
    ///
    /// # Errors
    /// As [`with_values`](Self::with_values).
    pub fn set_values(&mut self, name: &str, array: ndarray::ArrayD<F>) -> Result<()> {
        let at = self.position(name)?;
        self.parameters[at].replace(array)
    }

    /// The values of one parameter, to change in place. Only for callers inside the crate that keep them finite.
    pub(crate) fn values_mut(&mut self, name: &str) -> Result<&mut [F]> {
        let at = self.position(name)?;
        Ok(self.parameters[at].values_mut())
    }

    pub(crate) fn into_parameters(self) -> Vec<Parameter<F>> {
        self.parameters
    }

    /// Errors unless every value is finite: what a caller's closure gave back is checked with it.
    pub(crate) fn check_finite(&self) -> Result<()> {
        self.parameters.iter().try_for_each(Parameter::check_finite)
    }

    fn position(&self, name: &str) -> Result<usize> {
        let found = self.index.get(name).copied();
        found.ok_or_else(|| Error::name(format!("the model has no parameter `{name}`")))
    }

    /// Assembles a model from parts that are known to fit.
    fn assemble(
        parameters: Vec<Parameter<F>>,
        couplings: Vec<Coupling>,
        passages: Vec<Passage>,
        blocks: Vec<Block>,
    ) -> Self {
        let index = parameters.iter().enumerate().map(|(at, p)| (p.name().to_owned(), at)).collect();
        Self { parameters, index, couplings, passages, blocks }
    }
}
