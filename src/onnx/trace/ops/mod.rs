//! What each operator does to the axes that pass through it.

mod attention;
mod convolution;
mod elementwise;
mod layout;
mod matrix;
mod normalize;
mod recurrent;
mod reduce;
pub(crate) mod reshape;
mod select;

use crate::onnx::trace::step::Step;

/// Follows the axes of one node's inputs into its outputs.
pub(super) fn follow(step: &mut Step<'_, '_, '_>) {
    let operator = step.proto().operator();
    let operator = operator.strip_prefix("com.microsoft.").unwrap_or(&operator);
    let unknown_shape = step
        .node()
        .inputs
        .iter()
        .chain(&step.node().outputs)
        .flatten()
        .any(|&tensor| step.tracer.shapes.dims[tensor].is_none());
    // A subgraph's owner has inputs and outputs of its own kinds.
    if unknown_shape && !matches!(operator, "If" | "Loop" | "Scan") {
        return step.stop("its shapes are not known");
    }
    if step.dims(0).len() < least_axes(operator) {
        return step.stop("its shapes do not fit");
    }
    match operator {
        "Conv" | "FusedConv" => convolution::conv(step),
        "ConvTranspose" => convolution::transposed(step),
        "MaxPool" | "AveragePool" | "LpPool" | "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
            convolution::pool(step);
        }
        "MatMul" => matrix::matmul(step),
        "Gemm" => matrix::gemm(step),
        "Einsum" => matrix::einsum(step),
        "BatchNormalization" => normalize::batch(step),
        "InstanceNormalization" => normalize::instance(step),
        "GroupNormalization" => normalize::group(step),
        "LayerNormalization" | "SimplifiedLayerNormalization" | "RMSNormalization" => normalize::layer(step),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => normalize::skip_layer(step),
        "LRN" | "LpNormalization" | "MeanVarianceNormalization" => normalize::along(step),
        "Softmax" | "LogSoftmax" | "Hardmax" => normalize::softmax(step),
        "Reshape" => reshape::reshape(step),
        "Flatten" => reshape::flatten(step),
        "Transpose" => layout::transpose(step),
        "Squeeze" => layout::squeeze(step),
        "Unsqueeze" => layout::unsqueeze(step),
        "Expand" | "Tile" => layout::repeat(step),
        "DepthToSpace" => layout::depth_to_space(step),
        "SpaceToDepth" => layout::space_to_depth(step),
        "Concat" => select::concat(step),
        "Split" => select::split(step),
        "Slice" => select::slice(step),
        "Gather" => select::gather(step),
        "Pad" => select::pad(step),
        "Resize" | "Upsample" => select::resize(step),
        "LSTM" => recurrent::layer(step, 4),
        "GRU" => recurrent::layer(step, 3),
        "RNN" => recurrent::layer(step, 1),
        "Attention" | "MultiHeadAttention" | "GroupQueryAttention" => attention::fused(step),
        "RotaryEmbedding" => attention::rotary(step),
        "Constant" => layout::constant(step),
        "If" => layout::branches(step),
        "Loop" | "Scan" => layout::bodies(step),
        "ConstantOfShape" => layout::fill(step),
        "Shape" | "Size" | "Range" | "RandomNormalLike" => {}
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare" => reduce::reduce(step),
        "ArgMax" | "ArgMin" => reduce::arg(step),
        "TopK" | "CumSum" => reduce::along(step),
        _ if elementwise::is_one(operator) => elementwise::broadcast(step),
        _ => step.stop("this operator is not known"),
    }
}

/// Axes that an operator's first input has at least.
fn least_axes(operator: &str) -> usize {
    match operator {
        "DepthToSpace" | "SpaceToDepth" => 4,
        "LSTM"
        | "GRU"
        | "RNN"
        | "MultiHeadAttention"
        | "GroupQueryAttention"
        | "Attention"
        | "RotaryEmbedding" => 3,
        "InstanceNormalization" | "GroupNormalization" | "LRN" => 2,
        "Constant" | "If" | "Loop" | "Scan" | "Shape" | "Size" | "ConstantOfShape" | "Range" => 0,
        "ArgMax" | "ArgMin" | "TopK" | "CumSum" | "Gather" | "Split" | "Softmax" | "LogSoftmax"
        | "Hardmax" | "BatchNormalization" | "LpNormalization" => 1,
        _ if operator.contains("LayerNormalization") || operator == "RMSNormalization" => 1,
        _ => 0,
    }
}
