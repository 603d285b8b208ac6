//! The numbers that weights are ranked by.

use std::borrow::Cow;

use crate::importance::{Elements, Score};
use crate::{Element, Parameter};

/// A layer and the numbers its weights are ranked by, in row-major order.
#[derive(Debug)]
pub(super) struct Ranked<'a, F: Element> {
    pub(super) parameter: &'a Parameter<F>,
    scores: Elements<'a, F>,
}

impl<'a, F: Element> Ranked<'a, F> {
    /// Ranks weights by their scores; those that are 0 already come last.
    pub(super) fn new(parameter: &'a Parameter<F>, score: &'a Score<F>) -> Self {
        let weights = parameter.values();
        let scores = match score.per_element(parameter) {
            Elements::Each(scores) if weights.iter().any(F::is_zero) => {
                let rank = |(&score, w): (&F, &F)| if w.is_zero() { F::neg_infinity() } else { score };
                Elements::Each(Cow::Owned(scores.iter().zip(weights).map(rank).collect()))
            }
            scores => scores,
        };
        Self { parameter, scores }
    }

    /// The scores; the weights themselves where their magnitudes rank them.
    pub(super) fn values(&self) -> &[F] {
        match &self.scores {
            Elements::Magnitude(weights) => weights,
            Elements::Each(scores) => scores,
        }
    }

    /// Whether the magnitude of each value ranks it, and not the value.
    pub(super) fn by_magnitude(&self) -> bool {
        matches!(self.scores, Elements::Magnitude(_))
    }

    /// The same ranking by value.
    pub(super) fn by_value(self) -> Self {
        let scores = match self.scores {
            Elements::Magnitude(weights) => {
                Elements::Each(Cow::Owned(weights.iter().map(|w| w.abs()).collect()))
            }
            each @ Elements::Each(_) => each,
        };
        Self { scores, ..self }
    }
}

/// The `count` indices with the lowest scores, ties by index, ascending.
pub(super) fn lowest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// The first dozen numbers of a list.
pub(super) fn shorten(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(12).map(ToString::to_string).collect();
    let more = if numbers.len() > 12 { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::importance::Norm;

    #[test]
    fn zeros_rank_below_everything() {
        let parameter = Parameter::linear("w", array![[0.0f32, 2.0, -0.0, -3.0]]);
        let score = Score::elements(array![[5.0f32, -1.0, 9.0, -2.0]].into_dyn());
        let least = f32::NEG_INFINITY;
        assert_eq!(Ranked::new(&parameter, &score).values(), [least, -1.0, least, -2.0]);
        let magnitude = Score::magnitude(Norm::L1);
        let ranked = Ranked::new(&parameter, &magnitude);
        assert!(ranked.by_magnitude());
        assert_eq!(ranked.by_value().values(), [0.0, 2.0, 0.0, 3.0]);
    }

    #[test]
    fn ties_break_by_index() {
        assert_eq!(lowest(&[2.0, 1.0, 1.0, -1.0, 1.0], 3), [1, 2, 3]);
        assert_eq!(shorten(&(0..13).collect::<Vec<_>>()), "0 1 2 3 4 5 6 7 8 9 10 11 …");
    }
}
