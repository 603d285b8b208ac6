//! Words of the command line that name stages, and the stages that they name.

mod criterion;
mod prune;
mod quantize;
mod recovery;

pub(crate) use criterion::Criterion;
pub(crate) use prune::{Kept, Prune};
pub(crate) use quantize::Quantize;
pub(crate) use recovery::Give;

/// A wrong word; clap says which option it stood behind.
pub(crate) type Parsed<T> = Result<T, String>;

/// `a`, `b` and `c`.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A whole number, at least 1.
fn count(word: &str) -> Parsed<usize> {
    let number = word.parse().ok().filter(|&n: &usize| n > 0);
    number.ok_or_else(|| format!("`{word}` is no whole number above 0"))
}

/// A fraction that goes.
fn sparsity(word: &str) -> Parsed<niwaki::prune::Sparsity> {
    let number: f64 = word.parse().map_err(|_| format!("`{word}` is no number"))?;
    niwaki::prune::Sparsity::new(number).map_err(|error| error.to_string())
}

/// A pattern that can be read.
pub(crate) fn pattern(word: &str) -> Parsed<String> {
    niwaki::Pattern::new(word).map(|pattern| pattern.as_str().to_owned()).map_err(|error| error.to_string())
}
