//! One step size over a range.

use std::borrow::Cow;

use crate::evidence::objective::Objective;
use crate::kernel::pack::Code;
use crate::kernel::{par, reduce};
use crate::quantize::blocks::Blocks;
use crate::quantize::carry;
use crate::quantize::encode::{self, Encoded};
use crate::quantize::gptq;
use crate::quantize::grain::Grain;
use crate::quantize::grid::{Fit, Grid};
use crate::quantize::ranges::{Columns, Importance, Piece};
use crate::quantize::{
    Bits, GroupSize, Outcome, QuantizedTensor, Quantizer, Range, Rounding, ScaleType, Scheme, Scope, Symmetry,
};
use crate::{Element, Error, Evidence, Kind, Layer, Model, Needs, Parameter, Result};

/// Integers of one step size: w ≈ scale · (code − zero point), each block of weights with a scale of its own.
///
/// Codes are w / scale rounded half to even and cut to their range. Symmetric codes lie in
/// ±(2^(b−1) − 1) and scale = max |w| / (2^(b−1) − 1); affine codes lie in [0, 2^b − 1],
/// scale = (max − min) / (2^b − 1), 0 is forced into the range and is itself a code. Scales are f32; where two
/// neighbouring ones decode alike, that is taken which comes back when the decoded weights are quantized again.
/// A block whose scale would be below the smallest normal f32 gets scale 1 and codes of 0.
///
/// Defaults: symmetric, per channel (the parameter's output axis; an embedding's entries), [`Range::MinMax`], f32
/// scales, rounded to nearest.
///
/// Jacob et al.: Quantization and training of neural networks for efficient integer-arithmetic-only inference
/// (2018).
///
/// ```
/// use ndarray::array;
/// use niwaki::quantize::{Bits, GroupSize, Quantizer, Uniform};
/// use niwaki::{Layer, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weight = Parameter::linear("fc", array![[0.7f32, -0.2, 0.1, 7.0], [0.0, 0.0, 1.4, -0.4]]);
/// let layer = Layer::new(&weight);
/// let int4 = Uniform::new(Bits::FOUR).per_group(GroupSize::new(2)?);
/// let tensor = int4.quantize(&layer)?;
/// assert_eq!(tensor.scheme().to_string(), "int4 symmetric group:2");
/// // 2 rows of 2 groups; 8 codes in 4 bytes.
/// assert_eq!((tensor.scale_shape(), tensor.bytes()), (vec![2, 2], 4 + 4 * 4));
/// assert!((tensor.decode::<f32>()[[0, 1]] + 0.2).abs() < 0.05);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniform {
    bits: Bits,
    symmetry: Symmetry,
    grain: Grain,
    range: Range,
    scales: ScaleType,
    rounding: Rounding,
}

impl Uniform {
    /// Symmetric codes of this many bits, per channel.
    pub fn new(bits: Bits) -> Self {
        Self {
            bits,
            symmetry: Symmetry::Symmetric,
            grain: Grain::Channel,
            range: Range::MinMax,
            scales: ScaleType::F32,
            rounding: Rounding::Nearest,
        }
    }

    /// 8 bits, symmetric, per channel.
    pub fn int8() -> Self {
        Self::new(Bits::EIGHT)
    }

    /// Codes around 0 (default). Needs at least 2 bits.
    pub fn symmetric(self) -> Self {
        Self { symmetry: Symmetry::Symmetric, ..self }
    }

    /// Codes around a zero point.
    pub fn affine(self) -> Self {
        Self { symmetry: Symmetry::Affine, ..self }
    }

    /// One scale a tensor.
    pub fn per_tensor(self) -> Self {
        Self { grain: Grain::Tensor, ..self }
    }

    /// One scale for each position of the parameter's output axis, for an embedding one for each entry (default).
    pub fn per_channel(self) -> Self {
        Self { grain: Grain::Channel, ..self }
    }

    /// One scale for each position of this axis.
    pub fn per_axis(self, axis: usize) -> Self {
        Self { grain: Grain::Axis(axis), ..self }
    }

