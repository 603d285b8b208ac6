//! `SCHEME[:…][,option…]`: how weights are stored.

use std::fmt::{self, Display};
use std::str::FromStr;

use niwaki::onnx::Qdq;
use niwaki::quantize::{
    Bits, BlockFormat, Distillation, ElementWise, FloatFormat, Ggml, Gptq, GroupSize, MultiScale, Quantizer,
    Range, Uniform,
};

use super::grain::{Grain, grain_of, own_scales};
use super::options::{Form, Options, Spec, split};
use super::{Parsed, list};

/// A quantizer and its options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantize {
    kind: Kind,
    options: Options,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Uniform(u32, Grain),
    Gptq(u32, Grain),
    /// and whether inputs are looked for on which it does worst
    Distill(u32, Grain, bool),
    MultiScale(Vec<u32>, Grain),
    Fixed(u32, u32),
    Float(FloatFormat),
    Gguf(BlockFormat),
    /// bits of weights
    Qdq(u32),
    Dynamic(u32),
}

/// What is done with activations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Activations {
    /// Codes in ranges from calibration.
    Static(Qdq),
    /// Codes in ranges that are found while the graph runs.
    Dynamic,
}

/// Kinds and the options that each takes.
const KINDS: [(&str, &[&Spec]); 9] = [
    ("uniform", &[&AFFINE, &MSE, &HQQ, &ENTROPY, &PERCENTILE, &F16_SCALES, &KEEP]),
    (
        "gptq",
        &[
            &AFFINE,
            &MSE,
            &HQQ,
            &ENTROPY,
            &PERCENTILE,
            &F16_SCALES,
            &DAMP,
            &BLOCK,
            &ACT_ORDER,
            &STATIC_GROUPS,
            &SEARCH,
            &POLISH,
            &SPARSITY,
            &N_OF_M,
            &KEEP,
        ],
    ),
    ("distill", &[&AFFINE, &MSE, &HQQ, &ENTROPY, &PERCENTILE, &F16_SCALES, &DAMP, &STEPS, &KEEP]),
    ("multi-scale", &[&REFITTED, &F16_SCALES, &KEEP]),
    ("fixed", &[&KEEP]),
    ("float", &[&SATURATE, &KEEP]),
    ("gguf", &[&KEEP]),
    ("qdq", &[&MSE, &ENTROPY, &PERCENTILE, &SIGNED, &KEEP]),
    ("dynamic", &[&KEEP]),
];
const AFFINE: Spec = Spec { name: "affine", form: Form::Flag };
const MSE: Spec = Spec { name: "mse", form: Form::Flag };
const HQQ: Spec = Spec { name: "hqq", form: Form::Flag };
const ENTROPY: Spec = Spec { name: "entropy", form: Form::Flag };
const PERCENTILE: Spec = Spec { name: "percentile", form: Form::Number };
const F16_SCALES: Spec = Spec { name: "f16-scales", form: Form::Flag };
const DAMP: Spec = Spec { name: "damp", form: Form::Number };
const BLOCK: Spec = Spec { name: "block", form: Form::Count };
const ACT_ORDER: Spec = Spec { name: "act-order", form: Form::Flag };
const STATIC_GROUPS: Spec = Spec { name: "static-groups", form: Form::Flag };
const SPARSITY: Spec = Spec { name: "sparsity", form: Form::Share };
const N_OF_M: Spec = Spec { name: "n-of-m", form: Form::NOfM };
const SEARCH: Spec = Spec { name: "search", form: Form::Flag };
const POLISH: Spec = Spec { name: "polish", form: Form::Count };
const STEPS: Spec = Spec { name: "steps", form: Form::Count };
const REFITTED: Spec = Spec { name: "refitted", form: Form::Flag };
const SATURATE: Spec = Spec { name: "saturate", form: Form::Flag };
const SIGNED: Spec = Spec { name: "signed", form: Form::Flag };
/// Weights that stay as they are.
const KEEP: Spec = Spec { name: "keep", form: Form::Pattern };
/// Of these, one finds the range.
const RANGES: [&Spec; 4] = [&MSE, &HQQ, &ENTROPY, &PERCENTILE];
const FLOATS: [(&str, FloatFormat); 4] = [
    ("f16", FloatFormat::F16),
    ("bf16", FloatFormat::Bf16),
    ("f8-e4m3", FloatFormat::F8E4M3),
    ("f8-e5m2", FloatFormat::F8E5M2),
];
/// As llama.cpp writes them, in small letters.
const BLOCKS: [(&str, BlockFormat); 6] = [
    ("q8_0", BlockFormat::Q8_0),
    ("q4_0", BlockFormat::Q4_0),
    ("q4_1", BlockFormat::Q4_1),
    ("q5_0", BlockFormat::Q5_0),
    ("q4_k", BlockFormat::Q4K),
    ("q6_k", BlockFormat::Q6K),
];
/// Rounds against an opponent.
const ROUNDS: usize = 4;
const ADVERSARIAL: &str = ":adversarial";
const FORMS: &str = "`uniform:BITS:channel|tensor|model|group:SIZE`, `gptq:BITS:…`, `distill:BITS:…`, `multi-scale:2+2+4:…`, `fixed:2.5`, `f16`, \
                     `bf16`, `f8-e4m3`, `f8-e5m2`, `gguf:q4_k`, `qdq:8` and `dynamic:8`";

