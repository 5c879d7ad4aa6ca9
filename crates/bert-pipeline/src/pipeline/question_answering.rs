mod spans;

use candle_bert::Task;
use serde::Serialize;
use tokenizers::Encoding;

use super::core::{Core, Need, at_least_one};
use super::runner::Wanted;
use super::{Output, Pipeline, constructors};
use crate::chars::Chars;
use crate::tokenizer::{Cut, CutFrom};
use crate::{PipelineError, Text, Tokenizer};

const NEED: Need = Need::new(Task::QuestionAnswering, "question-answering", &[Wanted::START, Wanted::END]);

/// transformers' defaults: the longest row, and how many tokens two parts of a context share at most.
const MAX_SEQ_LEN: usize = 384;
const DOC_STRIDE: usize = 128;

/// Where the answer to a question stands in its context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The product of the probabilities that it begins and ends there, added up over all spans of the same words.
    pub score: f64,
    /// Where it begins in the context, in characters.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
    /// The answer; empty where there is none.
    pub answer: String,
}

/// The answers to a question, the best first. It serialises as one object where there is one answer, else as a list, as in
/// transformers.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(transparent)]
pub struct Answers(#[serde(serialize_with = "super::one_or_all")] pub Vec<Answer>);

impl Answers {
    /// The best answer.
    pub fn best(&self) -> Option<&Answer> {
        self.0.first()
    }
}

/// Where in a context the answer to a question stands: transformers' `question-answering`. Its texts are pairs of question and context.
///
/// A context that is too long is read in overlapping parts. Where a context has fewer spans than answers are asked for, there are fewer
/// answers; transformers adds spans of score 0 then, in no certain order.
pub struct QuestionAnswering {
    core: Core,
    /// The tokenizer that cuts contexts into parts.
    parts: Tokenizer,
    max_seq_len: usize,
    doc_stride: usize,
    top_k: usize,
    max_answer_len: usize,
    handles_impossible: bool,
    aligns_to_words: bool,
}

constructors!(QuestionAnswering);

impl QuestionAnswering {
    fn of(core: Core) -> Result<Self, PipelineError> {
        let max_seq_len = core.tokenizer.longest_row().unwrap_or(MAX_SEQ_LEN).min(MAX_SEQ_LEN);
        let doc_stride = (max_seq_len / 2).min(DOC_STRIDE);
        Ok(Self {
            parts: parts(&core.tokenizer, max_seq_len, doc_stride)?,
            core,
            max_seq_len,
            doc_stride,
            top_k: 1,
            max_answer_len: 15,
            handles_impossible: false,
            aligns_to_words: true,
        })
    }

    /// This pipeline with rows of at most `max_seq_len` tokens, and parts of a context that share `doc_stride` of them; by default half of
    /// a row, and at most 128. At first rows have 384 tokens, or fewer where the model takes no more.
    ///
    /// # Errors
    /// If rows are longer than the model takes, or the stride leaves nothing new in a part.
    pub fn with_rows(mut self, max_seq_len: usize, doc_stride: Option<usize>) -> Result<Self, PipelineError> {
        let doc_stride = doc_stride.unwrap_or((max_seq_len / 2).min(DOC_STRIDE));
        self.parts = parts(&self.core.tokenizer, max_seq_len, doc_stride)?;
        (self.max_seq_len, self.doc_stride) = (max_seq_len, doc_stride);
        Ok(self)
    }

    /// This pipeline with the `top_k` best answers. At first it is one.
    ///
    /// # Errors
    /// If it is 0.
    pub fn with_top_k(mut self, top_k: usize) -> Result<Self, PipelineError> {
        self.top_k = at_least_one("top_k", top_k)?;
        Ok(self)
    }

    /// This pipeline with answers of at most so many tokens. At first it is 15.
    ///
    /// # Errors
    /// If it is 0.
    pub fn with_max_answer_len(mut self, max_answer_len: usize) -> Result<Self, PipelineError> {
        self.max_answer_len = at_least_one("max_answer_len", max_answer_len)?;
        Ok(self)
    }

    /// This pipeline, giving the empty answer where it is the best one, for models that have learned that there may be none.
    #[must_use]
    pub fn with_impossible_answers(mut self, handles_impossible: bool) -> Self {
        self.handles_impossible = handles_impossible;
        self
    }

    /// This pipeline with answers of whole words (`true`, as at first), or of tokens as they are.
    #[must_use]
    pub fn with_whole_words(mut self, aligns_to_words: bool) -> Self {
        self.aligns_to_words = aligns_to_words;
        self
    }

    /// The answers to one question.
    ///
    /// # Errors
    /// As [`Pipeline::run_texts`].
    pub fn answer(&self, question: &str, context: &str) -> Result<Answers, PipelineError> {
        Ok(self.run_one((question, context))?.prediction)
    }

    /// The rows of a question and its context.
    fn rows(&self, index: usize, text: &Text<'_>) -> Result<Vec<Encoding>, PipelineError> {
        let context = text.second.ok_or(PipelineError::NoContext { text: index })?;
        for (what, text) in [("question", text.first), ("context", context)] {
            if text.is_empty() {
                return Err(PipelineError::EmptyText { text: index, what });
            }
        }
        // The library cuts without a look at what room is left, and panics where there is none.
        let question = self.core.tokenizer.ids(index, text.first)?.len();
        let special = self.core.tokenizer.special_tokens(true);
        let room = self.max_seq_len.saturating_sub(question + special);
        if room == 0 {
            return Err(PipelineError::LongQuestion {
                text: index,
                tokens: question,
                length: self.max_seq_len,
            });
        }
        if self.doc_stride >= room && self.core.tokenizer.ids(index, context)?.len() > room {
            return Err(PipelineError::Stride { stride: self.doc_stride, room });
        }
        Ok(self.parts.rows(index, text)?.0)
    }
}

fn parts(tokenizer: &Tokenizer, length: usize, stride: usize) -> Result<Tokenizer, PipelineError> {
    tokenizer.cutting(Cut { length, stride, from: CutFrom::Second })
}

impl Pipeline for QuestionAnswering {
    type Prediction = Answers;

    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Answers>>, PipelineError> {
        let mut rows = Vec::new();
        let mut text_of_row = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let mut parts = self.rows(index, text)?;
            text_of_row.extend(std::iter::repeat_n(index, parts.len()));
            rows.append(&mut parts);
        }
        let text_of = |row: usize| text_of_row.get(row).copied().unwrap_or(0);
        // Each row is searched as soon as it has been run; what stays of it are a few spans.
        let wanted =
            if self.aligns_to_words { self.top_k.saturating_mul(2).saturating_add(10) } else { self.top_k };
        let classification = self.core.tokenizer.classification_id();
        let parts = self.core.runner.run(&rows, text_of, |_, row, outputs| {
            let [start, end] = outputs else { return Ok(None) };
            let logits = [start.numbers, end.numbers];
            Ok(Some(spans::best(row, classification, logits, wanted, self.max_answer_len)))
        })?;

        let contexts: Vec<Chars<'_>> =
            texts.iter().map(|text| Chars::new(text.second.unwrap_or_default())).collect();
        let mut found: Vec<(f64, Vec<Answer>)> = vec![(1., Vec::new()); texts.len()];
        for (number, (row, part)) in rows.iter().zip(&parts).enumerate() {
            let text = text_of(number);
            if let (Some((none, answers)), Some(context), Some(part)) =
                (found.get_mut(text), contexts.get(text), part)
            {
                *none = none.min(part.none);
                spans::collect(answers, row, part, context, self.aligns_to_words);
            }
        }
        Ok(found
            .into_iter()
            .map(|(none, mut answers)| {
                if self.handles_impossible {
                    answers.push(Answer { score: none, start: 0, end: 0, answer: String::new() });
                }
                answers.sort_by(|a, b| b.score.total_cmp(&a.score));
                answers.truncate(self.top_k);
                Output { prediction: Answers(answers), truncated: false }
            })
            .collect())
    }

    fn window(&self) -> usize {
        self.core.window()
    }
}
