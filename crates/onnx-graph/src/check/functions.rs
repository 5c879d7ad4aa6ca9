use std::collections::{HashMap, HashSet};

use super::MAX_NODES;
use crate::{Attribute, AttributeFault, Function, Graph, GraphError, Node};

/// The functions of a model by what a call names: domain, name and overload.
pub(super) struct Functions<'a> {
    functions: &'a [Function],
    index: HashMap<(&'a str, &'a str, &'a str), usize>,
    domains: HashSet<&'a str>,
}

impl<'a> Functions<'a> {
    /// Indexes the functions and checks their signatures.
    pub fn index(functions: &'a [Function]) -> Result<Self, GraphError> {
        let mut index = HashMap::new();
        let mut domains = HashSet::new();
        for (number, function) in functions.iter().enumerate() {
            if function.name.is_empty() {
                return Err(GraphError::NoName {
                    what: format!("a function of domain '{}'", function.domain),
                });
            }
            if function.domain.is_empty() {
                return Err(GraphError::FunctionInOnnxDomain { function: function.label() });
            }
            let key = (function.domain.as_str(), function.name.as_str(), function.overload.as_str());
            if index.insert(key, number).is_some() {
                return Err(GraphError::DuplicateFunction { function: function.label() });
            }
            domains.insert(function.domain.as_str());
            let mut names = HashSet::new();
            let mut attributes = function.attributes.iter().chain(function.defaults.keys());
            if let Some(attribute) = attributes.find(|name| !names.insert(*name)) {
                return Err(GraphError::DuplicateParameter {
                    function: function.label(),
                    attribute: attribute.clone(),
                });
            }
        }
        Ok(Self { functions, index, domains })
    }

    /// Whether the model defines functions in this domain.
    pub fn has_domain(&self, domain: &str) -> bool {
        self.domains.contains(domain)
    }

    /// The function that a node calls, if it calls one.
    pub fn called_by(&self, node: &Node) -> Option<&'a Function> {
        self.number(node).and_then(|number| self.functions.get(number))
    }

    fn number(&self, node: &Node) -> Option<usize> {
        self.index.get(&(node.domain.as_str(), node.op.as_str(), node.overload.as_str())).copied()
    }

    /// That no function calls itself, and that the graph stays of a size when all calls are written out.
    pub fn check_calls(&self, graph: &Graph) -> Result<(), GraphError> {
        // Kahn's algorithm, from the functions that call none to those that call them: a cycle is what remains.
        let calls: Vec<Calls> = self.functions.iter().map(|function| self.calls(&function.nodes)).collect();
        let mut callers = vec![Vec::new(); calls.len()];
        for (caller, calls) in calls.iter().enumerate() {
            for &callee in &calls.callees {
                callers[callee].push(caller);
            }
        }
        let mut open: Vec<usize> = calls.iter().map(|calls| calls.callees.len()).collect();
        let mut ready: Vec<usize> = (0..calls.len()).filter(|&number| open[number] == 0).collect();
        let mut sizes = vec![None; calls.len()];
        while let Some(number) = ready.pop() {
            sizes[number] = Some(calls[number].size(&sizes));
            for &caller in &callers[number] {
                open[caller] -= 1;
                if open[caller] == 0 {
                    ready.push(caller);
                }
            }
        }
        // Every function that remains calls another one that does, so going from call to call ends in a cycle.
        if let Some(mut number) = sizes.iter().position(Option::is_none) {
            let mut seen = HashSet::new();
            while seen.insert(number) {
                number =
                    calls[number].callees.iter().copied().find(|&n| sizes[n].is_none()).unwrap_or(number);
            }
            return Err(GraphError::Recursion { function: self.functions[number].label() });
        }
        if self.calls(&graph.nodes).size(&sizes) > MAX_NODES {
            return Err(GraphError::TooManyNodes);
        }
        Ok(())
    }

    fn calls(&self, nodes: &[Node]) -> Calls {
        let mut calls = Calls { operators: 0, callees: Vec::new() };
        self.count(nodes, &mut calls);
        calls
    }

    fn count(&self, nodes: &[Node], calls: &mut Calls) {
        for node in nodes {
            match self.number(node) {
                Some(number) => calls.callees.push(number),
                None => calls.operators += 1,
            }
            for attribute in node.attributes.values() {
                match attribute {
                    Attribute::Graph(graph) => self.count(&graph.nodes, calls),
                    Attribute::Graphs(graphs) => {
                        graphs.iter().for_each(|graph| self.count(&graph.nodes, calls))
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What a body consists of.
struct Calls {
    /// How many nodes are operators.
    operators: usize,
    /// The function that each other node calls.
    callees: Vec<usize>,
}

impl Calls {
    /// The number of nodes when all calls are written out, given those of the functions that are called. An empty function
    /// counts as one, because writing it out takes work, too.
    fn size(&self, sizes: &[Option<usize>]) -> usize {
        let callees = self.callees.iter().map(|&callee| sizes[callee].unwrap_or_default().max(1));
        callees.fold(self.operators, usize::saturating_add)
    }
}

/// Whether a function declares an attribute of that name.
pub(super) fn has_attribute(function: &Function, name: &str) -> bool {
    function.defaults.contains_key(name) || function.attributes.iter().any(|attribute| attribute == name)
}

/// That a value may be given to an attribute of a function: by a call, or as its default.
///
/// Graphs may not. The function could use one any number of times, with calls inside, and no exporter writes that.
pub(super) fn check_argument(owner: &str, name: &str, value: &Attribute) -> Result<(), GraphError> {
    match value {
        Attribute::Graph(_) | Attribute::Graphs(_) => Err(GraphError::Attribute {
            owner: owner.into(),
            attribute: name.into(),
            fault: AttributeFault::GraphForFunction,
        }),
        _ => Ok(()),
    }
}

/// That a call does not have more inputs, outputs or attributes than the function. It may have fewer of each.
pub(super) fn check_call(node: &Node, function: &Function) -> Result<(), GraphError> {
    for (what, found, expected) in [
        ("inputs", node.inputs.len(), function.inputs.len()),
        ("outputs", node.outputs.len(), function.outputs.len()),
    ] {
        if found > expected {
            return Err(GraphError::Arity {
                node: node.name.clone(),
                function: function.label(),
                what,
                found,
                expected,
            });
        }
    }
    for (name, value) in &node.attributes {
        if !has_attribute(function, name) {
            return Err(GraphError::UnknownParameter {
                node: node.name.clone(),
                function: function.label(),
                attribute: name.clone(),
            });
        }
        check_argument(&node.label(), name, value)?;
    }
    Ok(())
}