impl Quantize {
    /// Patterns of weights that are not quantized.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.options.patterns(&KEEP)
    }

    /// Whether it learns its rounding from what passes through the network, and cannot do without.
    pub(crate) fn learns(&self) -> bool {
        matches!(self.kind, Kind::Gptq(..) | Kind::Distill(..))
    }

    /// Whether it cannot do without calibration inputs.
    pub(crate) fn needs_calibration(&self) -> bool {
        self.learns() || matches!(self.kind, Kind::Qdq(_))
    }

    /// What is done with activations, if anything; options are about their ranges.
    pub(crate) fn activations(&self) -> niwaki::Result<Option<Activations>> {
        Ok(match self.kind {
            Kind::Qdq(_) => {
                let qdq = Qdq::new().range(self.range()?.unwrap_or_default());
                Some(Activations::Static(if self.options.has(&SIGNED) { qdq.signed_weights() } else { qdq }))
            }
            Kind::Dynamic(_) => Some(Activations::Dynamic),
            _ => None,
        })
    }

    /// The same without taking weights away.
    pub(crate) fn full(&self) -> Self {
        Self { kind: self.kind.clone(), options: self.options.without(&[&SPARSITY, &N_OF_M]) }
    }

    /// What the inputs of a weight must be a multiple of.
    pub(crate) fn multiple(&self) -> usize {
        self.options.n_of_m(&N_OF_M).map_or(1, |(_, of)| of)
    }

    /// Whether codes are plain integers with a scale.
    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.kind, Kind::Uniform(..) | Kind::Gptq(..) | Kind::Distill(..))
    }

    /// Whether it weighs errors by what passes through the network, where that is known.
    pub(crate) fn reads_inputs(&self) -> bool {
        self.learns() || !matches!(self.kind, Kind::Qdq(_)) && self.options.has(&MSE)
    }

    /// The same codes by nearest rounding, in the range of least squared error unless another is named: for weights
    /// whose inputs are not seen, and for what tries scales out. `None` where codes are no plain integers.
    pub(crate) fn nearest(&self) -> niwaki::Result<Option<Uniform>> {
        let (Kind::Uniform(bits, grain) | Kind::Gptq(bits, grain) | Kind::Distill(bits, grain, _)) =
            self.kind
        else {
            return Ok(None);
        };
        let uniform = self.uniform(bits, grain)?;
        let plain = !self.learns() || RANGES.iter().any(|range| self.options.has(range));
        Ok(Some(if plain { uniform } else { uniform.range(Range::Mse) }))
    }

    /// The quantizer; `centred` when biases are corrected afterwards, so that mean outputs are not its business.
    pub(crate) fn stage(&self, centred: bool) -> niwaki::Result<Box<dyn Quantizer<f32>>> {
        let options = &self.options;
        Ok(match &self.kind {
            Kind::Uniform(bits, grain) => Box::new(self.uniform(*bits, *grain)?),
            Kind::Gptq(bits, grain) => {
                let gptq = self.gptq()?;
                let gptq = if centred { gptq.centred() } else { gptq };
                Box::new(self.uniform(*bits, *grain)?.rounding(gptq))
            }
            Kind::Distill(bits, grain, adversarial) => {
                let mut student = Distillation::new(self.uniform(*bits, *grain)?);
                if let Some(damp) = options.number(&DAMP) {
                    student = student.damp(damp)?;
                }
                let student = options.count(&STEPS).into_iter().fold(student, Distillation::steps);
                let student = if *adversarial { student.adversarial(ROUNDS) } else { student };
                Box::new(if centred { student.centred() } else { student })
            }
            Kind::MultiScale(bits, grain) => {
                let refitted = options.has(&REFITTED);
                let scales = if refitted { MultiScale::refitted(bits) } else { MultiScale::nested(bits) }?;
                let scales = match grain {
                    Grain::Tensor => scales.per_tensor(),
                    Grain::Group(size) => scales.per_group(GroupSize::new(*size)?),
                    Grain::Channel | Grain::Model => scales.per_channel(),
                };
                Box::new(if options.has(&F16_SCALES) { scales.f16_scales() } else { scales })
            }
            Kind::Fixed(integer, fraction) => Box::new(ElementWise::fixed(*integer, *fraction)?),
            Kind::Gguf(format) => Box::new(Ggml::new(*format)),
            Kind::Qdq(bits) | Kind::Dynamic(bits) => {
                self.range()?;
                Box::new(Uniform::new(Bits::new(*bits)?).per_channel())
            }
            Kind::Float(format) => {
                let float = ElementWise::float(*format);
                Box::new(if options.has(&SATURATE) { float.saturate() } else { float })
            }
        })
    }

    fn gptq(&self) -> niwaki::Result<Gptq> {
        let options = &self.options;
        let mut gptq = Gptq::new();
        if let Some(damp) = options.number(&DAMP) {
            gptq = gptq.damp(damp)?;
        }
        if let Some(block) = options.count(&BLOCK) {
            gptq = gptq.block(block)?;
        }
        gptq = if options.has(&ACT_ORDER) { gptq.act_order() } else { gptq };
        gptq = if options.has(&STATIC_GROUPS) { gptq.static_groups() } else { gptq };
        gptq = if options.has(&SEARCH) { gptq.search() } else { gptq };
        gptq = options.count(&POLISH).into_iter().fold(gptq, Gptq::polish);
        gptq = options.share(&SPARSITY).into_iter().fold(gptq, Gptq::sparsity);
        match options.n_of_m(&N_OF_M) {
            Some((keep, of)) => gptq.n_of_m(keep, of),
            None => Ok(gptq),
        }
    }

    fn uniform(&self, bits: u32, grain: Grain) -> niwaki::Result<Uniform> {
        let (uniform, options) = (Uniform::new(Bits::new(bits)?), &self.options);
        let mut uniform = match grain {
            Grain::Channel => uniform.per_channel(),
            Grain::Tensor => uniform.per_tensor(),
            Grain::Model => uniform.per_model(),
            Grain::Group(size) => uniform.per_group(GroupSize::new(size)?),
        };
        uniform = if options.has(&AFFINE) { uniform.affine() } else { uniform };
        uniform = self.range()?.into_iter().fold(uniform, Uniform::range);
        Ok(if options.has(&F16_SCALES) { uniform.f16_scales() } else { uniform })
    }

    /// The range that was asked for.
    fn range(&self) -> niwaki::Result<Option<Range>> {
        let flags = [(&MSE, Range::Mse), (&HQQ, Range::HalfQuadratic), (&ENTROPY, Range::Entropy)];
        let flag = flags.into_iter().find(|(flag, _)| self.options.has(flag)).map(|(_, range)| range);
        let percentile = self.options.number(&PERCENTILE).map(Range::percentile).transpose()?;
        Ok(flag.or(percentile))
    }
}

