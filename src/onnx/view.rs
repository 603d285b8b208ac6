//! The nodes of a graph and of its subgraphs in the order in which they run, names resolved.

use std::collections::HashMap;

use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use crate::{Error, Result};

/// A value of the graph: an input, an initializer, or what a node gives. Names may stand for several values where
/// sibling subgraphs use the same one; these numbers do not.
pub(crate) type TensorId = usize;

/// Where a graph is: the path of (node, attribute, place in a list of graphs) from the main graph, which is empty.
pub(crate) type GraphPath = Vec<(usize, usize, usize)>;

/// Subgraphs within subgraphs that are read; deeper ones are an error.
const DEEPEST: usize = 32;

/// All nodes, in an order in which they can run: those of a subgraph stand directly before the node that owns it.
#[derive(Debug)]
pub(crate) struct View<'g> {
    pub(crate) nodes: Vec<Node<'g>>,
    pub(crate) tensors: Vec<Tensor<'g>>,
    pub(crate) graphs: Vec<Body<'g>>,
    /// ONNX's own operator set
    pub(crate) opset: i64,
}

/// A graph: the main one is the first.
#[derive(Debug)]
pub(crate) struct Body<'g> {
    pub(crate) proto: &'g GraphProto,
    pub(crate) path: GraphPath,
    pub(crate) inputs: Vec<TensorId>,
    pub(crate) outputs: Vec<Option<TensorId>>,
}

#[derive(Debug)]
pub(crate) struct Node<'g> {
    pub(crate) proto: &'g NodeProto,
    /// the graph it is in, and its place there
    pub(crate) graph: usize,
    pub(crate) at: usize,
    /// `None` for an optional input that is left out
    pub(crate) inputs: Vec<Option<TensorId>>,
    pub(crate) outputs: Vec<Option<TensorId>>,
    /// subgraphs, with the names of their attributes
    pub(crate) bodies: Vec<(&'g str, usize)>,
}

#[derive(Debug)]
pub(crate) struct Tensor<'g> {
    pub(crate) name: &'g str,
    /// the graph that defines it
    pub(crate) graph: usize,
    pub(crate) source: Source<'g>,
    /// nodes that read it, ascending, a node once for each input
    pub(crate) readers: Vec<usize>,
    /// how often it is the output of a graph
    pub(crate) answers: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'g> {
    /// An input of the main graph or of a subgraph, or a sparse initializer: a value that is not looked at.
    Input,
    /// At this place of its graph's initializers.
    Initializer(usize, &'g TensorProto),
    /// Of this node.
    Node(usize),
}

impl<'g> View<'g> {
    /// # Errors
    /// A name that nothing defines or that two things define, a cycle, subgraphs too deep.
    pub(crate) fn new(model: &'g ModelProto) -> Result<Self> {
        let opset =
            model.opset_import.iter().find(|o| matches!(o.domain.as_deref(), None | Some("" | "ai.onnx")));
        let opset = opset.and_then(|o| o.version).unwrap_or(1);
        let mut view = Self { nodes: Vec::new(), tensors: Vec::new(), graphs: Vec::new(), opset };
        let graph = model.graph.as_option().ok_or_else(|| Error::format("the file holds no graph"))?;
        view.add_graph(graph, &Vec::new(), &mut Scope::default())?;
        Ok(view)
    }

