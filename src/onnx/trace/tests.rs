use std::path::Path;

use crate::model::Kind;
use crate::onnx::trace::Order;
use crate::onnx::{Graph, Trace, Traced};

fn graph(name: &str) -> Graph {
    Graph::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx").join(name)).unwrap()
}

fn traced(name: &str) -> Traced {
    graph(name).trace().unwrap()
}

/// Name and size of each coupling.
fn sizes(traced: &Traced) -> Vec<(&str, usize)> {
    traced.model().couplings().iter().map(|c| (c.name(), c.size())).collect()
}

/// `parameter.axis×positions` of each slot of a coupling.
fn members(traced: &Traced, coupling: &str) -> Vec<String> {
    let coupling = traced.model().coupling(coupling).unwrap();
    let member =
        |s: &crate::model::CoupledSlot| format!("{}.{}x{}", s.parameter(), s.axis(), s.positions(0).len());
    coupling.slots().iter().map(member).collect()
}

fn why<'t>(traced: &'t Traced, parameter: &str) -> &'t str {
    &traced.frozen().iter().find(|f| f.parameter == parameter).unwrap().why
}

#[test]
fn residual_stages_are_one_and_inner_channels_their_own() {
    let net = traced("resnet18-ts.onnx");
    // Four stages, and the channels inside of eight blocks.
    assert_eq!(sizes(&net).len(), 4 + 8);
    // Batch norms folded: the stem, two ends of branches and what reads them.
    let stem = members(&net, net.model().couplings()[0].name());
    assert_eq!(stem.len(), 2 + 2 * 3 + 2, "{stem:?}");
    assert_eq!(net.model().blocks().len(), 5);
    assert_eq!(net.frozen().len(), 1);
}

#[test]
fn heads_go_with_their_queries_keys_and_values() {
    let net = traced("vit.onnx");
    assert_eq!(sizes(&net), [("val_13", 4), ("val_74", 40), ("val_87", 4), ("val_145", 40)]);
    assert_eq!(members(&net, "val_13"), ["val_13.1x18", "layers.0.qkv.bias.0x18", "val_70.0x6"]);
    let bert = traced("bert-ts.onnx");
    assert_eq!(bert.model().couplings()[0].size(), 4);
    assert_eq!(bert.model().couplings()[0].slots().len(), 7);
    assert!(why(&net, "patch.weight").contains("statistic"));
}

#[test]
fn queries_that_share_keys_are_one_unit() {
    for name in ["llama.onnx", "llama-ts.onnx", "llama-tied.onnx"] {
        let net = traced(name);
        let heads = &net.model().couplings()[0];
        assert_eq!(heads.size(), 2, "{name}");
        let positions: Vec<usize> = heads.slots().iter().map(|s| s.positions(0).len()).collect();
        let (least, most) = (positions.iter().min().unwrap(), positions.iter().max().unwrap());
        assert_eq!(most / least, 3, "{name}: {positions:?}");
    }
}

#[test]
fn what_statistics_hold_can_be_let_go() {
    let net = Trace::new().through_statistics().run(&graph("vit.onnx")).unwrap();
    assert!(net.model().couplings().iter().any(|c| c.name() == "patch.weight" && c.size() == 24));
}

#[test]
fn concats_splits_and_shuffles() {
    assert_eq!(sizes(&traced("densenet.onnx")).len(), 19);
    let unet = traced("unet-ts.onnx");
    assert_eq!(members(&unet, "up2.weight"), ["up2.weight.0x1", "up2.bias.0x1", "join2.0.0.weight.1x1"]);
    let slots = unet.model().coupling("up2.weight").unwrap().slots();
    // Behind the ten channels that the skip brings.
    assert_eq!(slots[2].positions(0), [10]);
    let shuffled = traced("shufflenetv2.onnx");
    assert_eq!(shuffled.model().coupling("last.0.weight").unwrap().size(), 32);
    assert_eq!(
        shuffled.model().couplings().iter().filter(|c| c.name().starts_with("stem.0.weight")).count(),
        4
    );
    let depth = traced("superres.onnx");
    assert_eq!(members(&depth, "conv2.weight"), ["conv2.weight.0x4", "conv2.bias.0x4", "conv3.weight.1x1"]);
}

#[test]
fn groups_of_a_norm_go_whole() {
    for name in ["groupnorm.onnx", "groupnorm-ts.onnx"] {
        let net = traced(name);
        let units: Vec<usize> = sizes(&net).iter().map(|(_, n)| *n).collect();
        assert_eq!(units, [4, 3, 16], "{name}");
    }
}

