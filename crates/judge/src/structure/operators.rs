//! What kind of function an operator is.

use onnx_graph::Node;

/// How much a smooth function may do between two steps: more could hide a spike or a stair between
/// the inputs that are tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Curves {
    /// Exponentials and what is made of them.
    pub deep: usize,
    /// Products and quotients of what varies, roots and powers.
    pub plain: usize,
    /// Whether there are bends, as ReLU has one.
    pub bends: bool,
}

impl Curves {
    /// Those of an operator that is the whole of a layer norm, as its formula has them: a square, a
    /// root, and a quotient, or a reciprocal and a product.
    pub const NORM: Self = Self { deep: 0, plain: 4, bends: false };
    /// Two products and a softmax.
    pub const ATTENTION: Self = Self { deep: 1, plain: 3, bends: false };
    /// e to the scores over their sum.
    const SOFTMAX: Self = Self { deep: 1, plain: 1, bends: false };
    /// x³, a tanh of it, and a product.
    pub const ACTIVATION: Self = Self { deep: 1, plain: 3, bends: false };
    /// What is made of a model's outputs: a dense layer with an activation, and a division by the
    /// length, which is the root of a sum of squares.
    pub const OUTPUT: Self = Self { deep: 1, plain: 4, bends: false };
    const ONE: Self = Self { deep: 0, plain: 1, bends: false };
    const DEEP: Self = Self { deep: 1, plain: 0, bends: false };
    const NONE: Self = Self { deep: 0, plain: 0, bends: false };

    /// Both.
    pub fn and(self, other: Self) -> Self {
        let Self { deep, plain, bends } = other;
        Self { deep: self.deep + deep, plain: self.plain + plain, bends: self.bends | bends }
    }

    /// Whether it is no more than that.
    pub fn is_within(self, most: Self) -> bool {
        self.deep <= most.deep && self.plain <= most.plain && self.bends <= most.bends
    }
}

/// How an operator with an operand that varies smoothly depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Linearly.
    Linear,
    /// Linearly in each of its factors, so that two that vary make a curve.
    Product,
    /// Linearly in what is divided alone.
    Quotient,
    /// By a power of it.
    Power,
    /// Smoothly.
    Curve(Curves),
    /// Smoothly but for bends, as ReLU has one.
    Bend,
    /// By the largest element, which softmax does not depend on though it is written with it.
    Largest,
}

impl Class {
    /// How many curves it is, if these operands vary.
    pub fn curves(self, varies: impl Fn(usize) -> bool, operands: usize) -> Curves {
        let count = (0..operands).filter(|&at| varies(at)).count();
        match self {
            Self::Product if count > 1 => Curves::ONE,
            Self::Quotient if varies(1) => Curves::ONE,
            Self::Linear | Self::Product | Self::Quotient | Self::Largest => Curves::NONE,
            Self::Power => Curves::ONE,
            Self::Curve(curves) => curves,
            Self::Bend => Curves { bends: true, ..Curves::NONE },
        }
    }
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
        ("", "Gemm" | "MatMul" | "Mul") | ("com.microsoft", "FusedMatMul") => Class::Product,
        ("", "Div") => Class::Quotient,
        ("", "Pow") => Class::Power,
        ("", "Reciprocal" | "ReduceSumSquare" | "Sqrt") => Class::Curve(Curves::ONE),
        // A root of squares.
        ("", "ReduceL2") => Class::Curve(Curves::ONE.and(Curves::ONE)),
        ("", "Erf" | "Exp" | "Sigmoid" | "Tanh") => Class::Curve(Curves::DEEP),
        ("", "Softmax") => Class::Curve(Curves::SOFTMAX),
        ("", "Attention") | ("com.microsoft", "Attention" | "MultiHeadAttention") => {
            Class::Curve(Curves::ATTENTION)
        }
        ("", "Gelu" | "Swish") | ("com.microsoft", "BiasGelu" | "FastGelu" | "Gelu" | "QuickGelu") => {
            Class::Curve(Curves::ACTIVATION)
        }
        ("com.microsoft", "FusedGemm") => Class::Curve(match node.string("activation").ok()? {
            Some("Relu") => Curves { bends: true, ..Curves::NONE },
            _ => Curves::ACTIVATION,
        }),
        ("", "LayerNormalization") | ("com.microsoft", "SkipLayerNormalization") => {
            Class::Curve(Curves::NORM)
        }
        ("", "Abs" | "Clip" | "Max" | "Min" | "Relu") => Class::Bend,
        ("", "ReduceMax") => Class::Largest,
        _ => return None,
    })
}

/// Whether a value of several sources may be made so and still be known from each source alone:
/// sums, and layer norms of sums.
pub(super) fn is_sum(node: &Node) -> bool {
    match (node.domain.as_str(), node.op.as_str()) {
        (
            "",
            "Add" | "Dropout" | "Expand" | "Flatten" | "Identity" | "LayerNormalization" | "Reshape"
            | "Squeeze" | "Sub" | "Sum" | "Transpose" | "Unsqueeze",
        ) => true,
        ("com.microsoft", "EmbedLayerNormalization" | "SkipLayerNormalization") => true,
        _ => false,
    }
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
