//! A plan, printed.

use std::fmt::{self, Display};

use crate::prune::Plan;

/// The plan as a table: what goes, and what it saves.
impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing goes");
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let lines = self.layer_lines();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let (a, b, c) = (width(0), width(1), width(2));
        for [name, shape, count, share] in &lines {
            writeln!(f, "  {name:<a$}  {shape:<b$}  {count:>c$}  {share:>8}")?;
        }
        for (name, (_, mask)) in &self.maps {
            writeln!(f, "  output map of {name}: {} of {} positions stay", mask.kept(), mask.len())?;
        }
        let ((before, after), (bytes_before, bytes_after)) = (self.parameter_counts(), self.dense_bytes());
        let share = 100.0 * (after as f64 / before.max(1) as f64 - 1.0);
        writeln!(
            f,
            "parameters {before} -> {after} ({share:.1} %), bytes as plain arrays {bytes_before} -> {bytes_after}"
        )
    }
}

impl Plan {
    /// Lines about the layers that change.
    fn layer_lines(&self) -> Vec<[String; 4]> {
        let mut lines = Vec::new();
        for outline in &self.before {
            let mut after = self.after.iter().filter(|o| o.origin == outline.name).peekable();
            if after.peek().is_none() {
                let shape = format!("{:?} goes", outline.shape);
                lines.push([
                    outline.name.clone(),
                    shape,
                    format!("{} -> 0", outline.len()),
                    "-100.0 %".into(),
                ]);
            }
            for new in after {
                let left = self.left(new);
                if new.name == outline.name && new.shape == outline.shape && left == outline.len() {
                    continue;
                }
                let dims = if new.shape == outline.shape {
                    format!("{:?}", new.shape)
                } else {
                    format!("{:?} -> {:?}", outline.shape, new.shape)
                };
                let share = 100.0 * (left as f64 / outline.len() as f64 - 1.0);
                lines.push([
                    new.name.clone(),
                    dims,
                    format!("{} -> {left}", outline.len()),
                    format!("{share:.1} %"),
                ]);
            }
        }
        lines
    }
}
