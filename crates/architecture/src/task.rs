//! What a model is used for: which head it has, and so what a graph of it gives.

use std::fmt;
use std::str::FromStr;

/// A task, and with it the head that a model has for it.
///
/// ```
/// use architecture::Task;
///
/// let task: Task = "text-classification".parse()?;
/// assert_eq!(task, Task::SequenceClassification);
/// assert_eq!(task.outputs(), ["logits"]);
/// # Ok::<(), architecture::TaskError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// No head: the hidden states themselves.
    FeatureExtraction,
    /// Labels for a text or a pair of texts. Regression and cross-encoders are this, with one
    /// label.
    SequenceClassification,
    /// A label for each token.
    TokenClassification,
    /// Where in a text the answer stands.
    QuestionAnswering,
    /// Which token stands at a place.
    MaskedLm,
    /// Which of several continuations is the right one.
    MultipleChoice,
    /// Whether one text follows another.
    NextSentencePrediction,
}

/// Why there is no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum TaskError {
    /// config.json's `architectures` names a class that is not computed here.
    #[error(
        "config.json: architecture '{found}' is none of those of {family} that are run here; known are \
         {known}. Where its encoder is that of {family} all the same, ask for a task by name"
    )]
    Architecture { found: String, family: &'static str, known: String },
    /// A name that no task has.
    #[error("task '{found}' is not known; known are {}", Task::ALL.map(|task| task.name()).join(", "))]
    Unknown { found: String },
}

/// Other names in use: those of transformers' pipelines beside [`Task::name`], of optimum's
/// `--task` up to version 1.6, and of sentence-transformers.
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

    /// What its model gives, under the names that optimum gives the outputs of a graph. Features
    /// without a pooler lack the second.
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
