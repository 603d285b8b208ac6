//! The shapes that the file itself states.

use std::collections::HashMap;

use crate::Result;
use crate::onnx::edit::Edit;
use crate::onnx::proto::__buffa::oneof::tensor_shape_proto::dimension::Value;
use crate::onnx::proto::__buffa::oneof::type_proto::Value as Type;
use crate::onnx::proto::ValueInfoProto;

/// Shapes before and after, by the names of the tensors.
type Changes<'e> = HashMap<&'e str, (&'e [usize], Vec<usize>)>;

/// Brings stated shapes to the new ones. Lengths that the file leaves open stay open.
pub(super) fn update(edit: &mut Edit<'_>) -> Result<()> {
    let mut changed: Vec<Changes<'_>> = vec![HashMap::new(); edit.view.graphs.len()];
    for (id, tensor) in edit.view.tensors.iter().enumerate() {
        let (Some(before), Some(after)) = (edit.dims(id), edit.dims_after(id)) else { continue };
        if before != after {
            changed[tensor.graph].insert(tensor.name, (before, after));
        }
    }
    for (graph, changed) in changed.iter().enumerate().filter(|(_, changed)| !changed.is_empty()) {
        let graph = edit.draft.graph(graph)?;
        // Old files list initializers among the inputs.
        for info in graph.value_info.iter_mut().chain(&mut graph.input) {
            if let Some((before, after)) = info.name.as_deref().and_then(|name| changed.get(name)) {
                set_dims(info, before, after);
            }
        }
    }
    Ok(())
}

/// Lengths that did not change stay as they are: those of open axes were guessed.
fn set_dims(info: &mut ValueInfoProto, before: &[usize], after: &[usize]) {
    let value = info.r#type.as_option_mut().and_then(|t| t.value.as_mut());
    let Some(Type::TensorType(tensor)) = value else { return };
    let Some(shape) = tensor.shape.as_option_mut() else { return };
    for (dim, (before, after)) in shape.dim.iter_mut().zip(before.iter().zip(after)) {
        match &mut dim.value {
            Some(Value::DimValue(len)) if before != after => *len = *after as i64,
            _ => {}
        }
    }
}
