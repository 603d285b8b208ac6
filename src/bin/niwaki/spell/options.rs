//! `HEAD[,option[=value]…]`: what stands behind a word of `--prune` and `--quantize`.

use std::fmt::{self, Display};

use niwaki::prune::Sparsity;

use super::{Parsed, count, list, n_of_m, number, pattern, sparsity};

/// An option: its name, and what stands behind `=`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) form: Form,
}

/// What a value is. Patterns, alone or with a fraction, may be given several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// No value.
    Flag,
    /// A whole number above 0.
    Count,
    /// A whole number.
    Index,
    Number,
    /// A fraction that goes.
    Share,
    /// One of these.
    Word(&'static [&'static str]),
    /// `ROWSxCOLS`.
    Size,
    /// 2:4.
    NOfM,
    Pattern,
    /// PATTERN:SPARSITY.
    PatternShare,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Flag,
    Count(usize),
    Number(f64),
    Share(Sparsity),
    Word(&'static str),
    Size(usize, usize),
    NOfM(usize, usize),
    Pattern(String),
    PatternShare(String, Sparsity),
}

/// Options that were given, in the order of their kind's specs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options(Vec<(&'static Spec, Value)>);

/// The head of `text`, and the words behind it.
pub(super) fn split(text: &str) -> (&str, impl Iterator<Item = &str>) {
    let mut words = text.split(',');
    (words.next().unwrap_or_default(), words)
}

impl Options {
    /// Reads what stands behind `name`, which takes these options.
    pub(super) fn read<'a>(
        name: &str,
        specs: &[&'static Spec],
        words: impl Iterator<Item = &'a str>,
    ) -> Parsed<Self> {
        let mut found: Vec<(usize, &'static Spec, Value)> = Vec::new();
        for word in words {
            let (option, value) = word.split_once('=').unwrap_or((word, ""));
            let Some(at) = specs.iter().position(|spec| spec.name == option) else {
                let has = list(specs.iter().map(|spec| spec.name));
                return Err(format!("`{name}` has no option `{option}`; it has {has}"));
            };
            let spec = specs[at];
            let value = spec.form.read(value).map_err(|error| format!("option `{option}`: {error}"))?;
            let repeats = matches!(spec.form, Form::Pattern | Form::PatternShare);
            if !repeats && found.iter().any(|(other, ..)| *other == at) {
                return Err(format!("option `{option}` is given twice"));
            }
            found.push((at, spec, value));
        }
        found.sort_by_key(|(at, ..)| *at);
        Ok(Self(found.into_iter().map(|(_, spec, value)| (spec, value)).collect()))
    }

    /// All but these.
    pub(super) fn without(&self, specs: &[&Spec]) -> Self {
        Self(self.0.iter().filter(|(own, _)| !specs.contains(own)).cloned().collect())
    }

    pub(super) fn has(&self, spec: &Spec) -> bool {
        self.of(spec).next().is_some()
    }

    /// Of a [`Form::Count`] or a [`Form::Index`].
    pub(super) fn count(&self, spec: &Spec) -> Option<usize> {
        self.of(spec).find_map(|value| if let Value::Count(n) = value { Some(*n) } else { None })
    }

    pub(super) fn number(&self, spec: &Spec) -> Option<f64> {
        self.of(spec).find_map(|value| if let Value::Number(x) = value { Some(*x) } else { None })
    }

    pub(super) fn share(&self, spec: &Spec) -> Option<Sparsity> {
        self.of(spec).find_map(|value| if let Value::Share(share) = value { Some(*share) } else { None })
    }

    pub(super) fn word(&self, spec: &Spec) -> Option<&'static str> {
        self.of(spec).find_map(|value| if let Value::Word(word) = value { Some(*word) } else { None })
    }

    pub(super) fn size(&self, spec: &Spec) -> Option<(usize, usize)> {
        self.of(spec).find_map(|value| if let Value::Size(r, c) = value { Some((*r, *c)) } else { None })
    }

    pub(super) fn n_of_m(&self, spec: &Spec) -> Option<(usize, usize)> {
        self.of(spec).find_map(|value| if let Value::NOfM(n, m) = value { Some((*n, *m)) } else { None })
    }

    pub(super) fn patterns(&self, spec: &Spec) -> Vec<String> {
        let of = |value: &Value| if let Value::Pattern(text) = value { Some(text.clone()) } else { None };
        self.of(spec).filter_map(of).collect()
    }

    pub(super) fn shares(&self, spec: &Spec) -> impl Iterator<Item = (&str, Sparsity)> {
        self.of(spec).filter_map(|value| {
            if let Value::PatternShare(text, share) = value { Some((text.as_str(), *share)) } else { None }
        })
    }

    fn of(&self, spec: &Spec) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |(own, _)| *own == spec).map(|(_, value)| value)
    }
}

impl Form {
    fn read(self, text: &str) -> Parsed<Value> {
        Ok(match self {
            Self::Flag if text.is_empty() => Value::Flag,
            Self::Flag => return Err("it takes no value".to_owned()),
            Self::Count => Value::Count(count(text)?),
            Self::Index => Value::Count(text.parse().map_err(|_| format!("`{text}` is no whole number"))?),
            Self::Number => Value::Number(number(text)?),
            Self::Share => Value::Share(sparsity(text)?),
            Self::Word(words) => {
                let found = words.iter().find(|word| **word == text);
                let none = || format!("`{text}` is none of {}", list(words.iter().copied()));
                Value::Word(found.ok_or_else(none)?)
            }
            Self::Size => {
                let (rows, cols) = text.split_once('x').ok_or("it should be ROWSxCOLS, as in 4x4")?;
                Value::Size(count(rows)?, count(cols)?)
            }
            Self::NOfM => n_of_m(text).map(|(keep, of)| Value::NOfM(keep, of))?,
            Self::Pattern => Value::Pattern(pattern(text)?),
            Self::PatternShare => {
                let (name, share) = text.rsplit_once(':').ok_or("it should be PATTERN:SPARSITY")?;
                Value::PatternShare(pattern(name)?, sparsity(share)?)
            }
        })
    }
}

/// As they would be written, each behind a comma.
impl Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (Spec { name, .. }, value) in &self.0 {
            write!(f, ",{name}")?;
            match value {
                Value::Flag => Ok(()),
                Value::Count(n) => write!(f, "={n}"),
                Value::Number(x) => write!(f, "={x}"),
                Value::Share(share) => write!(f, "={share}"),
                Value::Word(word) => write!(f, "={word}"),
                Value::Size(rows, cols) => write!(f, "={rows}x{cols}"),
                Value::NOfM(keep, of) => write!(f, "={keep}:{of}"),
                Value::Pattern(text) => write!(f, "={text}"),
                Value::PatternShare(text, share) => write!(f, "={text}:{share}"),
            }?;
        }
        Ok(())
    }
}
