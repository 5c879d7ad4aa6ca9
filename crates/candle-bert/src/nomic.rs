//! nomic-bert, block by block, beside the paper (Nussbaum et al. 2024,
//! <https://arxiv.org/abs/2402.01613>) and the code that nomic-ai publishes with its models:
//! transformers has no class for it.
//!
//! A BERT whose queries and keys are turned (Su et al. 2021, <https://arxiv.org/abs/2104.09864>),
//! and whose feed-forward layers are gated (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).

use architecture::{Activation, Draft, Program, Rotation, Task, Wire};

use crate::classes::Classes;
use crate::config::{ConfigError, Described, Fields, Sizes, check_pairs, config};
use crate::encoder::{WORDS, choices, decoder, pooler, spans, sum_of};
use crate::model::models;

/// The published code rounds the width of gated layers up to a multiple of this.
const WIDE_MULTIPLE: usize = 256;

/// The activations that are gates, and what each bends with.
const GATED: [(&str, Activation); 3] =
    [("glu", Activation::Sigmoid), ("swiglu", Activation::Silu), ("geglu", Activation::Gelu)];

/// The others. In layers each of them is the exact GELU, whatever its name; in the head of a masked
/// language model all but the first are the approximation by tanh.
const UNGATED: [&str; 4] = ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"];

config! {
    /// The sizes and choices that make a nomic-bert. It has GPT-2's names for them.
    pub struct NomicBertConfig, padding 0 {
        /// The number of tokens in the vocabulary. The table of words has so many rows, rounded up
        /// to a multiple of `pad_vocab_size_multiple`.
        vocab_size: size = 50257,
        /// The width of every hidden state.
        n_embd: size = 768,
        /// The number of encoder layers.
        n_layer: size = 12,
        /// The number of attention heads in each layer. It divides `n_embd`.
        n_head: size = 12,
        /// The width of the feed-forward layers; four times `n_embd` where nothing is said, and in
        /// gated ones 8/3 times. Of these it is rounded up to a multiple of 256.
        n_inner: own_size = None,
        /// The longest sequence that the model was made for, in tokens.
        n_positions: size = 1024,
        /// The activation: `glu`, `swiglu` and `geglu` are gates.
        activation_function: name = "gelu_new".into(),
        /// The number of segments a token may belong to; 0 where the model is told none.
        type_vocab_size: count = 2,
        /// What LayerNorm adds to the variance.
        layer_norm_epsilon: eps = 1e-5,
        /// Of what the number of rows of the table of words is a multiple.
        pad_vocab_size_multiple: size = 1,
        /// Which part of the features of each head is turned; where it is 0, positions have a
        /// table.
        rotary_emb_fraction: part = 0.0,
        /// The base of the angles.
        rotary_emb_base: base = 10_000.0,
        /// Whether features are turned with their neighbours; if not, half with half.
        rotary_emb_interleaved: flag = false,
        /// Whether the projections of attention have biases.
        qkv_proj_bias: flag = true,
        /// Whether the first feed-forward layer has a bias, and the head of a masked language
        /// model.
        mlp_fc1_bias: flag = true,
        /// Whether the last feed-forward layer has a bias.
        mlp_fc2_bias: flag = true,
    }
}

models! {
    NomicBertConfig,
    NomicBertModel,
    NomicBertForSequenceClassification = SequenceClassification,
    NomicBertForTokenClassification = TokenClassification,
    NomicBertForQuestionAnswering = QuestionAnswering,
    NomicBertForPreTraining = MaskedLm,
    NomicBertForMultipleChoice = MultipleChoice,
}

