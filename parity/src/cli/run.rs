//! `parity run`

use anyhow::{Context as _, bail};
use candle_core::DType;
use checkpoint::OnnxSource;
use engine::{Engine, Value};
use parity::check::fit_inputs;
use parity::compare::{Comparison, compare, output_report};
use parity::report::OutputReport;
use parity::{Verdict, is_graph, open_graph, tensors};

use super::args::{AnyEngine, GraphEngine, Precision, RunArgs};
use super::{engines, input, model, show, terminal, unless_closed};

pub fn command(args: &RunArgs) -> anyhow::Result<Verdict> {
    let engine = engine(args)?;
    let inputs = tensors::read_inputs(&args.inputs, engine.inputs())?;
    input::refuse_unknown(&inputs, &[engine.inputs()])?;
    let expected =
        args.expected.as_ref().map(|path| tensors::read_outputs(path, engine.outputs())).transpose()?;
    let given = |name: &str| engine.outputs().iter().any(|spec| spec.name == name);
    if let Some(name) = expected.iter().flat_map(|expected| expected.names()).find(|name| !given(name)) {
        let outputs: Vec<&str> = engine.outputs().iter().map(|spec| spec.name.as_str()).collect();
        bail!("something is expected of output '{name}', and this model gives {}", outputs.join(", "));
    }
    let outputs = engine.run(&fit_inputs(&inputs, engine.inputs())?)?;
    tensors::write(&args.outputs, &outputs)?;
    let mut out = terminal::stdout();
    unless_closed(show::outputs(&mut out, engine.name(), &outputs, &args.outputs.display().to_string()))?;
    let Some(expected) = expected else { return Ok(Verdict::Pass) };
    let mut verdicts = Vec::new();
    for (name, expected) in expected.iter() {
        let Some(found) = outputs.get(name) else { continue };
        let report = against(name, expected, found, args.atol);
        unless_closed(show::expectation(&mut out, &report, args.atol))?;
        // An empty output of the right shape is right, but proves nothing: where there are no others, nothing was compared.
        if !(expected.is_empty() && report.verdict == Verdict::Inconclusive) {
            verdicts.push(report.verdict);
        }
    }
    Ok(Verdict::worst(verdicts))
}

/// An output against what was recorded elsewhere. Every element decides.
fn against(name: &str, expected: &Value, found: &Value, atol: f64) -> OutputReport {
    match compare(expected, found, &[], atol) {
        Ok(comparison) => output_report(name, &comparison, None, None, None, None),
        Err(mismatch) => {
            output_report(name, &Comparison::default(), None, Some(mismatch.to_string()), None, None)
        }
    }
}

fn engine(args: &RunArgs) -> anyhow::Result<Box<dyn Engine>> {
    let is_graph = is_graph(&args.model);
    let kind = match args.engine {
        Some(AnyEngine::Reference) if is_graph => bail!(
            "'{}' is a graph, which the reference does not run: give the checkpoint's folder, or --engine candle",
            args.model
        ),
        Some(kind) => kind.on_graph(),
        None if is_graph && args.dtype == Precision::F64 => Some(GraphEngine::Oracle),
        None => None,
    };
    if !is_graph && kind.is_none() {
        let dtype = match args.dtype {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        };
        return Ok(Box::new(model::open_for(Some(&args.model), args.task)?.reference(dtype)?.engine));
    }
    let (onnx, graph) = if is_graph {
        open_graph(OnnxSource::File(args.model.clone().into()))?
    } else {
        model::open_for(Some(&args.model), args.task)?.graph(None)?
    };
    match kind {
        Some(kind) => engines::open(&graph, kind, args.dtype, &args.compiled).context(onnx),
        None => engines::fastest(&graph, &args.compiled).context(onnx),
    }
}
