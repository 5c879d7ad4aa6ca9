use std::str::FromStr;

use candle_core::{Device, Tensor};
use checkpoint::{Checkpoint, ModelFiles};

use crate::PipelineError;
use crate::sentence::in_folder;
use crate::settings::Settings;

/// sentence-transformers' `Dense`: act(W x + b).
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    /// `[out, in]`.
    weight: Tensor,
    bias: Option<Tensor>,
    activation: Activation,
}

/// The activations of PyTorch's that such layers are saved with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    Tanh,
    Identity,
    Relu,
    Gelu,
    Sigmoid,
    Silu,
}

impl FromStr for Activation {
    type Err = ();

    /// By the class that the config names: `torch.nn.modules.activation.Tanh`.
    fn from_str(class: &str) -> Result<Self, ()> {
        match class.rsplit('.').next().unwrap_or_default() {
            "Tanh" => Ok(Self::Tanh),
            "Identity" => Ok(Self::Identity),
            "ReLU" => Ok(Self::Relu),
            "GELU" => Ok(Self::Gelu),
            "Sigmoid" => Ok(Self::Sigmoid),
            "SiLU" => Ok(Self::Silu),
            _ => Err(()),
        }
    }
}

impl Dense {
    /// The layer in that folder of the model: config.json beside model.safetensors or pytorch_model.bin.
    pub(crate) fn from_files(files: &ModelFiles, folder: &str) -> Result<Self, PipelineError> {
        let file = in_folder(folder, "config.json");
        files.require(&file)?;
        let config = Settings::read(files, &file)?;
        let size = |setting: &str| -> Result<usize, PipelineError> {
            config.size(setting)?.ok_or_else(|| PipelineError::BadLayer {
                file: file.clone(),
                reason: format!("'{setting}' is missing"),
            })
        };
        let (inputs, outputs) = (size("in_features")?, size("out_features")?);
        let has_bias = config.bool("bias")?.unwrap_or(true);
        let class = config.string("activation_function")?.unwrap_or("torch.nn.modules.activation.Tanh");
        let activation = class.parse().map_err(|()| PipelineError::UnsupportedPooling {
            file: file.clone(),
            what: format!("the activation '{class}'"),
        })?;

        let safetensors = in_folder(folder, "model.safetensors");
        let torch = in_folder(folder, "pytorch_model.bin");
        let (weights, checkpoint) = match files.read(&safetensors)? {
            Some(bytes) => (safetensors.clone(), Checkpoint::from_safetensors(&safetensors, bytes)?),
            None => (torch.clone(), Checkpoint::from_torch(&torch, files.require(&torch)?)?),
        };
        let tensor = |name: &str, shape: &[usize]| -> Result<Tensor, PipelineError> {
            let bad = |reason: String| PipelineError::BadLayer { file: weights.clone(), reason };
            let entry = checkpoint.get(name).ok_or_else(|| bad(format!("it has no tensor '{name}'")))?;
            if entry.shape != shape {
                return Err(bad(format!(
                    "'{name}' must be {shape:?}, as {file} says, found {:?}",
                    entry.shape
                )));
            }
            let numbers: Vec<f32> = entry.to_value()?.to_f64().into_iter().map(|x| x as f32).collect();
            Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
        };
        Ok(Self {
            weight: tensor("linear.weight", &[outputs, inputs])?,
            bias: if has_bias { Some(tensor("linear.bias", &[outputs])?) } else { None },
            activation,
        })
    }

    /// `[batch, in]` to `[batch, out]`, in f32.
    pub(crate) fn forward(&self, vectors: &Tensor) -> Result<Tensor, PipelineError> {
        let inputs = self.weight.dim(1)?;
        if vectors.dims().last() != Some(&inputs) {
            return Err(PipelineError::Shape {
                name: "what the dense layer after the pooling is given",
                expected: format!("[batch, {inputs}]"),
                found: vectors.dims().to_vec(),
            });
        }
        let mut x = vectors.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            x = x.broadcast_add(bias)?;
        }
        Ok(match self.activation {
            Activation::Tanh => x.tanh()?,
            Activation::Identity => x,
            Activation::Relu => x.relu()?,
            Activation::Gelu => x.gelu_erf()?,
            Activation::Sigmoid => ((x.neg()?.exp()? + 1.)?).recip()?,
            Activation::Silu => x.silu()?,
        })
    }
}
