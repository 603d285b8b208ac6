//! `KIND=VALUE[,option…]`: what goes.

use std::fmt::{self, Display};
use std::str::FromStr;

use niwaki::prune::{Channel, FeatureMap, Modules, NOfM, Pool, Pruner, Scope, Sparsity, Tiles, Unstructured};

use super::{Parsed, count, list, pattern, sparsity};

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
    FeatureMap(Sparsity),
    Tiles(Sparsity),
    NOfM(usize, usize),
    ModuleCount(usize),
    ModuleShare(Sparsity),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    scope: Option<Scope>,
    round_to: Option<usize>,
    min_units: Option<usize>,
    max_sparsity: Option<Sparsity>,
    size: Option<(usize, usize)>,
    pool: Option<Pool>,
    axis: Option<usize>,
    ends: bool,
    by_influence: bool,
    set: Vec<(String, Sparsity)>,
}

/// Names that `--keep` matched, and that pruners leave out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) couplings: Vec<String>,
    pub(crate) weights: Vec<String>,
    pub(crate) blocks: Vec<String>,
}

/// Kinds and the options that each takes.
const KINDS: [(&str, &[&str]); 6] = [
    ("channel", &["scope", "round-to", "min-units", "max-sparsity", "set"]),
    ("unstructured", &["scope", "ends", "set"]),
    ("feature-map", &["set"]),
    ("tiles", &["size", "pool", "scope", "ends", "set"]),
    ("n-of-m", &["axis", "ends"]),
    ("modules", &["by-influence"]),
];
const SCOPES: [(&str, Scope); 3] =
    [("layer", Scope::PerLayer), ("global", Scope::Global), ("row", Scope::PerRow)];
const POOLS: [(&str, Pool); 3] = [("norm", Pool::Norm), ("mean", Pool::Mean), ("max", Pool::Max)];
/// Tiles unless a size is given.
const TILE: (usize, usize) = (4, 4);

