//! The classes of transformers, and the task that each is for.

use std::borrow::Cow;

use architecture::{Task, TaskError};

/// How the names of classes end after the family's own name, and the task that each is for. The
/// first for a task is the class that computes it.
pub(crate) type Classes = &'static [(&'static str, Task)];

/// The heads that nearly every family has.
pub(crate) const HEADS: Classes = &[
    ("Model", Task::FeatureExtraction),
    ("ForSequenceClassification", Task::SequenceClassification),
    ("ForTokenClassification", Task::TokenClassification),
    ("ForQuestionAnswering", Task::QuestionAnswering),
    ("ForMaskedLM", Task::MaskedLm),
    ("ForMultipleChoice", Task::MultipleChoice),
];

/// BERT's. A `BertForPreTraining` has two heads, and no task has both. It counts as its encoder,
/// which is what such checkpoints are loaded for as they are; either head can be asked for by its
/// task's name.
pub(crate) const HEADS_OF_BERT: Classes = &[
    ("Model", Task::FeatureExtraction),
    ("ForPreTraining", Task::FeatureExtraction),
    ("ForSequenceClassification", Task::SequenceClassification),
    ("ForTokenClassification", Task::TokenClassification),
    ("ForQuestionAnswering", Task::QuestionAnswering),
    ("ForMaskedLM", Task::MaskedLm),
    ("ForMultipleChoice", Task::MultipleChoice),
    ("ForNextSentencePrediction", Task::NextSentencePrediction),
];

/// Those of a family that was trained with heads which are no task's: the replaced tokens of
/// ELECTRA, the order of sentences of ALBERT. Such a model counts as its encoder.
pub(crate) const HEADS_AND_PRETRAINING: Classes = &[
    ("Model", Task::FeatureExtraction),
    ("ForPreTraining", Task::FeatureExtraction),
    ("ForSequenceClassification", Task::SequenceClassification),
    ("ForTokenClassification", Task::TokenClassification),
    ("ForQuestionAnswering", Task::QuestionAnswering),
    ("ForMaskedLM", Task::MaskedLm),
    ("ForMultipleChoice", Task::MultipleChoice),
];

/// The class that computes a task; that of the features where there is none.
pub(crate) fn class(prefix: &str, classes: Classes, task: Task) -> Cow<'static, str> {
    let ending = classes.iter().find(|&&(_, known)| known == task).map_or("Model", |&(ending, _)| ending);
    format!("{prefix}{ending}").into()
}

/// The task of a config, by the first of its `architectures`: the class that it was saved from.
/// Where there is none, the features.
pub(crate) fn task_of(
    family: &'static str,
    prefix: &str,
    classes: Classes,
    architectures: &[String],
) -> Result<Task, TaskError> {
    let Some(class) = architectures.first() else { return Ok(Task::FeatureExtraction) };
    let known = classes.iter().find(|(ending, _)| class.strip_prefix(prefix) == Some(ending));
    known.map(|&(_, task)| task).ok_or_else(|| TaskError::Architecture {
        found: class.clone(),
        family,
        known: classes.iter().map(|(ending, _)| format!("{prefix}{ending}")).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use architecture::Family;

    use super::*;
    use crate::{BertConfig, RobertaConfig};

    fn of(architectures: &[&str]) -> Result<Task, TaskError> {
        let architectures = architectures.iter().map(ToString::to_string).collect();
        BertConfig { architectures, ..BertConfig::default() }.task()
    }

    #[test]
    fn the_class_that_a_checkpoint_was_saved_from_tells_the_task() {
        for (classes, task) in [
            (&[][..], Task::FeatureExtraction),
            (&["BertModel"], Task::FeatureExtraction),
            (&["BertForPreTraining"], Task::FeatureExtraction),
            (&["BertForMaskedLM", "BertForTokenClassification"], Task::MaskedLm),
        ] {
            assert_eq!(of(classes), Ok(task), "{classes:?}");
        }
        for task in Task::ALL {
            assert_eq!(of(&[&BertConfig::default().class(task)]), Ok(task));
        }
        let error = of(&["RobertaForMaskedLM"]).unwrap_err().to_string();
        assert!(
            error.starts_with("config.json: architecture 'RobertaForMaskedLM' is none of those of BERT"),
            "{error}"
        );
        assert!(error.contains("BertModel, BertForPreTraining, BertForSequenceClassification"), "{error}");
        assert!(of(&["BertLMHeadModel", "BertModel"]).is_err());
    }

    #[test]
    fn one_family_may_go_by_several_names() {
        let config = |model_type: &str| {
            let json =
                format!(r#"{{"model_type": "{model_type}", "architectures": ["XLMRobertaForMaskedLM"]}}"#);
            RobertaConfig::from_json(json.as_bytes()).unwrap()
        };
        assert_eq!(config("xlm-roberta").task(), Ok(Task::MaskedLm));
        assert!(config("roberta").task().is_err());
        assert_eq!(config("camembert").class(Task::MaskedLm), "CamembertForMaskedLM");
    }
}
