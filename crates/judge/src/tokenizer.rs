//! A model that has tokenizer.json as well as vocab.txt has two tokenizers, and each is somebody's: do both give the same ids?

use bert_pipeline::{Text, Tokenizer};
use bytes::Bytes;
use checkpoint::{ModelFiles, from_json};
use report::Verdict;
pub use report::{Token, TokenDifference, TokenizerReport};
use serde_json::{Map, Value as Json};

use crate::ParityError;
use crate::inputs::SENTENCES;

const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";
const ADDED: &str = "added_tokens.json";

/// How many words the long text has: more tokens than any BERT takes.
const LONG: usize = 600;

/// A word of more characters than WordPiece looks at.
const LONG_WORD: usize = 101;

/// So many ids in a row without a token end a vocabulary: ids that were set aside are fewer.
const GAP: u32 = 1 << 16;

/// As much of a text is shown, in characters.
const SHOWN: usize = 60;

/// Texts on which settings show that ordinary ones hide.
const NASTY: [&str; 14] = [
    "UPPER CASE, Mixed Case and camelCase",
    "Café déjà vu, naïve façade, Zürich, Łódź, ÅNGSTRÖM",
    "Cafe\u{301} with an accent of its own",
    "東京タワー and 北京市, 한국어",
    "  two  spaces ,\ttabs\nand lines\r\n",
    "[CLS] special [SEP] tokens [MASK] in a [PAD] text [UNK]",
    "[cls] [Mask] <s> </s> <pad> [unused0]",
    "an emoji 🦜 and one of many 👩‍👩‍👧‍👦, and a private character \u{e000}",
    "don't stop: e.g. 3.14, $5.00 (50%), http://a.b/c_d?e=f#g",
    "İstanbul, straße, ﬁne ligature, ½ and Ⅳ",
    "zero\u{200b}width, soft\u{ad}hyphen, no\u{a0}break, \u{202e}turned\u{202c}",
    "control \u{1}\u{7f}\u{fffd} characters",
    "שלום עולם, مرحبا, नमस्ते, Привет",
    "",
];

/// A pair, which has a template of its own.
const PAIR: (&str, &str) = ("How do I read a File?", "Open it, then call its Read method.");

/// Gives both tokenizers the same texts; nothing if the model does not have both.
///
/// # Errors
/// If one of them cannot be read, or is none that can be made of a vocab.txt.
pub fn check_tokenizers(files: &ModelFiles) -> Result<Option<TokenizerReport>, ParityError> {
    let files = files.transformer()?;
    let (Some(tokenizer), Some(vocabulary)) = (files.read(TOKENIZER)?, files.read(VOCABULARY)?) else {
        return Ok(None);
    };
    let slow = Slow { vocabulary, config: files.read(CONFIG)?, added: files.read(ADDED)? };
    let fast = as_written(&tokenizer, &slow)?;
    let long = long_texts();
    let texts = probes(&long);
    let differences = differences(&fast, &slow.tokenizer(None)?, &texts)?;
    let json: Json = from_json(&tokenizer).unwrap_or_default();
    let config = slow.settings();
    let setting = match differences.is_empty() {
        true => None,
        false => slow.cause(&fast, &json, &config, &texts),
    };
    Ok(Some(TokenizerReport {
        verdict: if differences.is_empty() { Verdict::Pass } else { Verdict::Fail },
        texts: texts.len(),
        differing: differences.len(),
        difference: differences.into_iter().next(),
        setting,
        notes: truncation(&json, &config).into_iter().collect(),
    }))
}

/// What is not the same, and what each side has there.
pub(crate) type Parting = (String, [Option<String>; 2]);

