//! RoBERTa and its kin, block by block, beside the papers: Liu et al. 2019
//! (<https://arxiv.org/abs/1907.11692>), Conneau et al. 2020 for XLM-R
//! (<https://arxiv.org/abs/1911.02116>), Martin et al. 2020 for CamemBERT
//! (<https://arxiv.org/abs/1911.03894>).
//!
//! The architecture is BERT's. Positions are counted from the id that pads, as fairseq does, so
//! that tokens of that id share a row and are not counted.

use architecture::{Activation, Draft, Program, Task, Wire};

use crate::classes::{Classes, HEADS};
use crate::config::{ConfigError, Described, Sizes, config};
use crate::encoder::{Embeddings, Encoder, WORDS, choices, classification, decoder, features, pooler, spans};
use crate::model::models;

config! {
    /// The sizes and choices that make a RoBERTa, an XLM-R or a CamemBERT.
    pub struct RobertaConfig, padding 1 {
        /// Which of them it is: `roberta`, `xlm-roberta`, `camembert`. Only the names of
        /// transformers' classes depend on it.
        model_type: name = "roberta".into(),
        /// The number of tokens in the vocabulary.
        vocab_size: size = 50265,
        /// The width of every hidden state.
        hidden_size: size = 768,
        /// The number of encoder layers.
        num_hidden_layers: size = 12,
        /// The number of attention heads in each layer. It divides `hidden_size`.
        num_attention_heads: size = 12,
        /// The width of the feed-forward layers.
        intermediate_size: size = 3072,
        /// The activation between the feed-forward layers.
        hidden_act: activation = Activation::Gelu,
        /// The rows of the table of positions: `pad_token_id` + 1 more than the longest sequence
        /// has tokens.
        max_position_embeddings: size = 512,
        /// The number of segments a token may belong to.
        type_vocab_size: size = 2,
        /// What LayerNorm adds to the variance.
        layer_norm_eps: eps = 1e-12,
    }
}

models! {
    RobertaConfig,
    RobertaModel,
    RobertaForSequenceClassification = SequenceClassification,
    RobertaForTokenClassification = TokenClassification,
    RobertaForQuestionAnswering = QuestionAnswering,
    RobertaForMaskedLM = MaskedLm,
    RobertaForMultipleChoice = MultipleChoice,
}

impl Described for RobertaConfig {
    const NAME: &'static str = "RoBERTa";
    const BASE: &'static str = "roberta";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] =
        &[("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"), ("camembert", "Camembert")];
    const CLASSES: Classes = HEADS;

    fn class_prefix(&self) -> &'static str {
        let own = Self::MODEL_TYPES.iter().find(|(model_type, _)| *model_type == self.model_type);
        own.unwrap_or(&Self::MODEL_TYPES[0]).1
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("hidden_size", self.hidden_size),
            heads: ("num_attention_heads", self.num_attention_heads),
            layers: ("num_hidden_layers", self.num_hidden_layers),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (positions, pad_token_id) = (self.max_position_embeddings, self.pad_token_id);
        if positions <= pad_token_id.saturating_add(1) {
            return Err(ConfigError::NoPositions { positions, pad_token_id });
        }
        Ok(())
    }

    fn describe(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Program {
        let encoder = Encoder {
            class: self.class_prefix(),
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            wide: self.intermediate_size,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
        };
        let mut m = self.draft(task);
        let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(|name| m.input(name));
        let embeddings = Embeddings {
            words: self.vocab_size,
            types: Some(self.type_vocab_size),
            positions: self.max_position_embeddings,
            padding: Some(self.pad_token_id),
            width: self.hidden_size,
            eps: self.layer_norm_eps,
        };
        let hidden = m.base(|m| {
            let class = encoder.class("Embeddings");
            let embedded = m.module("embeddings", class, |m| embeddings.write(m, ids, Some(types)));
            encoder.layers(m, embedded, mask)
        });
        let heads = Heads {
            class: encoder.class,
            words: self.vocab_size,
            labels: self.num_labels,
            eps: self.layer_norm_eps,
            tied: self.tie_word_embeddings,
        };
        heads.write(&mut m, task, has, hidden);
        m.finish()
    }
}

/// RoBERTa's heads, which MPNet has, too.
pub(crate) struct Heads {
    /// What the names of transformers' classes begin with.
    pub class: &'static str,
    /// The number of tokens in the vocabulary.
    pub words: usize,
    pub labels: usize,
    pub eps: f64,
    /// Whether the decoder is the table of word embeddings.
    pub tied: bool,
}

impl Heads {
    /// What stands on the encoder for a task, and what the model gives.
    pub fn write(&self, m: &mut Draft, task: Task, has: &dyn Fn(&str) -> bool, hidden: Wire) {
        let class = |ending: &str| format!("{}{ending}", self.class);
        let logits = match task {
            Task::SequenceClassification => {
                classification(m, class("ClassificationHead"), hidden, Activation::Tanh, self.labels)
            }
            Task::MultipleChoice => {
                let pooled = pooler(m, class("Pooler"), hidden);
                choices(m, pooled)
            }
            Task::TokenClassification => m.linear("classifier", hidden, self.labels),
            Task::QuestionAnswering => return spans(m, hidden),
            Task::MaskedLm => m.module("lm_head", class("LMHead"), |m| self.predictions(m, hidden)),
            _ => return features(m, class("Pooler"), hidden, has),
        };
        m.output("logits", logits);
    }

    /// LayerNorm(gelu(h W + b)) Eᵀ + c, with the table of word embeddings E, unless there is a
    /// decoder of its own.
    fn predictions(&self, m: &mut Draft, hidden: Wire) -> Wire {
        let width = m.width(hidden);
        let dense = m.linear("dense", hidden, width);
        let bent = m.activation(dense, Activation::Gelu);
        let normed = m.layer_norm("layer_norm", bent, self.eps);
        let weight = decoder(m, WORDS, "decoder.weight", [self.words, width], self.tied);
        let bias = m.parameter("bias", vec![self.words]);
        m.copied("decoder.bias", bias, false);
        m.linear_of("decoder", normed, weight, Some(bias))
    }
}
