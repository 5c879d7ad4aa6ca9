//! The proof: both sides in f64, by code that shares no tensor kernel, on the same inputs.
//!
//! ```text
//! |graph in f64 − checkpoint in f64| ≤ proof_tol · max(1, largest |checkpoint in f64|)      for each output, at the positions that decide
//! ```
//!
//! No tolerance for f32 can tell rounding from a fault: on a stiff model a correct export is further from its checkpoint in f32 than a
//! wrong one is from a right one. In f64 a correct export is 1e-13 off, and an f32 weight with one wrong bit 1e-9 and more.
//! What f32 then has a right to follows from the same runs: see [`Budget`].

mod budget;
mod promote;
mod run;

pub use crate::report::{DEFAULT_PROOF_TOL, Promoted, Proof, ProofOutput};
pub use budget::{BUDGET_FACTOR, BUDGET_ULPS, Budget};
pub(crate) use budget::{ulp, widened};
pub use promote::promotions;
pub(crate) use promote::{Known, half_promotions, promotions_to};
pub(crate) use run::{Oracles, Proven, Runs, runs};

use engine::{Engine, NamedValues, ValueSpec};
use onnx_eval::{Limits, Oracle, OracleError};
use onnx_graph::Model;

use architecture::Program;

use crate::ParityError;
use crate::Verdict;
use crate::check::{deciding, failed_node, fit_inputs};
use crate::compare::{Comparison, compare};
use crate::suite::Case;

/// How many tokens the input may have on which values are looked at, if there is one so small: every value of the graph is kept.
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
    let oracle = Oracle::with(model, onnx_eval::Precision::F64, Limits::default())?;
    let (promotions, promoted) = promotions(model, oracle.nodes(), program);
    Ok((oracle.promoting(promotions), promoted))
}

/// What the checkpoint computes in f64 for each case.
#[derive(Clone)]
pub struct Truth {
    specs: Vec<ValueSpec>,
    outputs: Vec<NamedValues>,
}

impl Truth {
    /// Runs the reference in f64.
    ///
    /// # Errors
    /// If a case does not fit the model.
    pub fn compute(
        reference: &dyn Engine,
        cases: &[Case],
        mut progress: impl FnMut(&Case),
    ) -> Result<Self, ParityError> {
        let mut outputs = Vec::new();
        for case in cases {
            progress(case);
            outputs.push(reference.run(&fit_inputs(&case.inputs, reference.inputs())?)?);
        }
        Ok(Self { specs: reference.outputs().to_vec(), outputs })
    }

    /// The same with other outputs, made of these: their specs, and those of each case.
    pub(crate) fn with_outputs(
        &self,
        cases: &[Case],
        specs: impl FnOnce(&[ValueSpec]) -> Vec<ValueSpec>,
        outputs: impl Fn(&Case, &NamedValues) -> NamedValues,
    ) -> Self {
        let outputs = cases.iter().zip(&self.outputs).map(|(case, values)| outputs(case, values)).collect();
        Self { specs: specs(&self.specs), outputs }
    }

    /// The outputs that the reference has.
    pub fn specs(&self) -> &[ValueSpec] {
        &self.specs
    }

    /// The outputs of each case.
    pub fn outputs(&self) -> &[NamedValues] {
        &self.outputs
    }
}

