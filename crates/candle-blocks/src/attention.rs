//! Multi-head self-attention (Vaswani et al. 2017, sections 3.2.1 and 3.2.2):
//!
//! ```text
//! Attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V
//! MultiHead(h) = Concat(head₁, …, head_A) Wᵒ + bᵒ,   head = Attention(h Wᑫ + bᑫ, h Wᵏ + bᵏ, h Wᵛ + bᵛ)
//! ```

use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::softmax_last_dim;

use crate::compute_dtype;

/// Multi-head attention of projections `[batch, sequence, width]`; everything between these and Wᵒ.
/// `bias` is added to the scores: `[sequence, sequence, heads]`, the token that asks first.
pub(crate) fn attention(
    [query, key, value]: [&Tensor; 3],
    mask: Option<&AttentionMask>,
    bias: Option<&Tensor>,
    heads: usize,
) -> Result<Tensor> {
    let parts = [split_heads(query, heads)?, split_heads(key, heads)?, split_heads(value, heads)?];
    let bias = match bias {
        Some(bias) => Some(bias.permute((2, 0, 1))?.unsqueeze(0)?.to_dtype(parts[0].dtype())?),
        None => None,
    };
    let context = scaled_dot_product_attention(&parts, mask, bias.as_ref())?;
    context.transpose(1, 2)?.flatten_from(2)?.to_dtype(query.dtype())
}

/// `[batch, sequence, width]` to `[batch, heads, sequence, head_size]`, widened to `f32` where it
/// is half precision: a score of more than 65504 would be infinite in `f16`, and a softmax over it
/// NaN.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, sequence, width) = x.dims3()?;
    x.to_dtype(compute_dtype(x.dtype()))?
        .reshape((batch, sequence, heads, width / heads))?
        .transpose(1, 2)?
        .contiguous()
}

/// The number of the bucket that a distance is in: tokens that come later have a positive one. See
/// [`architecture::Op::RelativeBias`].
///
/// The logarithm is one of f32 in every dtype, as it is in `transformers`, which cuts it to an
/// integer.
pub(crate) fn bucket(distance: i64, buckets: usize, farthest: usize) -> usize {
    let half = buckets / 2;
    let exact = half / 2;
    let (first, length) = (if distance > 0 { half } else { 0 }, distance.unsigned_abs() as usize);
    if length < exact {
        return first + length;
    }
    let growth = (length as f32 / exact as f32).ln() / (farthest as f64 / exact as f64).ln() as f32;
    first + (exact + (growth * (half - exact) as f32) as usize).min(half - 1)
}

/// Equation 1 of Vaswani et al. for each head; all of query, key and value `[batch, heads,
/// sequence, head_size]`.
fn scaled_dot_product_attention(
    [query, key, value]: &[Tensor; 3],
    mask: Option<&AttentionMask>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let head_size = query.dims4()?.3 as f64;
    // Fewer numbers than the scores are.
    let query = (query / head_size.sqrt())?;
    let mut scores = query.matmul(&key.t()?)?;
    if let Some(bias) = bias {
        scores = scores.broadcast_add(bias)?;
    }
    if let Some(mask) = mask {
        scores = mask.apply(&scores)?;
    }
    softmax_last_dim(&scores)?.matmul(value)
}

/// Which tokens may be attended to, the same for every head.
#[derive(Debug, Clone)]
pub(crate) struct AttentionMask {
    /// `u8` `[batch, 1, 1, sequence]`, or where it depends on the token that asks `[batch, 1,
    /// sequence, sequence]`; not 0 where the token is seen.
    keep: Tensor,
    /// What the score of any other token becomes; a scalar.
    lowest: Tensor,
}

impl AttentionMask {
    /// From a mask `[batch, sequence]` of `u8` and a window around each token, for ids of that
    /// shape and a model of the given dtype; nothing where there is neither.
    pub(crate) fn new(
        mask: Option<&Tensor>,
        ids: &Tensor,
        window: Option<usize>,
        dtype: DType,
    ) -> Result<Option<Self>> {
        let device = ids.device();
        let mask = mask.map(|mask| mask.unsqueeze(1)?.unsqueeze(1)).transpose()?;
        let keep = match (mask, window) {
            (None, None) => return Ok(None),
            (Some(mask), None) => mask,
            (mask, Some(window)) => {
                let length = ids.dim(D::Minus1)?;
                let pairs = (0..length).flat_map(|asks| (0..length).map(move |asked| (asks, asked)));
                let near: Vec<u8> =
                    pairs.map(|(asks, asked)| u8::from(asks.abs_diff(asked) <= window)).collect();
                let near = Tensor::from_vec(near, (1, 1, length, length), device)?;
                match mask {
                    Some(mask) => mask.broadcast_mul(&near)?,
                    None => near,
                }
            }
        };
        let lowest = match compute_dtype(dtype) {
            DType::F64 => Tensor::new(f64::MIN, device)?,
            _ => Tensor::new(f32::MIN, device)?,
        };
        Ok(Some(Self { keep, lowest }))
    }

    /// Puts the most negative finite number in place of a masked score.
    ///
    /// `transformers` adds it to the score, which rounds to the same number. It becomes an exact 0
    /// in the softmax, except where a token sees none: all its scores are equal then, and attention
    /// is uniform over the whole row, where −∞ would make NaN.
    fn apply(&self, scores: &Tensor) -> Result<Tensor> {
        let shape = scores.shape();
        self.keep.broadcast_as(shape)?.where_cond(scores, &self.lowest.broadcast_as(shape)?)
    }
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_are_those_of_transformers() {
        // Printed by `MPNetEncoder.relative_position_bucket` of transformers 4.57.6.
        let expected = [15, 15, 15, 14, 13, 12, 10, 9, 8, 7, 1, 0, 17, 23, 24, 24, 25, 27, 29, 31, 31, 31];
        let found: Vec<usize> =
            [-200, -128, -127, -64, -63, -32, -16, -15, -8, -7, -1, 0, 1, 7, 8, 11, 12, 23, 46, 91, 127, 128]
                .into_iter()
                .map(|distance| bucket(distance, 32, 128))
                .collect();
        assert_eq!(found, expected);
    }
}
