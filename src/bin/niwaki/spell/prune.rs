//! `KIND=VALUE[,option…]`: what goes.

use std::fmt::{self, Display};
use std::str::FromStr;

use niwaki::prune::{
    Channel, FeatureMap, Modules, NOfM, Pool, Pruner, Scope, SparseGpt, Sparsity, Tiles, Unstructured,
};

use super::options::{Form, Options, Spec, split};
use super::{Parsed, count, list, n_of_m, sparsity};

/// One pruner and its options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prune {
    kind: Kind,
    options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Channel(Sparsity),
    Unstructured(Sparsity),
    SparseGpt(Sparsity),
    SparseGptNOfM(usize, usize),
    FeatureMap(Sparsity),
    Tiles(Sparsity),
    NOfM(usize, usize),
    ModuleCount(usize),
    ModuleShare(Sparsity),
}

/// Names that `--keep` matched, and that pruners leave out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) couplings: Vec<String>,
    pub(crate) weights: Vec<String>,
    pub(crate) blocks: Vec<String>,
}

/// Kinds and the options that each takes.
const KINDS: [(&str, &[&Spec]); 7] = [
    ("channel", &[&SCOPE, &ROUND_TO, &MIN_UNITS, &MAX_SPARSITY, &SET]),
    ("unstructured", &[&SCOPE, &ENDS, &SET]),
    ("sparsegpt", &[&ENDS, &SET]),
    ("feature-map", &[&SET]),
    ("tiles", &[&SCOPE, &SIZE, &POOL, &ENDS, &SET]),
    ("n-of-m", &[&AXIS, &ENDS]),
    ("modules", &[&BY_INFLUENCE]),
];
const SCOPE: Spec = Spec { name: "scope", form: Form::Word(&["layer", "global", "row"]) };
const ROUND_TO: Spec = Spec { name: "round-to", form: Form::Count };
const MIN_UNITS: Spec = Spec { name: "min-units", form: Form::Count };
const MAX_SPARSITY: Spec = Spec { name: "max-sparsity", form: Form::Share };
const SIZE: Spec = Spec { name: "size", form: Form::Size };
const POOL: Spec = Spec { name: "pool", form: Form::Word(&["norm", "mean", "max"]) };
const AXIS: Spec = Spec { name: "axis", form: Form::Index };
const ENDS: Spec = Spec { name: "ends", form: Form::Flag };
const BY_INFLUENCE: Spec = Spec { name: "by-influence", form: Form::Flag };
const SET: Spec = Spec { name: "set", form: Form::PatternShare };
/// Tiles unless a size is given.
const TILE: (usize, usize) = (4, 4);

impl Prune {
    /// Whether it takes units out of couplings.
    pub(crate) fn is_channel(&self) -> bool {
        matches!(self.kind, Kind::Channel(_))
    }

    /// Whether it moves the weights that stay to make up for those that go.
    pub(crate) fn is_sparse_gpt(&self) -> bool {
        matches!(self.kind, Kind::SparseGpt(_) | Kind::SparseGptNOfM(..))
    }

