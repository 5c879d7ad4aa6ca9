//! ALBERT, block by block, beside the paper: Lan et al. 2020 (<https://arxiv.org/abs/1909.11942>).
//!
//! A BERT whose layers share their weights, and whose embeddings are narrower than its hidden
//! states (section 3.1). Layers may be shared in several groups, and a group may have several
//! layers.

use architecture::{Activation, Draft, Program, Task, Wire};

use crate::classes::{Classes, HEADS_AND_PRETRAINING};
use crate::config::{ConfigError, Described, Sizes, config};
use crate::encoder::{Embeddings, WORDS, choices, decoder, spans};
use crate::model::models;

config! {
    /// The sizes and choices that make an ALBERT.
    pub struct AlbertConfig, padding 0 {
        /// The number of tokens in the vocabulary.
        vocab_size: size = 30000,
        /// The width of the embeddings.
        embedding_size: size = 128,
        /// The width of every hidden state.
        hidden_size: size = 4096,
        /// How often a group of layers runs, all groups together.
        num_hidden_layers: size = 12,
        /// The number of groups, each with weights of its own.
        num_hidden_groups: size = 1,
        /// The number of layers in a group, each with weights of its own.
        inner_group_num: size = 1,
        /// The number of attention heads in each layer. It divides `hidden_size`.
        num_attention_heads: size = 64,
        /// The width of the feed-forward layers.
        intermediate_size: size = 16384,
        /// The activation between the feed-forward layers.
        hidden_act: activation = Activation::GeluTanh,
        /// The longest sequence there are position embeddings for, in tokens.
        max_position_embeddings: size = 512,
        /// The number of segments a token may belong to.
        type_vocab_size: size = 2,
        /// What LayerNorm adds to the variance.
        layer_norm_eps: eps = 1e-12,
    }
}

models! {
    AlbertConfig,
    AlbertModel,
    AlbertForSequenceClassification = SequenceClassification,
    AlbertForTokenClassification = TokenClassification,
    AlbertForQuestionAnswering = QuestionAnswering,
    AlbertForMaskedLM = MaskedLm,
    AlbertForMultipleChoice = MultipleChoice,
}

impl Described for AlbertConfig {
    const NAME: &'static str = "ALBERT";
    const BASE: &'static str = "albert";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("albert", "Albert")];
    const CLASSES: Classes = HEADS_AND_PRETRAINING;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("hidden_size", self.hidden_size),
            heads: ("num_attention_heads", self.num_attention_heads),
            layers: ("num_hidden_layers", self.num_hidden_layers),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (layers, groups) = (self.num_hidden_layers, self.num_hidden_groups);
        match groups <= layers && self.inner_group_num <= crate::MAX_HIDDEN_LAYERS {
            true => Ok(()),
            false => Err(ConfigError::Groups { layers, groups, inner: self.inner_group_num }),
        }
    }

    fn describe(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(|name| m.input(name));
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
                m.module("embeddings", "AlbertEmbeddings", |m| embeddings.write(m, ids, Some(types)));
            m.module("encoder", "AlbertTransformer", |m| {
                let mask = m.rows(mask);
                let mask = m.mask(mask);
                let first = m.linear("embedding_hidden_mapping_in", embedded, self.hidden_size);
                (0..self.num_hidden_layers).fold(first, |hidden, n| self.group(m, n, hidden, mask))
            })
        });
        self.head(&mut m, task, has, hidden);
        m.finish()
    }
}

impl AlbertConfig {
    /// The group whose turn it is: the first ones run first, each as often as the others.
    fn group(&self, m: &mut Draft, n: usize, hidden: Wire, mask: Wire) -> Wire {
        let group = |n: usize| n * self.num_hidden_groups / self.num_hidden_layers;
        let run = (0..n).filter(|&earlier| group(earlier) == group(n)).count();
        let class = "AlbertLayerGroup";
        m.run(run, |m| {
            m.item_as("albert_layer_groups", group(n), None, class, |m| {
                (0..self.inner_group_num).fold(hidden, |hidden, inner| {
                    let layer = n * self.inner_group_num + inner;
                    m.item_as("albert_layers", inner, Some(layer), "AlbertLayer", |m| {
                        self.layer(m, hidden, mask)
                    })
                })
            })
        })
    }

    /// Self-attention and then a feed-forward network, each within a residual connection.
    fn layer(&self, m: &mut Draft, hidden: Wire, mask: Wire) -> Wire {
        let attended = m.module("attention", "AlbertAttention", |m| {
            let parts = ["query", "key", "value"].map(|part| m.linear(part, hidden, self.hidden_size));
            let context = m.attention(parts, mask, self.num_attention_heads);
            let projected = m.linear("dense", context, self.hidden_size);
            let sum = m.sum([hidden, projected]);
            m.layer_norm("LayerNorm", sum, self.layer_norm_eps)
        });
        let wide = m.linear("ffn", attended, self.intermediate_size);
        let bent = m.configured_activation(wide, self.hidden_act);
        let projected = m.linear("ffn_output", bent, self.hidden_size);
        let sum = m.sum([projected, attended]);
        m.layer_norm("full_layer_layer_norm", sum, self.layer_norm_eps)
    }

    /// The first token through one more layer, trained on the order of sentences (section 3.1):
    /// tanh(h W + b).
    fn pooler(&self, m: &mut Draft, hidden: Wire) -> Wire {
        m.base(|m| {
            let first = m.token(hidden, 0);
            let dense = m.linear("pooler", first, self.hidden_size);
            m.activation(dense, Activation::Tanh)
        })
    }

    /// What stands on the encoder for a task, and what the model gives.
    fn head(&self, m: &mut Draft, task: Task, has: &dyn Fn(&str) -> bool, hidden: Wire) {
        let logits = match task {
            Task::SequenceClassification => {
                let pooled = self.pooler(m, hidden);
                m.linear("classifier", pooled, self.num_labels)
            }
            Task::MultipleChoice => {
                let pooled = self.pooler(m, hidden);
                choices(m, pooled)
            }
            Task::TokenClassification => m.linear("classifier", hidden, self.num_labels),
            Task::QuestionAnswering => return spans(m, hidden),
            Task::MaskedLm => m.module("predictions", "AlbertMLMHead", |m| self.predictions(m, hidden)),
            _ => {
                m.output("last_hidden_state", hidden);
                if ["pooler.weight", "pooler.bias"].into_iter().any(has) {
                    let pooled = self.pooler(m, hidden);
                    m.output("pooler_output", pooled);
                }
                return;
            }
        };
        m.output("logits", logits);
    }

    /// LayerNorm(act(h W + b)) Eᵀ + c, as wide as the embeddings.
    fn predictions(&self, m: &mut Draft, hidden: Wire) -> Wire {
        let dense = m.linear("dense", hidden, self.embedding_size);
        let bent = m.configured_activation(dense, self.hidden_act);
        let normed = m.layer_norm("LayerNorm", bent, self.layer_norm_eps);
        let sizes = [self.vocab_size, self.embedding_size];
        let weight = decoder(m, WORDS, "decoder.weight", sizes, self.tie_word_embeddings);
        let bias = m.parameter("bias", vec![self.vocab_size]);
        m.copied("decoder.bias", bias, false);
        m.linear_of("decoder", normed, weight, Some(bias))
    }
}
