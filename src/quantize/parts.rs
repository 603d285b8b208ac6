//! A quantized tensor as named arrays, and back from arrays that may hold anything.

use std::borrow::Cow;

use crate::kernel::minifloat::MiniFloat;
use crate::kernel::pack;
use crate::kernel::par::{self, CHUNK};
use crate::model::Mask;
use crate::quantize::blocks::Blocks;
use crate::quantize::outcome::Aside;
use crate::quantize::{BlockFormat, QuantizedTensor, ScaleType, Scheme, Symmetry};
use crate::{Error, Result};

/// The number type of a [`Part`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartType {
    /// Bytes: packed codes, bitmaps.
    U8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl PartType {
    /// Bytes of one element.
    ///
    /// ```
    /// assert_eq!(niwaki::quantize::PartType::F16.bytes(), 2);
    /// ```
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// One array of a stored tensor, as little-endian bytes.
///
/// ```
/// use niwaki::quantize::{Part, PartType};
/// let part = Part::new("scales", PartType::F32, vec![1], 0.5f32.to_le_bytes().to_vec());
/// assert_eq!(part.bytes.len(), 4);
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub struct Part<'a> {
    /// What it holds: `codes` (`codes.0`, `codes.1`… of several planes), `scales`, `zero_points`, `support`, `blocks`.
    pub name: Cow<'a, str>,
    /// Type of its elements.
    pub dtype: PartType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, little-endian.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Part<'a> {
    /// An array as a file holds it. Whether it fits is checked by [`QuantizedTensor::from_parts`].
    pub fn new(
        name: impl Into<Cow<'a, str>>,
        dtype: PartType,
        shape: Vec<usize>,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Self {
        Self { name: name.into(), dtype, shape, bytes: bytes.into() }
    }

    fn of_bytes(name: impl Into<Cow<'a, str>>, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self::new(name, PartType::U8, vec![bytes.len()], bytes)
    }
}

/// The one part of a tensor of ggml's blocks.
const BLOCKS: &str = "blocks";

impl QuantizedTensor {
    /// The arrays it is stored as: packed `codes` (one stream a plane, `codes.0`, `codes.1`…), `scales` in
    /// [`scale_shape`](Self::scale_shape), `zero_points` packed as the codes are, and for the sparse form
    /// `support`, a bitmap of ⌈n / 8⌉ bytes with the first element in the lowest bit. ggml's are all in `blocks`.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        if let Some(support) = &self.support {
            let mut bytes: Vec<u8> = support.words().iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.truncate(self.len().div_ceil(8));
            parts.push(Part::of_bytes("support", bytes));
        }
        if let Some((_, blocks)) = self.blocks_of_ggml() {
            return vec![Part::of_bytes(BLOCKS, blocks)];
        }
        for (plane, codes) in self.planes.iter().enumerate() {
            parts.push(Part::of_bytes(plane_name(plane, self.planes.len()), &codes[..]));
        }
        if !self.scales.is_empty() {
            let (dtype, bytes) = write_scales(&self.scales, self.scheme.scale_type());
            parts.push(Part::new("scales", dtype, self.scale_shape(), bytes));
        }
        if self.scheme.has_zero_points() {
            let bits = self.scheme.code_bits();
            let mut bytes = vec![0; pack::len(self.zero_points.len(), bits).unwrap_or(0)];
            pack::Code::pack(&self.zero_points, bits, &mut bytes);
            parts.push(Part::of_bytes("zero_points", bytes));
        }
        parts
    }

    /// Reads it back from its arrays, in any order.
    ///
    /// # Errors
    /// [`ErrorKind::Format`](crate::ErrorKind::Format): an array is missing, unknown, there twice, of the wrong
    /// type or size, or holds what no tensor of this scheme does (a scale that is not finite or not positive, or
    /// that decodes past f32; a code without meaning; bits behind the last code).
    pub fn from_parts(shape: &[usize], scheme: Scheme, parts: &[Part<'_>]) -> Result<Self> {
        let context = format!("quantized tensor {shape:?} `{scheme}`");
        read(shape, scheme, parts).map_err(|why| Error::format(format!("{context}: {why}")))
    }
}