    /// Why it cannot be done without a graph.
    pub(crate) fn needs_graph(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Channel(_) => Some("which axes shrink together"),
            Kind::FeatureMap(_) => Some("where maps pass"),
            Kind::ModuleCount(_) | Kind::ModuleShare(_) => Some("what is a block"),
            _ => None,
        }
    }

    /// Whether it reads what passes through the network, whatever the criterion.
    pub(crate) fn needs_calibration(&self) -> bool {
        self.reads_blocks() || self.is_sparse_gpt()
    }

    /// Whether it reads what goes through residual branches.
    pub(crate) fn reads_blocks(&self) -> bool {
        self.options.has(&BY_INFLUENCE)
    }

    /// The pruner. A scope or rounding of its own goes before those for all.
    pub(crate) fn stage(
        &self,
        scope: Scope,
        round_to: Option<usize>,
        kept: &Kept,
    ) -> niwaki::Result<Box<dyn Pruner<f32>>> {
        let options = &self.options;
        let scope = match options.word(&SCOPE) {
            Some("layer") => Scope::PerLayer,
            Some("global") => Scope::Global,
            Some(_) => Scope::PerRow,
            None => scope,
        };
        let ends = options.has(&ENDS);
        // A graph has one tensor for all who read it: nothing is copied for each block.
        Ok(match self.kind {
            Kind::Channel(share) => {
                let mut pruner = Channel::new(share).scope(scope);
                pruner = options.count(&ROUND_TO).or(round_to).into_iter().fold(pruner, Channel::round_to);
                pruner = options.count(&MIN_UNITS).into_iter().fold(pruner, Channel::min_units);
                pruner = options.share(&MAX_SPARSITY).into_iter().fold(pruner, Channel::max_sparsity);
                pruner = kept.couplings.iter().fold(pruner, Channel::exclude);
                Box::new(options.shares(&SET).fold(pruner, |p, (name, share)| p.set(name, share)))
            }
            Kind::SparseGpt(_) | Kind::SparseGptNOfM(..) => {
                let mut pruner = match self.kind {
                    Kind::SparseGptNOfM(keep, of) => SparseGpt::n_of_m(keep, of)?,
                    Kind::SparseGpt(share) => SparseGpt::new(share),
                    _ => SparseGpt::new(Sparsity::default()),
                };
                pruner = if ends { pruner.include_ends() } else { pruner };
                pruner = kept.weights.iter().fold(pruner, SparseGpt::exclude);
                Box::new(options.shares(&SET).fold(pruner, |p, (name, share)| p.set(name, share)))
            }
            Kind::Unstructured(share) => {
                let mut pruner = Unstructured::new(share).scope(scope);
                pruner = if ends { pruner.include_ends() } else { pruner };
                pruner = kept.weights.iter().fold(pruner, Unstructured::exclude);
                Box::new(options.shares(&SET).fold(pruner, |p, (name, share)| p.set(name, share)))
            }
            Kind::FeatureMap(share) => {
                let pruner = kept.weights.iter().fold(FeatureMap::new(share), FeatureMap::exclude);
                Box::new(options.shares(&SET).fold(pruner, |p, (name, share)| p.set(name, share)))
            }
            Kind::Tiles(share) => {
                let (rows, cols) = options.size(&SIZE).unwrap_or(TILE);
                let mut pruner = Tiles::new(rows, cols, share).scope(scope).keep_shared();
                pruner = match options.word(&POOL) {
                    Some("norm") => pruner.pool(Pool::Norm),
                    Some("mean") => pruner.pool(Pool::Mean),
                    Some(_) => pruner.pool(Pool::Max),
                    None => pruner,
                };
                pruner = if ends { pruner.include_ends() } else { pruner };
                pruner = kept.weights.iter().fold(pruner, Tiles::exclude);
                Box::new(options.shares(&SET).fold(pruner, |p, (name, share)| p.set(name, share)))
            }
            Kind::NOfM(keep, of) => {
                let mut pruner = NOfM::new(keep, of)?;
                pruner = options.count(&AXIS).into_iter().fold(pruner, NOfM::axis);
                pruner = if ends { pruner.include_ends() } else { pruner };
                Box::new(kept.weights.iter().fold(pruner, NOfM::exclude))
            }
            Kind::ModuleCount(_) | Kind::ModuleShare(_) => {
                let pruner = match self.kind {
                    Kind::ModuleShare(share) => Modules::new(share),
                    Kind::ModuleCount(count) => Modules::count(count),
                    _ => Modules::count(0),
                };
                let pruner = if options.has(&BY_INFLUENCE) { pruner.by_influence() } else { pruner };
                Box::new(kept.blocks.iter().fold(pruner.keep_shared(), Modules::exclude))
            }
        })
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Channel(_) => "channel",
            Kind::Unstructured(_) => "unstructured",
            Kind::SparseGpt(_) | Kind::SparseGptNOfM(..) => "sparsegpt",
            Kind::FeatureMap(_) => "feature-map",
            Kind::Tiles(_) => "tiles",
            Kind::NOfM(..) => "n-of-m",
            Kind::ModuleCount(_) | Kind::ModuleShare(_) => "modules",
        }
    }
}

impl FromStr for Prune {
    type Err = String;

