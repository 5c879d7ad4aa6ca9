//! The classes of transformers, and the task that each is for.

use architecture::{Task, TaskError};

use crate::BertConfig;

/// The classes of transformers that `architectures` may name, and the task that each is for.
///
/// A `BertForPreTraining` has two heads, and no task has both. It counts as its encoder, which is what such checkpoints are loaded for as they are;
/// either head can be asked for by its task's name.
const ARCHITECTURES: [(&str, Task); 8] = [
    ("BertModel", Task::FeatureExtraction),
    ("BertForPreTraining", Task::FeatureExtraction),
    ("BertForSequenceClassification", Task::SequenceClassification),
    ("BertForTokenClassification", Task::TokenClassification),
    ("BertForQuestionAnswering", Task::QuestionAnswering),
    ("BertForMaskedLM", Task::MaskedLm),
    ("BertForMultipleChoice", Task::MultipleChoice),
    ("BertForNextSentencePrediction", Task::NextSentencePrediction),
];

/// The class of transformers that computes a task.
pub(crate) fn class(task: Task) -> &'static str {
    let class = ARCHITECTURES.iter().find(|&&(_, known)| known == task);
    class.map_or("BertModel", |&(class, _)| class)
}

/// The task of a config, by the first of its `architectures`: the class that it was saved from.
/// Where there is none, the features.
pub(crate) fn task_of(config: &BertConfig) -> Result<Task, TaskError> {
    let Some(class) = config.architectures.first() else { return Ok(Task::FeatureExtraction) };
    let known = ARCHITECTURES.iter().find(|(name, _)| name == class);
    known.map(|&(_, task)| task).ok_or_else(|| TaskError::Architecture {
        found: class.clone(),
        family: "BERT",
        known: ARCHITECTURES.map(|(class, _)| class).join(", "),
    })
}

/// Whether the model of a task has a pooler: `None` where it has one if the checkpoint does.
pub(crate) fn pooler(task: Task) -> Option<bool> {
    match task {
        Task::SequenceClassification | Task::MultipleChoice | Task::NextSentencePrediction => Some(true),
        Task::TokenClassification | Task::QuestionAnswering | Task::MaskedLm => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use architecture::Family;

    use super::*;

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
            assert_eq!(of(&[class(task)]), Ok(task));
        }
        let error = of(&["RobertaForMaskedLM"]).unwrap_err().to_string();
        assert!(
            error.starts_with("config.json: architecture 'RobertaForMaskedLM' is not one of a BERT"),
            "{error}"
        );
        assert!(error.contains("BertModel, BertForPreTraining, BertForSequenceClassification"), "{error}");
        assert!(of(&["BertLMHeadModel", "BertModel"]).is_err());
    }
}