pub(super) fn scale_shape(scheme: &Scheme, blocks: Option<Blocks>) -> Vec<usize> {
    let (Some(scope), Some(blocks)) = (scheme.scope(), blocks) else { return Vec::new() };
    let mut shape = blocks.scale_shape(scope);
    if let Scheme::Planes { nested: false, bits, .. } = scheme {
        shape.insert(0, bits.len());
    }
    shape
}

fn plane_name(plane: usize, planes: usize) -> Cow<'static, str> {
    if planes == 1 { "codes".into() } else { format!("codes.{plane}").into() }
}

fn write_scales(scales: &[f32], kind: ScaleType) -> (PartType, Vec<u8>) {
    match kind {
        ScaleType::F32 => (PartType::F32, scales.iter().flat_map(|s| s.to_le_bytes()).collect()),
        ScaleType::F16 => {
            let half =
                |s: &f32| MiniFloat::F16.encode(f64::from(*s)).unwrap_or_else(|largest| largest) as u16;
            (PartType::F16, scales.iter().flat_map(|s| half(s).to_le_bytes()).collect())
        }
    }
}

type Why<T> = Result<T, String>;

fn read(shape: &[usize], scheme: Scheme, parts: &[Part<'_>]) -> Why<QuantizedTensor> {
    scheme.check().map_err(|error| error.to_string())?;
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|n| n.checked_mul(8).is_some());
    let n = n.filter(|&n| n > 0).ok_or("no array has such a shape")?;
    if let Scheme::Ggml(format) = scheme {
        return read_blocks(shape, format, parts);
    }
    let bits = scheme.plane_bits();
    let names: Vec<_> = (0..bits.len()).map(|plane| plane_name(plane, bits.len())).collect();
    for (at, part) in parts.iter().enumerate() {
        let known = ["support", "scales", "zero_points"].contains(&&*part.name) || names.contains(&part.name);
        if !known || parts[..at].iter().any(|other| other.name == part.name) {
            return Err(format!("part `{}` is unknown or there twice", part.name));
        }
    }
    let support = read_support(shape, n, parts)?;
    let stored = support.as_ref().map_or(n, Mask::kept);
    let planes: Why<Vec<Vec<u8>>> = names
        .iter()
        .zip(&bits)
        .map(|(name, &bits)| packed(parts, name, stored, bits).map(<[u8]>::to_vec))
        .collect();
    let planes = planes?;
    let blocks = match scheme.scope() {
        None => None,
        // Only now, when the codes have shown that n elements are really there.
        Some(scope) => Some(Blocks::new(shape, scope).map_err(|error| error.to_string())?),
    };
    let scales = read_scales(&scheme, blocks, parts)?;
    let mut zero_points = vec![0; if scheme.has_zero_points() { scales.len() } else { 0 }];
    if scheme.has_zero_points() {
        let bytes = packed(parts, "zero_points", scales.len(), scheme.code_bits())?;
        pack::Code::unpack(bytes, scheme.code_bits(), &mut zero_points);
    } else if find(parts, "zero_points").is_some() {
        return Err("part `zero_points` of a scheme that has none".into());
    }
    let tensor = QuantizedTensor {
        shape: shape.to_vec(),
        scheme,
        support,
        planes,
        scales,
        zero_points,
        outcome: Aside::default(),
    };
    check_reach(&tensor)?;
    check_codes(&tensor, stored)?;
    Ok(tensor)
}

