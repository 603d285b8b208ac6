//! One named array, and what it is to the network.

use ndarray::{Array, ArrayD, Dimension};

use crate::model::Geometry;
use crate::{Element, Error, ErrorKind, Result, kernel};

/// The part a parameter plays in a normalization.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormRole {
    /// Multiplies the normalized value (γ).
    Scale,
    /// Is added after that (β).
    Shift,
    /// Running mean.
    Mean,
    /// Running variance.
    Variance,
}

/// What a parameter is to the network.
///
/// ```
/// use niwaki::{Geometry, Kind, NormRole, Parameter};
///
/// assert!(Kind::Linear.is_weight() && Kind::Conv(Geometry::new()).is_weight());
/// let scale = Parameter::norm("norm.weight", ndarray::array![1.0f32, 1.0], NormRole::Scale);
/// assert!(matches!(scale.kind(), Kind::Norm { role: NormRole::Scale, of: None, .. }));
/// assert!(!scale.kind().is_weight());
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A matrix [out, in].
    Linear,
    /// A convolution [out, in / groups, kernel…].
    Conv(Geometry),
    /// A recurrent cell's matrix [gates · hidden, in]; row g·hidden + u belongs to hidden unit u.
    #[non_exhaustive]
    Recurrent {
        /// Stacked gates: 4 in an LSTM, 3 in a GRU, 1 in a plain RNN.
        gates: usize,
    },
    /// A table [entries, features], read by rows.
    Embedding,
    /// A vector added to a layer's output.
    #[non_exhaustive]
    Bias {
        /// The weight whose output it is added to.
        of: String,
    },
    /// A vector of a normalization.
    #[non_exhaustive]
    Norm {
        /// Which of its vectors.
        role: NormRole,
        /// The weight whose output is normalized, where one directly precedes.
        of: Option<String>,
    },
    /// Anything else; it can be a slot of a coupling, and is otherwise left as it is.
    Other,
}

impl Kind {
    /// Whether criteria score it, pruners cut it and quantizers round it.
    pub fn is_weight(&self) -> bool {
        matches!(self, Self::Linear | Self::Conv(_) | Self::Recurrent { .. } | Self::Embedding)
    }
}

/// A named array of the network: its values, its [`Kind`], which axis its outputs and inputs are on.
///
/// Values are held in row-major order. Constructors set the axes that PyTorch uses; [`axes`](Self::axes)
/// says otherwise.
///
/// ```
/// use ndarray::Array;
/// use niwaki::{Geometry, Parameter};
///
/// let conv = Parameter::conv("conv", Array::<f32, _>::ones((8, 2, 3, 3)), Geometry::new().groups(4));
/// assert_eq!((conv.units(), conv.taps(), conv.fan_in(), conv.groups()), (8, 9, 18, 4));
/// let gru = Parameter::recurrent("gru", Array::<f32, _>::ones((3 * 5, 7)), 3);
/// assert_eq!((gru.units(), gru.fan_in()), (5, 7));
/// let turned = Parameter::linear("turned", Array::<f32, _>::ones((7, 5))).axes(1, 0);
/// assert_eq!((turned.units(), turned.fan_in()), (5, 7));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter<F> {
    name: String,
    array: ArrayD<F>,
    kind: Kind,
    out_axis: usize,
    in_axis: Option<usize>,
}

impl<F: Element> Parameter<F> {
    /// A linear layer's weights [out, in].
    pub fn linear<D: Dimension>(name: impl Into<String>, array: Array<F, D>) -> Self {
        Self::new(name, array, Kind::Linear)
    }

    /// A convolution's weights [out, in / groups, kernel…].
    pub fn conv<D: Dimension>(name: impl Into<String>, array: Array<F, D>, geometry: Geometry) -> Self {
        Self::new(name, array, Kind::Conv(geometry))
    }

