//! [`Scheme`]: how a tensor was quantized, as text that reads back.

use std::fmt::{self, Display};
use std::str::FromStr;

use crate::kernel::minifloat::MiniFloat;
use crate::quantize::{Bits, BlockFormat, GroupSize};
use crate::{Error, Result};

/// Which weights share a scale (and a zero point).
///
/// ```
/// use niwaki::quantize::{Scheme, Scope};
/// let scheme: Scheme = "int4 affine group:64".parse()?;
/// assert!(matches!(scheme.scope(), Some(Scope::Group { size, axis: 1, .. }) if size.get() == 64));
/// # Ok::<(), niwaki::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All weights of the network: every tensor holds the same one.
    Model,
    /// All weights of the tensor.
    Tensor,
    /// All weights at one position of an axis.
    #[non_exhaustive]
    Channel {
        /// The axis; [`Uniform`](crate::quantize::Uniform) takes the parameter's output axis, and
        /// the entries of an embedding.
        axis: usize,
    },
    /// Runs of `size` weights; the last run may be short.
    #[non_exhaustive]
    Group {
        /// Weights in a run.
        size: GroupSize,
        /// What runs go along. 1: the axes behind the first, as one (rows [out, in · taps…]); the scales are
        /// [first, ⌈rest / size⌉]. 0: the first axis, down each column of a matrix stored [in, out]; the
        /// scales are [⌈first / size⌉, rest].
        axis: usize,
    },
}

/// Whether codes lie around 0 or around a zero point.
///
/// ```
/// use niwaki::quantize::{Scheme, Symmetry};
/// let scheme: Scheme = "int8 affine tensor".parse()?;
/// assert!(matches!(scheme, Scheme::Int { symmetry: Symmetry::Affine, .. }));
/// # Ok::<(), niwaki::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Symmetry {
    /// Signed codes in [−(2^(b−1) − 1), 2^(b−1) − 1]; w = scale · code. At least 2 bits: a single one would
    /// hold nothing but 0.
    Symmetric,
    /// Unsigned codes in [0, 2^b − 1]; w = scale · (code − zero point), the zero point itself a code.
    Affine,
}

/// The number type that scales are stored in.
///
/// ```
/// use niwaki::quantize::{ScaleType, Scheme};
/// let scheme: Scheme = "int4 symmetric group:32 f16-scales".parse()?;
/// assert!(matches!(scheme, Scheme::Int { scales: ScaleType::F16, .. }));
/// # Ok::<(), niwaki::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// Single precision (default).
    F32,
    /// Half precision: two bytes less a scale.
    F16,
}

/// A floating-point format that weights are stored in one by one.
///
/// ```
/// use niwaki::quantize::{FloatFormat, Scheme};
/// assert_eq!(Scheme::Float(FloatFormat::F8E5M2).to_string(), "f8-e5m2");
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatFormat {
    /// IEEE 754 binary16, up to 65504.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// OCP 8-bit E4M3, up to 448, without infinities.
    F8E4M3,
    /// OCP 8-bit E5M2, up to 57344.
    F8E5M2,
}

impl FloatFormat {
    const ALL: [(Self, &'static str); 4] =
        [(Self::F16, "f16"), (Self::Bf16, "bf16"), (Self::F8E4M3, "f8-e4m3"), (Self::F8E5M2, "f8-e5m2")];

    pub(crate) const fn kernel(self) -> MiniFloat {
        match self {
            Self::F16 => MiniFloat::F16,
            Self::Bf16 => MiniFloat::BF16,
            Self::F8E4M3 => MiniFloat::E4M3,
            Self::F8E5M2 => MiniFloat::E5M2,
        }
    }
}

/// How a tensor was quantized. Its text is compact and reads back as the same scheme.
///
/// ```
/// use niwaki::quantize::Scheme;
///
/// # fn main() -> niwaki::Result<()> {
/// for text in ["int8 symmetric channel:0", "int4 affine group:64 f16-scales", "int4 symmetric group:32@0",
///     "fixed q2.5", "f8-e4m3", "ggml q4-k", "planes 2+2+4 nested channel:0", "planes 4+4 refitted tensor"] {
///     assert_eq!(text.parse::<Scheme>()?.to_string(), text);
/// }
/// let error = "int9 symmetric tensor".parse::<Scheme>().unwrap_err();
/// assert_eq!(error.to_string(), "`int9 symmetric tensor` is no quantization scheme: 9 bits are outside 1 to 8");
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Integers of one step size: `int8 symmetric channel:0`.
    #[non_exhaustive]
    Int {
        /// Bits of a code.
        bits: Bits,
        /// Around 0 or a zero point.
        symmetry: Symmetry,
        /// Which weights share a scale.
        scope: Scope,
        /// How scales are stored.
        scales: ScaleType,
    },
    /// Fixed point: a sign, `integer` and `fraction` bits; w = code / 2^fraction: `fixed q2.5`.
    #[non_exhaustive]
    Fixed {
        /// Bits before the point, the sign not counted.
        integer: u32,
        /// Bits behind the point.
        fraction: u32,
    },
    /// A small float: `f8-e4m3`.
    Float(FloatFormat),
    /// Blocks of ggml, scales and codes in one: `ggml q4-k`.
    Ggml(BlockFormat),
    /// Sums of integers at several scales: `planes 2+2+4 nested channel:0`.
    #[non_exhaustive]
    Planes {
        /// Bits of each plane, the coarsest first.
        bits: Vec<Bits>,
        /// Whether each scale is the one before over 2^bits, so that one scale serves all; otherwise each plane
        /// has scales of its own.
        nested: bool,
        /// Which weights share a scale.
        scope: Scope,
        /// How scales are stored.
        scales: ScaleType,
    },
}

impl Scheme {
    /// Bits of one weight's codes, scales and bitmap not counted.
    ///
    /// ```
    /// # use niwaki::quantize::Scheme;
    /// assert_eq!("planes 2+2+4 nested tensor".parse::<Scheme>()?.code_bits(), 8);
    /// # Ok::<(), niwaki::Error>(())
    /// ```
    pub fn code_bits(&self) -> u32 {
        match self {
            Self::Ggml(format) => format.code_bits(),
            _ => self.plane_bits().iter().sum(),
        }
    }