#[test]
fn recurrent_layers_and_their_states() {
    let gru = traced("gru.onnx");
    assert_eq!(
        members(&gru, "val_29"),
        ["val_29.0x3", "val_30.0x3", "val_30.1x1", "val_46.1x6", "linear.weight.1x1"]
    );
    assert_eq!(gru.model().parameter("val_29").unwrap().kind(), &Kind::Recurrent { gates: 3 });
    let lstm = traced("lstm-tagger-ts.onnx");
    let recurrent = lstm.model().weights().filter(|w| matches!(w.kind(), Kind::Recurrent { gates: 4 }));
    assert_eq!(recurrent.count(), 2 * 2 * 2);
    let layer = lstm.layers.iter().find(|l| l.parameter.ends_with("[1]")).unwrap();
    assert_eq!(layer.activated.as_ref().unwrap().order, Order::Direction(1));
}

#[test]
fn layers_in_branches_are_followed() {
    let net = traced("if-branches.onnx");
    let joined = members(&net, "else.conv1.weight");
    assert!(joined.contains(&"then.conv0.weight.0x1".to_owned()), "{joined:?}");
}

#[test]
fn an_unknown_operator_holds_only_what_it_touches() {
    let net = traced("custom-op.onnx");
    assert_eq!(net.model().couplings().len(), 1);
    let held = net.frozen().iter().find(|f| f.operator == "com.example.Squash").unwrap();
    assert!(held.why.contains("not known"));
}

#[test]
fn constants_in_nodes_are_weights() {
    let net = traced("constant-nodes.onnx");
    assert_eq!(sizes(&net).len(), 3);
    assert!(net.model().weights().count() >= 4);
}

#[test]
fn every_network_has_something_to_remove_and_every_layer_its_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let net = traced(&name);
        assert!(!net.model().couplings().is_empty(), "{name}");
        for weight in net.model().weights() {
            assert!(net.layers.iter().any(|l| l.parameter == weight.name()), "{name}: {}", weight.name());
        }
    }
}

/// A stream of numbers.
struct Stream(u64);

impl Stream {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

const OPERATORS: &[&str] = &[
    "Add",
    "Attention",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Concat",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "DepthToSpace",
    "Einsum",
    "Expand",
    "Flatten",
    "GRU",
    "Gather",
    "Gemm",
    "GroupNormalization",
    "GroupQueryAttention",
    "InstanceNormalization",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "MatMul",
    "MultiHeadAttention",
    "Pad",
    "RNN",
    "ReduceMean",
    "Reshape",
    "Resize",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "TopK",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Changes one thing of a graph, sensible or not.
fn spoil(graph: &mut Graph, stream: &mut Stream) {
    let Some(proto) = graph.model.graph.as_option_mut() else { return };
    let (at, from) = (stream.below(proto.node.len()), stream.below(proto.node.len()));
    let numbers = [-9, -2, -1, 0, 1, 2, 3, 4, 6, 8, 24, i64::MAX, i64::MIN];
    let other = proto.node[from].input.first().cloned();
    let node = &mut proto.node[at];
    let (inputs, place) = (node.input.len(), stream.below(node.attribute.len()));
    match stream.below(6) {
        0 => node.op_type = Some(OPERATORS[stream.below(OPERATORS.len())].to_owned()),
        1 => {
            let names = [
                "group",
                "axis",
                "num_heads",
                "kv_num_heads",
                "blocksize",
                "num_groups",
                "transA",
                "keepdims",
            ];
            node.set_int(names[stream.below(names.len())], numbers[stream.below(numbers.len())]);
        }
        2 => {
            let names = ["strides", "pads", "perm", "axes", "dilations", "split", "output_padding"];
            let values = (0..stream.below(5)).map(|_| numbers[stream.below(numbers.len())]).collect();
            node.set_ints(names[stream.below(names.len())], values);
        }
        3 if place < node.attribute.len() => {
            node.attribute.remove(place);
        }
        4 if inputs > 0 => node.input.truncate(stream.below(inputs)),
        5 if inputs > 0 => node.input[stream.below(inputs)] = other.unwrap_or_default(),
        _ => {}
    }
    let tensors = proto.initializer.len();
    if stream.below(3) == 0 && tensors > 0 {
        proto.initializer[stream.below(tensors)].dims.reverse();
    }
}

#[test]
fn no_graph_makes_it_panic() {
    let names = [
        "resnet50-ts",
        "vit",
        "llama-ts",
        "bert",
        "gru",
        "lstm-tagger",
        "groupnorm",
        "unet",
        "superres",
        "if-branches",
    ];
    let mut stream = Stream(11);
    let (mut traced, mut panics) = (0, 0);
    for round in 0..1200 {
        let mut graph = graph(&format!("{}.onnx", names[round % names.len()]));
        for _ in 0..=stream.below(4) {
            spoil(&mut graph, &mut stream);
        }
        match std::panic::catch_unwind(|| graph.trace().is_ok()) {
            Ok(done) => traced += usize::from(done),
            Err(_) => panics += 1,
        }
    }
    assert_eq!(panics, 0);
    assert!(traced > 100, "{traced}");
}
