//! The classes that transformers makes a module of.

use candle_bert::Task;

/// The class of the encoder.
const ENCODER: &str = "BertModel";

/// The classes on the way to a module, as hierarchy-preserving tags have them: `encoder.layer.0.attention.self.query` is part of
/// `/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfAttention`, and where the model has a head, all of that is part of the head's class.
///
/// Only transformers' own classes are named: lists of modules, and PyTorch's own modules, such as `query`, are left out.
pub(crate) fn hierarchy_tag(task: Task, module: &str) -> String {
    let mut classes = vec![task.architecture().to_string()];
    if task != Task::FeatureExtraction
        && ["embeddings", "encoder", "pooler"].iter().any(|part| module.starts_with(part))
    {
        classes.push(ENCODER.into());
    }
    let mut parent = "";
    for word in module.split('.') {
        let class = match (parent, word) {
            ("", "embeddings") => "BertEmbeddings",
            ("", "encoder") => "BertEncoder",
            ("", "pooler") => "BertPooler",
            ("", "cls") if task == Task::NextSentencePrediction => "BertOnlyNSPHead",
            ("", "cls") => "BertOnlyMLMHead",
            ("cls", "predictions") => "BertLMPredictionHead",
            ("predictions", "transform") => "BertPredictionHeadTransform",
            ("layer", _) => "BertLayer",
            ("attention", "self") => "BertSelfAttention",
            ("attention", "output") => "BertSelfOutput",
            (_, "attention") => "BertAttention",
            (_, "intermediate") => "BertIntermediate",
            (_, "output") => "BertOutput",
            _ => "",
        };
        match (class, parent) {
            ("", _) => {}
            (class, "layer") => classes.push(format!("{class}.{word}")),
            (class, _) => classes.push(class.into()),
        }
        parent = word;
    }
    format!("/{}", classes.join("/"))
}

/// A module's path as the names of nodes have it: `/encoder/layer.0/attention/self`, where a list and the number in it stay together.
pub(crate) fn scope(module: &str) -> String {
    let mut scope = String::new();
    for word in module.split('.') {
        scope.push(if word.starts_with(|c: char| c.is_ascii_digit()) { '.' } else { '/' });
        scope.push_str(word);
    }
    scope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_transformers() {
        for (module, tag) in [
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
            assert_eq!(hierarchy_tag(Task::FeatureExtraction, module), tag, "{module}");
            let beneath = format!("/BertForMaskedLM{tag}");
            assert_eq!(hierarchy_tag(Task::MaskedLm, module), beneath, "{module}");
        }
        for (task, module, tag) in [
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
            assert_eq!(hierarchy_tag(task, module), tag, "{module}");
        }
    }

    #[test]
    fn scopes_are_those_of_exporters() {
        assert_eq!(scope("encoder.layer.10.attention.self.query"), "/encoder/layer.10/attention/self/query");
        assert_eq!(scope("pooler"), "/pooler");
    }
}
