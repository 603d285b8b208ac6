//! Every tensor of a model, in subgraphs and functions too.

use crate::Result;
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// Where a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Among the initializers of a graph.
    Initializer,
    /// The value of a `Constant` node of a graph.
    Constant,
    /// Elsewhere: part of a sparse tensor, of a function, of another attribute.
    Other,
}

/// What is done with each tensor.
type Visit<'a> = dyn FnMut(&mut TensorProto, Role) -> Result<()> + 'a;

/// Visits all tensors, always in the same order; an error names the node.
pub(super) fn tensors(model: &mut ModelProto, visit: &mut Visit<'_>) -> Result<()> {
    if let Some(main) = model.graph.as_option_mut() {
        graph(main, visit)?;
    }
    for training in &mut model.training_info {
        for part in [&mut training.initialization, &mut training.algorithm] {
            part.as_option_mut().map_or(Ok(()), |part| graph(part, visit))?;
        }
    }
    for function in &mut model.functions {
        let name = function.name.as_deref().unwrap_or_default().to_owned();
        let in_function = |e: crate::Error| e.context(format_args!("function `{name}`"));
        let other = &mut |tensor: &mut TensorProto, _: Role| visit(tensor, Role::Other);
        function.node.iter_mut().try_for_each(|n| node(n, other)).map_err(in_function)?;
        let defaults = &mut function.attribute_proto;
        defaults.iter_mut().try_for_each(|a| attribute(a, Role::Other, other)).map_err(in_function)?;
    }
    Ok(())
}

fn graph(graph: &mut GraphProto, visit: &mut Visit<'_>) -> Result<()> {
    graph.initializer.iter_mut().try_for_each(|tensor| visit(tensor, Role::Initializer))?;
    graph.sparse_initializer.iter_mut().try_for_each(|tensor| sparse(tensor, visit))?;
    graph.node.iter_mut().try_for_each(|n| node(n, visit))
}

fn node(node: &mut NodeProto, visit: &mut Visit<'_>) -> Result<()> {
    let constant = node.op_type() == "Constant" && node.operator() == "Constant";
    let role = if constant { Role::Constant } else { Role::Other };
    let done = node.attribute.iter_mut().try_for_each(|a| {
        attribute(a, role, visit).map_err(|e| {
            let name = a.name.as_deref().unwrap_or_default();
            e.context(format_args!("attribute `{name}`"))
        })
    });
    done.map_err(|e| e.context(format_args!("node `{}`", node.title())))
}

fn attribute(attribute: &mut AttributeProto, role: Role, visit: &mut Visit<'_>) -> Result<()> {
    if let Some(tensor) = attribute.t.as_option_mut() {
        visit(tensor, role)?;
    }
    attribute.tensors.iter_mut().try_for_each(|tensor| visit(tensor, Role::Other))?;
    let all = attribute.sparse_tensor.as_option_mut().into_iter().chain(&mut attribute.sparse_tensors);
    all.into_iter().try_for_each(|tensor| sparse(tensor, visit))?;
    attribute.g.as_option_mut().into_iter().chain(&mut attribute.graphs).try_for_each(|g| graph(g, visit))
}

fn sparse(tensor: &mut SparseTensorProto, visit: &mut Visit<'_>) -> Result<()> {
    let parts = [&mut tensor.values, &mut tensor.indices];
    parts.into_iter().filter_map(|part| part.as_option_mut()).try_for_each(|part| visit(part, Role::Other))
}
