//! Operators that work on each place alone, shapes broadcast.

use crate::onnx::trace::Axis;
use crate::onnx::trace::step::Step;

const NAMES: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BiasGelu",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Dropout",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "FastGelu",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
];

pub(super) fn is_one(operator: &str) -> bool {
    NAMES.binary_search(&operator).is_ok()
}

pub(super) fn broadcast(step: &mut Step<'_, '_, '_>) {
    // The second input of a cast says a type, those of these others hold one number.
    let takes = match step.proto().op_type() {
        "CastLike" | "Dropout" | "Clip" => 1,
        _ => usize::MAX,
    };
    let inputs: Vec<usize> = step.inputs().into_iter().take(takes).collect();
    if inputs.len() == 1
        && matches!(step.proto().op_type(), "Identity" | "Cast")
        && let Some(output) = step.output(0)
    {
        let behind = step.tracer.behind[inputs[0]].clone();
        step.tracer.behind[output] = behind;
    }
    let out = step.out_dims(0);
    let mut axes = Vec::with_capacity(out.len());
    for (from_end, &len) in out.iter().rev().enumerate() {
        let mut axis: Option<Axis> = None;
        for &input in &inputs {
            let dims = step.dims_of(input);
            let Some(at) = dims.len().checked_sub(from_end + 1) else { continue };
            if dims[at] != len {
                continue;
            }
            let other = step.tracer.axes[input].get(at).cloned().flatten();
            match &axis {
                None => axis = Some(other),
                Some(first) => {
                    step.join(first, &other);
                    // An axis that is held is still an axis: what comes after wants its classes.
                    axis = Some(first.clone().or(other));
                }
            }
        }
        axes.push(axis.flatten());
    }
    axes.reverse();
    for k in 0..step.node().outputs.len() {
        step.set(k, axes.clone());
    }
}
