use candle_core::{Device, Tensor};
use checkpoint::{Checkpoint, ModelFiles};

use super::in_folder;
use crate::PipelineError;

/// The weights of a module: model.safetensors in its folder, or pytorch_model.bin.
pub(super) struct Weights {
    file: String,
    checkpoint: Checkpoint,
}

impl Weights {
    pub(super) fn from_files(files: &ModelFiles, folder: &str) -> Result<Self, PipelineError> {
        let safetensors = in_folder(folder, "model.safetensors");
        if let Some(bytes) = files.read(&safetensors)? {
            let checkpoint = Checkpoint::from_safetensors(&safetensors, bytes)?;
            return Ok(Self { file: safetensors, checkpoint });
        }
        let torch = in_folder(folder, "pytorch_model.bin");
        let checkpoint = Checkpoint::from_torch(&torch, files.require(&torch)?)?;
        Ok(Self { file: torch, checkpoint })
    }

    /// A tensor, in f32; `config` is the file that says which shape it must have.
    pub(super) fn tensor(&self, name: &str, shape: &[usize], config: &str) -> Result<Tensor, PipelineError> {
        let bad = |reason: String| PipelineError::BadLayer { file: self.file.clone(), reason };
        let entry = self.checkpoint.get(name).ok_or_else(|| bad(format!("it has no tensor '{name}'")))?;
        if entry.shape != shape {
            return Err(bad(format!(
                "'{name}' must be {shape:?}, as {config} says, found {:?}",
                entry.shape
            )));
        }
        let numbers: Vec<f32> = entry.to_value()?.to_f64().into_iter().map(|x| x as f32).collect();
        Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
    }
}