    /// A recurrent cell's matrix [gates · hidden, in].
    pub fn recurrent<D: Dimension>(name: impl Into<String>, array: Array<F, D>, gates: usize) -> Self {
        Self::new(name, array, Kind::Recurrent { gates })
    }

    /// An embedding table [entries, features].
    pub fn embedding<D: Dimension>(name: impl Into<String>, array: Array<F, D>) -> Self {
        Self::new(name, array, Kind::Embedding)
    }

    /// The bias that is added to the output of the weight `of`.
    pub fn bias<D: Dimension>(name: impl Into<String>, array: Array<F, D>, of: impl Into<String>) -> Self {
        Self::new(name, array, Kind::Bias { of: of.into() })
    }

    /// A vector of a normalization that follows no single weight (a layer norm on a residual stream).
    pub fn norm<D: Dimension>(name: impl Into<String>, array: Array<F, D>, role: NormRole) -> Self {
        Self::new(name, array, Kind::Norm { role, of: None })
    }

    /// Any other array.
    pub fn other<D: Dimension>(name: impl Into<String>, array: Array<F, D>) -> Self {
        Self::new(name, array, Kind::Other)
    }

    /// An array of this kind, with the axes that PyTorch gives it.
    pub(crate) fn new<D: Dimension>(name: impl Into<String>, array: Array<F, D>, kind: Kind) -> Self {
        let array = array.into_dyn();
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        Self { name: name.into(), array, kind: Kind::Other, out_axis: 0, in_axis: None }.described(kind)
    }

    /// The same array as another kind, with that kind's axes.
    pub(crate) fn described(self, kind: Kind) -> Self {
        let (out_axis, in_axis) = Self::usual_axes(&kind);
        Self { kind, out_axis, in_axis, ..self }
    }

    /// The output and input axis that PyTorch gives a kind.
    pub(crate) fn usual_axes(kind: &Kind) -> (usize, Option<usize>) {
        match kind {
            Kind::Embedding => (1, Some(0)),
            Kind::Linear | Kind::Conv(_) | Kind::Recurrent { .. } => (0, Some(1)),
            _ => (0, None),
        }
    }

