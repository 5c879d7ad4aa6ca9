use std::fmt;
use std::str::FromStr;

/// An activation function, by the names that `transformers` has for it. The formulas are those of
/// the back ends.
///
/// BERT uses the GELU of Hendrycks & Gimpel 2016 (<https://arxiv.org/abs/1606.08415>), x·Φ(x) with
/// the normal distribution's Φ; checkpoints have been trained with its approximations, too, and
/// those are not interchangeable: they differ by up to 5e-4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `gelu`, `gelu_python`: x/2 · (1 + erf(x/√2)).
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`, `gelu_python_tanh`, `gelu_accurate`: x/2 · (1 + tanh(√(2/π)
    /// · (x + 0.044715 x³))). The four differ in speed, not in their formula.
    GeluTanh,
    /// `gelu_fast`: x/2 · (1 + tanh(0.7978845608 · x · (1 + 0.044715 x²))), where √(2/π) =
    /// 0.79788456080286… is cut to ten digits. That is 4e-12 away from [`Activation::GeluTanh`],
    /// which a comparison in `f64` sees.
    GeluFast,
    /// `quick_gelu`: x · σ(1.702 x), with σ(x) = 1 / (1 + e⁻ˣ).
    QuickGelu,
    /// `relu`: max(x, 0).
    Relu,
    /// `silu`, `swish`: x · σ(x).
    Silu,
    /// `tanh`.
    Tanh,
    /// `sigmoid`: σ(x).
    Sigmoid,
}

/// A name that no activation has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("activation '{name}' is not known; known are {}", Activation::NAMES.join(", "))]
pub struct UnknownActivation {
    /// The name.
    pub name: String,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 8] = [
        Self::Gelu,
        Self::GeluTanh,
        Self::GeluFast,
        Self::QuickGelu,
        Self::Relu,
        Self::Silu,
        Self::Tanh,
        Self::Sigmoid,
    ];

    /// Every name that config.json may use.
    pub const NAMES: [&'static str; 13] = [
        "gelu",
        "gelu_python",
        "gelu_new",
        "gelu_pytorch_tanh",
        "gelu_python_tanh",
        "gelu_accurate",
        "gelu_fast",
        "quick_gelu",
        "relu",
        "silu",
        "swish",
        "tanh",
        "sigmoid",
    ];
}

impl fmt::Display for Activation {
    /// The shortest of the names that config.json uses for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::GeluFast => "gelu_fast",
            Self::QuickGelu => "quick_gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
        })
    }
}

impl FromStr for Activation {
    type Err = UnknownActivation;

    /// Reads config.json's `hidden_act`.
    fn from_str(name: &str) -> Result<Self, UnknownActivation> {
        Ok(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => Self::GeluTanh,
            "gelu_fast" => Self::GeluFast,
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "tanh" => Self::Tanh,
            "sigmoid" => Self::Sigmoid,
            other => return Err(UnknownActivation { name: other.into() }),
        })
    }
}
