//! Which engine runs a graph, as it was typed.

use anyhow::bail;
use engine::Engine;
use onnx_eval::{Limits, Oracle};
use onnx_graph::Model;
use onnx_session::compiled::{Options, Passes, Threads};
use parity::engines::open::Kind;

use super::args::{CompiledArgs, Precision};

/// candle takes its thread count from here, once, when it starts; the engine `compiled` is given the same number.
pub const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// The engine of that name on a graph.
pub fn open(
    model: &Model,
    kind: Kind,
    precision: Precision,
    compiled: &CompiledArgs,
) -> anyhow::Result<Box<dyn Engine>> {
    let opened = match (kind, precision) {
        (kind, Precision::F32) => kind.open(model, &options(compiled)?),
        (Kind::Oracle, Precision::F64) => {
            let oracle = Oracle::with(model, onnx_eval::Precision::F64, Limits::default());
            oracle.map(|oracle| Box::new(oracle) as Box<dyn Engine>).map_err(Into::into)
        }
        (kind, Precision::F64) => bail!(
            "the {kind} engine computes in the graph's own dtype; --dtype f64 is for reference and oracle"
        ),
    };
    opened.map_err(|refused| anyhow::anyhow!(refused))
}

/// How the engine `compiled` runs a graph.
pub fn options(args: &CompiledArgs) -> anyhow::Result<Options> {
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
