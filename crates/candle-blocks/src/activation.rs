//! The formulas of the activations.

use architecture::Activation;
use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;

use crate::compute_dtype;

/// An activation that is computed. Constants are exact in `f64`.
pub trait Activate {
    /// Applies the function to every element. Half-precision tensors are computed in `f32` and
    /// rounded once.
    ///
    /// # Errors
    /// If `x` is not a float tensor, or the device fails.
    fn forward(self, x: &Tensor) -> Result<Tensor>;
}

impl Activate for Activation {
    fn forward(self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.dtype();
        compute(self, &x.to_dtype(compute_dtype(dtype))?)?.to_dtype(dtype)
    }
}

fn compute(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
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
        Activation::Sigmoid => sigmoid(x),
    }
}

#[cfg(test)]
mod tests;
