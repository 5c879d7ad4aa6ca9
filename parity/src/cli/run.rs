//! `parity run`

use anyhow::{Context as _, bail};
use candle_core::DType;
use checkpoint::OnnxSource;
use engine::Engine;
use parity::check::refuse_unknown;
use parity::compare::output_report;
use parity::engines::open::{Kind, fastest};
use parity::inputs::fit_inputs;
use parity::{Verdict, is_graph, open_graph, tensors};

use super::args::{AnyEngine, Precision, RunArgs};
use super::{engines, model, show, terminal, unless_closed};

pub fn command(args: &RunArgs) -> anyhow::Result<Verdict> {
    let engine = engine(args)?;
    let inputs = tensors::read_inputs(&args.inputs, engine.inputs())?;
    refuse_unknown(&inputs, &[engine.inputs()])?;
    let expected =
        args.expected.as_ref().map(|path| tensors::read_outputs(path, engine.outputs())).transpose()?;
    let given = |name: &str| engine.outputs().iter().any(|spec| spec.name == name);
    if let Some(name) = expected.iter().flat_map(|expected| expected.names()).find(|name| !given(name)) {
        let outputs: Vec<&str> = engine.outputs().iter().map(|spec| spec.name.as_str()).collect();
        bail!(
            "something is expected of output '{name}', and this model gives {}; rename it, or leave it out",
            outputs.join(", ")
        );
    }
    let outputs = engine.run(&fit_inputs(&inputs, engine.inputs())?)?;
    tensors::write(&args.outputs, &outputs)?;
    let mut out = terminal::stdout();
    unless_closed(show::outputs(&mut out, engine.name(), &outputs, &args.outputs.display().to_string()))?;
    let Some(expected) = expected else { return Ok(Verdict::Pass) };
    let mut verdicts = Vec::new();
    for (name, expected) in expected.iter() {
        let Some(found) = outputs.get(name) else { continue };
        let report = output_report(name, expected, found, args.atol);
        unless_closed(show::expectation(&mut out, &report, args.atol))?;
        // An empty output of the right shape is right, but proves nothing: where there are no others, nothing was compared.
        if !(expected.is_empty() && report.verdict == Verdict::Inconclusive) {
            verdicts.push(report.verdict);
        }
    }
    Ok(Verdict::worst(verdicts))
}

fn engine(args: &RunArgs) -> anyhow::Result<Box<dyn Engine>> {
    let is_graph = is_graph(&args.model);
    let kind = match args.engine {
        Some(AnyEngine(None)) if is_graph => bail!(
            "'{}' is a graph, which the reference does not run: give the checkpoint's folder, or --engine candle",
            args.model
        ),
        Some(kind) => kind.0,
        None if is_graph && args.dtype == Precision::F64 => Some(Kind::Oracle),
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
        None => fastest(&graph, &engines::options(&args.compiled)?)
            .map_err(|refused| anyhow::anyhow!(refused))
            .context(onnx),
    }
}
