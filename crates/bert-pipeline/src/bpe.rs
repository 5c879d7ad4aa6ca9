//! vocab.json and merges.txt, rewritten as the tokenizer.json that says the same: transformers'
//! conversion of its `RobertaTokenizer`.
//!
//! Bytes are letters of an alphabet of their own, and pairs of pieces are merged in the order of
//! merges.txt (Radford et al. 2019, section 2.2; Sennrich et al. 2016). Around a text stand `<s> A
//! </s>`, around two `<s> A </s></s> B </s>`.

use checkpoint::ModelFiles;
use serde_json::{Map, Value, json};

use crate::PipelineError;
use crate::settings::Settings;
use crate::tokenizer::resolve::{Class, configured};
use crate::wordpiece::{added_token, role};

/// The ids of pieces.
pub(crate) const VOCABULARY: &str = "vocab.json";

/// Pairs of pieces, a line each, the first to be merged first.
pub(crate) const MERGES: &str = "merges.txt";

/// transformers' names for tokenizers that are this one.
const CLASSES: [&str; 1] = ["RobertaTokenizer"];

/// The special tokens: setting, default, and whether spaces before it are its own.
const SPECIAL: [(&str, &str, bool); 7] = [
    ("bos_token", "<s>", false),
    ("eos_token", "</s>", false),
    ("unk_token", "<unk>", false),
    ("sep_token", "</s>", false),
    ("pad_token", "<pad>", false),
    ("cls_token", "<s>", false),
    ("mask_token", "<mask>", true),
];

/// The tokenizer.json of a model that has these two files.
pub(crate) fn tokenizer_json(
    files: &ModelFiles,
    vocabulary: &[u8],
    config: &Settings,
    class: &Class,
) -> Result<Value, PipelineError> {
    class.must_be_one_of(&CLASSES)?;
    let bad = |file, reason: &str| PipelineError::BadTokenizer { file, reason: reason.to_owned() };
    let vocabulary: Map<String, Value> = checkpoint::from_json(vocabulary)
        .map_err(|source| PipelineError::Json { file: VOCABULARY.to_owned(), source })?;
    let merges = files.read(MERGES)?.ok_or_else(|| bad(VOCABULARY, "merges.txt is not beside it"))?;
    let merges = std::str::from_utf8(&merges).map_err(|_| bad(MERGES, "it is not UTF-8"))?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let mut added: Vec<Value> = Vec::new();
    let mut special = Map::new();
    for (setting, default, takes_spaces) in SPECIAL {
        let token = config.token(setting)?.unwrap_or(default);
        let Some(id) = vocabulary.get(token) else {
            return Err(PipelineError::MissingToken {
                file: VOCABULARY,
                role: role(setting),
                token: token.to_owned(),
            });
        };
        special.insert(setting.to_owned(), json!([token, id]));
        if added.iter().all(|other| other["content"] != token) {
            let mut entry = added_token(token, id);
            entry["lstrip"] = takes_spaces.into();
            added.push(entry);
        }
    }
    for (id, token) in configured(config)? {
        added.retain(|other: &Value| other["content"] != token.content.as_str());
        added.push(json!({
            "id": id, "content": token.content, "special": token.special, "single_word": token.single_word,
            "lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized,
        }));
    }
    added.sort_by_key(|token| token["id"].as_u64());
    let begins = config.bool("add_prefix_space")?.unwrap_or(false);
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer":
            { "type": "ByteLevel", "add_prefix_space": begins, "trim_offsets": true, "use_regex": true },
        "post_processor": {
            "type": "RobertaProcessing", "sep": special["sep_token"], "cls": special["cls_token"],
            "trim_offsets": true, "add_prefix_space": begins,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}
