//! ModernBERT, block by block, beside the papers: Warner et al. 2024
//! (<https://arxiv.org/abs/2412.13663>), Su et al. 2021 (<https://arxiv.org/abs/2104.09864>) for
//! its rotary positions, and Shazeer 2020 (<https://arxiv.org/abs/2002.05202>) for its gates.
//!
//! A layer norm stands before each sublayer and none behind it. Positions are angles, by which
//! queries and keys are turned. One layer in several sees the whole text, the others a window.

use architecture::{Activation, Draft, Program, Rotation, Task, Wire};

use crate::classes::{Classes, HEADS};
use crate::config::{ConfigError, Described, Fields, Sizes, check_pairs, config};
use crate::encoder::{decoder, two_features};
use crate::model::models;

config! {
    /// The sizes and choices that make a ModernBERT.
    pub struct ModernBertConfig, padding 50283 {
        /// The number of tokens in the vocabulary.
        vocab_size: size = 50368,
        /// The width of every hidden state.
        hidden_size: size = 768,
        /// The number of encoder layers.
        num_hidden_layers: size = 22,
        /// The number of attention heads in each layer. It divides `hidden_size`, into even parts.
        num_attention_heads: size = 12,
        /// The width of the feed-forward layers, gate and all else each.
        intermediate_size: size = 1152,
        /// The activation of the gate.
        hidden_activation: activation = Activation::Gelu,
        /// The longest sequence that the model was made for, in tokens.
        max_position_embeddings: size = 8192,
        /// What LayerNorm adds to the variance.
        norm_eps: eps = 1e-5,
        /// Whether layer norms have biases.
        norm_bias: flag = false,
        /// Whether the projections of attention have biases.
        attention_bias: flag = false,
        /// Whether feed-forward layers have biases.
        mlp_bias: flag = false,
        /// Every so many layers one sees the whole text, the first among them.
        global_attn_every_n_layers: size = 3,
        /// The window of the others: half of it in either direction.
        local_attention: size = 128,
        /// The base of the angles in layers that see the whole text.
        global_rope_theta: base = 160_000.0,
        /// The base in the others; none where it is the same.
        local_rope_theta: own_base = Some(10_000.0),
        /// How a text becomes one vector for a classifier: `cls` or `mean`.
        classifier_pooling: name = "cls".into(),
        /// The activation of heads.
        classifier_activation: activation = Activation::Gelu,
        /// Whether the dense layer of heads has a bias.
        classifier_bias: flag = false,
        /// Whether the decoder of a masked language model has a bias.
        decoder_bias: flag = true,
    }
}

models! {
    ModernBertConfig,
    ModernBertModel,
    ModernBertForSequenceClassification = SequenceClassification,
    ModernBertForTokenClassification = TokenClassification,
    ModernBertForQuestionAnswering = QuestionAnswering,
    ModernBertForMaskedLM = MaskedLm,
    ModernBertForMultipleChoice = MultipleChoice,
}

impl Described for ModernBertConfig {
    const NAME: &'static str = "ModernBERT";
    const BASE: &'static str = "model";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("modernbert", "ModernBert")];
    const CLASSES: Classes = HEADS;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("hidden_size", self.hidden_size),
            heads: ("num_attention_heads", self.num_attention_heads),
            layers: ("num_hidden_layers", self.num_hidden_layers),
        }
    }

    fn refuse(fields: &Fields) -> Result<(), ConfigError> {
        fields.one_of("classifier_pooling", &["cls", "mean"])
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_pairs(self.head_size() as f64)
    }

    fn describe(&self, task: Task, _: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let (ids, mask) = (m.input("input_ids"), m.input("attention_mask"));
        let ids = m.rows(ids);
        let mask = m.rows(mask);
        let hidden = m.base(|m| {
            let embedded = m.module("embeddings", "ModernBertEmbeddings", |m| {
                let words = m.embedding("tok_embeddings", ids, self.vocab_size, self.hidden_size);
                self.norm(m, "norm", words)
            });
            let (whole, window) = (m.mask(mask), m.window(mask, self.local_attention / 2));
            let encoded = (0..self.num_hidden_layers).fold(embedded, |hidden, n| {
                let (mask, base) = match n % self.global_attn_every_n_layers {
                    0 => (whole, self.global_rope_theta),
                    _ => (window, self.local_rope_theta.unwrap_or(self.global_rope_theta)),
                };
                m.item("layers", n, "ModernBertEncoderLayer", |m| self.layer(m, hidden, mask, (n, base)))
            });
            self.norm(m, "final_norm", encoded)
        });
        self.head(&mut m, task, hidden, mask);
        m.finish()
    }
}

