//! gte, block by block, beside the paper (Zhang et al. 2024, <https://arxiv.org/abs/2407.19669>)
//! and the code that Alibaba-NLP publishes with its models: transformers has no class for it.
//!
//! A BERT whose queries and keys are turned (Su et al. 2021, <https://arxiv.org/abs/2104.09864>),
//! by angles that were made slower for longer texts, and whose feed-forward layers are gated
//! (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).

use architecture::{Activation, Draft, Program, Rotation, Task, Wire};

use crate::classes::{Classes, HEADS};
use crate::config::{ConfigError, Described, Fields, Sizes, check_pairs, config};
use crate::encoder::{WORDS, choices, decoder, features, pooler, spans, sum_of};
use crate::model::models;

config! {
    /// The sizes and choices that make a gte, whose `model_type` is `new`.
    pub struct GteConfig, padding 0 {
        /// The number of tokens in the vocabulary.
        vocab_size: size = 30528,
        /// The width of every hidden state.
        hidden_size: size = 768,
        /// The number of encoder layers.
        num_hidden_layers: size = 12,
        /// The number of attention heads in each layer. It divides `hidden_size`, into even parts.
        num_attention_heads: size = 12,
        /// The width of the feed-forward layers, gate and all else each.
        intermediate_size: size = 3072,
        /// The activation of the gate.
        hidden_act: activation = Activation::Gelu,
        /// The longest sequence that the model was made for, in tokens.
        max_position_embeddings: size = 2048,
        /// The number of segments a token may belong to; 0 where the model is told none.
        type_vocab_size: count = 1,
        /// What LayerNorm adds to the variance.
        layer_norm_eps: eps = 1e-12,
        /// How positions are told: `rope`, by angles, or `absolute`, by a table.
        position_embedding_type: name = "rope".into(),
        /// The base of the angles.
        rope_theta: base = 10_000.0,
        /// By how much angles were made slower; none where they were not.
        rope_scaling: ntk = None,
        /// Whether one projection gives queries, keys and values.
        pack_qkv: flag = true,
    }
}

models! {
    GteConfig,
    GteModel,
    GteForSequenceClassification = SequenceClassification,
    GteForTokenClassification = TokenClassification,
    GteForQuestionAnswering = QuestionAnswering,
    GteForMaskedLM = MaskedLm,
    GteForMultipleChoice = MultipleChoice,
}

impl Described for GteConfig {
    const NAME: &'static str = "gte";
    const BASE: &'static str = "new";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("new", "New")];
    const CLASSES: Classes = HEADS;
    const POSITIONS: &'static [&'static str] = &["rope", "absolute"];
    const IS_OF_TRANSFORMERS: bool = false;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("hidden_size", self.hidden_size),
            heads: ("num_attention_heads", self.num_attention_heads),
            layers: ("num_hidden_layers", self.num_hidden_layers),
        }
    }

    fn refuse(fields: &Fields) -> Result<(), ConfigError> {
        // Without padding, places behind a hole in the mask are others.
        let others = ["unpad_inputs", "logn_attention_scale", "logn_attention_clip1"];
        others.into_iter().try_for_each(|field| fields.not(field))?;
        fields.only("layer_norm_type", "layer_norm")
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.turns() { check_pairs(self.head_size() as f64) } else { Ok(()) }
    }

    fn describe(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let (ids, mask) = (m.input("input_ids"), m.input("attention_mask"));
        let types = (self.type_vocab_size > 0).then(|| m.input("token_type_ids"));
        let hidden = m.base(|m| {
            let mut angles = None;
            let embedded = m.module("embeddings", "NewEmbeddings", |m| {
                let (embedded, turned) = self.embeddings(m, ids, types);
                angles = turned;
                embedded
            });
            m.module("encoder", "NewEncoder", |m| {
                let mask = m.rows(mask);
                let mask = m.mask(mask);
                (0..self.num_hidden_layers).fold(embedded, |hidden, n| {
                    m.item("layer", n, "NewLayer", |m| self.layer(m, hidden, mask, angles))
                })
            })
        });
        self.head(&mut m, task, has, hidden);
        m.finish()
    }
}

impl GteConfig {
    /// Whether queries and keys are turned.
    fn turns(&self) -> bool {
        self.position_embedding_type == "rope"
    }

