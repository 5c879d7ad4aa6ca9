pub(crate) mod resolve;
mod rows;

use std::fmt;

use checkpoint::ModelFiles;
use serde_json::Value;
use tokenizers::{Encoding, PostProcessorWrapper, TruncationDirection};

use crate::settings::Settings;
use crate::{Encoded, PipelineError, Text};
use crate::{bpe, wordpiece};

use resolve::Class;
pub(crate) use rows::{Cut, CutFrom};

pub(crate) const CONFIG: &str = "tokenizer_config.json";
pub(crate) const VOCABULARY: &str = "vocab.txt";
const TOKENIZER: &str = "tokenizer.json";

const DEFAULT_PAD_TOKEN: &str = "[PAD]";

/// A model's tokenizer: texts to `input_ids`, `attention_mask` and `token_type_ids`.
#[derive(Clone)]
pub struct Tokenizer {
    /// Text to tokens, and no further.
    inner: tokenizers::Tokenizer,
    /// Puts the special tokens around.
    processor: Option<PostProcessorWrapper>,
    pad_id: u32,
    max_positions: Option<usize>,
    cut: Option<Cut>,
    /// The side of a text that loses tokens.
    cuts_from: TruncationDirection,
    recommended: Option<usize>,
    pub(crate) words: Words,
}

/// What the pipelines ask a tokenizer beside the tokens of a text.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    /// `model_max_length` of tokenizer_config.json, where it is a length: where transformers cuts
    /// if it is asked to. Files that know none have 10³⁰ there.
    pub(crate) model_max_length: Option<usize>,
    pub(crate) mask: String,
    unknown: String,
    classification: String,
    /// Whether a token that continues a word begins with something of its own.
    pub(crate) marks_subwords: bool,
    /// `clean_up_tokenization_spaces`.
    cleans_up: bool,
}

impl Tokenizer {
    /// The tokenizer of tokenizer.json if the model has it, else BERT's WordPiece from vocab.txt
    /// and tokenizer_config.json. Where the files contradict each other, it is the one that
    /// transformers makes of them: tokenizer_config.json's settings win. `max_positions` is the
    /// most tokens that the model takes, `max_position_embeddings` of config.json; `None` for no
    /// limit.
    ///
    /// The padding and truncation that a tokenizer.json may carry are not used: batches are padded to their longest text, and
    /// nothing is cut unless [`Tokenizer::with_truncation`] says so.
    ///
    /// # Errors
    /// If the model has neither, a file is malformed, names a class of tokenizers that reads
    /// neither (`BertJapaneseTokenizer`), or lacks a special token.
    pub fn from_files(files: &ModelFiles, max_positions: Option<usize>) -> Result<Self, PipelineError> {
        let files = &files.transformer()?;
        let config = Settings::read(files, CONFIG)?;
        let class = Class::of(files, &config)?;
        let (file, json) = if let Some(bytes) = files.read(TOKENIZER)? {
            let mut json = checkpoint::from_json(&bytes)
                .map_err(|source| PipelineError::Json { file: TOKENIZER.to_owned(), source })?;
            class.resolve(&config, &mut json)?;
            (TOKENIZER, json)
        } else if let Some(bytes) = files.read(VOCABULARY)? {
            (VOCABULARY, wordpiece::tokenizer_json(files, &bytes, &config, &class)?)
        } else if let Some(bytes) = files.read(bpe::VOCABULARY)? {
            (bpe::VOCABULARY, bpe::tokenizer_json(files, &bytes, &config, &class)?)
        } else {
            return Err(PipelineError::NoTokenizer { model: files.name().to_owned() });
        };
        Self::from_json(file, json, &config, &class, max_positions)
    }

