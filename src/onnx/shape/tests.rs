//! Shapes of hand-made nets and of real ones.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::onnx::graph::Graph;
use crate::onnx::proto::{ModelProto, ValueInfoProto, dtype};
use crate::onnx::view::View;

use super::testing::{Net, info, lengths, text};
use super::{Origin, infer};

#[test]
fn open_axes_get_lengths_and_names_keep_them() {
    let net = Net::new(17)
        .input("image", &["n", "3", "", ""])
        .input("ids", &["n", "words"])
        .input("mask", &["words"]);
    let net = net
        .input("more", &["n", "words + 1"])
        .input("sound", &["batch", "7"])
        .input("state", &["2", "batch"]);
    let known = net.known(&[]);
    assert_eq!(known.dims("image"), Some(&[2, 3, 64, 64][..]));
    assert_eq!(known.dims("ids"), Some(&[2, 8][..]));
    assert_eq!(known.dims("mask"), Some(&[8][..]));
    assert_eq!(known.dims("more"), Some(&[2, 9][..]));
    assert_eq!(known.dims("state"), Some(&[2, 2][..]));
    let net = Net::new(17).input("ids", &["n", "words"]).input("mask", &["n", "words"]);
    assert_eq!(net.known(&[("mask", &[5, 11])]).dims("ids"), Some(&[5, 11][..]));
}

#[test]
fn given_shapes_must_fit() {
    let model = |given: &[(&str, &[usize])]| {
        let graph = Net::new(17).input("x", &["n", "3"]).graph;
        let model = ModelProto { graph: graph.into(), ..ModelProto::default() };
        infer(&View::new(&model).unwrap(), &lengths(given)).unwrap_err().to_string()
    };
    assert_eq!(model(&[("y", &[1])]), "`y` is no input of the model, whose inputs are [\"x\"]");
    assert_eq!(model(&[("x", &[1, 4])]), "input `x` is given as [1, 4], but the model wants [n, 3]");
    assert_eq!(model(&[("x", &[1, 3, 1])]), "input `x` is given as [1, 3, 1], but the model wants [n, 3]");
}

/// Where the defaults break a net, other lengths are tried.
#[test]
fn lengths_that_fit_are_found() {
    let net = Net::new(17).input("x", &["n", "samples"]).ints("shape", &[0, -1, 576]);
    let known = net.node("y = Reshape(x, shape)", &[]).known(&[]);
    assert_eq!(known.dims("y"), Some(&[2, 1, 576][..]));
    let net = Net::new(17).input("x", &["n", "samples"]).ints("shape", &[0, -1, 577]);
    assert_eq!(net.node("y = Reshape(x, shape)", &[]).known(&[]).dims("y"), None);
}

/// The sizes that ONNX Runtime 1.32 gives.
#[test]
fn windows() {
    let mut net = Net::new(19).input("x", &["2", "4", "11", "13"]);
    net = net.floats("w", &[6, 4, 3, 5], 0.0).floats("t", &[4, 3, 3, 4], 0.0);
    net = net.node("conv = Conv(x, w)", &[("strides", &[2, 3]), ("pads", &[1, 2, 0, 1])]);
    net = net.node("same = Conv(x, w)", &[("strides", &[2, 3])]);
    net.graph.node.last_mut().unwrap().attribute.push(text("auto_pad", "SAME_LOWER"));
    net = net.node("wide = Conv(x, w)", &[("dilations", &[2, 2])]);
    let three: (&str, &[i64]) = ("kernel_shape", &[3, 3]);
    net = net.node("up = MaxPool(x)", &[three, ("strides", &[2, 3]), ("ceil_mode", &[1])]);
    // The last window would begin in the padding.
    net = net.node(
        "late = AveragePool(x)",
        &[three, ("strides", &[3, 3]), ("pads", &[1, 1, 1, 1]), ("ceil_mode", &[1])],
    );
    net = net.node("back = ConvTranspose(x, t)", &[("strides", &[2, 2]), ("pads", &[1, 1, 1, 1])]);
    net = net.node("short = Conv(tiny, w)", &[]).input("tiny", &["1", "4", "2", "5"]);
    net = net.node("other = Conv(channels, w)", &[]).input("channels", &["1", "5", "9", "9"]);
    let known = net.known(&[]);
    assert_eq!(known.dims("conv"), Some(&[2, 6, 5, 4][..]));
    assert_eq!(known.dims("same"), Some(&[2, 6, 6, 5][..]));
    assert_eq!(known.dims("wide"), Some(&[2, 6, 7, 5][..]));
    assert_eq!(known.dims("up"), Some(&[2, 4, 5, 5][..]));
    assert_eq!(known.dims("late"), Some(&[2, 4, 4, 5][..]));
    assert_eq!(known.dims("back"), Some(&[2, 3, 21, 26][..]));
    assert_eq!((known.dims("short"), known.dims("other")), (None, None));
}

