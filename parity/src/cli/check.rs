//! `parity check`

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use engine::{Engine, NamedValues};
use onnx_graph::Model;
use parity::ParityError;
use parity::audit::Expect;
use parity::bench::{self, Budget};
use parity::check::{Options, common_inputs, fit_inputs};
use parity::decide::Decides;
use parity::judge::{Bounds, References, Trial};
use parity::proof;
use parity::replay::Sides;
use parity::report::terminal as form;
use parity::report::{
    EngineCheck, GraphReport, InputSummary, ReferenceKind, ReferenceSide, Report, TimingReport,
};
use parity::suite::Case;
use parity::{Subject, Verdict, tokenizer_check};

use super::args::{CheckArgs, GraphEngine, Precision};
use super::record::Beside;
use super::{
    against, engines, input, is_stdout, model, one_line, progress, record, reports, show, terminal,
    unless_closed,
};

/// What timing may take at the end of a check, which has warmed everything: it is there to give an idea, `parity bench` measures.
const TIMING: Budget = Budget { warm_up: 0, rounds: 1, time: Duration::from_millis(500) };

pub fn command(args: &CheckArgs) -> anyhow::Result<Verdict> {
    let mut result = record::refuse_full_folder(args).and_then(|()| {
        match args.model.as_deref().filter(|model| against::is_graph(model, args)) {
            Some(raw) => against::judge(args, raw),
            None => judge(args),
        }
    });
    let command = Some(reports::command_line());
    let written = match &mut result {
        Ok(report) => {
            report.command = command;
            reports::write(args.json.as_deref(), &args.forms, report)
        }
        Err(error) => {
            reports::write(args.json.as_deref(), &args.forms, &Report { command, ..failed(args, error) })
        }
    };
    let report = match (result, written) {
        (Ok(report), written) => written.map(|()| report),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(unwritten)) => Err(error.context(one_line(&unwritten))),
    }?;
    if !args.json.as_deref().is_some_and(is_stdout) {
        let mut out = terminal::stdout();
        unless_closed(form::report(&mut out, &report).and_then(|()| out.flush()))?;
    }
    Ok(match report.verdict {
        // The report stays as it is: only the exit code is stricter.
        Verdict::Rounding if args.strict => Verdict::Fail,
        verdict => verdict,
    })
}

/// A graph under the name the report gives it, the engines that took it, and why others did not.
pub(super) struct Candidate {
    pub onnx: String,
    pub model: Model,
    pub engines: Vec<Box<dyn Engine>>,
    pub refused: Option<anyhow::Error>,
}

