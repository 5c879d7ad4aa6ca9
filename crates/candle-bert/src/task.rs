//! What a BERT is used for: which head it has, and so what a graph of it gives.

use std::fmt;
use std::str::FromStr;

use crate::BertConfig;

/// A task, and with it the head that a BERT has for it.
///
/// ```
/// use candle_bert::Task;
///
/// let task: Task = "text-classification".parse()?;
/// assert_eq!(task, Task::SequenceClassification);
/// assert_eq!(task.outputs(), ["logits"]);
/// assert_eq!(task.architecture(), "BertForSequenceClassification");
/// # Ok::<(), candle_bert::TaskError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// No head: the hidden states themselves, of [`crate::BertModel`].
    FeatureExtraction,
    /// Labels for a text or a pair of texts: [`crate::BertForSequenceClassification`]. Regression and cross-encoders are this, with one label.
    SequenceClassification,
    /// A label for each token: [`crate::BertForTokenClassification`].
    TokenClassification,
    /// Where in a text the answer stands: [`crate::BertForQuestionAnswering`].
    QuestionAnswering,
    /// Which token stands at a place: [`crate::BertForMaskedLM`].
    MaskedLm,
    /// Which of several continuations is the right one: [`crate::BertForMultipleChoice`].
    MultipleChoice,
    /// Whether one text follows another: [`crate::BertForNextSentencePrediction`].
    NextSentencePrediction,
}

/// Why there is no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum TaskError {
    /// config.json's `architectures` names a class that is not computed here.
    #[error(
        "config.json: architecture '{found}' is not one of a BERT that is run here; known are {}. \
         Where its encoder is a BERT all the same, ask for a task by name",
        ARCHITECTURES.map(|(class, _)| class).join(", ")
    )]
    Architecture { found: String },
    /// A name that no task has.
    #[error("task '{found}' is not known; known are {}", Task::ALL.map(|task| task.name()).join(", "))]
    Unknown { found: String },
}

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

/// Other names in use: those of transformers' pipelines beside [`Task::name`], of optimum's `--task` up to version 1.6, and of sentence-transformers.
const ALIASES: [(&str, Task); 8] = [
    ("default", Task::FeatureExtraction),
    ("sentence-similarity", Task::FeatureExtraction),
    ("sentiment-analysis", Task::SequenceClassification),
    ("sequence-classification", Task::SequenceClassification),
    ("text-ranking", Task::SequenceClassification),
    ("zero-shot-classification", Task::SequenceClassification),
    ("ner", Task::TokenClassification),
    ("masked-lm", Task::MaskedLm),
];

impl Task {
    /// Every task.
    pub const ALL: [Self; 7] = [
        Self::FeatureExtraction,
        Self::SequenceClassification,
        Self::TokenClassification,
        Self::QuestionAnswering,
        Self::MaskedLm,
        Self::MultipleChoice,
        Self::NextSentencePrediction,
    ];

    /// The task of a checkpoint, by the first of its `architectures`: the class that it was saved from. Where there is none, the features.
    ///
    /// A `BertForPreTraining`, which has two heads, counts as its encoder.
    ///
    /// # Errors
    /// If that is not a class of BERT's which is computed here.
    pub fn of(config: &BertConfig) -> Result<Self, TaskError> {
        let Some(class) = config.architectures.first() else { return Ok(Self::FeatureExtraction) };
        let known = ARCHITECTURES.iter().find(|(name, _)| name == class);
        known.map(|&(_, task)| task).ok_or_else(|| TaskError::Architecture { found: class.clone() })
    }

    /// What transformers' pipelines and optimum call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FeatureExtraction => "feature-extraction",
            Self::SequenceClassification => "text-classification",
            Self::TokenClassification => "token-classification",
            Self::QuestionAnswering => "question-answering",
            Self::MaskedLm => "fill-mask",
            Self::MultipleChoice => "multiple-choice",
            Self::NextSentencePrediction => "next-sentence-prediction",
        }
    }

    /// The class of transformers that computes it.
    pub fn architecture(self) -> &'static str {
        let class = ARCHITECTURES.iter().find(|&&(_, task)| task == self);
        class.map_or("BertModel", |&(class, _)| class)
    }

    /// What its model gives, under the names that optimum gives the outputs of a graph. Features without a pooler lack the second.
    pub fn outputs(self) -> &'static [&'static str] {
        match self {
            Self::FeatureExtraction => &["last_hidden_state", "pooler_output"],
            Self::QuestionAnswering => &["start_logits", "end_logits"],
            _ => &["logits"],
        }
    }

    /// The axes of the inputs.
    pub fn input_axes(self) -> &'static [&'static str] {
        match self {
            Self::MultipleChoice => &["batch", "choices", "sequence"],
            _ => &["batch", "sequence"],
        }
    }

    /// Whether its model has a pooler: `None` where it has one if the checkpoint does.
    pub fn pooler(self) -> Option<bool> {
        match self {
            Self::FeatureExtraction => None,
            Self::SequenceClassification | Self::MultipleChoice | Self::NextSentencePrediction => Some(true),
            Self::TokenClassification | Self::QuestionAnswering | Self::MaskedLm => Some(false),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Task {
    type Err = TaskError;

    /// Reads [`Task::name`], and other names that are in use.
    fn from_str(name: &str) -> Result<Self, TaskError> {
        let names = Self::ALL.map(|task| (task.name(), task));
        let known = names.iter().chain(&ALIASES).find(|(known, _)| *known == name);
        known.map(|&(_, task)| task).ok_or_else(|| TaskError::Unknown { found: name.into() })
    }
}

#[cfg(test)]
mod tests;