#[test]
fn slices_from_the_end_and_backwards() {
    let cases: [(&[i64; 4], usize); 7] = [
        (&[1, -1, 1, 1], 9),
        (&[-1, -100, 1, -1], 11),
        (&[10, 0, 1, -3], 4),
        (&[0, i64::MAX, 1, 3], 4),
        (&[5, 3, 1, 1], 0),
        (&[100, i64::MIN, 1, -2], 6),
        (&[-100, 5, 1, 2], 3),
    ];
    for (&[start, end, axis, step], length) in cases {
        let mut net = Net::new(13).input("x", &["2", "11"]);
        for (name, number) in [("start", start), ("end", end), ("axis", axis), ("step", step)] {
            net = net.ints(name, &[number]);
        }
        let known = net.node("y = Slice(x, start, end, axis, step)", &[]).known(&[]);
        assert_eq!(known.dims("y"), Some(&[2, length][..]), "{start}:{end}:{step}");
    }
}

#[test]
fn shapes_are_computed_with_their_origins() {
    let net =
        Net::new(17).input("x", &["n", "12", "4"]).ints("one", &[1]).ints("two", &[2]).ints("rest", &[-1]);
    let net = net.ints("first", &[0]).node("shape = Shape(x)", &[]);
    let net = net.node("batch = Gather(shape, first)", &[("axis", &[0])]);
    let net = net.node("channels = Gather(shape, one)", &[]).node("half = Div(channels, two)", &[]);
    let net = net.node("kept = Mul(channels, one)", &[]);
    let net = net.node("target = Concat(batch, two, half, rest)", &[("axis", &[0])]);
    let known = net.node("y = Reshape(x, target)", &[]).known(&[("x", &[5, 12, 4])]);
    assert_eq!(known.dims("y"), Some(&[5, 2, 6, 4][..]));
    assert_eq!(known.numbers("target"), Some(vec![5.0, 2.0, 6.0, -1.0]));
    let x = known.id("x");
    let constant = |name: &str| Origin::Constant(known.id(name), 0);
    assert_eq!(
        known.origins("target"),
        [Origin::Length(x, 0), constant("two"), Origin::Other, constant("rest")]
    );
    assert_eq!(known.origins("kept"), [Origin::Length(x, 1)]);
}

#[test]
fn numbers_are_those_of_their_type() {
    let mut net = Net::new(17).ints("a", &[7, -7]).ints("b", &[2]).ints("one", &[1]);
    net = net.floats("scale", &[1], 1.4).floats("ten", &[1], 10.0);
    let net = net.node("div = Div(a, b)", &[]).node("mod = Mod(a, b)", &[]).node("less = Less(a, b)", &[]);
    let net = net.node("back = Where(less, a, b)", &[]).node("all = ReduceProd(a)", &[("keepdims", &[0])]);
    let net = net.node("product = Mul(scale, ten)", &[]).node("floor = Floor(product)", &[]);
    let known = net.node("int = Cast(floor)", &[("to", &[7])]).node("none = Div(scale, a)", &[]).known(&[]);
    assert_eq!(known.numbers("div"), Some(vec![3.0, -3.0]));
    assert_eq!(known.numbers("mod"), Some(vec![1.0, 1.0]));
    assert_eq!(known.numbers("back"), Some(vec![2.0, -7.0]));
    assert_eq!(known.numbers("all"), Some(vec![-49.0]));
    // In f64 the product of 1.4 as f32 and ten is below 14.
    assert_eq!(known.numbers("int"), Some(vec![14.0]));
}

