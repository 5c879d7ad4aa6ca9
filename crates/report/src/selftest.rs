//! What became of planted faults: the `parity-selftest/1` JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::Verdict;

/// The name and version of the JSON form.
pub const SELFTEST_SCHEMA: &str = "parity-selftest/1";

/// What became of all that was planted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Selftest {
    /// [`SELFTEST_SCHEMA`].
    pub schema: Cow<'static, str>,
    /// `pass` if every fault was caught, and nothing else failed.
    pub verdict: Verdict,
    /// The checkpoint.
    pub model: String,
    /// The graph.
    pub onnx: String,
    /// How many faults were planted.
    pub faults: usize,
    /// How many of them were caught.
    pub caught: usize,
    /// How many of those that spoil a certain module were caught.
    pub locatable: usize,
    /// For how many of these it was the first that was named.
    pub located: usize,
    /// How many of those that have an explanation were caught.
    pub explainable: usize,
    /// How many of these were explained so.
    pub explained: usize,
    /// How many changes that make no other function were made.
    pub harmless: usize,
    /// How many of these failed.
    pub false_alarms: usize,
    /// Each of them.
    pub outcomes: Vec<Outcome>,
}

/// What became of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The row of the fault in the list of faults.
    pub row: u8,
    /// What was planted.
    pub fault: String,
    /// Whether it is the engine's.
    pub engine: bool,
    /// What the check came to.
    pub verdict: Verdict,
    /// Whether that is what it had to come to.
    pub right: bool,
    /// What saw it: `audit`, `proof`, `f32`, `stress`, or an `error` on an input.
    pub by: Vec<Cow<'static, str>>,
    /// The module that was spoiled, where it is one.
    pub module: Option<String>,
    /// The first that was named.
    pub named: Option<String>,
    /// What was said about it.
    pub explanation: Option<String>,
    /// Whether the first that was named is the one; null where there is none to name, or nothing
    /// was caught.
    pub located: Option<bool>,
    /// Whether the explanation speaks of what was done; null where there is none to give, or
    /// nothing was caught.
    pub explained: Option<bool>,
    /// The input on which it was seen first, of those that were tried.
    pub input: Option<String>,
}
