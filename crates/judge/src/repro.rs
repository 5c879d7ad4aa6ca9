//! From a failing check to a folder that replays it: the input that fails is found, made as small as the fault allows, and written down.

pub mod folder;
pub mod shrink;

use std::path::Path;
use std::time::{Duration, Instant};

use engine::{Engine, NamedValues};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;
use report::{GraphReport, Repro, Verdict};

use self::folder::{FolderError, Replay};
use self::shrink::shrink;
use crate::ParityError;
use crate::bounds::Bounds;
use crate::compare::Answers;
use crate::engines::{Exact, check};
use crate::inputs::{Case, FixedShape, fit_inputs};
use crate::proof::{Budget, Leave, prove, rounded};

/// How long inputs are tried. What was found until then is written.
const TIME: Duration = Duration::from_secs(10);

/// How many inputs are tried, after the first that fails.
const MOST_TRIED: usize = 300;

/// What ran in a failing check.
#[derive(Clone, Copy)]
pub struct Sides<'a> {
    /// The reference in f32.
    pub single: &'a dyn Engine,
    /// The reference in f64.
    pub double: &'a dyn Engine,
    /// The graph in f64, with its constants as they were meant; nothing where the oracle does not take the graph.
    pub exact: Option<&'a Oracle>,
    /// What ran the graph in f32.
    pub engines: &'a [&'a dyn Engine],
    /// What the graph's f32 is left.
    pub leave: Leave,
}

/// Why there is no folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReproError {
    /// No input was found that shows what is wrong.
    #[error("no input shows what fails, so there is nothing to replay")]
    NothingFails,
    /// The folder could not be written.
    #[error(transparent)]
    Write(Box<FolderError>),
    /// What ran before does not run now.
    #[error(transparent)]
    Run(Box<ParityError>),
}

impl From<FolderError> for ReproError {
    fn from(error: FolderError) -> Self {
        ReproError::Write(Box::new(error))
    }
}

impl From<ParityError> for ReproError {
    fn from(error: ParityError) -> Self {
        ReproError::Run(Box::new(error))
    }
}

/// What of a check fails.
#[derive(Clone, Copy)]
enum Fails<'a> {
    /// The proof: an output is another one.
    Proof,
    /// The proof: a node cannot compute the input.
    Node,
    /// An engine is further off than rounding explains, or fails.
    Engine(&'a dyn Engine),
}

/// A check that failed.
#[derive(Clone, Copy)]
pub struct Failed<'a> {
    /// The graph.
    pub model: &'a Model,
    /// What was found of it.
    pub report: &'a GraphReport,
    /// What ran.
    pub sides: Sides<'a>,
    /// On these inputs.
    pub cases: &'a [Case],
    /// By these bounds.
    pub bounds: &'a Bounds,
}

/// A failing check, and the means to repeat it on another input.
struct Search<'a> {
    failed: Failed<'a>,
    /// The graph in f32, by the oracle.
    rounded: Option<Oracle>,
}

