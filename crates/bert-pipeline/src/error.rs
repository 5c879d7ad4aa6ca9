use std::error::Error;

use checkpoint::CheckpointError;
use engine::ValueError;

/// Why a text could not be turned into inputs, or outputs into an embedding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A file of the model could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file is not valid JSON.
    #[error("{file} is not valid JSON: {source}")]
    Json {
        /// The file.
        file: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A setting is of the wrong type.
    #[error("'{setting}' in {file} must be {expected}, found {found}")]
    Setting {
        /// The file.
        file: String,
        /// The setting.
        setting: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A setting asks for something that is not done here, and that would change the tokens if it were left out.
    #[error(
        "{file} asks for {setting}, which is not done here: save the tokenizer as tokenizer.json (save_pretrained of its fast version does)"
    )]
    UnsupportedTokenizer {
        /// The file.
        file: &'static str,
        /// What it asks for.
        setting: String,
    },
    /// The model has no tokenizer.
    #[error("{model} has neither tokenizer.json nor vocab.txt")]
    NoTokenizer {
        /// The model.
        model: String,
    },
    /// A tokenizer file contradicts itself or cannot be used.
    #[error("{file} cannot be used as a tokenizer: {reason}")]
    BadTokenizer {
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A line of vocab.txt is not one new token.
    #[error("vocab.txt, line {line}: {reason}")]
    Vocabulary {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A special token is not in the vocabulary.
    #[error("the vocabulary of {file} has no '{token}', the {role} token")]
    MissingToken {
        /// The file with the vocabulary.
        file: &'static str,
        /// What the token is for: padding, unknown.
        role: &'static str,
        /// The token.
        token: String,
    },
    /// The list of texts is empty.
    #[error("there are no texts to encode")]
    NoTexts,
    /// A text has more tokens than the model has positions.
    #[error(
        "text number {} has {tokens} tokens, and the model takes at most {limit}: shorten it, or have the tokenizer truncate", .text + 1
    )]
    TooLong {
        /// Which text, counted from 0.
        text: usize,
        /// Its tokens, with the special ones.
        tokens: usize,
        /// The model's `max_position_embeddings`.
        limit: usize,
    },
    /// The length to truncate to does not fit the model.
    #[error("cannot truncate to {length} tokens: {reason}")]
    Truncation {
        /// The length asked for.
        length: usize,
        /// Why not.
        reason: String,
    },
    /// The tokenizer failed on a text.
    #[error("text number {} cannot be tokenized: {source}", .text + 1)]
    Tokenize {
        /// Which text, counted from 0.
        text: usize,
        /// What the tokenizer said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The model's sentence-transformers files ask for something that is not done here.
    #[error("{file} asks for {what}, which is not done here: mean and cls pooling, and normalisation, are")]
    UnsupportedPooling {
        /// The file.
        file: String,
        /// What it asks for.
        what: String,
    },
    /// Two tensors do not belong together.
    #[error("{name} must be {expected}, found {found:?}")]
    Shape {
        /// The tensor.
        name: &'static str,
        /// The shape it must have.
        expected: String,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// A tensor that must be of floats is not.
    #[error("{name} must be of floats, found {found:?}")]
    NotFloat {
        /// The tensor.
        name: &'static str,
        /// Its dtype.
        found: candle_core::DType,
    },
    /// Pooling by the pooler was asked for, and the model gave no `pooler_output`.
    #[error("the model gave no pooler_output to pool with: choose mean or cls pooling")]
    NoPoolerOutput,
    /// A row of the mask has no real token, so that it has no mean.
    #[error("row {row} of the attention mask has no real token, so there is nothing to take the mean of")]
    NoRealToken {
        /// The row, counted from 0.
        row: usize,
    },
    /// Two vectors of different lengths cannot be compared.
    #[error("vectors of {left} and {right} elements cannot be compared")]
    Lengths {
        /// The length of one.
        left: usize,
        /// The length of the other.
        right: usize,
    },
    /// A value could not be made.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
