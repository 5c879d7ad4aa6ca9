use std::fmt;

use candle_core::{D, DType, Tensor};
use checkpoint::ModelFiles;
use serde_json::Value;

use crate::PipelineError;
use crate::settings::Settings;

/// The least norm that a vector is divided by: PyTorch's default for `nn.functional.normalize`.
const MIN_NORM: f64 = 1e-12;

const MODULES: &str = "modules.json";
const POOLING_CONFIG: &str = "1_Pooling/config.json";

/// How a text's token states become one vector.
///
/// `Mean`: e = Σᵢ mᵢhᵢ / Σᵢ mᵢ over the positions i, with mᵢ 1 for a real token and 0 for padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of the real tokens' states, special tokens included.
    Mean,
    /// The state of the first position, `[CLS]`.
    Cls,
    /// The model's own `pooler_output`: tanh of a linear layer over `[CLS]`.
    Pooler,
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Pooler => "pooler",
        })
    }
}

impl Pooling {
    /// How this model's embeddings are meant to be made, and whether they are normalised afterwards, by the files that
    /// sentence-transformers keeps (modules.json, 1_Pooling/config.json). Without them: the mean, not normalised.
    ///
    /// # Errors
    /// If a file is malformed, or asks for another pooling or a further layer.
    pub fn from_files(files: &ModelFiles) -> Result<(Self, bool), PipelineError> {
        let Some(bytes) = files.read(MODULES)? else {
            return Ok((Self::from_config(files, POOLING_CONFIG)?.unwrap_or(Self::Mean), false));
        };
        let modules: Vec<Value> = serde_json::from_slice(&bytes)
            .map_err(|source| PipelineError::Json { file: MODULES.to_owned(), source })?;
        let (mut pooling, mut normalizes) = (Self::Mean, false);
        for module in &modules {
            let class = module["type"].as_str().unwrap_or_default();
            match class.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    let folder = module["path"].as_str().unwrap_or_default();
                    let file = if folder.is_empty() {
                        "config.json".to_owned()
                    } else {
                        format!("{folder}/config.json")
                    };
                    pooling = Self::from_config(files, &file)?.unwrap_or(Self::Mean);
                }
                "Normalize" => normalizes = true,
                _ => {
                    return Err(PipelineError::UnsupportedPooling {
                        file: MODULES.to_owned(),
                        what: format!("a module of type '{class}'"),
                    });
                }
            }
        }
        Ok((pooling, normalizes))
    }

    /// The one mode that a pooling config has switched on; `None` if there is no such file.
    fn from_config(files: &ModelFiles, file: &str) -> Result<Option<Self>, PipelineError> {
        let Some(config) = Settings::read_if_there(files, file)? else { return Ok(None) };
        let mut modes = Vec::new();
        for (setting, value) in config.iter() {
            // Older files have a switch for each mode, newer ones may name the mode.
            if setting == "pooling_mode" {
                modes.push(config.string(setting)?.unwrap_or_default());
            } else if let Some(mode) = setting.strip_prefix("pooling_mode_")
                && value.as_bool().ok_or_else(|| config.wrong(setting, "true or false", value))?
            {
                modes.push(mode);
            }
        }
        match modes[..] {
            // The mean is switched on unless it is switched off.
            [] if config.get("pooling_mode_mean_tokens").is_none() => Ok(Some(Self::Mean)),
            ["mean_tokens" | "mean"] => Ok(Some(Self::Mean)),
            ["cls_token" | "cls"] => Ok(Some(Self::Cls)),
            _ => Err(PipelineError::UnsupportedPooling {
                file: config.file().to_owned(),
                what: if modes.is_empty() {
                    "no pooling at all".to_owned()
                } else {
                    format!("pooling by {}", modes.join(" and "))
                },
            }),
        }
    }

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
            return Err(PipelineError::Shape {
                name: "last_hidden_state",
                expected: "[batch, sequence, hidden]".to_owned(),
                found: last_hidden_state.dims().to_vec(),
            });
        };
        check_float("last_hidden_state", last_hidden_state)?;
        check_shape("attention_mask", attention_mask, &[batch, sequence])?;
        match self {
            Self::Mean => masked_mean(last_hidden_state, attention_mask),
            Self::Cls if sequence == 0 => Err(PipelineError::Shape {
                name: "last_hidden_state",
                expected: "of at least one position".to_owned(),
                found: last_hidden_state.dims().to_vec(),
            }),
            Self::Cls => Ok(last_hidden_state.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?),
            Self::Pooler => {
                let pooled = pooler_output.ok_or(PipelineError::NoPoolerOutput)?;
                check_shape("pooler_output", pooled, &[batch, hidden])?;
                Ok(pooled.clone())
            }
        }
    }
}

fn masked_mean(states: &Tensor, mask: &Tensor) -> Result<Tensor, PipelineError> {
    let dtype = states.dtype();
    let states = states.to_dtype(working_dtype(dtype))?;
    let is_real = mask.ne(0f64)?;
    let counts = is_real.to_dtype(DType::F64)?.sum(D::Minus1)?.to_vec1::<f64>()?;
    if let Some(row) = counts.iter().position(|&count| count == 0.) {
        return Err(PipelineError::NoRealToken { row });
    }
    let is_real = is_real.unsqueeze(2)?.broadcast_as(states.shape())?;
    let sum = is_real.where_cond(&states, &states.zeros_like()?)?.sum(1)?;
    let count = Tensor::new(counts, states.device())?.to_dtype(states.dtype())?.unsqueeze(1)?;
    Ok(sum.broadcast_div(&count)?.to_dtype(dtype)?)
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
    if tensor.dims() != expected {
        return Err(PipelineError::Shape {
            name,
            expected: format!("{expected:?}"),
            found: tensor.dims().to_vec(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
