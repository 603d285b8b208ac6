//! `SCHEME[:…][,option…]`: how weights are stored.

use std::fmt::{self, Display};
use std::str::FromStr;

use niwaki::quantize::{Bits, ElementWise, FloatFormat, GroupSize, MultiScale, Quantizer, Range, Uniform};

use super::{Parsed, count, list, pattern};

/// A quantizer and its options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantize {
    kind: Kind,
    options: Options,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Uniform(u32, Grain),
    Planes(Vec<u32>, Grain),
    Fixed(u32, u32),
    Float(FloatFormat),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Grain {
    Channel,
    Tensor,
    Model,
    Group(usize),
}

#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the command line")]
struct Options {
    affine: bool,
    mse: bool,
    entropy: bool,
    percentile: Option<f64>,
    f16_scales: bool,
    refitted: bool,
    saturate: bool,
    /// weights that stay as they are
    keep: Vec<String>,
}

const KINDS: [(&str, &[&str]); 4] = [
    ("uniform", &["affine", "mse", "entropy", "percentile", "f16-scales", "keep"]),
    ("planes", &["refitted", "f16-scales", "keep"]),
    ("fixed", &["keep"]),
    ("float", &["saturate", "keep"]),
];
const FLOATS: [(&str, FloatFormat); 4] = [
    ("f16", FloatFormat::F16),
    ("bf16", FloatFormat::Bf16),
    ("f8-e4m3", FloatFormat::F8E4M3),
    ("f8-e5m2", FloatFormat::F8E5M2),
];
const FORMS: &str = "`uniform:BITS:channel|tensor|model|group:SIZE`, `planes:2+2+4:…`, `fixed:2.5`, `f16`, \
                     `bf16`, `f8-e4m3` and `f8-e5m2`";

impl Quantize {
    /// Patterns of weights that are not quantized.
    pub(crate) fn kept(&self) -> &[String] {
        &self.options.keep
    }

    /// Whether it weighs errors by what passes through the network, where that is known.
    pub(crate) fn reads_inputs(&self) -> bool {
        self.options.mse
    }

    pub(crate) fn stage(&self) -> niwaki::Result<Box<dyn Quantizer<f32>>> {
        let options = &self.options;
        Ok(match &self.kind {
            Kind::Uniform(bits, grain) => {
                let mut uniform = Uniform::new(Bits::new(*bits)?);
                uniform = match grain {
                    Grain::Channel => uniform.per_channel(),
                    Grain::Tensor => uniform.per_tensor(),
                    Grain::Model => uniform.per_model(),
                    Grain::Group(size) => uniform.per_group(GroupSize::new(*size)?),
                };
                uniform = if options.affine { uniform.affine() } else { uniform };
                uniform = if options.mse { uniform.range(Range::Mse) } else { uniform };
                uniform = if options.entropy { uniform.range(Range::Entropy) } else { uniform };
                if let Some(p) = options.percentile {
                    uniform = uniform.range(Range::percentile(p)?);
                }
                Box::new(if options.f16_scales { uniform.f16_scales() } else { uniform })
            }
            Kind::Planes(bits, grain) => {
                let planes =
                    if options.refitted { MultiScale::refitted(bits) } else { MultiScale::nested(bits) }?;
                let planes = match grain {
                    Grain::Tensor => planes.per_tensor(),
                    Grain::Group(size) => planes.per_group(GroupSize::new(*size)?),
                    Grain::Channel | Grain::Model => planes.per_channel(),
                };
                Box::new(if options.f16_scales { planes.f16_scales() } else { planes })
            }
            Kind::Fixed(integer, fraction) => Box::new(ElementWise::fixed(*integer, *fraction)?),
            Kind::Float(format) => {
                let float = ElementWise::float(*format);
                Box::new(if options.saturate { float.saturate() } else { float })
            }
        })
    }
}

impl FromStr for Quantize {
    type Err = String;

    fn from_str(text: &str) -> Parsed<Self> {
        let mut parts = text.split(',');
        let head = parts.next().unwrap_or_default();
        let kind = kind(head)?;
        let name = match kind {
            Kind::Uniform(..) => "uniform",
            Kind::Planes(..) => "planes",
            Kind::Fixed(..) => "fixed",
            Kind::Float(_) => "float",
        };
        let allowed = KINDS.iter().find(|(kind, _)| *kind == name).map_or(&[][..], |(_, options)| *options);
        let mut options = Options::default();
        for part in parts {
            let (option, value) = part.split_once('=').unwrap_or((part, ""));
            if !allowed.contains(&option) {
                return Err(format!(
                    "`{head}` has no option `{option}`; it has {}",
                    list(allowed.iter().copied())
                ));
            }
            options.take(option, value).map_err(|error| format!("option `{option}`: {error}"))?;
        }
        if [options.mse, options.entropy, options.percentile.is_some()].iter().filter(|set| **set).count() > 1
        {
            return Err("only one of `mse`, `entropy` and `percentile` can find the range".to_owned());
        }
        let quantize = Self { kind, options };
        // What the library refuses is refused before anything is read.
        let check = quantize.stage().and_then(|stage| stage.check());
        check.map_err(|error| error.to_string()).map(|()| quantize)
    }
}

