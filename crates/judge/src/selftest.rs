//! A verdict that measures itself: faults are planted in copies of the user's own graph, and the check is held to finding them.
//!
//! What comes out is what a check with these inputs and bounds would have caught, had the graph had the fault: how many, by what, and whether the
//! module that was spoiled is the first that is named. Faults of engines are planted, too: a graph that computes what a worse engine would is run in
//! f32 in the sound one's place, so that the proof must hold and the engine must fail. And some changes make no other function: those must not fail.

mod edit;
mod plant;

use std::borrow::Cow;

use architecture::{bind, run_of};
use engine::Engine;
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;
use report::{Culprit, GraphReport, Verdict};
pub use report::{Outcome, SELFTEST_SCHEMA as SCHEMA, Selftest};

use self::edit::Edit;
use self::plant::{Sound, plants};
use crate::blame::locate::locate;
use crate::engines::stress::Part;
use crate::inputs::{Case, common_inputs};
use crate::proof::{carrying, exact_graph_with, prove};
use crate::subject::References;
use crate::trial::{Graph, Trial};
use crate::{ParityError, Subject, verdict};
pub use plant::{Plant, Side, Wanted};

/// How many tokens the input may have on which modules are looked at first.
const SMALL: usize = 256;

/// Plants all faults that the graph has a place for, one at a time. `progress` is told how many there are, and is called after each.
///
/// # Errors
/// If the graph cannot be run, or is not sound itself: the sound one must pass before a fault can be told from it.
pub fn selftest(
    subject: &Subject,
    graph: Graph,
    cases: &[Case],
    mut progress: impl FnMut(usize, &str),
) -> Result<Selftest, ParityError> {
    let Graph { onnx, model, .. } = graph;
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
    let trial = |case| Trial::new(subject, &references, case, |_| ());
    let trials: Vec<Trial> = cases.chunks(1).map(trial).collect::<Result<_, _>>()?;
    let Some(first) = trials.first() else {
        return Err(ParityError::NotSound { onnx: onnx.into(), why: "there is no input".into() });
    };
    let context = Context { subject, graph, trials: &trials };
    context.must_be_sound()?;
    let audit = first.audit(model)?;
    let (oracle, promoted) = exact_graph_with(model, subject.program(), &carrying(&audit))
        .map_err(|error| ParityError::NotSound { onnx: onnx.into(), why: error.to_string() })?;
    let checkpoint = subject.files().checkpoint()?;
    let bound = bind(&checkpoint, subject.family(), subject.task()).map_err(|error| subject.unfit(error))?;
    let gives = |name: &str| oracle.outputs().iter().any(|spec| spec.name == name);
    let findings = locate(&references.double.engine, &oracle, &cases[0], gives)?;
    let edit = Edit::new(model, &oracle).ok_or_else(|| ParityError::NotSound {
        onnx: onnx.into(),
        why: "its functions import other opsets than it does".into(),
    })?;
    let plants = plants(&Sound {
        edit,
        bound: &bound,
        carried: &findings.carried,
        audit: &audit,
        promoted: &promoted,
    });
    let mut outcomes = Vec::new();
    for plant in &plants {
        outcomes.push(context.outcome(plant)?);
        progress(plants.len(), &plant.fault);
    }
    Ok(summed_up(subject, onnx, &plants, outcomes))
}

/// The sound graph, the inputs, and what is held against them.
struct Context<'a> {
    subject: &'a Subject,
    graph: Graph<'a>,
    /// One for each input.
    trials: &'a [Trial<'a>],
}

impl Context<'_> {
    /// A fault can be told only from a graph that passes.
    fn must_be_sound(&self) -> Result<(), ParityError> {
        let not_sound = |why: String| ParityError::NotSound { onnx: self.graph.onnx.into(), why };
        let Some(report) = self.seen(Graph { engines: &[], ..self.graph })? else {
            return Err(not_sound("there is no input".into()));
        };
        match report_verdict(&report) {
            Verdict::Pass | Verdict::Rounding => Ok(()),
            verdict => Err(not_sound(format!("its verdict is {verdict}: see `parity check`"))),
        }
    }

    /// The report on the first input on which a run shows that something is wrong, or else on the first.
    fn seen(&self, graph: Graph) -> Result<Option<GraphReport>, ParityError> {
        let Some(first) = self.trials.first() else { return Ok(None) };
        let audit = first.audit(graph.model)?;
        let judge = |trial: &Trial| Ok(Some(trial.judge_audited(graph, audit.clone(), |_| ())?.report));
        if !graph.engines.is_empty() {
            for trial in self.trials {
                let report = judge(trial)?;
                let fails =
                    |report: &GraphReport| report.checks.iter().any(|check| check.verdict == Verdict::Fail);
                if report.as_ref().is_some_and(fails) {
                    return Ok(report);
                }
            }
        }
        let exact = exact_graph_with(graph.model, self.subject.program(), &carrying(&audit));
        let Ok((oracle, _)) = exact else { return judge(first) };
        for trial in self.trials {
            let truth = trial.truth_as(graph.model)?;
            if prove(&truth, &oracle, graph.bounds.proof_tol, |_| ())?.0.verdict == Verdict::Fail {
                return judge(trial);
            }
        }
        judge(first)
    }

    fn outcome(&self, plant: &Plant) -> Result<Outcome, ParityError> {
        let sound = Graph { engines: &[], parts: &[], ..self.graph };
        let in_f32 = |model: &Model| Oracle::with(model, Precision::F32, Limits::default()).ok();
        let report = match plant.side {
            Side::Graph => self.seen(Graph { model: &plant.model, ..sound })?,
            Side::Engine => match in_f32(&plant.model) {
                Some(engine) => {
                    let open = |part: &Model| Some(Box::new(in_f32(part)?) as Box<dyn Engine>);
                    let parts = [Part { deployed: &plant.model, open: &open }];
                    self.seen(Graph { engines: &[&engine], parts: &parts, ..sound })?
                }
                None => None,
            },
        };
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
            // A tensor that was changed is wrong in all runs of its module, and what the audit
            // finds is put on all of them.
            located: plant.module.as_ref().filter(|_| caught).map(|module| {
                let is_it =
                    |named: &str| named == module || run_of(named).0 == module || named == run_of(module).0;
                named.as_deref().is_some_and(is_it)
            }),
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
    let checks = report.checks.iter().map(|check| check.verdict);
    checks.fold(verdict::on_function(&report.proof, &report.parts), Verdict::max)
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
