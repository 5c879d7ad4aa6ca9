//! A graph on an engine, in f32, against the reference: output by output, and what else an engine
//! must not do.

pub mod bench;
pub mod open;
pub mod recorded;
pub mod relations;
pub mod stress;

use engine::{Engine, ValueError, ValueSpec};
use report::{EngineCheck, Expect, OutputReport, Verdict};

use crate::ParityError;
use crate::bounds::Bounds;
use crate::compare::decide::Choices;
use crate::compare::{Answers, OnFailure, Tally, from_truth, single};
use crate::inputs::{Case, common_inputs};
use crate::proof::Budget;

/// What an engine's f32 is judged by beside the tolerance: both sides in f64.
#[derive(Clone, Copy)]
pub struct Exact<'a> {
    /// The reference in f64.
    pub truth: &'a Answers<'a>,
    /// What f32 has a right to.
    pub budget: &'a Budget,
}

/// Holds a candidate against what the reference computed. Without `exact`, whatever is beyond the
/// tolerance fails.
///
/// An output that only one of both has is listed, not failed, unless `bounds.outputs` asks for it.
/// An engine that fails on an input that its declared shapes allow fails the check: a graph with
/// dynamic axes that runs only at the traced size is not the same function.
///
/// # Errors
/// If the inputs do not fit the graph.
pub fn check(
    expected: &Answers,
    candidate: &dyn Engine,
    onnx: &str,
    bounds: &Bounds,
    exact: Option<Exact>,
    progress: impl FnMut(&Case),
) -> Result<EngineCheck, ParityError> {
    let (specs, has) = (expected.specs(), candidate.outputs());
    let Shared { shared, not_compared, all } = Shared::of(specs, has, &bounds.outputs);
    let names: Vec<&str> = shared.iter().map(|spec| spec.name.as_str()).collect();
    let mut found = Answers::run(candidate, expected.cases(), &names, OnFailure::Note, progress)?;
    if bounds.expect == Expect::F16 {
        found = found.with_outputs(<[_]>::to_vec, |_, outputs| {
            outputs.iter().map(|(name, value)| (name, single(value.clone()))).collect()
        });
    }
    let output = |spec: &&ValueSpec| {
        let budget = exact.and_then(|exact| exact.budget.of(&spec.name));
        let truth = exact.map(|exact| {
            let [reference, candidate] =
                [expected, &found].map(|side| Tally::in_f64(spec, exact.truth, side, 0.0).total.deciding);
            from_truth(&reference, &candidate)
        });
        let report = Tally::of(spec, expected, &found, bounds.atol).report(&spec.name, budget, truth);
        let reference = exact.map_or(expected, |exact| exact.truth);
        let decisions = bounds.decides.map(|how| Choices::of(how, spec, reference, &found));
        OutputReport { decisions: decisions.and_then(|choices| choices.close(report.max_abs)), ..report }
    };
    let outputs: Vec<OutputReport> = shared.iter().map(output).collect();
    let (failed, failure) = found.failure().cloned().unzip();
    let missing = (!all).then_some(Verdict::Inconclusive);
    let verdict = Verdict::worst(outputs.iter().map(|output| output.verdict));
    let computed = has.iter().find(|spec| names.contains(&spec.name.as_str()));
    Ok(EngineCheck {
        engine: candidate.name().into(),
        onnx: onnx.into(),
        graph: None,
        dtype: computed.map_or_else(String::new, |spec| spec.dtype.to_string()),
        verdict: failed.into_iter().chain(missing).fold(verdict, Verdict::max),
        failure,
        not_compared,
        outputs,
    })
}

/// That no engine takes a graph: nothing was compared.
pub(crate) fn refused(onnx: &str, why: &str) -> EngineCheck {
    EngineCheck {
        engine: "candle".into(),
        onnx: onnx.into(),
        graph: None,
        dtype: String::new(),
        verdict: Verdict::Inconclusive,
        failure: Some(why.into()),
        not_compared: Vec::new(),
        outputs: Vec::new(),
    }
}

/// The outputs that two sides have in common, of those that are wanted.
struct Shared<'a> {
    shared: Vec<&'a ValueSpec>,
    /// What only one of both has, in words.
    not_compared: Vec<String>,
    /// Whether all that were asked for are there.
    all: bool,
}

impl<'a> Shared<'a> {
    /// None that is `wanted` by name means all.
    fn of(reference: &'a [ValueSpec], graph: &[ValueSpec], wanted: &[String]) -> Self {
        let is_wanted = |spec: &&ValueSpec| wanted.is_empty() || wanted.contains(&spec.name);
        let has = |specs: &[ValueSpec], name: &str| specs.iter().any(|spec| spec.name == name);
        let (shared, alone): (Vec<&ValueSpec>, Vec<_>) =
            reference.iter().filter(is_wanted).partition(|spec| has(graph, &spec.name));
        let further = graph.iter().filter(is_wanted).filter(|spec| !has(reference, &spec.name));
        let neither = wanted.iter().filter(|name| !has(reference, name) && !has(graph, name));
        let not_compared = (alone.iter().map(|spec| format!("the graph has no output '{}'", spec.name)))
            .chain(further.map(|spec| format!("the reference has no output '{}'", spec.name)))
            .chain(neither.map(|name| format!("neither side has an output '{name}'")))
            .collect();
        let all = wanted.iter().all(|name| shared.iter().any(|spec| spec.name == *name));
        Self { shared, not_compared, all }
    }
}

/// What [`assert_parity!`](crate::assert_parity) asserts: the candidate passes on every case.
///
/// # Errors
/// A message with a line for each output that does not pass.
pub fn agree(
    reference: &dyn Engine,
    candidate: &dyn Engine,
    cases: &[Case],
    atol: f64,
) -> Result<(), String> {
    let cases = cases
        .iter()
        .map(|case| {
            let inputs = common_inputs(&case.inputs, reference.inputs(), candidate.inputs())?;
            Ok(Case { name: case.name.clone(), inputs })
        })
        .collect::<Result<Vec<_>, ValueError>>()
        .map_err(|error| error.to_string())?;
    let expected = Answers::of(reference, &cases, |_| ()).map_err(|error| error.to_string())?;
    let bounds = Bounds { atol, ..Bounds::default() };
    let check =
        check(&expected, candidate, "graph", &bounds, None, |_| ()).map_err(|error| error.to_string())?;
    if check.verdict == Verdict::Pass {
        return Ok(());
    }
    let lines = [format!("{} against {}: {}", candidate.name(), reference.name(), check.verdict)];
    Err(lines.into_iter().chain(check.complaints(atol)).collect::<Vec<_>>().join("\n  "))
}

#[cfg(test)]
mod tests;
