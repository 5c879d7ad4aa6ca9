//! A graph's data flow, as far as the audit needs it: its nodes with functions written out, its constants, and where each of them is used.

use std::borrow::Cow;
use std::collections::HashMap;

use engine::DType;
use onnx_graph::{Attribute, Function, Graph, Model, Node, Tensor};

/// How deep functions may call each other; deeper calls are left out, and what they use is reported as unused.
const MAX_CALL_DEPTH: usize = 64;

/// A value of the graph.
pub(super) type ValueId = usize;

/// One node, functions written out.
pub(super) struct Step<'a> {
    pub node: Cow<'a, Node>,
    /// `None` where an optional input is left out.
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<Option<ValueId>>,
    /// Whether what it computes depends on the graph's inputs.
    pub variable: bool,
    /// The longest way from the graph's inputs, in nodes.
    pub depth: usize,
}

/// A tensor that the graph holds: an initializer, or what a `Constant` node gives.
pub(super) struct Initializer {
    pub value: ValueId,
    pub name: String,
    pub tensor: Tensor,
}

/// A node that uses a tensor, at once or through nodes that only depend on constants.
#[derive(Clone, Copy)]
pub(super) struct Use {
    /// Its index in [`Flow::steps`].
    pub step: usize,
    /// Which of its inputs it is.
    pub index: usize,
    /// Whether the last two axes were exchanged on the way.
    pub flipped: bool,
}

/// The data flow of a model.
#[derive(Default)]
pub(super) struct Flow<'a> {
    /// Each node after those it depends on.
    pub steps: Vec<Step<'a>>,
    pub held: Vec<Initializer>,
    /// The node that computes a value.
    pub producer: Vec<Option<usize>>,
    /// The nodes that take a value, and as which input.
    pub consumers: Vec<Vec<(usize, usize)>>,
    /// Which element of `held` a value is.
    pub held_at: HashMap<ValueId, usize>,
    variable: Vec<bool>,
    depth: Vec<usize>,
}

/// What a name stands for, in the graph or function that is being read.
type Scope = HashMap<String, ValueId>;

impl<'a> Flow<'a> {
    /// Reads a model, which [`Model::check`] holds for well-formed.
    pub fn new(model: &'a Model) -> Self {
        let mut flow = Self::default();
        let mut scope = Scope::new();
        flow.graph(model, Cow::Borrowed(&model.graph), &mut scope, "", 0);
        flow
    }

    /// The float constant that a value is, if it is one of a single element, whatever its rank.
    pub fn scalar(&self, value: ValueId) -> Option<f64> {
        let tensor = &self.held[*self.held_at.get(&value)?].tensor;
        match super::data::floats(tensor)?.as_slice() {
            [x] => Some(f64::from(*x)),
            _ => None,
        }
    }

