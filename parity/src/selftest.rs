//! A verdict that measures itself: faults are planted in copies of the user's own graph, and the check is held to finding them.
//!
//! What comes out is what a check with these inputs and bounds would have caught, had the graph had the fault: how many, by what, and whether the
//! module that was spoiled is the first that is named. Faults of engines are planted, too: a graph that computes what a worse engine would is run in
//! f32 in the sound one's place, so that the proof must hold and the engine must fail. And some changes make no other function: those must not fail.

mod edit;
mod plant;

pub use plant::{Plant, Side, Wanted};

use std::borrow::Cow;

use architecture::bind;
use engine::Engine;
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;

use self::edit::Edit;
use self::plant::{Sound, plants};
use crate::Verdict;
use crate::check::common_inputs;
use crate::judge::{Bounds, Graph, Judged, References, Trial};
use crate::locate::locate;
use crate::proof::{exact_graph, prove};
use crate::report::{Culprit, GraphReport};
pub use crate::report::{Outcome, SELFTEST_SCHEMA as SCHEMA, Selftest};
use crate::suite::Case;
use crate::{ParityError, Subject};

/// How many tokens the input may have on which modules are looked at first.
const SMALL: usize = 256;

/// Plants all faults that the graph has a place for, one at a time. `progress` is told how many there are, and is called after each.
///
/// # Errors
/// If the graph cannot be run, or is not sound itself: the sound one must pass before a fault can be told from it.
pub fn selftest(
    subject: &Subject,
    onnx: &str,
    model: &Model,
    cases: &[Case],
    bounds: &Bounds,
    mut progress: impl FnMut(usize, &str),
) -> Result<Selftest, ParityError> {
    let references = References::load(subject)?;
    let mut cases: Vec<Case> = cases.to_vec();
    for case in &mut cases {
        case.inputs = common_inputs(&case.inputs, references.single.engine.inputs(), &model.graph.inputs)?;
    }
    // Inputs that tell modules apart come first, so that few have to be run.
    let positions = |case: &Case| case.inputs.get("input_ids").map_or(0, |ids| ids.len());
    cases.sort_by_key(|case| match positions(case) {
        size if size <= SMALL => SMALL - size,
        size => size,
    });
    let trials: Vec<Trial> =
        cases.chunks(1).map(|case| Trial::new(&references, case, |_| ())).collect::<Result<_, _>>()?;
    let Some(first) = trials.first() else {
        return Err(ParityError::NotSound { onnx: onnx.into(), why: "there is no input".into() });
    };
    let context = Runs { subject, onnx, trials: &trials, bounds };
    context.must_be_sound(model)?;
    let audit = first.audit(subject, model)?;
    let (oracle, promoted) = exact_graph(model, subject.program())
        .map_err(|error| ParityError::NotSound { onnx: onnx.into(), why: error.to_string() })?;
    let checkpoint = subject.files().checkpoint()?;
    let bound = bind(&checkpoint, subject.family(), subject.task()).map_err(|error| subject.unfit(error))?;
    let findings = locate(&references.double.engine, &oracle, &cases[0])?;
    let edit = Edit::new(model, &oracle).ok_or_else(|| ParityError::NotSound {
        onnx: onnx.into(),
        why: "its functions import other opsets than it does".into(),
    })?;
    let plants =
        plants(&Sound { edit, bound: &bound, held: &findings.held, audit: &audit, promoted: &promoted });
    let mut outcomes = Vec::new();
    for plant in &plants {
        outcomes.push(context.outcome(model, plant)?);
        progress(plants.len(), &plant.fault);
    }
    Ok(summed_up(subject, onnx, &plants, outcomes))
}

/// The inputs, and what is held against them.
struct Runs<'a> {
    subject: &'a Subject,
    onnx: &'a str,
    /// One for each input.
    trials: &'a [Trial<'a>],
    bounds: &'a Bounds,
}

