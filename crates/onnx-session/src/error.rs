use onnx_graph::GraphError;

/// Why a graph could not be made into a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The file is not a graph that can be read.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The engine would have to guess, or knows that it would be wrong.
    #[error(
        "the {engine} engine cannot run node '{node}' ({op}, opset {opset}): {reason}{}",
        .alternative.map(|engine| format!("; the {engine} can")).unwrap_or_default()
    )]
    Refused {
        /// The engine that refuses.
        engine: &'static str,
        /// The node.
        node: String,
        /// Its operator, with its domain unless that is ONNX's own.
        op: String,
        /// The version of that domain's operators the model asks for.
        opset: i64,
        /// What about it.
        reason: String,
        /// An engine that knows this operator at this opset.
        alternative: Option<&'static str>,
    },
    /// An input, output or initializer that the engine does not carry.
    #[error("the {engine} engine cannot carry {what} '{name}': {reason}")]
    Unsupported {
        /// The engine that refuses.
        engine: &'static str,
        /// `input`, `output` or `initializer`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What about it.
        reason: String,
    },
    /// The kernels cannot be made ready: a thread that does not start, or weights that do not fit.
    #[error("the compiled engine cannot be made ready: {0}")]
    Kernels(#[from] kernels::KernelError),
    /// The engine `candle` was not compiled in.
    #[error(
        "the engine 'candle' is not compiled in; build onnx-session with its feature 'candle-onnx', or use the engine 'compiled'"
    )]
    NoEngine,
}
