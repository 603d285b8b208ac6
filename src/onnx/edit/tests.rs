use std::path::PathBuf;

use super::*;
use crate::compress::Compressor;
use crate::importance::{Magnitude, Scores};
use crate::onnx::draft::{floats, int, integers, node};
use crate::onnx::file;
use crate::onnx::proto::__buffa::oneof::tensor_shape_proto::dimension::Value as Length;
use crate::onnx::proto::__buffa::oneof::type_proto::Value as Type;
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, dtype, tensor_shape_proto, type_proto,
};
use crate::prune::{Channel, Cut, FeatureMap, Mask, Modules, Pruner, Sparsity};
use crate::quantize::{Bits, Uniform};
use crate::{ErrorKind, Evidence, Needs};

fn read(name: &str) -> Graph {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
    Graph::read(folder.join(name)).unwrap()
}

fn plan(model: &Model<f32>, pruner: &dyn Pruner<f32>) -> Plan {
    let scores = Scores::compute(&Magnitude::l2(), model, &Evidence::new(model, Needs::MOMENTS)).unwrap();
    pruner.plan(model, &scores).unwrap()
}

fn half(model: &Model<f32>) -> Plan {
    plan(model, &Channel::new(Sparsity::new(0.5).unwrap()))
}

fn cut(traced: &Traced, plan: &Plan) -> Graph {
    traced.apply(plan, &plan.apply(traced.model()).unwrap()).unwrap()
}

fn names(nodes: &[NodeProto]) -> Vec<&str> {
    nodes.iter().map(NodeProto::op_type).collect()
}

fn initializer<'g>(graph: &'g Graph, name: &str) -> &'g TensorProto {
    graph.graph().initializer.iter().find(|t| t.name.as_deref() == Some(name)).unwrap()
}

/// A graph of these nodes, x in and y out.
fn graph(x: &[i64], y: &[i64], initializers: Vec<(&str, TensorProto)>, nodes: Vec<NodeProto>) -> Graph {
    let info = |name: &str, dims: &[i64]| {
        let dim = |&len: &i64| tensor_shape_proto::Dimension {
            value: Some(Length::DimValue(len)),
            ..tensor_shape_proto::Dimension::default()
        };
        let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..TensorShapeProto::default() };
        let tensor = type_proto::Tensor {
            elem_type: Some(dtype::FLOAT),
            shape: Some(shape).into(),
            ..type_proto::Tensor::default()
        };
        let kind = TypeProto { value: Some(Type::TensorType(Box::new(tensor))), ..TypeProto::default() };
        ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind).into(), ..ValueInfoProto::default() }
    };
    let named = |(name, tensor): (&str, TensorProto)| TensorProto { name: Some(name.to_owned()), ..tensor };
    let graph = GraphProto {
        node: nodes,
        initializer: initializers.into_iter().map(named).collect(),
        input: vec![info("x", x)],
        output: vec![info("y", y)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(18), ..OperatorSetIdProto::default() };
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph).into(),
        opset_import: vec![opset],
        ..ModelProto::default()
    };
    Graph { model, folder: None }
}

/// Weights whose rows weigh more, the later they are.
fn weight(dims: &[usize]) -> TensorProto {
    let n: usize = dims.iter().product();
    floats(dims, &(0..n).map(|k| 1.0 + k as f32).collect::<Vec<f32>>())
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

#[test]
fn nothing_changes_when_nothing_goes() {
    for name in ["resnet18.onnx", "bert-ts.onnx", "if-branches.onnx", "constant-nodes.onnx", "f16-vgg.onnx"] {
        let graph = read(name);
        let traced = graph.trace().unwrap();
        let same = traced.apply(&Plan::new(traced.model()), traced.model()).unwrap();
        assert!(same.model == graph.model, "{name}");
    }
}

#[test]
fn every_network_can_be_cut() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "onnx"));
    assert!(paths.len() > 30);
    for path in paths {
        let traced = Graph::read(&path).unwrap().trace().unwrap();
        let plan = half(traced.model());
        let smaller = plan.apply(traced.model()).unwrap();
        // All shapes are checked on the way.
        let graph = traced.apply(&plan, &smaller).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(smaller.parameter_count() < traced.model().parameter_count());
        // What was written is what is read again.
        let again = Graph::from_bytes(graph.to_bytes().unwrap(), path.parent()).unwrap().trace().unwrap();
        assert_eq!(again.model().parameter_count(), smaller.parameter_count(), "{}", path.display());
    }
}

