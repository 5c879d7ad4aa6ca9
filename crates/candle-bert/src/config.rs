//! Hugging Face's config.json: what all families read alike, and which family one is of.
//!
//! Fields that do not change what a model computes are ignored. A field that is absent or `null`
//! has the value that `transformers` gives it. A value that would silently be computed wrongly is
//! refused.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use architecture::{Activation, Draft, Family, ProblemType, Program, Task, UnknownActivation};
use serde_json::{Map, Value};

use crate::classes::{Classes, class};
use crate::{
    AlbertConfig, BertConfig, DistilBertConfig, ElectraConfig, GteConfig, ModernBertConfig, MpnetConfig,
    NomicBertConfig, OtherConfig, RobertaConfig,
};

/// Far more layers than any encoder has, and few enough that a list of them is no danger: the
/// number comes from a file.
pub const MAX_HIDDEN_LAYERS: usize = 1_000;

/// The values of `model_type` of all families.
fn model_types() -> Vec<&'static str> {
    let all = [
        BertConfig::MODEL_TYPES,
        ElectraConfig::MODEL_TYPES,
        RobertaConfig::MODEL_TYPES,
        DistilBertConfig::MODEL_TYPES,
        MpnetConfig::MODEL_TYPES,
        AlbertConfig::MODEL_TYPES,
        ModernBertConfig::MODEL_TYPES,
        NomicBertConfig::MODEL_TYPES,
        GteConfig::MODEL_TYPES,
    ];
    all.into_iter().flatten().map(|(model_type, _)| *model_type).collect()
}

/// The family that a config.json is of, by its `model_type`; without one it is BERT.
///
/// Of a family that is not known here, what any config.json says is read: [`OtherConfig`].
///
/// ```
/// use candle_bert::{Task, family};
///
/// let family = family(br#"{"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}"#)?;
/// assert_eq!((family.name(), family.task()?), ("RoBERTa", Task::MaskedLm));
/// assert_eq!(family.limits().positions, 510);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the bytes are not JSON, a field has the wrong type, or the values are impossible,
/// contradictory, or those of a model that is not computed here.
pub fn family(json: &[u8]) -> Result<Arc<dyn Family>, ConfigError> {
    let fields = Fields::read(json)?;
    let found = fields.text("model_type")?;
    let is = |of: &[(&str, &str)]| of.iter().any(|(model_type, _)| Some(*model_type) == found);
    Ok(match found {
        _ if is(ElectraConfig::MODEL_TYPES) => Arc::new(ElectraConfig::of(&fields)?),
        _ if is(RobertaConfig::MODEL_TYPES) => Arc::new(RobertaConfig::of(&fields)?),
        _ if is(DistilBertConfig::MODEL_TYPES) => Arc::new(DistilBertConfig::of(&fields)?),
        _ if is(AlbertConfig::MODEL_TYPES) => Arc::new(AlbertConfig::of(&fields)?),
        _ if is(MpnetConfig::MODEL_TYPES) => Arc::new(MpnetConfig::of(&fields)?),
        _ if is(ModernBertConfig::MODEL_TYPES) => Arc::new(ModernBertConfig::of(&fields)?),
        _ if is(NomicBertConfig::MODEL_TYPES) => Arc::new(NomicBertConfig::of(&fields)?),
        _ if is(GteConfig::MODEL_TYPES) => Arc::new(GteConfig::of(&fields)?),
        Some(found) if !is(BertConfig::MODEL_TYPES) => Arc::new(OtherConfig::of(&fields, found)?),
        _ => Arc::new(BertConfig::of(&fields)?),
    })
}

/// What the file of a family says beside its fields. The rest of [`Family`] follows from it.
pub(crate) trait Described {
    /// See [`Family::name`].
    const NAME: &'static str;

    /// See [`Family::base`].
    const BASE: &'static str;

    /// What `model_type` may be, each with what the names of transformers' classes begin with.
    const MODEL_TYPES: &'static [(&'static str, &'static str)];

    /// How those names end, and the task that each is for.
    const CLASSES: Classes;

