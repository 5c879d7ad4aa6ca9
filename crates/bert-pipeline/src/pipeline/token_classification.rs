mod aggregate;

use std::fmt;
use std::str::FromStr;

use candle_bert::Task;
use serde::Serialize;
use tokenizers::Encoding;

use super::core::{Core, Need, refuse_pairs};
use super::runner::Wanted;
use super::text_classification::outputs;
use super::{Output, Pipeline, constructors};
use crate::chars::Chars;
use crate::scores::softmax;
use crate::tokenizer::{Cut, CutFrom};
use crate::{PipelineError, Text, Tokenizer};

use aggregate::Token;

const NEED: Need = Need::new(Task::TokenClassification, "token-classification", &[Wanted::TOKEN_LABELS]);

/// A token with its label, or neighbouring tokens of one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// The label of a token; only without aggregation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The label of a group, without `B-` and `I-`; only with aggregation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_group: Option<String>,
    /// The label's score; of a group, the mean of its parts' scores.
    pub score: f32,
    /// The token's place in its row, special tokens counted; only without aggregation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The token, or the group's tokens as a text. As it stands in the text: from `start` to `end`.
    pub word: String,
    /// Where it begins in the text, in characters.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
}

/// How the tokens of a word, and the words of an entity, become one: the names of transformers' `aggregation_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aggregation {
    /// Each token by itself.
    #[default]
    None,
    /// Neighbouring tokens of one label are a group.
    Simple,
    /// A word has the label of its first token; then as `Simple`.
    First,
    /// A word has the label whose score is the highest in the mean over its tokens; then as `Simple`.
    Average,
    /// A word has the label of the token with the highest score; then as `Simple`.
    Max,
}

impl Aggregation {
    const ALL: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("simple", Self::Simple),
        ("first", Self::First),
        ("average", Self::Average),
        ("max", Self::Max),
    ];
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, aggregation)| aggregation == self);
        f.pad(name.map_or("none", |(name, _)| name))
    }
}

impl FromStr for Aggregation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|&(_, aggregation)| aggregation).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("one of {}", names.join(", "))
        })
    }
}

/// A label for each token: transformers' `token-classification`, also called `ner`.
///
/// A text longer than `model_max_length` of tokenizer_config.json is cut, as it is there, and the output says so. With a stride, long
/// texts are read in overlapping parts instead.
pub struct TokenClassification {
    core: Core,
    labels: Vec<String>,
    ignored: Vec<String>,
    aggregation: Aggregation,
    /// The tokenizer that cuts into overlapping parts.
    strided: Option<Tokenizer>,
}

constructors!(TokenClassification);

impl TokenClassification {
    fn of(mut core: Core) -> Result<Self, PipelineError> {
        let positions = core.tokenizer.max_positions().unwrap_or(usize::MAX);
        core.cut_if(core.tokenizer.words.model_max_length.filter(|&length| length <= positions))?;
        let labels = core.labels(core.family.num_labels())?;
        let ignored = vec!["O".to_owned()];
        Ok(Self { core, labels, ignored, aggregation: Aggregation::None, strided: None })
    }

    /// This pipeline with another way to join tokens. At first they are not joined.
    ///
    /// # Errors
    /// If they are not to be joined, but a stride was set.
    pub fn with_aggregation(mut self, aggregation: Aggregation) -> Result<Self, PipelineError> {
        if aggregation == Aggregation::None && self.strided.is_some() {
            return Err(PipelineError::StrideWithoutAggregation);
        }
        self.aggregation = aggregation;
        Ok(self)
    }

    /// This pipeline, reading texts that are too long in parts that share `stride` tokens. Of entities that overlap the longer stays, and
    /// of equally long ones the one with the higher score.
    ///
    /// # Errors
    /// If the parts would have nothing new, or tokens are not joined: set the aggregation first.
    pub fn with_stride(mut self, stride: usize) -> Result<Self, PipelineError> {
        if self.aggregation == Aggregation::None {
            return Err(PipelineError::StrideWithoutAggregation);
        }
        let Some(length) = self.core.tokenizer.longest_row() else { return Ok(self) };
        let cut = Cut { length, stride, from: CutFrom::Longest };
        self.strided = Some(self.core.tokenizer.cutting(cut)?);
        Ok(self)
    }