    /// The node that gives a tensor.
    pub(crate) fn producer(&self, tensor: TensorId) -> Option<usize> {
        match self.tensors[tensor].source {
            Source::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The value of an initializer or of a `Constant` node.
    pub(crate) fn constant(&self, tensor: TensorId) -> Option<&'g TensorProto> {
        match self.tensors[tensor].source {
            Source::Initializer(_, proto) => Some(proto),
            Source::Node(node) => {
                let proto = self.nodes[node].proto;
                let constant = proto.op_type() == "Constant" && proto.operator() == "Constant";
                constant.then(|| proto.attr("value")).flatten().and_then(|a| a.t.as_option())
            }
            Source::Input => None,
        }
    }

    /// The main graph's inputs that are no initializers.
    pub(crate) fn inputs(&self) -> &[TensorId] {
        &self.graphs[0].inputs
    }

    /// The only node that reads a tensor, when one does and no graph answers with it.
    pub(crate) fn only_reader(&self, tensor: TensorId) -> Option<usize> {
        match self.tensors[tensor].readers[..] {
            [reader] if self.tensors[tensor].answers == 0 => Some(reader),
            _ => None,
        }
    }

    fn add_graph(&mut self, proto: &'g GraphProto, path: &GraphPath, scope: &mut Scope<'g>) -> Result<usize> {
        if path.len() > DEEPEST {
            return Err(Error::format(format!("subgraphs are nested deeper than {DEEPEST}")));
        }
        let graph = self.graphs.len();
        self.graphs.push(Body { proto, path: path.clone(), inputs: Vec::new(), outputs: Vec::new() });
        scope.layers.push(HashMap::new());
        for (at, tensor) in proto.initializer.iter().enumerate() {
            let name = tensor.name.as_deref().unwrap_or_default();
            self.define(name, graph, Source::Initializer(at, tensor), scope)?;
        }
        for sparse in &proto.sparse_initializer {
            self.define(sparse_name(sparse).unwrap_or_default(), graph, Source::Input, scope)?;
        }
        let mut weights = scope.layers.last().cloned().unwrap_or_default();
        for input in &proto.input {
            let name = input.name.as_deref().unwrap_or_default();
            // Old files list initializers among the inputs too, once.
            if weights.remove(name).is_some() {
                continue;
            }
            let id = self.define(name, graph, Source::Input, scope)?;
            self.graphs[graph].inputs.push(id);
        }
        for at in order(proto)? {
            self.add_node(&proto.node[at], graph, at, path, scope)?;
        }
        for output in &proto.output {
            let name = output.name.as_deref().unwrap_or_default();
            let id = scope.find(name);
            if id.is_none() && !name.is_empty() {
                return Err(Error::format(format!("output `{name}`: nothing in the graph gives it")));
            }
            if let Some(id) = id {
                self.tensors[id].answers += 1;
            }
            self.graphs[graph].outputs.push(id);
        }
        scope.layers.pop();
        Ok(graph)
    }

    fn add_node(
        &mut self,
        proto: &'g NodeProto,
        graph: usize,
        at: usize,
        path: &GraphPath,
        scope: &mut Scope<'g>,
    ) -> Result<()> {
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            let id = scope.find(name);
            if id.is_none() && !name.is_empty() {
                return Err(Error::format(format!(
                    "node `{}`: nothing gives its input `{name}`",
                    proto.title()
                )));
            }
            inputs.push(id);
        }
        let mut bodies = Vec::new();
        for (number, attribute) in proto.attribute.iter().enumerate() {
            for (place, body) in subgraphs(attribute).enumerate() {
                let mut path = path.clone();
                path.push((at, number, place));
                bodies.push((
                    attribute.name.as_deref().unwrap_or_default(),
                    self.add_graph(body, &path, scope)?,
                ));
            }
        }
        let node = self.nodes.len();
        let mut outputs = Vec::with_capacity(proto.output.len());
        for name in &proto.output {
            let id = match name.as_str() {
                "" => None,
                name => Some(self.define(name, graph, Source::Node(node), scope)?),
            };
            outputs.push(id);
        }
        for &id in inputs.iter().flatten() {
            self.tensors[id].readers.push(node);
        }
        self.nodes.push(Node { proto, graph, at, inputs, outputs, bodies });
        Ok(())
    }

    fn define(
        &mut self,
        name: &'g str,
        graph: usize,
        source: Source<'g>,
        scope: &mut Scope<'g>,
    ) -> Result<TensorId> {
        if name.is_empty() {
            return Err(Error::format("an input or initializer has no name"));
        }
        let id = self.tensors.len();
        let layer = scope.layers.last_mut();
        if layer.is_some_and(|layer| layer.insert(name, id).is_some()) {
            return Err(Error::format(format!("tensor `{name}` is defined twice")));
        }
        self.tensors.push(Tensor { name, graph, source, readers: Vec::new(), answers: 0 });
        Ok(id)
    }
}

/// Names that are known, those of inner graphs last.
#[derive(Default)]
struct Scope<'g> {
    layers: Vec<HashMap<&'g str, TensorId>>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<TensorId> {
        self.layers.iter().rev().find_map(|layer| layer.get(name).copied())
    }
}

fn subgraphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.as_option().into_iter().chain(&attribute.graphs)
}

