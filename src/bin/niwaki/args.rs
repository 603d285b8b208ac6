//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::files::Format;
use crate::spell::{self, Activations, Criterion, Give, Prune, Quantize};

/// Makes trained neural networks smaller: ONNX models, and arrays in safetensors, npz and gguf files
#[derive(Debug, Parser)]
#[command(name = "niwaki", version, after_help = TOOL_HELP, arg_required_else_help = true)]
pub(crate) struct Tool {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows layers, couplings (what shrinks together), blocks, and what cannot shrink and why
    Inspect(Inspect),
    /// Prunes, recovers and quantizes a model
    Compress(Box<Compress>),
    /// Writes a model as another kind of file, nothing compressed
    Convert(Convert),
    /// Runs two ONNX models on the same inputs and compares what they answer
    Compare(Compare),
}

#[derive(Debug, Args)]
#[command(after_help = INSPECT_HELP)]
pub(crate) struct Inspect {
    /// An .onnx, .safetensors, .npz or .gguf file
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) trace: Trace,
    /// Prints one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = COMPRESS_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Compress {
    /// An .onnx, .safetensors, .npz or .gguf file
    pub(crate) model: PathBuf,
    /// The file to write; of the model's kind, except that arrays go to .safetensors, .npz or .gguf
    #[arg(short, long, value_name = "OUT", required_unless_present = "plan")]
    pub(crate) output: Option<PathBuf>,
    /// The kind of file to write, where its name does not say it
    #[arg(long, value_enum, requires = "output")]
    pub(crate) format: Option<Format>,

    /// What goes, in this order (repeatable): channel=0.5, unstructured=0.9, n-of-m=2:4 (or 2:4), sparsegpt=0.5,
    /// sparsegpt=2:4, tiles=0.5,size=4x4, feature-map=0.25, modules=2 (blocks) or modules=0.25; options follow, separated
    /// by commas
    #[arg(long, value_name = "KIND=AMOUNT", help_heading = "Stages")]
    pub(crate) prune: Vec<Prune>,
    /// What says how much a weight or unit matters: l0, l1, l2, linf, std-dev, geometric-median, random; with --calibration
    /// max-activation, std-dev-activations, total-confidence, wanda, subset, brain-surgeon; with --snapshot
    /// gradient-compare, gradient-compare:movement, gradient-compare:growth [default: brain-surgeon for sparsegpt, else
    /// l2]
    #[arg(long = "importance", value_name = "NAME", help_heading = "Stages")]
    pub(crate) criterion: Option<Criterion>,
    /// Gives accuracy back without training, from calibration inputs (repeatable, in this order)
    #[arg(long, value_name = "NAME", value_enum, requires = "prune", help_heading = "Stages")]
    pub(crate) recover: Vec<Give>,
    /// Stores weights in few bits: uniform:8:channel, uniform:8:tensor, uniform:4:g32; with --calibration
    /// gptq:4:channel, gptq:4:g128, distill:4:channel, distill:4:channel:adversarial; f16, bf16,
    /// multi-scale:2+2+4:channel, fixed:2.5, f8-e4m3, f8-e5m2; weights and activations of an ONNX model in 8 bits, for
    /// kernels that compute in integers: qdq:8, or dynamic:8 (matrix products only, no calibration); options follow, separated by commas
    #[arg(long, value_name = "SCHEME", help_heading = "Stages")]
    pub(crate) quantize: Option<Quantize>,
    /// Before codes, evens out the ranges of units between the weights that make and that read them (cross-layer
    /// equalization)
    #[arg(long, requires = "quantize", help_heading = "Stages")]
    pub(crate) equalize: bool,
    /// Before codes, moves a part of the size of activations into the weights that read them (SmoothQuant): 0.5 unless
    /// said
    #[arg(long, value_name = "ALPHA", num_args = 0..=1, require_equals = true, default_missing_value = "0.5",
          value_parser = alpha, requires = "quantize", help_heading = "Stages")]
    pub(crate) smooth: Option<f64>,
    /// Before codes, scales up the weights that read large activations, by as much as leaves the least error (AWQ)
    #[arg(long, requires = "quantize", help_heading = "Stages")]
    pub(crate) awq: bool,
    /// After codes, lets biases take what rounding changed in mean outputs; gptq and distill then leave that to them
    #[arg(long, requires = "quantize", help_heading = "Stages")]
    pub(crate) correct_bias: bool,

    /// Typical inputs of an ONNX model, a few hundred samples: an .npz file of one array for each input, or an .npy
    /// file for the only input
    #[arg(long, value_name = "INPUTS", help_heading = "Evidence")]
    pub(crate) calibration: Option<PathBuf>,
    /// The most memory that Gram matrices of layers may take, as in 512M or 16G; more is an error before the run
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = memory, requires = "calibration",
          help_heading = "Evidence")]
    pub(crate) memory: u64,
    /// The model as it was earlier in training, for --importance gradient-compare
    #[arg(long, value_name = "MODEL", help_heading = "Evidence")]
    pub(crate) snapshot: Option<PathBuf>,

    /// Is not pruned (repeatable): weights (with their outputs), couplings or blocks of this exact name, or whose
    /// whole name matches a regular expression after re:
    #[arg(long, value_name = "PATTERN", value_parser = spell::pattern, help_heading = "Limits")]
    pub(crate) keep: Vec<String>,
    /// Among which weights or units the lowest are looked for
    #[arg(long, value_enum, default_value_t = Scope::Layer, help_heading = "Limits")]
    pub(crate) scope: Scope,
    /// Channel pruning keeps a multiple of so many units
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Limits")]
    pub(crate) round_to: Option<u32>,

    #[command(flatten)]
    pub(crate) trace: Trace,

    /// Prints the plan, and writes nothing
    #[arg(long, help_heading = "Output")]
    pub(crate) plan: bool,
    /// Writes sizes, layer by layer, to a JSON file
    #[arg(long, value_name = "FILE", conflicts_with = "plan", help_heading = "Output")]
    pub(crate) report: Option<PathBuf>,
    /// Prints one JSON document: what --report writes, or the plan
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Prints nothing but errors (and JSON, where that is asked for)
    #[arg(long, short, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output")]
    pub(crate) seed: u64,
    /// Threads that score, plan and quantize; all cores unless said. The result does not depend on it. What runs the
    /// model has threads of its own: `RTEN_NUM_THREADS` in the environment
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Output")]
    pub(crate) threads: Option<u16>,
}