    /// This pipeline, leaving out tokens or groups of these labels. At first it is `O`.
    #[must_use]
    pub fn with_ignored_labels(mut self, labels: &[impl AsRef<str>]) -> Self {
        self.ignored = labels.iter().map(|label| label.as_ref().to_owned()).collect();
        self
    }

    /// The labels, by their ids.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The tokens of a row with their scores, without the special ones.
    fn tokens<'l>(
        &self,
        text: &Chars<'_>,
        row: &Encoding,
        logits: impl Iterator<Item = &'l [f32]>,
    ) -> Result<Vec<Token>, PipelineError> {
        let tokenizer = &self.core.tokenizer;
        let mut tokens = Vec::new();
        let special = row.get_special_tokens_mask().iter();
        let parts = row.get_ids().iter().zip(row.get_tokens()).zip(row.get_offsets()).zip(special);
        for (index, ((((id, token), &(start, end)), &special), logits)) in parts.zip(logits).enumerate() {
            if special != 0 {
                continue;
            }
            if logits.len() != self.labels.len() {
                return Err(PipelineError::NoLabels { found: logits.len(), labels: self.labels.len() });
            }
            let there = text.slice(start, end);
            let is_unknown = Some(*id) == tokenizer.unknown_id();
            // transformers' rule: a tokenizer that marks continuations makes tokens longer than what stands in the text. Others are taken
            // to continue a word where there is no space.
            let continues = match tokenizer.words.marks_subwords {
                true => token.chars().count() != there.chars().count(),
                false => start > 0 && !text.slice(start - 1, start + 1).contains(' '),
            };
            tokens.push(Token {
                word: if is_unknown { there.to_owned() } else { token.clone() },
                scores: softmax(logits),
                start,
                end,
                index,
                continues: continues && !is_unknown,
            });
        }
        Ok(tokens)
    }
}

impl Pipeline for TokenClassification {
    type Prediction = Vec<Entity>;

    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Vec<Entity>>>, PipelineError> {
        refuse_pairs(texts, NEED.name)?;
        let mut rows = Vec::new();
        let mut text_of_row = Vec::new();
        let mut is_cut = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let (mut parts, was_cut) =
                self.strided.as_ref().unwrap_or(&self.core.tokenizer).rows(index, text)?;
            if self.strided.is_none() {
                parts.truncate(1);
            }
            is_cut.push(was_cut && self.strided.is_none());
            text_of_row.extend(std::iter::repeat_n(index, parts.len()));
            rows.append(&mut parts);
        }
        let chars: Vec<Chars<'_>> = texts.iter().map(|text| Chars::new(text.first)).collect();
        let text_of = |row: usize| text_of_row.get(row).copied().unwrap_or(0);
        let found = self.core.runner.run(&rows, text_of, |number, row, outputs| {
            let (Some(text), [logits]) = (chars.get(text_of(number)), outputs) else { return Ok(Vec::new()) };
            let tokens = self.tokens(text, row, logits.tokens())?;
            let join = |words| self.core.tokenizer.join(words);
            let mut entities = aggregate::entities(tokens, &self.labels, self.aggregation, &join)?;
            entities.retain(|entity| {
                let label = entity.entity.as_ref().or(entity.entity_group.as_ref());
                label.is_none_or(|label| !self.ignored.contains(label))
            });
            Ok(entities)
        })?;

        let mut of_texts: Vec<(usize, Vec<Entity>)> = vec![(0, Vec::new()); texts.len()];
        for (entities, &text) in found.into_iter().zip(&text_of_row) {
            if let Some((parts, of_text)) = of_texts.get_mut(text) {
                *parts += 1;
                of_text.extend(entities);
            }
        }
        let merged = of_texts.into_iter().map(|(parts, entities)| {
            if parts > 1 { aggregate::without_overlaps(entities) } else { entities }
        });
        Ok(outputs(merged.collect(), is_cut))
    }

    fn window(&self) -> usize {
        self.core.window()
    }
}
