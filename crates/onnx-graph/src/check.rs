//! What must hold of a model before anything runs.
//!
//! The rules are those of ONNX's IR specification: single assignment, topological order, names of
//! subgraphs distinct from those of the graphs around them; operator sets imported for what is
//! used; no recursion. On top of them, names that reports rely on are unique, and so are those of
//! constants: where a file has an initializer of a subgraph hide another value, reading has given
//! it a name of its own.

mod functions;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use engine::Dim;

use crate::model::{function_label, shown_domain};
use crate::{Attribute, AttributeFault, Function, Graph, GraphError, Model, Node, Tensor};
use functions::Functions;

/// The domains whose operators are known by name: ONNX's own, and the one that ONNX Runtime's
/// optimizer writes.
///
/// A node of any other domain must call a function of the model. A model may import more domains
/// than it uses.
pub const DOMAINS: [&str; 2] = ["", "com.microsoft"];

/// How deep subgraphs may be nested, the main graph included. (protobuf itself allows 33, so that
/// no file overflows the stack.)
pub const MAX_DEPTH: usize = 24;

/// How many nodes a graph may have once all its functions are written out: BERT-large has some
/// 2,500. The limit is there so that a few functions which call each other twice each cannot fill
/// the memory.
pub const MAX_NODES: usize = 1_000_000;

impl Model {
    /// Checks what the head of this crate promises.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<(), GraphError> {
        check_opsets(&self.opsets)?;
        let functions = Functions::index(&self.functions)?;
        let mut body = Body::new(&functions, &self.opsets, None);
        body.graph(&self.graph)?;
        let mut outputs = HashSet::new();
        if let Some(output) = self.graph.outputs.iter().find(|output| !outputs.insert(&output.name)) {
            return Err(GraphError::DuplicateOutput { value: output.name.clone() });
        }
        for function in &self.functions {
            check_function(function, &functions).map_err(|source| GraphError::InFunction {
                function: function.label(),
                source: Box::new(source),
            })?;
        }
        functions.check_calls(&self.graph)
    }
}

fn check_opsets(opsets: &BTreeMap<String, i64>) -> Result<(), GraphError> {
    if opsets.is_empty() {
        return Err(GraphError::NoOpsets);
    }
    match opsets.iter().find(|(_, version)| **version < 1) {
        Some((domain, &version)) => Err(GraphError::OpsetVersion { domain: shown_domain(domain), version }),
        None => Ok(()),
    }
}

fn check_function(function: &Function, functions: &Functions) -> Result<(), GraphError> {
    if !function.opsets.is_empty() {
        check_opsets(&function.opsets)?;
    }
    let mut body = Body::new(functions, &function.opsets, Some(function));
    for (name, default) in &function.defaults {
        if matches!(default, Attribute::Reference { .. }) {
            return Err(GraphError::Attribute {
                owner: "the function".into(),
                attribute: name.clone(),
                fault: AttributeFault::ReferenceAsDefault,
            });
        }
        functions::check_argument("the function", name, default)?;
        check_tensors(default, || format!("the default of attribute '{name}'"))?;
    }
    body.scopes.push(Scope { defined: HashMap::new(), nodes: &function.nodes });
    for input in &function.inputs {
        body.define(input, Definer::Input)?;
    }
    body.nodes(&function.nodes)?;
    for output in &function.outputs {
        body.output(output)?;
    }
    Ok(())
}

/// The tensors of an attribute.
fn check_tensors(attribute: &Attribute, label: impl Fn() -> String) -> Result<(), GraphError> {
    match attribute {
        Attribute::Tensor(tensor) => check_tensor(tensor, label),
        Attribute::Tensors(tensors) => tensors.iter().try_for_each(|tensor| check_tensor(tensor, &label)),
        _ => Ok(()),
    }
}

fn check_tensor(tensor: &Tensor, label: impl Fn() -> String) -> Result<(), GraphError> {
    tensor.check_size("it").map_err(|fault| GraphError::Tensor { tensor: label(), fault })
}

/// What defines a value.
#[derive(Clone, Copy)]
enum Definer<'a> {
    Input,
    Initializer,
    Node(&'a Node),
}

impl fmt::Display for Definer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Definer::Input => f.write_str("an input"),
            Definer::Initializer => f.write_str("an initializer"),
            Definer::Node(node) => f.write_str(&node.label()),
        }
    }
}

/// What one graph has defined so far.
struct Scope<'a> {
    defined: HashMap<&'a str, Definer<'a>>,
    nodes: &'a [Node],
}

/// The walk through a graph with its subgraphs, or through a function.
struct Body<'a> {
    functions: &'a Functions<'a>,
    opsets: &'a BTreeMap<String, i64>,
    function: Option<&'a Function>,
    node_names: HashSet<&'a str>,
    /// The initializers of all graphs: even two branches have none of one name.
    constants: HashSet<&'a str>,
    /// From the outermost graph to the one at hand: all of them are visible.
    scopes: Vec<Scope<'a>>,
}

impl<'a> Body<'a> {
    fn new(
        functions: &'a Functions<'a>,
        opsets: &'a BTreeMap<String, i64>,
        function: Option<&'a Function>,
    ) -> Self {
        Self {
            functions,
            opsets,
            function,
            node_names: HashSet::new(),
            constants: HashSet::new(),
            scopes: Vec::new(),
        }
    }

