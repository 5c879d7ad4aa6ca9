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
    /// No engine was compiled in.
    #[error("no engine is compiled in; build onnx-session with its feature 'candle-onnx'")]
    NoEngine,
}
