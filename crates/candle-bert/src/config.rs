//! Hugging Face's config.json of a BERT.
//!
//! Fields that do not change what the model computes are ignored. A field that is absent or `null` has the value that
//! `transformers` gives it, which is that of BERT-base. A value that this crate would silently compute wrongly is
//! refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::bert::bert;
use crate::task::{class, pooler, task_of};

use std::error::Error;

use architecture::{Activation, Family, ProblemType, Program, Task, TaskError, UnknownActivation};

/// The sizes and choices that make a BERT (Devlin et al. 2018, section 3: *L* layers, hidden size *H*, *A* attention heads).
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// The number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// The width of every hidden state: *H*.
    pub hidden_size: usize,
    /// The number of encoder layers: *L*.
    pub num_hidden_layers: usize,
    /// The number of attention heads in each layer: *A*. It divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The width of the feed-forward layers: 4 *H* in the paper.
    pub intermediate_size: usize,
    /// The activation between the feed-forward layers.
    pub hidden_act: Activation,
    /// The longest sequence there are position embeddings for, in tokens.
    pub max_position_embeddings: usize,
    /// The number of segments a token may belong to.
    pub type_vocab_size: usize,
    /// What LayerNorm adds to the variance.
    pub layer_norm_eps: f64,
    /// The id of the padding token. The model itself does not treat it in any special way: padding is told by the mask.
    pub pad_token_id: usize,
    /// The classes the checkpoint was saved from, for instance `BertForSequenceClassification`; empty where not given.
    pub architectures: Vec<String>,
    /// How many labels a classifier tells apart; 1 in a regression, and in most cross-encoders. 2 where nothing is said.
    pub num_labels: usize,
    /// What the labels are called, by their id; empty where nothing is said. Otherwise there are `num_labels` of them.
    pub id2label: Vec<String>,
    /// How the logits of a sequence classifier are meant, where it is said.
    pub problem_type: Option<ProblemType>,
    /// Whether the decoder of a masked language model is the table of word embeddings; true where nothing is said.
    pub tie_word_embeddings: bool,
}

/// What can be done all the same with a model that is not run here.
const ON_GRAPHS: &str =
    "two ONNX graphs of it can be held against each other: 'parity ONE.onnx --onnx OTHER.onnx'";

/// Why a config.json is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum ConfigError {
    /// The bytes are not JSON.
    #[error("config.json is not JSON: {0}; download it again, or save the model again")]
    NotJson(#[from] serde_json::Error),
    /// They are JSON, but not an object.
    #[error("config.json must be a JSON object, got {found}; download it again, or save the model again")]
    NotAnObject { found: String },
    /// A field is of another type than `transformers` writes.
    #[error("config.json: {field} must be {expected}, got {found}")]
    WrongType { field: &'static str, expected: &'static str, found: String },
    /// A size is 0.
    #[error("config.json: {field} is 0, but a BERT needs at least one")]
    Zero { field: &'static str },
    /// More layers than [`BertConfig::MAX_HIDDEN_LAYERS`].
    #[error(
        "config.json: num_hidden_layers is {found}, more than the {} that are taken for a BERT",
        BertConfig::MAX_HIDDEN_LAYERS
    )]
    TooManyLayers { found: usize },
    /// The heads cannot have equal parts of the hidden state.
    #[error(
        "config.json: hidden_size {hidden_size} is not divisible by num_attention_heads {num_attention_heads}; \
         each head takes an equal part, so one of the two is wrong"
    )]
    Heads { hidden_size: usize, num_attention_heads: usize },
    /// The padding token is not in the vocabulary.
    #[error("config.json: pad_token_id {pad_token_id} is outside the vocabulary of {vocab_size} tokens")]
    PadToken { pad_token_id: usize, vocab_size: usize },
    /// The eps would make NaN, or change a sign.
    #[error(
        "config.json: layer_norm_eps is {found}, but must be finite and not negative (BERT's own is 1e-12)"
    )]
    LayerNormEps { found: f64 },
    /// An activation that is not one of [`Activation::NAMES`].
    #[error("config.json: hidden_act '{}' is not known; known are {}", .0.name, Activation::NAMES.join(", "))]
    Activation(#[from] UnknownActivation),
    /// Labels whose ids are not 0, 1, 2, …
    #[error("config.json: id2label must name the labels 0 to {}, but has none for {missing}", count - 1)]
    LabelIds { count: usize, missing: usize },
    /// More or fewer names than labels.
    #[error("config.json: id2label names {names} labels, but num_labels is {num_labels}; they must agree")]
    LabelCount { names: usize, num_labels: usize },
    /// What transformers does not know either.
    #[error(
        "config.json: problem_type '{found}' is not known; known are {}",
        ProblemType::ALL.map(ProblemType::name).join(", ")
    )]
    ProblemType { found: String },
    /// The config of another kind of model.
    #[error(
        "config.json: model_type is '{found}'; only 'bert' is run here, and similar models compute something \
         else; {ON_GRAPHS}"
    )]
    ModelType { found: String },
    /// Relative positions.
    #[error(
        "config.json: position_embedding_type is '{found}'; only 'absolute' is run here, \
         relative positions change the attention scores; {ON_GRAPHS}"
    )]
    PositionEmbeddingType { found: String },
    /// A decoder.
    #[error(
        "config.json: {field} is true; only encoders are run here, a decoder attends to earlier tokens \
         alone; {ON_GRAPHS}"
    )]
    Decoder { field: &'static str },
    /// A model that had heads removed.
    #[error(
        "config.json: pruned_heads names heads that were removed; only models with all their heads are run \
         here; {ON_GRAPHS}"
    )]
    PrunedHeads,
}

