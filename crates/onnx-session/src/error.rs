use onnx_graph::GraphError;

/// Why a graph could not be made into a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum SessionError {
    /// The file is not a graph that can be read.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The engine would have to guess, or knows that it would be wrong. The operator is named with
    /// its domain, unless that is ONNX's own; `alternative` is an engine that knows it at this
    /// opset.
    #[error(
        "the {engine} engine cannot run node '{node}' ({op}, opset {opset}): {reason}{}",
        .alternative.map(|engine| format!("; the {engine} can")).unwrap_or_default()
    )]
    Refused {
        engine: &'static str,
        node: String,
        op: String,
        opset: i64,
        reason: String,
        alternative: Option<&'static str>,
    },
    /// An input, output or initializer that the engine does not carry.
    #[error("the {engine} engine cannot carry {what} '{name}': {reason}")]
    Unsupported { engine: &'static str, what: &'static str, name: String, reason: String },
    /// The kernels cannot be made ready: a thread that does not start, or weights that do not fit.
    #[error("the compiled engine cannot be made ready: {0}")]
    Kernels(#[from] kernels::KernelError),
    /// The engine `candle` was not compiled in.
    #[error(
        "the engine 'candle' is not compiled in; build onnx-session with its feature 'candle-onnx', or use the engine 'compiled'"
    )]
    NoEngine,
}