    /// The angles that all layers turn by.
    fn rotation(&self) -> Rotation {
        let size = self.head_size();
        // The base grows by the factor, and what that leaves out for the fastest pair all are made
        // slower by.
        let factor = self.rope_scaling.filter(|factor| *factor > 1.0);
        Rotation {
            size,
            base: self.rope_theta * factor.unwrap_or(1.0),
            slower: factor.map_or(1.0, |factor| factor.powf(2.0 / size as f64)),
            neighbours: false,
            positions: self.max_position_embeddings,
        }
    }

    /// What words, token types and positions are embedded to, and the angles, where layers turn.
    fn embeddings(&self, m: &mut Draft, ids: Wire, types: Option<Wire>) -> (Wire, Option<[Wire; 2]>) {
        let ids = m.rows(ids);
        let types = types.map(|types| m.rows(types));
        let words = m.embedding("word_embeddings", ids, self.vocab_size, self.hidden_size);
        let scaled = self.rope_scaling.is_some();
        let class = if scaled { "NTKScalingRotaryEmbedding" } else { "RotaryEmbedding" };
        let angles = self.turns().then(|| m.rotary("rotary_emb", class, self.rotation()));
        let types = types
            .map(|types| m.embedding("token_type_embeddings", types, self.type_vocab_size, self.hidden_size));
        let positions = (!self.turns())
            .then(|| m.positions("position_embeddings", self.max_position_embeddings, self.hidden_size));
        let sum = sum_of(m, words, [types, positions]);
        (m.layer_norm("LayerNorm", sum, self.layer_norm_eps), angles)
    }

    /// Self-attention and then a feed-forward network, each within a residual connection.
    fn layer(&self, m: &mut Draft, hidden: Wire, mask: Wire, angles: Option<[Wire; 2]>) -> Wire {
        let attended = m.module("attention", "NewAttention", |m| self.attention(m, hidden, mask, angles));
        let sum = m.sum([hidden, attended]);
        let attended = m.layer_norm("attn_ln", sum, self.layer_norm_eps);
        let fed = m.module("mlp", "NewGatedMLP", |m| {
            let both = m.linear_with("up_gate_proj", attended, 2 * self.intermediate_size, false);
            let [up, gate] = m.parts(both);
            let gate = m.configured_activation(gate, self.hidden_act);
            let gated = m.product([gate, up]);
            m.linear("down_proj", gated, self.hidden_size)
        });
        let sum = m.sum([attended, fed]);
        m.layer_norm("mlp_ln", sum, self.layer_norm_eps)
    }

    fn attention(&self, m: &mut Draft, x: Wire, mask: Wire, angles: Option<[Wire; 2]>) -> Wire {
        let [mut query, mut key, value] = if self.pack_qkv {
            let all = m.linear("qkv_proj", x, 3 * self.hidden_size);
            m.parts(all)
        } else {
            ["q_proj", "k_proj", "v_proj"].map(|name| m.linear(name, x, self.hidden_size))
        };
        if let Some(angles) = angles {
            [query, key] = [query, key].map(|x| m.rotate(x, angles, self.num_attention_heads));
        }
        let context = m.attention([query, key, value], mask, self.num_attention_heads);
        m.linear("o_proj", context, self.hidden_size)
    }

    /// What stands on the encoder for a task, and what the model gives.
    fn head(&self, m: &mut Draft, task: Task, has: &dyn Fn(&str) -> bool, hidden: Wire) {
        let logits = match task {
            Task::SequenceClassification => {
                let pooled = pooler(m, "NewPooler", hidden);
                m.linear("classifier", pooled, self.num_labels)
            }
            Task::MultipleChoice => {
                let pooled = pooler(m, "NewPooler", hidden);
                choices(m, pooled)
            }
            Task::TokenClassification => m.linear("classifier", hidden, self.num_labels),
            Task::QuestionAnswering => return spans(m, hidden),
            Task::MaskedLm => m.module("lm_head", "NewLMPredictionHead", |m| {
                let dense = m.linear("dense", hidden, self.hidden_size);
                let bent = m.configured_activation(dense, self.hidden_act);
                let normed = m.layer_norm("norm", bent, self.layer_norm_eps);
                let sizes = [self.vocab_size, self.hidden_size];
                let weight = decoder(m, WORDS, "decoder.weight", sizes, self.tie_word_embeddings);
                let bias = m.parameter("decoder.bias", vec![self.vocab_size]);
                m.linear_of("decoder", normed, weight, Some(bias))
            }),
            _ => return features(m, "NewPooler", hidden, has),
        };
        m.output("logits", logits);
    }
}