/// Finds an input on which the graph fails as its report says, makes it small, and writes it to a
/// folder that is made for that.
///
/// # Errors
/// If no input shows it, or the folder is not empty or cannot be written.
pub fn write(dir: &Path, failed: Failed, command: &str) -> Result<Repro, ReproError> {
    let Failed { model, sides, bounds, .. } = failed;
    let until = Instant::now() + TIME;
    let rounded = Oracle::with(model, Precision::F32, Limits::default()).ok();
    let search = Search { failed, rounded };
    let in_time = || Instant::now() < until;
    let (what, case) = search.first(&in_time).ok_or(ReproError::NothingFails)?;
    let shown = |case: &Case| in_time() && search.fails(what, case).unwrap_or(false);
    let small = shrink(case, FixedShape::of(&model.graph.inputs), shown, MOST_TRIED);
    let run = |engine: &dyn Engine| -> Result<NamedValues, ParityError> {
        Ok(engine.run(&fit_inputs(&small.inputs, engine.inputs())?)?)
    };
    let (expected, expected_f64) = (run(sides.single)?, run(sides.double)?);
    let (precision, atol) = match what {
        Fails::Proof => (Precision::F64, search.exact_bound(model, &small, &expected_f64)),
        Fails::Node => (Precision::F32, bounds.atol),
        Fails::Engine(engine) => (Precision::F32, search.single_bound(engine, &small)),
    };
    let replay = Replay {
        graph: model,
        inputs: &small.inputs,
        expected: &expected,
        expected_f64: &expected_f64,
        precision,
        atol,
        command,
    };
    folder::write(dir, &replay)?;
    let ids = small.inputs.get("input_ids").or_else(|| small.inputs.iter().next().map(|(_, value)| value));
    Ok(Repro {
        dir: dir.display().to_string(),
        input: case.name.clone(),
        shape: ids.map(|ids| ids.shape().to_vec()).unwrap_or_default(),
        precision: if precision == Precision::F64 { "f64" } else { "f32" }.into(),
        atol,
    })
}

impl<'a> Search<'a> {
    /// What fails, and the smallest of the inputs on which it does.
    fn first(&self, in_time: &dyn Fn() -> bool) -> Option<(Fails<'a>, &'a Case)> {
        let Failed { report, sides, .. } = self.failed;
        let mut cases: Vec<&Case> = self.failed.cases.iter().collect();
        cases.sort_by_key(|case| case.inputs.iter().map(|(_, value)| value.len()).max());
        let named = report.proof.failing_inputs();
        let wrong = report.proof.outputs.iter().any(|output| output.verdict == Verdict::Fail);
        let is_off = |name: &str| {
            report.checks.iter().any(|check| check.engine == name && check.verdict == Verdict::Fail)
        };
        let engine = sides.engines.iter().copied().find(|engine| is_off(engine.name()));
        let whats = [
            wrong.then_some(Fails::Proof),
            report
                .proof
                .failure
                .as_ref()
                .filter(|_| report.proof.verdict == Verdict::Fail)
                .map(|_| Fails::Node),
            engine.map(Fails::Engine),
        ];
        whats.into_iter().flatten().find_map(|what| {
            let likely = |case: &&&Case| match what {
                Fails::Proof => named.is_empty() || named.contains(&case.name.as_str()),
                _ => true,
            };
            let shows = |case: &&Case| in_time() && self.fails(what, case).unwrap_or(false);
            cases.iter().filter(likely).copied().find(shows).map(|case| (what, case))
        })
    }

    /// Whether an input shows it; nothing where it does not fit, or the reference itself cannot run it.
    fn fails(&self, what: Fails, case: &Case) -> Option<bool> {
        let cases = std::slice::from_ref(case);
        let truth = Answers::of(self.failed.sides.double, cases, |_| ()).ok()?;
        let Fails::Engine(engine) = what else {
            let (proof, _) =
                prove(&truth, self.failed.sides.exact?, self.failed.bounds.proof_tol, |_| ()).ok()?;
            return Some(match what {
                Fails::Node => proof.failure.is_some(),
                _ => proof.outputs.iter().any(|output| output.verdict == Verdict::Fail),
            });
        };
        let expected = Answers::of(self.failed.sides.single, cases, |_| ()).ok()?;
        let budget = self.budget(&truth, &expected);
        let exact = budget.as_ref().map(|budget| Exact { truth: &truth, budget });
        let check =
            check(&expected, engine, &self.failed.report.onnx, self.failed.bounds, exact, |_| ()).ok()?;
        Some(check.verdict == Verdict::Fail)
    }

