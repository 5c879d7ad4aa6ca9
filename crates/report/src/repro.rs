//! The folder that replays what fails.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::read::or_nan;

/// The folder that was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repro {
    /// Where.
    pub dir: String,
    /// The input that it was made of.
    pub input: String,
    /// The shape of what is left of it.
    pub shape: Vec<usize>,
    /// In which precision the replay runs the graph: `f64` where the proof fails, else `f32`.
    pub precision: Cow<'static, str>,
    /// What the replay allows, absolute.
    #[serde(deserialize_with = "or_nan")]
    pub atol: f64,
}
