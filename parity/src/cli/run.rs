//! `parity run`

use anyhow::{Context as _, bail};
use candle_core::DType;
use checkpoint::OnnxSource;
use engine::Engine;
use parity::check::fit_inputs;
use parity::{Subject, Verdict, open_graph, tensors};

use super::args::{AnyEngine, GraphEngine, Precision, RunArgs};
use super::{engines, input, show};

pub fn command(args: &RunArgs) -> anyhow::Result<Verdict> {
    let inputs = tensors::read(&args.inputs)?;
    let engine = engine(args)?;
    input::refuse_unknown(&inputs, &[engine.inputs()])?;
    let outputs = engine.run(&fit_inputs(&inputs, engine.inputs())?)?;
    tensors::write(&args.outputs, &outputs)?;
    let mut out = anstream::stdout().lock();
    show::outputs(&mut out, engine.name(), &outputs, &args.outputs.display().to_string())?;
    Ok(Verdict::Pass)
}

fn engine(args: &RunArgs) -> anyhow::Result<Box<dyn Engine>> {
    let is_graph = args.model.ends_with(".onnx");
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
        return Ok(Box::new(Subject::open(Some(&args.model))?.reference(dtype)?.engine));
    }
    let (onnx, graph) = if is_graph {
        open_graph(OnnxSource::File(args.model.clone().into()))?
    } else {
        Subject::open(Some(&args.model))?.graph(None)?
    };
    match kind {
        Some(kind) => engines::open(&graph, kind, args.dtype).context(onnx),
        None => engines::fastest(&graph).map(|(engine, _)| engine).context(onnx),
    }
}
