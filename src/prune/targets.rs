//! Which layers a pruner looks at, and how much of each goes.

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

    /// Asks for a weight by name, at the pruner's own rate.
    pub(crate) fn include(&mut self, pattern: String) {
        self.overrides.push((pattern, Sparsity::default()));
    }

    pub(crate) fn include_ends(&mut self) {
        self.ends = true;
    }

    /// Whether an override names this one.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub(crate) fn names(&self, name: &str) -> Result<bool> {
        let mut named = false;
        for (pattern, _) in &self.overrides {
            named |= Pattern::new(pattern.as_str())?.matches(name);
        }
        Ok(named)
    }

    /// Checks that every pattern can be read.
    pub(crate) fn check(&self) -> Result<()> {
        let patterns = self.excluded.iter().chain(self.overrides.iter().map(|(p, _)| p));
        patterns.map(String::as_str).try_for_each(|p| Pattern::new(p).map(|_| ()))
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
            let ends = [names.first().copied(), names.last().copied()];
            resolved.retain(|(name, _)| {
                !ends.contains(&Some(*name)) || overrides.iter().any(|p| p.matches(name))
            });
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

/// The setters that pruners share: `exclude`, and as far as they make sense `set`, `include` and `include_ends`.
macro_rules! target_setters {
    ($what:literal, exclude) => {
        #[doc = concat!("Leaves out every ", $what, " whose name matches: an exact name or a `re:` pattern.")]
        pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
            self.targets.exclude(pattern.into());
            self
        }
    };
    ($what:literal) => {
        $crate::prune::targets::target_setters!($what, exclude);

        #[doc = concat!("Another sparsity for every ", $what, " whose name matches; the last that matches wins.")]
        pub fn set(mut self, pattern: impl Into<String>, sparsity: $crate::prune::Sparsity) -> Self {
            self.targets.set(pattern.into(), sparsity);
            self
        }
    };
    ($what:literal, include) => {
        $crate::prune::targets::target_setters!($what, exclude);

        /// Lets the first or the last weight of the model take part when its name matches.
        pub fn include(mut self, pattern: impl Into<String>) -> Self {
            self.targets.include(pattern.into());
            self
        }

        $crate::prune::targets::target_setters!(@ends);
    };
    ($what:literal, ends) => {
        $crate::prune::targets::target_setters!($what);
        $crate::prune::targets::target_setters!(@ends);
    };
    (@ends) => {
        /// Lets the first and the last weight of the model take part, which are kept otherwise.
        pub fn include_ends(mut self) -> Self {
            self.targets.include_ends();
            self
        }
    };
}

pub(crate) use target_setters;

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{ErrorKind, Parameter};

    fn model(names: &[&str]) -> Model<f32> {
        let add = |builder: crate::ModelBuilder<f32>, name: &&str| {
            builder.parameter(Parameter::linear(*name, Array2::ones((2, 2))))
        };
        names.iter().fold(Model::builder(), add).build().unwrap()
    }

    fn half() -> Sparsity {
        Sparsity::new(0.5).unwrap()
    }

    fn names(targets: &Targets, model: &Model<f32>) -> Vec<String> {
        targets.weights(model, half()).unwrap().into_iter().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn first_and_last_are_kept_unless_asked_for() {
        let model = model(&["a", "b", "c", "d"]);
        let mut targets = Targets::default();
        assert_eq!(names(&targets, &model), ["b", "c"]);
        targets.set("d".into(), Sparsity::new(0.25).unwrap());
        assert_eq!(names(&targets, &model), ["b", "c", "d"]);
        assert_eq!(targets.weights(&model, half()).unwrap()[2].1, Sparsity::new(0.25).unwrap());
        targets.include_ends();
        assert_eq!(names(&targets, &model), ["a", "b", "c", "d"]);
        targets.exclude("a".into());
        assert_eq!(names(&targets, &model), ["b", "c", "d"]);
    }

    #[test]
    fn nothing_left_is_an_error() {
        let error = Targets::default().weights(&model(&["a", "b"]), half()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        let model = model(&["a", "b", "c"]);
        let mut targets = Targets::default();
        targets.exclude("bb".into());
        let error = targets.weights(&model, half()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Name);
        assert!(error.to_string().contains("`bb`"), "{error}");
        let mut targets = Targets::default();
        targets.set("x".into(), half());
        assert_eq!(targets.weights(&model, half()).unwrap_err().kind(), ErrorKind::Name);
    }

    #[cfg(feature = "regex")]
    #[test]
    fn patterns_override_and_the_last_wins() {
        let model = model(&["in", "b1.fc", "b2.fc", "b3.fc", "out"]);
        let mut targets = Targets::default();
        targets.set("re:b\\d.*".into(), Sparsity::new(0.1).unwrap());
        targets.set("b2.fc".into(), Sparsity::new(0.2).unwrap());
        targets.exclude("re:b3.*".into());
        let resolved = targets.weights(&model, half()).unwrap();
        let resolved: Vec<_> = resolved.into_iter().map(|(name, s)| (name, s.removed())).collect();
        assert_eq!(resolved, [("b1.fc", 0.1), ("b2.fc", 0.2)]);
        targets.exclude("re:(".into());
        assert_eq!(targets.check().unwrap_err().kind(), ErrorKind::Setting);
    }
}
