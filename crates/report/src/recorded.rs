//! What was recorded elsewhere.

use serde::{Deserialize, Serialize};

use crate::{OutputReport, Verdict};

/// One side against the record. In its outputs `reference` is the record, and distances are between
/// numbers as f64, whatever dtype they come in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recorded {
    /// What was run: the checkpoint, or the graph, as they were named.
    pub side: String,
    /// What ran it.
    pub engine: String,
    /// What its outputs are.
    pub dtype: String,
    /// The worst of its outputs.
    pub verdict: Verdict,
    /// Why it failed on the input, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Outputs that were recorded, and that this side does not have.
    pub not_compared: Vec<String>,
    /// The outputs that both have.
    pub outputs: Vec<OutputReport>,
}

impl Recorded {
    /// A sentence for everything that kept this side from passing.
    pub fn complaints(&self, atol: f64) -> Vec<String> {
        let side = format!("{} on {} in {}", self.side, self.engine, self.dtype);
        let wrong = self.outputs.iter().filter(|output| output.verdict > Verdict::Rounding);
        wrong
            .map(|output| output.sentence(atol))
            .chain(self.failure.clone())
            .map(|what| format!("{side} is not what was recorded: {what}"))
            .collect()
    }
}
