//! What rten reads otherwise than ONNX says it, said so that it does.

use std::collections::{HashMap, HashSet};

use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_type, dtype,
};

/// Epsilon of a `GroupNormalization` that has none.
const EPSILON: f32 = 1e-5;

/// The same model in words that rten knows: nodes have names that tell their operators and are no tensor's, windows
/// have all their attributes, and group norms are spelled out.
pub(crate) fn translate(model: &mut ModelProto) {
    let own = model.opset_import.iter().find(|o| matches!(o.domain.as_deref(), None | Some("" | "ai.onnx")));
    let opset = own.and_then(|o| o.version).unwrap_or(0);
    if let Some(graph) = model.graph.as_option_mut() {
        translate_graph(graph, opset, &HashMap::new());
    }
}

fn translate_graph(graph: &mut GraphProto, opset: i64, outside: &HashMap<String, Vec<i64>>) {
    let mut dims = outside.clone();
    dims.extend(graph.initializer.iter().filter_map(|t| Some((t.name.clone()?, t.dims.clone()))));
    for node in graph.node.iter().filter(|node| node.operator() == "Constant") {
        let value = node.attr("value").and_then(|a| a.t.as_option());
        if let (Some(name), Some(value)) = (node.output.first(), value) {
            dims.insert(name.clone(), value.dims.clone());
        }
    }
    // Weights in codes have the shape of these.
    for node in graph.node.iter().filter(|node| node.operator() == "DequantizeLinear") {
        if let (Some(name), Some(codes)) = (node.output.first(), node.input.first().and_then(|c| dims.get(c)))
        {
            dims.insert(name.clone(), codes.clone());
        }
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (at, mut node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        for attribute in &mut node.attribute {
            if let Some(body) = attribute.g.as_option_mut() {
                translate_graph(body, opset, &dims);
            }
            attribute.graphs.iter_mut().for_each(|body| translate_graph(body, opset, &dims));
        }
        complete_window(&mut node, &dims);
        match node.operator().as_str() {
            "GroupNormalization" if node.input.len() == 3 && node.output.len() == 1 => {
                nodes.extend(group_norm(&node, at, opset, &mut graph.initializer));
            }
            _ => nodes.push(node),
        }
    }
    let mut seen = HashSet::new();
    for (at, node) in nodes.iter_mut().enumerate() {
        let name = format!("{} {}", node.operator(), node.title());
        node.name = Some(if seen.insert(name.clone()) { name } else { format!("{name} #{at}") });
    }
    graph.node = nodes;
}

/// Writes out the size of a convolution's kernel and the steps of a window: rten takes the first for given, and the
/// second for as long as that.
fn complete_window(node: &mut NodeProto, dims: &HashMap<String, Vec<i64>>) {
    let convolution = matches!(node.operator().as_str(), "Conv" | "ConvTranspose" | "ConvInteger");
    if !convolution && !matches!(node.operator().as_str(), "MaxPool" | "AveragePool") {
        return;
    }
    if node.attr("kernel_shape").is_none() {
        let weight = node.input.get(1).and_then(|name| dims.get(name)).filter(|dims| dims.len() > 2);
        let Some(weight) = weight.filter(|_| convolution) else { return };
        node.set_ints("kernel_shape", weight[2..].to_vec());
    }
    let axes = node.ints("kernel_shape").map_or(0, <[i64]>::len);
    if node.attr("strides").is_none() {
        node.set_ints("strides", vec![1; axes]);
    }
}

/// A group norm as an instance norm between two reshapes. From operator set 21 on, each channel has a scale and a bias
/// of its own; before, each group.
fn group_norm(
    node: &NodeProto,
    at: usize,
    opset: i64,
    initializers: &mut Vec<TensorProto>,
) -> Vec<NodeProto> {
    let groups = node.int("num_groups").unwrap_or(1);
    let [x, scale, bias, y] = [&node.input[0], &node.input[1], &node.input[2], &node.output[0]];
    let name = |part: &str| format!("{y} {part} #{at}");
    let mut integers = |part: &str, values: Vec<i64>| {
        let dims = vec![values.len() as i64];
        initializers.push(TensorProto {
            name: Some(name(part)),
            data_type: Some(dtype::INT64),
            dims,
            int64_data: values,
            ..TensorProto::default()
        });
        name(part)
    };
    let split = integers("split", vec![0, groups, -1]);
    let op = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: Some(op.to_owned()),
        name: Some(format!("{} {}", node.title(), op)),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let (whole, parts, normal) = (name("whole"), name("parts"), name("normal"));
    let mut nodes = vec![op("Shape", &[x], &whole), op("Reshape", &[x, &split], &parts)];
    let norm = |scale: &str, bias: &str| {
        let mut norm = op("InstanceNormalization", &[&parts, scale, bias], &normal);
        norm.attribute.push(AttributeProto {
            name: Some("epsilon".to_owned()),
            r#type: Some(attribute_type::FLOAT),
            f: Some(node.float("epsilon").unwrap_or(EPSILON)),
            ..AttributeProto::default()
        });
        norm
    };
    if opset < 21 {
        nodes.extend([norm(scale, bias), op("Reshape", &[&normal, &whole], y)]);
        return nodes;
    }
    let (zero, rest, column) =
        (integers("zero", vec![0]), integers("rest", vec![-1]), integers("column", vec![-1, 1]));
    for (part, value) in [("ones", 1.0), ("zeros", 0.0)] {
        initializers.push(TensorProto {
            name: Some(name(part)),
            data_type: Some(dtype::FLOAT),
            dims: vec![groups],
            float_data: vec![value; usize::try_from(groups).unwrap_or(0)],
            ..TensorProto::default()
        });
    }
    let [channels, rows, split, columns, shifts, scaled, shifted] =
        ["channels", "rows", "rows shape", "scales", "shifts", "scaled", "shifted"].map(name);
    let mut join = op("Concat", &[&zero, &channels, &rest], &split);
    join.set_int("axis", 0);
    nodes.extend([
        norm(&name("ones"), &name("zeros")),
        op("Shape", &[scale], &channels),
        join,
        op("Reshape", &[&normal, &split], &rows),
        op("Reshape", &[scale, &column], &columns),
        op("Reshape", &[bias, &column], &shifts),
        op("Mul", &[&rows, &columns], &scaled),
        op("Add", &[&scaled, &shifts], &shifted),
        op("Reshape", &[&shifted, &whole], y),
    ]);
    nodes
}
