//! A report as a document: Markdown for a step summary, JUnit for a test page, HTML for a
//! colleague.

use std::ops::Deref;

use crate::{EngineCheck, GraphReport, Parts, Proof, Report, Verdict};

pub mod heat;
mod html;
mod junit;
mod markdown;
#[cfg(test)]
mod tests;
pub(crate) mod words;

pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use words::{count, dimensions, headline, inert_json, visible};

/// One graph of a report: a report on one graph has its parts at the top.
struct Graph<'a> {
    onnx: &'a str,
    verdict: Verdict,
    proof: Option<&'a Proof>,
    checks: &'a [EngineCheck],
    parts: &'a Parts,
}

impl Deref for Graph<'_> {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.parts
    }
}

/// The graphs of a report.
fn graphs(report: &Report) -> Vec<Graph<'_>> {
    if report.graphs.is_empty() {
        return vec![Graph {
            onnx: report.onnx.as_deref().unwrap_or_default(),
            verdict: report.verdict,
            proof: report.proof.as_ref(),
            checks: &report.checks,
            parts: &report.parts,
        }];
    }
    fn graph(GraphReport { onnx, verdict, proof, checks, parts, .. }: &GraphReport) -> Graph<'_> {
        Graph { onnx, verdict: *verdict, proof: Some(proof), checks, parts }
    }
    report.graphs.iter().map(graph).collect()
}