#[test]
fn recurrent_layers_in_both_layouts() {
    for (layout, first, last) in [(0, [5, 2, 3, 4], [2, 3, 4]), (1, [5, 3, 2, 4], [5, 2, 4])] {
        let mut net = Net::new(17).input("x", &["5", "3", "6"]);
        net = net.floats("w", &[2, 16, 6], 0.0).floats("r", &[2, 16, 4], 0.0);
        net = net.node("y, h, c = LSTM(x, w, r)", &[("hidden_size", &[4]), ("layout", &[layout])]);
        net.graph.node.last_mut().unwrap().attribute.push(text("direction", "bidirectional"));
        let known = net.known(&[]);
        assert_eq!(known.dims("y"), Some(&first[..]));
        assert_eq!((known.dims("h"), known.dims("c")), (Some(&last[..]), Some(&last[..])));
    }
}

#[test]
fn branches_must_agree_unless_one_is_taken() {
    let side = |shape: &str| {
        let name = format!("of_{shape}");
        Net::new(17).node(&format!("{name} = Reshape(x, {shape})"), &[]).output(&name)
    };
    let net = |condition: &str, other: &str| {
        let mut net = Net::new(17).input("x", &["n", "4"]).ints("flat", &[-1]).ints("two", &[2, -1]);
        net.graph.input.push(info("open", &[], dtype::BOOL));
        net = net.ints("yes", &[1]).node("condition = Identity(open)", &[]);
        net = net.node("taken = Cast(yes)", &[("to", &[9])]);
        net = net.node(&format!("y = If({condition})"), &[]);
        net.body("then_branch", side("flat")).body("else_branch", side(other)).known(&[])
    };
    assert_eq!(net("condition", "flat").dims("y"), Some(&[8][..]));
    assert_eq!(net("condition", "two").dims("y"), None);
    assert_eq!(net("taken", "two").dims("y"), Some(&[8][..]));
}

#[test]
fn what_a_loop_carries_keeps_its_shape_or_has_none() {
    let mut body = Net::new(17);
    for name in ["i", "on", "same", "longer"] {
        body.graph.input.push(ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() });
    }
    let body = body.node("on_again = Identity(on)", &[]).node("next = Relu(same)", &[]);
    let body = body.node("grown = Concat(longer, same)", &[("axis", &[0])]).node("after = Relu(longer)", &[]);
    let body = body.output("on_again").output("next").output("grown").output("after");
    let net = Net::new(17)
        .input("x", &["n", "4"])
        .ints("count", &[3])
        .node("end, all, rows = Loop(count, , x, x)", &[]);
    let known = net.body("body", body).known(&[]);
    assert_eq!(known.dims("end"), Some(&[2, 4][..]));
    assert_eq!((known.dims("all"), known.dims("after"), known.dims("rows")), (None, None, None));
    assert_eq!(known.dims("next"), Some(&[2, 4][..]));
}

#[test]
fn a_scan_cuts_its_axis_and_puts_it_back() {
    let mut body = Net::new(17);
    for name in ["state", "part"] {
        body.graph.input.push(ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() });
    }
    let body = body.node("next = Add(state, part)", &[]).node("answer = Neg(next)", &[]);
    let body = body.output("next").output("answer");
    let net = Net::new(17).input("start", &["2", "6"]).input("x", &["2", "9", "6"]);
    let attributes: [(&str, &[i64]); 3] =
        [("num_scan_inputs", &[1]), ("scan_input_axes", &[1]), ("scan_output_axes", &[-1])];
    let known = net.node("last, all = Scan(start, x)", &attributes).body("body", body).known(&[]);
    assert_eq!(known.dims("part"), Some(&[2, 6][..]));
    assert_eq!(known.dims("last"), Some(&[2, 6][..]));
    assert_eq!(known.dims("all"), Some(&[2, 6, 9][..]));
}

#[test]
fn unknown_operators_end_where_the_file_says_something() {
    let mut net = Net::new(17).input("x", &["n", "4"]).node("y = Mystery(x)", &[]).node("z = Relu(y)", &[]);
    net = net.node("u = Mystery(x)", &[]).node("v = Relu(u)", &[]);
    net.graph.value_info.push(info("y", &["n", "9"], dtype::FLOAT));
    net.graph.value_info.push(info("u", &["unseen", "9"], dtype::FLOAT));
    let known = net.known(&[]);
    assert_eq!(known.dims("z"), Some(&[2, 9][..]));
    assert_eq!((known.dims("u"), known.dims("v")), (None, None));
}

