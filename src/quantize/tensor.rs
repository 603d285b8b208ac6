//! [`QuantizedTensor`]: a weight in codes, which decodes itself.

use std::borrow::Cow;

use ndarray::ArrayD;

use crate::kernel::bits::{self, WORD};
use crate::kernel::pack::{self, Code};
use crate::kernel::par::{self, CHUNK};
use crate::model::Mask;
use crate::quantize::blocks::{Blocks, Segment};
use crate::quantize::outcome::Aside;
use crate::quantize::{Outcome, Scheme};
use crate::{Element, Error, Result};

/// A weight in codes, with the scales and zero points that give it back.
///
/// Codes are packed, element i (row-major) at bit i · b, low bits first. Where most weights decode to 0, a
/// bitmap says which do not, and only those have codes; that form is taken when it has fewer bytes.
///
/// Stored codes are two's complement for symmetric integers and fixed point, unsigned for affine integers, the
/// format's own bits for floats. ggml's blocks hold codes and scales together, and are never sparse. A weight that was 0 decodes to exactly +0.
///
/// ```
/// use ndarray::array;
/// use niwaki::quantize::{Quantizer, QuantizedTensor, Uniform};
/// use niwaki::{Layer, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weight = Parameter::linear("fc", array![[1.27f32, -0.5, 0.0], [1.0, 2.54, -2.0]]);
/// let tensor = Uniform::int8().quantize(&Layer::new(&weight))?;
/// assert_eq!(tensor.scheme().to_string(), "int8 symmetric channel:0");
/// let codes: Vec<i8> = tensor.codes()?.iter().map(|&c| c as i8).collect();
/// assert_eq!(codes, [127, -50, 0, 50, 127, -100]);
/// let back = tensor.decode::<f32>();
/// assert!((back[[0, 1]] + 0.5).abs() < 1e-6 && back[[0, 2]] == 0.0);
/// // Six codes and two scales of four bytes.
/// assert_eq!(tensor.bytes(), 6 + 2 * 4);
/// assert_eq!(QuantizedTensor::from_parts(&[2, 3], tensor.scheme().clone(), &tensor.parts())?, tensor);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTensor {
    pub(super) shape: Vec<usize>,
    pub(super) scheme: Scheme,
    /// Which elements have codes; all, when there is none.
    pub(super) support: Option<Mask>,
    /// Packed codes, one stream a plane; or ggml's blocks.
    pub(super) planes: Vec<Vec<u8>>,
    /// Scales of each block; all blocks of the first plane, then of the next.
    pub(super) scales: Vec<f32>,
    pub(super) zero_points: Vec<u8>,
    /// How it came to be.
    pub(super) outcome: Aside<Option<Outcome>>,
}

/// Decodes the chunk of this number.
pub(super) type Decoder<'a, F> = Box<dyn Fn(usize, &mut [F]) + Sync + Send + 'a>;

impl QuantizedTensor {
    /// The shape it decodes to.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How it was quantized.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// How many weights it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The scales, in row-major order of [`scale_shape`](Self::scale_shape); none for element-wise schemes.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Shape of the scales: `[1]` for a tensor or model, `[n]` for the channels of an axis; for groups along axis 1
    /// `[rows, ⌈columns / size⌉]`, along axis 0 `[⌈rows / size⌉, columns]`. Refitted planes have their number in
    /// front.
    pub fn scale_shape(&self) -> Vec<usize> {
        super::parts::scale_shape(&self.scheme, self.blocks())
    }

    /// The code of 0 in each block, in the order of the scales; `None` unless the scheme is affine.
    pub fn zero_points(&self) -> Option<&[u8]> {
        self.scheme.has_zero_points().then_some(&*self.zero_points)
    }