impl Prune {
    /// Whether it takes units out of couplings.
    pub(crate) fn is_channel(&self) -> bool {
        matches!(self.kind, Kind::Channel(_))
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

    /// Whether its own options read what passes through the network.
    pub(crate) fn needs_calibration(&self) -> bool {
        self.options.by_influence
    }

    /// The pruner. A scope or rounding of its own goes before those for all.
    pub(crate) fn stage(
        &self,
        scope: Scope,
        round_to: Option<usize>,
        kept: &Kept,
    ) -> niwaki::Result<Box<dyn Pruner<f32>>> {
        let options = &self.options;
        let scope = options.scope.unwrap_or(scope);
        // A graph has one tensor for all who read it: nothing is copied for each block.
        Ok(match self.kind {
            Kind::Channel(share) => {
                let mut pruner = Channel::new(share).scope(scope);
                pruner = options.round_to.or(round_to).into_iter().fold(pruner, Channel::round_to);
                pruner = options.min_units.into_iter().fold(pruner, Channel::min_units);
                pruner = options.max_sparsity.into_iter().fold(pruner, Channel::max_sparsity);
                pruner = kept.couplings.iter().fold(pruner, Channel::exclude);
                Box::new(options.set.iter().fold(pruner, |p, (name, share)| p.set(name, *share)))
            }
            Kind::Unstructured(share) => {
                let mut pruner = Unstructured::new(share).scope(scope);
                pruner = if options.ends { pruner.include_ends() } else { pruner };
                pruner = kept.weights.iter().fold(pruner, Unstructured::exclude);
                Box::new(options.set.iter().fold(pruner, |p, (name, share)| p.set(name, *share)))
            }
            Kind::FeatureMap(share) => {
                let pruner = kept.weights.iter().fold(FeatureMap::new(share), FeatureMap::exclude);
                Box::new(options.set.iter().fold(pruner, |p, (name, share)| p.set(name, *share)))
            }
            Kind::Tiles(share) => {
                let (rows, cols) = options.size.unwrap_or(TILE);
                let mut pruner = Tiles::new(rows, cols, share).scope(scope).keep_shared();
                pruner = options.pool.into_iter().fold(pruner, Tiles::pool);
                pruner = if options.ends { pruner.include_ends() } else { pruner };
                pruner = kept.weights.iter().fold(pruner, Tiles::exclude);
                Box::new(options.set.iter().fold(pruner, |p, (name, share)| p.set(name, *share)))
            }
            Kind::NOfM(keep, of) => {
                let mut pruner = NOfM::new(keep, of)?;
                pruner = options.axis.into_iter().fold(pruner, NOfM::axis);
                pruner = if options.ends { pruner.include_ends() } else { pruner };
                Box::new(kept.weights.iter().fold(pruner, NOfM::exclude))
            }
            Kind::ModuleCount(_) | Kind::ModuleShare(_) => {
                let pruner = match self.kind {
                    Kind::ModuleShare(share) => Modules::new(share),
                    Kind::ModuleCount(count) => Modules::count(count),
                    _ => Modules::count(0),
                };
                let pruner = if options.by_influence { pruner.by_influence() } else { pruner };
                Box::new(kept.blocks.iter().fold(pruner.keep_shared(), Modules::exclude))
            }
        })
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Channel(_) => "channel",
            Kind::Unstructured(_) => "unstructured",
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
        let mut parts = text.split(',');
        let head = parts.next().unwrap_or_default();
        let (name, value) = head.split_once('=').ok_or("it should be KIND=VALUE, as in channel=0.5")?;
        let kind = match name {
            "channel" => Kind::Channel(sparsity(value)?),
            "unstructured" => Kind::Unstructured(sparsity(value)?),
            "feature-map" => Kind::FeatureMap(sparsity(value)?),
            "tiles" => Kind::Tiles(sparsity(value)?),
            "n-of-m" => {
                let wrong = || format!("`{value}` is no N:M: 2:4 keeps 2 of every 4 weights");
                let (keep, of) = value.split_once(':').ok_or_else(wrong)?;
                let (keep, of) = (count(keep)?, count(of)?);
                NOfM::new(keep, of).map_err(|error| error.to_string())?;
                Kind::NOfM(keep, of)
            }
            // A whole number counts blocks; a fraction is one.
            "modules" if value.contains('.') => Kind::ModuleShare(sparsity(value)?),
            "modules" => Kind::ModuleCount(count(value)?),
            _ => return Err(format!("kinds are {}", list(KINDS.iter().map(|(name, _)| *name)))),
        };
        let allowed = KINDS.iter().find(|(kind, _)| *kind == name).map_or(&[][..], |(_, options)| *options);
        let mut options = Options::default();
        for part in parts {
            let (option, value) = part.split_once('=').unwrap_or((part, ""));
            if !allowed.contains(&option) {
                return Err(format!(
                    "`{name}` has no option `{option}`; it has {}",
                    list(allowed.iter().copied())
                ));
            }
            options.take(option, value).map_err(|error| format!("option `{option}`: {error}"))?;
        }
        Ok(Self { kind, options })
    }
}

impl Options {
    fn take(&mut self, option: &str, value: &str) -> Parsed<()> {
        match option {
            "scope" => self.scope = Some(one_of(&SCOPES, value)?),
            "pool" => self.pool = Some(one_of(&POOLS, value)?),
            "round-to" => self.round_to = Some(count(value)?),
            "min-units" => self.min_units = Some(count(value)?),
            "max-sparsity" => self.max_sparsity = Some(sparsity(value)?),
            "axis" => self.axis = Some(value.parse().map_err(|_| format!("`{value}` is no number"))?),
            "size" => {
                let (rows, cols) = value.split_once('x').ok_or("it should be ROWSxCOLS, as in size=4x4")?;
                self.size = Some((count(rows)?, count(cols)?));
            }
            "set" => {
                let (name, share) = value.rsplit_once(':').ok_or("it should be set=PATTERN:SPARSITY")?;
                self.set.push((pattern(name)?, sparsity(share)?));
            }
            _ if !value.is_empty() => return Err("it takes no value".to_owned()),
            "ends" => self.ends = true,
            _ => self.by_influence = true,
        }
        Ok(())
    }
}

/// As it would be written, options in a fixed order.
impl Display for Prune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name())?;
        match self.kind {
            Kind::NOfM(keep, of) => write!(f, "{keep}:{of}")?,
            Kind::ModuleCount(blocks) => write!(f, "{blocks}")?,
            // The point tells a share from a count.
            Kind::ModuleShare(share) => write!(f, "{:?}", share.removed())?,
            Kind::Channel(s) | Kind::Unstructured(s) | Kind::FeatureMap(s) | Kind::Tiles(s) => {
                write!(f, "{s}")?;
            }
        }
        let options = &self.options;
        let name_of = |scope| SCOPES.iter().find(|(_, s)| *s == scope).map_or("", |(name, _)| name);
        options.scope.iter().try_for_each(|&scope| write!(f, ",scope={}", name_of(scope)))?;
        options.round_to.iter().try_for_each(|n| write!(f, ",round-to={n}"))?;
        options.min_units.iter().try_for_each(|n| write!(f, ",min-units={n}"))?;
        options.max_sparsity.iter().try_for_each(|s| write!(f, ",max-sparsity={s}"))?;
        options.size.iter().try_for_each(|(rows, cols)| write!(f, ",size={rows}x{cols}"))?;
        let name_of = |pool| POOLS.iter().find(|(_, p)| *p == pool).map_or("", |(name, _)| name);
        options.pool.iter().try_for_each(|&pool| write!(f, ",pool={}", name_of(pool)))?;
        options.axis.iter().try_for_each(|axis| write!(f, ",axis={axis}"))?;
        f.write_str(if options.ends { ",ends" } else { "" })?;
        f.write_str(if options.by_influence { ",by-influence" } else { "" })?;
        options.set.iter().try_for_each(|(name, share)| write!(f, ",set={name}:{share}"))
    }
}

fn one_of<T: Copy>(words: &[(&str, T)], word: &str) -> Parsed<T> {
    let found = words.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    found.ok_or_else(|| format!("`{word}` is none of {}", list(words.iter().map(|(name, _)| *name))))
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
            "modules=2,by-influence",
            "modules=0.25",
        ] {
            let prune: Prune = text.parse().unwrap();
            assert_eq!(prune.to_string(), text);
            prune.stage(Scope::PerLayer, None, &Kept::default()).unwrap().check().unwrap();
        }
        let same = |a: &str, b: &str| assert_eq!(a.parse::<Prune>(), b.parse());
        same("channel=0.5,min-units=4,scope=global", "channel=0.50,scope=global,min-units=4");
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
            ("channel=0.5,scope=network", "`global`"),
            ("unstructured=0.5,ends=1", "no value"),
            ("unstructured=0.5,set=fc", "PATTERN:SPARSITY"),
            ("unstructured=0.5,set=re:(:0.5", "re:("),
            ("tiles=0.5,size=4", "ROWSxCOLS"),
            ("n-of-m=4:2", "cannot keep 4 of every 2"),
            ("n-of-m=0.5", "2:4"),
            ("modules=0", "above 0"),
            ("modules=1.5", "outside [0, 1)"),
        ] {
            let error = text.parse::<Prune>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
