use std::borrow::Cow;
use std::error::Error;
use std::fmt::Debug;

use crate::{Limits, Program, Task, TaskError};

/// A model of some family, as its config.json has it: what is known before a weight is read.
pub trait Family: Debug + Send + Sync {
    /// What people call the family: `BERT`.
    fn name(&self) -> &'static str;

    /// The attribute under which a model with a head holds the model without one, and so what
    /// stands before the names of that one's tensors, with a dot: `bert`.
    fn base(&self) -> &'static str;

    /// The model of a task. `has` tells whether the checkpoint has a tensor, by its name without a
    /// prefix: some parts are there only if it does.
    ///
    /// # Errors
    /// If the config contradicts itself, or cannot have such a head.
    fn program(
        &self,
        task: Task,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<Program, Box<dyn Error + Send + Sync>>;

    /// What the checkpoint was saved for, by the first of its `architectures`.
    ///
    /// # Errors
    /// If that is a class that is not known.
    fn task(&self) -> Result<Task, TaskError>;

    /// The class of transformers that computes a task.
    fn class(&self, task: Task) -> Cow<'static, str>;

    /// The classes that the checkpoint was saved from; none where config.json names none.
    fn architectures(&self) -> &[String] {
        &[]
    }

    /// What inputs the model takes, as far as its config tells.
    fn limits(&self) -> Limits {
        let program = self.program(Task::FeatureExtraction, &|_| true).unwrap_or_default();
        program.limits()
    }

    /// Whether transformers has the family. Of one that it does not have, the reference was held
    /// against a model that was written for that, by the code that is published with its models.
    fn is_of_transformers(&self) -> bool {
        true
    }

    /// The id of the padding token.
    fn pad_token_id(&self) -> usize;

    /// How many labels a classifier tells apart.
    fn num_labels(&self) -> usize;

    /// What a label is called.
    fn label(&self, id: usize) -> Cow<'_, str>;

    /// How the logits of a sequence classifier are meant, where it is said.
    fn problem_type(&self) -> Option<ProblemType>;
}

/// How the logits of a sequence classifier are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// `regression`: they are the numbers themselves.
    Regression,
    /// `single_label_classification`: one label is right; a softmax makes probabilities of them.
    SingleLabel,
    /// `multi_label_classification`: each label is right or not; a sigmoid makes a probability of
    /// each.
    MultiLabel,
}

impl ProblemType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Regression, Self::SingleLabel, Self::MultiLabel];

    /// As config.json has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::SingleLabel => "single_label_classification",
            Self::MultiLabel => "multi_label_classification",
        }
    }
}
