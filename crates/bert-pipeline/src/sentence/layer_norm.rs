use candle_core::{D, Tensor};
use checkpoint::ModelFiles;

use super::in_folder;
use super::weights::Weights;
use crate::PipelineError;
use crate::settings::Settings;

/// What PyTorch's `nn.LayerNorm` adds to the variance by default; the module has no setting for it.
const EPSILON: f64 = 1e-5;

/// sentence-transformers' `LayerNorm`: γ (x − mean x) / √(var x + 1e-5) + β along the last
/// dimension.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    /// γ, `[dimension]`.
    weight: Tensor,
    /// β, `[dimension]`.
    bias: Tensor,
    /// Where it lies in the model.
    pub(super) folder: String,
}

impl LayerNorm {
    /// The layer in that folder of the model.
    pub(super) fn from_files(files: &ModelFiles, folder: &str) -> Result<Self, PipelineError> {
        let file = in_folder(folder, "config.json");
        files.require(&file)?;
        let dimension = Settings::read(files, &file)?.needed_size("dimension")?;
        let weights = Weights::from_files(files, folder)?;
        Ok(Self {
            weight: weights.tensor("norm.weight", &[dimension], &file)?,
            bias: weights.tensor("norm.bias", &[dimension], &file)?,
            folder: folder.to_owned(),
        })
    }

    pub(super) fn weights(&self) -> Vec<Tensor> {
        vec![self.weight.clone(), self.bias.clone()]
    }

    /// `[…, dimension]`, in the dtype of `x`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, PipelineError> {
        let dimension = self.weight.dim(0)?;
        if x.dims().last() != Some(&dimension) {
            let expected = format!("[…, {dimension}]");
            return Err(PipelineError::shape("what a layer norm is given", expected, x));
        }
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normalised = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        let [weight, bias] = [self.weight.to_dtype(x.dtype())?, self.bias.to_dtype(x.dtype())?];
        Ok(normalised.broadcast_mul(&weight)?.broadcast_add(&bias)?)
    }
}
