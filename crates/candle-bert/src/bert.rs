//! BERT, block by block, beside the papers: Devlin et al. 2018 (<https://arxiv.org/abs/1810.04805>)
//! and, for the encoder, Vaswani et al. 2017 (<https://arxiv.org/abs/1706.03762>).
//!
//! This is the one place that knows where its modules stand and what they are called. Everything
//! else follows from the program that it writes.

use architecture::{Activation, Draft, Program, Task, Wire};

use crate::BertConfig;
use crate::task::class;

/// The model of a task. Without a head it has a pooler if it is said so.
pub(crate) fn bert(config: &BertConfig, task: Task, pooler: bool) -> Program {
    let mut m = Draft::new(class(task), class(Task::FeatureExtraction), task);
    let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(|name| m.input(name));
    let hidden = m.base(|m| encoder(m, config, [ids, types], mask));
    head(&mut m, config, task, pooler, hidden);
    m.finish()
}

/// The hidden state of every token after the last layer.
fn encoder(m: &mut Draft, config: &BertConfig, ids_and_types: [Wire; 2], mask: Wire) -> Wire {
    let embedded = m.module("embeddings", "BertEmbeddings", |m| embeddings(m, config, ids_and_types));
    m.module("encoder", "BertEncoder", |m| {
        let mask = m.rows(mask);
        let mask = m.mask(mask);
        (0..config.num_hidden_layers)
            .fold(embedded, |hidden, n| m.item("layer", n, "BertLayer", |m| layer(m, config, hidden, mask)))
    })
}

/// LayerNorm(word\[id\] + token_type\[type\] + position\[i\]) (Devlin et al., section 3 and figure
/// 2).
fn embeddings(m: &mut Draft, config: &BertConfig, [ids, types]: [Wire; 2]) -> Wire {
    let hidden = config.hidden_size;
    // Transformers wrote the positions 0, 1, 2, … into checkpoints before version 4.31, and reads
    // them no longer.
    m.buffer("position_ids");
    let (ids, types) = (m.rows(ids), m.rows(types));
    let word = m.embedding("word_embeddings", ids, config.vocab_size, hidden);
    let token_type = m.embedding("token_type_embeddings", types, config.type_vocab_size, hidden);
    let position = m.positions("position_embeddings", config.max_position_embeddings, hidden);
    let sum = m.sum([word, token_type, position]);
    m.layer_norm("LayerNorm", sum, config.layer_norm_eps)
}

/// Self-attention and then a feed-forward network (Vaswani et al., sections 3.1 and 3.3), each
/// within a residual connection.
fn layer(m: &mut Draft, config: &BertConfig, hidden: Wire, mask: Wire) -> Wire {
    let attended = m.module("attention", "BertAttention", |m| {
        let context = m.module("self", "BertSelfAttention", |m| self_attention(m, config, hidden, mask));
        m.module("output", "BertSelfOutput", |m| sublayer_output(m, config, context, hidden))
    });
    let intermediate = m.module("intermediate", "BertIntermediate", |m| {
        let wide = m.linear("dense", attended, config.intermediate_size);
        m.configured_activation(wide, config.hidden_act)
    });
    m.module("output", "BertOutput", |m| sublayer_output(m, config, intermediate, attended))
}

/// MultiHead(h W, h W, h W) without its last projection (Vaswani et al., sections 3.2.1 and 3.2.2).
fn self_attention(m: &mut Draft, config: &BertConfig, hidden: Wire, mask: Wire) -> Wire {
    let query = m.linear("query", hidden, config.hidden_size);
    let key = m.linear("key", hidden, config.hidden_size);
    let value = m.linear("value", hidden, config.hidden_size);
    m.attention([query, key, value], mask, config.num_attention_heads)
}

/// How a sublayer ends: LayerNorm(residual + x W + b).
fn sublayer_output(m: &mut Draft, config: &BertConfig, x: Wire, residual: Wire) -> Wire {
    let projected = m.linear("dense", x, config.hidden_size);
    let sum = m.sum([projected, residual]);
    m.layer_norm("LayerNorm", sum, config.layer_norm_eps)
}

/// What Devlin et al. (section 3.1) call *C*, the last hidden state of the first token, `[CLS]`,
/// goes through one more layer, which was trained on next sentence prediction: tanh(C W + b).
fn pooler(m: &mut Draft, config: &BertConfig, hidden: Wire) -> Wire {
    m.base(|m| {
        m.module("pooler", "BertPooler", |m| {
            let first = m.token(hidden, 0);
            let dense = m.linear("dense", first, config.hidden_size);
            m.activation(dense, Activation::Tanh)
        })
    })
}

