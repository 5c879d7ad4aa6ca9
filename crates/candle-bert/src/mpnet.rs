//! MPNet, block by block, beside the papers: Song et al. 2020 (<https://arxiv.org/abs/2004.09297>),
//! and Raffel et al. 2020 (<https://arxiv.org/abs/1910.10683>, section 2.1) for its relative
//! positions.
//!
//! A BERT without token types, whose positions are counted as RoBERTa's, and whose heads are
//! RoBERTa's; and a number is added to every score for how far two tokens stand apart, the same in
//! all layers.

use architecture::{Activation, Draft, Program, Task, Wire};

use crate::classes::{Classes, HEADS};
use crate::config::{ConfigError, Described, Sizes, config};
use crate::encoder::Embeddings;
use crate::model::models;
use crate::roberta::Heads;

/// The id that pads: transformers does not ask config.json for it here.
const PADDING: usize = 1;

/// The buckets that distances go to, and where the last begins: transformers asks config.json only
/// for how many rows the table has.
const BUCKETS: usize = 32;
const FARTHEST: usize = 128;

config! {
    /// The sizes and choices that make an MPNet.
    pub struct MpnetConfig, padding 1 {
        /// The number of tokens in the vocabulary.
        vocab_size: size = 30527,
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
        /// The rows of the table of positions: two more than the longest sequence has tokens.
        max_position_embeddings: size = 512,
        /// What LayerNorm adds to the variance.
        layer_norm_eps: eps = 1e-12,
        /// The rows of the table of relative positions; at least 32, which are all that are used.
        relative_attention_num_buckets: size = 32,
    }
}

models! {
    MpnetConfig,
    MpnetModel,
    MpnetForSequenceClassification = SequenceClassification,
    MpnetForTokenClassification = TokenClassification,
    MpnetForQuestionAnswering = QuestionAnswering,
    MpnetForMaskedLM = MaskedLm,
    MpnetForMultipleChoice = MultipleChoice,
}

impl Described for MpnetConfig {
    const NAME: &'static str = "MPNet";
    const BASE: &'static str = "mpnet";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("mpnet", "MPNet")];
    const CLASSES: Classes = HEADS;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("hidden_size", self.hidden_size),
            heads: ("num_attention_heads", self.num_attention_heads),
            layers: ("num_hidden_layers", self.num_hidden_layers),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let positions = self.max_position_embeddings;
        if positions <= PADDING + 1 {
            return Err(ConfigError::NoPositions { positions, pad_token_id: PADDING });
        }
        let found = self.relative_attention_num_buckets;
        if found < BUCKETS {
            return Err(ConfigError::Buckets { found, least: BUCKETS });
        }
        Ok(())
    }

    fn describe(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let (ids, mask) = (m.input("input_ids"), m.input("attention_mask"));
        let embeddings = Embeddings {
            words: self.vocab_size,
            types: None,
            positions: self.max_position_embeddings,
            padding: Some(PADDING),
            width: self.hidden_size,
            eps: self.layer_norm_eps,
        };
        let hidden = m.base(|m| {
            let embedded = m.module("embeddings", "MPNetEmbeddings", |m| embeddings.write(m, ids, None));
            m.module("encoder", "MPNetEncoder", |m| {
                let mask = m.rows(mask);
                let mask = m.mask(mask);
                let table = [self.relative_attention_num_buckets, self.num_attention_heads];
                let bias = m.relative_bias("relative_attention_bias", table, BUCKETS, FARTHEST);
                (0..self.num_hidden_layers).fold(embedded, |hidden, n| {
                    m.item("layer", n, "MPNetLayer", |m| self.layer(m, hidden, [mask, bias]))
                })
            })
        });
        let heads = Heads {
            class: "MPNet",
            words: self.vocab_size,
            labels: self.num_labels,
            eps: self.layer_norm_eps,
            tied: self.tie_word_embeddings,
        };
        heads.write(&mut m, task, has, hidden);
        m.finish()
    }
}

impl MpnetConfig {
    /// Self-attention and then a feed-forward network, each within a residual connection.
    fn layer(&self, m: &mut Draft, hidden: Wire, mask_and_bias: [Wire; 2]) -> Wire {
        let attended = m.module("attention", "MPNetAttention", |m| {
            let attended = m.module("attn", "MPNetSelfAttention", |m| {
                let parts = ["q", "k", "v"].map(|part| m.linear(part, hidden, self.hidden_size));
                let context = m.biased_attention(parts, mask_and_bias, self.num_attention_heads);
                m.linear("o", context, self.hidden_size)
            });
            let sum = m.sum([attended, hidden]);
            m.layer_norm("LayerNorm", sum, self.layer_norm_eps)
        });
        let wide = m.module("intermediate", "MPNetIntermediate", |m| {
            let wide = m.linear("dense", attended, self.intermediate_size);
            m.configured_activation(wide, self.hidden_act)
        });
        m.module("output", "MPNetOutput", |m| {
            let projected = m.linear("dense", wide, self.hidden_size);
            let sum = m.sum([projected, attended]);
            m.layer_norm("LayerNorm", sum, self.layer_norm_eps)
        })
    }
}