    fn budget(&self, truth: &Answers, expected: &Answers) -> Option<Budget> {
        let (_, exact) = prove(truth, self.failed.sides.exact?, self.failed.bounds.proof_tol, |_| ()).ok()?;
        let rounded = rounded(self.rounded.as_ref()?, &exact, |_| ()).ok()?;
        Some(Budget::measure(truth, expected, [&exact, &rounded], self.failed.sides.leave))
    }

    /// What the replay in f64 allows. It takes the graph's constants as they are, which costs a correct graph as much as promoting them changes
    /// this one; twice that passes, or else the bound of the proof. Where the fault itself is smaller, half of what is seen, so that it fails.
    fn exact_bound(&self, model: &Model, case: &Case, reference: &NamedValues) -> f64 {
        let run = |engine: &dyn Engine| {
            let inputs = fit_inputs(&case.inputs, engine.inputs()).ok()?;
            engine.run(&inputs).ok()
        };
        let plain = Oracle::new(model).ok().and_then(|oracle| run(&oracle)).unwrap_or_default();
        let meant = self.failed.sides.exact.and_then(|exact| run(exact)).unwrap_or_default();
        let largest = reference
            .iter()
            .flat_map(|(_, value)| value.to_f64())
            .fold(1.0, |largest: f64, x| largest.max(x.abs()));
        let wanted = (2.0 * furthest(&plain, &meant)).max(self.failed.bounds.proof_tol * largest);
        below(wanted, furthest(&plain, reference))
    }

    /// What the replay in f32 allows: the largest budget of an output, or half of what is seen where that is less.
    fn single_bound(&self, engine: &dyn Engine, case: &Case) -> f64 {
        let cases = std::slice::from_ref(case);
        let seen = || {
            let truth = Answers::of(self.failed.sides.double, cases, |_| ()).ok()?;
            let expected = Answers::of(self.failed.sides.single, cases, |_| ()).ok()?;
            let budget = self.budget(&truth, &expected)?;
            let found = engine.run(&fit_inputs(&case.inputs, engine.inputs()).ok()?).ok()?;
            let (_, reference) = expected.iter().next()?;
            let budgets = found.names().filter_map(|name| budget.largest(name));
            let wanted = budgets.fold(self.failed.bounds.atol, f64::max);
            Some(below(wanted, furthest(&found, reference)))
        };
        seen().unwrap_or(self.failed.bounds.atol)
    }
}

/// A bound that what is seen is beyond.
fn below(wanted: f64, seen: f64) -> f64 {
    if wanted < seen || seen == 0.0 { wanted } else { seen / 2.0 }
}

/// How far two sides are apart at most in the outputs that both have; infinite where shapes differ or a value is not finite.
fn furthest(first: &NamedValues, second: &NamedValues) -> f64 {
    let mut largest = 0f64;
    for (name, a) in first.iter() {
        let Some(b) = second.get(name) else { continue };
        if a.shape() != b.shape() {
            return f64::INFINITY;
        }
        for (a, b) in a.to_f64().into_iter().zip(b.to_f64()) {
            let difference = (a - b).abs();
            if !difference.is_finite() {
                return f64::INFINITY;
            }
            largest = largest.max(difference);
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Value;

    #[test]
    fn a_replay_fails_where_the_check_did() {
        assert_eq!(below(1e-10, 1e-3), 1e-10);
        assert_eq!(below(1e-3, 1e-4), 5e-5);
        assert_eq!(below(1e-3, f64::INFINITY), 1e-3);
    }

    #[test]
    fn what_cannot_be_compared_is_infinitely_far() {
        let one = |data: &[f64]| NamedValues::from_iter([("y", Value::new([data.len()], data).unwrap())]);
        assert_eq!(furthest(&one(&[1.0, 2.0]), &one(&[1.0, 2.5])), 0.5);
        assert_eq!(furthest(&one(&[1.0]), &one(&[f64::NAN])), f64::INFINITY);
        assert_eq!(furthest(&one(&[1.0]), &one(&[1.0, 2.0])), f64::INFINITY);
    }
}
