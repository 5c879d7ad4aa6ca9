//! What is tried beside the proof: what must change nothing, and each normalisation alone.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::read::or_nan;

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
    /// Whether it does not hold, by no more than a conversion on purpose explains.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub converted: bool,
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
        !self.holds && self.skipped.is_none() && !self.converted
    }
}

/// How many times its deviation the mean of a row is.
pub const STRESS_RATIO: f64 = 1024.0;

/// One normalisation on one engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stress {
    /// The engine.
    pub engine: String,
    /// The module.
    pub module: String,
    /// The largest |engine − f64|; null if a value is not finite, or the engine fails.
    pub max_abs: Option<f64>,
    /// What that may be.
    #[serde(deserialize_with = "or_nan")]
    pub bound: f64,
    /// What it comes to.
    pub verdict: Verdict,
}

impl Stress {
    /// What came out, in a sentence.
    pub fn sentence(&self) -> String {
        let Self { engine, module, bound, .. } = self;
        let found = match self.max_abs {
            Some(max_abs) => format!("is {max_abs:.1e} off"),
            None => "gives values that are not finite, or fails,".into(),
        };
        let bound = if bound.is_finite() { format!("{bound:.1e}") } else { "nothing".into() };
        format!(
            "{module} on {engine} {found} on rows whose mean is {STRESS_RATIO} times their deviation; {bound} is allowed"
        )
    }
}
