//! An `If` that goes the same way for every input, written out.

use onnx_graph::{Attribute, Graph, Model, Node};
use onnx_session::compiled::Known;

/// The graph without the `If`s whose conditions follow from constants and from shapes that are
/// always the same, as exporters leave them behind a squeeze; nothing if there is none.
pub(crate) fn folded(model: &Model) -> Option<Model> {
    let mut folded = model.clone();
    let is_if = |node: &Node| node.domain.is_empty() && node.op == "If";
    let count = model.graph.nodes.iter().filter(|node| is_if(node)).count();
    // What a branch holds may be decided only after it is written out.
    while folded.graph.nodes.iter().any(is_if) {
        let known = Known::of(&folded).ok()?;
        let goes = |node: &Node| Some(known.constant(node.inputs.first()?)?.to_f64().first()? != &0.0);
        let decided = |(at, node): (usize, &Node)| goes(node).filter(|_| is_if(node)).map(|way| (at, way));
        let Some((at, way)) = folded.graph.nodes.iter().enumerate().find_map(decided) else { break };
        write_out(&mut folded.graph, at, way)?;
    }
    let left = folded.graph.nodes.iter().filter(|node| is_if(node)).count();
    (left < count && folded.check().is_ok()).then_some(folded)
}

/// Puts one branch in the place of the node that chooses it.
fn write_out(graph: &mut Graph, at: usize, way: bool) -> Option<()> {
    let mut node = graph.nodes.remove(at);
    let branch = node.attributes.swap_remove(if way { "then_branch" } else { "else_branch" })?;
    let Attribute::Graph(branch) = branch else { return None };
    let Graph { nodes, initializers, outputs, .. } = *branch;
    let named = |(inner, outer): (&engine::ValueSpec, &String)| Node {
        name: format!("{}/{outer}", node.name),
        op: "Identity".into(),
        inputs: vec![inner.name.clone()],
        outputs: vec![outer.clone()],
        ..Node::default()
    };
    let outer = node.outputs.iter();
    let names: Vec<Node> =
        outputs.iter().zip(outer).filter(|(_, outer)| !outer.is_empty()).map(named).collect();
    graph.initializers.extend(initializers);
    graph.nodes.splice(at..at, nodes.into_iter().chain(names));
    Some(())
}
