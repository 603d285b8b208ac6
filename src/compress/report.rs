//! [`Report`]: what a compressed network weighs.

use std::collections::HashMap;
use std::fmt::{self, Display};

use crate::compress::{Compressed, Entry, Stored};
use crate::quantize::Outcome;
use crate::{Element, Model};

/// Parameters, bytes as stored, and error, layer by layer and in total. Printed as a table.
///
/// ```
/// use ndarray::Array;
/// use niwaki::quantize::Uniform;
/// use niwaki::{Compressor, Model, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = Array::from_shape_fn((16, 64), |(i, j)| ((i * j) as f32).cos());
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let compressor = Compressor::builder().quantizer(Uniform::int8()).build()?;
/// let compressed = compressor.compress(&model, &compressor.evidence(&model))?;
/// let row = &compressed.report().rows()[0];
/// assert_eq!(row.bytes(), 16 * 64 + 16 * 4); // a code for each weight, an f32 scale for each row
/// assert_eq!(row.bits_per_weight(), 8.5);
/// assert!(row.error().is_some_and(|e| e < 0.01));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    rows: Vec<Row>,
    original: Option<(usize, usize)>,
    header_bytes: usize,
}

/// One parameter's line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    name: String,
    form: String,
    shape: Vec<usize>,
    nonzero: usize,
    bytes: usize,
    error: Option<f64>,
    outcome: Option<Outcome>,
}

impl Row {
    /// The parameter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is stored: `dense`, `sparse`, or the quantization scheme.
    pub fn form(&self) -> &str {
        &self.form
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many values it has.
    pub fn parameters(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many of them are not 0.
    pub fn nonzero(&self) -> usize {
        self.nonzero
    }

    /// Bytes of its arrays as stored: codes, scales, bitmaps.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// 8 · bytes / parameters.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.bytes as f64 / self.parameters().max(1) as f64
    }

    /// How its rounding was learned: the error that is left beside that of nearest rounding, and what was done in place
    /// of what was asked for. `None` where nothing was learned, or after loading.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// ‖w − ŵ‖₂ / ‖w‖₂ of the quantization; `None` where nothing was quantized, or after loading.
    pub fn error(&self) -> Option<f64> {
        self.error
    }
}

impl Report {
    pub(super) fn of<F: Element>(
        compressed: &Compressed<F>,
        original: Option<&Model<F>>,
        errors: &HashMap<String, f64>,
    ) -> Self {
        let row = |entry: &Entry<F>| Row {
            name: entry.name().to_owned(),
            form: form(entry.stored()),
            shape: entry.stored().shape().to_vec(),
            nonzero: nonzero(entry.stored()),
            bytes: entry.stored().bytes(),
            error: errors.get(entry.name()).copied(),
            outcome: outcome(entry.stored()).cloned(),
        };
        let rows: Vec<Row> = compressed.entries().iter().map(row).collect();
        let payload: usize = rows.iter().map(Row::bytes).sum();
        let header_bytes = compressed.encoded_len().saturating_sub(payload);
        Self { rows, original: original.map(|m| (m.parameter_count(), m.dense_bytes())), header_bytes }
    }

    /// One row for each parameter, in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Values of all parameters.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(Row::parameters).sum()
    }

    /// Values that are not 0.
    pub fn nonzero(&self) -> usize {
        self.rows.iter().map(Row::nonzero).sum()
    }

    /// Bytes of the file: all arrays, and the header with names, shapes and schemes. Without the feature
    /// `safetensors`, of the arrays.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(Row::bytes).sum::<usize>() + self.header_bytes
    }

    /// Bytes that are not arrays: names, shapes, schemes, masks of output maps.
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Parameters and bytes as plain arrays before compression; `None` after loading.
    pub fn original(&self) -> Option<(usize, usize)> {
        self.original
    }
}

impl Report {
    /// What learned roundings have to say, where there are any.
    fn write_outcomes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let learned = self.rows.iter().filter_map(|row| Some((row, row.outcome()?)));
        let mut lines = Vec::new();
        for (row, outcome) in learned.clone().filter(|(_, outcome)| outcome.rows > 0) {
            let pair = |pair: Option<(f64, f64)>| {
                pair.map_or_else(Default::default, |(ours, nearest)| {
                    [ours, nearest].map(|e| format!("{e:.6}"))
                })
            };
            let ([error, nearest], [worst, worst_nearest]) =
                (pair(outcome.held_out), pair(outcome.worst_case));
            lines.push([
                row.name.clone(),
                format!("{:.6}", outcome.error),
                format!("{:.6}", outcome.nearest),
                error,
                nearest,
                worst,
                worst_nearest,
                format!("{} of {}", outcome.rows_nearest, outcome.rows),
            ]);
        }
        if !lines.is_empty() {
            let titles = [
                "learned",
                "output error",
                "nearest",
                "held out",
                "nearest",
                "worst case",
                "nearest",
                "rows kept nearest",
            ];
            lines.insert(0, titles.map(String::from));
            table(f, &lines, 1)?;
        }
        for (row, outcome) in learned {
            for note in &outcome.notes {
                writeln!(f, "{}: {note}", row.name)?;
            }
        }
        Ok(())
    }
}

/// The table.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![
            ["layer", "stored as", "shape", "values", "not 0", "bytes", "bits", "error"].map(String::from),
        ];
        for row in &self.rows {
            lines.push([
                row.name.clone(),
                row.form.clone(),
                format!("{:?}", row.shape),
                row.parameters().to_string(),
                row.nonzero.to_string(),
                row.bytes.to_string(),
                format!("{:.2}", row.bits_per_weight()),
                row.error.map_or_else(String::new, |e| format!("{e:.5}")),
            ]);
        }
        table(f, &lines, 3)?;
        self.write_outcomes(f)?;
        write!(f, "total {} values, {} not 0, {} bytes", self.parameters(), self.nonzero(), self.bytes())?;
        write!(f, " ({} of them header)", self.header_bytes)?;
        if let Some((parameters, bytes)) = self.original {
            let ratio = self.bytes() as f64 / bytes.max(1) as f64;
            write!(f, "; before {parameters} values, {bytes} bytes: {ratio:.3}x")?;
        }
        writeln!(f)
    }
}

/// Lines of cells in columns, the first few of them flush left.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, lines: &[[String; N]], left: usize) -> fmt::Result {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let width: Vec<usize> = (0..N).map(width).collect();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&width).enumerate() {
            if column < left { write!(f, "{cell:<width$}  ")? } else { write!(f, "{cell:>width$}  ")? }
        }
        writeln!(f)?;
    }
    Ok(())
}

fn outcome<F: Element>(stored: &Stored<F>) -> Option<&Outcome> {
    if let Stored::Quantized(tensor) = stored { tensor.outcome() } else { None }
}

fn form<F: Element>(stored: &Stored<F>) -> String {
    match stored {
        Stored::Dense(_) => "dense".into(),
        Stored::Sparse(_) => "sparse".into(),
        Stored::Quantized(tensor) => tensor.scheme().to_string(),
    }
}

fn nonzero<F: Element>(stored: &Stored<F>) -> usize {
    match stored {
        Stored::Dense(array) => array.iter().filter(|v| !v.is_zero()).count(),
        Stored::Sparse(sparse) => sparse.values().len(),
        Stored::Quantized(tensor) => {
            let alive = |_, values: &[F]| values.iter().filter(|v| !v.is_zero()).count();
            tensor.map_decoded(alive).into_iter().sum()
        }
    }
}