    /// How its rounding was learned; `None` for methods that learn nothing, and after loading. It is no part of a file
    /// nor of equality.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.0.as_ref()
    }

    pub(super) fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome: Aside(Some(outcome)), ..self }
    }

    /// Which elements have codes; `None` when all do.
    pub fn support(&self) -> Option<&Mask> {
        self.support.as_ref()
    }

    /// One code a byte for every element, those without a stored code included: for writing other formats.
    /// Symmetric codes are two's complement (`code as i8`), affine ones unsigned.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): several planes, codes above 8 bits, or ggml's blocks.
    pub fn codes(&self) -> Result<Cow<'_, [u8]>> {
        let [bits @ 1..=8] = self.scheme.plane_bits()[..] else {
            return Err(Error::unsupported(format!("`{}` has no codes of one byte", self.scheme)));
        };
        if bits == 8 && self.support.is_none() {
            return Ok(Cow::Borrowed(&self.planes[0]));
        }
        let offsets = self.offsets();
        let shift = if self.is_signed() { 8 - bits } else { 0 };
        let mut codes = vec![0u8; self.len()];
        par::for_chunks_mut(&mut codes, CHUNK, |k, codes| {
            self.read(0, &offsets, k, codes);
            // The sign bit moves to the top and comes back in copies.
            for code in codes {
                *code = ((*code << shift) as i8 >> shift) as u8;
            }
        });
        Ok(Cow::Owned(codes))
    }

    /// The values.
    pub fn decode<F: Element>(&self) -> ArrayD<F> {
        let mut values = vec![F::zero(); self.len()];
        let decode = self.decoder();
        par::for_chunks_mut(&mut values, CHUNK, |k, values| decode(k, values));
        ArrayD::from_shape_vec(self.shape.clone(), values).unwrap_or_default()
    }

    /// `f` of the values, chunk after chunk with the index of its first, so that they need not all be decoded at
    /// once; the answers in order.
    pub(crate) fn map_decoded<F: Element, T: Send>(
        &self,
        f: impl Fn(usize, &[F]) -> T + Sync + Send,
    ) -> Vec<T> {
        let decode = self.decoder();
        par::map(self.len().div_ceil(CHUNK), |k| {
            let mut values = vec![F::zero(); CHUNK.min(self.len() - k * CHUNK)];
            decode(k, &mut values);
            f(k * CHUNK, &values)
        })
    }

    /// What decodes chunks.
    fn decoder<F: Element>(&self) -> Decoder<'_, F> {
        match &self.scheme {
            Scheme::Int { .. } => self.int_decoder(),
            Scheme::Fixed { integer, fraction } => {
                let (unused, step) = (15 - integer - fraction, 1.0 / f64::from(1u32 << fraction));
                self.table_decoder(move |code| F::narrow(f64::from((code << unused) as i16 >> unused) * step))
            }
            Scheme::Float(format) => {
                let format = format.kernel();
                self.table_decoder(move |code| F::narrow(format.decode(u32::from(code))))
            }
            Scheme::Planes { .. } => self.planes_decoder(),
            Scheme::Ggml(format) => self.block_decoder(*format),
        }
    }

    /// Bytes of the arrays it is stored as: codes, scales, zero points, bitmap.
    pub fn bytes(&self) -> usize {
        self.parts().iter().map(|part| part.bytes.len()).sum()
    }

    /// The memory of its codes, for others.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.planes.into_iter().next().unwrap_or_default()
    }

    /// Wraps dense packed codes, of which `nonzero` elements decode to something; takes the sparse form when that
    /// has fewer bytes.
    pub(crate) fn assemble(
        shape: &[usize],
        scheme: Scheme,
        planes: Vec<Vec<u8>>,
        scales: Vec<f32>,
        zero_points: Vec<u8>,
        nonzero: usize,
    ) -> Self {
        let (shape, outcome) = (shape.to_vec(), Aside::default());
        let dense = Self { shape, scheme, support: None, planes, scales, zero_points, outcome };
        let sizes = |n: usize| -> Option<usize> {
            dense.scheme.plane_bits().iter().map(|&bits| pack::len(n, bits)).sum()
        };
        let n = dense.len();
        match (sizes(nonzero), sizes(n)) {
            (Some(few), Some(all)) if few + n.div_ceil(8) < all => dense.thinned(nonzero),
            _ => dense,
        }
    }

    /// The same tensor with codes only where they are not those of 0.
    fn thinned(self, nonzero: usize) -> Self {
        let bits = self.scheme.plane_bits();
        let parts = par::map(self.len().div_ceil(CHUNK), |k| {
            let len = CHUNK.min(self.len() - k * CHUNK);
            let mut codes = vec![vec![0u16; len]; bits.len()];
            codes.iter_mut().enumerate().for_each(|(plane, codes)| self.read(plane, &[], k, codes));
            let mut keep = vec![0u8; len.next_multiple_of(WORD)];
            for plane in &codes {
                self.with_zeros(k, len, |range, zero| {
                    let keep = keep[range.clone()].iter_mut();
                    keep.zip(&plane[range]).for_each(|(keep, &code)| *keep |= u8::from(code != zero));
                });
            }
            let words: Vec<u64> = keep.as_chunks::<WORD>().0.iter().map(bits::gather).collect();
            let few = |codes: Vec<u16>| -> Vec<u16> {
                codes.iter().zip(&keep).filter(|(_, keep)| **keep == 1).map(|(code, _)| *code).collect()
            };
            (words, codes.into_iter().map(few).collect::<Vec<_>>())
        });
        let words = parts.iter().flat_map(|(words, _)| words).copied().collect();
        let plane = |(plane, &bits): (usize, &u32)| {
            let mut codes: Vec<u16> = Vec::with_capacity(nonzero);
            for (_, few) in &parts {
                codes.extend(&few[plane]);
            }
            let mut bytes = vec![0; pack::len(codes.len(), bits).unwrap_or(0)];
            u16::pack(&codes, bits, &mut bytes);
            bytes
        };
        let planes = bits.iter().enumerate().map(plane).collect();
        let Some(support) = Mask::from_words(&self.shape, words) else { return self };
        Self { support: Some(support), planes, ..self }
    }

    pub(super) fn blocks(&self) -> Option<Blocks> {
        self.scheme.scope().and_then(|scope| Blocks::new(&self.shape, scope).ok())
    }

    /// Whether a code's highest bit is a sign in two's complement.
    fn is_signed(&self) -> bool {
        !self.scheme.has_zero_points() && !matches!(self.scheme, Scheme::Float(_))
    }

    /// How many stored codes come before each chunk; nothing when all elements have one.
    pub(super) fn offsets(&self) -> Vec<usize> {
        let words = self.support.as_ref().map(Mask::words).unwrap_or_default();
        let counts = words.chunks(CHUNK / WORD).scan(0, |sum, words| {
            let before = *sum;
            *sum += words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            Some(before)
        });
        counts.collect()
    }

    /// Codes of one plane for all elements of a chunk.
    pub(super) fn read<C: Code + From<u8>>(
        &self,
        plane: usize,
        offsets: &[usize],
        chunk: usize,
        codes: &mut [C],
    ) {
        let bits = self.scheme.plane_bits()[plane];
        let Some(support) = &self.support else {
            return pack::unpack_from(&self.planes[plane], bits, chunk * CHUNK, codes);
        };
        let words = &support.words()[chunk * (CHUNK / WORD)..];
        let words = &words[..codes.len().div_ceil(WORD)];
        let mut few = vec![C::default(); words.iter().map(|word| word.count_ones() as usize).sum()];
        pack::unpack_from(&self.planes[plane], bits, offsets[chunk], &mut few);
        self.with_zeros(chunk, codes.len(), |range, zero| codes[range].fill(C::from(zero as u8)));
        let mut few = few.into_iter();
        for (codes, &word) in codes.chunks_mut(WORD).zip(words) {
            let kept = codes.iter_mut().zip(bits::scatter(word)).filter(|(_, keep)| *keep == 1);
            kept.zip(&mut few).for_each(|((code, _), value)| *code = value);
        }
    }

    /// Calls `f` with runs of a chunk, counted from its start, and the code of 0 in each.
    fn with_zeros(&self, chunk: usize, len: usize, mut f: impl FnMut(std::ops::Range<usize>, u16)) {
        let start = chunk * CHUNK;
        match self.blocks().filter(|_| self.scheme.has_zero_points()) {
            None => f(0..len, 0),
            Some(blocks) => blocks.segments(start..start + len, |segment| match segment {
                Segment::One(range, at) => {
                    f(range.start - start..range.end - start, self.zero_points[at].into());
                }
                Segment::Each(range, at) => {
                    for (k, i) in range.enumerate() {
                        f(i - start..i - start + 1, self.zero_points[at + k].into());
                    }
                }
            }),
        }
    }

    fn int_decoder<F: Element>(&self) -> Decoder<'_, F> {
        let (Some(blocks), offsets) = (self.blocks(), self.offsets()) else { return Box::new(|_, _| {}) };
        let scales: Vec<F> = self.scales.iter().map(|&s| F::narrow(f64::from(s))).collect();
        // An unsigned byte, or a signed one in the upper bits of its byte: both become steps with one subtraction.
        let affine = self.scheme.has_zero_points();
        let shift = 8 - self.scheme.code_bits();
        let small = |code: i16| F::narrow(f64::from(code));
        let steps = move |code: u8, zero: u8| {
            if affine { i16::from(code) - i16::from(zero) } else { i16::from((code << shift) as i8 >> shift) }
        };
        let zero = move |at: usize| if affine { self.zero_points[at] } else { 0 };
        Box::new(move |k, values| {
            let mut codes = vec![0u8; values.len()];
            self.read(0, &offsets, k, &mut codes);
            let start = k * CHUNK;
            blocks.segments(start..start + values.len(), |segment| match segment {
                Segment::One(range, at) => {
                    let range = range.start - start..range.end - start;
                    let (scale, zero) = (scales[at], zero(at));
                    let pairs = values[range.clone()].iter_mut().zip(&codes[range]);
                    pairs.for_each(|(value, &code)| *value = small(steps(code, zero)) * scale);
                }
                Segment::Each(range, at) => {
                    let range = range.start - start..range.end - start;
                    let pairs = values[range.clone()].iter_mut().zip(&codes[range]).zip(at..);
                    pairs.for_each(|((value, &code), at)| *value = small(steps(code, zero(at))) * scales[at]);
                }
            });
        })
    }

    /// Decodes codes that stand for themselves, by a table where there are more elements than codes.
    fn table_decoder<'a, F: Element>(
        &'a self,
        value: impl Fn(u16) -> F + Sync + Send + 'a,
    ) -> Decoder<'a, F> {
        let (bits, offsets) = (self.scheme.code_bits(), self.offsets());
        let size = 1usize << bits;
        let table: Vec<F> =
            if self.len() >= size { (0..size).map(|code| value(code as u16)).collect() } else { Vec::new() };
        Box::new(move |k, values| {
            let mut codes = vec![0u16; values.len()];
            self.read(0, &offsets, k, &mut codes);
            for (out, &code) in values.iter_mut().zip(&codes) {
                *out = table.get(usize::from(code)).copied().unwrap_or_else(|| value(code));
            }
        })
    }
}
