//! Which engine runs a graph.

use anyhow::bail;
use engine::Engine;
use onnx_eval::{Limits, Oracle};
use onnx_graph::Model;
use onnx_session::compiled::{Options, Passes, Threads};
use onnx_session::{EngineKind, Session};

use super::args::{CompiledArgs, GraphEngine, Precision};

/// Those that have taken a graph.
pub type Engines = Vec<Box<dyn Engine>>;

/// candle takes its thread count from here, once, when it starts; the engine `compiled` is given the same number.
pub const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// The engine of that name on a graph.
pub fn open(
    model: &Model,
    kind: GraphEngine,
    precision: Precision,
    compiled: &CompiledArgs,
) -> anyhow::Result<Box<dyn Engine>> {
    match (kind, precision) {
        (GraphEngine::Candle, Precision::F32) => Ok(Box::new(Session::new(model, EngineKind::Candle)?)),
        (GraphEngine::Compiled, Precision::F32) => Ok(Box::new(Session::with(model, options(compiled)?)?)),
        (GraphEngine::Candle | GraphEngine::Compiled, Precision::F64) => {
            let name = kind.name();
            bail!(
                "the {name} engine computes in the graph's own dtype; --dtype f64 is for reference and oracle"
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

fn options(args: &CompiledArgs) -> anyhow::Result<Options> {
    let threads = std::env::var(THREADS_VARIABLE).ok().and_then(|threads| threads.parse().ok());
    let passes = match &args.passes {
        None => Passes::all(),
        Some(wanted) => {
            // An unknown one is named by `without`.
            for name in wanted.iter() {
                Passes::all().without(name)?;
            }
            let others = Passes::names().filter(|name| !wanted.iter().any(|wanted| wanted == name));
            others.into_iter().try_fold(Passes::all(), Passes::without)?
        }
    };
    Ok(Options {
        threads: threads.filter(|&threads: &usize| threads > 0).map_or(Threads::All, Threads::Count),
        skip_padding: args.skip_padding,
        passes,
    })
}

/// The engines that a graph would be deployed on: each that takes it, `candle` first; or the oracle, where none does. And why one is not among them: a person
/// deploys it, and must know.
pub fn deployment(model: &Model, compiled: &CompiledArgs) -> anyhow::Result<(Engines, Option<String>)> {
    // A slip of the pen is not a refusal.
    options(compiled)?;
    let open = |kind| open(model, kind, Precision::F32, compiled);
    let (candle, refusal) = match open(GraphEngine::Candle) {
        Ok(engine) => (Some(engine), None),
        Err(refusal) => (None, Some(refusal.to_string())),
    };
    let fast = open(GraphEngine::Compiled);
    let (refused, fast) = (fast.as_ref().err().map(ToString::to_string), fast.ok());
    let engines: Vec<_> = candle.into_iter().chain(fast).collect();
    let refusal = refusal.or(refused);
    if !engines.is_empty() {
        return Ok((engines, refusal));
    }
    let refusal = refusal.unwrap_or_default();
    match open(GraphEngine::Oracle) {
        Ok(engine) => Ok((vec![engine], Some(refusal))),
        Err(error) => bail!("{refusal}; nor can the oracle: {error}"),
    }
}

/// The fastest engine that takes a graph; the oracle, where no other does.
pub fn fastest(model: &Model, compiled: &CompiledArgs) -> anyhow::Result<Box<dyn Engine>> {
    match Session::fastest(model, options(compiled)?) {
        Ok(session) => Ok(Box::new(session)),
        Err(refusal) => open(model, GraphEngine::Oracle, Precision::F32, compiled).or(Err(refusal.into())),
    }
}