    /// One scale for each `size` weights along the inputs of an output row: for [out, in, …] along everything
    /// behind the first axis, for a matrix stored [in, out] down its columns; for an embedding along the features
    /// of each entry. The last group may be short.
    pub fn per_group(self, size: GroupSize) -> Self {
        Self { grain: Grain::Group(size), ..self }
    }

    /// A single scale and zero point for all weights of the network. A single layer cannot be quantized so, only a
    /// model.
    ///
    /// ```
    /// use ndarray::array;
    /// use niwaki::quantize::{Quantizer, Uniform};
    /// use niwaki::{Evidence, Model, Needs, Parameter};
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let model = Model::<f32>::builder()
    ///     .parameter(Parameter::linear("a", array![[1.0, -0.5]]))
    ///     .parameter(Parameter::linear("b", array![[127.0], [3.0]]))
    ///     .build()?;
    /// let evidence = Evidence::new(&model, Needs::MOMENTS);
    /// let tensors = Uniform::int8().per_model().quantize_model(&model, &evidence)?;
    /// assert!(tensors.iter().all(|(_, tensor)| tensor.scales() == [1.0]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn per_model(self) -> Self {
        Self { grain: Grain::Model, ..self }
    }

    /// How the range of each block is found.
    pub fn range(self, range: Range) -> Self {
        Self { range, ..self }
    }

    /// Stores scales in half precision, rounded up so that the range stays covered.
    pub fn f16_scales(self) -> Self {
        Self { scales: ScaleType::F16, ..self }
    }

    /// How weights are rounded within the range (default: to nearest); [`Gptq`](crate::quantize::Gptq) learns it.
    pub fn rounding(self, rounding: impl Into<Rounding>) -> Self {
        Self { rounding: rounding.into(), ..self }
    }

    /// [`quantize`](Quantizer::quantize), with the memory of a tensor that is not needed any more: one that is quantized
    /// again and again, as in training, then costs no fresh memory, which takes a system longer to clear than codes
    /// take to be found. The answer does not depend on `old`.
    ///
    /// ```
    /// use ndarray::array;
    /// use niwaki::quantize::{Quantizer, Uniform};
    /// use niwaki::{Layer, Parameter};
    ///
    /// # fn main() -> niwaki::Result<()> {
    /// let (before, after) = (array![[0.5f32, -1.0], [0.2, 0.1]], array![[0.4f32, -1.0], [0.3, 0.1]]);
    /// let codes = Uniform::int8().quantize(&Layer::new(&Parameter::linear("fc", before)))?;
    /// let trained = Parameter::linear("fc", after);
    /// let again = Uniform::int8().requantize(&Layer::new(&trained), codes)?;
    /// assert_eq!(again, Uniform::int8().quantize(&Layer::new(&trained))?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`quantize`](Quantizer::quantize).
    pub fn requantize<F: Element>(
        &self,
        layer: &Layer<'_, F>,
        old: QuantizedTensor,
    ) -> Result<QuantizedTensor> {
        self.quantize_in(layer, old.into_memory())
    }

    fn quantize_in<F: Element>(&self, layer: &Layer<'_, F>, memory: Vec<u8>) -> Result<QuantizedTensor> {
        let (parameter, context) = (layer.parameter(), format!("layer `{}`", layer.name()));
        let scope = self.grain.scope(parameter);
        self.scheme(scope).check().map_err(|error| error.context(&context))?;
        if scope == Scope::Model {
            return Err(Error::unsupported(format!(
                "{context}: one scale for the whole model takes all its layers: use `quantize_model`"
            )));
        }
        let blocks = Blocks::new(parameter.shape(), scope).map_err(|error| error.context(&context))?;
        let encoded = self.of(layer).encode(layer, blocks, memory);
        self.round(layer, scope, blocks, encoded.map_err(|error| error.context(&context))?)
    }

    pub(super) fn is_per_model(&self) -> bool {
        self.grain == Grain::Model
    }

    fn grid(&self) -> Grid {
        Grid { bits: self.bits, symmetry: self.symmetry, scales: self.scales }
    }

    fn scheme(&self, scope: Scope) -> Scheme {
        Scheme::Int { bits: self.bits, symmetry: self.symmetry, scope, scales: self.scales }
    }

    fn encode<F: Element>(&self, layer: &Layer<'_, F>, blocks: Blocks, memory: Vec<u8>) -> Result<Encoded> {
        let (values, grid) = (layer.parameter().values(), self.grid());
        let columns = self.columns(layer)?;
        let min_max = self.range == Range::MinMax;
        if blocks.is_contiguous() && blocks.scales > 1 {
            return encode::fused(values, blocks, grid, memory, |start, block| {
                let (low, high) = if !min_max {
                    self.range.find(grid, &[piece(block, columns.as_ref(), start)])
                } else if grid.is_symmetric() {
                    (0.0, reduce::abs_max(block).widen())
                } else {
                    let (low, high) = reduce::min_max(block);
                    (low.widen(), high.widen())
                };
                grid.fit(low, high)
            });
        }
        let fits: Result<Vec<Fit>> = if min_max {
            let ends = encode::extremes(values, blocks);
            ends.iter().map(|(low, high)| grid.fit(low.widen(), high.widen())).collect()
        } else if blocks.scales == 1 {
            let (low, high) = self.range.find(grid, &[piece(values, columns.as_ref(), 0)]);
            grid.fit(low, high).map(|fit| vec![fit])
        } else {
            let fit = |scale| {
                let (low, high) = self.range.find(grid, &[gather(values, columns.as_ref(), blocks, scale)]);
                grid.fit(low, high)
            };
            par::map(blocks.scales, fit).into_iter().collect()
        };
        Ok(encode::with_fits(values, blocks, grid, memory, fits?))
    }

    /// What each input column weighs, where the range asks for it.
    fn columns<F: Element>(&self, layer: &Layer<'_, F>) -> Result<Option<Columns<F>>> {
        if self.range == Range::Mse { Columns::of(layer) } else { Ok(None) }
    }

    /// The settings for a layer: what nobody is known to read is rounded for its own sake.
    fn of<F: Element>(&self, layer: &Layer<'_, F>) -> Self {
        if self.rounding == Rounding::Nearest || !is_unread(layer) {
            return *self;
        }
        Self { range: Range::Mse, ..*self }
    }

    /// Learns the rounding of what is rounded to nearest, where that is asked for.
    fn round<F: Element>(
        &self,
        layer: &Layer<'_, F>,
        scope: Scope,
        blocks: Blocks,
        encoded: Encoded,
    ) -> Result<QuantizedTensor> {
        let parameter = layer.parameter();
        let Rounding::Gptq(gptq) = self.rounding else { return Ok(self.wrap(parameter, scope, encoded)) };
        if is_unread(layer) {
            let note = "no coupling says which weights read it: rounded to nearest, range by squared error";
            let outcome = Outcome { notes: vec![note.into()], ..Outcome::default() };
            return Ok(self.wrap(parameter, scope, encoded).with_outcome(outcome));
        }
        let gptq = if *parameter.kind() == Kind::Embedding { gptq.whole() } else { gptq };
        let objective = Objective::of(layer, gptq.is_centred())?;
        let (grid, values, range) = (self.grid(), parameter.values(), self.range);
        let mut codes = vec![0; values.len()];
        u8::unpack(&encoded.bytes, self.bits.get(), &mut codes);
        gptq.check(parameter, objective.rows.width)?;
        let taps = parameter.taps();
        let start = gptq::Start { values, taps, grid, blocks, range, codes, fits: encoded.fits };
        let gptq::Learned { codes, fits, outcome } = gptq::learn(gptq, &objective, start);
        let encoded = encode::packed(&codes, blocks, grid, fits);
        Ok(self.wrap(parameter, scope, encoded).with_outcome(outcome))
    }

    fn wrap<F: Element>(&self, parameter: &Parameter<F>, scope: Scope, encoded: Encoded) -> QuantizedTensor {
        let Encoded { bytes, fits, nonzero } = encoded;
        let zero_points = match self.symmetry {
            Symmetry::Symmetric => Vec::new(),
            Symmetry::Affine => fits.iter().map(|fit| fit.zero).collect(),
        };
        let scales = fits.iter().map(|fit| fit.scale).collect();
        let scheme = self.scheme(scope);
        QuantizedTensor::assemble(parameter.shape(), scheme, vec![bytes], scales, zero_points, nonzero)
    }
}