    /// Which weights share a scale; `None` where there are none, or blocks hold them.
    pub fn scope(&self) -> Option<Scope> {
        match self {
            Self::Int { scope, .. } | Self::Planes { scope, .. } => Some(*scope),
            Self::Fixed { .. } | Self::Float(_) | Self::Ggml(_) => None,
        }
    }

    /// Bits of the packed codes of each plane; blocks have none.
    pub(crate) fn plane_bits(&self) -> Vec<u32> {
        match self {
            Self::Int { bits, .. } => vec![bits.get()],
            Self::Fixed { integer, fraction } => vec![1 + integer + fraction],
            Self::Float(format) => vec![format.kernel().bits()],
            Self::Planes { bits, .. } => bits.iter().map(|b| b.get()).collect(),
            Self::Ggml(_) => Vec::new(),
        }
    }

    pub(crate) fn scale_type(&self) -> ScaleType {
        match self {
            Self::Int { scales, .. } | Self::Planes { scales, .. } => *scales,
            Self::Fixed { .. } | Self::Float(_) | Self::Ggml(_) => ScaleType::F32,
        }
    }

    pub(crate) fn has_zero_points(&self) -> bool {
        matches!(self, Self::Int { symmetry: Symmetry::Affine, .. })
    }

    /// How many scales each block has.
    pub(crate) fn scale_sets(&self) -> usize {
        match self {
            Self::Int { .. } | Self::Planes { nested: true, .. } => 1,
            Self::Planes { bits, .. } => bits.len(),
            Self::Fixed { .. } | Self::Float(_) | Self::Ggml(_) => 0,
        }
    }

    /// What fields that were set one by one can get wrong together.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Int { bits, symmetry: Symmetry::Symmetric, .. } if bits.get() == 1 => {
                Err(Error::setting("1-bit symmetric codes hold only 0; use affine"))
            }
            Self::Fixed { integer, fraction } => {
                let total = integer.saturating_add(*fraction).saturating_add(1);
                if (2..=16).contains(&total) {
                    return Ok(());
                }
                Err(Error::setting(format!("fixed q{integer}.{fraction} has {total} bits, outside 2 to 16")))
            }
            Self::Planes { bits, .. } => check_planes(bits),
            _ => Ok(()),
        }
    }
}

fn check_planes(bits: &[Bits]) -> Result<()> {
    let total: u32 = bits.iter().map(|b| b.get()).sum();
    if bits.is_empty() || bits.len() > 16 || total > 16 {
        return Err(Error::setting(format!(
            "{} planes of {total} bits together: 1 to 16 planes of at most 16 bits can be",
            bits.len()
        )));
    }
    if bits[0].get() == 1 {
        return Err(Error::setting("a first plane of 1 bit holds a sign and no magnitude; give it 2"));
    }
    Ok(())
}

impl Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model => write!(f, "model"),
            Self::Tensor => write!(f, "tensor"),
            Self::Channel { axis } => write!(f, "channel:{axis}"),
            Self::Group { size, axis: 1 } => write!(f, "group:{size}"),
            Self::Group { size, axis } => write!(f, "group:{size}@{axis}"),
        }
    }
}

impl Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int { bits, symmetry, scope, .. } => {
                let symmetry = if *symmetry == Symmetry::Symmetric { "symmetric" } else { "affine" };
                write!(f, "int{bits} {symmetry} {scope}")?;
            }
            Self::Fixed { integer, fraction } => write!(f, "fixed q{integer}.{fraction}")?,
            Self::Float(format) => {
                let name = FloatFormat::ALL.iter().find(|(other, _)| other == format);
                write!(f, "{}", name.map_or("float", |(_, name)| name))?;
            }
            Self::Ggml(format) => write!(f, "ggml {format}")?,
            Self::Planes { bits, nested, scope, .. } => {
                let bits: Vec<String> = bits.iter().map(ToString::to_string).collect();
                let nested = if *nested { "nested" } else { "refitted" };
                write!(f, "planes {} {nested} {scope}", bits.join("+"))?;
            }
        }
        if self.scale_type() == ScaleType::F16 { write!(f, " f16-scales") } else { Ok(()) }
    }
}

