use candle_core::{DType, Device, Tensor};

use crate::PipelineError;
use crate::scores::sigmoid;

/// The classes of PyTorch's that sentence-transformers saves by name: of a dense layer, and of a
/// cross-encoder's score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Tanh,
    Identity,
    Relu,
    Gelu,
    Sigmoid,
    Silu,
}

impl Activation {
    /// The activation of that class by its full name, `torch.nn.modules.activation.Tanh`, which a
    /// setting of `file` names. sentence-transformers runs no others, unless it is told to trust
    /// the model's own code.
    pub(crate) fn named(class: &str, file: &str) -> Result<Self, PipelineError> {
        Ok(match class.strip_prefix("torch.").and_then(|class| class.rsplit('.').next()) {
            Some("Tanh") => Self::Tanh,
            Some("Identity") => Self::Identity,
            Some("ReLU") => Self::Relu,
            Some("GELU") => Self::Gelu,
            Some("Sigmoid") => Self::Sigmoid,
            Some("SiLU") => Self::Silu,
            _ => {
                let what = format!("the activation '{class}'");
                return Err(PipelineError::UnsupportedPooling { file: file.to_owned(), what });
            }
        })
    }

    /// Each number of `x`, in its dtype. GELU is the exact one, as PyTorch's class has it by
    /// default.
    pub(crate) fn forward(self, x: Tensor) -> Result<Tensor, PipelineError> {
        Ok(match self {
            Self::Tanh => x.tanh()?,
            Self::Identity => x,
            Self::Relu => x.relu()?,
            Self::Gelu => x.gelu_erf()?,
            Self::Sigmoid if x.dtype() == DType::F64 => ((x.neg()?.exp()? + 1.)?).recip()?,
            Self::Sigmoid => {
                let numbers: Vec<f32> = x.flatten_all()?.to_vec1()?;
                let numbers: Vec<f32> = numbers.into_iter().map(sigmoid).collect();
                Tensor::from_vec(numbers, x.shape(), x.device())?
            }
            Self::Silu => x.silu()?,
        })
    }

    /// Of a single number.
    pub(crate) fn of(self, x: f32) -> Result<f32, PipelineError> {
        Ok(self.forward(Tensor::new(&[x], &Device::Cpu)?)?.squeeze(0)?.to_scalar()?)
    }
}