/// Where two models' tokenizers part: on a text, in a token of the vocabulary. Both sides in words,
/// the first model's first; nothing where they are the same.
///
/// # Errors
/// If one of them fails on a text.
pub(crate) fn part([a, b]: [&Tokenizer; 2]) -> Result<Option<Parting>, ParityError> {
    let long = long_texts();
    if let Some(first) = differences(a, b, &probes(&long))?.into_iter().next() {
        let TokenDifference { text, position, tokenizer_json, vocab_txt } = first;
        let shown = |token: Option<Token>| token.map(|token| format!("'{}' ({})", token.token, token.id));
        let shown_text: String = text.chars().take(SHOWN).collect();
        let what = format!("token {position} of {shown_text:?}");
        return Ok(Some((what, [tokenizer_json, vocab_txt].map(shown))));
    }
    // Words that no probe has.
    let tokens = |id: u32| [a.id_to_token(id), b.id_to_token(id)];
    let mut absent = 0;
    for id in 0.. {
        let [of_a, of_b] = tokens(id);
        if of_a != of_b {
            return Ok(Some((format!("the token of id {id}"), [of_a, of_b])));
        }
        absent = if of_a.is_none() { absent + 1 } else { 0 };
        if absent > GAP {
            break;
        }
    }
    Ok(None)
}

/// All texts that tokenizers are tried on.
fn probes(long: &[String; 2]) -> Vec<Text<'_>> {
    let short = SENTENCES.iter().chain(&NASTY).map(|text| Text::from(*text));
    short.chain(long.iter().map(Text::from)).chain([Text::from(PAIR)]).collect()
}

/// What reads tokenizer.json alone makes of it, where transformers would let tokenizer_config.json
/// have its way.
fn as_written(tokenizer: &Bytes, slow: &Slow) -> Result<Tokenizer, ParityError> {
    let mut settings = slow.settings();
    settings.retain(|name, _| name == "pad_token");
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    let config = Bytes::from(Json::Object(settings).to_string());
    let files = ModelFiles::from_memory(TOKENIZER, [(TOKENIZER, tokenizer.clone()), (CONFIG, config)]);
    Ok(Tokenizer::from_files(&files, None)?)
}

/// More words than a model takes, and longer ones than WordPiece takes.
fn long_texts() -> [String; 2] {
    let words: Vec<&str> = SENTENCES.iter().flat_map(|text| text.split(' ')).cycle().take(LONG).collect();
    [words.join(" "), format!("{} {}", "a".repeat(LONG_WORD), "a".repeat(LONG_WORD - 1))]
}

/// The first difference on each text that has one. A difference in padding is one of the empty text.
fn differences(
    fast: &Tokenizer,
    slow: &Tokenizer,
    texts: &[Text],
) -> Result<Vec<TokenDifference>, ParityError> {
    let mut all = Vec::new();
    for text in texts {
        let [a, b] = [tokens(fast, text)?, tokens(slow, text)?];
        // The text of an id may differ where the id does not: then another id's does, too.
        let same = |at: &usize| {
            let key = |tokens: &[Token]| tokens.get(*at).map(|token| (token.id, token.token_type));
            key(&a) == key(&b)
        };
        let length = a.len().max(b.len());
        if let Some(position) = (0..length).find(|at| !same(at)) {
            let [tokenizer_json, vocab_txt] = [a, b].map(|tokens| tokens.get(position).cloned());
            all.push(TokenDifference { text: text.first.into(), position, tokenizer_json, vocab_txt });
        }
    }
    if fast.pad_id() != slow.pad_id() {
        let [tokenizer_json, vocab_txt] = [fast, slow].map(|tokenizer| {
            let token = tokenizer.id_to_token(tokenizer.pad_id()).unwrap_or_default();
            Some(Token { id: tokenizer.pad_id().into(), token, token_type: 0 })
        });
        // It stands after all tokens.
        all.push(TokenDifference { text: String::new(), position: 2, tokenizer_json, vocab_txt });
    }
    Ok(all)
}