/// Places of a graph's nodes in an order in which each finds its inputs: that of the file where it is one.
fn order(graph: &GraphProto) -> Result<Vec<usize>> {
    let mut giver: HashMap<&str, usize> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if giver.insert(name, at).is_some() {
                return Err(Error::format(format!("tensor `{name}` is given by two nodes")));
            }
        }
    }
    let mut needs: Vec<Vec<usize>> = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let mut names = Vec::new();
        read_names(node, &mut names, 0)?;
        let mut of: Vec<usize> = names.iter().filter_map(|name| giver.get(name).copied()).collect();
        of.sort_unstable();
        of.dedup();
        needs.push(of);
    }
    let mut waiting: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (at, needs) in needs.iter().enumerate() {
        for &need in needs {
            readers[need].push(at);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
        waiting.iter().enumerate().filter(|(_, n)| **n == 0).map(|(at, _)| at).collect();
    let mut order = Vec::with_capacity(needs.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for &reader in &readers[at] {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    match waiting.iter().position(|&n| n > 0) {
        Some(stuck) => {
            let title = graph.node[in_cycle(stuck, &needs, &waiting)].title();
            Err(Error::format(format!("node `{title}` is part of a cycle")))
        }
        None => Ok(order),
    }
}

/// A node of a cycle: from one that cannot run back through those that it waits for, until one comes again.
fn in_cycle(stuck: usize, needs: &[Vec<usize>], waiting: &[usize]) -> usize {
    let (mut at, mut seen) = (stuck, vec![false; needs.len()]);
    while !std::mem::replace(&mut seen[at], true) {
        at = needs[at].iter().copied().find(|&need| waiting[need] > 0).unwrap_or(at);
    }
    at
}

fn sparse_name(sparse: &SparseTensorProto) -> Option<&str> {
    sparse.values.as_option().and_then(|values| values.name.as_deref())
}

/// Names that a node reads, those that its subgraphs take from outside among them.
fn read_names<'g>(node: &'g NodeProto, names: &mut Vec<&'g str>, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::format(format!("subgraphs are nested deeper than {DEEPEST}")));
    }
    names.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
    for graph in node.attribute.iter().flat_map(subgraphs) {
        let mut inner = Vec::new();
        for node in &graph.node {
            read_names(node, &mut inner, depth + 1)?;
        }
        inner.extend(graph.output.iter().filter_map(|o| o.name.as_deref()));
        let own: std::collections::HashSet<&str> = graph
            .node
            .iter()
            .flat_map(|n| n.output.iter().map(String::as_str))
            .chain(graph.initializer.iter().filter_map(|t| t.name.as_deref()))
            .chain(graph.sparse_initializer.iter().filter_map(sparse_name))
            .chain(graph.input.iter().filter_map(|i| i.name.as_deref()))
            .collect();
        names.extend(inner.into_iter().filter(|name| !own.contains(name)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::ValueInfoProto;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn node(op: &str, input: &[&str], output: &[&str]) -> NodeProto {
        let (input, output) = (names(input), names(output));
        NodeProto {
            name: Some(format!("{op}0")),
            op_type: Some(op.into()),
            input,
            output,
            ..NodeProto::default()
        }
    }

    fn values(names: &[&str]) -> Vec<ValueInfoProto> {
        names
            .iter()
            .map(|&name| ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() })
            .collect()
    }

    fn graph(input: &[&str], nodes: Vec<NodeProto>, output: &[&str]) -> GraphProto {
        GraphProto { node: nodes, input: values(input), output: values(output), ..GraphProto::default() }
    }

    fn with_body(mut node: NodeProto, body: GraphProto) -> NodeProto {
        let name = Some("body".into());
        node.attribute.push(AttributeProto { name, g: body.into(), ..AttributeProto::default() });
        node
    }

    fn weight(name: &str) -> TensorProto {
        TensorProto { name: Some(name.into()), ..TensorProto::default() }
    }

    fn model(graph: GraphProto) -> ModelProto {
        ModelProto { graph: graph.into(), ..ModelProto::default() }
    }

    fn error(graph: GraphProto) -> String {
        View::new(&model(graph)).unwrap_err().to_string()
    }

    #[test]
    fn nodes_stand_in_an_order_in_which_they_run() {
        let nodes =
            vec![node("Neg", &["b"], &["c"]), node("Abs", &["x"], &["a"]), node("Add", &["a", "w"], &["b"])];
        let mut graph = graph(&["w", "x"], nodes, &["c"]);
        graph.initializer.push(weight("w"));
        let model = model(graph);
        let view = View::new(&model).unwrap();
        let order: Vec<&str> = view.nodes.iter().map(|n| n.proto.op_type()).collect();
        assert_eq!(order, ["Abs", "Add", "Neg"]);
        assert_eq!(view.nodes.iter().map(|n| n.at).collect::<Vec<_>>(), [1, 2, 0]);
        // `w` is listed as an input and has a value, as in files before IR 4.
        assert_eq!(view.inputs().iter().map(|&id| view.tensors[id].name).collect::<Vec<_>>(), ["x"]);
        let [a, b, c] = [0, 1, 2].map(|k| view.nodes[k].outputs[0].unwrap());
        assert_eq!((view.only_reader(a), view.only_reader(b), view.only_reader(c)), (Some(1), Some(2), None));
        assert_eq!((view.producer(c), view.tensors[c].answers), (Some(2), 1));
        assert!(view.constant(view.nodes[1].inputs[1].unwrap()).is_some());
    }

    #[test]
    fn names_must_come_from_somewhere_and_once() {
        let missing = error(graph(&["x"], vec![node("Add", &["x", "y"], &["z"])], &["z"]));
        assert_eq!(missing, "node `Add0`: nothing gives its input `y`");
        assert_eq!(error(graph(&["x"], vec![], &["z"])), "output `z`: nothing in the graph gives it");
        let twice = vec![node("Abs", &["x"], &["z"]), node("Neg", &["x"], &["z"])];
        assert_eq!(error(graph(&["x"], twice, &[])), "tensor `z` is given by two nodes");
        assert_eq!(
            error(graph(&["x"], vec![node("Abs", &["x"], &["x"])], &[])),
            "node `Abs0` is part of a cycle"
        );
        assert_eq!(error(graph(&["x", "x"], vec![], &[])), "tensor `x` is defined twice");
        assert_eq!(
            error(graph(&["x", "y"], vec![node("Abs", &["x"], &["y"])], &[])),
            "tensor `y` is defined twice"
        );
        let mut two = graph(&["w", "w"], vec![], &[]);
        two.initializer = vec![weight("w")];
        assert_eq!(error(two.clone()), "tensor `w` is defined twice");
        two.initializer.push(weight("w"));
        assert_eq!(error(two), "tensor `w` is defined twice");
        let mut nameless = graph(&[], vec![], &[]);
        nameless.initializer.push(TensorProto::default());
        assert_eq!(error(nameless), "an input or initializer has no name");
        let none = ModelProto::default();
        assert_eq!(View::new(&none).unwrap_err().to_string(), "the file holds no graph");
    }

    #[test]
    fn a_cycle_is_named_by_a_node_in_it() {
        // `Exp` waits for the cycle and comes first in the file.
        let nodes =
            vec![node("Exp", &["b"], &["c"]), node("Abs", &["b"], &["a"]), node("Neg", &["a"], &["b"])];
        let error = error(graph(&[], nodes, &["c"]));
        assert!(
            error == "node `Neg0` is part of a cycle" || error == "node `Abs0` is part of a cycle",
            "{error}"
        );
    }

    #[test]
    fn subgraphs_see_what_is_outside() {
        let body = graph(&["i"], vec![node("Add", &["i", "late"], &["o"])], &["o"]);
        let nodes =
            vec![with_body(node("Loop", &["x"], &["z"]), body.clone()), node("Abs", &["x"], &["late"])];
        let whole = model(graph(&["x"], nodes, &["z"]));
        let view = View::new(&whole).unwrap();
        let order: Vec<&str> = view.nodes.iter().map(|n| n.proto.op_type()).collect();
        assert_eq!(order, ["Abs", "Add", "Loop"]);
        assert_eq!((view.nodes[1].graph, &view.nodes[2].bodies[..]), (1, &[("body", 1)][..]));
        assert_eq!(view.graphs[1].path, [(0, 0, 0)]);
        // What the body gives is not seen outside, and it cannot wait for its own node.
        let outside = vec![with_body(node("Loop", &["x"], &["late"]), body.clone())];
        assert_eq!(error(graph(&["x"], outside, &[])), "node `Loop0` is part of a cycle");
        let nodes = vec![node("Abs", &["x"], &["late"]), with_body(node("Loop", &["x"], &["z"]), body)];
        assert_eq!(error(graph(&["x"], nodes, &["o"])), "output `o`: nothing in the graph gives it");
    }

    #[test]
    fn a_sparse_initializer_is_a_value() {
        let mut graph = graph(&["x"], vec![node("Add", &["x", "s"], &["z"])], &["z"]);
        let sparse = SparseTensorProto { values: weight("s").into(), ..SparseTensorProto::default() };
        graph.sparse_initializer.push(sparse);
        let model = model(graph);
        let view = View::new(&model).unwrap();
        let s = view.nodes[0].inputs[1].unwrap();
        assert_eq!((view.constant(s).is_none(), view.inputs().len()), (true, 1));
    }

    #[test]
    fn depth_is_bounded() {
        let nest = |depth: usize| {
            let innermost = graph(&[], vec![], &[]);
            (0..depth).fold(innermost, |body, _| graph(&[], vec![with_body(node("If", &[], &[]), body)], &[]))
        };
        assert!(View::new(&model(nest(DEEPEST))).is_ok());
        assert_eq!(error(nest(DEEPEST + 1)), "subgraphs are nested deeper than 32");
    }
}
