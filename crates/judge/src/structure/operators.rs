//! What kind of function an operator is.

use architecture::Activation;
use onnx_graph::Node;

/// What is done between steps of a model. A formula needs just so much; more could hide a spike, a
/// stair, or a dependence on sizes or masks, where no input is tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Exponentials and what is made of them.
    pub deep: usize,
    /// Products and quotients of what varies, roots and powers.
    pub plain: usize,
    /// Bends, as ReLU has one.
    pub bends: usize,
    /// Sums over the tokens of a text.
    pub sums: usize,
    /// Masks that are added, or chosen by.
    pub choices: usize,
    /// Masks, and numbers of real tokens, that something is multiplied with or divided by.
    pub factors: usize,
    /// The most elements that a text or a token has in what is no linear map, or in what an
    /// operator that is none gives: four more neurons are four more curves.
    pub width: usize,
}

impl Work {
    /// A layer norm: a square, a root and a quotient.
    pub const NORM: Self = Self { plain: 3, ..Self::NONE };
    /// Two products and a softmax.
    pub const ATTENTION: Self = Self { deep: 1, plain: 3, sums: 2, ..Self::NONE };
    /// e to the scores over their sum.
    const SOFTMAX: Self = Self { deep: 1, plain: 1, sums: 1, ..Self::NONE };
    /// What is made of a model's outputs: a pooling, and a division by the length, which is the
    /// root of a sum of squares.
    pub const OUTPUT: Self = Self { plain: 3, sums: 1, choices: 1, factors: 2, ..Self::NONE };
    pub const PLAIN: Self = Self { plain: 1, ..Self::NONE };
    /// Features by cosines and by sines.
    pub const ROTATION: Self = Self { plain: 2, ..Self::NONE };
    /// A sum of what a mask shows, over how many that are.
    pub const MEAN: Self = Self { sums: 1, choices: 1, factors: 2, ..Self::NONE };
    const DEEP: Self = Self { deep: 1, ..Self::NONE };
    const BEND: Self = Self { bends: 1, ..Self::NONE };
    pub const NONE: Self = Self { deep: 0, plain: 0, bends: 0, sums: 0, choices: 0, factors: 0, width: 0 };

    /// x · ½ (1 + erf(x/√2)); x times a cubic's tanh; x times a sigmoid.
    pub fn of(function: Activation) -> Self {
        match function {
            Activation::Gelu => Self { plain: 1, ..Self::DEEP },
            Activation::GeluTanh | Activation::GeluFast => Self { plain: 3, ..Self::DEEP },
            Activation::QuickGelu | Activation::Silu => Self { plain: 2, ..Self::DEEP },
            Activation::Tanh => Self::DEEP,
            Activation::Sigmoid => Self { plain: 1, ..Self::DEEP },
            Activation::Relu => Self::BEND,
        }
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self {
            deep: self.deep + other.deep,
            plain: self.plain + other.plain,
            bends: self.bends + other.bends,
            sums: self.sums + other.sums,
            choices: self.choices + other.choices,
            factors: self.factors + other.factors,
            width: self.width.max(other.width),
        }
    }

    /// Whether it is no more than that.
    pub fn is_within(self, most: Self) -> bool {
        self.deep <= most.deep
            && self.plain <= most.plain
            && self.bends <= most.bends
            && self.sums <= most.sums
            && self.choices <= most.choices
            && self.factors <= most.factors
            && self.width <= most.width
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
    Curve(Work),
    /// Smoothly but for bends, as ReLU has one.
    Bend,
    /// By the largest element, which softmax does not depend on though it is written with it.
    Largest,
}

impl Class {
    /// What it does, if these operands vary.
    pub fn work(self, varies: impl Fn(usize) -> bool, operands: usize) -> Work {
        let count = (0..operands).filter(|&at| varies(at)).count();
        match self {
            Self::Product if count > 1 => Work::PLAIN,
            Self::Quotient if varies(1) => Work::PLAIN,
            Self::Linear | Self::Product | Self::Quotient | Self::Largest => Work::NONE,
            Self::Power => Work::PLAIN,
            Self::Curve(work) => work,
            Self::Bend => Work::BEND,
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
        ("", "Reciprocal" | "ReduceSumSquare" | "Sqrt") => Class::Curve(Work::PLAIN),
        // A root of squares.
        ("", "ReduceL2") => Class::Curve(Work::PLAIN.and(Work::PLAIN)),
        ("", "Erf" | "Exp" | "Tanh") => Class::Curve(Work::DEEP),
        // A quotient with an exponential.
        ("", "Sigmoid") => Class::Curve(Work::DEEP.and(Work::PLAIN)),
        ("", "Softmax") => Class::Curve(Work::SOFTMAX),
        ("", "Attention") | ("com.microsoft", "Attention" | "MultiHeadAttention") => {
            Class::Curve(Work::ATTENTION)
        }
        ("", "Gelu") if node.string("approximate").ok()? == Some("tanh") => {
            Class::Curve(Work::of(Activation::GeluTanh))
        }
        ("", "Gelu") | ("com.microsoft", "BiasGelu" | "Gelu") => Class::Curve(Work::of(Activation::Gelu)),
        ("com.microsoft", "FastGelu") => Class::Curve(Work::of(Activation::GeluTanh)),
        ("", "Swish") | ("com.microsoft", "QuickGelu") => Class::Curve(Work::of(Activation::Silu)),
        ("com.microsoft", "FusedGemm") => Class::Curve(match node.string("activation").ok()? {
            Some("Relu") => Work::BEND,
            Some("Tanh") => Work::DEEP,
            _ => return None,
        }),
        ("", "LayerNormalization") | ("com.microsoft", "SkipLayerNormalization") => Class::Curve(Work::NORM),
        ("", "Abs" | "Clip" | "Max" | "Min" | "Relu") => Class::Bend,
        ("", "ReduceMax") => Class::Largest,
        _ => return None,
    })
}

/// Whether a value of several sources may be made so and still be known from each source alone:
/// sums, and layer norms of sums.
pub(super) fn is_sum(node: &Node) -> bool {
    matches!(
        (node.domain.as_str(), node.op.as_str()),
        (
            "",
            "Add"
                | "Dropout"
                | "Expand"
                | "Flatten"
                | "Identity"
                | "LayerNormalization"
                | "Reshape"
                | "Squeeze"
                | "Sub"
                | "Sum"
                | "Transpose"
                | "Unsqueeze",
        ) | ("com.microsoft", "EmbedLayerNormalization" | "SkipLayerNormalization")
    )
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
                | "Cos"
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
                | "Log"
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
                | "Sin"
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
