//! The unit of execution: one node of the user's graph, as the candle-onnx nodes it was lowered to.
//!
//! Running node by node costs nothing measurable over one call for the whole graph, and it gives two things that one call
//! cannot: an error that names the node, and intermediate values that are dropped after their last use (`simple_eval` keeps
//! them all until it returns).

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::Tensor;
use candle_onnx::onnx;
use onnx_graph::Node;

use super::size;

pub(crate) struct Step {
    /// The node's name in the user's graph.
    pub node: String,
    /// Its operator there.
    pub op: String,
    /// Values it reads: constants, inputs of the graph, outputs of earlier steps.
    pub inputs: Vec<String>,
    /// Values it makes, by their names in the user's graph.
    pub outputs: Vec<String>,
    /// The lowered nodes, in order.
    parts: Vec<Part>,
}

/// A lowered node on its way into a [`Step`].
pub(crate) struct Emitted {
    pub node: onnx::NodeProto,
    /// Whether its result must be looked at by [`size::check`] before it is computed.
    pub can_outgrow: bool,
}

/// Lowered nodes that run in one call.
struct Part {
    /// Values from outside of it.
    inputs: Vec<String>,
    /// Which of its nodes must be looked at before it runs. All that these read is in `inputs`.
    to_check: Vec<usize>,
    /// The nodes as a model of their own.
    model: onnx::ModelProto,
}

impl Step {
    pub fn new(node: &Node, emitted: Vec<Emitted>, inputs: Vec<String>, outputs: Vec<String>) -> Self {
        // A node that must be looked at and reads what the part at hand makes begins the next one.
        let mut groups: Vec<Vec<Emitted>> = Vec::new();
        for next in emitted {
            match groups.last_mut() {
                Some(group)
                    if !(next.can_outgrow && group.iter().any(|made| reads(&next.node, &made.node))) =>
                {
                    group.push(next);
                }
                _ => groups.push(vec![next]),
            }
        }
        // Found from the back: a part hands out what later ones read, and what the step makes. The rest is dropped with it.
        let mut wanted: HashSet<String> = outputs.iter().cloned().collect();
        let mut parts: Vec<Part> = Vec::new();
        for group in groups.into_iter().rev() {
            let part = Part::new(group, &wanted);
            wanted.extend(part.inputs.iter().cloned());
            parts.push(part);
        }
        parts.reverse();
        Self { node: node.name.clone(), op: node.op.clone(), inputs, outputs, parts }
    }

    /// The lowered nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &onnx::NodeProto> {
        self.parts.iter().filter_map(|part| part.model.graph.as_ref()).flat_map(|graph| &graph.node)
    }

    /// Runs the lowered nodes on exactly the values of `inputs`.
    pub fn run(&self, mut values: HashMap<String, Tensor>) -> candle_core::Result<HashMap<String, Tensor>> {
        if let [part] = self.parts.as_slice() {
            return part.run(values);
        }
        for part in &self.parts {
            let given = part.inputs.iter().filter_map(|name| values.get_key_value(name));
            let made = part.run(given.map(|(name, tensor)| (name.clone(), tensor.clone())).collect())?;
            values.extend(made);
        }
        values.retain(|name, _| self.outputs.contains(name));
        Ok(values)
    }
}

impl Part {
    fn new(emitted: Vec<Emitted>, wanted: &HashSet<String>) -> Self {
        let to_check = (0..emitted.len()).filter(|&index| emitted[index].can_outgrow).collect();
        let nodes: Vec<_> = emitted.into_iter().map(|emitted| emitted.node).collect();
        let made = nodes.iter().flat_map(|node| &node.output);
        let outputs: Vec<String> = made.filter(|name| wanted.contains(*name)).cloned().collect();
        Self { inputs: inputs(nodes.iter()), to_check, model: model(nodes, &outputs) }
    }

    fn run(&self, values: HashMap<String, Tensor>) -> candle_core::Result<HashMap<String, Tensor>> {
        let nodes = self.model.graph.as_ref().map_or(&[][..], |graph| &graph.node);
        for node in self.to_check.iter().filter_map(|&index| nodes.get(index)) {
            size::check(node, &values)?;
        }
        guarded(&self.model, values)
    }
}

fn reads(node: &onnx::NodeProto, earlier: &onnx::NodeProto) -> bool {
    earlier.output.iter().any(|name| node.input.contains(name))
}

/// What nodes read and do not make, each once.
pub(crate) fn inputs<'n>(nodes: impl Iterator<Item = &'n onnx::NodeProto> + Clone) -> Vec<String> {
    let made: HashSet<&str> = nodes.clone().flat_map(|node| &node.output).map(String::as_str).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    let names = nodes.flat_map(|node| &node.input);
    names
        .filter(|name| !name.is_empty() && !made.contains(name.as_str()) && seen.insert(name))
        .cloned()
        .collect()
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

thread_local! {
    static CATCHES_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside candle-onnx, where a panic is caught and becomes an error of the node.
///
/// For a program's own panic hook: the standard one prints such a panic as well, and a library must not replace a hook.
pub fn catches_panics() -> bool {
    CATCHES_PANICS.get()
}

/// candle-onnx indexes and asserts here and there; what the rules did not foresee still becomes an error, not an abort.
fn guarded(
    model: &onnx::ModelProto,
    inputs: HashMap<String, Tensor>,
) -> candle_core::Result<HashMap<String, Tensor>> {
    CATCHES_PANICS.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| candle_onnx::simple_eval(model, inputs)));
    CATCHES_PANICS.set(false);
    match result {
        Ok(result) => result.map_err(without_backtrace),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(candle_core::Error::Msg(format!("a fault inside candle-onnx: {message}")))
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