    fn from_str(text: &str) -> Parsed<Self> {
        let (head, words) = split(text);
        let (name, value) = match head.split_once('=') {
            Some(pair) => pair,
            // A pattern alone is one of weights.
            None if head.contains(':') => ("n-of-m", head),
            None => return Err("it should be KIND=VALUE, as in channel=0.5".to_owned()),
        };
        let kind = match name {
            "channel" => Kind::Channel(sparsity(value)?),
            "unstructured" => Kind::Unstructured(sparsity(value)?),
            "sparsegpt" if value.contains(':') => {
                n_of_m(value).map(|(keep, of)| Kind::SparseGptNOfM(keep, of))?
            }
            "sparsegpt" => Kind::SparseGpt(sparsity(value)?),
            "feature-map" => Kind::FeatureMap(sparsity(value)?),
            "tiles" => Kind::Tiles(sparsity(value)?),
            "n-of-m" => n_of_m(value).map(|(keep, of)| Kind::NOfM(keep, of))?,
            // A whole number counts blocks; a fraction is one.
            "modules" if value.contains('.') => Kind::ModuleShare(sparsity(value)?),
            "modules" => Kind::ModuleCount(count(value)?),
            _ => return Err(format!("kinds are {}", list(KINDS.iter().map(|(name, _)| *name)))),
        };
        let specs = KINDS.iter().find(|(kind, _)| *kind == name).map_or(&[][..], |(_, specs)| *specs);
        Ok(Self { kind, options: Options::read(name, specs, words)? })
    }
}

/// As it would be written, options in a fixed order.
impl Display for Prune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name())?;
        match self.kind {
            Kind::NOfM(keep, of) | Kind::SparseGptNOfM(keep, of) => write!(f, "{keep}:{of}")?,
            Kind::ModuleCount(blocks) => write!(f, "{blocks}")?,
            // The point tells a share from a count.
            Kind::ModuleShare(share) => write!(f, "{:?}", share.removed())?,
            Kind::Channel(s)
            | Kind::Unstructured(s)
            | Kind::SparseGpt(s)
            | Kind::FeatureMap(s)
            | Kind::Tiles(s) => write!(f, "{s}")?,
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
            "channel=0.5",
            "channel=0.5,scope=global,round-to=8,min-units=4,max-sparsity=0.9,set=re:layer[12]:x:0.25",
            "unstructured=0.9,scope=row,ends,set=fc:0.1,set=conv:0",
            "feature-map=0.25,set=conv1:0.5",
            "tiles=0.5,scope=layer,size=8x4,pool=max,ends",
            "n-of-m=2:4,axis=0,ends",
            "sparsegpt=0.5,ends,set=fc:0.25",
            "sparsegpt=2:4",
            "modules=2,by-influence",
            "modules=0.25",
        ] {
            let prune: Prune = text.parse().unwrap();
            assert_eq!(prune.to_string(), text);
            prune.stage(Scope::PerLayer, None, &Kept::default()).unwrap().check().unwrap();
        }
        let same = |a: &str, b: &str| assert_eq!(a.parse::<Prune>(), b.parse());
        same("channel=0.5,min-units=4,scope=global", "channel=0.50,scope=global,min-units=4");
        same("2:4,ends", "n-of-m=2:4,ends");
        assert_eq!("modules=0.0".parse::<Prune>().unwrap().to_string(), "modules=0.0");
    }

    #[test]
    fn wrong_words_say_what_would_be_right() {
        for (text, part) in [
            ("channel", "KIND=VALUE"),
            ("channels=0.5", "`n-of-m`"),
            ("channel=1.5", "outside [0, 1)"),
            ("channel=1", "outside [0, 1)"),
            ("channel=NaN", "outside [0, 1)"),
            ("channel=half", "`half` is no number"),
            ("channel=0.5,ends", "no option `ends`"),
            ("channel=0.5,", "no option ``"),
            ("channel=0.5,round-to=0", "above 0"),
            ("channel=0.5,round-to=8,round-to=4", "given twice"),
            ("channel=0.5,scope=network", "`global`"),
            ("unstructured=0.5,ends=1", "no value"),
            ("unstructured=0.5,set=fc", "PATTERN:SPARSITY"),
            ("unstructured=0.5,set=re:(:0.5", "re:("),
            ("tiles=0.5,size=4", "ROWSxCOLS"),
            ("n-of-m=4:2", "cannot keep 4 of every 2"),
            ("n-of-m=0.5", "2:4"),
            ("2:4:8", "no whole number"),
            ("4:2", "cannot keep 4 of every 2"),
            ("modules=0", "above 0"),
            ("modules=1.5", "outside [0, 1)"),
        ] {
            let error = text.parse::<Prune>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
