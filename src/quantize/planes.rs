//! Tensors of several planes: their values, and their lower precisions.

use crate::kernel::par::{self, CHUNK};
use crate::quantize::blocks::Segment;
use crate::quantize::tensor::Decoder;
use crate::quantize::{Bits, QuantizedTensor, Scheme};
use crate::{Element, Error, Result};

/// Sign and magnitude of nested codes, the planes joined. The sign of 0 is never set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nested {
    pub(crate) negative: bool,
    pub(crate) magnitude: u16,
}

impl Nested {
    /// Digit of one plane: the first holds the sign above `bits − 1` magnitude bits, the others `bits` of them,
    /// `below` being how many bits come after this plane.
    pub(crate) fn digit(self, first: bool, bits: u32, below: u32) -> u16 {
        let digit = (u32::from(self.magnitude) >> below) as u16;
        if first {
            digit | u16::from(self.negative) << (bits - 1)
        } else {
            digit & ((1u32 << bits) - 1) as u16
        }
    }

    /// What is left when only the bits above `below` are read.
    pub(crate) fn prefix(self, below: u32) -> Self {
        let magnitude = (u32::from(self.magnitude) >> below) as u16;
        Self { negative: self.negative && magnitude != 0, magnitude }
    }

    /// The middle of the interval, in steps of the last plane.
    fn steps(self) -> f64 {
        let middle = f64::from(self.magnitude) + 0.5;
        match self {
            Self { magnitude: 0, .. } => 0.0,
            Self { negative: true, .. } => -middle,
            Self { negative: false, .. } => middle,
        }
    }
}

impl QuantizedTensor {
    /// The same weights at a lower precision, from the first planes of nested codes alone: what
    /// [`MultiScale::nested`](crate::quantize::MultiScale::nested) with only those planes gives, bit by bit.
    ///
    /// # Errors
    /// The tensor has no nested planes, or `bits` is not where one of them ends; the message lists where they do.
    pub fn at_precision(&self, bits: u32) -> Result<Self> {
        let Scheme::Planes { bits: all, nested: true, scope, scales } = &self.scheme else {
            return Err(Error::unsupported(format!("`{}` has no nested planes to read first", self.scheme)));
        };
        let ends: Vec<u32> = all
            .iter()
            .scan(0, |sum, plane| {
                *sum += plane.get();
                Some(*sum)
            })
            .collect();
        let Some(last) = ends.iter().position(|&end| end == bits) else {
            return Err(Error::setting(format!(
                "{bits} bits: the planes of `{}` end at {ends:?}",
                self.scheme
            )));
        };
        let planes = all[..=last].to_vec();
        let scheme = Scheme::Planes { bits: planes.clone(), nested: true, scope: *scope, scales: *scales };
        let offsets = self.offsets();
        let parts = par::map(self.len().div_ceil(CHUNK), |k| {
            let codes = self.nested_chunk(&offsets, k, &planes);
            let codes: Vec<Nested> = codes.into_iter().map(|code| code.prefix(0)).collect();
            (pack_nested(&codes, &planes), codes.iter().filter(|code| code.magnitude != 0).count())
        });
        let (streams, nonzero) = join(parts, planes.len());
        Ok(Self::assemble(&self.shape, scheme, streams, self.scales.clone(), Vec::new(), nonzero))
    }

    pub(super) fn planes_decoder<F: Element>(&self) -> Decoder<'_, F> {
        let (Scheme::Planes { bits, nested, .. }, Some(blocks)) = (&self.scheme, self.blocks()) else {
            return Box::new(|_, _| {});
        };
        let offsets = self.offsets();
        let below = bits[1..].iter().map(|b| b.get()).sum::<u32>();
        let last = 1.0 / f64::from(1u32 << below);
        Box::new(move |k, values| {
            let blocks = &blocks;
            let decode: Box<dyn Fn(usize, usize) -> f64> = if *nested {
                let codes = self.nested_chunk(&offsets, k, bits);
                Box::new(move |i, scale| codes[i].steps() * (f64::from(self.scales[scale]) * last))
            } else {
                let codes = self.digit_chunk(&offsets, k, values.len());
                Box::new(move |i, scale| {
                    let terms = codes.iter().enumerate().map(|(plane, codes)| {
                        f64::from(codes[i]) * f64::from(self.scales[plane * blocks.scales + scale])
                    });
                    // Not `sum`, whose start is −0.
                    terms.fold(0.0, |sum, term| sum + term)
                })
            };
            let start = k * CHUNK;
            blocks.segments(start..start + values.len(), |segment| match segment {
                Segment::One(range, at) => {
                    range.for_each(|i| values[i - start] = F::narrow(decode(i - start, at)));
                }
                Segment::Each(range, at) => {
                    range.zip(at..).for_each(|(i, at)| values[i - start] = F::narrow(decode(i - start, at)));
                }
            });
        })
    }

    /// The first planes of a chunk, joined.
    fn nested_chunk(&self, offsets: &[usize], chunk: usize, planes: &[Bits]) -> Vec<Nested> {
        let len = CHUNK.min(self.len() - chunk * CHUNK);
        let mut codes = vec![Nested::default(); len];
        let mut digits = vec![0u16; len];
        for (plane, bits) in planes.iter().enumerate() {
            self.read(plane, offsets, chunk, &mut digits);
            let sign = 1 << (bits.get() - 1);
            for (code, &digit) in codes.iter_mut().zip(&digits) {
                *code = if plane == 0 {
                    Nested { negative: digit & sign != 0, magnitude: digit & (sign - 1) }
                } else {
                    Nested { magnitude: code.magnitude << bits.get() | digit, ..*code }
                };
            }
        }
        codes
    }

    /// The digits of refitted planes: the first signed, the others not.
    fn digit_chunk(&self, offsets: &[usize], chunk: usize, len: usize) -> Vec<Vec<i16>> {
        let mut digits = vec![0u16; len];
        let plane = |(plane, bits): (usize, u32)| {
            self.read(plane, offsets, chunk, &mut digits);
            let unused = if plane == 0 { 16 - bits } else { 0 };
            digits.iter().map(|&digit| (digit << unused) as i16 >> unused).collect()
        };
        self.scheme.plane_bits().into_iter().enumerate().map(plane).collect()
    }
}

/// Nested codes as one packed stream a plane.
pub(crate) fn pack_nested(codes: &[Nested], planes: &[Bits]) -> Vec<Vec<u8>> {
    let mut below: u32 = planes.iter().map(|b| b.get()).sum();
    let stream = |(plane, bits): (usize, &Bits)| {
        below -= bits.get();
        let digits: Vec<u16> = codes.iter().map(|code| code.digit(plane == 0, bits.get(), below)).collect();
        pack_digits(&digits, bits.get())
    };
    planes.iter().enumerate().map(stream).collect()
}

pub(crate) fn pack_digits<C: crate::kernel::pack::Code>(digits: &[C], bits: u32) -> Vec<u8> {
    let mut bytes = vec![0; crate::kernel::pack::len(digits.len(), bits).unwrap_or(0)];
    C::pack(digits, bits, &mut bytes);
    bytes
}

/// Streams of neighbouring chunks end to end, and the sum of their counts.
pub(crate) fn join(parts: Vec<(Vec<Vec<u8>>, usize)>, planes: usize) -> (Vec<Vec<u8>>, usize) {
    let nonzero = parts.iter().map(|(_, n)| n).sum();
    let mut streams = vec![Vec::new(); planes];
    for (part, _) in parts {
        streams.iter_mut().zip(part).for_each(|(stream, bytes)| stream.extend(bytes));
    }
    (streams, nonzero)
}
