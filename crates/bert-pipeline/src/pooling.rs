use std::fmt;

use candle_core::{D, DType, Tensor};

use crate::PipelineError;

/// The least norm that a vector is divided by: PyTorch's default for `nn.functional.normalize`.
const MIN_NORM: f64 = 1e-12;

/// How a text's token states become one vector, by the names that sentence-transformers gives it.
///
/// `Mean`: e = Σᵢ mᵢhᵢ / Σᵢ mᵢ over the positions i, with mᵢ 1 for a real token and 0 for padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean of the real tokens' states, special tokens included.
    Mean,
    /// The state of the first real token, `[CLS]`.
    Cls,
    /// The largest of the real tokens' states, in each dimension.
    Max,
    /// Σᵢ mᵢhᵢ / √Σᵢ mᵢ.
    MeanSqrtLenTokens,
    /// The mean with later tokens weighing more: Σᵢ i·mᵢhᵢ / Σᵢ i·mᵢ, with i counted from 1.
    WeightedMean,
    /// The state of the last real token.
    LastToken,
    /// The model's own `pooler_output`: tanh of a linear layer over `[CLS]`.
    Pooler,
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Max => "max",
            Pooling::MeanSqrtLenTokens => "mean_sqrt_len_tokens",
            Pooling::WeightedMean => "weightedmean",
            Pooling::LastToken => "lasttoken",
            Pooling::Pooler => "pooler",
        })
    }
}

impl Pooling {
    /// One vector a text: `[batch, hidden]` of `last_hidden_state`'s dtype, from `last_hidden_state` `[batch, sequence, hidden]`,
    /// `attention_mask` `[batch, sequence]` (any number type; what is not 0 is a real token) and `pooler_output` `[batch, hidden]`.
    ///
    /// Padding positions are left out, not multiplied by 0, so that a NaN there does no harm. Half-precision states are summed in f32.
    ///
    /// # Errors
    /// If the shapes do not fit together, the mean is asked for and a row has no real token, or the pooler is and there is
    /// no `pooler_output`.
    pub fn pool(
        self,
        last_hidden_state: &Tensor,
        attention_mask: &Tensor,
        pooler_output: Option<&Tensor>,
    ) -> Result<Tensor, PipelineError> {
        let &[batch, sequence, hidden] = last_hidden_state.dims() else {
            let expected = "[batch, sequence, hidden]";
            return Err(PipelineError::shape("last_hidden_state", expected, last_hidden_state));
        };
        check_float("last_hidden_state", last_hidden_state)?;
        check_shape("attention_mask", attention_mask, &[batch, sequence])?;
        match self {
            _ if sequence == 0 => {
                let expected = "of at least one position";
                Err(PipelineError::shape("last_hidden_state", expected, last_hidden_state))
            }
            Self::Mean => weighted_sum(last_hidden_state, attention_mask, |_| 1., |sum| sum),
            Self::MeanSqrtLenTokens => weighted_sum(last_hidden_state, attention_mask, |_| 1., f64::sqrt),
            Self::WeightedMean => {
                weighted_sum(last_hidden_state, attention_mask, |at| (at + 1) as f64, |sum| sum)
            }
            Self::Max => masked_max(last_hidden_state, attention_mask),
            Self::LastToken => {
                one_token(last_hidden_state, attention_mask, |row| row.iter().rposition(|&is_real| is_real))
            }
            Self::Cls => {
                one_token(last_hidden_state, attention_mask, |row| row.iter().position(|&is_real| is_real))
            }
            Self::Pooler => {
                let pooled = pooler_output.ok_or(PipelineError::NoPoolerOutput)?;
                check_shape("pooler_output", pooled, &[batch, hidden])?;
                Ok(pooled.clone())
            }
        }
    }
}

