//! Index spaces that several parameters share.

use crate::model::{Kind, Parameter, Slot, slot::SlotAxis};
use crate::{Element, Error, Result};

/// One index space shared by (parameter, axis) slots: to remove index i is to remove its positions in each slot.
///
/// Channels, heads, hidden units of an RNN, neurons of a feed-forward block and columns of a flattened map are
/// all couplings; no pruner knows layer types.
///
/// ```
/// use ndarray::Array;
/// use niwaki::{Coupling, Geometry, Model, Parameter, Slot};
///
/// # fn main() -> niwaki::Result<()> {
/// // Three filters answer with maps of 2×2, which are flattened into a linear layer.
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::conv("conv.weight", Array::ones((3, 1, 3, 3)), Geometry::new()))
///     .parameter(Parameter::bias("conv.bias", Array::zeros(3), "conv.weight"))
///     .parameter(Parameter::linear("fc.weight", Array::ones((5, 3 * 2 * 2))))
///     .coupling(
///         Coupling::builder("filters")
///             .outputs(["conv.weight", "conv.bias"])
///             .slot(Slot::input("fc.weight").repeat(2 * 2)),
///     )
///     .build()?;
/// let filters = model.coupling("filters")?;
/// assert_eq!((filters.size(), filters.slots().len()), (3, 3));
/// let read = &filters.slots()[2];
/// assert_eq!((read.parameter(), read.axis()), ("fc.weight", 1));
/// assert_eq!(read.positions(1), [4, 5, 6, 7]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupling {
    name: String,
    size: usize,
    slots: Vec<CoupledSlot>,
    homogeneous: bool,
}

/// A slot whose positions are known; [`Coupling`] shows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoupledSlot {
    pub(crate) parameter: String,
    pub(crate) axis: usize,
    pub(crate) positions: Vec<Vec<usize>>,
}

impl CoupledSlot {
    /// The parameter's name.
    pub fn parameter(&self) -> &str {
        &self.parameter
    }

    /// The axis of that parameter.
    pub fn axis(&self) -> usize {
        self.axis
    }

    /// Positions on that axis that index `index` of the space stands for; none past the coupling's size.
    pub fn positions(&self, index: usize) -> &[usize] {
        self.positions.get(index).map_or(&[], Vec::as_slice)
    }

    /// Positions of every index.
    pub(crate) fn all_positions(&self) -> &[Vec<usize>] {
        &self.positions
    }
}

impl Coupling {
    /// Starts a coupling. Its size is that of the first slot that fills its axis, unless
    /// [`size`](CouplingBuilder::size) says it.
    pub fn builder(name: impl Into<String>) -> CouplingBuilder {
        CouplingBuilder { name: name.into(), size: None, slots: Vec::new(), homogeneous: false }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many indices the space has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The slots that share it.
    pub fn slots(&self) -> &[CoupledSlot] {
        &self.slots
    }

    /// Whether a unit that is made s times as large (s > 0) is s times as large where it is read: see
    /// [`CouplingBuilder::homogeneous`].
    pub fn is_homogeneous(&self) -> bool {
        self.homogeneous
    }

    pub(crate) fn from_parts(name: String, size: usize, slots: Vec<CoupledSlot>, homogeneous: bool) -> Self {
        Self { name, size, slots, homogeneous }
    }
}

/// Collects the slots of a [`Coupling`]; [`ModelBuilder::coupling`](crate::ModelBuilder::coupling) takes it.
///
/// What is wrong with it shows when the model is built.
///
/// ```
/// use ndarray::Array;
/// use niwaki::{Coupling, Model, Parameter};
///
/// let error = Model::<f32>::builder()
///     .parameter(Parameter::linear("a", Array::ones((4, 3))))
///     .parameter(Parameter::linear("b", Array::ones((2, 5))))
///     .coupling(Coupling::builder("hidden").outputs(["a"]).inputs(["b"]))
///     .build()
///     .unwrap_err();
/// let what = "slot `a` axis 0 has 4 indices, but slot `b` axis 1 of length 5 holds 5";
/// assert_eq!(error.to_string(), format!("coupling `hidden`: {what}"));
/// ```
#[derive(Clone, Debug)]
pub struct CouplingBuilder {
    name: String,
    size: Option<usize>,
    slots: Vec<Slot>,
    homogeneous: bool,
}

impl CouplingBuilder {
    /// Says the size, where no slot fills its axis.
    pub fn size(self, size: usize) -> Self {
        Self { size: Some(size), ..self }
    }

    /// Says that between where units are made and where they are read lies nothing but what a positive factor passes
    /// through: nothing at all, `ReLU`, leaky `ReLU`, pooling, reshaping, sums of units that are made alike. Only then
    /// may scales move through the coupling ([`rescale`](crate::rescale)); the model then has a
    /// [`Passage`](crate::model::Passage) of its name.
    ///
    /// The batch norm that directly follows a weight takes the factor in its scale and shift, and the weight stays. A
    /// convolution whose whole groups are units (a depthwise one) hands on what it gets. Hidden units of a recurrent
    /// cell let no factor through, and make an error when the model is built.
    pub fn homogeneous(self) -> Self {
        Self { homogeneous: true, ..self }
    }

