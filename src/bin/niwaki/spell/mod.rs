//! Words of the command line that name stages, and the stages that they name.

mod criterion;
mod grain;
mod options;
mod prune;
mod quantize;
mod recovery;

pub(crate) use criterion::Criterion;
pub(crate) use prune::{Kept, Prune};
pub(crate) use quantize::{Activations, Quantize};
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

fn number(word: &str) -> Parsed<f64> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

/// A fraction that goes.
fn sparsity(word: &str) -> Parsed<niwaki::prune::Sparsity> {
    niwaki::prune::Sparsity::new(number(word)?).map_err(|error| error.to_string())
}

/// `2:4`: how many of how many stay.
fn n_of_m(word: &str) -> Parsed<(usize, usize)> {
    let wrong = || format!("`{word}` is no N:M: 2:4 keeps 2 of every 4 weights");
    let (keep, of) = word.split_once(':').ok_or_else(wrong)?;
    let (keep, of) = (count(keep)?, count(of)?);
    niwaki::prune::NOfM::new(keep, of).map_err(|error| error.to_string()).map(|_| (keep, of))
}

/// A pattern that can be read.
pub(crate) fn pattern(word: &str) -> Parsed<String> {
    niwaki::Pattern::new(word).map(|pattern| pattern.as_str().to_owned()).map_err(|error| error.to_string())
}