/// Σᵢ wᵢmᵢhᵢ / divisor(Σᵢ wᵢmᵢ), with a weight wᵢ for each position.
fn weighted_sum(
    states: &Tensor,
    mask: &Tensor,
    weight: impl Fn(usize) -> f64,
    divisor: fn(f64) -> f64,
) -> Result<Tensor, PipelineError> {
    let dtype = states.dtype();
    let states = states.to_dtype(working_dtype(dtype))?;
    let (sequence, device) = (states.dim(1)?, states.device());
    let weights: Vec<f64> = (0..sequence).map(weight).collect();
    let is_real = real_tokens(mask)?;
    let divisors: Vec<f64> = is_real
        .iter()
        .map(|row| row.iter().zip(&weights).filter(|(is_real, _)| **is_real).map(|(_, weight)| weight).sum())
        .map(divisor)
        .collect();
    let weights = Tensor::new(weights, device)?.to_dtype(states.dtype())?.reshape((1, sequence, 1))?;
    let weighted = states.broadcast_mul(&weights)?;
    let is_real = mask.ne(0f64)?.unsqueeze(2)?.broadcast_as(states.shape())?;
    let sum = is_real.where_cond(&weighted, &weighted.zeros_like()?)?.sum(1)?;
    let divisors = Tensor::new(divisors, device)?.to_dtype(states.dtype())?.unsqueeze(1)?;
    Ok(sum.broadcast_div(&divisors)?.to_dtype(dtype)?)
}

fn masked_max(states: &Tensor, mask: &Tensor) -> Result<Tensor, PipelineError> {
    real_tokens(mask)?;
    let least =
        Tensor::new(f32::MIN, states.device())?.to_dtype(states.dtype())?.broadcast_as(states.shape())?;
    let is_real = mask.ne(0f64)?.unsqueeze(2)?.broadcast_as(states.shape())?;
    Ok(is_real.where_cond(states, &least)?.max(1)?)
}

/// The state of the one token of each row that `find` finds.
fn one_token(
    states: &Tensor,
    mask: &Tensor,
    find: impl Fn(&[bool]) -> Option<usize>,
) -> Result<Tensor, PipelineError> {
    let found = real_tokens(mask)?.into_iter().enumerate().map(|(row, is_real)| {
        let token = find(&is_real).unwrap_or(0);
        states.narrow(0, row, 1)?.narrow(1, token, 1)?.squeeze(1)
    });
    Ok(Tensor::cat(&found.collect::<Result<Vec<_>, _>>()?, 0)?)
}

/// Which positions are real tokens, and that every row has some.
fn real_tokens(mask: &Tensor) -> Result<Vec<Vec<bool>>, PipelineError> {
    let rows: Vec<Vec<u8>> = mask.ne(0f64)?.to_vec2()?;
    let rows: Vec<Vec<bool>> =
        rows.into_iter().map(|row| row.into_iter().map(|mask| mask != 0).collect()).collect();
    match rows.iter().position(|row| !row.contains(&true)) {
        Some(row) => Err(PipelineError::NoRealToken { row }),
        None => Ok(rows),
    }
}

/// Vectors of length 1: x / max(‖x‖₂, 1e-12) along the last dimension, as PyTorch's `nn.functional.normalize`. A vector of zeros stays
/// one. Half-precision vectors are divided in f32, where 1e-12 is not 0.
///
/// # Errors
/// If the tensor is not of floats or has no dimension.
pub fn normalize(vectors: &Tensor) -> Result<Tensor, PipelineError> {
    check_float("the vectors to normalise", vectors)?;
    let dtype = vectors.dtype();
    let vectors = vectors.to_dtype(working_dtype(dtype))?;
    let norm = vectors.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(MIN_NORM)?;
    Ok(vectors.broadcast_div(&norm)?.to_dtype(dtype)?)
}

/// The dtype to add up in.
fn working_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        dtype => dtype,
    }
}

fn check_float(name: &'static str, tensor: &Tensor) -> Result<(), PipelineError> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(()),
        found => Err(PipelineError::NotFloat { name, found }),
    }
}

fn check_shape(name: &'static str, tensor: &Tensor, expected: &[usize]) -> Result<(), PipelineError> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(PipelineError::shape(name, format!("{expected:?}"), tensor))
}

#[cfg(test)]
mod tests;
