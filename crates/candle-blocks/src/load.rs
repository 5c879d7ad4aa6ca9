//! From a checkpoint to a model.

use architecture::{Bound, Family, Task, bind};
use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use checkpoint::Checkpoint;

use crate::{Model, ModelError};

/// A model, and what is to be known about its checkpoint.
#[derive(Debug, Clone)]
pub struct Loaded<M = Model> {
    /// The model.
    pub model: M,
    /// What stands before the names of its tensors in the checkpoint: nothing, `bert.`, `model.`,
    /// `0.auto_model.` or the like.
    pub prefix: String,
    /// The tensors of the checkpoint that the model does not use, such as those of another head, in
    /// file order.
    pub unused: Vec<String>,
}

impl<M> Loaded<M> {
    /// The model as something else.
    pub fn map<N>(self, into: impl FnOnce(M) -> N) -> Loaded<N> {
        Loaded { model: into(self.model), prefix: self.prefix, unused: self.unused }
    }
}

impl Model {
    /// Loads the model of a task from a checkpoint, converting its float tensors to `dtype`.
    /// Prefixes such as `bert.` are found, and the names `gamma` and `beta` understood, which
    /// checkpoints converted from TensorFlow have in their layer norms.
    ///
    /// # Errors
    /// If the config is contradictory; or with the list of everything in the checkpoint that does
    /// not fit it ([`architecture::Misfits`]).
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        family: &dyn Family,
        task: Task,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Loaded, ModelError> {
        let bound = bind(checkpoint, family, task)?;
        Self::from_bound(checkpoint, bound, dtype, device)
    }

    /// Loads a program whose tensors have been looked up in the checkpoint.
    ///
    /// # Errors
    /// If the dtype is none that a model can have, or the device fails.
    pub fn from_bound(
        checkpoint: &Checkpoint,
        bound: Bound<'_>,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Loaded, ModelError> {
        let Bound { program, prefix, head_prefix, unused, .. } = bound;
        let vb = var_builder(checkpoint, dtype, device);
        let at = |prefix: &str| match prefix.trim_end_matches('.') {
            "" => vb.clone(),
            prefix => vb.pp(prefix),
        };
        Ok(Loaded { model: Self::load(program, &at(&prefix), &at(&head_prefix))?, prefix, unused })
    }
}

/// A checkpoint as candle's `VarBuilder`. Its float tensors are converted to `dtype`; any other is
/// an error.
pub fn var_builder(checkpoint: &Checkpoint, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Backend(checkpoint.clone())), dtype, device.clone())
}

/// A checkpoint in candle's terms.
struct Backend(Checkpoint);

impl SimpleBackend for Backend {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            let got = tensor.shape().clone();
            return Err(Error::UnexpectedShape { msg: name.into(), expected: shape, got });
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let entry = self.0.get(name).ok_or_else(|| Error::CannotFindTensor { path: name.into() })?;
        let stored = match entry.dtype {
            engine::DType::F16 => DType::F16,
            engine::DType::BF16 => DType::BF16,
            engine::DType::F32 => DType::F32,
            engine::DType::F64 => DType::F64,
            other => return Err(Error::Msg(format!("{name} is {other}, a weight must be a float"))),
        };
        // Converted on the CPU: some devices have no f64.
        Tensor::from_raw_buffer(&entry.bytes, stored, &entry.shape, &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }
}
