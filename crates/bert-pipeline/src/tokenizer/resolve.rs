//! Which tokenizer transformers makes of a model's files, where they do not say one thing. What is
//! followed is `AutoTokenizer` of 4.57.
//!
//! The class decides: that of tokenizer_config.json, else that of config.json, else that of its
//! `model_type`. A class
//! without a fast version does not read tokenizer.json at all; BERT's and its kin make their
//! normaliser anew where tokenizer_config.json contradicts tokenizer.json, and what it leaves out
//! counts as their default.

use checkpoint::ModelFiles;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::normalizers::{NormalizerWrapper, Sequence, utils::Lowercase};

use super::{CONFIG, Tokenizer};
use crate::PipelineError;
use crate::settings::Settings;

const MODEL_CONFIG: &str = "config.json";
const CLASS: &str = "tokenizer_class";

/// The classes of models whose files name none, by `model_type`; that of all others is BERT's.
const OF_MODELS: [(&str, &str); 9] = [
    ("albert", "AlbertTokenizer"),
    ("camembert", "CamembertTokenizer"),
    ("deberta", "DebertaTokenizer"),
    ("deberta-v2", "DebertaV2Tokenizer"),
    ("modernbert", "PreTrainedTokenizer"),
    ("mpnet", "MPNetTokenizer"),
    ("roberta", "RobertaTokenizer"),
    ("xlm-roberta", "XLMRobertaTokenizer"),
    ("xlm-roberta-xl", "XLMRobertaTokenizer"),
];
const DEFAULT_CLASS: &str = "BertTokenizer";

/// Classes whose fast version is BERT's, by another model's name.
const BERT_LIKE: [&str; 15] = [
    "BertTokenizer",
    "ConvBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "FunnelTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MPNetTokenizer",
    "MobileBertTokenizer",
    "RealmTokenizer",
    "RetriBertTokenizer",
    "SplinterTokenizer",
    "SqueezeBertTokenizer",
];

/// Other classes whose fast version takes tokenizer.json as it is. `TokenizersBackend` is what
/// version 5 calls the one without a name.
const AS_WRITTEN: [&str; 33] = [
    "PreTrainedTokenizer",
    "TokenizersBackend",
    "AlbertTokenizer",
    "BartTokenizer",
    "BarthezTokenizer",
    "BigBirdTokenizer",
    "BloomTokenizer",
    "CLIPTokenizer",
    "CamembertTokenizer",
    "CodeGenTokenizer",
    "CohereTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "FNetTokenizer",
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
    "GemmaTokenizer",
    "HerbertTokenizer",
    "LEDTokenizer",
    "LlamaTokenizer",
    "LongformerTokenizer",
    "MBart50Tokenizer",
    "MBartTokenizer",
    "MT5Tokenizer",
    "NllbTokenizer",
    "PegasusTokenizer",
    "Qwen2Tokenizer",
    "ReformerTokenizer",
    "RemBertTokenizer",
    "RobertaTokenizer",
    "T5Tokenizer",
    "XLMRobertaTokenizer",
    "XLNetTokenizer",
];

/// The settings that name special tokens, and what they are with BERT's classes.
const SPECIAL: [(&str, Option<&str>); 7] = [
    ("bos_token", None),
    ("eos_token", None),
    ("unk_token", Some("[UNK]")),
    ("sep_token", Some("[SEP]")),
    ("pad_token", Some("[PAD]")),
    ("cls_token", Some("[CLS]")),
    ("mask_token", Some("[MASK]")),
];

/// A class of transformers', and the file that names it.
pub(crate) struct Class {
    name: String,
    file: &'static str,
}

impl Class {
    /// The class that these files name.
    pub(crate) fn of(files: &ModelFiles, config: &Settings) -> Result<Self, PipelineError> {
        if let Some(name) = config.string(CLASS)? {
            return Ok(Self { name: name.to_owned(), file: CONFIG });
        }
        let model = Settings::read(files, MODEL_CONFIG)?;
        let kind = model.string("model_type")?;
        let of_model = OF_MODELS.iter().find(|(model_type, _)| Some(*model_type) == kind);
        let default = of_model.map_or(DEFAULT_CLASS, |&(_, class)| class);
        Ok(Self { name: model.string(CLASS)?.unwrap_or(default).to_owned(), file: MODEL_CONFIG })
    }

    /// Its name without the ending of fast versions.
    fn stem(&self) -> &str {
        self.name.strip_suffix("Fast").unwrap_or(&self.name)
    }

    fn is_bert_like(&self) -> bool {
        BERT_LIKE.contains(&self.stem())
    }

    /// An error, unless the class is one of these.
    pub(crate) fn must_be_one_of(&self, classes: &[&str]) -> Result<(), PipelineError> {
        match classes.contains(&self.stem()) {
            true => Ok(()),
            false => Err(PipelineError::TokenizerClass { file: self.file, class: self.name.clone() }),
        }
    }

