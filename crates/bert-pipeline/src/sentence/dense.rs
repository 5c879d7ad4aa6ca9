use candle_core::Tensor;
use checkpoint::ModelFiles;

use super::weights::Weights;
use super::{SENTENCE, in_folder};
use crate::PipelineError;
use crate::activation::Activation;
use crate::settings::Settings;

/// sentence-transformers' `Dense`: act(W x + b), of one feature, which becomes another or takes its
/// place.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    /// The feature that is read.
    pub(super) input: String,
    /// The feature that is written.
    pub(super) output: String,
    /// `[out, in]`.
    weight: Tensor,
    bias: Option<Tensor>,
    pub(super) activation: Activation,
    /// Where it lies in the model.
    pub(super) folder: String,
}

/// The activation where the config names none.
const DEFAULT_ACTIVATION: &str = "torch.nn.modules.activation.Tanh";

impl Dense {
    /// The layer in that folder of the model.
    pub(super) fn from_files(files: &ModelFiles, folder: &str) -> Result<Self, PipelineError> {
        let file = in_folder(folder, "config.json");
        files.require(&file)?;
        let config = Settings::read(files, &file)?;
        let (inputs, outputs) = (config.needed_size("in_features")?, config.needed_size("out_features")?);
        let class = config.string("activation_function")?.unwrap_or(DEFAULT_ACTIVATION);
        let input = config.string("module_input_name")?.unwrap_or(SENTENCE);
        let weights = Weights::from_files(files, folder)?;
        let has_bias = config.bool("bias")?.unwrap_or(true);
        let bias = || weights.tensor("linear.bias", &[outputs], &file);
        Ok(Self {
            input: input.to_owned(),
            output: config.string("module_output_name")?.unwrap_or(input).to_owned(),
            weight: weights.tensor("linear.weight", &[outputs, inputs], &file)?,
            bias: has_bias.then(bias).transpose()?,
            activation: Activation::named(class, &file)?,
            folder: folder.to_owned(),
        })
    }

    pub(super) fn weights(&self) -> Vec<Tensor> {
        [Some(&self.weight), self.bias.as_ref()].into_iter().flatten().cloned().collect()
    }

    /// `[…, in]` to `[…, out]`, in the dtype of `x`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, PipelineError> {
        let (outputs, inputs) = self.weight.dims2()?;
        if x.dims().last() != Some(&inputs) {
            let expected = format!("[…, {inputs}]");
            return Err(PipelineError::shape("what a dense layer is given", expected, x));
        }
        let mut shape = x.dims().to_vec();
        if let Some(width) = shape.last_mut() {
            *width = outputs;
        }
        let mut y = x.reshape(((), inputs))?.matmul(&self.weight.to_dtype(x.dtype())?.t()?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(&bias.to_dtype(x.dtype())?)?;
        }
        self.activation.forward(y.reshape(shape)?)
    }
}
