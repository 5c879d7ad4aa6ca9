//! The proof: both sides in f64, by code that shares no tensor kernel, on the same inputs.
//!
//! ```text
//! |graph in f64 − checkpoint in f64| ≤ proof_tol · max(1, largest |checkpoint in f64|)
//! for each output, at the positions that decide
//! ```
//!
//! No tolerance for f32 can tell rounding from a fault: on a stiff model a correct export is
//! further from its checkpoint in f32 than a wrong one is from a right one. In f64 a correct export
//! is 1e-13 off, and an f32 weight with one wrong bit 1e-9 and more. What f32 then has a right to
//! follows from the same runs: see [`Budget`].

mod budget;
pub mod convert;
pub mod further;
mod numbers;
mod promote;
mod run;

use std::collections::HashSet;

use architecture::Program;
use engine::{Engine, ValueSpec};
use onnx_eval::{Limits, Oracle, OracleError};
use onnx_graph::Model;
use report::Verdict;
pub use report::{DEFAULT_PROOF_TOL, Promoted, Proof, ProofOutput, Scope, Unexplained};

use crate::ParityError;
use crate::compare::{Answers, OnFailure, Tally, finite};
use crate::inputs::Case;
pub use budget::{BUDGET_FACTOR, BUDGET_ULPS, Budget, Leave, Roundings};
pub(crate) use numbers::{Known, Numbers, logs, mean, of_activations, of_heads};
pub use promote::promotions;
pub(crate) use promote::{carrying, half_promotions, promotions_to};
pub(crate) use run::{Oracles, Proven, Runs, rounded};

/// How many tokens the input may have on which values are looked at, if there is one so small:
/// every value of the graph is kept.
pub(crate) const TELLING: usize = 256;

/// The input on which values are looked at: of those on which the proof fails the one with the
/// largest difference, but not a long one if a short one will do; a short one with as many tokens
/// as possible where it holds. One of several tokens is preferred, since a softmax over one is 1
/// whatever its scores are.
pub(crate) fn telling_case<'a>(proof: &Proof, cases: &'a [Case]) -> Option<&'a Case> {
    let size = |case: &Case| case.inputs.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    let failing = proof.failing_inputs();
    let candidates = |case: &&Case| failing.is_empty() || failing.contains(&case.name.as_str());
    let mut found: Vec<&Case> = cases.iter().filter(candidates).collect();
    found.sort_by_key(|case| size(case));
    let short: Vec<&Case> = found.iter().copied().filter(|case| size(case) <= TELLING).collect();
    let off = |output: &&ProofOutput| output.max_rel.unwrap_or(f64::INFINITY);
    let beyond = proof.outputs.iter().filter(|output| output.verdict == Verdict::Fail);
    let worst =
        beyond.max_by(|a, b| off(a).total_cmp(&off(b))).and_then(|output| output.worst_input.as_deref());
    let is_worst = |case: &&&Case| worst == Some(case.name.as_str()) && size(case) > 1;
    short.iter().find(is_worst).or(short.last()).or(found.first()).copied()
}

/// The graph in f64 as it was meant, and the constants that were promoted for that.
///
/// # Errors
/// If the oracle does not know an operator of the graph.
pub fn exact_graph(model: &Model, program: &Program) -> Result<(Oracle, Vec<Promoted>), OracleError> {
    exact_graph_with(model, program, &HashSet::new())
}

/// The graph in f64 as it was meant, with these of its constants as they are, since they carry
/// weights.
///
/// # Errors
/// As [`exact_graph`].
pub fn exact_graph_with(
    model: &Model,
    program: &Program,
    weights: &HashSet<&str>,
) -> Result<(Oracle, Vec<Promoted>), OracleError> {
    let oracle = Oracle::with(model, onnx_eval::Precision::F64, Limits::default())?;
    let (promotions, promoted) = promotions(&oracle, program, weights);
    Ok((oracle.promoting(promotions), promoted))
}

