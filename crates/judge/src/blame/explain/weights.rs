//! The checkpoint's tensors in f64, read when they are asked for.

use std::collections::BTreeMap;

use architecture::{BindError, Family, Task, bind};
use candle_core::{Device, Error, Result, Tensor};
use checkpoint::{Checkpoint, TensorEntry};
use engine::Value;

/// Where each tensor of a model lies, under its name without a prefix; `gamma` and `beta` go by `weight` and `bias`.
///
/// Nothing is copied before it is asked for, and then only what is asked for.
pub struct Weights {
    entries: BTreeMap<String, TensorEntry>,
}

impl Weights {
    /// Those of a checkpoint that the model of a task uses.
    ///
    /// # Errors
    /// As [`bind`]: the checkpoint does not fit the config.
    pub fn new(
        checkpoint: &Checkpoint,
        task: Task,
        family: &dyn Family,
    ) -> std::result::Result<Self, BindError> {
        let bound = bind(checkpoint, family, task)?;
        Ok(Self { entries: bound.named().map(|(name, entry)| (name.to_string(), entry.clone())).collect() })
    }

    fn entry(&self, name: &str) -> Result<&TensorEntry> {
        self.entries.get(name).ok_or_else(|| Error::Msg(format!("the checkpoint has no {name}")))
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.entry(name)?.shape)
    }

    /// A tensor, whole.
    pub(super) fn get(&self, name: &str) -> Result<Tensor> {
        let entry = self.entry(name)?;
        let value = entry.to_value().map_err(Error::wrap)?;
        Tensor::from_vec(value.to_f64(), entry.shape.as_slice(), &Device::Cpu)
    }

    /// Some rows of a table `[rows, width]`, as `[shape…, width]`.
    pub(super) fn rows(&self, name: &str, ids: &[usize], shape: &[usize]) -> Result<Tensor> {
        let entry = self.entry(name)?;
        let &[_, width] = entry.shape.as_slice() else { candle_core::bail!("{name} is no table") };
        let stride = width * entry.dtype.size();
        let mut elements = Vec::with_capacity(ids.len() * width);
        for &id in ids {
            let bytes = id.checked_mul(stride).and_then(|at| entry.bytes.get(at..at + stride));
            let Some(bytes) = bytes else { candle_core::bail!("{name} has no row {id}") };
            let row = Value::from_le_bytes(entry.dtype, [width], bytes).map_err(Error::wrap)?;
            elements.extend(row.to_f64());
        }
        Tensor::from_vec(elements, [shape, &[width]].concat(), &Device::Cpu)
    }
}
