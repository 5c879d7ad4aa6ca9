//! `parity bench`

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use candle_core::DType;
use engine::{Engine, NamedValues, Value, shown_path};
use onnx_graph::Model;
use onnx_session::compiled::CompiledEngine;
use parity::check::refuse_unknown;
use parity::compare::Answers;
use parity::engines::bench::{Limit, WARM_UP, interleave};
use parity::engines::check;
use parity::engines::open::Kind;
use parity::inputs::{Case, common_inputs, fit_inputs};
use parity::report::Timing;
use parity::{Bounds, Subject, Verdict, tensors};
use serde::Serialize;

use super::args::{AnyEngine, BenchArgs, Precision};
use super::{engines, is_stdout, model, progress, show, terminal, write_json};

/// A wrong engine is not worth timing. f32 outputs of a correct one are nearer than this on any model whose activations stay below
/// a thousand or so; `parity check` is what judges.
const SANE_ATOL: f64 = 1e-3;

#[derive(Serialize)]
struct Results<'a> {
    results: &'a [Timing],
    /// What the engine `compiled` made of the graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    compiled: Option<String>,
}

/// An engine that runs the graph.
enum OnGraph {
    Compiled(Box<CompiledEngine>),
    Other(Box<dyn Engine>),
}

impl OnGraph {
    fn open(graph: &Model, kind: Kind, args: &BenchArgs) -> anyhow::Result<Self> {
        Ok(match kind {
            Kind::Compiled => {
                Self::Compiled(Box::new(CompiledEngine::new(graph, engines::options(&args.compiled)?)?))
            }
            _ => Self::Other(engines::open(graph, kind, Precision::F32, &args.compiled)?),
        })
    }

    fn side(&self) -> &dyn Engine {
        match self {
            Self::Compiled(engine) => engine.as_ref(),
            Self::Other(engine) => engine.as_ref(),
        }
    }

    /// What became of the graph, and whether these runs went as planned.
    fn plan(&self) -> Option<String> {
        let Self::Compiled(engine) = self else { return None };
        let general = match (engine.fallback(), engine.general_runs()) {
            (None, runs) if runs > 0 => {
                format!("; {runs} runs were the oracle's, as these inputs do not fit")
            }
            _ => String::new(),
        };
        Some(format!("{}{general}", engine.summary()))
    }
}

pub fn command(args: &BenchArgs) -> anyhow::Result<Verdict> {
    if let Some(threads) = args.threads {
        let wanted = threads.to_string();
        if std::env::var(engines::THREADS_VARIABLE).as_deref() != Ok(wanted.as_str()) {
            return with_threads(&wanted);
        }
    }
    let subject = model::open_for(args.of.model.as_deref(), args.of.task)?;
    let mut cases = [case(&subject, args)?];
    let wanted: &[AnyEngine] = if args.engine.is_empty() {
        &[AnyEngine(None), AnyEngine(Some(Kind::Candle)), AnyEngine(Some(Kind::Compiled))]
    } else {
        &args.engine
    };
    let reference = subject.reference(DType::F32)?.engine;
    let kinds: Vec<_> = wanted.iter().filter_map(|kind| kind.0).collect();
    let mut graph = None;
    if !kinds.is_empty() {
        graph = Some(subject.graph_or_export(args.of.onnx.as_deref())?);
    }
    let mut on_graph = Vec::new();
    for (kind, (onnx, graph)) in kinds.into_iter().zip(graph.iter().cycle()) {
        let engine = OnGraph::open(graph, kind, args).context(onnx.clone())?;
        let side = engine.side();
        refuse_unknown(&cases[0].inputs, &[reference.inputs(), side.inputs()])?;
        cases[0].inputs = common_inputs(&cases[0].inputs, reference.inputs(), side.inputs())?;
        verify(&reference, side, onnx, &cases)?;
        on_graph.push(engine);
    }
    let mut sides: Vec<&dyn Engine> = Vec::new();
    if wanted.contains(&AnyEngine(None)) {
        sides.push(&reference);
    }
    sides.extend(on_graph.iter().map(OnGraph::side));

    let inputs: Vec<NamedValues> =
        sides.iter().map(|side| fit_inputs(&cases[0].inputs, side.inputs())).collect::<Result<_, _>>()?;
    let engines: Vec<_> = sides.into_iter().zip(&inputs).collect();
    let bar = progress::bar("timing", args.runs);
    let timings =
        interleave(&engines, Limit { warm_up: WARM_UP, rounds: args.runs, time: Duration::ZERO }, |_| {
            bar.inc(1)
        })?;
    bar.finish_and_clear();

    let compiled = on_graph.iter().find_map(OnGraph::plan);
    if let Some(path) = &args.json {
        write_json(path, &Results { results: &timings, compiled: compiled.clone() })?;
    }
    if !args.json.as_deref().is_some_and(is_stdout) {
        let mut out = terminal::stdout();
        show::timings(&mut out, &format!("{}, {}", subject.name(), cases[0].name), &timings)?;
        if let Some(plan) = compiled {
            writeln!(out, "compiled: {}", terminal::inert(&plan))?;
        }
        out.flush()?;
    }
    Ok(Verdict::Pass)
}

/// Runs this command again in a process that starts with so many threads.
fn with_threads(threads: &str) -> anyhow::Result<Verdict> {
    let program =
        std::env::current_exe().context("cannot find this program to start it with other threads")?;
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(engines::THREADS_VARIABLE, threads)
        .status()?;
    // The other process has said what was wrong.
    std::process::exit(status.code().unwrap_or_else(|| Verdict::Error.code().into()));
}

fn case(subject: &Subject, args: &BenchArgs) -> anyhow::Result<Case> {
    if let Some(path) = &args.inputs {
        return Ok(Case { name: shown_path(path).into_owned(), inputs: tensors::read(path)? });
    }
    let (batch, sequence) = (args.batch as usize, args.seq as usize);
    let longest = subject.limits().positions;
    if sequence > longest {
        bail!("--seq {sequence} is longer than the model takes: give {longest} tokens at most");
    }
    // Which ids are run makes no difference to the time.
    let vocabulary = subject.limits().vocabulary as i64;
    let ids: Vec<i64> = (0..(batch * sequence) as i64).map(|position| position % vocabulary).collect();
    let value = |data: Vec<i64>| Value::new([batch, sequence], data);
    let inputs = NamedValues::from_iter([
        ("attention_mask", value(vec![1; ids.len()])?),
        ("token_type_ids", value(vec![0; ids.len()])?),
        ("input_ids", value(ids)?),
    ]);
    Ok(Case { name: format!("{batch}×{sequence}"), inputs })
}

/// Outputs are checked before anything is timed.
fn verify(reference: &dyn Engine, engine: &dyn Engine, onnx: &str, cases: &[Case]) -> anyhow::Result<()> {
    let expected = Answers::of(reference, cases, |_| ())?;
    let bounds = Bounds { atol: SANE_ATOL, ..Bounds::default() };
    let check = check(&expected, engine, onnx, &bounds, None, |_| ())?;
    if check.verdict != Verdict::Pass {
        bail!(
            "the engines do not agree, so their times mean nothing ('parity check' tells where they \
             part): {}",
            check.complaints(SANE_ATOL).join("; ")
        );
    }
    Ok(())
}