impl Compress {
    /// What ranks weights and units.
    pub(crate) fn importance(&self) -> Criterion {
        let surgeon = self.prune.iter().any(Prune::is_sparse_gpt);
        self.criterion.unwrap_or(if surgeon { Criterion::BrainSurgeon } else { Criterion::L2 })
    }

    /// What gives accuracy back: what was asked for, after what belongs to a pruner.
    pub(crate) fn recoveries(&self) -> Vec<Give> {
        let own = self.prune.iter().any(Prune::is_sparse_gpt).then_some(Give::SparseGpt);
        let asked = self.recover.iter().copied().filter(|&give| Some(give) != own);
        own.into_iter().chain(asked).collect()
    }

    /// The kind of file that is written to a path: what is asked for, or what its name ends in.
    pub(crate) fn format_of(&self, output: &Path) -> niwaki::Result<Format> {
        self.format.map_or_else(|| Format::of(output), Ok)
    }

    /// What is done with activations, if anything.
    pub(crate) fn activations(&self) -> niwaki::Result<Option<Activations>> {
        Ok(self.quantize.as_ref().map(Quantize::activations).transpose()?.flatten())
    }

    /// Stages that read what passes through the network and cannot do without.
    pub(crate) fn readers(&self) -> Vec<String> {
        let criterion = (!self.prune.is_empty() && self.importance().needs_calibration())
            .then(|| format!("--importance {}", self.importance()));
        let prune = self.prune.iter().filter(|p| p.needs_calibration()).map(|p| format!("--prune {p}"));
        let recover = self.recover.iter().map(|give| format!("--recover {give}"));
        let quantize =
            self.quantize.iter().filter(|q| q.needs_calibration()).map(|q| format!("--quantize {q}"));
        let flags =
            [(self.awq, "--awq"), (self.smooth.is_some(), "--smooth"), (self.correct_bias, "--correct-bias")];
        let flags = flags.into_iter().filter(|(given, _)| *given).map(|(_, name)| name.to_owned());
        prune.chain(criterion).chain(recover).chain(quantize).chain(flags).collect()
    }
}

#[derive(Debug, Args)]
#[command(after_help = CONVERT_HELP)]
pub(crate) struct Convert {
    /// An .onnx, .safetensors, .npz or .gguf file; one that was compressed is decoded
    pub(crate) model: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// The kind of file to write, where its name does not say it
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// The type of the numbers in a safetensors or gguf file [default: f32]
    #[arg(long, value_enum)]
    pub(crate) precision: Option<Precision>,
    #[command(flatten)]
    pub(crate) trace: Trace,
    /// Prints nothing but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    F32,
    F16,
    Bf16,
}

impl Precision {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<Precision> for niwaki::format::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::BF16,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = COMPARE_HELP)]
pub(crate) struct Compare {
    /// The model that is taken as right
    pub(crate) a: PathBuf,
    /// The model that is compared with it
    pub(crate) b: PathBuf,
    /// Inputs for both: an .npz file of one array for each input, or an .npy file for the only input
    #[arg(long, value_name = "INPUTS")]
    pub(crate) inputs: PathBuf,
    /// Prints one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// How an ONNX model is traced.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tracing of ONNX models")]
pub(crate) struct Trace {
    /// Sizes of an input, where the file leaves some open (repeatable)
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = sizes)]
    pub(crate) input: Vec<(String, Vec<usize>)>,
    /// Lets units go over which statistics are taken (channels of a layer norm, logits of a softmax): what is left
    /// then no longer answers as the model with those units at zero does
    #[arg(long)]
    pub(crate) through_statistics: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Each layer or coupling gives up its share
    Layer,
    /// One ranking over all
    Global,
}

impl From<Scope> for niwaki::prune::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Layer => Self::PerLayer,
            Scope::Global => Self::Global,
        }
    }
}

