//! BERT, block by block, beside the paper: Devlin et al. 2018
//! (<https://arxiv.org/abs/1810.04805>).
//!
//! This is the one place that knows where its modules stand and what they are called. Everything
//! else follows from the program that it writes.

use architecture::{Activation, Draft, Program, Task, Wire};

use crate::classes::{Classes, HEADS_OF_BERT};
use crate::config::{Described, Sizes, config};
use crate::encoder::{Embeddings, Encoder, WORDS, choices, decoder, spans};
use crate::heads::Head;
use crate::model::models;
use crate::{EncoderFor, EncoderForTask, EncoderOutput};

config! {
    /// The sizes and choices that make a BERT (Devlin et al. 2018, section 3: *L* layers, hidden
    /// size *H*, *A* attention heads).
    pub struct BertConfig, padding 0 {
        /// The number of tokens in the vocabulary.
        vocab_size: size = 30522,
        /// The width of every hidden state: *H*.
        hidden_size: size = 768,
        /// The number of encoder layers: *L*.
        num_hidden_layers: size = 12,
        /// The number of attention heads in each layer: *A*. It divides `hidden_size`.
        num_attention_heads: size = 12,
        /// The width of the feed-forward layers: 4 *H* in the paper.
        intermediate_size: size = 3072,
        /// The activation between the feed-forward layers.
        hidden_act: activation = Activation::Gelu,
        /// The longest sequence there are position embeddings for, in tokens.
        max_position_embeddings: size = 512,
        /// The number of segments a token may belong to.
        type_vocab_size: size = 2,
        /// What LayerNorm adds to the variance.
        layer_norm_eps: eps = 1e-12,
    }
}

models! {
    BertConfig,
    BertModel,
    BertForSequenceClassification = SequenceClassification,
    BertForTokenClassification = TokenClassification,
    BertForQuestionAnswering = QuestionAnswering,
    BertForMaskedLM = MaskedLm,
    BertForMultipleChoice = MultipleChoice,
    BertForNextSentencePrediction = NextSentencePrediction,
}

/// A [`BertModel`] with any head.
pub type BertFor<H> = EncoderFor<BertConfig, H>;

/// A BERT for a task that is known only when the program runs.
pub type BertForTask = EncoderForTask<BertConfig>;

/// What a [`BertModel`] computes.
pub type BertOutput = EncoderOutput;

impl<H: Head> BertFor<H> {
    /// The encoder, with its pooler if the head takes one.
    pub fn bert(&self) -> &BertModel {
        self.encoder()
    }
}

impl BertForTask {
    /// The encoder, with its pooler if the head takes one.
    pub fn bert(&self) -> &BertModel {
        self.encoder()
    }
}

impl Described for BertConfig {
    const NAME: &'static str = "BERT";
    const BASE: &'static str = "bert";
    const MODEL_TYPES: &'static [(&'static str, &'static str)] = &[("bert", "Bert")];
    const CLASSES: Classes = HEADS_OF_BERT;

    fn sizes(&self) -> Sizes {
        Sizes {
            hidden: ("hidden_size", self.hidden_size),
            heads: ("num_attention_heads", self.num_attention_heads),
            layers: ("num_hidden_layers", self.num_hidden_layers),
        }
    }

    fn describe(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Program {
        let mut m = self.draft(task);
        let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(|name| m.input(name));
        let encoder = Encoder {
            class: "Bert",
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
            width: self.hidden_size,
            eps: self.layer_norm_eps,
        };
        let hidden = m.base(|m| {
            let embedded =
                m.module("embeddings", "BertEmbeddings", |m| embeddings.write(m, ids, Some(types)));
            encoder.layers(m, embedded, mask)
        });
        self.head(&mut m, &encoder, task, has, hidden);
        m.finish()
    }
}

impl BertConfig {
    /// What stands on the encoder for a task (Devlin et al., section 4), and what the model gives.
    ///
    /// The pooler: what they call *C* (section 3.1), the last hidden state of the first token,
    /// `[CLS]`, goes through one more layer, which was trained on next sentence prediction.
    fn head(&self, m: &mut Draft, encoder: &Encoder, task: Task, has: &dyn Fn(&str) -> bool, hidden: Wire) {
        let logits = match task {
            Task::SequenceClassification => {
                let pooled = encoder.pooler(m, hidden);
                m.linear("classifier", pooled, self.num_labels)
            }
            Task::MultipleChoice => {
                let pooled = encoder.pooler(m, hidden);
                choices(m, pooled)
            }
            Task::NextSentencePrediction => {
                let pooled = encoder.pooler(m, hidden);
                m.module("cls", "BertOnlyNSPHead", |m| m.linear("seq_relationship", pooled, 2))
            }
            Task::TokenClassification => m.linear("classifier", hidden, self.num_labels),
            Task::QuestionAnswering => return spans(m, hidden),
            Task::MaskedLm => m.module("cls", "BertOnlyMLMHead", |m| {
                m.module("predictions", "BertLMPredictionHead", |m| self.predictions(m, hidden))
            }),
            // Features, and every task that there may be else.
            _ => return encoder.features(m, hidden, has),
        };
        m.output("logits", logits);
    }

    /// LayerNorm(act(h W + b)) Eᵀ + c, with the table of word embeddings E, unless there is a
    /// decoder of its own (section 3.1, task 1).
    fn predictions(&self, m: &mut Draft, hidden: Wire) -> Wire {
        let transformed = m.module("transform", "BertPredictionHeadTransform", |m| {
            let dense = m.linear("dense", hidden, self.hidden_size);
            let bent = m.configured_activation(dense, self.hidden_act);
            m.layer_norm("LayerNorm", bent, self.layer_norm_eps)
        });
        let sizes = [self.vocab_size, self.hidden_size];
        let weight = decoder(m, WORDS, "decoder.weight", sizes, self.tie_word_embeddings);
        // Checkpoints may have a copy of the bias as `decoder.bias`; like transformers, this one is
        // taken.
        let bias = m.parameter("bias", vec![self.vocab_size]);
        m.copied("decoder.bias", bias, false);
        m.linear_of("decoder", transformed, weight, Some(bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_transformers() {
        let tag = |task, module: &str| BertConfig::default().describe(task, &|_| true).hierarchy_tag(module);
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