fn kind(text: &str) -> Parsed<Kind> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let float = FLOATS.iter().find(|(name, _)| *name == text).map(|(_, format)| Kind::Float(*format));
    let number = |word: &str| word.parse().map_err(|_| format!("`{word}` is no number of bits"));
    match name {
        "uniform" => {
            let (bits, grain) = rest.split_once(':').unwrap_or((rest, "channel"));
            Ok(Kind::Uniform(number(bits)?, grain_of(grain)?))
        }
        "planes" => {
            let (bits, grain) = rest.split_once(':').unwrap_or((rest, "channel"));
            let bits = bits.split('+').map(number).collect::<Parsed<_>>()?;
            match grain_of(grain)? {
                Grain::Model => Err("planes have scales per `channel`, `tensor` or `group:SIZE`".to_owned()),
                grain => Ok(Kind::Planes(bits, grain)),
            }
        }
        "fixed" => {
            let (integer, fraction) =
                rest.split_once('.').ok_or("it should be fixed:INTEGER.FRACTION bits")?;
            Ok(Kind::Fixed(number(integer)?, number(fraction)?))
        }
        _ => float.ok_or_else(|| format!("schemes are {FORMS}")),
    }
}

fn grain_of(word: &str) -> Parsed<Grain> {
    match (word, word.strip_prefix("group:")) {
        ("channel", _) => Ok(Grain::Channel),
        ("tensor", _) => Ok(Grain::Tensor),
        ("model", _) => Ok(Grain::Model),
        (_, Some(size)) => Ok(Grain::Group(count(size)?)),
        _ => Err(format!("`{word}` is none of `channel`, `tensor`, `model` and `group:SIZE`")),
    }
}

impl Options {
    fn take(&mut self, option: &str, value: &str) -> Parsed<()> {
        match option {
            "keep" => self.keep.push(pattern(value)?),
            "percentile" => {
                self.percentile = Some(value.parse().map_err(|_| format!("`{value}` is no number"))?);
            }
            _ if !value.is_empty() => return Err("it takes no value".to_owned()),
            "affine" => self.affine = true,
            "mse" => self.mse = true,
            "entropy" => self.entropy = true,
            "f16-scales" => self.f16_scales = true,
            "refitted" => self.refitted = true,
            _ => self.saturate = true,
        }
        Ok(())
    }
}

/// As it would be written, options in a fixed order.
impl Display for Quantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Uniform(bits, grain) => write!(f, "uniform:{bits}:{grain}")?,
            Kind::Planes(bits, grain) => {
                let bits: Vec<String> = bits.iter().map(ToString::to_string).collect();
                write!(f, "planes:{}:{grain}", bits.join("+"))?;
            }
            Kind::Fixed(integer, fraction) => write!(f, "fixed:{integer}.{fraction}")?,
            Kind::Float(format) => {
                f.write_str(FLOATS.iter().find(|(_, other)| other == format).map_or("", |(name, _)| name))?;
            }
        }
        let options = &self.options;
        for (set, name) in [
            (options.affine, "affine"),
            (options.mse, "mse"),
            (options.entropy, "entropy"),
            (options.f16_scales, "f16-scales"),
            (options.refitted, "refitted"),
            (options.saturate, "saturate"),
        ] {
            if set {
                write!(f, ",{name}")?;
            }
        }
        options.percentile.iter().try_for_each(|p| write!(f, ",percentile={p}"))?;
        options.keep.iter().try_for_each(|pattern| write!(f, ",keep={pattern}"))
    }
}

impl Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel => f.write_str("channel"),
            Self::Tensor => f.write_str("tensor"),
            Self::Model => f.write_str("model"),
            Self::Group(size) => write!(f, "group:{size}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for text in [
            "uniform:8:channel",
            "uniform:8:tensor",
            "uniform:4:group:32,affine,f16-scales",
            "uniform:2:model,mse,keep=re:fc.*,keep=head",
            "uniform:4:channel,percentile=99.5",
            "planes:2+2+4:channel,refitted",
            "planes:4+4:group:64,f16-scales",
            "fixed:2.5",
            "f16",
            "bf16,saturate,keep=fc",
            "f8-e4m3",
        ] {
            assert_eq!(text.parse::<Quantize>().unwrap().to_string(), text);
        }
        assert_eq!("uniform:8".parse::<Quantize>(), "uniform:8:channel".parse());
    }

    #[test]
    fn wrong_words_say_what_would_be_right() {
        for (text, part) in [
            ("int8", "`uniform:BITS"),
            ("uniform", "number of bits"),
            ("uniform:9:channel", "9 bits are outside 1 to 8"),
            ("uniform:1:channel", "use affine"),
            ("uniform:8:row", "`group:SIZE`"),
            ("uniform:8:group:0", "above 0"),
            ("uniform:8:channel,mse,entropy", "only one of"),
            ("uniform:8:channel,percentile=0", "outside (0, 100]"),
            ("uniform:8:channel,affine=1", "no value"),
            ("uniform:8:channel,saturate", "no option `saturate`"),
            ("uniform:8:channel,keep=re:(", "re:("),
            ("planes:1+4", "first plane"),
            ("planes:2+2:model", "`group:SIZE`"),
            ("fixed:9.9", "outside 2 to 16"),
            ("fixed:8", "INTEGER.FRACTION"),
        ] {
            let error = text.parse::<Quantize>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
