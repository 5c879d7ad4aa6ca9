//! A graph on an engine, output by output.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Verdict;

/// One graph on one engine against the reference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EngineCheck {
    /// The engine that ran the graph.
    pub engine: String,
    /// The graph.
    pub onnx: String,
    /// What the graph is, in words: opset, producer, how many nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
    /// What it computed in.
    pub dtype: String,
    /// The worst verdict of its outputs.
    pub verdict: Verdict,
    /// Why the engine did not take the graph, or failed on an input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Outputs of the reference that the graph does not have, and the other way round.
    pub not_compared: Vec<String>,
    /// The outputs that both have.
    pub outputs: Vec<OutputReport>,
}

/// One output, over all inputs. `max_abs` and the like cover deciding positions alone; they are
/// null if a value is not finite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// Its shape for the input where it is furthest off.
    pub shape: Vec<usize>,
    /// The largest |reference − candidate|.
    pub max_abs: Option<f64>,
    /// That, over the largest |reference|.
    pub max_rel: Option<f64>,
    /// The largest distance in units of the last place of the output's dtype: large next to zero,
    /// where values lie dense.
    pub max_ulp: Option<u64>,
    /// The mean |reference − candidate|.
    pub mean_abs: Option<f64>,
    /// The cosine of the angle between both, as vectors.
    pub cosine: Option<f64>,
    /// The distance of the element that is furthest off, in the same units.
    pub worst_ulp: Option<u64>,
    /// The input with the largest difference.
    pub worst_input: Option<String>,
    /// The element there.
    pub worst_index: Option<Vec<usize>>,
    /// The reference's value of it; null if it is not finite.
    pub reference: Option<f64>,
    /// The candidate's value of it; null if it is not finite.
    pub candidate: Option<f64>,
    /// How many elements were compared.
    pub compared: usize,
    /// How many are further off than `atol`.
    pub beyond_atol: usize,
    /// How many are NaN or infinite.
    pub non_finite: NonFinite,
    /// How far the engine may be from the reference by rounding alone, in the feature (the element
    /// of the last axis) of the worst element; null where there is no proof to measure it by.
    pub budget: Option<f64>,
    /// The largest part of its budget that a feature takes; null as the budget.
    #[serde(default)]
    pub budget_share: Option<f64>,
    /// The feature that is furthest beyond its budget, where it is not that of the worst element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<Beyond>,
    /// How far each side is from the reference in f64; null where that was not run.
    pub truth: Option<FromTruth>,
    /// Shape or dtype that differ, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
    /// What this output comes to.
    pub verdict: Verdict,
    /// What is chosen by it; left out where nothing is, as by hidden states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Decisions>,
    /// The positions that do not decide.
    pub padding: Padding,
}

/// A feature of an output that is further off than rounding explains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Beyond {
    /// Its place on the last axis.
    pub feature: usize,
    /// The largest |reference − candidate| of it.
    pub max_abs: f64,
    /// What rounding alone explains.
    pub budget: f64,
}

/// How far both f32 sides are from the truth, which is the reference in f64.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FromTruth {
    /// The largest |reference − truth|; null if a value is not finite.
    pub reference: Option<f64>,
    /// That, in units of the last place of the truth in f32, where it is largest.
    pub reference_ulp: Option<f64>,
    /// The largest |candidate − truth|; null if a value is not finite.
    pub candidate: Option<f64>,
    /// That, in units of the last place of the truth in f32, where it is largest.
    pub candidate_ulp: Option<f64>,
}

/// Counts of values that are NaN or infinite.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct NonFinite {
    /// On the reference's side.
    pub reference: usize,
    /// On the candidate's side.
    pub candidate: usize,
}

/// Positions that the attention mask leaves out.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Padding {
    /// The largest difference there.
    pub max_abs: Option<f64>,
    /// How many elements there are.
    pub compared: usize,
}

/// What became of the choices by one output, over all inputs, at the positions that decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    /// How many choices there are.
    pub made: usize,
    /// How many of them the candidate makes otherwise than the reference, in f64 where that was
    /// run. Where a value is not finite there is no choice, and that counts.
    pub flipped: usize,
    /// How many are so narrow that two sides as far apart as these may differ in them: by no more
    /// than twice `max_abs`; null if that is null.
    pub could_flip: Option<usize>,
    /// The least by which a chosen one is ahead of the next, or of 0; null if nothing was chosen.
    pub smallest_margin: Option<f64>,
    /// The input where that is.
    pub input: Option<String>,
    /// Where in the output, without the axis that is chosen along.
    pub at: Option<Vec<usize>>,
}

impl fmt::Display for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, flipped, could_flip, smallest_margin, input, .. } = self;
        match flipped {
            0 => write!(f, "chooses the same {made} of {made} times")?,
            _ => write!(f, "chooses otherwise {flipped} of {made} times")?,
        }
        if let (Some(margin), Some(input)) = (smallest_margin, input) {
            write!(f, "; the closest choice is by {margin:.2e}, in '{input}'")?;
        }
        match could_flip {
            Some(1..) if *flipped == 0 => {
                write!(f, "; {} could be turned by a difference such as this", could_flip.unwrap_or(0))
            }
            _ => Ok(()),
        }
    }
}

impl EngineCheck {
    /// A sentence for everything that kept this check from passing.
    pub fn complaints(&self, atol: f64) -> Vec<String> {
        let outputs = self.outputs.iter().filter(|output| output.verdict != Verdict::Pass);
        outputs
            .map(|output| output.sentence(atol))
            .chain(self.failure.clone())
            .chain(self.not_compared.iter().cloned())
            .collect()
    }
}

impl OutputReport {
    /// The output in one sentence: how far off, where, and what stands there.
    pub fn sentence(&self, atol: f64) -> String {
        if let Some(mismatch) = &self.mismatch {
            return format!("{}: {mismatch}", self.name);
        }
        let input = self.worst_input.as_ref().map(|input| format!(" of input '{input}'")).unwrap_or_default();
        let index = self.worst_index.as_deref().unwrap_or_default();
        let (NonFinite { reference, candidate }, value) =
            (self.non_finite, |x: Option<f64>| x.map_or("not finite".into(), |x| format!("{x:.9}")));
        let values = format!(
            "at {index:?}{input}: reference {}, graph {}",
            value(self.reference),
            value(self.candidate)
        );
        match self.max_abs {
            _ if self.compared == 0 => format!("{}: nothing was compared", self.name),
            None => format!(
                "{}: {reference} values of the reference and {candidate} of the graph are not finite; {values}",
                self.name
            ),
            Some(max_abs) => format!(
                "{}: {max_abs:.2e} off, {} of {} values beyond {atol:e}; {values}",
                self.name, self.beyond_atol, self.compared
            ),
        }
    }
}

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
