//! Which layers a pruner looks at, and how much of each goes.

use std::collections::HashMap;

use crate::prune::Sparsity;
use crate::{Element, Error, Model, Pattern, Result};

/// Exclusions, overrides, and whether the first and last weights take part.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Targets {
    excluded: Vec<String>,
    overrides: Vec<(String, Sparsity)>,
    ends: bool,
}

impl Targets {
    pub(crate) fn exclude(&mut self, pattern: String) {
        self.excluded.push(pattern);
    }

    pub(crate) fn set(&mut self, pattern: String, sparsity: Sparsity) {
        self.overrides.push((pattern, sparsity));
    }

    pub(crate) fn include_ends(&mut self) {
        self.ends = true;
    }

    /// Checks that every pattern can be read.
    pub(crate) fn check(&self) -> Result<()> {
        let patterns = self.excluded.iter().chain(self.overrides.iter().map(|(p, _)| p));
        patterns.map(|p| Pattern::new(p.as_str()).map(|_| ())).collect()
    }

    /// The fraction that goes from each of these names that takes part; the last override that matches wins.
    ///
    /// # Errors
    /// A pattern that matches none of them.
    pub(crate) fn resolve<'a>(
        &self,
        names: &[&'a str],
        default: Sparsity,
    ) -> Result<Vec<(&'a str, Sparsity)>> {
        let excluded = patterns(self.excluded.iter(), names)?;
        let overrides = patterns(self.overrides.iter().map(|(p, _)| p), names)?;
        let sparsity = |name: &str| {
            let mut matching = overrides.iter().zip(&self.overrides).rev().filter(|(p, _)| p.matches(name));
            matching.next().map_or(default, |(_, (_, sparsity))| *sparsity)
        };
        let taking_part = names.iter().filter(|name| !excluded.iter().any(|p| p.matches(name)));
        Ok(taking_part.map(|&name| (name, sparsity(name))).collect())
    }

    /// As [`resolve`](Self::resolve), of the weights of a model; the first and the last take part only when asked
    /// for, by name or all ends at once.
    pub(crate) fn weights<'a, F: Element>(
        &self,
        model: &'a Model<F>,
        default: Sparsity,
    ) -> Result<Vec<(&'a str, Sparsity)>> {
        let names: Vec<&str> = model.weights().map(crate::Parameter::name).collect();
        let mut resolved = self.resolve(&names, default)?;
        if !self.ends {
            let overrides = patterns(self.overrides.iter().map(|(p, _)| p), &names)?;
            let ends: HashMap<&str, ()> =
                [names.first(), names.last()].into_iter().flatten().map(|&n| (n, ())).collect();
            resolved
                .retain(|(name, _)| !ends.contains_key(name) || overrides.iter().any(|p| p.matches(name)));
        }
        if resolved.is_empty() {
            return Err(Error::setting(
                "no weight takes part: all are excluded, or first or last, which are kept unless asked for",
            ));
        }
        Ok(resolved)
    }
}

fn patterns<'a>(texts: impl Iterator<Item = &'a String>, names: &[&str]) -> Result<Vec<Pattern>> {
    texts
        .map(|text| {
            let pattern = Pattern::new(text.as_str())?;
            pattern.check_matches(names.iter().copied())?;
            Ok(pattern)
        })
        .collect()
}

/// The setters that every pruner has.
macro_rules! target_setters {
    ($what:literal) => {
        #[doc = concat!("Leaves out every ", $what, " whose name matches: an exact name or a `re:` pattern.")]
        pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
            self.targets.exclude(pattern.into());
            self
        }

        #[doc = concat!("Another sparsity for every ", $what, " whose name matches; the last that matches wins.")]
        pub fn set(mut self, pattern: impl Into<String>, sparsity: $crate::prune::Sparsity) -> Self {
            self.targets.set(pattern.into(), sparsity);
            self
        }
    };
    ($what:literal, ends) => {
        $crate::prune::targets::target_setters!($what);

        /// Lets the first and the last weight of the model take part, which are kept otherwise.
        pub fn include_ends(mut self) -> Self {
            self.targets.include_ends();
            self
        }
    };
}

pub(crate) use target_setters;
