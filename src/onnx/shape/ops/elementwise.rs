//! Operators that give the shape of an input, or of all inputs broadcast.

use super::{Found, Miss, Op, Outputs, ensure, one, volume};

/// What gives the shape of its first input.
const SAME: [&str; 80] = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Bernoulli",
    "BiasGelu",
    "BitwiseNot",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "CumProd",
    "CumSum",
    "DequantizeLinear",
    "Elu",
    "Erf",
    "Exp",
    "EyeLike",
    "FastGelu",
    "Floor",
    "Gelu",
    "GroupNorm",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "ParametricSoftplus",
    "QLinearLeakyRelu",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QuantizeLinear",
    "QuickGelu",
    "RMSNormalization",
    "RandomNormalLike",
    "RandomUniformLike",
    "Reciprocal",
    "Relu",
    "ReverseSequence",
    "RotaryEmbedding",
    "Round",
    "ScaledTanh",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "TensorScatter",
    "ThresholdedRelu",
    "Trilu",
];

pub(super) fn infer(op: &Op<'_>) -> Option<Found<Outputs>> {
    Some(match op.node.op_type() {
        name if SAME.contains(&name) => op.dims(0).map(same),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Xor" | "Equal" | "Less" | "Greater"
            if op.opset < 7 =>
        {
            op.dims(0).map(same)
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "And" | "Or" | "Xor" | "Equal" | "Less"
        | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "BitShift" | "BitwiseAnd" | "BitwiseOr"
        | "BitwiseXor" | "Max" | "Min" | "Mean" | "Sum" | "Where" => {
            all(op, &(0..op.inputs.len()).collect::<Vec<_>>())
        }
        "QLinearAdd" | "QLinearMul" => all(op, &[0, 3]),
        "Dropout" => op.dims(0).map(|dims| vec![Some(dims.to_vec()); 2]),
        "BatchNormalization" => batch_norm(op),
        "DynamicQuantizeLinear" => {
            op.dims(0).map(|dims| vec![Some(dims.to_vec()), Some(vec![]), Some(vec![])])
        }
        "LayerNormalization" | "SimplifiedLayerNormalization" => layer_norm(op),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_layer_norm(op),
        _ => return None,
    })
}

/// The shape that these are stretched to: lengths of one fit all, and missing axes in front are of length one.
pub(in super::super) fn broadcast(all: &[&[usize]]) -> Found<Vec<usize>> {
    let rank = all.iter().map(|dims| dims.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for dims in all {
        for (into, &length) in out[rank - dims.len()..].iter_mut().zip(*dims) {
            ensure(*into == length || *into == 1 || length == 1)?;
            if *into == 1 {
                *into = length;
            }
        }
    }
    Ok(out)
}

fn same(dims: &[usize]) -> Outputs {
    one(dims.to_vec())
}

fn all(op: &Op<'_>, inputs: &[usize]) -> Found<Outputs> {
    let dims: Vec<&[usize]> = inputs.iter().map(|&at| op.dims(at)).collect::<Found<_>>()?;
    broadcast(&dims).map(one)
}

fn batch_norm(op: &Op<'_>) -> Found<Outputs> {
    let dims = op.dims(0)?;
    let channels = dims.get(1).copied().unwrap_or(1);
    if let Ok(scale) = op.dims(1) {
        ensure(volume(scale)? == channels || op.opset < 9)?;
    }
    let mut outputs = vec![Some(vec![channels]); op.outputs.max(1)];
    outputs[0] = Some(dims.to_vec());
    Ok(outputs)
}

/// The result, and means and deviations with axes of length one where was normalized.
fn layer_norm(op: &Op<'_>) -> Found<Outputs> {
    let dims = op.dims(0)?;
    let axis = super::axis(op.int("axis", -1), dims.len())?;
    let mut moments = dims.to_vec();
    moments[axis..].fill(1);
    Ok(vec![Some(dims.to_vec()), Some(moments.clone()), Some(moments)])
}

/// As above, with the sum of input and skip last.
fn skip_layer_norm(op: &Op<'_>) -> Found<Outputs> {
    let dims = op.dims(0)?;
    let mut moments = dims.to_vec();
    *moments.last_mut().ok_or(Miss::Wrong)? = 1;
    Ok(vec![Some(dims.to_vec()), Some(moments.clone()), Some(moments), Some(dims.to_vec())])
}
