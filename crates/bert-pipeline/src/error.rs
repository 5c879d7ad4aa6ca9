use std::error::Error;

use candle_bert::{BertError, ConfigError, TaskError};
use candle_core::Tensor;
use checkpoint::CheckpointError;
use engine::{EngineError, ValueError};

/// Why a text could not be turned into inputs, a model not be run, or its outputs not be turned
/// into an answer. A `text` or a `row` is counted from 0, a `line` from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum PipelineError {
    /// A file of the model could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file is not valid JSON.
    #[error("{file} is not valid JSON: {source}; download it again, or save the model again")]
    Json { file: String, source: serde_json::Error },
    /// A setting is of the wrong type.
    #[error("'{setting}' in {file} must be {expected}, found {found}")]
    Setting { file: String, setting: String, expected: &'static str, found: String },
    /// A setting asks for something that is not done here, and that would change the tokens if it were left out.
    #[error(
        "{file} asks for {setting}, which is not done here: save the tokenizer as tokenizer.json (save_pretrained of its fast version does)"
    )]
    UnsupportedTokenizer { file: &'static str, setting: String },
    /// A class of tokenizers that reads a text in another way than is done here.
    #[error(
        "{file} asks for the tokenizer '{class}', which is not done here: its tokens would be others. Save the fast version of it (save_pretrained), if it has one"
    )]
    TokenizerClass { file: &'static str, class: String },
    /// The model has no tokenizer.
    #[error(
        "{model} has none of tokenizer.json, vocab.txt, and vocab.json with merges.txt: put the tokenizer's files there, as save_pretrained writes them"
    )]
    NoTokenizer { model: String },
    /// A tokenizer file contradicts itself or cannot be used.
    #[error("{file} cannot be used as a tokenizer: {reason}; save the tokenizer again (save_pretrained)")]
    BadTokenizer { file: &'static str, reason: String },
    /// A line of vocab.txt is not one new token.
    #[error("vocab.txt, line {line}: {reason}; take the file that the model was trained with")]
    Vocabulary { line: usize, reason: String },
    /// A special token is not in the vocabulary.
    #[error(
        "the vocabulary of {file} has no '{token}', the {role} token: name one that it has in tokenizer_config.json"
    )]
    MissingToken { file: &'static str, role: &'static str, token: String },
    /// The list of texts is empty.
    #[error("there are no texts to encode: give one")]
    NoTexts,
    /// A text has more tokens than the model has positions.
    #[error(
        "text number {} has {tokens} tokens, and the model takes at most {limit}: shorten it, or have the tokenizer truncate", .text + 1
    )]
    TooLong { text: usize, tokens: usize, limit: usize },
    /// The length to truncate to does not fit the model.
    #[error("cannot truncate to {length} tokens: {reason}")]
    Truncation { length: usize, reason: String },
    /// The tokenizer failed on a text.
    #[error("text number {} cannot be tokenized: {source}", .text + 1)]
    Tokenize { text: usize, source: Box<dyn Error + Send + Sync> },
    /// The model's sentence-transformers files ask for something that is not done here.
    #[error(
        "{file} asks for {what}, which is not done here: sentence-transformers does it, and feature-extraction gives the tokens' states without it"
    )]
    UnsupportedPooling { file: String, what: String },
    /// So much of a text repeats in the next part of it that no part would be new.
    #[error(
        "a stride of {stride} tokens leaves nothing new in a part of a long text: there is room for {room} tokens of it, so take a smaller stride"
    )]
    Stride { stride: usize, room: usize },
    /// A stride is of use only where what the parts say is joined.
    #[error(
        "a stride needs an aggregation strategy other than 'none', since entities of overlapping parts are merged"
    )]
    StrideWithoutAggregation,
    /// The tokenizer cannot turn tokens into a text again.
    #[error("the tokenizer cannot turn tokens into a text: {source}")]
    Decode { source: Box<dyn Error + Send + Sync> },
    /// A text is empty that transformers refuses, too.
    #[error("the {what} of text number {} is empty: give one, or leave the text out", .text + 1)]
    EmptyText { text: usize, what: &'static str },
    /// A question without a context.
    #[error("text number {} has no context to answer from: give it as the second text of a pair", .text + 1)]
    NoContext { text: usize },
    /// The question leaves no room for its context.
    #[error("the question of text number {} has {tokens} tokens, which leaves no room for the context in a row of {length}: shorten it", .text + 1)]
    LongQuestion { text: usize, tokens: usize, length: usize },
    /// Two texts where the task takes one.
    #[error("text number {} is a pair, and {task} takes single texts: join both, or leave one out", .text + 1)]
    Pair { text: usize, task: &'static str },
    /// Nothing to choose from, or to rank.
    #[error("there are no {what}: give two or more")]
    NoCandidates { what: &'static str },
    /// A text for fill-mask has nothing to fill.
    #[error("text number {} has no '{mask}' to fill: put one where a word is missing", .text + 1)]
    NoMask { text: usize, mask: String },
    /// The vocabulary has no mask token.
    #[error(
        "the vocabulary has no mask token '{mask}', so there is nothing that could be filled: name it in tokenizer_config.json (mask_token)"
    )]
    NoMaskToken { mask: String },
    /// A target of fill-mask is not one token.
    #[error("the target '{target}' is not a token of the vocabulary, take one that is: it is {}", spaced(.pieces))]
    Target { target: String, pieces: Vec<String> },
    /// Settings that contradict each other, or are 0.
    #[error("{setting} must be {expected}, found {found}")]
    Argument { setting: &'static str, expected: String, found: usize },
    /// The checkpoint was saved for something else.
    #[error("{model} has no head for {task}, name another task or give a model that was trained for it: config.json's architectures are {}", listed(.architectures))]
    WrongTask { model: String, task: &'static str, architectures: Vec<String> },
    /// The model is for something that is not done here.
    #[error("{model}: {source}")]
    Task { model: String, source: TaskError },
    /// Nothing says what a graph is for.
    #[error(
        "config.json names no architectures, and the graph's outputs do not tell what it is for: {}; name the task",
        listed(.outputs)
    )]
    UnknownTask { outputs: Vec<String> },
    /// A ranking needs one score a document.
    #[error(
        "config.json gives {labels} labels; to rank documents a model must have one, the score of a document; \
         text-classification gives the labels of a pair"
    )]
    NotARanking { labels: usize },
    /// config.json does not name what the model tells apart.
    #[error(
        "the model gives {found} scores, and config.json has {labels} labels (id2label, or num_labels): name one for each"
    )]
    NoLabels { found: usize, labels: usize },
    /// A prompt of that name is not in config_sentence_transformers.json.
    #[error("there is no prompt '{name}'; config_sentence_transformers.json has {}", listed(.has))]
    NoPrompt { name: String, has: Vec<String> },
    /// The model has no graph, and one was asked for.
    #[error("{model} has no ONNX graph: give one, or have the native engine run the checkpoint")]
    NoGraph { model: String },
    /// A graph does not give what the task needs.
    #[error("{engine} has no output '{output}', which {task} needs: export it with that, or run the checkpoint; it has {}", listed(.has))]
    NoOutput { engine: String, output: &'static str, task: &'static str, has: Vec<String> },
    /// A graph wants an input that no tokenizer gives.
    #[error(
        "{engine} wants an input '{input}', which cannot be made of a text here: `parity run` takes it from a \
         file; where it is one of the usual inputs, --input input_ids=NAME says so"
    )]
    UnknownInput { engine: String, input: String },
    /// A graph cannot be told what it needs to know.
    #[error("{engine} has no input '{input}', so {what}")]
    NoInput { engine: String, input: &'static str, what: &'static str },
    /// An output is not what the task's outputs are.
    #[error(
        "output '{output}' must be {expected}, found {found:?}: it is of another task, or the graph is wrong (`parity check` tells)"
    )]
    BadOutput { output: String, expected: String, found: Vec<usize> },
    /// The model computed no number.
    #[error("output '{output}' for text number {} has a value that is not finite: `parity check` tells where it is from", .text + 1)]
    NotFinite { output: String, text: usize },
    /// A module of modules.json reads what none before it gives.
    #[error("modules.json: nothing gives '{feature}', so list a module before that does; what there is then: {}", listed(.has))]
    NoFeature { feature: String, has: Vec<String> },
    /// The weights of a module do not fit its config.
    #[error("{file}: {reason}; save the model again")]
    BadLayer { file: String, reason: String },
    /// config.json is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint does not make this model.
    #[error(transparent)]
    Bert(#[from] BertError),
    /// The graph cannot be run by any engine that was tried.
    #[error("{graph} cannot be run: {source}")]
    Graph { graph: String, source: Box<dyn Error + Send + Sync> },
    /// The model could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Two tensors do not belong together.
    #[error("{name} must be {expected}, found {found:?}")]
    Shape { name: &'static str, expected: String, found: Vec<usize> },
    /// A tensor that must be of floats is not.
    #[error("{name} must be of floats, found {found:?}")]
    NotFloat { name: &'static str, found: candle_core::DType },
    /// Pooling by the pooler was asked for, and the model gave no `pooler_output`.
    #[error("the model gave no pooler_output to pool with: choose mean or cls pooling")]
    NoPoolerOutput,
    /// A row of the mask has no real token, so that it has no mean.
    #[error(
        "row {row} of the attention mask has no real token, so there is nothing to take the mean of: leave it out"
    )]
    NoRealToken { row: usize },
    /// Two vectors of different lengths cannot be compared.
    #[error("vectors of {left} and {right} elements cannot be compared")]
    Lengths { left: usize, right: usize },
    /// A value could not be made.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl PipelineError {
    /// The error about a tensor of another shape.
    pub(crate) fn shape(name: &'static str, expected: impl Into<String>, tensor: &Tensor) -> Self {
        Self::Shape { name, expected: expected.into(), found: tensor.dims().to_vec() }
    }

    /// An error about a text of a part of many, as one about a text of them all.
    pub(crate) fn counted_from(mut self, first: usize) -> Self {
        if let Self::TooLong { text, .. }
        | Self::Tokenize { text, .. }
        | Self::EmptyText { text, .. }
        | Self::NoContext { text }
        | Self::LongQuestion { text, .. }
        | Self::Pair { text, .. }
        | Self::NoMask { text, .. }
        | Self::NotFinite { text, .. } = &mut self
        {
            *text += first;
        }
        self
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn spaced(tokens: &[String]) -> String {
    if tokens.is_empty() { "nothing".to_owned() } else { tokens.join(" ") }
}
