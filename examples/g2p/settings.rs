//! The command line.

use niwaki::prune::Sparsity;
use niwaki::quantize::Bits;

use crate::network::Outcome;

/// What goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prune {
    Channel,
    Unstructured,
    SparseGpt,
    /// Two of every four weights stay.
    TwoOfFour,
    /// Half the weights go while codes are chosen.
    Joint,
}

/// How weights find their codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    Mse,
    Gptq,
    /// GPTQ with ranges found by its own sweep, polished.
    GptqSearch,
    Distill,
    Adversarial,
}

const PRUNERS: [(&str, Prune); 5] = [
    ("channel", Prune::Channel),
    ("unstructured", Prune::Unstructured),
    ("sparsegpt", Prune::SparseGpt),
    ("2:4", Prune::TwoOfFour),
    ("joint", Prune::Joint),
];
const ROUNDINGS: [(&str, Rounding); 6] = [
    ("nearest", Rounding::Nearest),
    ("mse", Rounding::Mse),
    ("gptq", Rounding::Gptq),
    ("gptq-search", Rounding::GptqSearch),
    ("distill", Rounding::Distill),
    ("adversarial", Rounding::Adversarial),
];

/// What the command line asks for.
pub(crate) struct Settings {
    pub(crate) data: String,
    pub(crate) out: String,
    pub(crate) pruner: Prune,
    pub(crate) sparsity: Option<Sparsity>,
    pub(crate) bits: Option<Bits>,
    pub(crate) rounding: Rounding,
    pub(crate) correct_bias: bool,
}

impl Settings {
    pub(crate) fn read(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let (mut places, mut sparsity, mut bits) = (Vec::new(), None, None);
        let (mut pruner, mut rounding, mut correct_bias) = (Prune::Channel, Rounding::Mse, false);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--sparsity" => sparsity = Some(Sparsity::new(value()?.parse()?)?),
                "--bits" => bits = Some(Bits::new(value()?.parse()?)?),
                "--pruner" => pruner = one_of(&arg, &value()?, &PRUNERS)?,
                "--rounding" => rounding = one_of(&arg, &value()?, &ROUNDINGS)?,
                "--correct-bias" => correct_bias = true,
                other if other.starts_with("--") => return Err(format!("there is no option {other}").into()),
                _ => places.push(arg),
            }
        }
        let [data, out] = <[String; 2]>::try_from(places).map_err(|_| "usage: g2p DATA OUT.npz [options]")?;
        let learned = matches!(rounding, Rounding::Gptq | Rounding::GptqSearch);
        if pruner == Prune::Joint && !(learned && bits.is_some() && sparsity.is_some()) {
            return Err(
                "--pruner joint chooses masks in the sweep: it needs --sparsity, --bits and --rounding gptq"
                    .into(),
            );
        }
        Ok(Self { data, out, pruner, sparsity, bits, rounding, correct_bias })
    }
}

/// The value that a word names.
fn one_of<T: Copy>(option: &str, word: &str, words: &[(&str, T)]) -> Outcome<T> {
    let found = words.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        format!("{option} is one of {}, not {word}", all.join(", ")).into()
    })
}
