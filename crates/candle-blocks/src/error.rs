use architecture::BindError;
use candle_core::DType;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum ModelError {
    /// The config is contradictory, or the checkpoint does not fit it.
    #[error(transparent)]
    Bind(#[from] BindError),

    /// Asked for in a dtype that is not one of the four floats.
    #[error("a model cannot be of dtype {}; take f16, bf16, f32 or f64", found.as_str())]
    ModelDType { found: DType },

    /// An input that the model does not have.
    #[error("the model has no input {input}; it takes {}", known.join(", "))]
    NoSuchInput { input: String, known: Vec<&'static str> },
    /// The one input without which the model cannot run.
    #[error("{input} is missing")]
    MissingInput { input: &'static str },
    /// An input has another number of axes.
    #[error("{input} must be [{}], got shape {found:?}", axes.join(", "))]
    Rank { input: &'static str, axes: &'static [&'static str], found: Vec<usize> },
    /// An input is not of integers.
    #[error("{input} must be integers, got {}", found.as_str())]
    NotIntegers { input: &'static str, found: DType },
    /// There is nothing to run.
    #[error("input_ids of shape {found:?} hold no token; give at least one row of one token")]
    Empty { found: Vec<usize> },
    /// Two inputs have different shapes.
    #[error("{input} has shape {found:?}, but input_ids has {expected:?}; they must agree")]
    Shape { input: &'static str, found: Vec<usize>, expected: Vec<usize> },
    /// There are more tokens in a row than positions in the model.
    #[error(
        "the sequence has {sequence} tokens, but this model has positions for {max_position_embeddings}; truncate the text"
    )]
    TooLong { sequence: usize, max_position_embeddings: usize },
    /// An id that is not in the vocabulary.
    #[error(
        "{input}{place:?} is {id}, outside the vocabulary of {vocab_size} tokens; \
         the tokenizer may belong to another model"
    )]
    UnknownToken { input: &'static str, id: i64, place: Vec<usize>, vocab_size: usize },
    /// A segment the model does not have.
    #[error(
        "{input}{place:?} is {found}, but this model has {type_vocab_size} token type(s), counted from 0"
    )]
    UnknownTokenType { input: &'static str, found: i64, place: Vec<usize>, type_vocab_size: usize },
    /// A mask of something else than ones and zeros.
    #[error("{input}{place:?} is {found}; it must be 1 for a token and 0 for padding")]
    MaskValue { input: &'static str, found: i64, place: Vec<usize> },

    /// candle failed: a tensor is missing in a `VarBuilder`, the device is out of memory, a visitor
    /// said so.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