impl Described for NomicBertConfig {
    const NAME: &'static str = "nomic-bert";
    const BASE: &'static str = "bert";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("nomic_bert", "NomicBert")];
    const CLASSES: Classes = &[
        ("Model", Task::FeatureExtraction),
        ("ForPreTraining", Task::MaskedLm),
        ("ForSequenceClassification", Task::SequenceClassification),
        ("ForTokenClassification", Task::TokenClassification),
        ("ForQuestionAnswering", Task::QuestionAnswering),
        ("ForMultipleChoice", Task::MultipleChoice),
    ];
    const IS_OF_TRANSFORMERS: bool = false;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("n_embd", self.n_embd),
            heads: ("n_head", self.n_head),
            layers: ("n_layer", self.n_layer),
        }
    }

    fn refuse(fields: &Fields) -> Result<(), ConfigError> {
        let others = ["prenorm", "causal", "use_rms_norm", "parallel_block", "parallel_block_tied_norm"];
        others.into_iter().try_for_each(|field| fields.not(field))?;
        fields.none("rotary_emb_scale_base")?;
        // Layers of several experts, as in v2.
        if fields.size("moe_every_n_layers", 0)? > 0 {
            fields.none("moe_every_n_layers")?;
        }
        // Beyond what it was trained on, the base grows with the length of a text.
        if fields.size("n_positions", 1024)? > fields.size("max_trained_positions", 2048)? {
            fields.none("rotary_scaling_factor")?;
        }
        let known: Vec<&str> = GATED.iter().map(|(name, _)| *name).chain(UNGATED).collect();
        fields.one_of("activation_function", &known)
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_pairs(self.turned())
    }

    fn describe(&self, task: Task, _: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let (ids, mask) = (m.input("input_ids"), m.input("attention_mask"));
        let types = (self.type_vocab_size > 0).then(|| m.input("token_type_ids"));
        let hidden = m.base(|m| {
            let embedded = m.module("embeddings", "NomicBertEmbeddings", |m| self.embeddings(m, ids, types));
            let embedded = m.layer_norm("emb_ln", embedded, self.layer_norm_epsilon);
            m.module("encoder", "NomicBertEncoder", |m| {
                let mask = m.rows(mask);
                let mask = m.mask(mask);
                (0..self.n_layer).fold(embedded, |hidden, n| {
                    m.item("layers", n, "NomicBertBlock", |m| self.layer(m, hidden, mask))
                })
            })
        });
        self.head(&mut m, task, hidden);
        m.finish()
    }
}

impl NomicBertConfig {
    /// How many features of each head are turned.
    fn turned(&self) -> f64 {
        self.head_size() as f64 * self.rotary_emb_fraction
    }

    /// The gate, where layers have one.
    fn gate(&self) -> Option<Activation> {
        let gate = GATED.into_iter().find(|(name, _)| *name == self.activation_function);
        gate.map(|(_, activation)| activation)
    }

    fn words(&self) -> usize {
        self.vocab_size.next_multiple_of(self.pad_vocab_size_multiple)
    }

    fn embeddings(&self, m: &mut Draft, ids: Wire, types: Option<Wire>) -> Wire {
        let ids = m.rows(ids);
        let types = types.map(|types| m.rows(types));
        let words = m.embedding("word_embeddings", ids, self.words(), self.n_embd);
        let types =
            types.map(|types| m.embedding("token_type_embeddings", types, self.type_vocab_size, self.n_embd));
        let positions = (self.rotary_emb_fraction <= 0.0)
            .then(|| m.positions("position_embeddings", self.n_positions, self.n_embd));
        sum_of(m, words, [types, positions])
    }

    /// Self-attention and then a feed-forward network, each within a residual connection.
    fn layer(&self, m: &mut Draft, hidden: Wire, mask: Wire) -> Wire {
        let eps = self.layer_norm_epsilon;
        let attended = m.module("attn", "NomicBertAttention", |m| self.attention(m, hidden, mask));
        let sum = m.sum([attended, hidden]);
        let attended = m.layer_norm("norm1", sum, eps);
        let fed = self.feed_forward(m, attended);
        let sum = m.sum([fed, attended]);
        m.layer_norm("norm2", sum, eps)
    }

