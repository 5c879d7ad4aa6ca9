//! What must change nothing.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// One relation on one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// What was done: `run twice`, `threads`, `padding`, `content of padding`, `batch neighbours`,
    /// `order of rows`.
    pub name: Cow<'static, str>,
    /// Who was asked: `graph in f64`, `reference in f64`, `candle in f32`.
    pub side: String,
    /// The input.
    pub input: String,
    /// The largest difference that it made, over all outputs at deciding positions; null if nothing
    /// was compared, or a value is not finite.
    pub max_abs: Option<f64>,
    /// Whether no output changed by more than the bound allows. False where the relation was
    /// skipped: then nothing is known.
    pub holds: bool,
    /// Why this relation cannot be judged on this input, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What the engine said on the changed input, if it failed there, or how the shape of an output
    /// changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Relation {
    /// Whether it was judged, and does not hold.
    pub fn is_violated(&self) -> bool {
        !self.holds && self.skipped.is_none()
    }
}
