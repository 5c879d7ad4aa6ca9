//! One vector of a text, from those of its tokens.

use candle_core::{D, Result, Tensor};

use crate::compute_dtype;

/// The mean of `x` `[batch, sequence, width]` over the tokens that a mask `[batch, sequence]`
/// shows.
pub(crate) fn mean(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let wide = x.to_dtype(compute_dtype(x.dtype()))?;
    let mean = match mask {
        Some(mask) => {
            let mask = mask.to_dtype(wide.dtype())?.unsqueeze(D::Minus1)?;
            wide.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?
        }
        None => wide.mean(1)?,
    };
    mean.to_dtype(x.dtype())
}

/// Of `x` `[batch, sequence, width]` the first token that a mask `[batch, sequence]` shows.
pub(crate) fn first_shown(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let (batch, _, width) = x.dims3()?;
    let first = match mask {
        // Of several that are the largest it is the first.
        Some(mask) => mask.argmax(D::Minus1)?,
        None => Tensor::zeros(batch, candle_core::DType::U32, x.device())?,
    };
    let at = first.reshape((batch, 1, 1))?.broadcast_as((batch, 1, width))?.contiguous()?;
    x.contiguous()?.gather(&at, 1)?.squeeze(1)
}
