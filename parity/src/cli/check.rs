//! `parity check`

use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use candle_core::DType;
use engine::{Engine, NamedValues};
use onnx_graph::Model;
use parity::bench::{self, Budget};
use parity::check::{Expected, Options, check, common_inputs, fit_inputs};
use parity::report::{EngineCheck, InputSummary, Report, SCHEMA, TimingReport};
use parity::suite::{Case, FixedShape};
use parity::{Reference, Subject, Verdict};

use super::args::{CheckArgs, Precision};
use super::{engines, input, is_stdout, one_line, progress, show, unless_closed, write_json};

/// What timing may take at the end of a check, which has warmed everything: it is there to give an idea, `parity bench` measures.
const TIMING: Budget = Budget { warm_up: 0, rounds: 1, time: Duration::from_millis(500) };

pub fn command(args: &CheckArgs) -> anyhow::Result<Verdict> {
    let result = judge(args);
    let written = match (&args.json, &result) {
        (None, _) => Ok(()),
        (Some(path), Ok(outcome)) => write_json(path, &outcome.report),
        (Some(path), Err(error)) => write_json(path, &failed(args, error)),
    };
    let outcome = match (result, written) {
        (Ok(outcome), written) => written.map(|()| outcome),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(unwritten)) => Err(error.context(one_line(&unwritten))),
    }?;
    if !args.json.as_deref().is_some_and(is_stdout) {
        let mut out = anstream::stdout().lock();
        let shown = show::report(
            &mut out,
            &show::Shown {
                report: &outcome.report,
                reference: outcome.reference,
                graphs: outcome.graphs,
                features: outcome.features,
            },
        );
        unless_closed(shown.and_then(|()| out.flush()))?;
    }
    Ok(outcome.report.verdict)
}

/// A report, and what is shown beside it.
struct Outcome {
    report: Report,
    reference: String,
    graphs: Vec<String>,
    features: Option<show::Features>,
}

/// A graph under the name the report gives it, and an engine that took it, or why none did.
struct Candidate {
    onnx: String,
    model: Rc<Model>,
    engine: Result<Box<dyn Engine>, anyhow::Error>,
}

/// Every graph on every engine that was asked for, or on the fastest that takes it.
fn candidates(
    args: &CheckArgs,
    subject: &Subject,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Candidate>> {
    let paths: Vec<Option<&Path>> = match args.onnx.as_slice() {
        [] => vec![None],
        paths => paths.iter().map(|path| Some(path.as_path())).collect(),
    };
    let mut candidates = Vec::new();
    for path in paths {
        let (onnx, model) = subject.graph(path)?;
        let model = Rc::new(model);
        let mut push =
            |engine| candidates.push(Candidate { onnx: onnx.clone(), model: model.clone(), engine });
        for &kind in &args.engine {
            push(Ok(engines::open(&model, kind, Precision::F32).context(onnx.clone())?));
        }
        if args.engine.is_empty() {
            let fastest = engines::fastest(&model);
            if let Ok((engine, Some(refusal))) = &fastest {
                notes.push(format!("{onnx} was run on the {}, because {refusal}", engine.name()));
            }
            push(fastest.map(|(engine, _)| engine));
        }
    }
    Ok(candidates)
}

fn judge(args: &CheckArgs) -> anyhow::Result<Outcome> {
    let subject = Subject::open(args.model.as_deref())?;
    let mut notes = Vec::new();
    let candidates = candidates(args, &subject, &mut notes)?;
    let Reference { engine: reference, unused } = subject.reference(DType::F32)?;

    let mut report = Report {
        schema: SCHEMA,
        verdict: Verdict::Inconclusive,
        model: subject.name().into(),
        onnx: candidates.first().map(|candidate| candidate.onnx.clone()),
        error: None,
        atol: args.atol,
        inputs: Vec::new(),
        notes,
        checks: Vec::new(),
        timing: None,
    };
    add_notes(&mut report.notes, &reference, &candidates, &unused);
    let options = Options { atol: args.atol, outputs: args.output.clone() };
    let mut features = None;
    for candidate in &candidates {
        let engine = match &candidate.engine {
            Ok(engine) => engine.as_ref(),
            Err(error) => {
                report.checks.push(refused(candidate, error));
                continue;
            }
        };
        let fixed = FixedShape::of(engine.inputs());
        let mut cases = input::cases(&subject, args.inputs.as_deref(), &args.text, fixed)?;
        for case in &mut cases {
            input::refuse_unknown(&case.inputs, &[reference.inputs(), engine.inputs()])?;
            let common = common_inputs(&case.inputs, reference.inputs(), engine.inputs())?;
            for name in common.names().filter(|name| !case.inputs.contains(name)) {
                report.notes.push(format!("'{name}' was not given: {} was taken", default_of(name)));
            }
            case.inputs = common;
            let summary = summary(case);
            if !report.inputs.contains(&summary) {
                report.inputs.push(summary);
            }
        }
        let bar = progress::bar("checking", 2 * cases.len());
        let expected = Expected::compute(&reference, &cases, |case| {
            bar.set_prefix(case.name.clone());
            bar.inc(1);
        })?;
        report.checks.push(check(&expected, engine, &candidate.onnx, &options, |_| bar.inc(1))?);
        if report.timing.is_none() {
            report.timing = time(&reference, engine, &cases)?;
        }
        bar.finish_and_clear();
        if features.is_none() {
            features = show::Features::of(&expected);
        }
    }
    report.verdict = Verdict::worst(report.checks.iter().map(|check| check.verdict));
    let graphs = candidates.iter().map(|candidate| show::graph(&candidate.model)).collect();
    Ok(Outcome { report, reference: show::reference(&subject), graphs, features })
}

/// What stands in for an input that was not given.
fn default_of(name: &str) -> &'static str {
    if name == "attention_mask" { "a mask of ones" } else { "zeros" }
}