    /// Adds a slot.
    pub fn slot(mut self, slot: Slot) -> Self {
        self.slots.push(slot);
        self
    }

    /// Adds the output axis of each of these parameters: weights that make the channels, and the biases and
    /// normalization vectors that go with them. The stacked gates of a recurrent cell, and of its bias, count as
    /// copies of the space.
    pub fn outputs<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.slots.extend(names.into_iter().map(Slot::output));
        self
    }

    /// Adds the input axis of each of these parameters: weights that read the channels.
    pub fn inputs<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.slots.extend(names.into_iter().map(Slot::input));
        self
    }

    /// Resolves the slots against the parameters.
    pub(crate) fn build<'a, F: Element>(
        mut self,
        find: impl Fn(&str) -> Option<&'a Parameter<F>>,
    ) -> Result<Coupling> {
        for slot in self.slots.iter_mut().filter(|s| s.axis == SlotAxis::Out && s.is_plain()) {
            slot.copies = gates(&slot.parameter, &find);
        }
        let name = &self.name;
        let context = |e: Error| e.context(format!("coupling `{name}`"));
        let axes = self.slots.iter().map(|slot| axis_of(slot, &find)).collect::<Result<Vec<_>>>();
        let axes = axes.map_err(context)?;
        if axes.is_empty() {
            return Err(context(Error::setting("it has no slots")));
        }
        let (size, reference) = self.resolve_size(&axes).map_err(context)?;
        let mut slots = Vec::with_capacity(self.slots.len());
        for (slot, &(axis, len)) in self.slots.iter().zip(&axes) {
            let mismatch = || {
                let holds = match slot.implied_size(len) {
                    Some(n) if slot.fills_axis() => format!("of length {len} holds {n}"),
                    _ => format!("of length {len} does not hold {size}"),
                };
                let at = describe(slot, axis);
                context(Error::shape(format!("{reference} has {size} indices, but {at} {holds}")))
            };
            if slot.fills_axis() && slot.implied_size(len) != Some(size) {
                return Err(mismatch());
            }
            let positions = slot.positions(size, len).ok_or_else(mismatch)?;
            slots.push(CoupledSlot { parameter: slot.parameter.clone(), axis, positions });
        }
        Ok(Coupling { name: self.name, size, slots, homogeneous: self.homogeneous })
    }

    /// The size of the space, and who said it.
    fn resolve_size(&self, axes: &[(usize, usize)]) -> Result<(usize, String)> {
        if let Some(size) = self.size {
            return Ok((size, "the coupling".into()));
        }
        let mut filling = self.slots.iter().zip(axes).filter(|(slot, _)| slot.fills_axis());
        let (slot, &(number, len)) = filling.next().ok_or_else(|| {
            Error::setting("no slot fills its axis, so the coupling must be told its size".to_owned())
        })?;
        let (at, copies, repeat) = (describe(slot, number), slot.copies, slot.repeat);
        match slot.implied_size(len) {
            Some(size) => Ok((size, at)),
            None => Err(Error::shape(format!(
                "{at} of length {len} does not divide into {copies} copies of {repeat}"
            ))),
        }
    }
}

/// Stacked gates of a recurrent cell's matrix or bias; 1 for all else.
fn gates<'a, F: Element>(name: &str, find: &impl Fn(&str) -> Option<&'a Parameter<F>>) -> usize {
    match find(name).map(Parameter::kind) {
        Some(Kind::Recurrent { gates }) => *gates,
        Some(Kind::Bias { of }) if of != name => match find(of).map(Parameter::kind) {
            Some(Kind::Recurrent { gates }) => *gates,
            _ => 1,
        },
        _ => 1,
    }
}

fn describe(slot: &Slot, axis: usize) -> String {
    format!("slot `{}` axis {axis}", slot.parameter)
}

/// The axis of a slot and its length.
fn axis_of<'a, F: Element>(
    slot: &Slot,
    find: &impl Fn(&str) -> Option<&'a Parameter<F>>,
) -> Result<(usize, usize)> {
    let name = &slot.parameter;
    let parameter = find(name).ok_or_else(|| Error::name(format!("there is no parameter `{name}`")))?;
    let axis = match slot.axis {
        SlotAxis::Out => parameter.out_axis(),
        SlotAxis::At(axis) => axis,
        SlotAxis::In => parameter
            .in_axis()
            .ok_or_else(|| Error::shape(format!("parameter `{name}` has no input axis")))?,
    };
    let shape = parameter.shape();
    let len = shape.get(axis).copied();
    len.map(|len| (axis, len))
        .ok_or_else(|| Error::shape(format!("parameter `{name}` {shape:?} has no axis {axis}")))
}
