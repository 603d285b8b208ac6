//! What a compression changed: for people, and as JSON.

use std::collections::HashMap;
use std::path::Path;

use niwaki::prune::Plan;
use niwaki::quantize::Outcome;
use niwaki::{Compressed, Kind, Model, NormRole, Parameter, Result};
use serde_json::{Value, json};

use crate::args::Compress;
use crate::files::Format;
use crate::learned::{self, Told};
use crate::out::{number, short, table};

/// Sizes before and after, layer by layer.
#[derive(Debug)]
pub(crate) struct Summary {
    rows: Vec<Row>,
    couplings: Vec<(String, usize, usize)>,
    blocks: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    kind: String,
    before: Vec<usize>,
    after: Option<Vec<usize>>,
    /// values that are not 0 or masked
    left: usize,
    macs: Option<(u64, u64)>,
    stored: Option<Stored>,
}

#[derive(Debug)]
struct Stored {
    form: String,
    bytes: usize,
    error: Option<f64>,
    learned: Option<Outcome>,
    notes: Vec<String>,
}

/// What is known of the files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) format: Format,
    pub(crate) before: u64,
    pub(crate) after: Option<u64>,
    /// weights of which some units cannot go
    pub(crate) frozen: Option<usize>,
    pub(crate) seconds: f64,
}

impl Summary {
    /// What a plan would change. `macs` are multiplications of each weight before.
    pub(crate) fn planned(model: &Model<f32>, plan: &Plan, macs: &HashMap<String, u64>) -> Result<Self> {
        let smaller = plan.apply(model)?;
        let mut summary = Self::of(model, &smaller, macs);
        for row in &mut summary.rows {
            if let Some(mask) = plan.weight_mask(&row.name) {
                row.left = mask.kept();
            }
        }
        summary.couplings = couplings(model, &smaller);
        Ok(summary)
    }

    /// What was made; `notes` are more words on weights, by name.
    pub(crate) fn made(mut self, compressed: &Compressed<f32>, notes: &[(String, String)]) -> Self {
        for row in compressed.report().rows() {
            let Some(own) = self.rows.iter_mut().find(|own| own.name == row.name()) else { continue };
            own.left = row.nonzero();
            let outcome = row.outcome();
            let more = notes.iter().filter(|(name, _)| name == row.name()).map(|(_, note)| note);
            let notes = outcome.iter().flat_map(|outcome| &outcome.notes).chain(more).cloned().collect();
            // What learned nothing has notes only.
            let learned = outcome.filter(|outcome| outcome.rows > 0).cloned();
            let (form, bytes, error) = (row.form().to_owned(), row.bytes(), row.error());
            own.stored = Some(Stored { form, bytes, error, learned, notes });
        }
        self
    }

    fn of(before: &Model<f32>, after: &Model<f32>, macs: &HashMap<String, u64>) -> Self {
        let row = |p: &Parameter<f32>| {
            let now = after.find(p.name());
            let len = now.map_or(0, |now| now.array().len());
            // At each place of the output every weight is multiplied once.
            let macs = macs.get(p.name()).map(|&macs| {
                (macs, (u128::from(macs) * len as u128 / p.array().len().max(1) as u128) as u64)
            });
            Row {
                name: p.name().to_owned(),
                kind: kind(p),
                before: p.shape().to_vec(),
                after: now.map(|now| now.shape().to_vec()),
                left: len,
                macs,
                stored: None,
            }
        };
        let gone = before.blocks().iter().filter(|block| after.block(block.name()).is_none());
        Self {
            rows: before.parameters().iter().map(row).collect(),
            couplings: Vec::new(),
            blocks: gone.map(|block| block.name().to_owned()).collect(),
        }
    }

    /// Values before, after, and those of them that are not 0.
    fn values(&self) -> (usize, usize, usize) {
        let len = |shape: &Vec<usize>| shape.iter().product::<usize>();
        let before = self.rows.iter().map(|row| len(&row.before)).sum();
        let after = self.rows.iter().map(|row| row.after.as_ref().map_or(0, len)).sum();
        (before, after, self.rows.iter().map(|row| row.left).sum())
    }