/// Every graph on every engine that was asked for, or on those that it would be deployed on.
pub(super) fn candidates(
    args: &CheckArgs,
    open: impl Fn(Option<&Path>) -> Result<(String, Model), ParityError>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Candidate>> {
    let paths: Vec<Option<&Path>> = match args.onnx.as_slice() {
        [] => vec![None],
        paths => paths.iter().map(|path| Some(path.as_path())).collect(),
    };
    let mut candidates = Vec::new();
    for path in paths {
        let (onnx, model) = open(path)?;
        let mut engines = Vec::new();
        let mut refused = None;
        for &kind in &args.engine {
            engines.push(engines::open(&model, kind, Precision::F32, &args.compiled).context(onnx.clone())?);
        }
        if args.engine.is_empty() {
            match engines::deployment(&model, &args.compiled) {
                Ok((found, refusal)) => {
                    let names: Vec<&str> = found.iter().map(|engine| engine.name()).collect();
                    let names = names.join(" and ");
                    notes.extend(
                        refusal.map(|refusal| format!("{onnx} was run on {names}, because {refusal}")),
                    );
                    engines = found;
                }
                Err(error) => refused = Some(error),
            }
        }
        candidates.push(Candidate { onnx, model, engines, refused });
    }
    Ok(candidates)
}

fn judge(args: &CheckArgs) -> anyhow::Result<Report> {
    let mut subject = model::open_for(args.model.as_deref(), args.task)?;
    let mut notes = Vec::new();
    let candidates = candidates(args, |path| subject.graph_or_export(path), &mut notes)?;
    let exported = args.onnx.is_empty() && !subject.has_graph()?;
    if exported {
        notes.push(format!(
            "no ONNX file lies beside {}: what was judged is the graph that 'parity export' makes of it, made in memory (opset {})",
            subject.name(),
            candidates.iter().find_map(|candidate| candidate.model.opset("")).unwrap_or_default(),
        ));
    }
    if args.task.is_none() {
        let graphs: Vec<&Model> = candidates.iter().map(|candidate| &candidate.model).collect();
        notes.extend(subject.fit_to(&graphs));
    }
    let references = References::load_on(&subject, &args.device.open()?)?;
    let reference: &dyn Engine = &references.single.engine;
    add_notes(&mut notes, reference, &candidates, &references.single.unused);

    let bounds = Bounds {
        options: Options {
            atol: args.atol,
            outputs: args.output.clone(),
            decides: Decides::of(subject.task(), subject.family()),
            ..Options::default()
        },
        proof_tol: args.proof_tol,
        expect: args.expect.map_or(Expect::Exact, Into::into),
    };
    let given = input::given(args.inputs.as_deref())?;
    let (mut inputs, mut timing, mut features) = (Vec::new(), None, None);
    let (mut graphs, mut beside) = (Vec::new(), Beside::default());
    for candidate in &candidates {
        let cases = cases(args, given.as_ref(), &subject, reference, candidate, &mut notes)?;
        for summary in cases.iter().map(summary) {
            if !inputs.contains(&summary) {
                inputs.push(summary);
            }
        }
        let converted = if args.expect.is_some() { 2 } else { 0 };
        let bar = progress::bar("checking", (4 + converted + candidate.engines.len()) * cases.len());
        let step = |case: &Case| {
            bar.set_prefix(terminal::inert(&case.name));
            bar.inc(1);
        };
        let trial = Trial::new(&references, &cases, step)?;
        let engines: Vec<&dyn Engine> = candidate.engines.iter().map(AsRef::as_ref).collect();
        let mut graph = trial.judge(&subject, &candidate.onnx, &candidate.model, &engines, &bounds, step)?;
        let parts: Vec<GraphEngine> = match args.engine.as_slice() {
            [] => engines.iter().filter_map(|engine| GraphEngine::named(engine.name())).collect(),
            kinds => kinds.to_vec(),
        };
        for kind in parts {
            let open = |part: &Model| engines::open(part, kind, Precision::F32, &args.compiled).ok();
            graph.put_under_stress(&candidate.model, &candidate.model, &open);
        }
        if let Some(error) = &candidate.refused {
            refused(&mut graph.report, candidate, error);
        }
        if Beside::is_wanted(args) {
            let exact = proof::exact_graph(&candidate.model, subject.program()).ok().map(|(exact, _)| exact);
            let further = trial.further(&subject, &candidate.model, &engines);
            let [single, double] = references.extended(further.as_ref());
            let sides = Sides { single: &single, double: &double, exact: exact.as_ref(), engines: &engines };
            beside.add(args, subject.name(), candidate, &graph, sides, &cases, &bounds)?;
        }
        graphs.push(described(graph.report, &candidate.model));
        if timing.is_none() && !engines.is_empty() {
            timing = time(reference, &engines, &cases)?;
        }
        bar.finish_and_clear();
        if features.is_none() {
            features = show::features(trial.expected());
        }
    }
    let tokenizer = tokenizer_check::check_tokenizers(subject.files()).unwrap_or_else(|error| {
        notes.push(format!("tokenizer.json and vocab.txt were not compared: {}", one_line(&error.into())));
        None
    });
    let report =
        Report::of(subject.name(), args.atol, inputs, notes, graphs, timing).with_tokenizer(tokenizer);
    let reference = ReferenceSide { kind: ReferenceKind::Checkpoint, text: show::reference(&subject) };
    Ok(Report { reference: Some(reference), features, exported, ..beside.tell(args, report) })
}

/// The inputs for a graph, as both sides can take them.
fn cases(
    args: &CheckArgs,
    given: Option<&Case>,
    subject: &Subject,
    reference: &dyn Engine,
    candidate: &Candidate,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Case>> {
    let specs = &candidate.model.graph.inputs;
    let mut cases = input::cases(subject, given, &args.text, specs, notes)?;
    for case in &mut cases {
        input::refuse_unknown(&case.inputs, &[reference.inputs(), specs])?;
        let common = common_inputs(&case.inputs, reference.inputs(), specs)?;
        for name in common.names().filter(|name| !case.inputs.contains(name)) {
            notes.push(format!("'{name}' was not given: {} was taken", default_of(name)));
        }
        case.inputs = common;
    }
    Ok(cases)
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

/// Says in what words a graph is shown.
pub(super) fn described(mut graph: GraphReport, model: &Model) -> GraphReport {
    graph.checks.iter_mut().for_each(|check| check.graph = Some(show::graph(model)));
    graph
}

/// Says that no engine takes a graph: nothing was compared.
pub(super) fn refused(graph: &mut GraphReport, candidate: &Candidate, error: &anyhow::Error) {
    graph.verdict = graph.verdict.max(Verdict::Inconclusive);
    graph.checks.push(EngineCheck {
        engine: "candle".into(),
        onnx: candidate.onnx.clone(),
        graph: None,
        dtype: String::new(),
        verdict: Verdict::Inconclusive,
        failure: Some(one_line(error)),
        not_compared: Vec::new(),
        outputs: Vec::new(),
    });
}

pub(super) fn summary(case: &Case) -> InputSummary {
    let shape = case.inputs.get("input_ids").map(|ids| ids.shape().to_vec()).unwrap_or_default();
    let mask = case.inputs.get("attention_mask").and_then(|mask| mask.as_slice::<i64>().ok());
    let tokens = mask.map_or(shape.iter().product(), |mask| mask.iter().filter(|&&bit| bit != 0).count());
    InputSummary { name: case.name.clone(), shape, tokens }
}

/// Times the reference and every engine on the sentences, or whatever comes first.
pub(super) fn time(
    reference: &dyn Engine,
    engines: &[&dyn Engine],
    cases: &[Case],
) -> anyhow::Result<Option<TimingReport>> {
    let Some(case) = cases.iter().find(|case| case.name == "sentences").or(cases.first()) else {
        return Ok(None);
    };
    let sides: Vec<&dyn Engine> = [reference].iter().chain(engines).copied().collect();
    let inputs: Vec<NamedValues> =
        sides.iter().map(|side| fit_inputs(&case.inputs, side.inputs())).collect::<Result<_, _>>()?;
    let engines: Vec<(&dyn Engine, &NamedValues)> = sides.into_iter().zip(&inputs).collect();
    // A graph that failed on this input has been judged already.
    let results = bench::interleave(&engines, TIMING, |_| ()).ok();
    Ok(results.map(|results| TimingReport { input: case.name.clone(), results }))
}

/// The report of a check that could not be run.
fn failed(args: &CheckArgs, error: &anyhow::Error) -> Report {
    let model = args.model.as_deref().unwrap_or(bert_tiny::NAME);
    let onnx = args.onnx.first().map(|path| path.display().to_string());
    Report::failed(model, onnx, args.atol, one_line(error))
}