    /// `file` is where the tokenizer comes from, for errors.
    fn from_json(
        file: &'static str,
        json: Value,
        config: &Settings,
        class: &Class,
        max_positions: Option<usize>,
    ) -> Result<Self, PipelineError> {
        let bad = |reason: String| PipelineError::BadTokenizer { file, reason };
        check_template(&json["post_processor"]).map_err(bad)?;
        let model = &json["model"];
        if let (Some(token), Some(vocabulary)) = (model["unk_token"].as_str(), model["vocab"].as_object())
            && !vocabulary.contains_key(token)
        {
            let role = wordpiece::role("unk_token");
            return Err(PipelineError::MissingToken { file, role, token: token.to_owned() });
        }
        let recommended =
            json["truncation"]["max_length"].as_u64().and_then(|length| usize::try_from(length).ok());
        let pad_token = match config.token("pad_token")? {
            Some(token) => token,
            None => json["padding"]["pad_token"].as_str().unwrap_or(DEFAULT_PAD_TOKEN),
        }
        .to_owned();
        let cuts_from = match config.string("truncation_side")?.or(json["truncation"]["direction"].as_str()) {
            Some("left" | "Left") => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        };
        let words = Words::read(config, &json)?;
        let added_tokens: Vec<(String, u64)> = json["added_tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|token| Some((token["content"].as_str()?.to_owned(), token["id"].as_u64()?)))
            .collect();

        let mut inner: tokenizers::Tokenizer =
            serde_json::from_value(json).map_err(|error| bad(error.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| bad(error.to_string()))?;
        let processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);

        // The library numbers added tokens anew where the file's numbers do not fit, and says so only in its log.
        for (token, id) in added_tokens {
            let found = inner.token_to_id(&token);
            if found.map(u64::from) != Some(id) {
                return Err(bad(resolve::other_id(&token, id, found)));
            }
        }
        class.add_tokens(config, &mut inner)?;
        let pad_id = inner.token_to_id(&pad_token).ok_or_else(|| PipelineError::MissingToken {
            file,
            role: wordpiece::role("pad_token"),
            token: pad_token,
        })?;
        Ok(Self { inner, processor, pad_id, max_positions, cut: None, cuts_from, recommended, words })
    }

    /// This tokenizer, cutting texts to so many tokens, the special ones included; `None` to cut
    /// nothing, as at first. Texts lose tokens at their end, or at their beginning if
    /// `truncation_side` of tokenizer_config.json is `left`; of a pair, the longer one does until
    /// both are equally long.
    ///
    /// # Errors
    /// If the length is beyond what the model takes, or has no place for the special tokens.
    pub fn with_truncation(mut self, length: Option<usize>) -> Result<Self, PipelineError> {
        if let Some(length) = length {
            self.check_length(length)?;
            self.check_room(length, false)?;
        }
        self.cut = length.map(|length| Cut { length, stride: 0, from: CutFrom::Longest });
        Ok(self)
    }

    /// The length to which the model's tokenizer.json truncates, if it does. It is often what the model was trained with, and
    /// less than the model takes. Nothing uses it unless it is given to [`Tokenizer::with_truncation`].
    pub fn recommended_max_length(&self) -> Option<usize> {
        self.recommended
    }

    /// The most tokens that the model takes, as given to [`Tokenizer::from_files`].
    pub fn max_positions(&self) -> Option<usize> {
        self.max_positions
    }

    /// The id that fills rows shorter than the longest.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Tokenizes texts into one batch, padded on the right to the longest of them. An empty text is `[CLS] [SEP]`.
    ///
    /// # Errors
    /// If there are no texts, or one is longer than the model takes and truncation was not asked for.
    pub fn encode(&self, texts: &[Text<'_>]) -> Result<Encoded, PipelineError> {
        if texts.is_empty() {
            return Err(PipelineError::NoTexts);
        }
        let encodings =
            texts.iter().enumerate().map(|(i, text)| self.encode_one(i, text)).collect::<Result<_, _>>()?;
        Encoded::new(encodings, self.pad_id)
    }

    fn encode_one(&self, index: usize, text: &Text<'_>) -> Result<Encoding, PipelineError> {
        let (rows, _) = self.rows_by(index, text, |text| self.inner.encode(text, false))?;
        rows.into_iter().next().ok_or(PipelineError::NoTexts)
    }

    fn check_length(&self, length: usize) -> Result<(), PipelineError> {
        match self.max_positions {
            Some(limit) if length > limit => {
                let reason = format!("the model takes at most {limit}");
                Err(PipelineError::Truncation { length, reason })
            }
            _ => Ok(()),
        }
    }

    /// Checks that the special tokens fit.
    fn check_room(&self, length: usize, is_pair: bool) -> Result<(), PipelineError> {
        let special = self.special_tokens(is_pair);
        if length < special {
            let of = if is_pair { "a pair" } else { "a text" };
            let reason = format!("{special} of them are the special tokens of {of}");
            return Err(PipelineError::Truncation { length, reason });
        }
        Ok(())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocabulary", &self.inner.get_vocab_size(true))
            .field("pad_id", &self.pad_id)
            .field("max_positions", &self.max_positions)
            .field("truncation", &self.cut.map(|cut| cut.length))
            .finish_non_exhaustive()
    }
}

impl Words {
    /// No tokenizer takes texts that long: the number means that there is no limit.
    const NO_LIMIT: f64 = 1e9;

    fn read(config: &Settings, json: &Value) -> Result<Self, PipelineError> {
        let token = |setting, default: &str| -> Result<String, PipelineError> {
            Ok(config.token(setting)?.unwrap_or(default).to_owned())
        };
        let longest = config.get("model_max_length").and_then(Value::as_f64);
        Ok(Self {
            model_max_length: longest
                .filter(|length| (1. ..Self::NO_LIMIT).contains(length))
                .map(|length| length as usize),
            mask: token("mask_token", "[MASK]")?,
            unknown: token("unk_token", "[UNK]")?,
            classification: token("cls_token", "[CLS]")?,
            marks_subwords: json["model"]["continuing_subword_prefix"]
                .as_str()
                .is_some_and(|prefix| !prefix.is_empty()),
            cleans_up: config.bool("clean_up_tokenization_spaces")?.unwrap_or(false),
        })
    }
}

/// Checks what the library takes for granted when it applies a template: that every special token in it is defined, and that a
/// single text needs no second one.
fn check_template(processor: &Value) -> Result<(), String> {
    for inner in processor["processors"].as_array().into_iter().flatten() {
        check_template(inner)?;
    }
    let defined = &processor["special_tokens"];
    for (template, texts) in [("single", &["A"][..]), ("pair", &["A", "B"])] {
        for piece in processor[template].as_array().into_iter().flatten() {
            if let Some(token) = piece["SpecialToken"]["id"].as_str() {
                let count = |list: &str| defined[token][list].as_array().map(Vec::len);
                if count("ids").is_none() || count("ids") != count("tokens") {
                    return Err(format!(
                        "the template for a {template} uses '{token}', which it does not define"
                    ));
                }
            }
            if let Some(text) = piece["Sequence"]["id"].as_str()
                && !texts.contains(&text)
            {
                return Err(format!("the template for a {template} uses text {text}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
