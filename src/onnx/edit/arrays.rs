//! Weights get the model's arrays, other constants are cut.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayD;

use crate::model::Parameter;
use crate::onnx::draft::Constant;
use crate::onnx::edit::{Edit, slice, values};
use crate::onnx::file;
use crate::onnx::proto::{EXTERNAL, TensorProto, dtype};
use crate::onnx::trace::Form;
use crate::onnx::view::{Source, TensorId};
use crate::{Error, Result};

pub(super) fn put(edit: &mut Edit<'_>) -> Result<()> {
    let mut tensors: BTreeMap<TensorId, Vec<usize>> = BTreeMap::new();
    for (parameter, origin) in edit.traced.origins.iter().enumerate() {
        tensors.entry(origin.tensor).or_default().push(parameter);
    }
    for (&tensor, parameters) in &tensors {
        put_parameters(edit, tensor, parameters)?;
    }
    for tensor in (0..edit.view.tensors.len()).filter(|tensor| !tensors.contains_key(tensor)) {
        if !matches!(edit.view.tensors[tensor].source, Source::Input) {
            cut_constant(edit, tensor)?;
        }
    }
    Ok(())
}

/// Puts the arrays of a tensor's parameters in it, if they are others than before.
fn put_parameters(edit: &mut Edit<'_>, tensor: TensorId, parameters: &[usize]) -> Result<()> {
    let traced = edit.traced;
    let name = edit.view.tensors[tensor].name;
    let mut parts: Vec<(Form, &Parameter<f32>, &Parameter<f32>)> = Vec::with_capacity(parameters.len());
    for &at in parameters {
        let old = &traced.model.parameters()[at];
        // Parameters that went whole lie in tensors that nothing reads any more.
        let Some(new) = edit.left.parameter(at) else { continue };
        parts.push((traced.origins[at].form, old, new));
    }
    if parts.is_empty() || parts.iter().all(|(_, old, new)| old.array() == new.array()) {
        return Ok(());
    }
    if parts.len() < parameters.len() {
        return Err(Error::unsupported(format!(
            "tensor `{name}`: some of the parameters in it go, others stay"
        )));
    }
    parts.sort_by_key(|(form, ..)| if let Form::Direction(d) = form { *d } else { 0 });
    let arrays: Vec<&ArrayD<f32>> = parts.iter().map(|(_, _, new)| new.array()).collect();
    let form = match parts[0].0 {
        Form::Transposed { .. } => Form::Transposed { groups: parts[0].2.groups() },
        form => form,
    };
    let array = form.join(&arrays).ok_or_else(|| {
        Error::unsupported(format!("tensor `{name}`: its parameters do not make one array any more"))
    })?;
    let array = array.as_standard_layout().into_owned();
    match edit.draft.constant(edit.view, tensor)? {
        Some(Constant::Tensor(proto)) => {
            file::put_floats(proto, &array)?;
        }
        Some(Constant::Attribute(attribute)) if array.ndim() == 1 => {
            attribute.floats = array.iter().copied().collect();
        }
        _ => return Err(Error::unsupported(format!("tensor `{name}`: its values cannot be replaced"))),
    }
    edit.arrays.insert(tensor, array.shape().to_vec());
    Ok(())
}

/// Leaves what the classes leave of a constant that holds no parameter.
fn cut_constant(edit: &mut Edit<'_>, tensor: TensorId) -> Result<()> {
    let axes = edit.traced.axes.get(tensor).map_or(0, Vec::len);
    for axis in 0..axes {
        let Some(kept) = edit.positions_of(tensor, axis) else { continue };
        match edit.draft.constant(edit.view, tensor)? {
            Some(Constant::Tensor(proto)) => {
                bring(proto, edit.traced.graph.folder.as_deref())?;
                slice::select(proto, axis, &kept)?;
            }
            Some(Constant::Attribute(attribute)) => slice::select_attribute(attribute, &kept)?,
            // Computed: it follows what it is computed from.
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Reads external data into the message.
fn bring(tensor: &mut TensorProto, folder: Option<&Path>) -> Result<()> {
    if tensor.data_location != Some(EXTERNAL) {
        return Ok(());
    }
    if dtype::is_float(tensor.data_type.unwrap_or_default()) {
        let array = file::floats(tensor, folder)?;
        return file::put_floats(tensor, &array);
    }
    let (dims, numbers) = (file::dims(tensor)?, file::integers(tensor, folder)?);
    values::fill(tensor, tensor.data_type.unwrap_or_default(), &dims, &numbers)
}
