//! The activation between the two feed-forward layers.
//!
//! BERT uses the GELU of Hendrycks & Gimpel 2016 (<https://arxiv.org/abs/1606.08415>), x·Φ(x) with the normal distribution's Φ;
//! checkpoints have been trained with its approximations, too, and those are not interchangeable: they differ by up to 5e-4.

use std::fmt;
use std::str::FromStr;

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;

use crate::{ConfigError, compute_dtype};

/// An activation function, with the formula `transformers` has under the same name. Constants are exact in `f64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `gelu`, `gelu_python`: x/2 · (1 + erf(x/√2)).
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`, `gelu_python_tanh`, `gelu_accurate`: x/2 · (1 + tanh(√(2/π) · (x + 0.044715
    /// x³))). The four differ in speed, not in their formula.
    GeluTanh,
    /// `gelu_fast`: x/2 · (1 + tanh(0.7978845608 · x · (1 + 0.044715 x²))), where √(2/π) = 0.79788456080286… is cut to
    /// ten digits. That is 4e-12 away from [`Activation::GeluTanh`], which a comparison in `f64` sees.
    GeluFast,
    /// `quick_gelu`: x · σ(1.702 x), with σ(x) = 1 / (1 + e⁻ˣ).
    QuickGelu,
    /// `relu`: max(x, 0).
    Relu,
    /// `silu`, `swish`: x · σ(x).
    Silu,
    /// `tanh`.
    Tanh,
}

impl fmt::Display for Activation {
    /// The shortest of the names that config.json uses for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_new",
            Activation::GeluFast => "gelu_fast",
            Activation::QuickGelu => "quick_gelu",
            Activation::Relu => "relu",
            Activation::Silu => "silu",
            Activation::Tanh => "tanh",
        })
    }
}

impl Activation {
    /// Every name that config.json may use.
    pub const NAMES: [&'static str; 12] = [
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
    ];

    /// Applies the function to every element. Half-precision tensors are computed in `f32` and rounded once.
    ///
    /// # Errors
    /// If `x` is not a float tensor, or the device fails.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.dtype();
        self.compute(&x.to_dtype(compute_dtype(dtype))?)?.to_dtype(dtype)
    }

    fn compute(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
            Activation::GeluFast => {
                let inner = (x * 0.7978845608)?.mul(&x.sqr()?.affine(0.044715, 1.)?)?;
                (x * 0.5)? * inner.tanh()?.affine(1., 1.)?
            }
            Activation::QuickGelu => x * sigmoid(&(x * 1.702)?)?,
            // Not `Tensor::relu`, which turns a NaN into 0.
            Activation::Relu => x.maximum(&x.zeros_like()?),
            Activation::Silu => x.silu(),
            Activation::Tanh => x.tanh(),
        }
    }
}

impl FromStr for Activation {
    type Err = ConfigError;

    /// Reads config.json's `hidden_act`.
    fn from_str(name: &str) -> std::result::Result<Self, ConfigError> {
        Ok(match name {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => Activation::GeluTanh,
            "gelu_fast" => Activation::GeluFast,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "tanh" => Activation::Tanh,
            other => return Err(ConfigError::Activation { found: other.into() }),
        })
    }
}

#[cfg(test)]
mod tests;