    /// What `position_embedding_type` must be, where it is said.
    const POSITIONS: &'static [&'static str] = &["absolute"];

    /// See [`Family::is_of_transformers`].
    const IS_OF_TRANSFORMERS: bool = true;

    /// What the names of transformers' classes begin with.
    fn class_prefix(&self) -> &'static str {
        Self::MODEL_TYPES[0].1
    }

    /// A model of a task that is still to be written.
    fn draft(&self, task: Task) -> Draft {
        let class = |task| class(self.class_prefix(), Self::CLASSES, task);
        Draft::new(&class(task), &class(Task::FeatureExtraction), task)
    }

    /// The sizes that any encoder has.
    fn sizes(&self) -> Sizes;

    /// What of config.json makes another model.
    fn refuse(_: &Fields) -> Result<(), ConfigError> {
        Ok(())
    }

    /// What must hold beside what must hold for all families.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The model of a task; see [`Family::program`].
    fn describe(&self, task: Task, has: &dyn Fn(&str) -> bool) -> Program;
}

/// The sizes that any encoder has, each with the field that says it.
pub(crate) struct Sizes {
    pub hidden: (&'static str, usize),
    pub heads: (&'static str, usize),
    pub layers: (&'static str, usize),
}

/// Declares the config of a family: what its file says with [`Described`], its own fields, each
/// with its kind and the value that transformers gives it where config.json is silent, and the id
/// that pads where it names none. What every config has is added.
macro_rules! config {
    (@type size) => { usize };
    (@type eps) => { f64 };
    (@type activation) => { architecture::Activation };
    (@type flag) => { bool };
    (@type base) => { f64 };
    (@type own_base) => { Option<f64> };
    (@type ntk) => { Option<f64> };
    (@type part) => { f64 };
    (@type count) => { usize };
    (@type own_size) => { Option<usize> };
    (@type name) => { String };
    (@check size, $name:expr, $value:expr) => {
        if $value == 0 {
            return Err($crate::ConfigError::Zero { field: $name });
        }
    };
    (@check eps, $name:expr, $value:expr) => {
        $crate::config::check_eps($name, $value)?;
    };
    (@check base, $name:expr, $value:expr) => {
        $crate::config::check_base($name, $value)?;
    };
    (@check own_base, $name:expr, $value:expr) => {
        if let Some(base) = $value {
            $crate::config::check_base($name, base)?;
        }
    };
    (@check ntk, $name:expr, $value:expr) => {
        if let Some(factor) = $value {
            $crate::config::check_base($name, factor)?;
        }
    };
    (@check own_size, $name:expr, $value:expr) => {
        if $value == Some(0) {
            return Err($crate::ConfigError::Zero { field: $name });
        }
    };
    (@check part, $name:expr, $value:expr) => {
        if !(0.0..=1.0).contains(&$value) {
            return Err($crate::ConfigError::Part { field: $name, found: $value });
        }
    };
    (@check $kind:ident, $name:expr, $value:expr) => {};
    (
        $(#[$doc:meta])*
        pub struct $config:ident, padding $pad:literal {
            $($(#[$field_doc:meta])* $field:ident: $kind:ident = $default:expr,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $config {
            $($(#[$field_doc])* pub $field: $crate::config::config!(@type $kind),)*
            /// The id of the padding token.
            pub pad_token_id: usize,
            /// The classes the checkpoint was saved from; empty where not given.
            pub architectures: Vec<String>,
            /// How many labels a classifier tells apart; 1 in a regression, and in most
            /// cross-encoders. 2 where nothing is said.
            pub num_labels: usize,
            /// What the labels are called, by their id; empty where nothing is said. Otherwise
            /// there are `num_labels` of them.
            pub id2label: Vec<String>,
            /// How the logits of a sequence classifier are meant, where it is said.
            pub problem_type: Option<architecture::ProblemType>,
            /// Whether the decoder of a masked language model is the table of word embeddings; true
            /// where nothing is said.
            pub tie_word_embeddings: bool,
        }

        impl Default for $config {
            /// What transformers gives where config.json is silent.
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    pad_token_id: $pad,
                    architectures: Vec::new(),
                    num_labels: $crate::config::NUM_LABELS,
                    id2label: Vec::new(),
                    problem_type: None,
                    tie_word_embeddings: true,
                }
            }
        }

        impl $config {
            /// Reads the bytes of a config.json.
            ///
            /// # Errors
            /// If they are not JSON, a field has the wrong type, or the values are impossible,
            /// contradictory, or those of a model that is not computed here.
            pub fn from_json(json: &[u8]) -> Result<Self, $crate::ConfigError> {
                Self::of(&$crate::config::Fields::read(json)?)
            }

            pub(crate) fn of(fields: &$crate::config::Fields) -> Result<Self, $crate::ConfigError> {
                fields.refuse_others::<Self>()?;
                Self::refuse(fields)?;
                let default = Self::default();
                let id2label = fields.labels()?;
                let config = Self {
                    $($field: fields.$kind(stringify!($field), default.$field)?,)*
                    pad_token_id: fields.size("pad_token_id", default.pad_token_id)?,
                    architectures: fields.architectures()?,
                    num_labels: fields.num_labels(&id2label)?,
                    id2label,
                    problem_type: fields.problem_type()?,
                    tie_word_embeddings: fields.flag("tie_word_embeddings", default.tie_word_embeddings)?,
                };
                config.validate()?;
                Ok(config)
            }

            /// Checks that the values make a model. Reading has done so already.
            ///
            /// # Errors
            /// The first value that is impossible, or contradicts another.
            pub fn validate(&self) -> Result<(), $crate::ConfigError> {
                $($crate::config::config!(@check $kind, stringify!($field), self.$field);)*
                let (vocabulary, labels) = (
                    (self.vocab_size, self.pad_token_id),
                    (self.id2label.len(), self.num_labels),
                );
                $crate::config::check(self, vocabulary, labels)?;
                self.check()
            }

            /// What a label is called: by `id2label`, and where that is empty `LABEL_0`,
            /// `LABEL_1`, … as in transformers.
            pub fn label(&self, id: usize) -> std::borrow::Cow<'_, str> {
                $crate::config::label(&self.id2label, id)
            }

            /// The first label of that name: `label2id`.
            pub fn label_id(&self, name: &str) -> Option<usize> {
                (0..self.num_labels).find(|&id| self.label(id) == name)
            }

            /// What a model of this config is made of for a task. `has` tells whether the
            /// checkpoint has a tensor, by its name without a prefix: without a head, the model has
            /// a pooler if one of its tensors is there.
            ///
            /// # Errors
            /// As `validate`, and if it has no such head, or a classifier would have no labels.
            pub fn program(
                &self,
                task: architecture::Task,
                has: &dyn Fn(&str) -> bool,
            ) -> Result<architecture::Program, $crate::ConfigError> {
                self.validate()?;
                $crate::config::check_head::<Self>(task, self.num_labels)?;
                Ok(self.describe(task, has))
            }

            /// The width of one attention head: d_k in Vaswani et al.
            pub fn head_size(&self) -> usize {
                let sizes = self.sizes();
                sizes.hidden.1 / sizes.heads.1
            }
        }

        impl architecture::Family for $config {
            fn name(&self) -> &'static str {
                Self::NAME
            }

            fn base(&self) -> &'static str {
                Self::BASE
            }

            fn is_of_transformers(&self) -> bool {
                Self::IS_OF_TRANSFORMERS
            }

            fn program(
                &self,
                task: architecture::Task,
                has: &dyn Fn(&str) -> bool,
            ) -> Result<architecture::Program, Box<dyn std::error::Error + Send + Sync>> {
                Ok(self.program(task, has)?)
            }

            fn task(&self) -> Result<architecture::Task, architecture::TaskError> {
                $crate::classes::task_of(Self::NAME, self.class_prefix(), Self::CLASSES, &self.architectures)
            }

            fn class(&self, task: architecture::Task) -> std::borrow::Cow<'static, str> {
                $crate::classes::class(self.class_prefix(), Self::CLASSES, task)
            }

            fn architectures(&self) -> &[String] {
                &self.architectures
            }

            fn pad_token_id(&self) -> usize {
                self.pad_token_id
            }

            fn num_labels(&self) -> usize {
                self.num_labels
            }

            fn label(&self, id: usize) -> std::borrow::Cow<'_, str> {
                self.label(id)
            }

            fn problem_type(&self) -> Option<architecture::ProblemType> {
                self.problem_type
            }
        }
    };
}
pub(crate) use config;

/// What can be done all the same with a model that is not run here.
const ON_GRAPHS: &str = "its graphs are run all the same: 'parity ONE.onnx --onnx OTHER.onnx' holds \
two against each other, 'parity run GRAPH --expected FILE' holds one against outputs that were saved, and \
'parity embed' and 'parity predict' take a folder with a graph";

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
    #[error("config.json: {field} is 0, but must be 1 or more")]
    Zero { field: &'static str },
    /// Layers that cannot be shared out to groups.
    #[error(
        "config.json: {groups} groups of {inner} layers cannot run {layers} times: num_hidden_groups may be at most \
         num_hidden_layers, and inner_group_num at most {MAX_HIDDEN_LAYERS}"
    )]
    Groups { layers: usize, groups: usize, inner: usize },
    /// Fewer rows than distances need.
    #[error(
        "config.json: relative_attention_num_buckets is {found}, but distances are put into {least} buckets \
         whatever it says, as transformers does: with fewer rows the model does not run there either"
    )]
    Buckets { found: usize, least: usize },
    /// More layers than [`MAX_HIDDEN_LAYERS`].
    #[error(
        "config.json: {field} is {found}, more than the {MAX_HIDDEN_LAYERS} that an encoder may have here"
    )]
    TooManyLayers { field: &'static str, found: usize },
    /// The heads cannot have equal parts of the hidden state.
    #[error(
        "config.json: {} {} is not divisible by {} {}; each head takes an equal part, so one of the two is \
         wrong",
        hidden.0, hidden.1, heads.0, heads.1
    )]
    Heads { hidden: (&'static str, usize), heads: (&'static str, usize) },
    /// Positions that start behind the padding's leave none.
    #[error(
        "config.json: max_position_embeddings is {positions}, and positions begin behind pad_token_id \
         {pad_token_id}: no text has one; one of the two is wrong"
    )]
    NoPositions { positions: usize, pad_token_id: usize },
    /// The padding token is not in the vocabulary.
    #[error("config.json: pad_token_id {pad_token_id} is outside the vocabulary of {vocab_size} tokens")]
    PadToken { pad_token_id: usize, vocab_size: usize },
    /// The eps would make NaN, or change a sign.
    #[error("config.json: {field} is {found}, but must be finite and not negative (such as 1e-12)")]
    LayerNormEps { field: &'static str, found: f64 },
    /// No base of angles.
    #[error("config.json: {field} is {found}, but must be a finite number above 0 (such as 10000.0)")]
    Base { field: &'static str, found: f64 },
    /// A part of something that is more than all of it, or less than nothing.
    #[error("config.json: {field} is {found}, but must be from 0 to 1")]
    Part { field: &'static str, found: f64 },
    /// Heads whose features cannot be turned in pairs.
    #[error(
        "config.json: {size} features of each head would be turned, and rotary positions turn them in pairs: the \
         number must be even, so the hidden size, the number of heads, or the part that is turned is wrong"
    )]
    OddHeads { size: String },
    /// An activation that is not one of [`Activation::NAMES`].
    #[error("config.json: {field} '{}' is not known; known are {}", source.name, Activation::NAMES.join(", "))]
    Activation { field: &'static str, source: UnknownActivation },
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
    /// The config of another family.
    #[error(
        "config.json: model_type is '{found}', and that of {family} is {expected}: read it as what it is"
    )]
    OtherFamily { found: String, family: &'static str, expected: String },
    /// The config of a family that is not known here.
    #[error("config.json: model_type is '{found}'; known are {}; {ON_GRAPHS}", model_types().join(", "))]
    ModelType { found: String },
    /// A value that makes another model, which is not run here.
    #[error("config.json: {field} is '{found}'; only {known} is run here; {ON_GRAPHS}")]
    Choice { field: &'static str, found: String, known: String },
    /// A head that the family does not have.
    #[error("{family} has no head for {task}; name one that it has: {}", known.join(", "))]
    NoHead { family: &'static str, task: Task, known: Vec<&'static str> },
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

/// What every config is checked for; a field of size 0 apart.
pub(crate) fn check<C: Described>(
    config: &C,
    (vocab_size, pad_token_id): (usize, usize),
    (names, num_labels): (usize, usize),
) -> Result<(), ConfigError> {
    let Sizes { hidden, heads, layers: (field, layers) } = config.sizes();
    if layers > MAX_HIDDEN_LAYERS {
        return Err(ConfigError::TooManyLayers { field, found: layers });
    }
    if hidden.1 % heads.1 != 0 {
        return Err(ConfigError::Heads { hidden, heads });
    }
    if pad_token_id >= vocab_size {
        return Err(ConfigError::PadToken { pad_token_id, vocab_size });
    }
    if names > 0 && names != num_labels {
        return Err(ConfigError::LabelCount { names, num_labels });
    }
    Ok(())
}

/// How many labels there are where nothing is said.
pub(crate) const NUM_LABELS: usize = 2;

/// What a label is called.
pub(crate) fn label(names: &[String], id: usize) -> Cow<'_, str> {
    match names.get(id) {
        Some(name) => name.into(),
        None => format!("LABEL_{id}").into(),
    }
}

/// Refuses a head that the family does not have, and a classifier of no labels.
pub(crate) fn check_head<C: Described>(task: Task, num_labels: usize) -> Result<(), ConfigError> {
    let classifies = matches!(task, Task::SequenceClassification | Task::TokenClassification);
    if classifies && num_labels == 0 {
        return Err(ConfigError::Zero { field: "num_labels" });
    }
    let tasks = || C::CLASSES.iter().map(|&(_, task)| task);
    if tasks().all(|known| known != task) {
        let mut known: Vec<&str> = tasks().map(Task::name).collect();
        known.dedup();
        return Err(ConfigError::NoHead { family: C::NAME, task, known });
    }
    Ok(())
}

/// A number that LayerNorm adds to the variance: it may make neither NaN nor another sign.
pub(crate) fn check_eps(field: &'static str, eps: f64) -> Result<(), ConfigError> {
    let is_one = eps.is_finite() && eps >= 0.;
    is_one.then_some(()).ok_or(ConfigError::LayerNormEps { field, found: eps })
}

/// The base of angles.
pub(crate) fn check_base(field: &'static str, base: f64) -> Result<(), ConfigError> {
    let is_one = base.is_finite() && base > 0.;
    is_one.then_some(()).ok_or(ConfigError::Base { field, found: base })
}

/// The fields of a config.json; those that are `null` count as absent.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads the bytes of a config.json.
    pub(crate) fn read(json: &[u8]) -> Result<Self, ConfigError> {
        match checkpoint::from_json(json)? {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(ConfigError::NotAnObject { found: shown(&other) }),
        }
    }

    pub(crate) fn get<'a, T>(
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

    pub(crate) fn size(&self, field: &'static str, default: usize) -> Result<usize, ConfigError> {
        let size = self.get(field, "a whole number, not negative", |value| {
            value.as_u64().and_then(|size| usize::try_from(size).ok())
        })?;
        Ok(size.unwrap_or(default))
    }

    pub(crate) fn flag(&self, field: &'static str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.get(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub(crate) fn eps(&self, field: &'static str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.get(field, "a number", Value::as_f64)?.unwrap_or(default))
    }

    pub(crate) fn part(&self, field: &'static str, default: f64) -> Result<f64, ConfigError> {
        self.eps(field, default)
    }

    pub(crate) fn count(&self, field: &'static str, default: usize) -> Result<usize, ConfigError> {
        self.size(field, default)
    }

    pub(crate) fn own_size(
        &self,
        field: &'static str,
        default: Option<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        let none = default.unwrap_or(0);
        Ok(self.get(field, "a whole number", Value::as_u64)?.map_or(default, |_| self.size(field, none).ok()))
    }

    /// The factor of angles that were made slower: `{"type": "ntk", "factor": 2.0}`.
    pub(crate) fn ntk(&self, field: &'static str, default: Option<f64>) -> Result<Option<f64>, ConfigError> {
        let expected = "an object such as {\"type\": \"ntk\", \"factor\": 2.0}";
        let Some(scaling) = self.get(field, expected, Value::as_object)? else { return Ok(default) };
        let scaling = Self(scaling.clone());
        scaling.only("type", "ntk")?;
        scaling.none("mixed_b")?;
        scaling.get("factor", "a number", Value::as_f64)?.map(Some).ok_or_else(|| ConfigError::WrongType {
            field,
            expected,
            found: shown(&Value::Object(scaling.0.clone())),
        })
    }

    pub(crate) fn base(&self, field: &'static str, default: f64) -> Result<f64, ConfigError> {
        self.eps(field, default)
    }

    /// A base that `null` says there is none of.
    pub(crate) fn own_base(
        &self,
        field: &'static str,
        default: Option<f64>,
    ) -> Result<Option<f64>, ConfigError> {
        match self.0.get(field) {
            Some(Value::Null) => Ok(None),
            _ => Ok(self.get(field, "a number", Value::as_f64)?.or(default)),
        }
    }

    pub(crate) fn activation(
        &self,
        field: &'static str,
        default: Activation,
    ) -> Result<Activation, ConfigError> {
        let Some(name) = self.text(field)? else { return Ok(default) };
        name.parse().map_err(|source| ConfigError::Activation { field, source })
    }

    pub(crate) fn name(&self, field: &'static str, default: String) -> Result<String, ConfigError> {
        Ok(self.text(field)?.map_or(default, String::from))
    }

    pub(crate) fn architectures(&self) -> Result<Vec<String>, ConfigError> {
        let names = self.get("architectures", "a list of names", |value| {
            value.as_array()?.iter().map(|name| Some(name.as_str()?.to_string())).collect()
        })?;
        Ok(names.unwrap_or_default())
    }

    pub(crate) fn text(&self, field: &'static str) -> Result<Option<&str>, ConfigError> {
        self.get(field, "a string", Value::as_str)
    }

    /// `id2label` in the order of its ids, which are text in JSON. Some files have numbers for names.
    pub(crate) fn labels(&self) -> Result<Vec<String>, ConfigError> {
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

    /// How many labels there are. Where both are given, transformers counts the names.
    pub(crate) fn num_labels(&self, names: &[String]) -> Result<usize, ConfigError> {
        if names.is_empty() { self.size("num_labels", NUM_LABELS) } else { Ok(names.len()) }
    }

    pub(crate) fn problem_type(&self) -> Result<Option<ProblemType>, ConfigError> {
        let Some(found) = self.text("problem_type")? else { return Ok(None) };
        let known = ProblemType::ALL.into_iter().find(|kind| kind.name() == found);
        known.map(Some).ok_or_else(|| ConfigError::ProblemType { found: found.into() })
    }

    /// Models that have such tensors and compute something else with them.
    pub(crate) fn refuse_others<C: Described>(&self) -> Result<(), ConfigError> {
        let types = || C::MODEL_TYPES.iter().map(|(model_type, _)| *model_type);
        if let Some(found) = self.text("model_type")?.filter(|&found| types().all(|known| known != found)) {
            let expected = types().map(|known| format!("'{known}'")).collect::<Vec<_>>().join(" or ");
            return Err(ConfigError::OtherFamily { found: found.into(), family: C::NAME, expected });
        }
        self.one_of("position_embedding_type", C::POSITIONS)?;
        for field in ["is_decoder", "add_cross_attention"] {
            if self.flag(field, false)? {
                return Err(ConfigError::Decoder { field });
            }
        }
        match self.get("pruned_heads", "an object", Value::as_object)? {
            Some(pruned) if !pruned.is_empty() => Err(ConfigError::PrunedHeads),
            _ => Ok(()),
        }
    }

    /// Refuses what is true.
    pub(crate) fn not(&self, field: &'static str) -> Result<(), ConfigError> {
        match self.flag(field, false)? {
            true => Err(ConfigError::Choice { field, found: "true".into(), known: "'false'".into() }),
            false => Ok(()),
        }
    }

    /// Refuses any value.
    pub(crate) fn none(&self, field: &'static str) -> Result<(), ConfigError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(found) => Err(ConfigError::Choice { field, found: shown(found), known: "'null'".into() }),
        }
    }

    /// Refuses all values but one, which holds where there is none.
    pub(crate) fn only(&self, field: &'static str, known: &'static str) -> Result<(), ConfigError> {
        self.one_of(field, &[known])
    }

    /// Refuses all values but these, of which one holds where there is none.
    pub(crate) fn one_of(&self, field: &'static str, known: &[&'static str]) -> Result<(), ConfigError> {
        match self.text(field)?.filter(|found| !known.contains(found)) {
            Some(found) => {
                let known = known.iter().map(|known| format!("'{known}'")).collect::<Vec<_>>().join(" or ");
                Err(ConfigError::Choice { field, found: found.into(), known })
            }
            None => Ok(()),
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