#[test]
fn a_target_that_two_nodes_read_is_changed_for_one() {
    let nodes = vec![
        node("Gemm", "first", &["x", "w1"], "h"),
        node("Reshape", "flat", &["h", "target"], "r"),
        node("Gemm", "second", &["r", "w2"], "s"),
        node("Reshape", "last", &["s", "target"], "y"),
    ];
    let initializers =
        vec![("w1", weight(&[3, 4])), ("target", integers(&[2], &[2, 4])), ("w2", weight(&[4, 4]))];
    let traced = graph(&[2, 3], &[2, 4], initializers, nodes).trace().unwrap();
    let plan = Plan::removing(traced.model(), "w1", &[1]).unwrap();
    let edited = cut(&traced, &plan);
    let flat = &edited.graph().node[1];
    assert_eq!(flat.input, ["h", "target_cut"]);
    assert_eq!(file::integers(initializer(&edited, "target_cut"), None).unwrap(), [2, 3]);
    assert_eq!(edited.graph().node[3].input, ["s", "target"]);
    assert_eq!(file::integers(initializer(&edited, "target"), None).unwrap(), [2, 4]);
    assert_eq!(initializer(&edited, "w1").dims, [3, 3]);
    assert_eq!(initializer(&edited, "w2").dims, [3, 4]);
    // The traced graph is as before.
    assert_eq!(initializer(traced.graph(), "w1").dims, [3, 4]);
}

#[test]
fn indices_of_what_goes_are_dropped() {
    let nodes = vec![
        node("Gemm", "first", &["x", "w1"], "h"),
        with(node("Gather", "pick", &["h", "at"], "p"), int("axis", 1)),
        node("Gemm", "second", &["p", "w2"], "y"),
    ];
    let initializers =
        vec![("w1", weight(&[3, 5])), ("at", integers(&[4], &[4, 1, -3, 0])), ("w2", weight(&[4, 2]))];
    let traced = graph(&[2, 3], &[2, 2], initializers, nodes).trace().unwrap();
    let name = traced.model().couplings().iter().find(|c| c.slots().iter().any(|s| s.parameter() == "w2"));
    let plan = Plan::removing(traced.model(), name.unwrap().name(), &[1]).unwrap();
    let edited = cut(&traced, &plan);
    assert_eq!(file::integers(initializer(&edited, "at"), None).unwrap(), [3, 1, 0]);
    assert_eq!(initializer(&edited, "w2").dims, [3, 2]);
}

#[test]
fn unequal_parts_get_their_sizes() {
    let nodes = vec![
        node("Gemm", "first", &["x", "w1"], "h"),
        {
            let split = with(node("Split", "halves", &["h"], "a"), int("axis", 1));
            let mut split = with(split, int("num_outputs", 2));
            split.output.push("b".to_owned());
            split
        },
        node("MatMul", "left", &["a", "w2"], "l"),
        node("MatMul", "right", &["b", "w3"], "r"),
        node("Add", "sum", &["l", "r"], "y"),
    ];
    let initializers = vec![("w1", weight(&[3, 6])), ("w2", weight(&[3, 2])), ("w3", weight(&[3, 2]))];
    let traced = graph(&[2, 3], &[2, 2], initializers, nodes).trace().unwrap();
    let coupling = traced.model().couplings().iter().find(|c| {
        c.slots().iter().any(|s| s.parameter() == "w2") && c.slots().iter().any(|s| s.parameter() == "w1")
    });
    let plan = Plan::removing(traced.model(), coupling.unwrap().name(), &[0]).unwrap();
    let edited = cut(&traced, &plan);
    let split = &edited.graph().node[1];
    assert_eq!(split.int("num_outputs"), None);
    assert_eq!(file::integers(initializer(&edited, &split.input[1]), None).unwrap(), [2, 3]);
    assert_eq!(initializer(&edited, "w2").dims, [2, 2]);
    assert_eq!(initializer(&edited, "w3").dims, [3, 2]);
}

#[test]
fn settings_follow_the_weights() {
    let edited = |name: &str| {
        let traced = read(name).trace().unwrap();
        cut(&traced, &half(traced.model()))
    };
    let lstm = edited("lstm-tagger.onnx");
    let lstm = lstm.graph().node.iter().find(|n| n.op_type() == "LSTM").unwrap().int("hidden_size").unwrap();
    let before = read("lstm-tagger.onnx");
    let before =
        before.graph().node.iter().find(|n| n.op_type() == "LSTM").unwrap().int("hidden_size").unwrap();
    assert_eq!(lstm, before / 2);
    for (name, operator, setting) in
        [("groupnorm.onnx", "GroupNormalization", "num_groups"), ("mobilenetv2.onnx", "Conv", "group")]
    {
        let (before, after) = (read(name), edited(name));
        let of = |graph: &Graph| -> i64 {
            let nodes = graph.graph().node.iter().filter(|n| n.op_type() == operator);
            nodes.filter_map(|n| n.int(setting)).sum()
        };
        assert!(of(&after) < of(&before), "{name}");
    }
}