/// Holds the graph in f64 against the truth.
///
/// Outputs that only one side has are left out here: what that means for the verdict is the check's
/// to say. What the graph gave for each case is returned, too.
///
/// # Errors
/// If the inputs do not fit the graph.
pub fn prove<'a>(
    truth: &Answers<'a>,
    graph: &dyn Engine,
    tol: f64,
    progress: impl FnMut(&Case),
) -> Result<(Proof, Answers<'a>), ParityError> {
    let has = |spec: &&ValueSpec| graph.outputs().iter().any(|other| other.name == spec.name);
    let shared: Vec<&ValueSpec> = truth.specs().iter().filter(has).collect();
    let names: Vec<&str> = shared.iter().map(|spec| spec.name.as_str()).collect();
    let found = Answers::run(graph, truth.cases(), &names, OnFailure::Note, progress)?;
    let outputs: Vec<ProofOutput> =
        shared.iter().map(|spec| output(&spec.name, Tally::of(spec, truth, &found, 0.0), tol)).collect();
    let verdict = Verdict::worst(outputs.iter().map(|output| output.verdict));
    let (failed, failure) = found.failure().cloned().unzip();
    let largest = |pick: fn(&ProofOutput) -> Option<f64>| {
        // One that is not finite makes the whole so.
        let all: Option<Vec<f64>> = outputs.iter().map(pick).collect();
        all.and_then(|all| all.into_iter().reduce(f64::max))
    };
    let proof = Proof {
        verdict: verdict.max(failed.unwrap_or(verdict)),
        max_abs: largest(|output| output.max_abs),
        max_rel: largest(|output| output.max_rel),
        tol,
        outputs,
        scope: Scope::Tried,
        guards: Vec::new(),
        unexplained: Vec::new(),
        promoted: Vec::new(),
        failure,
    };
    Ok((proof, found))
}

/// Fails a proof if the graph in f64 is another function on inputs that its own nodes led to, of
/// which `truth` says what they should give. Gives the names of those inputs.
///
/// # Errors
/// If the inputs do not fit the graph.
pub(crate) fn refute(
    proof: &mut Proof,
    truth: &Answers,
    graph: &dyn Engine,
) -> Result<Vec<String>, ParityError> {
    let (off, _) = prove(truth, graph, proof.tol, |_| ())?;
    let failing: Vec<String> = off.failing_inputs().into_iter().map(str::to_owned).collect();
    if let Some((case, _)) = truth.iter().find(|(case, _)| failing.contains(&case.name)) {
        let far = off.max_abs.map_or(String::new(), |off| format!(", {off:.1e} off"));
        proof.verdict = Verdict::Fail;
        proof.failure =
            Some(format!("it is another function{far} on an input that its own nodes led to: {}", case.name));
    }
    Ok(failing)
}

/// What one output comes to over all cases.
fn output(name: &str, tally: Tally, tol: f64) -> ProofOutput {
    let total = &tally.total.deciding;
    let scale = total.largest_reference().max(1.0);
    let beyond = |max: Option<f64>| max.is_none_or(|max| max > tol * scale);
    let verdict = match total.max_abs() {
        _ if tally.mismatch.is_some() => Verdict::Fail,
        _ if total.compared() == 0 => Verdict::Inconclusive,
        max if beyond(max) => Verdict::Fail,
        _ => Verdict::Pass,
    };
    let worst = total.worst();
    ProofOutput {
        name: name.into(),
        max_abs: total.max_abs(),
        max_rel: total.max_abs().map(|max| max / scale),
        compared: total.compared(),
        failing_inputs: tally.cases(beyond),
        worst_index: worst.map(|worst| worst.index.clone()),
        reference: worst.and_then(|worst| finite(worst.reference)),
        candidate: worst.and_then(|worst| finite(worst.candidate)),
        worst_input: tally.worst_input,
        mismatch: tally.mismatch,
        verdict,
    }
}
