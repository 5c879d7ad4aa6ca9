//! The unit of execution: one node of the user's graph, as the candle-onnx nodes it was lowered to.
//!
//! Running node by node costs nothing measurable over one call for the whole graph, and it gives two things that one call
//! cannot: an error that names the node, and intermediate values that are dropped after their last use (`simple_eval` keeps
//! them all until it returns).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::Tensor;
use candle_onnx::onnx;
use onnx_graph::Node;

pub(crate) struct Step {
    /// The node's name in the user's graph.
    pub node: String,
    /// Its operator there.
    pub op: String,
    /// Values it reads: constants, inputs of the graph, outputs of earlier steps.
    pub inputs: Vec<String>,
    /// Values it makes, by their names in the user's graph.
    pub outputs: Vec<String>,
    /// The lowered nodes as a model of their own.
    model: onnx::ModelProto,
}

impl Step {
    pub fn new(node: &Node, nodes: Vec<onnx::NodeProto>, inputs: Vec<String>, outputs: Vec<String>) -> Self {
        let model = model(nodes, &outputs);
        Self { node: node.name.clone(), op: node.op.clone(), inputs, outputs, model }
    }

    /// The lowered nodes.
    pub fn nodes(&self) -> &[onnx::NodeProto] {
        self.model.graph.as_ref().map_or(&[], |graph| &graph.node)
    }

    /// Runs the lowered nodes on exactly the values of `inputs`.
    pub fn run(&self, inputs: HashMap<String, Tensor>) -> candle_core::Result<HashMap<String, Tensor>> {
        guarded(&self.model, inputs)
    }
}

/// Runs nodes for one value, at lowering time.
pub(crate) fn evaluate(
    nodes: Vec<onnx::NodeProto>,
    inputs: HashMap<String, Tensor>,
    output: &str,
) -> candle_core::Result<Tensor> {
    let mut outputs = guarded(&model(nodes, &[output.to_string()]), inputs)?;
    outputs.remove(output).ok_or_else(|| candle_core::Error::Msg(format!("no value '{output}'")))
}

/// A model without declared inputs: `simple_eval` then takes what it is given, and `Session` has checked it already.
pub(crate) fn model(nodes: Vec<onnx::NodeProto>, outputs: &[String]) -> onnx::ModelProto {
    let output = |name: &String| onnx::ValueInfoProto { name: name.clone(), ..Default::default() };
    onnx::ModelProto {
        graph: Some(onnx::GraphProto {
            node: nodes,
            output: outputs.iter().map(output).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// candle-onnx indexes and asserts here and there; what the rules did not foresee still becomes an error, not an abort.
fn guarded(
    model: &onnx::ModelProto,
    inputs: HashMap<String, Tensor>,
) -> candle_core::Result<HashMap<String, Tensor>> {
    let result = catch_unwind(AssertUnwindSafe(|| candle_onnx::simple_eval(model, inputs)));
    match result {
        Ok(result) => result.map_err(without_backtrace),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(candle_core::Error::Msg(format!("candle-onnx panicked: {message}")))
        }
    }
}

/// candle prints a backtrace of itself as part of a message where RUST_BACKTRACE is set; the node that failed says more.
fn without_backtrace(error: candle_core::Error) -> candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(*inner),
        error => error,
    }
}
