//! A tiny model with weights of a fixed pattern, for unit tests.

use candle_core::{DType, Device};
use checkpoint::Checkpoint;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::{Activation, BertConfig, BertModel, Task};

/// No two of its sizes are equal, so that none can stand for another.
pub(crate) fn config() -> BertConfig {
    BertConfig {
        vocab_size: 11,
        hidden_size: 6,
        num_hidden_layers: 4,
        num_attention_heads: 2,
        intermediate_size: 8,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 7,
        type_vocab_size: 3,
        layer_norm_eps: 1e-12,
        ..BertConfig::default()
    }
}

/// A tensor of a checkpoint to be: name, dtype, shape, little-endian bytes.
pub(crate) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// What the config asks for, in f32, with values that do not repeat, and layer norms near the identity, so that tokens
/// stay apart.
pub(crate) fn tensors(config: &BertConfig, pooler: bool) -> Vec<Stored> {
    let mut n = 0f32;
    let program = config.program(Task::FeatureExtraction, &|_| pooler).unwrap();
    program
        .tensors
        .into_iter()
        .map(|tensor| {
            let (center, spread) = match tensor.name.as_str() {
                name if name.ends_with("LayerNorm.weight") => (1., 0.25),
                name if name.ends_with("bias") => (0., 0.25),
                _ => (0., 1.),
            };
            let mut element = || {
                n += 1.;
                (center + spread * (n * n * 0.37).sin()).to_le_bytes()
            };
            let bytes = (0..tensor.shape.iter().product()).flat_map(|_| element()).collect();
            (tensor.name, Dtype::F32, tensor.shape, bytes)
        })
        .collect()
}

pub(crate) fn checkpoint(tensors: &[Stored]) -> Checkpoint {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    Checkpoint::from_safetensors("tiny", bytes.into()).unwrap()
}

/// The tiny model, with a pooler.
pub(crate) fn model(dtype: DType) -> BertModel {
    let config = config();
    let checkpoint = checkpoint(&tensors(&config, true));
    BertModel::from_checkpoint(&checkpoint, &config, dtype, &Device::Cpu).unwrap().model
}