impl FromStr for Quantize {
    type Err = String;

    fn from_str(text: &str) -> Parsed<Self> {
        let (head, words) = split(text);
        let kind = kind(head)?;
        let name = match kind {
            Kind::Uniform(..) => "uniform",
            Kind::Gptq(..) => "gptq",
            Kind::Distill(..) => "distill",
            Kind::MultiScale(..) => "multi-scale",
            Kind::Fixed(..) => "fixed",
            Kind::Float(_) => "float",
            Kind::Gguf(_) => "gguf",
            Kind::Qdq(_) => "qdq",
            Kind::Dynamic(_) => "dynamic",
        };
        let specs = KINDS.iter().find(|(kind, _)| *kind == name).map_or(&[][..], |(_, specs)| *specs);
        let options = Options::read(head, specs, words)?;
        if RANGES.iter().filter(|range| options.has(range)).count() > 1 {
            return Err(format!("only one of {} can find the range", list(RANGES.iter().map(|r| r.name))));
        }
        if options.has(&SPARSITY) && options.has(&N_OF_M) {
            return Err("only one of `sparsity` and `n-of-m` can say what goes".to_owned());
        }
        let quantize = Self { kind, options };
        // What the library refuses is refused before anything is read.
        let check = quantize.stage(false).and_then(|stage| stage.check());
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
        "gptq" => {
            let (bits, grain) = rest.split_once(':').unwrap_or((rest, "channel"));
            Ok(Kind::Gptq(number(bits)?, own_scales(grain)?))
        }
        "distill" => {
            let (rest, adversarial) = match rest.strip_suffix(ADVERSARIAL) {
                Some(rest) => (rest, true),
                None => (rest, false),
            };
            let (bits, grain) = rest.split_once(':').unwrap_or((rest, "channel"));
            Ok(Kind::Distill(number(bits)?, own_scales(grain)?, adversarial))
        }
        "multi-scale" => {
            let (bits, grain) = rest.split_once(':').unwrap_or((rest, "channel"));
            let bits = bits.split('+').map(number).collect::<Parsed<_>>()?;
            Ok(Kind::MultiScale(bits, own_scales(grain)?))
        }
        "fixed" => {
            let (integer, fraction) =
                rest.split_once('.').ok_or("it should be fixed:INTEGER.FRACTION bits")?;
            Ok(Kind::Fixed(number(integer)?, number(fraction)?))
        }
        "gguf" => {
            let found = BLOCKS.iter().find(|(name, _)| *name == rest);
            let names = || format!("block formats are {}", list(BLOCKS.iter().map(|(name, _)| *name)));
            found.map(|(_, format)| Kind::Gguf(*format)).ok_or_else(names)
        }
        "qdq" | "dynamic" if !matches!(rest, "7" | "8") => {
            Err(format!("activations have 8 bits, weights 8 or 7: {name}:8"))
        }
        "qdq" => Ok(Kind::Qdq(number(rest)?)),
        "dynamic" => Ok(Kind::Dynamic(number(rest)?)),
        _ => float.ok_or_else(|| format!("schemes are {FORMS}")),
    }
}

