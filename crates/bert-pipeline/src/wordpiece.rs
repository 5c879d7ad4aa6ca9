//! vocab.txt and tokenizer_config.json, rewritten as the tokenizer.json that says the same.
//!
//! This is what transformers' conversion of its `BertTokenizer` does: BERT's normaliser and splitter, WordPiece by greedy longest
//! match (Wu et al. 2016, as in google-research/bert's `tokenization.py`), and `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` around.
//!
//! The slow `BertTokenizer` itself differs from its conversion in rare texts: it composes characters (NFC) first, and its Python
//! may know another version of Unicode. Models are used with the conversion (`AutoTokenizer` gives it), so that is followed.

use std::collections::HashMap;

use checkpoint::ModelFiles;
use serde_json::{Map, Value, json};

use crate::PipelineError;
use crate::settings::Settings;
use crate::tokenizer::resolve::{Class, configured};
use crate::tokenizer::{CONFIG, VOCABULARY};

/// A word of more characters than this is unknown as a whole; `BertTokenizer` has no setting for it.
const MAX_WORD_CHARS: usize = 100;

/// transformers' names for tokenizers that are this one, by another model's name.
const CLASSES: [&str; 5] =
    ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "ConvBertTokenizer"];

/// The special tokens: setting, default, and whether a vocabulary must have it.
const SPECIAL: [(&str, &str, bool); 5] = [
    ("pad_token", "[PAD]", true),
    ("unk_token", "[UNK]", true),
    ("cls_token", "[CLS]", true),
    ("sep_token", "[SEP]", true),
    ("mask_token", "[MASK]", false),
];

/// The tokenizer.json of a model that has vocab.txt only.
pub(crate) fn tokenizer_json(
    files: &ModelFiles,
    vocabulary: &[u8],
    config: &Settings,
    class: &Class,
) -> Result<Value, PipelineError> {
    // Other classes keep a vocab.txt too; WordPiece would read it, and give other tokens than the
    // model was trained with.
    class.must_be_one_of(&CLASSES)?;
    refuse_other_settings(files, config)?;
    let vocabulary = read_vocabulary(vocabulary)?;

    let mut special = HashMap::new();
    let mut added = Vec::new();
    for (setting, default, is_required) in SPECIAL {
        let token = config.token(setting)?.unwrap_or(default);
        match vocabulary.get(token) {
            Some(id) => {
                special.insert(setting, (token, id));
                added.push(added_token(token, id));
            }
            None if is_required => {
                return Err(PipelineError::MissingToken {
                    file: VOCABULARY,
                    role: role(setting),
                    token: token.to_owned(),
                });
            }
            None => {}
        }
    }
    for (id, token) in configured(config)? {
        added.retain(|other: &Value| other["content"] != token.content.as_str());
        added.push(json!({
            "id": id, "content": token.content, "special": token.special, "single_word": token.single_word,
            "lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized,
        }));
    }

    let token = |setting: &str| special.get(setting).map_or(("", &Value::Null), |&(token, id)| (token, id));
    let (cls, cls_id) = token("cls_token");
    let (sep, sep_id) = token("sep_token");
    let (unk, _) = token("unk_token");
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.bool("tokenize_chinese_chars")?.unwrap_or(true),
            "strip_accents": config.bool("strip_accents")?,
            "lowercase": config.bool("do_lower_case")?.unwrap_or(true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special_piece(cls, 0), text_piece("A", 0), special_piece(sep, 0)],
            "pair": [
                special_piece(cls, 0), text_piece("A", 0), special_piece(sep, 0),
                text_piece("B", 1), special_piece(sep, 1),
            ],
            "special_tokens": {
                cls: { "id": cls, "ids": [cls_id], "tokens": [cls] },
                sep: { "id": sep, "ids": [sep_id], "tokens": [sep] },
            },
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_WORD_CHARS,
            "vocab": vocabulary,
        },
    }))
}

/// What the token of a setting is for, in words.
pub(crate) fn role(setting: &str) -> &'static str {
    match setting {
        "pad_token" => "padding",
        "unk_token" => "unknown",
        "cls_token" => "classification",
        "sep_token" => "separator",
        "bos_token" => "first",
        "eos_token" => "last",
        "mask_token" => "mask",
        _ => "special",
    }
}

fn special_piece(token: &str, type_id: u32) -> Value {
    json!({ "SpecialToken": { "id": token, "type_id": type_id } })
}

fn text_piece(text: &str, type_id: u32) -> Value {
    json!({ "Sequence": { "id": text, "type_id": type_id } })
}

pub(crate) fn added_token(token: &str, id: &Value) -> Value {
    json!({
        "id": id, "content": token, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false,
    })
}

/// Refuses what would change the tokens, and is not done here.
fn refuse_other_settings(files: &ModelFiles, config: &Settings) -> Result<(), PipelineError> {
    let unsupported = |file, setting| Err(PipelineError::UnsupportedTokenizer { file, setting });
    if config.bool("do_basic_tokenize")? == Some(false) {
        return unsupported(CONFIG, "'do_basic_tokenize': false".to_owned());
    }
    const ADDED: &str = "added_tokens.json";
    if let Some(added) = Settings::read_if_there(files, ADDED)?
        && added.iter().next().is_some()
    {
        return unsupported(ADDED, "tokens beyond vocab.txt".to_owned());
    }
    Ok(())
}

/// One token a line; its id is its line, counted from 0.
fn read_vocabulary(bytes: &[u8]) -> Result<Map<String, Value>, PipelineError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        PipelineError::Vocabulary { line, reason: "it is not UTF-8".to_owned() }
    })?;
    // Blank lines at the end are an editor's. Within the list they would be tokens that nothing can match.
    let mut vocabulary = Map::new();
    for (id, token) in text.trim_end_matches(['\n', '\r']).lines().enumerate() {
        let error = |reason| PipelineError::Vocabulary { line: id + 1, reason };
        if token.is_empty() {
            return Err(error("it is empty".to_owned()));
        }
        if let Some(first) = vocabulary.insert(token.to_owned(), Value::from(id)) {
            let line = first.as_u64().map_or(0, |id| id + 1);
            return Err(error(format!("'{token}' stands on line {line} already")));
        }
    }
    if vocabulary.is_empty() {
        return Err(PipelineError::Vocabulary { line: 1, reason: "the file is empty".to_owned() });
    }
    Ok(vocabulary)
}