impl<F: Element> Quantizer<F> for Uniform {
    fn quantize(&self, layer: &Layer<'_, F>) -> Result<QuantizedTensor> {
        self.quantize_in(layer, Vec::new())
    }

    fn quantize_model(
        &self,
        model: &Model<F>,
        evidence: &Evidence<F>,
    ) -> Result<Vec<(String, QuantizedTensor)>> {
        if let Rounding::Gptq(gptq) = self.rounding
            && !self.is_per_model()
        {
            return carry::quantize_model(model, evidence, gptq.is_centred(), |layer| self.quantize(layer));
        }
        let layers: Result<Vec<Layer<'_, F>>> =
            model.weights().map(|p| evidence.layer(model, p.name())).collect();
        let layers = layers?;
        if !self.is_per_model() {
            let one = |layer: &Layer<'_, F>| Ok((layer.name().to_owned(), self.quantize(layer)?));
            return layers.iter().map(one).collect();
        }
        self.scheme(Scope::Model).check()?;
        let columns: Result<Vec<_>> = layers.iter().map(|layer| self.columns(layer)).collect();
        let columns = columns?;
        let pieces = layers.iter().zip(&columns);
        let pieces: Vec<_> =
            pieces.map(|(layer, columns)| piece(layer.parameter().values(), columns.as_ref(), 0)).collect();
        let (low, high) = self.range.find(self.grid(), &pieces);
        let fit = self.grid().fit(low, high)?;
        let one = |layer: &Layer<'_, F>| {
            let parameter = layer.parameter();
            let blocks = Blocks::new(parameter.shape(), Scope::Model)?;
            let encoded = encode::with_fits(parameter.values(), blocks, self.grid(), Vec::new(), vec![fit]);
            Ok((layer.name().to_owned(), self.round(layer, Scope::Model, blocks, encoded)?))
        };
        layers.iter().map(one).collect()
    }

    fn needs(&self) -> Needs {
        self.rounding.needs()
    }

    fn check(&self) -> Result<()> {
        self.scheme(Scope::Tensor).check()
    }
}

/// Whether it is an embedding of which no coupling says what reads it.
fn is_unread<F: Element>(layer: &Layer<'_, F>) -> bool {
    *layer.parameter().kind() == Kind::Embedding && layer.readers_gram().is_none()
}

fn piece<'a, F: Element>(values: &'a [F], columns: Option<&'a Columns<F>>, start: usize) -> Piece<'a, F> {
    let importance = columns.map_or(Importance::Equal, |columns| Importance::Columns(columns, start));
    Piece { values: Cow::Borrowed(values), importance }
}

/// A block that is scattered in memory.
fn gather<'a, F: Element>(
    values: &[F],
    columns: Option<&'a Columns<F>>,
    blocks: Blocks,
    scale: usize,
) -> Piece<'a, F> {
    let mut found = Vec::new();
    blocks.runs(scale).for_each(|run| found.extend_from_slice(&values[run]));
    let importance = columns.map_or(Importance::Equal, |columns| {
        let mut each = vec![F::zero(); found.len()];
        let mut at = 0;
        for run in blocks.runs(scale) {
            columns.fill(run.start, &mut each[at..at + run.len()]);
            at += run.len();
        }
        Importance::Each(each)
    });
    Piece { values: Cow::Owned(found), importance }
}
