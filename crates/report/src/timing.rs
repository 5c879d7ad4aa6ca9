//! How long engines take.

use serde::{Deserialize, Serialize};

use crate::read::or_nan;

/// How long both paths took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimingReport {
    /// The input that was timed.
    pub input: String,
    /// One entry for each engine.
    pub results: Vec<Timing>,
}

/// What one engine took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The engine.
    pub engine: String,
    /// The threads it could use.
    pub threads: usize,
    /// Half of the runs took no longer, in milliseconds.
    #[serde(deserialize_with = "or_nan")]
    pub median_ms: f64,
    /// Nine tenths of the runs took no longer, in milliseconds.
    #[serde(deserialize_with = "or_nan")]
    pub p90_ms: f64,
    /// How many runs were timed.
    pub runs: usize,
}
