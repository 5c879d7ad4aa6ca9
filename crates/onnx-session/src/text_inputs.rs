//! What a text encoder's graph takes, by meaning: whatever its inputs are called and however it
//! wants its mask, it is given `input_ids`, `attention_mask` and `token_type_ids`, int64 of the
//! tokens' shape.
//!
//! Exporters and the tools before them call these three `input_mask`, `segment_ids`, `input_ids:0`
//! or `input.1`, want masks of floats or bools, one for each pair of tokens, or positions. A graph
//! is changed to take the usual ones: inputs are renamed, and a few nodes make of the usual mask
//! the one that the graph wants. So every engine runs it, and nobody after this needs to know.

mod adapt;
mod lookup;
mod meaning;

use std::collections::BTreeMap;

use engine::{DType, Dim, ValueSpec};
use onnx_graph::Model;

use adapt::Adapted;
pub use lookup::Lookup;
use meaning::{Meaning, meanings};

/// What the tables of a model hold: inputs of unknown names are told apart by the tables that they
/// look rows up in.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// The rows of the word embeddings.
    pub vocabulary: usize,
    /// The rows of the token types' embeddings.
    pub token_types: usize,
}

/// What was done for a graph, in sentences.
pub type Notes = Vec<String>;

/// Why a graph cannot be given the inputs of a text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum InputError {
    /// Neither its name nor what the graph does with it tells what an input is.
    #[error(
        "the graph wants input '{input}', which by its name and its use is none of {USUAL}: \
         say which it is, as in --input attention_mask={name}"
    )]
    Unknown { input: String, name: String },
    /// The graph has no input of that name.
    #[error("--input {usual}={given}: the graph has no input '{given}'; it has {known}")]
    NoInput { usual: String, given: String, known: String },
    /// A text has no such input.
    #[error("--input {usual}={given}: '{usual}' is none of {USUAL}")]
    NoMeaning { usual: String, given: String },
    /// An input is said to be two things.
    #[error("--input: '{given}' is said to be {one} and {other}: say which")]
    Twice { given: String, one: &'static str, other: &'static str },
    /// An input is wanted in a form that nobody knows.
    #[error(
        "the graph wants input '{wanted}', which cannot be made of ids and a mask [batch, sequence]: \
         export it again with integers of this shape"
    )]
    Form { wanted: String },
}

/// What a text encoder may be given.
const USUAL: &str = "input_ids, attention_mask, token_type_ids and position_ids";

/// The graph with the usual inputs, and what was done for it. `given` says of some inputs what they
/// are, by the usual name; others are known by their own names, or else by what the graph does with
/// them.
///
/// A graph in which nothing means `input_ids` is no text encoder's, and comes back as it is.
///
/// # Errors
/// If the graph insists on an input that a text does not have, or in a form that is not known.
pub fn with_text_inputs(
    model: Model,
    given: &BTreeMap<String, String>,
    tables: Tables,
) -> Result<(Model, Notes), InputError> {
    let meanings = meanings(&model, given, tables)?;
    if !meanings.contains(&Some(Meaning::Ids)) {
        return Ok((model, Notes::new()));
    }
    let mut unknown = model.graph.inputs.iter().zip(&meanings).filter(|(_, meaning)| meaning.is_none());
    if let Some((spec, _)) = unknown.find(|(spec, _)| !spec.optional) {
        return Err(InputError::Unknown { input: spec.to_string(), name: spec.name.clone() });
    }
    let mut adapted = Adapted::new(model, &meanings);
    meanings.iter().flatten().try_for_each(|meaning| adapted.take(*meaning))?;
    Ok(adapted.finish())
}

/// Whether a text gives it so: integers of the tokens' rank.
fn is_usual(spec: &ValueSpec, tokens: Option<&[Dim]>) -> bool {
    let same_rank = match (spec.shape.as_deref(), tokens) {
        (Some(shape), Some(tokens)) => shape.len() == tokens.len(),
        _ => true,
    };
    matches!(spec.dtype, DType::I64 | DType::I32) && same_rank
}

#[cfg(test)]
mod tests;