    /// Other axes than the kind's: `axes(1, 0)` for a linear layer stored [in, out].
    pub fn axes(self, out_axis: usize, in_axis: usize) -> Self {
        Self { out_axis, in_axis: Some(in_axis), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its values.
    pub fn array(&self) -> &ArrayD<F> {
        &self.array
    }

    /// Its values in row-major order.
    pub fn values(&self) -> &[F] {
        self.array.as_slice().unwrap_or_default()
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    /// What it is to the network.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The axis that its outputs are on.
    pub fn out_axis(&self) -> usize {
        self.out_axis
    }

    /// The axis that its inputs are on; vectors have none.
    pub fn in_axis(&self) -> Option<usize> {
        self.in_axis
    }

    /// How many output units it has: filters, output rows, hidden units (not gate rows), features.
    pub fn units(&self) -> usize {
        let rows = self.array.shape().get(self.out_axis).copied().unwrap_or(1);
        if let Kind::Recurrent { gates } = self.kind { rows / gates.max(1) } else { rows }
    }

    /// Geometry of a convolution.
    pub fn geometry(&self) -> Option<Geometry> {
        if let Kind::Conv(geometry) = self.kind { Some(geometry) } else { None }
    }

    /// Groups of a grouped convolution; 1 for all else.
    pub fn groups(&self) -> usize {
        self.geometry().map_or(1, |g| g.groups)
    }

    /// Taps of a convolution's kernel, all spatial axes together; 1 for all else.
    pub fn taps(&self) -> usize {
        match self.kind {
            Kind::Conv(_) => self.array.shape().iter().skip(2).product(),
            _ => 1,
        }
    }

    /// Weights that one output row sees: input channels (of its group) times taps.
    pub fn fan_in(&self) -> usize {
        let inputs = self.in_axis.and_then(|axis| self.array.shape().get(axis));
        inputs.map_or(1, |inputs| inputs * self.taps())
    }

    /// Whether the memory is rows of outputs, each holding its inputs: true unless the axes were exchanged.
    pub(crate) fn is_row_major(&self) -> bool {
        self.out_axis == 0
    }

    pub(crate) fn values_mut(&mut self) -> &mut [F] {
        self.array.as_slice_mut().unwrap_or_default()
    }

    pub(crate) fn replace(&mut self, array: ArrayD<F>) -> Result<()> {
        if array.shape() != self.array.shape() {
            let (old, new) = (self.array.shape(), array.shape());
            return Err(Error::shape(format!(
                "parameter `{}`: shape {new:?} in place of {old:?}",
                self.name
            )));
        }
        let replaced = Self::new(self.name.clone(), array, Kind::Other);
        replaced.check_finite()?;
        self.array = replaced.array;
        Ok(())
    }

    /// The same parameter with another array (of a shape that fits its kind).
    pub(crate) fn with_array(&self, array: ArrayD<F>) -> Self {
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        Self { array, ..self.shell() }
    }

    pub(crate) fn into_array(self) -> ArrayD<F> {
        self.array
    }

    pub(crate) fn renamed(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    /// Everything but the values.
    fn shell(&self) -> Self {
        let array = ArrayD::default(ndarray::IxDyn(&[0]));
        Self { name: self.name.clone(), array, kind: self.kind.clone(), ..*self }
    }

    pub(crate) fn check_finite(&self) -> Result<()> {
        match kernel::reduce::first_not_finite(self.values()) {
            None => Ok(()),
            Some(at) => Err(Error::new(
                ErrorKind::NotFinite,
                format!(
                    "parameter `{}`: value {} at flat index {at} is not finite",
                    self.name,
                    self.values()[at]
                ),
            )),
        }
    }

    /// Checks what a single parameter can get wrong.
    pub(crate) fn check(&self) -> Result<()> {
        let (name, shape) = (&self.name, self.array.shape());
        let fail = |what: String| Err(Error::shape(format!("parameter `{name}` {shape:?}: {what}")));
        if self.array.is_empty() {
            return fail("it is empty".into());
        }
        let least = match self.kind {
            Kind::Linear | Kind::Recurrent { .. } | Kind::Embedding => 2..=2,
            Kind::Conv(_) => 3..=usize::MAX,
            Kind::Bias { .. } | Kind::Norm { .. } => 1..=1,
            Kind::Other => 0..=usize::MAX,
        };
        if !least.contains(&shape.len()) {
            return fail(format!("{} axes do not make a {:?}", shape.len(), self.kind));
        }
        // A scalar has no axis, and its output is on axis 0 all the same.
        if self.out_axis >= shape.len().max(1) || self.in_axis.is_some_and(|a| a >= shape.len()) {
            return fail(format!("axes out {} and in {:?} are not all there", self.out_axis, self.in_axis));
        }
        if self.in_axis == Some(self.out_axis) {
            return fail(format!("out and in are both axis {}", self.out_axis));
        }
        match self.kind {
            Kind::Recurrent { gates } if gates == 0 || !shape[self.out_axis].is_multiple_of(gates) => {
                fail(format!("{} rows are not {gates} gates of equal size", shape[self.out_axis]))
            }
            Kind::Conv(_) if (self.out_axis, self.in_axis) != (0, Some(1)) => {
                fail("a convolution is stored [out, in / groups, kernel…]".into())
            }
            Kind::Conv(g) if g.groups == 0 || !shape[0].is_multiple_of(g.groups) => {
                fail(format!("{} filters are not {} groups of equal size", shape[0], g.groups))
            }
            Kind::Conv(g) => match g.flaw(shape.len() - 2) {
                Some(flaw) => fail(flaw),
                None => self.check_finite(),
            },
            _ => self.check_finite(),
        }
    }
}
