//! Both sides in f64.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::read::or_nan;

/// How far the two f64 sides may be apart, relative to the largest value where that is above 1.
/// Correct exports of a stiff model come to 1e-13, and one wrong bit in one f32 weight that is used
/// to 1e-9 and more; this lies between, with room on the side of correct ones for deep models,
/// whose f64 error grows with depth.
pub const DEFAULT_PROOF_TOL: f64 = 1e-10;

/// What the two f64 runs came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    /// The worst verdict of the outputs; inconclusive where the oracle does not take the graph.
    pub verdict: Verdict,
    /// The largest |checkpoint − graph| of all outputs; null if a value is not finite, or none was
    /// compared.
    pub max_abs: Option<f64>,
    /// The largest [`ProofOutput::max_rel`].
    pub max_rel: Option<f64>,
    /// What `max_rel` may be.
    #[serde(deserialize_with = "or_nan")]
    pub tol: f64,
    /// The outputs that both sides have.
    pub outputs: Vec<ProofOutput>,
    /// For which inputs it holds.
    #[serde(default)]
    pub scope: Scope,
    /// What that takes to hold beside the premises of every such proof.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<String>,
    /// The nodes that stand between an output and its proof for every input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unexplained: Vec<Unexplained>,
    /// The graph's constants that were taken for the numbers they are the f32 rounding of.
    pub promoted: Vec<Promoted>,
    /// Why the oracle did not take the graph, or failed on an input that the graph declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// For which inputs a proof holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// For every input: the graph is the model, step by step.
    EveryInput,
    /// For those that were run.
    #[default]
    Tried,
}

/// A node that no step of the model explains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unexplained {
    /// Its name.
    pub node: String,
    /// What is not understood.
    pub why: String,
}

/// One output, over all inputs, at the positions that decide.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProofOutput {
    /// Its name.
    pub name: String,
    /// The largest |checkpoint − graph|; null if a value is not finite, or none was compared.
    pub max_abs: Option<f64>,
    /// That, over the larger of 1 and the largest |checkpoint|.
    pub max_rel: Option<f64>,
    /// How many elements were compared.
    pub compared: usize,
    /// The input with the largest difference.
    pub worst_input: Option<String>,
    /// The element there.
    pub worst_index: Option<Vec<usize>>,
    /// The checkpoint's value of it; null if it is not finite.
    pub reference: Option<f64>,
    /// The graph's value of it; null if it is not finite.
    pub candidate: Option<f64>,
    /// The inputs on which it is beyond the bound.
    pub failing_inputs: Vec<String>,
    /// How its shape differs, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
    /// What it comes to.
    pub verdict: Verdict,
}

impl Proof {
    /// Takes in nodes that no step of the model explains: then what holds on some inputs says
    /// nothing of others, and the proof does not conclude.
    pub fn note_unexplained(&mut self, unexplained: Vec<Unexplained>) {
        if !unexplained.is_empty() {
            self.verdict = self.verdict.max(Verdict::Inconclusive);
        }
        self.unexplained = unexplained;
    }

    /// A proof that could not be made.
    pub fn impossible(why: String, tol: f64) -> Self {
        Self {
            verdict: Verdict::Inconclusive,
            max_abs: None,
            max_rel: None,
            tol,
            outputs: Vec::new(),
            scope: Scope::Tried,
            guards: Vec::new(),
            unexplained: Vec::new(),
            promoted: Vec::new(),
            failure: Some(why),
        }
    }

    /// The inputs on which an output is beyond the bound, each once.
    pub fn failing_inputs(&self) -> Vec<&str> {
        each_once(self.outputs.iter().flat_map(|output| &output.failing_inputs).map(String::as_str))
    }
}

/// Names, each once, in their order.
pub(crate) fn each_once<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A constant of the graph, and what it was taken for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promoted {
    /// The value, or the node and its attribute: `node.epsilon`.
    pub name: String,
    /// The number that it is the rounding of, in words: `√2`.
    pub meaning: Cow<'static, str>,
    /// What the graph has.
    #[serde(deserialize_with = "or_nan")]
    pub from: f32,
    /// What it was taken for.
    #[serde(deserialize_with = "or_nan")]
    pub to: f64,
}