/// What a person should know that no number shows.
fn add_notes(notes: &mut Vec<String>, reference: &dyn Engine, candidates: &[Candidate], unused: &[String]) {
    if !unused.is_empty() {
        notes.push(format!("the checkpoint has tensors that the model does not use: {}", unused.join(", ")));
    }
    for Candidate { onnx, model, .. } in candidates {
        for spec in reference.inputs() {
            let note = format!("{onnx} has no input '{}', so both sides run without it", spec.name);
            if !model.graph.inputs.iter().any(|input| input.name == spec.name) && !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
}

/// A graph that no engine takes: nothing was compared.
fn refused(candidate: &Candidate, error: &anyhow::Error) -> EngineCheck {
    EngineCheck {
        engine: "candle".into(),
        onnx: candidate.onnx.clone(),
        dtype: String::new(),
        verdict: Verdict::Inconclusive,
        failure: Some(one_line(error)),
        not_compared: Vec::new(),
        outputs: Vec::new(),
    }
}

fn summary(case: &Case) -> InputSummary {
    let shape = case.inputs.get("input_ids").map(|ids| ids.shape().to_vec()).unwrap_or_default();
    let mask = case.inputs.get("attention_mask").and_then(|mask| mask.as_slice::<i64>().ok());
    let tokens = mask.map_or(shape.iter().product(), |mask| mask.iter().filter(|&&bit| bit != 0).count());
    InputSummary { name: case.name.clone(), shape, tokens }
}

/// Times both paths on the sentences, or whatever comes first.
fn time(reference: &dyn Engine, engine: &dyn Engine, cases: &[Case]) -> anyhow::Result<Option<TimingReport>> {
    let Some(case) = cases.iter().find(|case| case.name == "sentences").or(cases.first()) else {
        return Ok(None);
    };
    let sides: [&dyn Engine; 2] = [reference, engine];
    let inputs: Vec<NamedValues> =
        sides.iter().map(|side| fit_inputs(&case.inputs, side.inputs())).collect::<Result<_, _>>()?;
    let engines: Vec<(&dyn Engine, &NamedValues)> = sides.into_iter().zip(&inputs).collect();
    // A graph that failed on this input has been judged already.
    let results = bench::interleave(&engines, TIMING, |_| ()).ok();
    Ok(results.map(|results| TimingReport { input: case.name.clone(), results }))
}

/// The report of a check that could not be run.
fn failed(args: &CheckArgs, error: &anyhow::Error) -> Report {
    Report {
        schema: SCHEMA,
        verdict: Verdict::Error,
        model: args.model.clone().unwrap_or_else(|| bert_tiny::NAME.into()),
        onnx: args.onnx.first().map(|path| path.display().to_string()),
        error: Some(one_line(error)),
        atol: args.atol,
        inputs: Vec::new(),
        notes: Vec::new(),
        checks: Vec::new(),
        timing: None,
    }
}