impl Default for BertConfig {
    /// BERT-base, uncased: the defaults of `transformers.BertConfig`.
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            architectures: Vec::new(),
            num_labels: 2,
            id2label: Vec::new(),
            problem_type: None,
            tie_word_embeddings: true,
        }
    }
}

impl BertConfig {
    /// Far more layers than any BERT has, and few enough that a list of them is no danger: the number comes from a file.
    pub const MAX_HIDDEN_LAYERS: usize = 1_000;

    /// Reads the bytes of a config.json.
    ///
    /// # Errors
    /// If they are not JSON, a field has the wrong type, or the values are impossible, contradictory, or those of a
    /// model that is not computed here.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        let fields = match checkpoint::from_json(json)? {
            Value::Object(fields) => Fields(fields),
            other => return Err(ConfigError::NotAnObject { found: shown(&other) }),
        };
        fields.refuse_other_models()?;
        let default = Self::default();
        let id2label = fields.labels()?;
        let config = Self {
            vocab_size: fields.size("vocab_size", default.vocab_size)?,
            hidden_size: fields.size("hidden_size", default.hidden_size)?,
            num_hidden_layers: fields.size("num_hidden_layers", default.num_hidden_layers)?,
            num_attention_heads: fields.size("num_attention_heads", default.num_attention_heads)?,
            intermediate_size: fields.size("intermediate_size", default.intermediate_size)?,
            hidden_act: match fields.text("hidden_act")? {
                Some(name) => name.parse()?,
                None => default.hidden_act,
            },
            max_position_embeddings: fields
                .size("max_position_embeddings", default.max_position_embeddings)?,
            type_vocab_size: fields.size("type_vocab_size", default.type_vocab_size)?,
            layer_norm_eps: fields
                .get("layer_norm_eps", "a number", Value::as_f64)?
                .unwrap_or(default.layer_norm_eps),
            pad_token_id: fields.size("pad_token_id", default.pad_token_id)?,
            architectures: fields
                .get("architectures", "a list of names", |value| {
                    value.as_array()?.iter().map(|name| Some(name.as_str()?.to_string())).collect()
                })?
                .unwrap_or_default(),
            // Where both are given, transformers counts the names.
            num_labels: match id2label.len() {
                0 => fields.size("num_labels", default.num_labels)?,
                names => names,
            },
            id2label,
            problem_type: fields.problem_type()?,
            tie_word_embeddings: fields
                .get("tie_word_embeddings", "true or false", Value::as_bool)?
                .unwrap_or(default.tie_word_embeddings),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the values make a BERT. [`BertConfig::from_json`] has done so already.
    ///
    /// # Errors
    /// The first value that is impossible, or contradicts another.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            if size == 0 {
                return Err(ConfigError::Zero { field });
            }
        }
        let &Self { vocab_size, hidden_size, num_hidden_layers, num_attention_heads, pad_token_id, .. } =
            self;
        if num_hidden_layers > Self::MAX_HIDDEN_LAYERS {
            return Err(ConfigError::TooManyLayers { found: num_hidden_layers });
        }
        if hidden_size % num_attention_heads != 0 {
            return Err(ConfigError::Heads { hidden_size, num_attention_heads });
        }
        if pad_token_id >= vocab_size {
            return Err(ConfigError::PadToken { pad_token_id, vocab_size });
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.) {
            return Err(ConfigError::LayerNormEps { found: self.layer_norm_eps });
        }
        let (names, num_labels) = (self.id2label.len(), self.num_labels);
        if names > 0 && names != num_labels {
            return Err(ConfigError::LabelCount { names, num_labels });
        }
        Ok(())
    }

    /// What a label is called: by [`BertConfig::id2label`], and where that is empty `LABEL_0`, `LABEL_1`, … as in transformers.
    pub fn label(&self, id: usize) -> Cow<'_, str> {
        match self.id2label.get(id) {
            Some(name) => name.into(),
            None => format!("LABEL_{id}").into(),
        }
    }

    /// The first label of that name: `label2id`.
    pub fn label_id(&self, name: &str) -> Option<usize> {
        (0..self.num_labels).find(|&id| self.label(id) == name)
    }

    /// What a model of this config is made of for a task. `has` tells whether the checkpoint has a
    /// tensor, by its name without a prefix: without a head, the model has a pooler if one of its
    /// tensors is there.
    ///
    /// # Errors
    /// As [`BertConfig::validate`], and if a classifier would have no labels.
    pub fn program(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Result<Program, ConfigError> {
        self.validate()?;
        let classifies = matches!(task, Task::SequenceClassification | Task::TokenClassification);
        if classifies && self.num_labels == 0 {
            return Err(ConfigError::Zero { field: "num_labels" });
        }
        let is_there = || ["pooler.dense.weight", "pooler.dense.bias"].iter().any(|name| has(name));
        Ok(bert(self, task, pooler(task).unwrap_or_else(is_there)))
    }

    /// The width of one attention head: *H* / *A*, d_k in Vaswani et al.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

impl Family for BertConfig {
    fn name(&self) -> &'static str {
        "BERT"
    }

    fn base(&self) -> &'static str {
        "bert"
    }

    fn program(
        &self,
        task: Task,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<Program, Box<dyn Error + Send + Sync>> {
        Ok(self.program(task, has)?)
    }

    fn task(&self) -> Result<Task, TaskError> {
        task_of(self)
    }

    fn class(&self, task: Task) -> &'static str {
        class(task)
    }

    fn pad_token_id(&self) -> usize {
        self.pad_token_id
    }

    fn num_labels(&self) -> usize {
        self.num_labels
    }

    fn label(&self, id: usize) -> Cow<'_, str> {
        self.label(id)
    }

    fn problem_type(&self) -> Option<ProblemType> {
        self.problem_type
    }
}

