//! Rotary positions (Su et al. 2021, <https://arxiv.org/abs/2104.09864>, section 3.2.2): pairs of
//! features of queries and keys are turned by angles that grow with the token's place, so that
//! their products depend on how far two tokens stand apart.
//!
//! ```text
//! θᵢ = base^(−2i/size)    y = x · cos(p θ) + rotated(x) · sin(p θ),   rotated(x₁, x₂) = (−x₂, x₁)
//! ```

use architecture::Rotation;
use candle_core::{D, DType, Device, Result, Tensor};

use crate::compute_dtype;

/// The cosines or sines of a text of that length: `[1, sequence, size]`.
///
/// Below f64 the angles are those of f32, as `transformers` has them: at place 8,000 one is as much
/// as 2⁻¹¹ off, which is a part of what the model computes in f32.
pub(crate) fn angles(
    rotation: &Rotation,
    sines: bool,
    length: usize,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let precise = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let frequencies: Vec<f64> = rotation.frequencies().collect();
    let places: Vec<f64> = (0..length).map(|place| place as f64).collect();
    let frequencies = Tensor::new(frequencies, device)?.to_dtype(precise)?.unsqueeze(0)?;
    let places = Tensor::new(places, device)?.to_dtype(precise)?.unsqueeze(1)?;
    let angles = places.broadcast_mul(&frequencies)?;
    let half = if sines { angles.sin()? } else { angles.cos()? };
    let all = match rotation.neighbours {
        true => Tensor::stack(&[&half, &half], D::Minus1)?.flatten_from(1)?,
        false => Tensor::cat(&[&half, &half], D::Minus1)?,
    };
    all.unsqueeze(0)?.to_dtype(dtype)
}

/// Turns the first features of each head of `x` `[batch, sequence, width]`, each with its neighbour
/// or half with half.
pub(crate) fn rotate(
    x: &Tensor,
    [cosines, sines]: [&Tensor; 2],
    (heads, neighbours): (usize, bool),
) -> Result<Tensor> {
    let (batch, sequence, width) = x.dims3()?;
    let dtype = compute_dtype(x.dtype());
    let head_size = width / heads.max(1);
    let size = cosines.dim(D::Minus1)?;
    let [cosines, sines] = [cosines, sines].map(|angles| angles.to_dtype(dtype)?.unsqueeze(2));
    let apart = x.to_dtype(dtype)?.reshape((batch, sequence, heads, head_size))?;
    let turned = apart.narrow(D::Minus1, 0, size)?;
    let rotated = if neighbours {
        let pairs = turned.contiguous()?.reshape((batch, sequence, heads, size / 2, 2))?;
        let (first, second) = (pairs.narrow(4, 0, 1)?, pairs.narrow(4, 1, 1)?);
        Tensor::cat(&[&second.neg()?, &first], 4)?.flatten_from(3)?
    } else {
        let first = turned.narrow(D::Minus1, 0, size / 2)?;
        let second = turned.narrow(D::Minus1, size / 2, size / 2)?;
        Tensor::cat(&[&second.neg()?, &first], D::Minus1)?
    };
    let turned = (turned.broadcast_mul(&cosines?)? + rotated.broadcast_mul(&sines?)?)?;
    let all = match size < head_size {
        true => Tensor::cat(&[&turned, &apart.narrow(D::Minus1, size, head_size - size)?], D::Minus1)?,
        false => turned,
    };
    all.reshape((batch, sequence, width))?.to_dtype(x.dtype())
}
