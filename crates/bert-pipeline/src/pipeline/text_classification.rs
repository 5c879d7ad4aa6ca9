use candle_bert::{ProblemType, Task};
use serde::Serialize;

use super::core::{Core, Need};
use super::runner::Wanted;
use super::{Output, Pipeline, constructors};
use crate::scores::{sigmoid, softmax, top};
use crate::{PipelineError, Text};

const NEED: Need = Need::new(Task::SequenceClassification, "text-classification", &[Wanted::LABELS]);

/// A label of a text, and how much speaks for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Label {
    /// The label, by config.json's `id2label`.
    pub label: String,
    /// Its score, by the pipeline's [`ScoreFunction`].
    pub score: f32,
}

/// What makes a score of a logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreFunction {
    /// The labels exclude each other: exp(xᵢ) / Σⱼ exp(xⱼ).
    Softmax,
    /// Each label holds or not: 1 / (1 + exp(−x)).
    Sigmoid,
    /// The logit itself.
    None,
}

/// Labels for a text or a pair of texts: transformers' `text-classification`.
///
/// The score function follows config.json as it does there: none for `problem_type` regression, the sigmoid for several labels at
/// once or a single one, else the softmax.
pub struct TextClassification {
    core: Core,
    labels: Vec<String>,
    function: ScoreFunction,
    top_k: Option<usize>,
}

constructors!(TextClassification);

impl TextClassification {
    fn of(mut core: Core) -> Result<Self, PipelineError> {
        core.cut_if(None)?;
        let labels = core.labels(core.family.num_labels())?;
        let function = match core.family.problem_type() {
            Some(ProblemType::Regression) => ScoreFunction::None,
            Some(ProblemType::MultiLabel) => ScoreFunction::Sigmoid,
            _ if core.family.num_labels() == 1 => ScoreFunction::Sigmoid,
            _ => ScoreFunction::Softmax,
        };
        Ok(Self { core, labels, function, top_k: Some(1) })
    }

    /// This pipeline with the `top_k` best labels of each text, the best first; with `None`, all of them. At first it is one.
    #[must_use]
    pub fn with_top_k(mut self, top_k: Option<usize>) -> Self {
        self.top_k = top_k;
        self
    }

    /// This pipeline with another score function.
    #[must_use]
    pub fn with_function(mut self, function: ScoreFunction) -> Self {
        self.function = function;
        self
    }

    /// The labels, by their ids.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    fn scored(&self, logits: &[f32]) -> Result<Vec<Label>, PipelineError> {
        if logits.len() != self.labels.len() {
            return Err(PipelineError::NoLabels { found: logits.len(), labels: self.labels.len() });
        }
        let scores = match self.function {
            ScoreFunction::Softmax => softmax(logits),
            ScoreFunction::Sigmoid => logits.iter().map(|&logit| sigmoid(logit)).collect(),
            ScoreFunction::None => logits.to_vec(),
        };
        let best = top(&scores, self.top_k.unwrap_or(scores.len()));
        let label = |id: usize| Some(Label { label: self.labels.get(id)?.clone(), score: *scores.get(id)? });
        Ok(best.into_iter().filter_map(label).collect())
    }
}

impl Pipeline for TextClassification {
    type Prediction = Vec<Label>;

    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Vec<Label>>>, PipelineError> {
        let (rows, is_cut) = self.core.encode(texts)?;
        let labels = self.core.runner.run(
            &rows,
            |row| row,
            |_, _, outputs| match outputs {
                [logits] => self.scored(logits.numbers),
                _ => Ok(Vec::new()),
            },
        )?;
        Ok(outputs(labels, is_cut))
    }

    fn window(&self) -> usize {
        self.core.window()
    }
}

/// Predictions beside whether their texts were cut.
pub(super) fn outputs<T>(predictions: Vec<T>, is_cut: Vec<bool>) -> Vec<Output<T>> {
    let pairs = predictions.into_iter().zip(is_cut);
    pairs.map(|(prediction, truncated)| Output { prediction, truncated }).collect()
}