/// The fields of a config.json; those that are `null` count as absent.
struct Fields(Map<String, Value>);

impl Fields {
    fn get<'a, T>(
        &'a self,
        field: &'static str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(ConfigError::WrongType { field, expected, found: shown(value) }),
            },
        }
    }

    fn size(&self, field: &'static str, default: usize) -> Result<usize, ConfigError> {
        let size = self.get(field, "a whole number, not negative", |value| {
            value.as_u64().and_then(|size| usize::try_from(size).ok())
        })?;
        Ok(size.unwrap_or(default))
    }

    fn text(&self, field: &'static str) -> Result<Option<&str>, ConfigError> {
        self.get(field, "a string", Value::as_str)
    }

    /// `id2label` in the order of its ids, which are text in JSON. Some files have numbers for names.
    fn labels(&self) -> Result<Vec<String>, ConfigError> {
        let named = |value: &Value| match value {
            Value::String(name) => Some(name.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let expected = "an object of names by id, such as {\"0\": \"negative\", \"1\": \"positive\"}";
        let mut names: BTreeMap<usize, String> = self
            .get("id2label", expected, |value| {
                value.as_object()?.iter().map(|(id, name)| Some((id.parse().ok()?, named(name)?))).collect()
            })?
            .unwrap_or_default();
        let count = names.len();
        (0..count).map(|id| names.remove(&id).ok_or(ConfigError::LabelIds { count, missing: id })).collect()
    }

    fn problem_type(&self) -> Result<Option<ProblemType>, ConfigError> {
        let Some(found) = self.text("problem_type")? else { return Ok(None) };
        let known = ProblemType::ALL.into_iter().find(|kind| kind.name() == found);
        known.map(Some).ok_or_else(|| ConfigError::ProblemType { found: found.into() })
    }

    /// Models that have a BERT's tensors and compute something else with them.
    fn refuse_other_models(&self) -> Result<(), ConfigError> {
        if let Some(found) = self.text("model_type")?.filter(|&name| name != "bert") {
            return Err(ConfigError::ModelType { found: found.into() });
        }
        if let Some(found) = self.text("position_embedding_type")?.filter(|&name| name != "absolute") {
            return Err(ConfigError::PositionEmbeddingType { found: found.into() });
        }
        for field in ["is_decoder", "add_cross_attention"] {
            if self.get(field, "true or false", Value::as_bool)? == Some(true) {
                return Err(ConfigError::Decoder { field });
            }
        }
        match self.get("pruned_heads", "an object", Value::as_object)? {
            Some(pruned) if !pruned.is_empty() => Err(ConfigError::PrunedHeads),
            _ => Ok(()),
        }
    }
}

/// A JSON value for an error message, cut where it is long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
