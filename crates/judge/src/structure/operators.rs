//! What kind of function an operator is.

use onnx_graph::Node;

/// How an operator with an operand that varies smoothly depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Linearly.
    Linear,
    /// Linearly in each of its factors, so that two that vary make a curve.
    Product,
    /// Linearly in what is divided alone.
    Quotient,
    /// Smoothly.
    Curve,
    /// Smoothly but for bends, as ReLU has one.
    Bend,
    /// By the largest element, which softmax does not depend on though it is written with it.
    Largest,
}

/// The class of an operator that may stand between steps of a model; nothing for any other.
pub(super) fn class(node: &Node) -> Option<Class> {
    Some(match (node.domain.as_str(), node.op.as_str()) {
        (
            "",
            "Add" | "Cast" | "CastLike" | "Concat" | "Dropout" | "Expand" | "Flatten" | "Gather" | "Identity"
            | "Neg" | "ReduceMean" | "ReduceSum" | "Reshape" | "Slice" | "Split" | "Squeeze" | "Sub" | "Sum"
            | "Transpose" | "Unsqueeze" | "Where",
        ) => Class::Linear,
        ("", "Einsum" | "Gemm" | "MatMul" | "Mul") | ("com.microsoft", "FusedMatMul") => Class::Product,
        ("", "Div") => Class::Quotient,
        (
            "",
            "Attention" | "Erf" | "Exp" | "Gelu" | "LayerNormalization" | "Pow" | "Reciprocal" | "ReduceL2"
            | "ReduceSumSquare" | "Sigmoid" | "Softmax" | "Sqrt" | "Swish" | "Tanh",
        )
        | (
            "com.microsoft",
            "Attention"
            | "BiasGelu"
            | "FastGelu"
            | "FusedGemm"
            | "Gelu"
            | "MultiHeadAttention"
            | "QuickGelu"
            | "SkipLayerNormalization",
        ) => Class::Curve,
        ("", "Abs" | "Clip" | "Max" | "Min" | "Relu") => Class::Bend,
        ("", "ReduceMax") => Class::Largest,
        _ => return None,
    })
}

/// Whether each element of the result is computed from the elements at its place alone.
pub(super) fn is_elementwise(node: &Node) -> bool {
    match node.domain.as_str() {
        "" => matches!(
            node.op.as_str(),
            "Abs"
                | "Add"
                | "And"
                | "Cast"
                | "CastLike"
                | "Clip"
                | "Div"
                | "Dropout"
                | "Equal"
                | "Erf"
                | "Exp"
                | "Gelu"
                | "Greater"
                | "GreaterOrEqual"
                | "Identity"
                | "IsInf"
                | "IsNaN"
                | "Less"
                | "LessOrEqual"
                | "Max"
                | "Min"
                | "Mod"
                | "Mul"
                | "Neg"
                | "Not"
                | "Or"
                | "Pow"
                | "Reciprocal"
                | "Relu"
                | "Sigmoid"
                | "Sign"
                | "Sqrt"
                | "Sub"
                | "Sum"
                | "Tanh"
                | "Where"
                | "Xor"
        ),
        "com.microsoft" => matches!(node.op.as_str(), "BiasGelu" | "FastGelu" | "Gelu" | "QuickGelu"),
        _ => false,
    }
}

/// Whether each row of the last axis is computed by itself, from the operands' rows there.
pub(super) fn is_by_row(node: &Node) -> bool {
    let last = |name: &str| node.int(name).ok().flatten().is_none_or(|axis| axis == -1);
    match (node.domain.as_str(), node.op.as_str()) {
        ("", "LayerNormalization" | "Softmax") => last("axis"),
        ("com.microsoft", "SkipLayerNormalization") => true,
        _ => false,
    }
}

/// Whether an operand says of what shape the result is, or which axes are meant, and is no number
/// to compute with.
pub(super) fn is_shape(node: &Node, operand: usize) -> bool {
    let shapes = match node.op.as_str() {
        "ConstantOfShape" => 0..1,
        "Expand" | "ReduceL2" | "ReduceMax" | "ReduceMean" | "ReduceSum" | "ReduceSumSquare" | "Reshape"
        | "Split" | "Squeeze" | "Unsqueeze" => 1..2,
        "Range" => 0..3,
        "Slice" => 1..5,
        _ => return false,
    };
    node.domain.is_empty() && shapes.contains(&operand)
}
