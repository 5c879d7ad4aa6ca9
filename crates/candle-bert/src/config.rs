//! Hugging Face's config.json: what all families read alike, and which family one is of.
//!
//! Fields that do not change what a model computes are ignored. A field that is absent or `null`
//! has the value that `transformers` gives it. A value that would silently be computed wrongly is
//! refused.

mod error;
mod fields;

use std::borrow::Cow;
use std::sync::Arc;

use architecture::{Draft, Family, Program, Task};

pub use self::error::ConfigError;
pub(crate) use self::fields::Fields;
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

/// How many features of each head are turned in pairs: an even number, and a whole one.
pub(crate) fn check_pairs(size: f64) -> Result<(), ConfigError> {
    let is_even = size % 2.0 == 0.0;
    is_even.then_some(()).ok_or(ConfigError::OddHeads { size: size.to_string() })
}

/// The base of angles.
pub(crate) fn check_base(field: &'static str, base: f64) -> Result<(), ConfigError> {
    let is_one = base.is_finite() && base > 0.;
    is_one.then_some(()).ok_or(ConfigError::Base { field, found: base })
}

#[cfg(test)]
mod tests;
