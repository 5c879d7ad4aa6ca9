//! BERT and the families that came of it on candle, written to be read beside the papers: BERT is
//! that of Devlin et al. 2018 (<https://arxiv.org/abs/1810.04805>) and, for the encoder, Vaswani et
//! al. 2017 (<https://arxiv.org/abs/1706.03762>).
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
//! | family | config | models |
//! | --- | --- | --- |
//! | ALBERT | [`AlbertConfig`] | [`AlbertModel`], … |
//! | BERT | [`BertConfig`] | [`BertModel`], … |
//! | DistilBERT | [`DistilBertConfig`] | [`DistilBertModel`], … |
//! | ELECTRA | [`ElectraConfig`] | [`ElectraModel`], … |
//! | gte | [`GteConfig`] | [`GteModel`], … |
//! | ModernBERT | [`ModernBertConfig`] | [`ModernBertModel`], … |
//! | MPNet | [`MpnetConfig`] | [`MpnetModel`], … |
//! | nomic-bert | [`NomicBertConfig`] | [`NomicBertModel`], … |
//! | RoBERTa, XLM-R, CamemBERT | [`RobertaConfig`] | [`RobertaModel`], … |
//!
//! * [`family`]: a config.json of any of them, checked;
//! * [`EncoderModel`]: the encoder of any of them, from a [`checkpoint::Checkpoint`] or from
//!   candle's `VarBuilder`;
//! * [`EncoderFor`]: the same with a head of [`heads`] on it; [`EncoderForTask`], where the
//!   [`Task`] is known only when the program runs;
//! * [`EncoderModel::forward_with_taps`]: the output of every module, under the path it has in the
//!   checkpoint;
//! * [`ReferenceEngine`]: any of them as the engine that graphs are judged by.
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

mod albert;
mod bert;
mod classes;
mod config;
mod distilbert;
mod electra;
mod encoder;
mod gte;
pub mod heads;
mod model;
mod modernbert;
mod mpnet;
mod nomic;
mod other;
mod roberta;
#[cfg(test)]
mod testing;

pub use albert::{
    AlbertConfig, AlbertForMaskedLM, AlbertForMultipleChoice, AlbertForQuestionAnswering,
    AlbertForSequenceClassification, AlbertForTokenClassification, AlbertModel,
};
pub use architecture::{Activation, BindError, Family, Limits, Misfits, ProblemType, Task, TaskError};
pub use bert::{
    BertConfig, BertFor, BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTask, BertForTokenClassification,
    BertModel, BertOutput,
};
pub use candle_blocks::{Activate, LayerNorm, Model, ModelError as BertError, ReferenceEngine, var_builder};
pub use config::{ConfigError, MAX_HIDDEN_LAYERS, family};
pub use distilbert::{
    DistilBertConfig, DistilBertForMaskedLM, DistilBertForMultipleChoice, DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification, DistilBertForTokenClassification, DistilBertModel,
};
pub use electra::{
    ElectraConfig, ElectraForMaskedLM, ElectraForMultipleChoice, ElectraForQuestionAnswering,
    ElectraForSequenceClassification, ElectraForTokenClassification, ElectraModel,
};
pub use gte::{
    GteConfig, GteForMaskedLM, GteForMultipleChoice, GteForQuestionAnswering, GteForSequenceClassification,
    GteForTokenClassification, GteModel,
};
pub use heads::{EncoderFor, EncoderForTask, QuestionAnsweringOutput, TaskOutput};
pub use model::{EncoderModel, EncoderOutput};
pub use modernbert::{
    ModernBertConfig, ModernBertForMaskedLM, ModernBertForMultipleChoice, ModernBertForQuestionAnswering,
    ModernBertForSequenceClassification, ModernBertForTokenClassification, ModernBertModel,
};
pub use mpnet::{
    MpnetConfig, MpnetForMaskedLM, MpnetForMultipleChoice, MpnetForQuestionAnswering,
    MpnetForSequenceClassification, MpnetForTokenClassification, MpnetModel,
};
pub use nomic::{
    NomicBertConfig, NomicBertForMultipleChoice, NomicBertForPreTraining, NomicBertForQuestionAnswering,
    NomicBertForSequenceClassification, NomicBertForTokenClassification, NomicBertModel,
};
pub use other::OtherConfig;
pub use roberta::{
    RobertaConfig, RobertaForMaskedLM, RobertaForMultipleChoice, RobertaForQuestionAnswering,
    RobertaForSequenceClassification, RobertaForTokenClassification, RobertaModel,
};

/// A model, and what is to be known about its checkpoint.
pub type Loaded<M = BertModel> = candle_blocks::Loaded<M>;

impl From<ConfigError> for BertError {
    fn from(error: ConfigError) -> Self {
        Self::Bind(BindError::Config(error.into()))
    }
}

#[cfg(test)]
mod tests {
    mod load;
    mod reference;
}
