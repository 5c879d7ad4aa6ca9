//! The checkpoint's tensors in f64, read when they are asked for.

use std::collections::BTreeMap;

use candle_bert::{BertConfig, BertError, Task, used_tensors_for};
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
    /// As [`candle_bert::BertForTask::from_checkpoint`]: the checkpoint does not fit the config.
    pub fn new(
        checkpoint: &Checkpoint,
        task: Task,
        config: &BertConfig,
    ) -> std::result::Result<Self, BertError> {
        let used = used_tensors_for(task, checkpoint, config)?;
        Ok(Self { entries: used.into_iter().map(|(name, entry)| (name, entry.clone())).collect() })
    }

    fn entry(&self, name: &str) -> Result<&TensorEntry> {
        let entry = self.entries.get(name).or_else(|| self.entries.get(other_name(name)?));
        entry.ok_or_else(|| Error::Msg(format!("the checkpoint has no {name}")))
    }

    /// A tensor, whole. The decoder of a masked language model has its bias by another name, and its weight, too, if it is tied.
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

    /// The modules with a tensor of this name and shape: `of("weight", [64, 64])`.
    pub(super) fn modules(&self, tensor: &str, shape: &[usize]) -> Vec<&str> {
        let fits = |entry: &TensorEntry| entry.shape == shape;
        self.entries
            .iter()
            .filter_map(|(name, entry)| {
                let module = name.strip_suffix(tensor)?.strip_suffix('.')?;
                fits(entry).then_some(module)
            })
            .collect()
    }
}

/// Where a tensor of the decoder of a masked language model lies, if not under its own name.
fn other_name(name: &str) -> Option<&'static str> {
    match name {
        "cls.predictions.decoder.weight" => Some("embeddings.word_embeddings.weight"),
        "cls.predictions.decoder.bias" => Some("cls.predictions.bias"),
        _ => None,
    }
}