fn tokens(tokenizer: &Tokenizer, text: &Text) -> Result<Vec<Token>, ParityError> {
    let encoded = tokenizer.encode(&[*text])?;
    let values = encoded.to_named_values();
    let input =
        |name: &str| values.get(name).and_then(|value| value.as_slice::<i64>().ok()).unwrap_or_default();
    let texts = encoded.tokens(0).unwrap_or_default();
    let ids = input("input_ids").iter().zip(input("token_type_ids")).zip(texts);
    Ok(ids.map(|((&id, &token_type), token)| Token { id, token: token.clone(), token_type }).collect())
}

/// vocab.txt, and what goes with it.
struct Slow {
    vocabulary: Bytes,
    config: Option<Bytes>,
    added: Option<Bytes>,
}

/// A setting of tokenizer_config.json, and what tokenizer.json has in its place.
struct Setting {
    name: &'static str,
    /// What tokenizer_config.json says, or what holds where it says nothing.
    here: Json,
    is_set: bool,
    /// Where tokenizer.json says it, in words.
    there_name: &'static str,
    there: Json,
}

impl Slow {
    /// The tokenizer, with these settings in the place of tokenizer_config.json.
    fn tokenizer(&self, settings: Option<&Map<String, Json>>) -> Result<Tokenizer, ParityError> {
        let config = match settings {
            Some(settings) => Some(Json::Object(settings.clone()).to_string().into()),
            None => self.config.clone(),
        };
        let vocabulary = Some((VOCABULARY, self.vocabulary.clone()));
        let config = config.map(|bytes| (CONFIG, bytes));
        let added = self.added.clone().map(|bytes| (ADDED, bytes));
        let files = ModelFiles::from_memory(VOCABULARY, [vocabulary, config, added].into_iter().flatten());
        Ok(Tokenizer::from_files(&files, None)?)
    }

    fn settings(&self) -> Map<String, Json> {
        self.config.as_ref().and_then(|bytes| from_json(bytes).ok()).unwrap_or_default()
    }

    /// What makes both the same if it is taken from tokenizer.json: one setting, or else all that differ; or else another vocabulary.
    fn cause(
        &self,
        fast: &Tokenizer,
        json: &Json,
        config: &Map<String, Json>,
        texts: &[Text],
    ) -> Option<String> {
        let settings: Vec<Setting> = settings(json, config);
        let same_with = |settings: &[&Setting]| {
            let mut changed = config.clone();
            for setting in settings {
                changed.insert(setting.name.into(), setting.there.clone());
            }
            let tokenizer = self.tokenizer(Some(&changed)).ok()?;
            differences(fast, &tokenizer, texts).ok()?.is_empty().then_some(())
        };
        if let Some(setting) = settings.iter().find(|setting| same_with(&[setting]).is_some()) {
            return Some(setting.words());
        }
        if let Some(vocabulary) = self.vocabulary_difference(json) {
            return Some(vocabulary);
        }
        let all: Vec<&Setting> = settings.iter().collect();
        let words = || all.iter().map(|setting| setting.words()).collect::<Vec<_>>().join("; ");
        match all.is_empty() {
            true => None,
            false if same_with(&all).is_some() => Some(words()),
            false => Some(format!("{}; and something else", words())),
        }
    }

    /// The first token whose id is not the same.
    fn vocabulary_difference(&self, json: &Json) -> Option<String> {
        let there = json["model"]["vocab"].as_object()?;
        let text = String::from_utf8_lossy(&self.vocabulary);
        let mut here = 0;
        for (line, token) in text.trim_end_matches(['\n', '\r']).lines().enumerate() {
            here += 1;
            let id = there.get(token).and_then(Json::as_u64);
            if id != Some(line as u64) {
                let id = id.map_or("is not there".into(), |id| format!("has id {id}"));
                return Some(format!("'{token}' has id {line} in {VOCABULARY}, and {id} in {TOKENIZER}"));
            }
        }
        (there.len() != here).then(|| format!("{TOKENIZER} has {} tokens, {VOCABULARY} {here}", there.len()))
    }
}

