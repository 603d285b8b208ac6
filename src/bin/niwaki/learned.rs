//! How learned rounding did: for people, and as JSON.

use niwaki::quantize::Outcome;
use serde_json::{Value, json};

use crate::spell::list;

/// A weight with codes: its name, how its rounding was learned, and what was done in place of what was asked for.
pub(crate) struct Told<'a> {
    pub(crate) name: &'a str,
    pub(crate) learned: Option<&'a Outcome>,
    pub(crate) notes: &'a [String],
}

/// In a few lines; empty where there is nothing to say.
pub(crate) fn text(weights: &[Told<'_>]) -> String {
    let learned: Vec<&Outcome> = weights.iter().filter_map(|weight| weight.learned).collect();
    let mut lines = Vec::new();
    let mut means = |what: &str, of: fn(&Outcome) -> Option<(f64, f64)>| {
        let known: Vec<(f64, f64)> = learned.iter().filter_map(|outcome| of(outcome)).collect();
        if !known.is_empty() {
            let count = known.len() as f64;
            let (error, nearest) = known.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
            let (error, nearest) = (error / count, nearest / count);
            let line =
                format!("{what}, mean of {count} weights: {error:.3e}; nearest rounding: {nearest:.3e}");
            lines.push(line);
        }
    };
    means("output error", |outcome| Some((outcome.error, outcome.nearest)));
    means("on held-out samples", |outcome| outcome.held_out);
    means("in the worst case", |outcome| outcome.worst_case);
    if !learned.is_empty() {
        let (rows, kept) = learned.iter().fold((0, 0), |(a, b), o| (a + o.rows, b + o.rows_nearest));
        lines.push(format!("{kept} of {rows} rows stay with nearest rounding"));
    }
    // The same words about many weights are said once.
    let mut notes: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, note) in weights.iter().flat_map(|w| w.notes.iter().map(|note| (w.name, note.as_str()))) {
        match notes.iter_mut().find(|(other, _)| *other == note) {
            Some((_, names)) => names.push(name),
            None => notes.push((note, vec![name])),
        }
    }
    lines.extend(notes.into_iter().map(|(note, names)| format!("{}: {note}", list(names))));
    lines.iter().flat_map(|line| ["  ", line, "\n"]).collect()
}

pub(crate) fn json(outcome: &Outcome) -> Value {
    let pair =
        |pair: Option<(f64, f64)>| pair.map(|(error, nearest)| json!({"error": error, "nearest": nearest}));
    json!({
        "error": outcome.error,
        "nearest": outcome.nearest,
        "held_out": pair(outcome.held_out),
        "worst_case": pair(outcome.worst_case),
        "rows": outcome.rows,
        "rows_nearest": outcome.rows_nearest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_many_share_are_said_once() {
        let notes = [vec!["kept".to_owned()], vec!["kept".to_owned(), "more".to_owned()]];
        let told = |name, at: usize| Told { name, learned: None, notes: &notes[at] };
        assert_eq!(text(&[told("a", 0), told("b", 1)]), "  `a` and `b`: kept\n  `b`: more\n");
        assert_eq!(text(&[Told { name: "c", learned: None, notes: &[] }]), "");
    }

    #[test]
    fn errors_are_means() {
        let outcome = |error, held_out| {
            let mut outcome = Outcome::default();
            (outcome.error, outcome.nearest, outcome.held_out) = (error, 4.0, held_out);
            (outcome.rows, outcome.rows_nearest) = (8, 1);
            outcome
        };
        let outcomes = [outcome(1.0, None), outcome(2.0, Some((3.0, 5.0)))];
        let told = |k: usize| Told { name: "a", learned: Some(&outcomes[k]), notes: &[] };
        let text = text(&[told(0), told(1)]);
        assert!(
            text.contains("output error, mean of 2 weights: 1.500e0; nearest rounding: 4.000e0\n"),
            "{text}"
        );
        assert!(text.contains("held-out samples, mean of 1 weights: 3.000e0; nearest rounding: 5.000e0\n"));
        assert!(text.contains("2 of 16 rows stay"), "{text}");
        assert_eq!(json(&outcomes[0])["held_out"], Value::Null);
    }
}
