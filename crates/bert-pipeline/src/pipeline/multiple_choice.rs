use candle_bert::Task;
use serde::Serialize;

use super::constructors;
use super::core::{Core, Need};
use super::runner::Wanted;
use crate::scores::{softmax, top};
use crate::{PipelineError, Text};

const NEED: Need = Need::new(Task::MultipleChoice, "multiple-choice", &[Wanted::LABELS]);

/// A choice, and how probable it is among the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The choice.
    pub choice: String,
    /// Its score: the softmax over all choices.
    pub score: f32,
    /// Whether text and choice together were longer than the model takes, so that an end was not read.
    #[serde(skip)]
    pub truncated: bool,
}

/// Which of several continuations of a text is the right one. transformers has the model (`BertForMultipleChoice`), but no pipeline; this
/// reads text and choice as a pair, and takes the softmax over the choices.
pub struct MultipleChoice {
    core: Core,
}

constructors!(MultipleChoice);

impl MultipleChoice {
    fn of(mut core: Core) -> Result<Self, PipelineError> {
        core.cut_if(None)?;
        Ok(Self { core })
    }

    /// The choices with their scores, the best first; of equally good ones, the one that comes first.
    ///
    /// # Errors
    /// If there are no choices, one is too long, or the model fails.
    pub fn choose(&self, text: &str, choices: &[impl AsRef<str>]) -> Result<Vec<Choice>, PipelineError> {
        if choices.is_empty() {
            return Err(PipelineError::NoCandidates { what: "choices" });
        }
        let pairs: Vec<Text<'_>> = choices.iter().map(|choice| Text::from((text, choice.as_ref()))).collect();
        let (rows, is_cut) = self.core.encode(&pairs)?;
        let scores = softmax(&self.core.runner.run_choices(&rows, 0)?);
        let choice = |id: usize| {
            Some(Choice {
                choice: choices.get(id)?.as_ref().to_owned(),
                score: *scores.get(id)?,
                truncated: *is_cut.get(id)?,
            })
        };
        Ok(top(&scores, scores.len()).into_iter().filter_map(choice).collect())
    }
}
