//! Functions of the model, written out where they are called.
//!
//! A value `v` of a function that node `call` calls becomes `call/v`, so that it can be asked for like any other.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;
use onnx_graph::{Attribute, Function, Graph, Model, Node, Tensor};

use crate::{OracleError, ops};

/// How deep functions may call each other. PyTorch's exporter needs two or three levels.
const MAX_CALL_DEPTH: usize = 64;

/// A node that calls no function, and what it holds.
pub(crate) struct Placed {
    pub node: Node,
    /// The version of its domain.
    pub opset: i64,
    /// Its subgraphs by attribute.
    pub branches: Vec<(String, Branch)>,
}

/// A subgraph: the branch of an `If`.
pub(crate) struct Branch {
    pub initializers: IndexMap<String, Tensor>,
    pub nodes: Vec<Placed>,
    pub outputs: Vec<String>,
}

/// The nodes of the model's graph without calls. [`Model::check`] has seen to it that they are finitely many, and that calls fit.
pub(crate) fn inline(model: &Model) -> Result<Vec<Placed>, OracleError> {
    let mut taken = HashSet::new();
    names_of(&model.graph, &mut taken);
    let mut inliner = Inliner { model, taken, depth: 0 };
    let mut nodes = Vec::new();
    for node in &model.graph.nodes {
        inliner.place(node.clone(), &model.opsets, &mut nodes)?;
    }
    Ok(nodes)
}

fn names_of(graph: &Graph, names: &mut HashSet<String>) {
    names.extend(graph.inputs.iter().map(|spec| spec.name.clone()));
    names.extend(graph.initializers.keys().cloned());
    for node in &graph.nodes {
        names.extend(node.outputs.iter().cloned());
        for attribute in node.attributes.values() {
            if let Attribute::Graph(graph) = attribute {
                names_of(graph, names);
            }
        }
    }
}

struct Inliner<'a> {
    model: &'a Model,
    /// Every name that a value has.
    taken: HashSet<String>,
    depth: usize,
}

impl<'a> Inliner<'a> {
    fn place(
        &mut self,
        mut node: Node,
        opsets: &'a BTreeMap<String, i64>,
        placed: &mut Vec<Placed>,
    ) -> Result<(), OracleError> {
        if let Some(function) = self.model.function(&node) {
            return self.call(&node, function, placed);
        }
        // Every node's domain is imported: Model::check.
        let opset = opsets.get(&node.domain).copied().unwrap_or_default();
        let mut branches = Vec::new();
        for (name, attribute) in &mut node.attributes {
            if let Attribute::Graph(graph) = attribute {
                let mut graph = std::mem::take(graph.as_mut());
                let mut nodes = Vec::new();
                for node in std::mem::take(&mut graph.nodes) {
                    self.place(node, opsets, &mut nodes)?;
                }
                let outputs = graph.outputs.into_iter().map(|spec| spec.name).collect();
                branches.push((name.clone(), Branch { initializers: graph.initializers, nodes, outputs }));
            }
        }
        placed.push(Placed { node, opset, branches });
        Ok(())
    }

    fn call(
        &mut self,
        call: &Node,
        function: &'a Function,
        placed: &mut Vec<Placed>,
    ) -> Result<(), OracleError> {
        self.depth += 1;
        if self.depth > MAX_CALL_DEPTH {
            return Err(OracleError::CallsTooDeep { limit: MAX_CALL_DEPTH });
        }
        let given = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_default();
        let mut renamed: HashMap<String, String> = HashMap::new();
        for (index, input) in function.inputs.iter().enumerate() {
            renamed.insert(input.clone(), given(&call.inputs, index));
        }
        let mut handed_on = Vec::new();
        for (index, output) in function.outputs.iter().enumerate() {
            let outer = given(&call.outputs, index);
            if outer.is_empty() {
                continue;
            }
            if let Some(inner) = renamed.get(output) {
                // The function hands an input on, or a value twice.
                let node = Node {
                    name: format!("{}/{output}", call.name),
                    op: "Identity".into(),
                    inputs: vec![inner.clone()],
                    outputs: vec![outer],
                    ..Node::default()
                };
                handed_on.push(Placed { node, opset: ops::OLDEST, branches: Vec::new() });
            } else {
                renamed.insert(output.clone(), outer);
            }
        }
        for node in &function.nodes {
            let mut node = node.clone();
            self.rename(&mut node, &call.name, &mut renamed);
            resolve(&mut node, call, function);
            self.place(node, &function.opsets, placed)?;
        }
        placed.extend(handed_on);
        self.depth -= 1;
        Ok(())
    }

    /// Gives the node and what it defines the names they have in the graph.
    fn rename(&mut self, node: &mut Node, prefix: &str, renamed: &mut HashMap<String, String>) {
        node.name = format!("{prefix}/{}", node.name);
        for name in node.inputs.iter_mut().filter(|name| !name.is_empty()) {
            if let Some(new) = renamed.get(name) {
                name.clone_from(new);
            }
        }
        for attribute in node.attributes.values_mut() {
            if let Attribute::Graph(graph) = attribute {
                self.rename_graph(graph, prefix, renamed);
            }
        }
        for name in node.outputs.iter_mut().filter(|name| !name.is_empty()) {
            *name = self.define(name, prefix, renamed);
        }
    }

    fn rename_graph(&mut self, graph: &mut Graph, prefix: &str, renamed: &mut HashMap<String, String>) {
        let inputs = graph.inputs.iter_mut().map(|spec| &mut spec.name);
        for name in inputs {
            *name = self.define(name, prefix, renamed);
        }
        graph.initializers = std::mem::take(&mut graph.initializers)
            .into_iter()
            .map(|(name, tensor)| (self.define(&name, prefix, renamed), tensor))
            .collect();
        for node in &mut graph.nodes {
            self.rename(node, prefix, renamed);
        }
        for spec in &mut graph.outputs {
            if let Some(new) = renamed.get(&spec.name) {
                spec.name.clone_from(new);
            }
        }
    }

    fn define(&mut self, name: &str, prefix: &str, renamed: &mut HashMap<String, String>) -> String {
        if let Some(known) = renamed.get(name) {
            return known.clone();
        }
        let mut new = format!("{prefix}/{name}");
        while !self.taken.insert(new.clone()) {
            new.push('\'');
        }
        renamed.insert(name.into(), new.clone());
        new
    }
}

/// Puts the call's attributes, or the function's defaults, where the function refers to them.
fn resolve(node: &mut Node, call: &Node, function: &Function) {
    let mut attributes = std::mem::take(&mut node.attributes);
    attributes.retain(|_, attribute| {
        match attribute {
            Attribute::Reference { name, .. } => {
                match call.attributes.get(name).or_else(|| function.defaults.get(name)) {
                    Some(value) => *attribute = value.clone(),
                    None => return false,
                }
            }
            Attribute::Graph(graph) => {
                graph.nodes.iter_mut().for_each(|node| resolve(node, call, function));
            }
            _ => {}
        }
        true
    });
    node.attributes = attributes;
}