    /// The operator that computes a value.
    pub fn made_by(&self, value: ValueId) -> Option<&Step<'a>> {
        self.producer[value].map(|step| &self.steps[step])
    }

    /// Whether a value depends on the graph's inputs.
    pub fn is_variable(&self, value: ValueId) -> bool {
        self.variable[value]
    }

    /// The nodes that use a value, seen through nodes that depend on constants alone (a Transpose, a Cast).
    pub fn uses(&self, value: ValueId) -> Vec<Use> {
        let mut found = Vec::new();
        let mut pending = vec![(value, false, MAX_CALL_DEPTH)];
        while let Some((value, flipped, fuel)) = pending.pop() {
            for &(step, index) in &self.consumers[value] {
                let at = &self.steps[step];
                if at.variable || fuel == 0 {
                    found.push(Use { step, index, flipped });
                    continue;
                }
                let flips = at.node.op == "Transpose" && exchanges_last_two(&at.node);
                pending
                    .extend(at.outputs.iter().flatten().map(|&output| (output, flipped ^ flips, fuel - 1)));
            }
        }
        found.sort_by_key(|at| (at.step, at.index));
        found
    }

    fn value(&mut self, variable: bool, depth: usize) -> ValueId {
        self.producer.push(None);
        self.consumers.push(Vec::new());
        self.variable.push(variable);
        self.depth.push(depth);
        self.producer.len() - 1
    }

    fn hold(&mut self, name: String, tensor: Tensor) -> ValueId {
        let value = self.value(false, 0);
        self.held_at.insert(value, self.held.len());
        self.held.push(Initializer { value, name, tensor });
        value
    }

    /// Reads a graph's constants and nodes into `scope`; the names of what it holds get `prefix`.
    fn graph(
        &mut self,
        model: &'a Model,
        graph: Cow<'a, Graph>,
        scope: &mut Scope,
        prefix: &str,
        calls: usize,
    ) {
        for spec in &graph.inputs {
            let value = self.value(true, 0);
            scope.insert(spec.name.clone(), value);
        }
        // After the inputs: an input with an initializer is a constant unless someone gives it another value.
        for (name, tensor) in &graph.initializers {
            let value = self.hold(format!("{prefix}{name}"), tensor.clone());
            scope.insert(name.clone(), value);
        }
        match graph {
            Cow::Borrowed(graph) => {
                for node in &graph.nodes {
                    self.node(model, Cow::Borrowed(node), scope, prefix, calls);
                }
            }
            Cow::Owned(graph) => {
                for node in graph.nodes {
                    self.node(model, Cow::Owned(node), scope, prefix, calls);
                }
            }
        }
    }

    fn node(&mut self, model: &'a Model, node: Cow<'a, Node>, scope: &mut Scope, prefix: &str, calls: usize) {
        if let Some(function) = model.function(&node).filter(|_| calls < MAX_CALL_DEPTH) {
            return self.call(model, &node, function, scope, prefix, calls);
        }
        if let Some(tensor) = constant(&node) {
            if let Some(output) = node.outputs.first() {
                let value = self.hold(format!("{prefix}{output}"), tensor);
                scope.insert(output.clone(), value);
            }
            return;
        }
        let mut inputs: Vec<Option<ValueId>> =
            node.inputs.iter().map(|name| scope.get(name).copied()).collect();
        for attribute in node.attributes.values() {
            if let Attribute::Graph(body) = attribute {
                // The body sees the names around it; what it gives is what the node gives.
                let mut inner = scope.clone();
                self.graph(model, Cow::Owned(body.as_ref().clone()), &mut inner, prefix, calls);
                inputs.extend(body.outputs.iter().map(|spec| inner.get(&spec.name).copied()));
            }
        }
        let step = self.steps.len();
        let variable = inputs.iter().flatten().any(|&value| self.variable[value]);
        let depth = 1 + inputs.iter().flatten().map(|&value| self.depth[value]).max().unwrap_or_default();
        for (index, input) in inputs.iter().enumerate() {
            if let Some(value) = *input {
                self.consumers[value].push((step, index));
            }
        }
        let outputs = node
            .outputs
            .iter()
            .map(|name| {
                let value = (!name.is_empty()).then(|| self.value(variable, depth))?;
                self.producer[value] = Some(step);
                scope.insert(name.clone(), value);
                Some(value)
            })
            .collect();
        self.steps.push(Step { node, inputs, outputs, variable, depth });
    }

    fn call(
        &mut self,
        model: &'a Model,
        call: &Node,
        function: &'a Function,
        scope: &mut Scope,
        prefix: &str,
        calls: usize,
    ) {
        let mut inner: Scope = function
            .inputs
            .iter()
            .zip(&call.inputs)
            .filter_map(|(name, given)| Some((name.clone(), *scope.get(given)?)))
            .collect();
        let prefix = format!("{prefix}{}/", call.name);
        for node in &function.nodes {
            let mut node = node.clone();
            resolve(&mut node, call, function);
            node.name = format!("{prefix}{}", node.name);
            self.node(model, Cow::Owned(node), &mut inner, &prefix, calls + 1);
        }
        for (name, outer) in function.outputs.iter().zip(&call.outputs) {
            if let Some(&value) = inner.get(name) {
                scope.insert(outer.clone(), value);
            }
        }
    }
}

/// Puts the call's attributes, or the function's defaults, where the function refers to them.
fn resolve(node: &mut Node, call: &Node, function: &Function) {
    for attribute in node.attributes.values_mut() {
        match attribute {
            Attribute::Reference { name, .. } => {
                if let Some(value) = call.attributes.get(name).or_else(|| function.defaults.get(name)) {
                    *attribute = value.clone();
                }
            }
            Attribute::Graph(graph) => {
                graph.nodes.iter_mut().for_each(|node| resolve(node, call, function));
            }
            _ => {}
        }
    }
}

/// What a `Constant` node gives, if it holds floats or integers that may carry weights.
fn constant(node: &Node) -> Option<Tensor> {
    if node.op != "Constant" || !node.domain.is_empty() {
        return None;
    }
    let floats = |shape: Vec<usize>, floats: &[f32]| {
        let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::new(DType::F32, shape, bytes).ok()
    };
    match node.attributes.values().next()? {
        Attribute::Tensor(tensor) => Some(tensor.clone()),
        Attribute::Float(x) => floats(Vec::new(), &[*x]),
        Attribute::Floats(xs) => floats(vec![xs.len()], xs),
        _ => None,
    }
}

/// Whether a Transpose exchanges the last two axes and leaves the others, or reverses the only two there are.
fn exchanges_last_two(node: &Node) -> bool {
    let Ok(Some(perm)) = node.ints("perm") else { return true };
    let n = perm.len() as i64;
    n >= 2
        && perm.iter().zip(0..).all(|(&axis, at)| {
            axis == if at == n - 2 {
                n - 1
            } else if at == n - 1 {
                n - 2
            } else {
                at
            }
        })
}