impl Setting {
    fn words(&self) -> String {
        let Self { name, here, there_name, there, .. } = self;
        let whose = if self.is_set { format!("in {CONFIG}") } else { format!("where {CONFIG} does not say") };
        format!("{name} is {here} {whose}, and {there_name} {there} in {TOKENIZER}")
    }
}

/// The settings that are not the same on both sides.
fn settings(json: &Json, config: &Map<String, Json>) -> Vec<Setting> {
    let normalizer = find(&json["normalizer"], "BertNormalizer");
    let [cls, sep] = around(&json["post_processor"]);
    let of_normalizer = |key: &str| normalizer.and_then(|normalizer| normalizer.get(key)).cloned();
    let token = |token: &Json| token.as_str().map(Json::from);
    let all = [
        ("do_lower_case", Json::Bool(true), "lowercase", of_normalizer("lowercase")),
        ("strip_accents", Json::Null, "strip_accents", of_normalizer("strip_accents")),
        (
            "tokenize_chinese_chars",
            Json::Bool(true),
            "handle_chinese_chars",
            of_normalizer("handle_chinese_chars"),
        ),
        ("unk_token", Json::from("[UNK]"), "unk_token", token(&json["model"]["unk_token"])),
        ("cls_token", Json::from("[CLS]"), "the first special token", token(&cls)),
        ("sep_token", Json::from("[SEP]"), "the last special token", token(&sep)),
        ("pad_token", Json::from("[PAD]"), "pad_token", token(&json["padding"]["pad_token"])),
        ("added_tokens_decoder", Json::Null, "added_tokens", decoder(&json["added_tokens"])),
    ];
    let differs = |(name, default, there_name, there): (&'static str, Json, &'static str, Option<Json>)| {
        let set = config.get(name).filter(|value| !value.is_null());
        let here = set.map_or(default, |value| value.get("content").unwrap_or(value).clone());
        let there = there?;
        (here != there).then_some(Setting { name, here, is_set: set.is_some(), there_name, there })
    };
    all.into_iter().filter_map(differs).collect()
}

/// The part of that type, be it within a sequence.
fn find<'a>(part: &'a Json, kind: &str) -> Option<&'a Json> {
    if part["type"] == kind {
        return Some(part);
    }
    let parts = ["normalizers", "processors"].into_iter().filter_map(|list| part[list].as_array()).flatten();
    parts.into_iter().find_map(|part| find(part, kind))
}

/// The special tokens before and after a text.
fn around(processor: &Json) -> [Json; 2] {
    if let Some(bert) = find(processor, "BertProcessing") {
        return ["cls", "sep"].map(|token| bert[token][0].clone());
    }
    let Some(template) = find(processor, "TemplateProcessing") else { return [Json::Null, Json::Null] };
    let pieces = template["single"].as_array();
    let special =
        |piece: Option<&Json>| piece.map(|piece| piece["SpecialToken"]["id"].clone()).unwrap_or_default();
    [special(pieces.and_then(|pieces| pieces.first())), special(pieces.and_then(|pieces| pieces.last()))]
}

/// tokenizer.json's list of added tokens as tokenizer_config.json has it.
fn decoder(added: &Json) -> Option<Json> {
    let by_id = added.as_array()?.iter().filter_map(|token| {
        let mut token = token.as_object()?.clone();
        let id = token.remove("id")?.as_u64()?;
        Some((id.to_string(), Json::Object(token)))
    });
    Some(Json::Object(by_id.collect()))
}

/// Where texts are cut, if both sides say, and not the same. Nobody cuts there unless asked to, so that it changes no id.
fn truncation(json: &Json, config: &Map<String, Json>) -> Option<String> {
    let there = json["truncation"]["max_length"].as_u64()?;
    let here = config.get("model_max_length")?.as_u64()?;
    let words =
        || format!("{TOKENIZER} cuts texts to {there} tokens, and model_max_length in {CONFIG} is {here}");
    (here != there).then(words)
}

#[cfg(test)]
mod tests;
