use engine::EngineError;
use onnx_graph::{GraphError, Node};

use crate::Fault;

/// Why the oracle refuses a graph, or fails on one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum OracleError {
    /// The model is not what onnx-graph promises.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An operator that is not known, or not at this opset.
    #[error("node '{node}': there is no {op} of {domain} opset {opset} here{hint}")]
    UnknownOp { node: String, op: String, domain: String, opset: i64, hint: String },
    /// Too many or too few inputs or outputs.
    #[error("node '{node}' ({op}, opset {opset}) has {found} {what}, which must be {least} to {most}")]
    Arity {
        node: String,
        op: String,
        opset: i64,
        what: &'static str,
        found: usize,
        least: usize,
        most: usize,
    },
    /// An attribute that the operator does not have at this opset. To ignore it could be silently wrong.
    #[error("node '{node}' ({op}, opset {opset}) has an attribute '{attribute}', which is not defined there")]
    UnknownAttribute { node: String, op: String, opset: i64, attribute: String },
    /// A node that cannot be computed.
    #[error("node '{node}' ({op}, opset {opset}): {fault}")]
    Node {
        node: String,
        op: String,
        opset: i64,
        #[source]
        fault: Box<Fault>,
    },
    /// A constant that cannot be read.
    #[error("initializer '{name}': {fault}")]
    Constant {
        name: String,
        #[source]
        fault: Box<Fault>,
    },
    /// Functions that call functions that call functions.
    #[error("functions of the model call each other more than {limit} deep")]
    CallsTooDeep { limit: usize },
    /// More nodes than the limit.
    #[error("the graph takes more than the limit of {0} nodes; raise Limits::max_nodes if that is meant")]
    TooManyNodes(usize),
}

impl OracleError {
    /// What is wrong with a node.
    pub(crate) fn node(node: &Node, opset: i64, fault: Fault) -> Self {
        Self::Node { node: node.name.clone(), op: node.op.clone(), opset, fault: Box::new(fault) }
    }
}

impl From<OracleError> for EngineError {
    fn from(error: OracleError) -> Self {
        match error {
            OracleError::Node { node, op, opset, fault } => {
                EngineError::Node { node, op: format!("{op}, opset {opset}"), source: fault }
            }
            other => EngineError::Backend(Box::new(other)),
        }
    }
}
