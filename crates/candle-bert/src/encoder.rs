//! The encoder of BERT, which other families share: Vaswani et al. 2017
//! (<https://arxiv.org/abs/1706.03762>), with the layer norm after each residual connection.

use std::borrow::Cow;

use architecture::{Activation, Draft, TensorId, Wire};

/// The encoder and what stands on it, block by block. Families differ in what their classes are
/// called, and in what is put in.
pub(crate) struct Encoder {
    /// What the names of transformers' classes begin with.
    pub class: &'static str,
    /// The width of every hidden state.
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    /// The width between the feed-forward layers, and their activation.
    pub wide: usize,
    pub activation: Activation,
    pub eps: f64,
}

impl Encoder {
    /// The hidden state of every token after the last layer.
    pub fn layers(&self, m: &mut Draft, embedded: Wire, mask: Wire) -> Wire {
        m.module("encoder", self.class("Encoder"), |m| {
            let mask = m.rows(mask);
            let mask = m.mask(mask);
            (0..self.layers).fold(embedded, |hidden, n| {
                m.item("layer", n, self.class("Layer"), |m| self.layer(m, hidden, mask))
            })
        })
    }

    /// Self-attention and then a feed-forward network (Vaswani et al., sections 3.1 and 3.3), each
    /// within a residual connection.
    fn layer(&self, m: &mut Draft, hidden: Wire, mask: Wire) -> Wire {
        let attended = m.module("attention", self.class("Attention"), |m| {
            let context = m.module("self", self.class("SelfAttention"), |m| self.attention(m, hidden, mask));
            m.module("output", self.class("SelfOutput"), |m| self.sublayer_output(m, context, hidden))
        });
        let intermediate = m.module("intermediate", self.class("Intermediate"), |m| {
            let wide = m.linear("dense", attended, self.wide);
            m.configured_activation(wide, self.activation)
        });
        m.module("output", self.class("Output"), |m| self.sublayer_output(m, intermediate, attended))
    }

    /// MultiHead(h W, h W, h W) without its last projection (Vaswani et al., sections 3.2.1 and
    /// 3.2.2).
    fn attention(&self, m: &mut Draft, hidden: Wire, mask: Wire) -> Wire {
        let parts = ["query", "key", "value"].map(|part| m.linear(part, hidden, self.width));
        m.attention(parts, mask, self.heads)
    }

    /// How a sublayer ends: LayerNorm(residual + x W + b).
    fn sublayer_output(&self, m: &mut Draft, x: Wire, residual: Wire) -> Wire {
        let projected = m.linear("dense", x, self.width);
        let sum = m.sum([projected, residual]);
        m.layer_norm("LayerNorm", sum, self.eps)
    }

    /// See [`pooler`].
    pub fn pooler(&self, m: &mut Draft, hidden: Wire) -> Wire {
        pooler(m, self.class("Pooler"), hidden)
    }

    /// See [`features`].
    pub fn features(&self, m: &mut Draft, hidden: Wire, has: &dyn Fn(&str) -> bool) {
        features(m, self.class("Pooler"), hidden, has);
    }

    /// A class of the family.
    pub fn class(&self, ending: &str) -> String {
        format!("{}{ending}", self.class)
    }
}

/// The tables that embeddings are summed of, and the layer norm that follows.
pub(crate) struct Embeddings {
    pub words: usize,
    /// How many token types there are; none where the model is not told of them.
    pub types: Option<usize>,
    pub positions: usize,
    /// The id over whose tokens positions are not counted, where there is one.
    pub padding: Option<usize>,
    pub width: usize,
    pub eps: f64,
}

