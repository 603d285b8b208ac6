//! Words and numbers for people.

use std::io::{self, ErrorKind, Write};

use niwaki::Result;
use serde_json::Value;

/// Prints; a reader that has seen enough is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a document.
pub(crate) fn json(document: &Value) -> Result<()> {
    print(&format!("{document:#}\n"))
}

/// A word beside the result.
pub(crate) fn note(quiet: bool, text: &str) {
    if !quiet {
        let _ = writeln!(io::stderr(), "note: {text}");
    }
}

/// 11689512 as 11,689,512.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 46800000 as 46.80 M; below a thousand as it is.
pub(crate) fn short(n: u64) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match steps.iter().find(|(step, _)| n as f64 >= *step) {
        Some((step, name)) => format!("{:.2} {name}", n as f64 / step),
        None => n.to_string(),
    }
}

/// Columns of equal width, those in `right` flush right.
pub(crate) fn table(lines: &[Vec<String>], right: &[usize]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cell = |(column, cell): (usize, &String)| {
            let width = widths[column];
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        };
        let cells: Vec<String> = line.iter().enumerate().map(cell).collect();
        text.push_str("  ");
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 11_689_512].map(number), ["0", "999", "1,000", "11,689,512"]);
        assert_eq!([0, 999, 1000, 46_800_000].map(short), ["0", "999", "1.00 k", "46.80 M"]);
    }

    #[test]
    fn columns_line_up() {
        let lines = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "7".to_owned()]];
        assert_eq!(table(&lines, &[1]), "  a     10\n  long   7\n");
    }
}