    /// tokenizer.json as this class reads it beside tokenizer_config.json.
    pub(super) fn resolve(&self, config: &Settings, json: &mut Value) -> Result<(), PipelineError> {
        if !AS_WRITTEN.contains(&self.stem()) {
            self.must_be_one_of(&BERT_LIKE)?;
        }
        let normalizer = json.get_mut("normalizer").and_then(Value::as_object_mut);
        let is_bert = |normalizer: &&mut Map<String, Value>| {
            normalizer.get("type").is_some_and(|name| name == "BertNormalizer")
        };
        if let Some(normalizer) = normalizer.filter(is_bert).filter(|_| self.is_bert_like()) {
            let settings = [
                ("lowercase", json!(config.bool("do_lower_case")?.unwrap_or(true))),
                ("strip_accents", json!(config.bool("strip_accents")?)),
                ("handle_chinese_chars", json!(config.bool("tokenize_chinese_chars")?.unwrap_or(true))),
            ];
            normalizer.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        }
        Ok(())
    }

    /// Adds the tokens that tokenizer_config.json has and tokenizer.json has not, or has with other
    /// properties.
    pub(super) fn add_tokens(
        &self,
        config: &Settings,
        tokenizer: &mut tokenizers::Tokenizer,
    ) -> Result<(), PipelineError> {
        for (id, token) in configured(config)? {
            let name = token.content.clone();
            let is_there = tokenizer.get_added_tokens_decoder().values().any(|known| *known == token);
            if !is_there {
                add(tokenizer, token)?;
            }
            let found = tokenizer.token_to_id(&name);
            if found != Some(id) {
                return Err(bad(other_id(&name, id.into(), found)));
            }
        }
        let mut special: Vec<String> = Vec::new();
        for (setting, default) in SPECIAL {
            let default = default.filter(|_| self.is_bert_like());
            special.extend(config.token(setting)?.or(default).map(str::to_owned));
        }
        for token in config.get("additional_special_tokens").and_then(Value::as_array).into_iter().flatten() {
            special.extend(token.get("content").unwrap_or(token).as_str().map(str::to_owned));
        }
        for token in special {
            let is_added = tokenizer.get_added_tokens_decoder().values().any(|known| known.content == token);
            // One that the vocabulary lacks would get an id that the model has no embedding for.
            if !is_added && tokenizer.token_to_id(&token).is_some() {
                add(tokenizer, AddedToken::from(token, true))?;
            }
        }
        Ok(())
    }
}

fn add(tokenizer: &mut tokenizers::Tokenizer, token: AddedToken) -> Result<(), PipelineError> {
    let added =
        if token.special { tokenizer.add_special_tokens([token]) } else { tokenizer.add_tokens([token]) };
    added.map(|_| ()).map_err(bad)
}

fn bad(reason: impl ToString) -> PipelineError {
    PipelineError::BadTokenizer { file: CONFIG, reason: reason.to_string() }
}

/// What is wrong with a token whose id a file says otherwise than its vocabulary.
pub(super) fn other_id(token: &str, id: u64, found: Option<u32>) -> String {
    let found = found.map_or("none".to_owned(), |id| id.to_string());
    format!("it gives '{token}' the id {id}, but the vocabulary makes that {found}")
}

/// What `added_tokens_decoder` lists, in the order of the ids.
pub(crate) fn configured(config: &Settings) -> Result<Vec<(u32, AddedToken)>, PipelineError> {
    const SETTING: &str = "added_tokens_decoder";
    let Some(value) = config.get(SETTING) else { return Ok(Vec::new()) };
    let wrong = || config.wrong(SETTING, "an object of tokens under their ids", value);
    let entry = |(id, token): (&String, &Value)| {
        let content = token.get("content")?.as_str()?;
        let flag = |name: &str| token.get(name).and_then(Value::as_bool);
        let special = flag("special").unwrap_or(false);
        let added = AddedToken::from(content, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special));
        Some((id.parse::<u32>().ok()?, added))
    };
    let entries = value.as_object().ok_or_else(wrong)?.iter().map(entry);
    let mut entries: Vec<(u32, AddedToken)> = entries.collect::<Option<_>>().ok_or_else(wrong)?;
    entries.sort_by_key(|&(id, _)| id);
    Ok(entries)
}

impl Tokenizer {
    /// This tokenizer, reading texts in lower case, before all that it does itself.
    pub(crate) fn lowering(mut self) -> Result<Self, PipelineError> {
        let first = NormalizerWrapper::Lowercase(Lowercase);
        let own = self.inner.get_normalizer().cloned();
        let steps = std::iter::once(first).chain(own).collect();
        self.inner.with_normalizer(Some(NormalizerWrapper::Sequence(Sequence::new(steps)))).map_err(bad)?;
        Ok(self)
    }
}