impl Embeddings {
    /// LayerNorm(word\[id\] + token_type\[type\] + position\[p\]) (Devlin et al. 2018, section 3
    /// and figure 2). `types` are there if the model is told of them.
    pub fn write(&self, m: &mut Draft, ids: Wire, types: Option<Wire>) -> Wire {
        // Transformers wrote the positions 0, 1, 2, … into checkpoints before version 4.31, and
        // reads them no longer.
        m.buffer("position_ids");
        let ids = m.rows(ids);
        let types = types.map(|types| m.rows(types));
        let word = m.embedding("word_embeddings", ids, self.words, self.width);
        let token_type = types
            .zip(self.types)
            .map(|(types, count)| m.embedding("token_type_embeddings", types, count, self.width));
        let rows = [self.positions, self.width];
        let position = match self.padding {
            Some(padding) => m.positions_by_padding("position_embeddings", ids, padding, rows),
            None => m.positions("position_embeddings", self.positions, self.width),
        };
        let sum = sum_of(m, word, [token_type, Some(position)]);
        m.layer_norm("LayerNorm", sum, self.eps)
    }
}

/// The sum of what words are embedded to, and of those parts that there are.
pub(crate) fn sum_of(m: &mut Draft, word: Wire, parts: [Option<Wire>; 2]) -> Wire {
    match parts {
        [Some(one), Some(other)] => m.sum([word, one, other]),
        [Some(one), None] | [None, Some(one)] => m.sum([word, one]),
        [None, None] => word,
    }
}

/// The first token through one more layer: tanh(h W + b).
pub(crate) fn pooler(m: &mut Draft, class: impl Into<Cow<'static, str>>, hidden: Wire) -> Wire {
    m.base(|m| {
        m.module("pooler", class, |m| {
            let first = m.token(hidden, 0);
            let dense = m.linear("dense", first, m.width(first));
            m.activation(dense, Activation::Tanh)
        })
    })
}

/// The hidden states, and the pooled token if the checkpoint has a pooler.
pub(crate) fn features(
    m: &mut Draft,
    class: impl Into<Cow<'static, str>>,
    hidden: Wire,
    has: &dyn Fn(&str) -> bool,
) {
    m.output("last_hidden_state", hidden);
    if ["pooler.dense.weight", "pooler.dense.bias"].into_iter().any(has) {
        let pooled = pooler(m, class, hidden);
        m.output("pooler_output", pooled);
    }
}

/// Labels for a text, of its first token, which goes through one more layer.
pub(crate) fn classification(
    m: &mut Draft,
    class: impl Into<Cow<'static, str>>,
    hidden: Wire,
    activation: Activation,
    labels: usize,
) -> Wire {
    m.module("classifier", class, |m| {
        let first = m.token(hidden, 0);
        let dense = m.linear("dense", first, m.width(first));
        let bent = m.activation(dense, activation);
        m.linear("out_proj", bent, labels)
    })
}

/// Where the answer begins and where it ends: the two rows of a linear layer's weight (Devlin et
/// al. 2018, section 4.2, where they are called S and E).
pub(crate) fn spans(m: &mut Draft, hidden: Wire) {
    two_features(m, "qa_outputs", hidden);
}

/// [`spans`], by a linear layer of another name.
pub(crate) fn two_features(m: &mut Draft, name: &str, hidden: Wire) {
    let both = m.linear(name, hidden, 2);
    let (start, end) = (m.feature(both, 0), m.feature(both, 1));
    m.output("start_logits", start);
    m.output("end_logits", end);
}

/// A number for each of several choices, of what each was pooled to.
pub(crate) fn choices(m: &mut Draft, pooled: Wire) -> Wire {
    let logits = m.linear("classifier", pooled, 1);
    m.unrows(logits)
}

/// The table of word embeddings, as most families call it.
pub(crate) const WORDS: &str = "embeddings.word_embeddings.weight";

/// The weight of a decoder, under its name: the table of word embeddings if the two are `tied`.
pub(crate) fn decoder(
    m: &mut Draft,
    table: &str,
    name: &str,
    [words, width]: [usize; 2],
    tied: bool,
) -> TensorId {
    match m.tensor(table).filter(|_| tied) {
        Some(table) => {
            m.copied(name, table, true);
            table
        }
        None => m.parameter(name, vec![words, width]),
    }
}
