//! DistilBERT, block by block, beside the paper: Sanh et al. 2019
//! (<https://arxiv.org/abs/1910.01108>).
//!
//! A BERT of half the layers, without token types and without a pooler, whose modules have names of
//! their own.

use architecture::{Activation, Draft, Program, Task, Wire};

use crate::classes::{Classes, HEADS};
use crate::config::{Described, Sizes, config};
use crate::encoder::{Embeddings, WORDS, choices, decoder, spans};
use crate::model::models;

/// What every LayerNorm adds to the variance: config.json does not say it.
const EPS: f64 = 1e-12;

config! {
    /// The sizes and choices that make a DistilBERT.
    pub struct DistilBertConfig, padding 0 {
        /// The number of tokens in the vocabulary.
        vocab_size: size = 30522,
        /// The width of every hidden state.
        dim: size = 768,
        /// The number of encoder layers.
        n_layers: size = 6,
        /// The number of attention heads in each layer. It divides `dim`.
        n_heads: size = 12,
        /// The width of the feed-forward layers.
        hidden_dim: size = 3072,
        /// The activation between the feed-forward layers.
        activation: activation = Activation::Gelu,
        /// The longest sequence there are position embeddings for, in tokens.
        max_position_embeddings: size = 512,
    }
}

models! {
    DistilBertConfig,
    DistilBertModel,
    DistilBertForSequenceClassification = SequenceClassification,
    DistilBertForTokenClassification = TokenClassification,
    DistilBertForQuestionAnswering = QuestionAnswering,
    DistilBertForMaskedLM = MaskedLm,
    DistilBertForMultipleChoice = MultipleChoice,
}

impl Described for DistilBertConfig {
    const NAME: &'static str = "DistilBERT";
    const BASE: &'static str = "distilbert";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("distilbert", "DistilBert")];
    const CLASSES: Classes = HEADS;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("dim", self.dim),
            heads: ("n_heads", self.n_heads),
            layers: ("n_layers", self.n_layers),
        }
    }

    fn describe(&self, task: Task, _: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let (ids, mask) = (m.input("input_ids"), m.input("attention_mask"));
        let embeddings = Embeddings {
            words: self.vocab_size,
            types: None,
            positions: self.max_position_embeddings,
            padding: None,
            width: self.dim,
            eps: EPS,
        };
        let hidden = m.base(|m| {
            let embedded = m.module("embeddings", "Embeddings", |m| embeddings.write(m, ids, None));
            m.module("transformer", "Transformer", |m| {
                let mask = m.rows(mask);
                let mask = m.mask(mask);
                (0..self.n_layers).fold(embedded, |hidden, n| {
                    m.item("layer", n, "TransformerBlock", |m| self.block(m, hidden, mask))
                })
            })
        });
        self.head(&mut m, task, hidden);
        m.finish()
    }
}

impl DistilBertConfig {
    /// Self-attention and then a feed-forward network, each within a residual connection.
    fn block(&self, m: &mut Draft, hidden: Wire, mask: Wire) -> Wire {
        let attended = m.module("attention", "MultiHeadSelfAttention", |m| {
            let parts = ["q_lin", "k_lin", "v_lin"].map(|part| m.linear(part, hidden, self.dim));
            let context = m.attention(parts, mask, self.n_heads);
            m.linear("out_lin", context, self.dim)
        });
        let sum = m.sum([attended, hidden]);
        let attended = m.layer_norm("sa_layer_norm", sum, EPS);
        let fed = m.module("ffn", "FFN", |m| {
            let wide = m.linear("lin1", attended, self.hidden_dim);
            let bent = m.configured_activation(wide, self.activation);
            m.linear("lin2", bent, self.dim)
        });
        let sum = m.sum([fed, attended]);
        m.layer_norm("output_layer_norm", sum, EPS)
    }

    /// The first token through one more layer.
    fn pooled(&self, m: &mut Draft, hidden: Wire) -> Wire {
        let first = m.token(hidden, 0);
        let dense = m.linear("pre_classifier", first, self.dim);
        m.activation(dense, Activation::Relu)
    }

    /// What stands on the encoder for a task, and what the model gives.
    fn head(&self, m: &mut Draft, task: Task, hidden: Wire) {
        let logits = match task {
            Task::SequenceClassification => {
                let pooled = self.pooled(m, hidden);
                m.linear("classifier", pooled, self.num_labels)
            }
            Task::MultipleChoice => {
                let pooled = self.pooled(m, hidden);
                choices(m, pooled)
            }
            Task::TokenClassification => m.linear("classifier", hidden, self.num_labels),
            Task::QuestionAnswering => return spans(m, hidden),
            Task::MaskedLm => self.predictions(m, hidden),
            _ => return m.output("last_hidden_state", hidden),
        };
        m.output("logits", logits);
    }

    /// LayerNorm(act(h W + b)) Eᵀ + c, with the table of word embeddings E, unless there is a
    /// decoder of its own.
    fn predictions(&self, m: &mut Draft, hidden: Wire) -> Wire {
        let dense = m.linear("vocab_transform", hidden, self.dim);
        let bent = m.configured_activation(dense, self.activation);
        let normed = m.layer_norm("vocab_layer_norm", bent, EPS);
        let sizes = [self.vocab_size, self.dim];
        let weight = decoder(m, WORDS, "vocab_projector.weight", sizes, self.tie_word_embeddings);
        let bias = m.parameter("vocab_projector.bias", vec![self.vocab_size]);
        m.linear_of("vocab_projector", normed, weight, Some(bias))
    }
}
