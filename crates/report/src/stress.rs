//! Each normalisation alone.

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::read::or_nan;

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