    fn attention(&self, m: &mut Draft, x: Wire, mask: Wire) -> Wire {
        let all = m.linear_with("Wqkv", x, 3 * self.n_embd, self.qkv_proj_bias);
        let [mut query, mut key, value] = m.parts(all);
        if self.rotary_emb_fraction > 0.0 {
            let rotation = Rotation {
                size: self.turned() as usize,
                base: self.rotary_emb_base,
                slower: 1.0,
                neighbours: self.rotary_emb_interleaved,
                positions: self.n_positions,
            };
            let angles = m.rotary("rotary_emb", "NomicBertRotaryEmbedding", rotation);
            [query, key] = [query, key].map(|x| m.rotate(x, angles, self.n_head));
        }
        let context = m.attention([query, key, value], mask, self.n_head);
        m.linear_with("out_proj", context, self.n_embd, self.qkv_proj_bias)
    }

    fn feed_forward(&self, m: &mut Draft, x: Wire) -> Wire {
        let Some(gate) = self.gate() else {
            return m.module("mlp", "NomicBertMLP", |m| {
                let wide =
                    m.linear_with("fc1", x, self.n_inner.unwrap_or(4 * self.n_embd), self.mlp_fc1_bias);
                let bent = m.configured_activation(wide, Activation::Gelu);
                m.linear_with("fc2", bent, self.n_embd, self.mlp_fc2_bias)
            });
        };
        // It is published under this name.
        m.module("mlp", "NomciBertGatedMLP", |m| {
            let width = self.n_inner.unwrap_or(8 * self.n_embd / 3).next_multiple_of(WIDE_MULTIPLE);
            let [wide, bent] = ["fc11", "fc12"].map(|name| m.linear_with(name, x, width, self.mlp_fc1_bias));
            let bent = m.configured_activation(bent, gate);
            let gated = m.product([wide, bent]);
            m.linear_with("fc2", gated, self.n_embd, self.mlp_fc2_bias)
        })
    }

    /// What stands on the encoder for a task, and what the model gives.
    fn head(&self, m: &mut Draft, task: Task, hidden: Wire) {
        let logits = match task {
            Task::SequenceClassification => {
                let pooled = pooler(m, "NomicBertPooler", hidden);
                m.linear("classifier", pooled, self.num_labels)
            }
            Task::MultipleChoice => {
                let pooled = pooler(m, "NomicBertPooler", hidden);
                choices(m, pooled)
            }
            Task::TokenClassification => m.linear("classifier", hidden, self.num_labels),
            Task::QuestionAnswering => return spans(m, hidden),
            Task::MaskedLm => m.module("cls", "NomicBertPreTrainingHeads", |m| {
                m.module("predictions", "NomicBertLMPredictionHead", |m| self.predictions(m, hidden))
            }),
            _ => return m.output("last_hidden_state", hidden),
        };
        m.output("logits", logits);
    }

    /// LayerNorm(act(h W + b)) Eᵀ + c, with the table of word embeddings E.
    fn predictions(&self, m: &mut Draft, hidden: Wire) -> Wire {
        let activation = match self.activation_function.as_str() {
            "swiglu" => Activation::Silu,
            "glu" | "geglu" | "gelu" => Activation::Gelu,
            _ => Activation::GeluTanh,
        };
        let transformed = m.module("transform", "NomicBertPredictionHeadTransform", |m| {
            let dense = m.linear_with("dense", hidden, self.n_embd, self.mlp_fc1_bias);
            let bent = m.configured_activation(dense, activation);
            m.layer_norm("layer_norm", bent, self.layer_norm_epsilon)
        });
        let weight = decoder(m, WORDS, "decoder.weight", [self.words(), self.n_embd], true);
        let bias = self.mlp_fc1_bias.then(|| m.parameter("decoder.bias", vec![self.words()]));
        m.linear_of("decoder", transformed, weight, bias)
    }
}
