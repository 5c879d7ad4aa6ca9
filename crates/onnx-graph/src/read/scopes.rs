//! Names of values in subgraphs.
//!
//! ONNX lets an input or initializer of a subgraph have the name of a value around it, which it
//! then hides, and lets two branches have initializers of one name. Here a name stands for one
//! value, so whatever repeats a name is given another one when the file is read. A node may hide
//! nothing: [`Model::check`](crate::Model::check) refuses one that does, as ONNX's checker does.

use std::collections::{HashMap, HashSet};

use crate::{Attribute, Graph, Node};

/// Gives what the subgraphs of these nodes define, other than by nodes, names of its own. `outer`
/// are the inputs and initializers of the graph or function that the nodes belong to.
pub(super) fn give_own_names<'a>(outer: impl Iterator<Item = &'a String>, nodes: &mut [Node]) {
    let mut taken: HashSet<String> = outer.cloned().collect();
    outputs_of(nodes, &mut taken);
    // Most graphs have no subgraphs, or none that defines anything.
    let mut names = Names { in_file: taken.clone(), taken, next: HashMap::new() };
    declared_in(nodes, &mut names.in_file);
    nodes.iter_mut().for_each(|node| names.node(node));
}

fn graphs(node: &Node) -> impl Iterator<Item = &Graph> {
    node.attributes.values().flat_map(|attribute| match attribute {
        Attribute::Graph(graph) => std::slice::from_ref(graph.as_ref()),
        Attribute::Graphs(graphs) => graphs.as_slice(),
        _ => &[],
    })
}

fn graphs_mut(node: &mut Node) -> impl Iterator<Item = &mut Graph> {
    node.attributes.values_mut().flat_map(|attribute| match attribute {
        Attribute::Graph(graph) => std::slice::from_mut(graph.as_mut()),
        Attribute::Graphs(graphs) => graphs.as_mut_slice(),
        _ => &mut [],
    })
}

/// What nodes give, those of subgraphs included.
fn outputs_of(nodes: &[Node], names: &mut HashSet<String>) {
    for node in nodes {
        names.extend(node.outputs.iter().cloned());
        graphs(node).for_each(|graph| outputs_of(&graph.nodes, names));
    }
}

/// The inputs and initializers of subgraphs.
fn declared_in(nodes: &[Node], names: &mut HashSet<String>) {
    for graph in nodes.iter().flat_map(graphs) {
        names.extend(declared(graph).cloned());
        declared_in(&graph.nodes, names);
    }
}

fn declared(graph: &Graph) -> impl Iterator<Item = &String> {
    graph.inputs.iter().map(|spec| &spec.name).chain(graph.initializers.keys())
}

struct Names {
    /// Names that stand in the file: none of them is made up for another value.
    in_file: HashSet<String>,
    /// What stands for a value already.
    taken: HashSet<String>,
    /// The number to try next behind a name.
    next: HashMap<String, usize>,
}

impl Names {
    fn node(&mut self, node: &mut Node) {
        for graph in graphs_mut(node) {
            let mut given = HashSet::new();
            outputs_of(&graph.nodes, &mut given);
            let mut renamed = HashMap::new();
            // An input and its default are one value.
            let own: HashSet<String> = declared(graph).cloned().collect();
            for name in own.into_iter().filter(|name| !name.is_empty()) {
                // A node within that gives it once more is an error, which must stay one.
                if !self.taken.insert(name.clone()) && !given.contains(&name) {
                    let new = self.another(&name);
                    renamed.insert(name, new);
                }
            }
            if !renamed.is_empty() {
                rename(graph, &renamed);
            }
            graph.nodes.iter_mut().for_each(|node| self.node(node));
        }
    }

    fn another(&mut self, name: &str) -> String {
        let number = self.next.entry(name.into()).or_insert(2);
        loop {
            let candidate = format!("{name}_{number}");
            *number += 1;
            if !self.in_file.contains(&candidate) && self.taken.insert(candidate.clone()) {
                return candidate;
            }
        }
    }
}

/// Writes the new names into a graph that defines them.
fn rename(graph: &mut Graph, renamed: &HashMap<String, String>) {
    let new = |name: &mut String| {
        if let Some(new) = renamed.get(name) {
            name.clone_from(new);
        }
    };
    graph.inputs.iter_mut().for_each(|spec| new(&mut spec.name));
    graph.initializers = std::mem::take(&mut graph.initializers)
        .into_iter()
        .map(|(mut name, tensor)| {
            new(&mut name);
            (name, tensor)
        })
        .collect();
    references(graph, renamed);
}

/// Writes the new names where a graph reads the values.
fn references(graph: &mut Graph, renamed: &HashMap<String, String>) {
    let new = |name: &mut String| {
        if let Some(new) = renamed.get(name) {
            name.clone_from(new);
        }
    };
    graph.outputs.iter_mut().for_each(|spec| new(&mut spec.name));
    for node in &mut graph.nodes {
        node.inputs.iter_mut().for_each(new);
        for inner in graphs_mut(node) {
            let visible: HashMap<String, String> = {
                let hidden: HashSet<&String> = declared(inner).collect();
                renamed
                    .iter()
                    .filter(|(name, _)| !hidden.contains(name))
                    .map(|(a, b)| (a.clone(), b.clone()))
                    .collect()
            };
            references(inner, &visible);
        }
    }
}