#[test]
fn columns_of_a_flattened_map_go_behind_a_gather() {
    let traced = read("vgg.onnx").trace().unwrap();
    let plan = plan(traced.model(), &FeatureMap::new(Sparsity::new(0.5).unwrap()));
    let edited = cut(&traced, &plan);
    let before = names(&traced.graph().graph().node);
    let after = names(&edited.graph().node);
    // All of it is done by the one node: no mask is needed.
    assert_eq!(after.len(), before.len() + 1);
    let at = after.iter().position(|n| *n == "Gather").unwrap();
    assert_eq!((after[at - 1], after[at + 1]), ("Reshape", "Gemm"));
    let (name, mask) = plan.activation_masks().next().unwrap();
    let indices = initializer(&edited, &edited.graph().node[at].input[1]);
    assert_eq!(indices.dims, [mask.kept() as i64], "{name}");
}

#[test]
fn other_positions_of_a_map_are_masked() {
    let traced = read("resnet18.onnx").trace().unwrap();
    let layer = &traced.layers[0];
    let tensor = layer.activated.as_ref().unwrap().tensor;
    let dims = traced.shapes.dims[tensor].clone().unwrap();
    let mask = Mask::from_fn(&dims[1..], |k| k % 3 != 0);
    let cut = Cut { maps: vec![(layer.parameter.clone(), 0, mask)], ..Cut::default() };
    let plan = Plan::of(traced.model(), cut).unwrap();
    let edited = traced.apply(&plan, traced.model()).unwrap();
    let output = traced.graph().view().unwrap().tensors[tensor].name.to_owned();
    let product = edited.graph().node.iter().find(|n| n.output[0] == output).unwrap();
    assert_eq!(product.op_type(), "Mul");
    let mask = file::floats(initializer(&edited, &product.input[1]), None).unwrap();
    assert_eq!(mask.shape()[1..], dims[1..]);
    assert_eq!(mask.iter().take(4).copied().collect::<Vec<f32>>(), [0.0, 1.0, 1.0, 0.0]);
    // A map of other places is refused.
    let mask = Mask::from_fn(&[dims[1], 2, 2], |k| k > 0);
    let cut = Cut { maps: vec![(layer.parameter.clone(), 0, mask)], ..Cut::default() };
    let plan = Plan::of(traced.model(), cut).unwrap();
    assert_eq!(traced.apply(&plan, traced.model()).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn blocks_are_passed_by() {
    let traced = read("vit.onnx").trace().unwrap();
    let plan = plan(traced.model(), &Modules::count(2));
    let smaller = plan.apply(traced.model()).unwrap();
    let edited = traced.apply(&plan, &smaller).unwrap();
    let adds = |graph: &Graph| graph.graph().node.iter().filter(|n| n.op_type() == "Add").count();
    assert!(adds(&edited) < adds(traced.graph()));
    let again = edited.trace().unwrap();
    assert_eq!(again.model().parameter_count(), smaller.parameter_count());
}

#[test]
fn codes_stand_before_their_weights() {
    for name in ["resnet18.onnx", "groupnorm.onnx", "constant-nodes.onnx", "unet.onnx"] {
        let traced = read(name).trace().unwrap();
        let plan = half(traced.model());
        let four = Uniform::new(Bits::new(4).unwrap()).affine().per_channel();
        let compressor = Compressor::builder().pruner(Channel::new(Sparsity::new(0.5).unwrap()));
        let compressor = compressor.quantizer(four).build_for::<f32>().unwrap();
        let evidence = Evidence::new(traced.model(), Needs::MOMENTS);
        let compressed = compressor.compress_by(&plan, traced.model(), &evidence).unwrap();
        let CompressedGraph { graph, plain, .. } = traced.apply_compressed(&plan, &compressed).unwrap();
        let count = graph.graph().node.iter().filter(|n| n.op_type() == "DequantizeLinear").count();
        let weights = traced.model().weights().count();
        assert_eq!(count + plain.len(), weights, "{name}");
        assert_eq!(plain.is_empty(), name != "unet.onnx");
        if name == "groupnorm.onnx" {
            let small =
                graph.graph().initializer.iter().filter(|t| t.data_type == Some(dtype::UINT4)).count();
            assert_eq!(small, 2 * weights);
        }
    }
}

#[test]
fn what_belongs_to_another_graph_is_refused() {
    let (vgg, gru) = (read("vgg.onnx").trace().unwrap(), read("gru.onnx").trace().unwrap());
    let plan = half(vgg.model());
    assert_eq!(vgg.apply(&plan, gru.model()).unwrap_err().kind(), ErrorKind::Name);
    assert_eq!(vgg.apply(&plan, vgg.model()).unwrap_err().kind(), ErrorKind::Shape);
}
