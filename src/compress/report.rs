//! [`Report`]: what a compressed network weighs.

use std::collections::HashMap;
use std::fmt::{self, Display};

use crate::compress::{Compressed, Entry, Stored};
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
        let width: Vec<usize> = (0..lines[0].len())
            .map(|c| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0))
            .collect();
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let width = width[column];
                if column < 3 { write!(f, "{cell:<width$}  ")? } else { write!(f, "{cell:>width$}  ")? }
            }
            writeln!(f)?;
        }
        write!(f, "total {} values, {} not 0, {} bytes", self.parameters(), self.nonzero(), self.bytes())?;
        write!(f, " ({} of them header)", self.header_bytes)?;
        if let Some((parameters, bytes)) = self.original {
            let ratio = self.bytes() as f64 / bytes.max(1) as f64;
            write!(f, "; before {parameters} values, {bytes} bytes: {ratio:.3}x")?;
        }
        writeln!(f)
    }
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