    fn macs(&self) -> Option<(u64, u64)> {
        let macs = self.rows.iter().filter_map(|row| row.macs);
        macs.reduce(|a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Totals in a few lines; behind a printed plan, those that it does not have.
    pub(crate) fn text(&self, files: &Files, plan: bool) -> String {
        let (before, after, left) = self.values();
        let ratio = |a: f64, b: f64| format!("{:.3}x", b / a.max(1.0));
        let line = |name: &str, a: String, b: String, ratio: String| {
            vec![name.to_owned(), a, "->".to_owned(), b, ratio]
        };
        let count = |name: &str, before: u64, after: u64| {
            line(name, number(before), number(after), ratio(before as f64, after as f64))
        };
        let mut lines = Vec::new();
        if !plan {
            lines.push(count("parameters", before as u64, after as u64));
            if left < after {
                lines.push(count("not zero", before as u64, left as u64));
            }
        }
        if let Some((a, b)) = self.macs() {
            lines.push(line("MACs", short(a), short(b), ratio(a as f64, b as f64)));
        }
        if let Some(after) = files.after {
            lines.push(count("bytes", files.before, after));
        }
        let mut text = vec![table(&lines, &[1, 3, 4])];
        if !self.blocks.is_empty() {
            text.push(format!("  blocks that went: {}\n", self.blocks.join(", ")));
        }
        let told = self.rows.iter().filter_map(|row| {
            let stored = row.stored.as_ref()?;
            Some(Told { name: &row.name, learned: stored.learned.as_ref(), notes: &stored.notes })
        });
        text.push(learned::text(&told.collect::<Vec<_>>()));
        text.concat()
    }

    /// All of it.
    pub(crate) fn json(&self, args: &Compress, files: &Files) -> Value {
        let (before, after, left) = self.values();
        let macs = self.macs();
        json!({
            "niwaki": env!("CARGO_PKG_VERSION"),
            "model": path(&args.model),
            "output": args.output.as_deref().filter(|_| files.after.is_some()).map(path),
            "format": files.format.name(),
            "settings": {
                "importance": args.importance().to_string(),
                "prune": args.prune.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "recover": args.recoveries().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "quantize": args.quantize.as_ref().map(ToString::to_string),
                "equalize": args.equalize,
                "smooth": args.smooth,
                "awq": args.awq,
                "correct_bias": args.correct_bias,
                "keep": args.keep,
                "calibration": args.calibration.as_deref().map(path),
                "seed": args.seed,
            },
            "parameters": {"before": before, "after": after, "nonzero": left},
            "macs": macs.map(|(before, after)| json!({"before": before, "after": after})),
            "bytes": {"before": files.before, "after": files.after},
            "frozen": files.frozen,
            "couplings": self.couplings.iter().map(|(name, before, after)| {
                json!({"name": name, "before": before, "after": after})
            }).collect::<Vec<_>>(),
            "removed_blocks": self.blocks,
            "layers": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "seconds": files.seconds,
        })
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "kind": self.kind,
            "shape": {"before": self.before, "after": self.after},
            "nonzero": self.left,
            "macs": self.macs.map(|(before, after)| json!({"before": before, "after": after})),
            "stored": self.stored.as_ref().map(Stored::json),
        })
    }
}

impl Stored {
    fn json(&self) -> Value {
        json!({
            "as": self.form,
            "bytes": self.bytes,
            "error": self.error,
            "learned": self.learned.as_ref().map(learned::json),
            "notes": self.notes,
        })
    }
}

/// Units of each coupling before and after.
fn couplings(before: &Model<f32>, after: &Model<f32>) -> Vec<(String, usize, usize)> {
    let pair = |coupling: &niwaki::Coupling| {
        let left = after.coupling(coupling.name()).map_or(0, niwaki::Coupling::size);
        (coupling.name().to_owned(), coupling.size(), left)
    };
    before.couplings().iter().map(pair).collect()
}

/// A word on what a parameter is.
pub(crate) fn kind(parameter: &Parameter<f32>) -> String {
    match parameter.kind() {
        Kind::Linear => "linear".to_owned(),
        Kind::Conv(_) if parameter.groups() > 1 => format!("conv, {} groups", parameter.groups()),
        Kind::Conv(_) => "conv".to_owned(),
        Kind::Recurrent { gates, .. } => format!("recurrent, {gates} gates"),
        Kind::Embedding => "embedding".to_owned(),
        Kind::Bias { of, .. } => format!("bias of {of}"),
        Kind::Norm { role, of, .. } => {
            let role = match role {
                NormRole::Scale => "norm scale",
                NormRole::Shift => "norm shift",
                NormRole::Mean => "norm mean",
                NormRole::Variance => "norm variance",
                _ => "norm",
            };
            of.as_ref().map_or_else(|| role.to_owned(), |of| format!("{role} of {of}"))
        }
        _ => "other".to_owned(),
    }
}

pub(crate) fn path(path: &Path) -> String {
    path.display().to_string()
}