fn read_blocks(shape: &[usize], format: BlockFormat, parts: &[Part<'_>]) -> Why<QuantizedTensor> {
    let [part] = parts else { return Err(format!("it has {} parts in place of `{BLOCKS}`", parts.len())) };
    let blocks = bytes(parts, BLOCKS, PartType::U8, &[part.bytes.len()])?;
    QuantizedTensor::read_blocks(shape, format, blocks.to_vec())
}

fn find<'p>(parts: &'p [Part<'_>], name: &str) -> Option<&'p Part<'p>> {
    parts.iter().find(|part| part.name == name)
}

/// The bytes of a part of this type and shape.
fn bytes<'p>(parts: &'p [Part<'_>], name: &str, dtype: PartType, shape: &[usize]) -> Why<&'p [u8]> {
    let part = find(parts, name).ok_or_else(|| format!("part `{name}` is missing"))?;
    if part.dtype != dtype || part.shape != shape {
        return Err(format!(
            "part `{name}` is {:?} {:?} and should be {dtype:?} {shape:?}",
            part.dtype, part.shape
        ));
    }
    let wanted = shape.iter().try_fold(dtype.bytes(), |n, &d| n.checked_mul(d));
    if wanted != Some(part.bytes.len()) {
        return Err(format!("part `{name}` of shape {shape:?} has {} bytes", part.bytes.len()));
    }
    Ok(&part.bytes)
}

/// A stream of `n` codes with nothing behind them.
fn packed<'p>(parts: &'p [Part<'_>], name: &str, n: usize, bits: u32) -> Why<&'p [u8]> {
    let len = pack::len(n, bits).ok_or("no memory holds so many codes")?;
    let bytes = bytes(parts, name, PartType::U8, &[len])?;
    if pack::is_clean(bytes, n, bits) {
        Ok(bytes)
    } else {
        Err(format!("part `{name}` has bits set behind its {n} codes"))
    }
}

fn read_support(shape: &[usize], n: usize, parts: &[Part<'_>]) -> Why<Option<Mask>> {
    if find(parts, "support").is_none() {
        return Ok(None);
    }
    let bytes = bytes(parts, "support", PartType::U8, &[n.div_ceil(8)])?;
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let mask = Mask::from_words(shape, bytes.chunks(8).map(word).collect());
    mask.map(Some).ok_or_else(|| format!("part `support` has bits set behind its {n} elements"))
}

fn read_scales(scheme: &Scheme, blocks: Option<Blocks>, parts: &[Part<'_>]) -> Why<Vec<f32>> {
    if blocks.is_none() {
        let none = find(parts, "scales").is_none();
        return if none { Ok(Vec::new()) } else { Err("part `scales` of a scheme that has none".into()) };
    }
    let shape = scale_shape(scheme, blocks);
    let scales: Vec<f32> = match scheme.scale_type() {
        ScaleType::F32 => {
            let (fours, _) = bytes(parts, "scales", PartType::F32, &shape)?.as_chunks::<4>();
            fours.iter().map(|b| f32::from_le_bytes(*b)).collect()
        }
        ScaleType::F16 => {
            let (twos, _) = bytes(parts, "scales", PartType::F16, &shape)?.as_chunks::<2>();
            twos.iter().map(|b| MiniFloat::F16.decode(u16::from_le_bytes(*b).into()) as f32).collect()
        }
    };
    match scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) {
        None => Ok(scales),
        Some(at) => Err(format!("scale {} at {at} is not a positive number", scales[at])),
    }
}

/// No code may decode to infinity in f32.
pub(super) fn check_reach(tensor: &QuantizedTensor) -> Why<()> {
    let half = |bits: u32| f64::from(1u32 << (bits - 1));
    let blocks = tensor.scales.len() / tensor.scheme.scale_sets().max(1);
    let reach = |at: usize| -> f64 {
        let scale = |k: usize| f64::from(tensor.scales[k * blocks + at]);
        match &tensor.scheme {
            Scheme::Int { bits, symmetry: Symmetry::Symmetric, .. } => scale(0) * (half(bits.get()) - 1.0),
            Scheme::Int { bits, .. } => {
                let zero = f64::from(tensor.zero_points[at]);
                scale(0) * zero.max(2.0 * half(bits.get()) - 1.0 - zero)
            }
            Scheme::Planes { bits, nested: true, .. } => scale(0) * half(bits[0].get()),
            Scheme::Planes { bits, .. } => {
                let digits = |(k, b): (usize, &crate::quantize::Bits)| {
                    scale(k) * half(b.get()) * if k == 0 { 1.0 } else { 2.0 }
                };
                bits.iter().enumerate().map(digits).sum()
            }
            Scheme::Fixed { .. } | Scheme::Float(_) | Scheme::Ggml(_) => 0.0,
        }
    };
    match (0..blocks).find(|&at| !(reach(at) as f32).is_finite()) {
        None => Ok(()),
        Some(at) => Err(format!("scale {} at {at} decodes past the limit of f32", tensor.scales[at])),
    }
}

/// The lowest code of a symmetric scheme, and the infinities and NaN of a float, are never stored.
fn check_codes(tensor: &QuantizedTensor, stored: usize) -> Why<()> {
    let bits = tensor.scheme.plane_bits()[0];
    let wrong: Box<dyn Fn(u16) -> bool + Sync + Send> = match &tensor.scheme {
        Scheme::Int { symmetry: Symmetry::Symmetric, .. } => Box::new(move |code| code == 1 << (bits - 1)),
        Scheme::Float(format) => {
            let (magnitude, largest) = ((1u32 << (bits - 1)) - 1, format.kernel().max_code());
            Box::new(move |code| u32::from(code) & magnitude > largest)
        }
        _ => return Ok(()),
    };
    let bad = par::map(stored.div_ceil(CHUNK), |k| {
        let mut codes = vec![0u16; CHUNK.min(stored - k * CHUNK)];
        pack::unpack_from(&tensor.planes[0], bits, k * CHUNK, &mut codes);
        codes.iter().position(|&code| wrong(code)).map(|at| (k * CHUNK + at, codes[at]))
    });
    match bad.into_iter().flatten().next() {
        None => Ok(()),
        Some((at, code)) => Err(format!("code {code:#x} at {at} of part `codes` has no meaning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::testing::weights;
    use crate::quantize::{Bits, ElementWise, GroupSize, MultiScale, Quantizer, Uniform};
    use crate::{ErrorKind, Layer, Parameter};

    fn examples() -> Vec<QuantizedTensor> {
        let bits = |b| Bits::new(b).unwrap();
        let quantizers: Vec<Box<dyn Quantizer<f32>>> = vec![
            Box::new(Uniform::int8()),
            Box::new(Uniform::new(bits(3)).affine().per_group(GroupSize::new(4).unwrap()).f16_scales()),
            Box::new(ElementWise::f8_e4m3()),
            Box::new(ElementWise::fixed(2, 3).unwrap()),
            Box::new(MultiScale::nested(&[2, 3]).unwrap()),
            Box::new(MultiScale::refitted(&[2, 3]).unwrap().f16_scales()),
        ];
        let of = |zeros: f64| {
            let parameter = Parameter::linear("w", weights(5, 11, zeros));
            quantizers.iter().map(move |q| q.quantize(&Layer::new(&parameter)).unwrap()).collect::<Vec<_>>()
        };
        [of(0.0), of(0.9)].concat()
    }

    fn read(tensor: &QuantizedTensor, parts: &[Part<'_>]) -> Result<QuantizedTensor> {
        QuantizedTensor::from_parts(tensor.shape(), tensor.scheme().clone(), parts)
    }

    #[test]
    fn any_order_reads_back() {
        for tensor in examples() {
            let mut parts = tensor.parts();
            parts.reverse();
            assert_eq!(read(&tensor, &parts).unwrap(), tensor);
        }
    }

    #[test]
    fn every_lie_is_a_format_error() {
        for tensor in examples() {
            let parts = tensor.parts();
            for at in 0..parts.len() {
                let with = |change: &dyn Fn(&mut Part<'_>)| {
                    let mut parts = parts.clone();
                    change(&mut parts[at]);
                    read(&tensor, &parts)
                };
                let mut wrong = vec![
                    read(&tensor, &[&parts[..at], &parts[at + 1..]].concat()),
                    read(&tensor, &[&parts[..], &parts[at..=at]].concat()),
                    with(&|p| p.bytes = p.bytes[1..].to_vec().into()),
                    with(&|p| p.shape = vec![usize::MAX, usize::MAX]),
                    with(&|p| p.name = "other".into()),
                    with(&|p| p.dtype = if p.dtype == PartType::U8 { PartType::F32 } else { PartType::U8 }),
                ];
                if parts[at].name == "scales" {
                    for byte in [0x00, 0xff] {
                        wrong.push(with(&|p| p.bytes.to_mut().fill(byte)));
                    }
                    wrong.push(with(&|p| {
                        p.bytes.to_mut().iter_mut().last().into_iter().for_each(|b| *b |= 0x80);
                    }));
                }
                if parts[at].name == "support" {
                    wrong.push(with(&|p| p.bytes.to_mut()[6] |= 0x80));
                    wrong.push(with(&|p| p.bytes.to_mut().fill(0)));
                }
                // A missing bitmap is a dense tensor with too few codes, an additional one is unknown to none.
                for (k, result) in wrong.into_iter().enumerate() {
                    let error = result.expect_err(&format!("{} {} {k}", tensor.scheme(), parts[at].name));
                    assert_eq!(error.kind(), ErrorKind::Format);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_decode_to_numbers() {
        let mut state = 1u32;
        for tensor in examples().iter().cycle().take(600) {
            let mut parts = tensor.parts();
            for part in &mut parts {
                for byte in part.bytes.to_mut() {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte ^= if state >> 28 == 0 { (state >> 8) as u8 } else { 0 };
                }
            }
            if let Ok(tensor) = read(tensor, &parts) {
                assert!(tensor.decode::<f32>().iter().all(|w| w.is_finite()));
                assert_eq!(
                    QuantizedTensor::from_parts(tensor.shape(), tensor.scheme().clone(), &tensor.parts())
                        .unwrap(),
                    tensor
                );
            }
        }
    }

    #[test]
    fn shapes_that_lie() {
        let tensor = &examples()[0];
        for shape in [&[][..], &[0], &[5, 0], &[55], &[usize::MAX, 2], &[usize::MAX], &[1 << 62, 2], &[11, 5]]
        {
            for scheme in ["int8 symmetric channel:0", "int8 symmetric channel:7", "int3 affine group:2"] {
                let scheme = scheme.parse().unwrap();
                let error = QuantizedTensor::from_parts(shape, scheme, &tensor.parts()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Format, "{error}");
            }
        }
    }

    #[test]
    fn codes_without_meaning() {
        let part = |byte| Part::new("codes", PartType::U8, vec![1], vec![byte]);
        let scale = |s: f32| Part::new("scales", PartType::F32, vec![1], s.to_le_bytes().to_vec());
        let int = |text: &str, byte, s| {
            QuantizedTensor::from_parts(&[1], text.parse().unwrap(), &[part(byte), scale(s)])
        };
        assert!(int("int8 symmetric tensor", 0x81, 1.0).is_ok());
        let error = int("int8 symmetric tensor", 0x80, 1.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "quantized tensor [1] `int8 symmetric tensor`: code 0x80 at 0 of part `codes` has no meaning"
        );
        assert!(int("int8 symmetric tensor", 1, f32::MAX).is_err());
        assert!(int("int3 symmetric tensor", 0b1000, 1.0).is_err());
        let float = |byte| QuantizedTensor::from_parts(&[1], "f8-e5m2".parse().unwrap(), &[part(byte)]);
        assert!(float(0x7b).is_ok() && float(0x7c).is_err() && float(0xff).is_err());
    }
}
