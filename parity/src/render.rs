//! A report as a document: Markdown for a step summary, JUnit for a test page, HTML for a colleague.

use crate::Verdict;
use crate::audit::Audit;
use crate::expect::Conversion;
use crate::proof::Proof;
use crate::relations::Relation;
use crate::report::{Culprit, EngineCheck, GraphReport, Located, Report, TokenErrors};
use crate::stress::Stress;

pub mod heat;
mod html;
mod junit;
mod markdown;
#[cfg(test)]
mod tests;
mod words;

pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use words::{headline, visible};

/// One graph of a report: a report on one graph has its parts at the top.
struct Graph<'a> {
    onnx: &'a str,
    verdict: Verdict,
    proof: Option<&'a Proof>,
    weights: Option<&'a Audit>,
    checks: &'a [EngineCheck],
    located: Option<&'a Located>,
    culprits: &'a [Culprit],
    explanation: Option<&'a str>,
    relations: &'a [Relation],
    stress: &'a [Stress],
    tokens: &'a [TokenErrors],
    precision: Option<&'a Conversion>,
}

impl Graph<'_> {
    /// A module's error in the plain run.
    fn inherited(&self, module: &str) -> Option<f64> {
        self.located?.modules.iter().find(|error| error.module == module)?.inherited
    }
}

/// The graphs of a report.
fn graphs(report: &Report) -> Vec<Graph<'_>> {
    if report.graphs.is_empty() {
        return vec![Graph {
            onnx: report.onnx.as_deref().unwrap_or_default(),
            verdict: report.verdict,
            proof: report.proof.as_ref(),
            weights: report.weights.as_ref(),
            checks: &report.checks,
            located: report.located.as_ref(),
            culprits: &report.culprits,
            explanation: report.explanation.as_deref(),
            relations: &report.relations,
            stress: &report.stress,
            tokens: &report.tokens,
            precision: report.precision.as_ref(),
        }];
    }
    report.graphs.iter().map(Graph::of).collect()
}

impl<'a> Graph<'a> {
    fn of(graph: &'a GraphReport) -> Self {
        Self {
            onnx: &graph.onnx,
            verdict: graph.verdict,
            proof: Some(&graph.proof),
            weights: graph.weights.as_ref(),
            checks: &graph.checks,
            located: graph.located.as_ref(),
            culprits: &graph.culprits,
            explanation: graph.explanation.as_deref(),
            relations: &graph.relations,
            stress: &graph.stress,
            tokens: &graph.tokens,
            precision: graph.precision.as_ref(),
        }
    }
}
