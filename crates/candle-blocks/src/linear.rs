//! The affine map y = x Wᵀ + b, with W as PyTorch stores it: `[out, in]`.

use candle_core::{Result, Tensor};

use crate::compute_dtype;

/// An affine map of the last dimension. All leading dimensions become the rows of one matrix
/// product.
///
/// candle has no `bf16` product on the CPU, and with Accelerate none of `f16`. There the weights of
/// such models are kept in `f32`, and the result is rounded once: what PyTorch does, too. On other
/// devices the product is the device's own.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A map with the given weight `[out, in]`, and bias `[out]` if there is one.
    pub(crate) fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let dtype = if weight.device().is_cpu() { compute_dtype(weight.dtype()) } else { weight.dtype() };
        let bias = bias.map(|bias| bias.to_dtype(dtype)).transpose()?;
        Ok(Self { weight: weight.to_dtype(dtype)?, bias })
    }

    /// `[out, in]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[out]`.
    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let rows = x.reshape(((), inputs))?.to_dtype(self.weight.dtype())?;
        let mut y = rows.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        y.to_dtype(x.dtype())?.reshape(shape)
    }
}