impl FromStr for Scheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The end of an error, so a long or odd text stays readable.
        let fail = |why: String| Error::format(format!("`{text}` is no quantization scheme: {why}"));
        let scheme = parse(text).ok_or_else(|| fail("it cannot be read".into()))?;
        let scheme = scheme.and_then(|scheme| scheme.check().map(|()| scheme));
        let scheme = scheme.map_err(|error| fail(error.to_string()))?;
        // One text a scheme: no other spacing, no leading zeros.
        if scheme.to_string() == text {
            Ok(scheme)
        } else {
            Err(fail(format!("it should be written `{scheme}`")))
        }
    }
}

/// `None` for what has no meaning, an error for numbers out of range.
fn parse(text: &str) -> Option<Result<Scheme>> {
    if let Some((format, _)) = FloatFormat::ALL.iter().find(|(_, name)| *name == text) {
        return Some(Ok(Scheme::Float(*format)));
    }
    let (text, scales) = match text.strip_suffix(" f16-scales") {
        Some(text) => (text, ScaleType::F16),
        None => (text, ScaleType::F32),
    };
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        ["ggml", format] if scales == ScaleType::F32 => {
            let (format, _) = BlockFormat::ALL.iter().find(|(_, name)| *name == format)?;
            Some(Ok(Scheme::Ggml(*format)))
        }
        ["fixed", format] if scales == ScaleType::F32 => {
            let (integer, fraction) = format.strip_prefix('q')?.split_once('.')?;
            Some(Ok(Scheme::Fixed { integer: integer.parse().ok()?, fraction: fraction.parse().ok()? }))
        }
        ["planes", bits, nested, scope] => {
            let nested = one_of(nested, "nested", "refitted")?;
            let counts: Option<Vec<u32>> = bits.split('+').map(|b| b.parse().ok()).collect();
            let bits: Result<Vec<Bits>> = counts?.into_iter().map(Bits::new).collect();
            let scope = parse_scope(scope)?;
            Some(bits.and_then(|bits| Ok(Scheme::Planes { bits, nested, scope: scope?, scales })))
        }
        [int, symmetry, scope] => {
            let bits = Bits::new(int.strip_prefix("int")?.parse().ok()?);
            let symmetric = one_of(symmetry, "symmetric", "affine")?;
            let symmetry = if symmetric { Symmetry::Symmetric } else { Symmetry::Affine };
            let scope = parse_scope(scope)?;
            Some(bits.and_then(|bits| Ok(Scheme::Int { bits, symmetry, scope: scope?, scales })))
        }
        _ => None,
    }
}

fn parse_scope(text: &str) -> Option<Result<Scope>> {
    let scope = match text.split_once(':') {
        None => {
            return one_of(text, "model", "tensor").map(|m| Ok(if m { Scope::Model } else { Scope::Tensor }));
        }
        Some(("channel", axis)) => Scope::Channel { axis: axis.parse().ok()? },
        Some(("group", group)) => {
            let (size, axis) = group.split_once('@').unwrap_or((group, "1"));
            let axis = axis.parse().ok()?;
            return Some(GroupSize::new(size.parse().ok()?).map(|size| Scope::Group { size, axis }));
        }
        Some(_) => return None,
    };
    Some(Ok(scope))
}

fn one_of(text: &str, yes: &str, no: &str) -> Option<bool> {
    if text == yes { Some(true) } else { (text == no).then_some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn text_reads_back() {
        for text in [
            "int8 symmetric model",
            "int1 affine tensor",
            "int3 affine channel:12 f16-scales",
            "int4 symmetric group:64",
            "int4 symmetric group:64@0 f16-scales",
            "fixed q0.15",
            "f16",
            "bf16",
            "f8-e5m2",
            "ggml q8-0",
            "ggml q4-k",
            "planes 2+1+1+1+1+1+1 nested group:32 f16-scales",
        ] {
            assert_eq!(text.parse::<Scheme>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_text_is_a_format_error() {
        for text in [
            "",
            " ",
            "int8",
            "int0 affine tensor",
            "int9 affine tensor",
            "int1 symmetric tensor",
            "int08 affine tensor",
            "int+8 affine tensor",
            "int8  affine tensor",
            "int8 affine tensor ",
            "int8 affine channel",
            "int8 affine channel:-1",
            "int8 affine group:0",
            "int8 affine group:99999999999999999999999",
            "int8 affine group:4@1",
            "fixed q9.9",
            "fixed q0.0",
            "fixed q4294967295.4294967295",
            "fixed q2.5 f16-scales",
            "f16 f16-scales",
            "ggml q4_k",
            "ggml q4-k f16-scales",
            "planes  nested tensor",
            "planes 1+4 nested tensor",
            "planes 8+8+8 nested tensor",
            "planes 2+2 mixed tensor",
        ] {
            let error = text.parse::<Scheme>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{text}");
        }
    }
}
