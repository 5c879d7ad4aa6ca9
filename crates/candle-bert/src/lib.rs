//! BERT on candle, written to be read beside the papers: Devlin et al. 2018 (<https://arxiv.org/abs/1810.04805>) and, for the
//! encoder, Vaswani et al. 2017 (<https://arxiv.org/abs/1706.03762>).
//!
//! ```text
//! embeddings   h₀ = LayerNorm(word[id] + token_type[type] + position[i])
//! layer n      a  = LayerNorm(h + Attention(h))
//!              h' = LayerNorm(a + W₂ act(W₁ a + b₁) + b₂)
//! pooler       p  = tanh(W h[first token] + b)
//! heads        logits = W p + b, or W h + b for every token
//! ```
//!
//! It computes what `transformers` computes, in any float dtype candle has a kernel for, and in `f64` to the last few
//! bits: that is what it is for. Speed comes second to being evidently right.
//!
//! * [`BertConfig`]: config.json, checked;
//! * [`BertModel`]: from a [`checkpoint::Checkpoint`] or from candle's `VarBuilder`;
//! * [`BertForSequenceClassification`], [`BertForTokenClassification`], [`BertForQuestionAnswering`], [`BertForMaskedLM`], [`BertForMultipleChoice`],
//!   [`BertForNextSentencePrediction`]: the same with a head on it; [`BertForTask`], where the [`Task`] is known only when the program runs;
//! * [`BertModel::forward_with_taps`]: the output of every module, under the path it has in the checkpoint;
//! * [`ReferenceEngine`]: any of them as an [`engine::Engine`].
//!
//! ```
//! use candle_bert::{BertConfig, BertModel};
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::VarBuilder;
//!
//! let config = BertConfig::from_json(
//!     br#"{"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}"#,
//! )?;
//! let model = BertModel::load(VarBuilder::zeros(DType::F64, &Device::Cpu), &config)?;
//!
//! let input_ids = Tensor::new(&[[2i64, 5, 7, 3]], &Device::Cpu)?;
//! let output = model.forward(&input_ids, None, None)?;
//! assert_eq!(output.last_hidden_state.dims(), [1, 4, 8]);
//!
//! let mut modules = Vec::new();
//! model.forward_with_taps(&input_ids, None, None, &mut |module, output| {
//!     modules.push((module.to_string(), output.dims().to_vec()));
//!     Ok(())
//! })?;
//! assert!(modules.contains(&("encoder.layer.1.intermediate".into(), vec![1, 4, 16])));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod activation;
mod attention;
mod config;
mod embeddings;
mod encoder;
mod error;
pub mod heads;
mod inputs;
mod layer_norm;
mod linear;
mod load;
mod model;
mod pooler;
mod reference;
mod taps;
mod task;
#[cfg(test)]
mod testing;

pub use activation::Activation;
pub use config::{BertConfig, ConfigError, ProblemType};
pub use error::BertError;
pub use heads::{
    BertFor, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForQuestionAnswering,
    BertForSequenceClassification, BertForTask, BertForTokenClassification, QuestionAnsweringOutput,
    TaskOutput,
};
pub use layer_norm::LayerNorm;
pub use load::{
    ExpectedTensor, Loaded, Misfits, Misshaped, expected_head_tensors, expected_tensors, used_tensors,
    used_tensors_for, var_builder,
};
pub use model::{BertModel, BertOutput};
pub use reference::ReferenceEngine;
pub use task::{Task, TaskError};

use candle_core::DType;

/// The dtype in which sums and functions of `dtype` are computed: `f32` for the two half ones, as PyTorch does, else `dtype`.
fn compute_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}