/// Holds the graph in f64 against the truth.
///
/// Outputs that only one side has are left out here: what that means for the verdict is the check's to say. What the graph gave for each case is
/// returned, too.
///
/// # Errors
/// If the inputs do not fit the graph.
pub fn prove(
    truth: &Truth,
    graph: &dyn Engine,
    cases: &[Case],
    tol: f64,
    mut progress: impl FnMut(&Case),
) -> Result<(Proof, Vec<NamedValues>), ParityError> {
    let has = |name: &str| graph.outputs().iter().any(|spec| spec.name == name);
    let shared: Vec<&ValueSpec> = truth.specs.iter().filter(|spec| has(&spec.name)).collect();
    let names: Vec<&str> = shared.iter().map(|spec| spec.name.as_str()).collect();
    let mut tallies: Vec<Tally> = shared.iter().map(|_| Tally::default()).collect();
    let mut failure = None;
    let mut all = Vec::new();
    for (case, reference) in cases.iter().zip(&truth.outputs) {
        progress(case);
        let outputs = match graph.run_for(&fit_inputs(&case.inputs, graph.inputs())?, &names) {
            Ok(outputs) => outputs,
            Err(error) if let Some(verdict) = failed_node(&error) => {
                failure = Some((verdict, format!("on input '{}': {error}", case.name)));
                break;
            }
            Err(error) => return Err(error.into()),
        };
        for (spec, tally) in shared.iter().zip(&mut tallies) {
            let (Some(reference), Some(candidate)) = (reference.get(&spec.name), outputs.get(&spec.name))
            else {
                continue;
            };
            match compare(reference, candidate, &deciding(spec, case.inputs.get("attention_mask")), 0.0) {
                Ok(comparison) => tally.add(&case.name, comparison),
                Err(error) => {
                    tally.mismatch.get_or_insert(format!("on input '{}': {error}", case.name));
                }
            }
        }
        all.push(outputs);
    }
    let outputs: Vec<ProofOutput> =
        shared.iter().zip(tallies).map(|(spec, tally)| tally.close(&spec.name, tol)).collect();
    let mut verdict = Verdict::worst(outputs.iter().map(|output| output.verdict));
    let (failed, failure) = failure.unzip();
    verdict = verdict.max(failed.unwrap_or(verdict));
    let largest = |pick: fn(&ProofOutput) -> Option<f64>| {
        // One that is not finite makes the whole so.
        let all: Option<Vec<f64>> = outputs.iter().map(pick).collect();
        all.and_then(|all| all.into_iter().reduce(f64::max))
    };
    let proof = Proof {
        verdict,
        max_abs: largest(|output| output.max_abs),
        max_rel: largest(|output| output.max_rel),
        tol,
        outputs,
        promoted: Vec::new(),
        failure,
    };
    Ok((proof, all))
}

/// One output over all cases.
#[derive(Default)]
struct Tally {
    total: Comparison,
    worst_input: Option<String>,
    /// How far off each case is; nothing if a value is not finite.
    by_case: Vec<(String, Option<f64>)>,
    mismatch: Option<String>,
}

impl Tally {
    fn add(&mut self, case: &str, comparison: Comparison) {
        if comparison.deciding.compared() > 0 {
            self.by_case.push((case.into(), comparison.deciding.max_abs()));
        }
        if self.total.deciding.merge(comparison.deciding) {
            self.worst_input = Some(case.into());
        }
    }

    fn close(self, name: &str, tol: f64) -> ProofOutput {
        let total = &self.total.deciding;
        let scale = total.largest_reference().max(1.0);
        let finite = |x: f64| x.is_finite().then_some(x);
        let beyond = |max: Option<f64>| max.is_none_or(|max| max > tol * scale);
        let verdict = match total.max_abs() {
            _ if self.mismatch.is_some() => Verdict::Fail,
            _ if total.compared() == 0 => Verdict::Inconclusive,
            max if beyond(max) => Verdict::Fail,
            _ => Verdict::Pass,
        };
        let worst = total.worst();
        let failing = self.by_case.iter().filter(|(_, max)| beyond(*max));
        ProofOutput {
            name: name.into(),
            max_abs: total.max_abs(),
            max_rel: total.max_abs().map(|max| max / scale),
            compared: total.compared(),
            failing_inputs: failing.map(|(case, _)| case.clone()).collect(),
            worst_index: worst.map(|worst| worst.index.clone()),
            reference: worst.and_then(|worst| finite(worst.reference)),
            candidate: worst.and_then(|worst| finite(worst.candidate)),
            worst_input: self.worst_input,
            mismatch: self.mismatch,
            verdict,
        }
    }
}
