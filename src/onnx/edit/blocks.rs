//! Residual branches that go: what read the sum reads what went into the branch.

use std::collections::HashMap;

use crate::onnx::draft;
use crate::onnx::edit::Edit;
use crate::onnx::view::TensorId;
use crate::{Error, Result};

pub(super) fn remove(edit: &mut Edit<'_>) -> Result<()> {
    let (view, traced) = (edit.view, edit.traced);
    let gone = |block: &str| edit.plan.selections().any(|s| s.blocks.contains(block));
    let mut passed: HashMap<TensorId, TensorId> = HashMap::new();
    for branch in traced.branches.iter().filter(|branch| gone(&branch.block)) {
        let Some(sum) = view.nodes[branch.sum].outputs.first().copied().flatten() else { continue };
        if view.tensors[sum].graph != view.tensors[branch.input].graph {
            return Err(Error::unsupported(format!("block `{}`: it reaches into a subgraph", branch.block)));
        }
        passed.insert(sum, branch.input);
    }
    if let Some(name) = edit
        .plan
        .selections()
        .flat_map(|s| &s.blocks)
        .find(|b| !traced.branches.iter().any(|t| t.block == **b))
    {
        return Err(Error::name(format!("block `{name}`: the graph has no such branch")));
    }
    let mut sums: Vec<TensorId> = passed.keys().copied().collect();
    sums.sort_unstable();
    for sum in sums {
        let mut source = sum;
        while let Some(&input) = passed.get(&source) {
            source = input;
        }
        pass(edit, sum, source)?;
    }
    Ok(())
}

/// Readers of a tensor read another one.
fn pass(edit: &mut Edit<'_>, from: TensorId, to: TensorId) -> Result<()> {
    let view = edit.view;
    let (old, new) = (view.tensors[from].name, view.tensors[to].name);
    if view.tensors[from].answers > 0 {
        // A graph answers with it: the name stays.
        let Some(node) = view.producer(from) else { return Ok(()) };
        let proto = edit.draft.node(view, node)?;
        proto.op_type = Some("Identity".to_owned());
        proto.domain = None;
        proto.attribute.clear();
        proto.input = vec![new.to_owned()];
        return Ok(());
    }
    for &reader in &view.tensors[from].readers {
        let inputs = &mut edit.draft.node(view, reader)?.input;
        draft::rename(inputs, old, new);
    }
    edit.draft.redirect_inserted(old, new);
    Ok(())
}