/// What stands on the encoder for a task (Devlin et al., section 4), and what the model gives.
fn head(m: &mut Draft, config: &BertConfig, task: Task, has_pooler: bool, hidden: Wire) {
    let logits = match task {
        Task::SequenceClassification => {
            let pooled = pooler(m, config, hidden);
            m.linear("classifier", pooled, config.num_labels)
        }
        Task::MultipleChoice => {
            let pooled = pooler(m, config, hidden);
            let logits = m.linear("classifier", pooled, 1);
            m.unrows(logits)
        }
        Task::NextSentencePrediction => {
            let pooled = pooler(m, config, hidden);
            m.module("cls", "BertOnlyNSPHead", |m| m.linear("seq_relationship", pooled, 2))
        }
        Task::TokenClassification => m.linear("classifier", hidden, config.num_labels),
        // Section 4.2, where the two rows of its weight are called S and E.
        Task::QuestionAnswering => {
            let both = m.linear("qa_outputs", hidden, 2);
            let (start, end) = (m.feature(both, 0), m.feature(both, 1));
            m.output("start_logits", start);
            return m.output("end_logits", end);
        }
        Task::MaskedLm => m.module("cls", "BertOnlyMLMHead", |m| {
            m.module("predictions", "BertLMPredictionHead", |m| predictions(m, config, hidden))
        }),
        // Features, and every task that there may be else.
        _ => {
            m.output("last_hidden_state", hidden);
            if has_pooler {
                let pooled = pooler(m, config, hidden);
                m.output("pooler_output", pooled);
            }
            return;
        }
    };
    m.output("logits", logits);
}

/// LayerNorm(act(h W + b)) Eᵀ + c, with the table of word embeddings E, unless there is a decoder
/// of its own (section 3.1, task 1).
fn predictions(m: &mut Draft, config: &BertConfig, hidden: Wire) -> Wire {
    let transformed = m.module("transform", "BertPredictionHeadTransform", |m| {
        let dense = m.linear("dense", hidden, config.hidden_size);
        let bent = m.configured_activation(dense, config.hidden_act);
        m.layer_norm("LayerNorm", bent, config.layer_norm_eps)
    });
    let tied = m.tensor("embeddings.word_embeddings.weight").filter(|_| config.tie_word_embeddings);
    let weight = match tied {
        Some(words) => {
            m.copied("decoder.weight", words, true);
            words
        }
        None => m.parameter("decoder.weight", vec![config.vocab_size, config.hidden_size]),
    };
    // Checkpoints may have a copy of the bias as `decoder.bias`; like transformers, this one is
    // taken.
    let bias = m.parameter("bias", vec![config.vocab_size]);
    m.copied("decoder.bias", bias, false);
    m.linear_of("decoder", transformed, weight, bias)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_transformers() {
        let tag = |task, module: &str| bert(&BertConfig::default(), task, true).hierarchy_tag(module);
        for (module, tag_) in [
            ("embeddings.word_embeddings", "/BertModel/BertEmbeddings"),
            ("embeddings.LayerNorm", "/BertModel/BertEmbeddings"),
            ("encoder", "/BertModel/BertEncoder"),
            (
                "encoder.layer.11.attention.self.query",
                "/BertModel/BertEncoder/BertLayer.11/BertAttention/BertSelfAttention",
            ),
            (
                "encoder.layer.0.attention.output.dense",
                "/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfOutput",
            ),
            ("encoder.layer.0.intermediate", "/BertModel/BertEncoder/BertLayer.0/BertIntermediate"),
            ("encoder.layer.0.output.LayerNorm", "/BertModel/BertEncoder/BertLayer.0/BertOutput"),
            ("pooler.dense", "/BertModel/BertPooler"),
        ] {
            assert_eq!(tag(Task::FeatureExtraction, module), tag_, "{module}");
            let beneath = format!("/BertForSequenceClassification{tag_}");
            assert_eq!(tag(Task::SequenceClassification, module), beneath, "{module}");
        }
        for (task, module, tag_) in [
            (Task::SequenceClassification, "classifier", "/BertForSequenceClassification"),
            (Task::QuestionAnswering, "qa_outputs", "/BertForQuestionAnswering"),
            (
                Task::MaskedLm,
                "cls.predictions.transform.LayerNorm",
                "/BertForMaskedLM/BertOnlyMLMHead/BertLMPredictionHead/BertPredictionHeadTransform",
            ),
            (
                Task::MaskedLm,
                "cls.predictions.decoder",
                "/BertForMaskedLM/BertOnlyMLMHead/BertLMPredictionHead",
            ),
            (
                Task::NextSentencePrediction,
                "cls.seq_relationship",
                "/BertForNextSentencePrediction/BertOnlyNSPHead",
            ),
        ] {
            assert_eq!(tag(task, module), tag_, "{module}");
        }
    }
}