impl Runs<'_> {
    /// A fault can be told only from a graph that passes.
    fn must_be_sound(&self, model: &Model) -> Result<(), ParityError> {
        let not_sound = |why: String| ParityError::NotSound { onnx: self.onnx.into(), why };
        let Some(judged) = self.seen(model, &[])? else {
            return Err(not_sound("there is no input".into()));
        };
        match report_verdict(&judged.report) {
            Verdict::Pass | Verdict::Rounding => Ok(()),
            verdict => Err(not_sound(format!("its verdict is {verdict}: see `parity check`"))),
        }
    }

    /// The report on the first input on which a run shows that something is wrong, or else on the first.
    fn seen(&self, model: &Model, engines: &[&dyn Engine]) -> Result<Option<Judged>, ParityError> {
        let Some(first) = self.trials.first() else { return Ok(None) };
        let audit = first.audit(self.subject, model)?;
        let graph = Graph { onnx: self.onnx, model, engines, bounds: self.bounds };
        let judge = |trial: &Trial| trial.judge_audited(self.subject, graph, audit.clone(), |_| ());
        if !engines.is_empty() {
            for trial in self.trials {
                let judged = judge(trial)?;
                if judged.report.checks.iter().any(|check| check.verdict == Verdict::Fail) {
                    return Ok(Some(judged));
                }
            }
        }
        let Ok((oracle, _)) = exact_graph(model, self.subject.program()) else {
            return judge(first).map(Some);
        };
        for trial in self.trials {
            let (proof, _) = prove(
                &trial.truth_as(self.subject, model),
                &oracle,
                trial.cases(),
                self.bounds.proof_tol,
                |_| (),
            )?;
            if proof.verdict == Verdict::Fail {
                return judge(trial).map(Some);
            }
        }
        judge(first).map(Some)
    }

    fn outcome(&self, sound: &Model, plant: &Plant) -> Result<Outcome, ParityError> {
        let judged = match plant.side {
            Side::Graph => self.seen(&plant.model, &[])?,
            Side::Engine => match Oracle::with(&plant.model, Precision::F32, Limits::default()) {
                Ok(engine) => self.seen(sound, &[&engine])?.map(|mut judged| {
                    let open = |part: &Model| -> Option<Box<dyn Engine>> {
                        Some(Box::new(Oracle::with(part, Precision::F32, Limits::default()).ok()?))
                    };
                    judged.put_under_stress(sound, &plant.model, &open);
                    judged
                }),
                Err(_) => None,
            },
        };
        let report = judged.map(|judged| judged.report);
        let verdict = report.as_ref().map_or(Verdict::Inconclusive, report_verdict);
        let right = match plant.wanted {
            Wanted::Fail => verdict == Verdict::Fail,
            Wanted::Inconclusive => verdict == Verdict::Inconclusive,
            Wanted::Holds => matches!(verdict, Verdict::Pass | Verdict::Rounding),
        };
        let caught = plant.wanted == Wanted::Fail && right;
        let culprit: Option<&Culprit> = report.as_ref().and_then(|report| report.culprits.first());
        let named = culprit.map(|culprit| culprit.module.clone());
        let failure = report.as_ref().and_then(|report| report.proof.failure.clone());
        let whole = report.as_ref().and_then(|report| report.explanation.clone());
        let explanation = whole.or(culprit.and_then(|culprit| culprit.explanation.clone())).or(failure);
        let speaks = |word: &str| explanation.as_ref().is_some_and(|text| text.to_lowercase().contains(word));
        Ok(Outcome {
            row: plant.row,
            fault: plant.fault.clone(),
            engine: plant.side == Side::Engine,
            verdict,
            right,
            by: report.iter().flat_map(seen_by).collect(),
            module: plant.module.clone(),
            located: plant.module.as_ref().filter(|_| caught).map(|module| named.as_ref() == Some(module)),
            explained: plant.explained.filter(|_| caught).map(speaks),
            named,
            explanation,
            input: report
                .and_then(|report| report.proof.outputs.iter().find_map(|output| output.worst_input.clone())),
        })
    }
}

/// The verdict without that of engines where there are none.
fn report_verdict(report: &GraphReport) -> Verdict {
    let weights = report.weights.as_ref().map_or(Verdict::Inconclusive, |audit| audit.verdict);
    let checks = report.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Pass);
    let relations = report.relations.iter().any(crate::relations::Relation::is_violated);
    let relations = if relations { Verdict::Fail } else { Verdict::Pass };
    let stress = report.stress.iter().map(|stress| stress.verdict).max().unwrap_or(Verdict::Pass);
    report.proof.verdict.max(weights).max(checks).max(relations).max(stress)
}

fn seen_by(report: &GraphReport) -> Vec<Cow<'static, str>> {
    let weights = report.weights.as_ref().is_some_and(|audit| audit.verdict == Verdict::Fail);
    [
        ("audit", weights),
        ("error", report.proof.failure.is_some()),
        ("proof", report.proof.failure.is_none() && report.proof.verdict == Verdict::Fail),
        ("stress", report.stress.iter().any(|stress| stress.verdict == Verdict::Fail)),
        ("f32", report.checks.iter().any(|check| check.verdict == Verdict::Fail)),
    ]
    .into_iter()
    .filter(|(_, seen)| *seen)
    .map(|(name, _)| name.into())
    .collect()
}

/// All of them, counted.
fn summed_up(subject: &Subject, onnx: &str, plants: &[Plant], outcomes: Vec<Outcome>) -> Selftest {
    let pairs = || plants.iter().zip(&outcomes);
    let count = |keep: &dyn Fn(&Plant, &Outcome) -> bool| pairs().filter(|(p, o)| keep(p, o)).count();
    let is_fault = |plant: &Plant| plant.wanted != Wanted::Holds;
    let (faults, caught) = (count(&|p, _| is_fault(p)), count(&|p, o| is_fault(p) && o.right));
    let harmless = count(&|p, _| !is_fault(p));
    let false_alarms = count(&|p, o| !is_fault(p) && !o.right);
    let verdict = match (faults, caught == faults && false_alarms == 0) {
        (0, _) => Verdict::Inconclusive,
        (_, true) => Verdict::Pass,
        (_, false) => Verdict::Fail,
    };
    Selftest {
        schema: SCHEMA.into(),
        verdict,
        model: subject.name().into(),
        onnx: onnx.into(),
        faults,
        caught,
        locatable: count(&|_, o| o.located.is_some()),
        located: count(&|_, o| o.located == Some(true)),
        explainable: count(&|_, o| o.explained.is_some()),
        explained: count(&|_, o| o.explained == Some(true)),
        harmless,
        false_alarms,
        outcomes,
    }
}
