//! `parity run`

use anyhow::{Context as _, bail};
use candle_core::DType;
use checkpoint::OnnxSource;
use engine::Engine;
use onnx_session::{EngineKind, Session};
use parity::check::fit_inputs;
use parity::{Subject, Verdict, open_graph, tensors};

use super::args::{AnyEngine, Precision, RunArgs};
use super::{input, show};

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
    let kind = args.engine.unwrap_or(if is_graph { AnyEngine::Candle } else { AnyEngine::Reference });
    match (kind, args.dtype) {
        (AnyEngine::Reference, _) if is_graph => bail!(
            "'{}' is a graph, which the reference does not run: give the checkpoint's folder, or --engine candle",
            args.model
        ),
        (AnyEngine::Reference, precision) => {
            let dtype = match precision {
                Precision::F32 => DType::F32,
                Precision::F64 => DType::F64,
            };
            Ok(Box::new(Subject::open(Some(&args.model))?.reference(dtype)?.engine))
        }
        (AnyEngine::Candle, Precision::F64) => {
            bail!("the candle engine computes in the graph's own dtype; --dtype f64 is for the reference")
        }
        (AnyEngine::Candle, Precision::F32) => {
            let (onnx, graph) = if is_graph {
                open_graph(OnnxSource::File(args.model.clone().into()))?
            } else {
                Subject::open(Some(&args.model))?.graph(None)?
            };
            Ok(Box::new(Session::new(&graph, EngineKind::Candle).context(onnx)?))
        }
    }
}
