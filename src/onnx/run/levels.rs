//! Which nodes of a changed graph are to be solved again, and which of them at the same time.

use std::collections::HashSet;

use crate::onnx::view::View;

/// Of `nodes`, those that are in `changed` or read, over however many others, what one of `changed` answers; by how many
/// of them must be solved before, so that those of one level do not depend on each other.
pub(crate) fn levels(view: &View<'_>, nodes: &HashSet<usize>, changed: &HashSet<usize>) -> Vec<Vec<usize>> {
    let (mut depth, mut levels) = (vec![None::<usize>; view.tensors.len()], Vec::<Vec<usize>>::new());
    for (number, node) in view.nodes.iter().enumerate() {
        // What a body takes from outside reaches the node that owns it through what the body answers.
        let answers = node.bodies.iter().flat_map(|(_, body)| &view.graphs[*body].outputs);
        let reads = node.inputs.iter().chain(answers).flatten().filter_map(|&tensor| depth[tensor]).max();
        let Some(mut level) = reads.or_else(|| changed.contains(&number).then_some(0)) else { continue };
        if nodes.contains(&number) {
            if levels.len() <= level {
                levels.resize_with(level + 1, Vec::new);
            }
            levels[level].push(number);
            level += 1;
        }
        node.outputs.iter().flatten().for_each(|&output| depth[output] = Some(level));
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

    fn node(inputs: &[&str], output: &str) -> NodeProto {
        let inputs = inputs.iter().map(|&i| i.to_owned()).collect();
        NodeProto {
            op_type: Some("Add".into()),
            input: inputs,
            output: vec![output.into()],
            ..Default::default()
        }
    }

    #[test]
    fn what_depends_on_nothing_else_is_solved_together() {
        let nodes = [
            node(&["x", "x"], "a"),
            node(&["a", "a"], "q"),
            node(&["a", "x"], "k"),
            node(&["q", "k"], "s"),
            node(&["s", "s"], "y"),
            node(&["x", "x"], "z"),
        ];
        let input = ValueInfoProto { name: Some("x".into()), ..Default::default() };
        let graph = GraphProto { node: nodes.into(), input: vec![input], ..Default::default() };
        let model = ModelProto { graph: buffa::MessageField::some(graph), ..Default::default() };
        let view = View::new(&model).unwrap();
        let solved = HashSet::from([0, 1, 2, 4, 5]);
        assert_eq!(levels(&view, &solved, &HashSet::from([0])), [vec![0], vec![1, 2], vec![4]]);
        assert_eq!(levels(&view, &solved, &HashSet::from([3])), [vec![4]]);
        assert!(levels(&view, &solved, &HashSet::new()).is_empty());
    }
}
