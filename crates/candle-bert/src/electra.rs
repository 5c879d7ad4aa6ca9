//! ELECTRA, block by block, beside the paper: Clark et al. 2020
//! (<https://arxiv.org/abs/2003.10555>).
//!
//! The discriminator is a BERT without a pooler, whose embeddings may be narrower than its hidden
//! states. The generator is the same, with the head of a masked language model.

use architecture::{Activation, Draft, Program, Task, Wire};

use crate::classes::{Classes, HEADS_AND_PRETRAINING};
use crate::config::{ConfigError, Described, Fields, Sizes, config};
use crate::encoder::{Embeddings, Encoder, WORDS, choices, classification, decoder, spans};
use crate::model::models;

config! {
    /// The sizes and choices that make an ELECTRA.
    pub struct ElectraConfig, padding 0 {
        /// The number of tokens in the vocabulary.
        vocab_size: size = 30522,
        /// The width of the embeddings. A linear layer follows them where it is not `hidden_size`.
        embedding_size: size = 128,
        /// The width of every hidden state.
        hidden_size: size = 256,
        /// The number of encoder layers.
        num_hidden_layers: size = 12,
        /// The number of attention heads in each layer. It divides `hidden_size`.
        num_attention_heads: size = 4,
        /// The width of the feed-forward layers.
        intermediate_size: size = 1024,
        /// The activation between the feed-forward layers.
        hidden_act: activation = Activation::Gelu,
        /// The longest sequence there are position embeddings for, in tokens.
        max_position_embeddings: size = 512,
        /// The number of segments a token may belong to.
        type_vocab_size: size = 2,
        /// What LayerNorm adds to the variance.
        layer_norm_eps: eps = 1e-12,
        /// Whether what is pooled for multiple choice goes through a linear layer first.
        summary_use_proj: flag = true,
        /// The activation behind that layer.
        summary_activation: activation = Activation::Gelu,
    }
}

models! {
    ElectraConfig,
    ElectraModel,
    ElectraForSequenceClassification = SequenceClassification,
    ElectraForTokenClassification = TokenClassification,
    ElectraForQuestionAnswering = QuestionAnswering,
    ElectraForMaskedLM = MaskedLm,
    ElectraForMultipleChoice = MultipleChoice,
}

impl Described for ElectraConfig {
    const NAME: &'static str = "ELECTRA";
    const BASE: &'static str = "electra";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("electra", "Electra")];
    const CLASSES: Classes = HEADS_AND_PRETRAINING;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("hidden_size", self.hidden_size),
            heads: ("num_attention_heads", self.num_attention_heads),
            layers: ("num_hidden_layers", self.num_hidden_layers),
        }
    }

    fn refuse(fields: &Fields) -> Result<(), ConfigError> {
        fields.only("summary_type", "first")
    }

    fn describe(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(|name| m.input(name));
        let encoder = Encoder {
            class: "Electra",
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            wide: self.intermediate_size,
            activation: self.hidden_act,
            eps: self.layer_norm_eps,
        };
        let embeddings = Embeddings {
            words: self.vocab_size,
            types: Some(self.type_vocab_size),
            positions: self.max_position_embeddings,
            padding: None,
            width: self.embedding_size,
            eps: self.layer_norm_eps,
        };
        let hidden = m.base(|m| {
            let embedded =
                m.module("embeddings", "ElectraEmbeddings", |m| embeddings.write(m, ids, Some(types)));
            let embedded = match self.embedding_size == self.hidden_size {
                true => embedded,
                false => m.linear("embeddings_project", embedded, self.hidden_size),
            };
            encoder.layers(m, embedded, mask)
        });
        self.head(&mut m, &encoder, task, has, hidden);
        m.finish()
    }
}

impl ElectraConfig {
    /// What stands on the encoder for a task, and what the model gives.
    fn head(&self, m: &mut Draft, encoder: &Encoder, task: Task, has: &dyn Fn(&str) -> bool, hidden: Wire) {
        let logits = match task {
            Task::SequenceClassification => {
                let class = "ElectraClassificationHead";
                classification(m, class, hidden, Activation::Gelu, self.num_labels)
            }
            Task::MultipleChoice => {
                let pooled = m.module("sequence_summary", "ElectraSequenceSummary", |m| {
                    let first = m.token(hidden, 0);
                    let summary = match self.summary_use_proj {
                        true => m.linear("summary", first, self.hidden_size),
                        false => first,
                    };
                    m.configured_activation(summary, self.summary_activation)
                });
                choices(m, pooled)
            }
            Task::TokenClassification => m.linear("classifier", hidden, self.num_labels),
            Task::QuestionAnswering => return spans(m, hidden),
            Task::MaskedLm => self.predictions(m, hidden),
            _ => return encoder.features(m, hidden, has),
        };
        m.output("logits", logits);
    }

    /// LayerNorm(gelu(h W + b)) Eᵀ + c, as wide as the embeddings: what the generator ends with.
    fn predictions(&self, m: &mut Draft, hidden: Wire) -> Wire {
        let normed = m.module("generator_predictions", "ElectraGeneratorPredictions", |m| {
            let dense = m.linear("dense", hidden, self.embedding_size);
            let bent = m.activation(dense, Activation::Gelu);
            m.layer_norm("LayerNorm", bent, self.layer_norm_eps)
        });
        let sizes = [self.vocab_size, self.embedding_size];
        let weight = decoder(m, WORDS, "generator_lm_head.weight", sizes, self.tie_word_embeddings);
        let bias = m.parameter("generator_lm_head.bias", vec![self.vocab_size]);
        m.linear_of("generator_lm_head", normed, weight, Some(bias))
    }
}
