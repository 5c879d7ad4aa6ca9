//! Texts as rows of a model, one or, where a long text is cut into overlapping parts, several.
//!
//! The cutting is done here between the library's steps. Its own stops reading a text at the length to cut to, so that the parts
//! beyond it are lost, and of a pair of long texts it is no longer known which was the longer one.

use tokenizers::{
    Decoder as _, Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use super::Tokenizer;
use crate::{PipelineError, Text};

/// How long texts are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// The most tokens of a row, the special ones included.
    pub(crate) length: usize,
    /// How many tokens two parts of a text share.
    pub(crate) stride: usize,
    pub(crate) from: CutFrom,
}

/// What loses tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutFrom {
    /// The longer text of a pair, until both are equally long.
    Longest,
    /// The second text of a pair.
    Second,
}

impl Cut {
    /// For the library, which is to leave room for so many special tokens.
    fn parameters(self, special: usize, direction: TruncationDirection) -> TruncationParams {
        let strategy = match self.from {
            CutFrom::Longest => TruncationStrategy::LongestFirst,
            CutFrom::Second => TruncationStrategy::OnlySecond,
        };
        let max_length = self.length.saturating_sub(special);
        TruncationParams { max_length, stride: self.stride, strategy, direction }
    }
}

/// A text's parts, each by itself.
fn parts(mut text: Encoding) -> Vec<Encoding> {
    let others = text.take_overflowing();
    std::iter::once(text).chain(others).collect()
}

impl Tokenizer {
    /// This tokenizer, cutting texts that way.
    pub(crate) fn cutting(&self, cut: Cut) -> Result<Self, PipelineError> {
        let Cut { length, stride, from } = cut;
        self.check_length(length)?;
        let room = length.saturating_sub(self.special_tokens(from == CutFrom::Second));
        if room == 0 {
            let reason = "the special tokens leave no room for a text".to_owned();
            return Err(PipelineError::Truncation { length, reason });
        }
        if stride >= room {
            return Err(PipelineError::Stride { stride, room });
        }
        Ok(Self { cut: Some(cut), ..self.clone() })
    }

    /// The rows of a text, with offsets in characters: one, and more where it is cut into parts; and whether it is cut. Of a pair that
    /// loses tokens from either text there is only the first row.
    pub(crate) fn rows(&self, index: usize, text: &Text<'_>) -> Result<(Vec<Encoding>, bool), PipelineError> {
        self.rows_by(index, text, |text| self.inner.encode_char_offsets(text, false))
    }

    pub(super) fn rows_by(
        &self,
        index: usize,
        text: &Text<'_>,
        encode: impl Fn(&str) -> tokenizers::Result<Encoding>,
    ) -> Result<(Vec<Encoding>, bool), PipelineError> {
        let failed = |source| PipelineError::Tokenize { text: index, source };
        let mut first = encode(text.first).map_err(failed)?;
        let mut second = text.second.map(encode).transpose().map_err(failed)?;
        if let Some(cut) = self.cut {
            let is_pair = second.is_some();
            self.check_room(cut.length, is_pair)?;
            let parameters = cut.parameters(self.special_tokens(is_pair), self.cuts_from);
            (first, second) = truncate_encodings(first, second, &parameters).map_err(failed)?;
        }
        let firsts = parts(first);
        let mut seconds = second.map(parts).unwrap_or_default();
        let is_cut = firsts.len() > 1 || seconds.len() > 1;
        if firsts.len() > 1 {
            seconds.truncate(1);
        }
        // A part of a text is a row like any other; the library would leave parts without their segment.
        let rows: tokenizers::Result<Vec<Encoding>> = match firsts.first() {
            Some(first) if !seconds.is_empty() => {
                seconds.into_iter().map(|second| self.row(first.clone(), Some(second))).collect()
            }
            _ => firsts.into_iter().map(|first| self.row(first, None)).collect(),
        };
        let rows = rows.map_err(failed)?;
        match (self.max_positions, rows.iter().map(Encoding::len).max()) {
            (Some(limit), Some(tokens)) if tokens > limit => {
                Err(PipelineError::TooLong { text: index, tokens, limit })
            }
            _ => Ok((rows, is_cut)),
        }
    }

    /// Puts the special tokens around a text or a pair.
    fn row(&self, first: Encoding, mut second: Option<Encoding>) -> tokenizers::Result<Encoding> {
        if let Some(processor) = &self.processor {
            return processor.process(first, second, true);
        }
        if let Some(second) = &mut second {
            second.set_type_ids(vec![1; second.len()]);
        }
        let texts = [Some(first), second].into_iter().flatten().collect();
        Ok(<dyn PostProcessor>::default_process(texts, true)?.into_iter().next().unwrap_or_default())
    }

    /// The tokens of a text without the special ones, however long it is.
    pub(crate) fn ids(&self, index: usize, text: &str) -> Result<Vec<u32>, PipelineError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|source| PipelineError::Tokenize { text: index, source })?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(crate) fn special_tokens(&self, is_pair: bool) -> usize {
        self.processor.as_ref().map_or(0, |processor| processor.added_tokens(is_pair))
    }

    /// Whether a token is a special one: `[CLS]`, `[SEP]` and their like.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.inner
            .id_to_token(id)
            .is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Where a text is cut: `model_max_length`, but not beyond what the model takes.
    pub(crate) fn longest_row(&self) -> Option<usize> {
        [self.words.model_max_length, self.max_positions].into_iter().flatten().min()
    }

    pub(crate) fn unknown_id(&self) -> Option<u32> {
        self.token_to_id(&self.words.unknown)
    }

    pub(crate) fn classification_id(&self) -> Option<u32> {
        self.token_to_id(&self.words.classification)
    }

    /// Tokens as a text: transformers' `convert_tokens_to_string`.
    pub(crate) fn join(&self, tokens: Vec<String>) -> Result<String, PipelineError> {
        match self.inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(|source| PipelineError::Decode { source }),
            None => Ok(tokens.join(" ")),
        }
    }

    /// Ids as a text: transformers' `decode`.
    pub(crate) fn decode(&self, ids: &[u32], skips_special: bool) -> Result<String, PipelineError> {
        let text =
            self.inner.decode(ids, skips_special).map_err(|source| PipelineError::Decode { source })?;
        Ok(if self.words.cleans_up { cleaned_up(text) } else { text })
    }
}

/// What `clean_up_tokenization_spaces` takes out of a decoded text: spaces that English does not have, in this order.
fn cleaned_up(text: String) -> String {
    const SPACES: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    SPACES.iter().fold(text, |text, (from, to)| text.replace(from, to))
}
