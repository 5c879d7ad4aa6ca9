//! Why a config.json is refused.

use architecture::{Activation, ProblemType, Task, UnknownActivation};

use super::{MAX_HIDDEN_LAYERS, model_types};

/// What can be done all the same with a model that is not run here.
pub(super) const ON_GRAPHS: &str = "its graphs are run all the same: 'parity ONE.onnx --onnx OTHER.onnx' holds \
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
    #[error("config.json: {field} is {found}, but must be a finite number above 0")]
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
