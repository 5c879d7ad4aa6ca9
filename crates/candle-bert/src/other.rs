//! What any config.json says, of whatever family.

use std::borrow::Cow;
use std::error::Error;

use architecture::{Family, Limits, ProblemType, Program, Task, TaskError};

use crate::classes::HEADS;
use crate::config::{ConfigError, Fields, label};

/// The config of a family that is not known here: there is no native model of it, and its graphs
/// are run all the same.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherConfig {
    model_type: String,
    limits: Limits,
    pad_token_id: usize,
    architectures: Vec<String>,
    num_labels: usize,
    id2label: Vec<String>,
    problem_type: Option<ProblemType>,
}

impl OtherConfig {
    pub(crate) fn of(fields: &Fields, model_type: &str) -> Result<Self, ConfigError> {
        let id2label = fields.labels()?;
        Ok(Self {
            model_type: model_type.into(),
            limits: Limits {
                vocabulary: fields.size("vocab_size", usize::MAX)?,
                token_types: fields.size("type_vocab_size", 0)?,
                // The tokenizer tells how much of a text is read: how a family counts its positions
                // is not known.
                positions: usize::MAX,
                padding: None,
            },
            pad_token_id: fields.size("pad_token_id", 0)?,
            architectures: fields.architectures()?,
            num_labels: fields.num_labels(&id2label)?,
            id2label,
            problem_type: fields.problem_type()?,
        })
    }
}

impl Family for OtherConfig {
    fn name(&self) -> &'static str {
        "model of another family"
    }

    fn base(&self) -> &'static str {
        ""
    }

    fn program(&self, _: Task, _: &dyn Fn(&str) -> bool) -> Result<Program, Box<dyn Error + Send + Sync>> {
        Err(ConfigError::ModelType { found: self.model_type.clone() }.into())
    }

    /// By how the name of its class ends, as those of transformers' classes do.
    fn task(&self) -> Result<Task, TaskError> {
        let Some(class) = self.architectures.first() else { return Ok(Task::FeatureExtraction) };
        let known = HEADS.iter().find(|(ending, _)| class.ends_with(ending));
        known.map(|&(_, task)| task).ok_or_else(|| TaskError::Architecture {
            found: class.clone(),
            family: self.name(),
            known: HEADS.iter().map(|(ending, _)| format!("…{ending}")).collect::<Vec<_>>().join(", "),
        })
    }

    fn class(&self, _: Task) -> Cow<'static, str> {
        self.architectures.first().cloned().unwrap_or_default().into()
    }

    fn architectures(&self) -> &[String] {
        &self.architectures
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn pad_token_id(&self) -> usize {
        self.pad_token_id
    }

    fn num_labels(&self) -> usize {
        self.num_labels
    }

    fn label(&self, id: usize) -> Cow<'_, str> {
        label(&self.id2label, id)
    }

    fn problem_type(&self) -> Option<ProblemType> {
        self.problem_type
    }
}