fn sizes(text: &str) -> spell::Parsed<(String, Vec<usize>)> {
    // Names of inputs may hold `=`, sizes do not.
    let (name, dims) = text.rsplit_once('=').ok_or("it should be NAME=SIZES, as in image=1,3,224,224")?;
    let size = |word: &str| word.parse().ok().filter(|&n: &usize| n > 0);
    let dims: Option<Vec<usize>> = dims.split(',').map(size).collect();
    let dims = dims.ok_or("sizes are whole numbers above 0, separated by commas")?;
    Ok((name.to_owned(), dims))
}

fn alpha(text: &str) -> spell::Parsed<f64> {
    let alpha = text.parse().ok().filter(|alpha| (0.0..=1.0).contains(alpha));
    alpha.ok_or_else(|| format!("`{text}` is no number from 0 to 1"))
}

fn memory(text: &str) -> spell::Parsed<u64> {
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let bytes = digits.parse::<u64>().ok().filter(|&n| n > 0).and_then(|n| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| "it should be bytes, or K, M, G or T of them, as in 16G".to_owned())
}

const TOOL_HELP: &str = "\
Examples:
  niwaki inspect model.onnx
  niwaki compress model.onnx --prune channel=0.5 --plan
  niwaki compress model.onnx -o small.onnx --calibration inputs.npz \\
      --importance subset --prune channel=0.5 --recover least-squares --quantize uniform:8:channel
  niwaki compare model.onnx small.onnx --inputs inputs.npz

Exit codes: 0 done, 1 an error (nothing was written), 2 the command line is wrong.";

const INSPECT_HELP: &str = "\
Examples:
  niwaki inspect model.onnx
  niwaki inspect model.onnx --input tokens=1,128 --json";

const COMPRESS_HELP: &str = "\
A first try, which needs no data: half the channels by their norms. --plan only shows what would go.
  niwaki compress model.onnx --prune channel=0.5 --plan

With inputs that the model would see (numpy.savez('inputs.npz', image=images)), accuracy comes back:
  niwaki compress model.onnx -o small.onnx --calibration inputs.npz \\
      --importance subset --prune channel=0.5 --recover least-squares

Weights in 8 bits, nothing pruned:
  niwaki compress model.onnx -o small.onnx --quantize uniform:8:channel

Weights in 4 bits with learned rounding, and the same with half of them 0, chosen in one sweep:
  niwaki compress model.onnx -o small.onnx --calibration inputs.npz --quantize gptq:4:channel,mse --correct-bias
  niwaki compress model.onnx -o small.onnx --calibration inputs.npz --quantize gptq:4:channel,mse,sparsity=0.5

Several pruners, one after the other; the first convolution keeps its channels:
  niwaki compress model.onnx -o small.onnx --prune channel=0.3,round-to=8 --prune n-of-m=2:4 --keep conv1.weight

Arrays without a graph: single weights, N:M, tiles, fewer bits:
  niwaki compress model.safetensors -o small.safetensors --prune unstructured=0.9 --quantize uniform:4:group:32

Options of --prune, after the amount:
  channel       scope=layer|global  round-to=N  min-units=N  max-sparsity=S  set=COUPLING:S
  unstructured  scope=layer|global|row  ends  set=WEIGHT:S
  sparsegpt     ends  set=WEIGHT:S
  tiles         size=ROWSxCOLS (4x4)  pool=norm|mean|max  scope=layer|global|row  ends  set=WEIGHT:S
  n-of-m        axis=N  ends
  feature-map   set=WEIGHT:S
  modules       by-influence
`ends` lets the first and the last weight take part, `set` gives one (or what `re:…` matches) its own sparsity.

Options of --quantize, after the scheme:
  uniform       affine  mse | hqq | entropy | percentile=99.9  f16-scales  keep=WEIGHT
  gptq          those of uniform, and  damp=0.01  act-order  static-groups  search  polish=ROUNDS
                sparsity=S | n-of-m=2:4  block=128
  distill       those of uniform, and  damp=0.01  steps=400
  multi-scale   refitted  f16-scales  keep=WEIGHT
  f16 …         saturate  keep=WEIGHT
  gguf:q4_k …   keep=WEIGHT
  qdq:8         mse | entropy | percentile=99.9 (ranges of activations)  signed  keep=WEIGHT
  dynamic:8     keep=WEIGHT
`keep` leaves a weight as it is.

Exit codes: 0 done, 1 an error (nothing was written), 2 the command line is wrong.";

const CONVERT_HELP: &str = "\
Examples:
  niwaki convert model.gguf -o model.safetensors
  niwaki convert model.onnx -o weights.npz
  niwaki convert model.safetensors -o model.gguf --precision f16

An ONNX model gives up its weights only: their names, in the order of the graph. Blocks of a gguf file stay as they are
in another gguf file, and become numbers elsewhere. Metadata goes along where the other kind has room for it.";

const COMPARE_HELP: &str = "\
Example:
  niwaki compare model.onnx small.onnx --inputs inputs.npz

For each output: cosine, largest difference, and how often the largest number is in the same place; bytes and
milliseconds of both models.";
