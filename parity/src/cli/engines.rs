//! Which engine runs a graph.

use anyhow::bail;
use engine::Engine;
use onnx_eval::{Limits, Oracle};
use onnx_graph::Model;
use onnx_session::{EngineKind, Session};

use super::args::{GraphEngine, Precision};

/// The engine of that name on a graph.
pub fn open(model: &Model, kind: GraphEngine, precision: Precision) -> anyhow::Result<Box<dyn Engine>> {
    match (kind, precision) {
        (GraphEngine::Candle, Precision::F32) => Ok(Box::new(Session::new(model, EngineKind::Candle)?)),
        (GraphEngine::Candle, Precision::F64) => {
            bail!(
                "the candle engine computes in the graph's own dtype; --dtype f64 is for reference and oracle"
            )
        }
        (GraphEngine::Oracle, precision) => {
            let precision = match precision {
                Precision::F32 => onnx_eval::Precision::F32,
                Precision::F64 => onnx_eval::Precision::F64,
            };
            Ok(Box::new(Oracle::with(model, precision, Limits::default())?))
        }
    }
}

/// The fastest engine that takes a graph, and why a faster one does not: a person deploys that one, and must know.
pub fn fastest(model: &Model) -> anyhow::Result<(Box<dyn Engine>, Option<String>)> {
    let refusal = match open(model, GraphEngine::Candle, Precision::F32) {
        Ok(engine) => return Ok((engine, None)),
        Err(refusal) => refusal.to_string(),
    };
    match open(model, GraphEngine::Oracle, Precision::F32) {
        Ok(engine) => Ok((engine, Some(refusal))),
        Err(error) => bail!("{refusal}; nor can the oracle: {error}"),
    }
}
