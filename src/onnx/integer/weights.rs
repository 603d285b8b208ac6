//! Codes of weights as integer kernels take them.

use std::collections::HashMap;
use std::path::Path;

use crate::onnx::draft::{self, Draft};
use crate::onnx::file;
use crate::onnx::integer::choose::Parts;
use crate::onnx::proto::{TensorProto, dtype};
use crate::onnx::view::{TensorId, View};
use crate::{Error, Result};

/// The zero point of u8 codes of a symmetric weight.
const MIDDLE: u8 = 128;

/// Weights that were looked at.
pub(super) struct Weights<'w, 'g> {
    view: &'w View<'g>,
    folder: Option<&'w Path>,
    signed: bool,
    done: HashMap<(TensorId, bool), [String; 3]>,
}

impl<'w, 'g> Weights<'w, 'g> {
    pub(super) fn new(view: &'w View<'g>, folder: Option<&'w Path>, signed: bool) -> Self {
        Self { view, folder, signed, done: HashMap::new() }
    }

    /// Names of a weight's codes, scales and zero points: with the zero points that may be left out in a file but not for
    /// all fusions, and as u8 unless i8 is wanted; a matrix with its axes exchanged where that is wanted.
    pub(super) fn of(&mut self, draft: &mut Draft, parts: &Parts, exchanged: bool) -> Result<[String; 3]> {
        if let Some(names) = self.done.get(&(parts.codes, exchanged)) {
            return Ok(names.clone());
        }
        let name = |id: TensorId| self.view.tensors[id].name.to_owned();
        let lost = || Error::format(format!("codes `{}` are no constant", name(parts.codes)));
        let codes = self.view.constant(parts.codes).ok_or_else(lost)?;
        let scales = self.view.constant(parts.scales).ok_or_else(lost)?;
        let kind = codes.data_type.unwrap_or(dtype::INT8);
        let moved = kind == dtype::INT8 && !self.signed;
        let kind = if moved { dtype::UINT8 } else { kind };
        let read = |proto: &TensorProto| -> Result<Vec<u8>> {
            let values = file::integers(proto, self.folder)?;
            Ok(values
                .iter()
                .map(|&code| if moved { (code as u8).wrapping_add(MIDDLE) } else { code as u8 })
                .collect())
        };
        let mut names = [name(parts.codes), name(parts.scales), String::new()];
        if moved || exchanged {
            let (mut dims, mut bytes) = (file::dims(codes)?, read(codes)?);
            if let (&[rows, columns], true) = (&dims[..], exchanged) {
                let places = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
                bytes = places.map(|at| bytes[at]).collect();
                dims.reverse();
            }
            let wanted = format!("{}_{}", names[0], if exchanged { "transposed" } else { "unsigned" });
            names[0] = draft.add_initializer(0, &wanted, draft::raw(kind, &dims, bytes))?;
        }
        names[2] = match parts.zero {
            Some(zero) if !moved => name(zero),
            zero => {
                let shape = file::dims(scales)?;
                let bytes = match zero.and_then(|zero| self.view.constant(zero)) {
                    Some(zero) => read(zero)?,
                    None => vec![if moved { MIDDLE } else { 0 }; shape.iter().product()],
                };
                let wanted = format!("{}_zero_point", names[1]);
                draft.add_initializer(0, &wanted, draft::raw(kind, &shape, bytes))?
            }
        };
        self.done.insert((parts.codes, exchanged), names.clone());
        Ok(names)
    }
}