impl ModernBertConfig {
    fn norm(&self, m: &mut Draft, name: &str, x: Wire) -> Wire {
        m.layer_norm_with(name, x, self.norm_eps, self.norm_bias)
    }

    /// Self-attention and then a feed-forward network, each of what a layer norm gives, and each
    /// within a residual connection. The embeddings were normalised already.
    fn layer(&self, m: &mut Draft, hidden: Wire, mask: Wire, (n, base): (usize, f64)) -> Wire {
        let normed = if n == 0 { hidden } else { self.norm(m, "attn_norm", hidden) };
        let attended = m.module("attn", "ModernBertAttention", |m| self.attention(m, normed, mask, base));
        let sum = m.sum([hidden, attended]);
        let normed = self.norm(m, "mlp_norm", sum);
        let fed = m.module("mlp", "ModernBertMLP", |m| {
            let both = m.linear_with("Wi", normed, 2 * self.intermediate_size, self.mlp_bias);
            let [gate, wide] = m.parts(both);
            let gate = m.configured_activation(gate, self.hidden_activation);
            let gated = m.product([gate, wide]);
            m.linear_with("Wo", gated, self.hidden_size, self.mlp_bias)
        });
        m.sum([sum, fed])
    }

    /// Attention of queries and keys that were turned.
    fn attention(&self, m: &mut Draft, x: Wire, mask: Wire, base: f64) -> Wire {
        let all = m.linear_with("Wqkv", x, 3 * self.hidden_size, self.attention_bias);
        let [query, key, value] = m.parts(all);
        let size = self.head_size();
        let positions = self.max_position_embeddings;
        let rotation = Rotation { size, base, slower: 1.0, neighbours: false, positions };
        let angles = m.rotary("rotary_emb", "ModernBertRotaryEmbedding", rotation);
        let [query, key] = [query, key].map(|x| m.rotate(x, angles, self.num_attention_heads));
        let context = m.attention([query, key, value], mask, self.num_attention_heads);
        m.linear_with("Wo", context, self.hidden_size, self.attention_bias)
    }

    /// What stands on the encoder for a task, and what the model gives.
    fn head(&self, m: &mut Draft, task: Task, hidden: Wire, mask: Wire) {
        let logits = match task {
            Task::SequenceClassification => {
                let pooled = if self.pools_mean() { m.mean(hidden, mask) } else { m.token(hidden, 0) };
                let bent = self.prediction(m, pooled);
                m.linear("classifier", bent, self.num_labels)
            }
            Task::MultipleChoice => {
                // A text may be padded on the left.
                let pooled =
                    if self.pools_mean() { m.mean(hidden, mask) } else { m.first_shown(hidden, mask) };
                let bent = self.prediction(m, pooled);
                let logits = m.linear("classifier", bent, 1);
                m.unrows(logits)
            }
            Task::TokenClassification => {
                let bent = self.prediction(m, hidden);
                m.linear("classifier", bent, self.num_labels)
            }
            Task::QuestionAnswering => {
                let bent = self.prediction(m, hidden);
                return two_features(m, "classifier", bent);
            }
            Task::MaskedLm => {
                let bent = self.prediction(m, hidden);
                let sizes = [self.vocab_size, self.hidden_size];
                let table = "embeddings.tok_embeddings.weight";
                let weight = decoder(m, table, "decoder.weight", sizes, self.tie_word_embeddings);
                let bias = self.decoder_bias.then(|| m.parameter("decoder.bias", vec![self.vocab_size]));
                m.linear_of("decoder", bent, weight, bias)
            }
            _ => return m.output("last_hidden_state", hidden),
        };
        m.output("logits", logits);
    }

    fn pools_mean(&self) -> bool {
        self.classifier_pooling == "mean"
    }

    /// LayerNorm(act(x W + b)).
    fn prediction(&self, m: &mut Draft, x: Wire) -> Wire {
        m.module("head", "ModernBertPredictionHead", |m| {
            let dense = m.linear_with("dense", x, self.hidden_size, self.classifier_bias);
            let bent = m.configured_activation(dense, self.classifier_activation);
            self.norm(m, "norm", bent)
        })
    }
}
