//! `channel`, `tensor`, `model`, `group:128`: which weights share a scale.

use std::fmt::{self, Display};

use super::{Parsed, count};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Grain {
    Channel,
    Tensor,
    Model,
    Group(usize),
}

/// Scales that each weight has for itself.
pub(super) fn own_scales(word: &str) -> Parsed<Grain> {
    match grain_of(word)? {
        Grain::Model => Err("its scales are per `channel`, `tensor` or `group:SIZE`".to_owned()),
        grain => Ok(grain),
    }
}

pub(super) fn grain_of(word: &str) -> Parsed<Grain> {
    let short = word.strip_prefix('g').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    match (word, word.strip_prefix("group:").or(short)) {
        ("channel", _) => Ok(Grain::Channel),
        ("tensor", _) => Ok(Grain::Tensor),
        ("model", _) => Ok(Grain::Model),
        (_, Some(size)) => Ok(Grain::Group(count(size)?)),
        _ => Err(format!("`{word}` is none of `channel`, `tensor`, `model` and `group:SIZE` (or `gSIZE`)")),
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