/// As it would be written, options in a fixed order.
impl Display for Quantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Uniform(bits, grain) => write!(f, "uniform:{bits}:{grain}")?,
            Kind::Gptq(bits, grain) => write!(f, "gptq:{bits}:{grain}")?,
            Kind::Distill(bits, grain, adversarial) => {
                write!(f, "distill:{bits}:{grain}{}", if *adversarial { ADVERSARIAL } else { "" })?;
            }
            Kind::MultiScale(bits, grain) => {
                let bits: Vec<String> = bits.iter().map(ToString::to_string).collect();
                write!(f, "multi-scale:{}:{grain}", bits.join("+"))?;
            }
            Kind::Fixed(integer, fraction) => write!(f, "fixed:{integer}.{fraction}")?,
            Kind::Gguf(format) => {
                let name = BLOCKS.iter().find(|(_, other)| other == format).map_or("", |(name, _)| name);
                write!(f, "gguf:{name}")?;
            }
            Kind::Qdq(bits) => write!(f, "qdq:{bits}")?,
            Kind::Dynamic(bits) => write!(f, "dynamic:{bits}")?,
            Kind::Float(format) => {
                f.write_str(FLOATS.iter().find(|(_, other)| other == format).map_or("", |(name, _)| name))?;
            }
        }
        self.options.fmt(f)
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
            "gptq:4:channel",
            "gptq:3:group:128,affine,mse,damp=0.05,block=64,act-order,sparsity=0.5,keep=fc",
            "gptq:4:group:32,hqq,f16-scales,static-groups,n-of-m=2:4",
            "distill:4:channel",
            "distill:4:group:64:adversarial,mse,steps=100",
            "multi-scale:2+2+4:channel,refitted",
            "multi-scale:4+4:group:64,f16-scales",
            "fixed:2.5",
            "f16",
            "bf16,saturate,keep=fc",
            "f8-e4m3",
            "gguf:q4_k,keep=fc",
            "qdq:8,percentile=99.9,signed,keep=fc",
            "dynamic:7,keep=fc",
        ] {
            assert_eq!(text.parse::<Quantize>().unwrap().to_string(), text);
        }
        assert_eq!("uniform:8".parse::<Quantize>(), "uniform:8:channel".parse());
        assert_eq!("uniform:4:g128".parse::<Quantize>(), "uniform:4:group:128".parse());
        assert_eq!("multi-scale:2+2+4".parse::<Quantize>(), "multi-scale:2+2+4:channel".parse());
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
            ("uniform:8:g0", "above 0"),
            ("uniform:8:gray", "`group:SIZE`"),
            ("uniform:8:channel,mse,entropy", "only one of"),
            ("uniform:8:channel,mse,hqq", "only one of `mse`, `hqq`"),
            ("uniform:4:channel,act-order", "no option `act-order`"),
            ("gptq:4:model", "its scales are per"),
            ("gptq:1:channel", "use affine"),
            ("gptq:4:channel,damp=0", "must be above 0"),
            ("gptq:4:channel,damp=much", "no number"),
            ("gptq:4:channel,block=0", "above 0"),
            ("gptq:4:channel,sparsity=1", "outside [0, 1)"),
            ("gptq:4:channel,n-of-m=4:2", "cannot keep 4 of every 2"),
            ("gptq:4:channel:adversarial", "is none of"),
            ("distill:9:channel", "9 bits are outside 1 to 8"),
            ("distill:4:channel:friendly", "is none of"),
            ("distill:4:channel,steps=0", "above 0"),
            ("uniform:8:channel,percentile=0", "outside (0, 100]"),
            ("uniform:8:channel,affine=1", "no value"),
            ("uniform:8:channel,saturate", "no option `saturate`"),
            ("uniform:8:channel,keep=re:(", "re:("),
            ("multi-scale:1+4", "first plane"),
            ("multi-scale:2+2:model", "`group:SIZE`"),
            ("fixed:9.9", "outside 2 to 16"),
            ("fixed:8", "INTEGER.FRACTION"),
            ("gguf:q2_k", "block formats are `q8_0`"),
            ("gguf:q4_k,affine", "no option `affine`"),
            ("qdq:4", "qdq:8"),
            ("qdq:8,percentile=0", "outside (0, 100]"),
        ] {
            let error = text.parse::<Quantize>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