    fn graph(&mut self, graph: &'a Graph) -> Result<(), GraphError> {
        if self.scopes.len() == MAX_DEPTH {
            return Err(GraphError::TooDeep);
        }
        self.scopes.push(Scope { defined: HashMap::new(), nodes: &graph.nodes });
        let mut inputs = HashMap::new();
        for input in &graph.inputs {
            self.define(&input.name, Definer::Input)?;
            inputs.insert(&input.name, input);
        }
        for (name, tensor) in &graph.initializers {
            check_tensor(tensor, || format!("initializer '{name}'"))?;
            match inputs.get(name) {
                Some(declared) if !fits(tensor, declared) => {
                    return Err(GraphError::InitializerType {
                        declared: declared.to_string(),
                        found: format!("{}{:?}", tensor.dtype, tensor.shape),
                    });
                }
                Some(_) => {}
                None => self.define(name, Definer::Initializer)?,
            }
            if !self.constants.insert(name) {
                return Err(twice(name, Definer::Initializer, Definer::Initializer));
            }
        }
        self.nodes(&graph.nodes)?;
        for output in &graph.outputs {
            self.output(&output.name)?;
        }
        self.scopes.pop();
        Ok(())
    }

    fn nodes(&mut self, nodes: &'a [Node]) -> Result<(), GraphError> {
        for node in nodes {
            if node.name.is_empty() {
                return Err(GraphError::NoName { what: format!("a node ({})", node.op) });
            }
            if !self.node_names.insert(&node.name) {
                return Err(GraphError::DuplicateNode { node: node.name.clone() });
            }
            self.operator(node)?;
            for input in node.inputs.iter().filter(|name| !name.is_empty()) {
                if self.definer(input).is_none() {
                    return Err(self.undefined(node, input));
                }
            }
            for (name, attribute) in &node.attributes {
                self.attribute(node, name, attribute)?;
            }
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                self.define(output, Definer::Node(node))?;
            }
        }
        Ok(())
    }

    /// That the node's operator or function is known, its domain imported, and a function's
    /// arguments fit.
    fn operator(&self, node: &Node) -> Result<(), GraphError> {
        if node.op.is_empty() {
            return Err(GraphError::NoOperator { node: node.name.clone() });
        }
        let by_name = node.overload.is_empty() && DOMAINS.contains(&node.domain.as_str());
        match self.functions.called_by(node) {
            Some(function) => functions::check_call(node, function)?,
            None if by_name => {}
            None if !node.overload.is_empty() || self.functions.has_domain(&node.domain) => {
                return Err(GraphError::UnknownFunction {
                    node: node.name.clone(),
                    function: function_label(&node.domain, &node.op, &node.overload),
                });
            }
            None => {
                return Err(GraphError::UnknownDomain {
                    node: node.name.clone(),
                    op: node.op.clone(),
                    domain: node.domain.clone(),
                });
            }
        }
        if self.opsets.contains_key(&node.domain) {
            return Ok(());
        }
        Err(GraphError::NoOpset {
            node: node.name.clone(),
            op: node.op.clone(),
            domain: shown_domain(&node.domain),
        })
    }

    fn attribute(&mut self, node: &'a Node, name: &str, attribute: &'a Attribute) -> Result<(), GraphError> {
        match attribute {
            Attribute::Graph(graph) => self.graph(graph),
            Attribute::Graphs(graphs) => graphs.iter().try_for_each(|graph| self.graph(graph)),
            Attribute::Reference { name: reference, .. }
                if !self.function.is_some_and(|function| functions::has_attribute(function, reference)) =>
            {
                Err(GraphError::UnknownReference {
                    node: node.name.clone(),
                    op: node.op.clone(),
                    attribute: name.into(),
                    reference: reference.clone(),
                })
            }
            other => check_tensors(other, || format!("attribute '{name}' of {}", node.label())),
        }
    }

    fn output(&self, name: &str) -> Result<(), GraphError> {
        if name.is_empty() {
            return Err(GraphError::NoName { what: "an output".into() });
        }
        match self.definer(name) {
            Some(_) => Ok(()),
            None => Err(GraphError::UndefinedOutput { value: name.into() }),
        }
    }

    fn definer(&self, value: &str) -> Option<Definer<'a>> {
        self.scopes.iter().rev().find_map(|scope| scope.defined.get(value)).copied()
    }

    fn define(&mut self, value: &'a str, definer: Definer<'a>) -> Result<(), GraphError> {
        if value.is_empty() {
            return Err(GraphError::NoName { what: definer.to_string() });
        }
        if let Some(first) = self.definer(value) {
            return Err(twice(value, first, definer));
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.defined.insert(value, definer);
        }
        Ok(())
    }

    /// Why a value that a node uses is not there.
    fn undefined(&self, node: &Node, value: &str) -> GraphError {
        let mut visible = self.scopes.iter().flat_map(|scope| scope.nodes);
        let (value, node, op) = (value.to_string(), node.name.clone(), node.op.clone());
        match visible.find(|later| later.outputs.contains(&value)) {
            Some(later) => GraphError::UsedBeforeDefined { value, node, op, definer: later.label() },
            None => GraphError::Undefined { value, node, op },
        }
    }
}

fn twice(value: &str, first: Definer, second: Definer) -> GraphError {
    GraphError::DuplicateValue { value: value.into(), first: first.to_string(), second: second.to_string() }
}

/// Whether a tensor may stand where the spec says.
fn fits(tensor: &Tensor, declared: &engine::ValueSpec) -> bool {
    let shape_fits = |dims: &[Dim]| {
        dims.len() == tensor.shape.len()
            && dims.iter().zip(&tensor.shape).all(|(dim, size)| match dim {
                Dim::Fixed(fixed) => fixed == size,
                Dim::Symbol(_) | Dim::Any => true,
            })
    };
    tensor.dtype == declared.dtype && declared.shape.as_deref().is_none_or(shape_fits)
}

#[cfg(test)]
mod tests;