/// Lengths and axes that no file should hold.
#[test]
fn absurd_numbers_are_unknown() {
    let max = i64::MAX;
    let mut net = Net::new(17).input("x", &["2", "4", "8", "8"]).floats("w", &[6, 4, 3, 3], 0.0);
    net = net.ints("huge", &[max, max, max, max]).ints("least", &[i64::MIN; 4]).ints("zero", &[0, 0, 0, 0]);
    let big: &[i64] = &[max, max];
    for (at, name) in ["strides", "dilations"].into_iter().enumerate() {
        net = net.node(&format!("conv{at} = Conv(x, w)"), &[(name, big)]);
        net = net.node(&format!("back{at} = ConvTranspose(x, t)"), &[(name, big)]);
    }
    net = net.floats("t", &[4, 4, 3, 3], 0.0).node("pads = Conv(x, w)", &[("pads", &[max; 4])]);
    net = net.node("pool = MaxPool(x)", &[("kernel_shape", big), ("strides", &[0, 0])]);
    for list in ["huge", "least", "zero"] {
        net = net.node(&format!("reshape_{list} = Reshape(x, {list})"), &[("allowzero", &[1])]);
        net = net.node(&format!("tile_{list} = Tile(x, {list})"), &[]);
        net = net.node(&format!("expand_{list} = Expand(x, {list})"), &[]);
        net = net.node(&format!("filled_{list} = ConstantOfShape({list})"), &[]);
        net = net.node(&format!("slice_{list} = Slice(x, {list}, {list})"), &[]);
        net = net.node(&format!("steps_{list} = Slice(x, zero, huge, , {list})"), &[]);
        net = net.node(&format!("squeeze_{list} = Squeeze(x, {list})"), &[]);
        net = net.node(&format!("unsqueeze_{list} = Unsqueeze(x, {list})"), &[]);
        net = net.node(&format!("sum_{list} = ReduceSum(x, {list})"), &[]);
        net = net.node(&format!("gather_{list} = Gather({list}, {list})"), &[]);
        net = net.node(&format!("product_{list} = Mul({list}, {list})"), &[]);
        net = net.node(&format!("ratio_{list} = Div(huge, {list})"), &[]);
        net = net.node(&format!("pad_{list} = Pad(x, {list})"), &[]);
        net = net.node(&format!("range_{list} = Range({list}, {list}, {list})"), &[]);
        net = net.node(&format!("split_{list}, rest_{list} = Split(x, {list})"), &[]);
    }
    for axis in [max, i64::MIN] {
        for operator in ["Concat", "Split", "Gather", "Flatten", "Softmax", "ArgMax", "TopK", "OneHot"] {
            net = net.node(&format!("{operator}_{axis} = {operator}(x, zero)"), &[("axis", &[axis])]);
        }
        for operator in ["DepthToSpace", "SpaceToDepth"] {
            net = net.node(&format!("{operator}_{axis} = {operator}(x)"), &[("blocksize", &[axis])]);
        }
        net = net.node(&format!("shape_{axis} = Shape(x)"), &[("start", &[axis]), ("end", &[axis])]);
    }
    let known = net.known(&[]);
    for name in ["back0", "pads", "tile_huge", "filled_huge", "pad_huge", "Concat_9223372036854775807"] {
        assert_eq!(known.dims(name), None, "{name}");
    }
    assert_eq!(known.dims("reshape_zero"), None);
    assert_eq!(known.dims("filled_zero"), Some(&[0, 0, 0, 0][..]));
}

/// Every tensor outside of loops has a shape, except behind operators of unknown domains and sequences.
#[test]
fn real_nets_have_all_shapes() {
    let mut paths: Vec<PathBuf> = Vec::new();
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
    let shared = ["mnist-cnn", "ppocr-cls", "basic-pitch", "silero"].map(|name| format!("data/{name}"));
    let folders = shared.iter().filter_map(|name| crate::format::tensors::shared(name));
    for folder in folders.chain([here]) {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|end| end == "onnx")));
    }
    for path in paths {
        let graph = Graph::read(&path).unwrap();
        let view = graph.view().unwrap();
        let shapes = infer(&view, &HashMap::new()).unwrap();
        let opaque = view.nodes.iter().any(|node| {
            let operator = node.proto.operator();
            operator.contains('.') || operator.contains("Sequence") || matches!(operator.as_str(), "Loop")
        });
        let missing: Vec<&str> = (0..view.tensors.len())
            .filter(|&id| shapes.dims[id].is_none())
            .map(|id| view.tensors[id].name)
            .collect();
        assert!(missing.is_empty() || opaque, "{}: {missing:?}", path.display());
    }
}
