//! Changing a graph in memory: what a value is, what reads an input, what a constant holds.

use std::collections::HashMap;

use engine::{DType, Value};
use onnx_eval::Oracle;
use onnx_graph::{Attribute, Model, Node, Tensor};

/// A graph without functions, and nodes to be put into it.
#[derive(Clone)]
pub(super) struct Edit {
    pub model: Model,
    fresh: usize,
}

/// Nodes that are made, in order.
pub(super) struct Nodes<'a> {
    edit: &'a mut Edit,
    nodes: Vec<Node>,
}

impl Edit {
    /// The graph with its functions written out, as the oracle sees it. Nothing if a function imports other opsets than the model.
    pub fn new(model: &Model, oracle: &Oracle) -> Option<Self> {
        let same = |domain: &String, opset: &i64| model.opset(domain).is_none_or(|own| own == *opset);
        let fits = model.functions.iter().all(|function| function.opsets.iter().all(|(d, o)| same(d, o)));
        let mut model = model.clone();
        if !model.functions.is_empty() {
            let imported: Vec<_> =
                model.functions.iter().flat_map(|function| function.opsets.clone()).collect();
            model.opsets.extend(imported);
            model.functions.clear();
            model.graph.nodes = oracle.nodes().cloned().collect();
        }
        // What it said about values in between need not hold any more.
        model.graph.value_info.clear();
        fits.then_some(Self { model, fresh: 0 })
    }

    /// The version of ONNX's operators.
    pub fn opset(&self) -> i64 {
        self.model.opset("").unwrap_or(0)
    }

    fn name(&mut self, what: &str) -> String {
        self.fresh += 1;
        format!("planted/{what}_{}", self.fresh)
    }

    /// A new initializer.
    pub fn constant(&mut self, value: &Value) -> String {
        let name = self.name("constant");
        self.model.graph.initializers.insert(name.clone(), Tensor::from_value(value));
        name
    }

    /// Makes a value something else, which may be made of what it was; nothing if no node gives it.
    pub fn replace(&mut self, value: &str, make: impl FnOnce(&mut Nodes, &str) -> String) -> Option<()> {
        let nodes = &self.model.graph.nodes;
        let producer = nodes.iter().position(|node| node.outputs.iter().any(|output| output == value))?;
        let sound = self.name("sound");
        let mut made = Nodes { edit: self, nodes: Vec::new() };
        let result = make(&mut made, &sound);
        made.named("Identity", &[&result], value);
        let made = made.nodes;
        // After all that it is made of.
        let index: HashMap<&str, usize> = self
            .model
            .graph
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(at, node)| node.outputs.iter().map(move |output| (output.as_str(), at)))
            .collect();
        let reads = made.iter().flat_map(|node| &node.inputs);
        let last = reads.filter_map(|name| index.get(name.as_str())).copied().fold(producer, usize::max);
        for output in &mut self.model.graph.nodes[producer].outputs {
            if output == value {
                output.clone_from(&sound);
            }
        }
        self.model.graph.nodes.splice(last + 1..last + 1, made);
        Some(())
    }

    /// Gives a value `[…, tokens, width]` the first rows of a table `[rows, width]`, whatever it
    /// was.
    pub fn replace_rows(&mut self, value: &str, table: &Value) -> Option<()> {
        self.replace(value, |nodes, sound| {
            // As many rows as there are tokens, under the shape it had.
            let shape = nodes.op("Shape", &[sound]);
            let (minus_two, minus_one, zero) = (nodes.list(&[-2]), nodes.list(&[-1]), nodes.list(&[0]));
            let sequence = nodes.op("Slice", &[&shape, &minus_two, &minus_one]);
            let table = nodes.constant(table);
            let rows = nodes.op("Slice", &[&table, &zero, &sequence, &zero]);
            let nothing = nodes.number(0.0);
            let blank = nodes.op("Mul", &[sound, &nothing]);
            nodes.op("Add", &[&blank, &rows])
        })
    }

    /// Gives all that reads an input something else; nothing if the graph has no such input.
    pub fn replace_input(
        &mut self,
        input: &str,
        make: impl FnOnce(&mut Nodes, &str) -> String,
    ) -> Option<()> {
        self.model.graph.inputs.iter().find(|spec| spec.name == input)?;
        let mut made = Nodes { edit: self, nodes: Vec::new() };
        let result = make(&mut made, input);
        let made = made.nodes;
        for node in &mut self.model.graph.nodes {
            node.inputs.iter_mut().filter(|name| *name == input).for_each(|name| name.clone_from(&result));
        }
        self.model.graph.nodes.splice(0..0, made);
        Some(())
    }

    /// Another initializer that holds what one holds, or a `Constant`; nothing if there is neither.
    pub fn copy(&mut self, name: &str) -> Option<String> {
        let gives = |node: &&Node| node.op == "Constant" && node.outputs.first().is_some_and(|o| o == name);
        let graph = &self.model.graph;
        let tensor = match graph.initializers.get(name) {
            Some(tensor) => tensor.clone(),
            None => match graph.nodes.iter().find(gives)?.attributes.get("value")? {
                Attribute::Tensor(tensor) => tensor.clone(),
                _ => return None,
            },
        };
        let copy = self.name("copy");
        self.model.graph.initializers.insert(copy.clone(), tensor);
        Some(copy)
    }

    /// Changes the elements of an f32 initializer or `Constant`; nothing if there is none of this name, or it has no elements.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Vec<f32>)) -> Option<()> {
        let tensor = match self.model.graph.initializers.get_mut(name) {
            Some(tensor) => tensor,
            None => {
                let gives = |node: &&mut Node| {
                    node.op == "Constant" && node.outputs.first().is_some_and(|o| o == name)
                };
                let node = self.model.graph.nodes.iter_mut().find(gives)?;
                if let Some(Attribute::Float(number)) = node.attributes.get_mut("value_float") {
                    let mut elements = vec![*number];
                    change(&mut elements);
                    *number = *elements.first()?;
                    return Some(());
                }
                match node.attributes.get_mut("value")? {
                    Attribute::Tensor(tensor) => tensor,
                    _ => return None,
                }
            }
        };
        if tensor.dtype != DType::F32 {
            return None;
        }
        let value = tensor.to_value().ok()?;
        let mut elements = value.as_slice::<f32>().ok()?.to_vec();
        if elements.is_empty() {
            return None;
        }
        change(&mut elements);
        *tensor = Tensor::from_value(&Value::new(value.shape(), elements).ok()?);
        Some(())
    }

    /// The elements of an f32 initializer.
    pub fn elements(&self, name: &str) -> Option<Vec<f32>> {
        let value = self.model.graph.initializers.get(name)?.to_value().ok()?;
        Some(value.as_slice::<f32>().ok()?.to_vec())
    }
}

impl Nodes<'_> {
    /// A node of one output, whose name is returned.
    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.op_with(op, inputs, [])
    }

    /// The same with attributes.
    pub fn op_with<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: [(&str, Attribute); N],
    ) -> String {
        let output = self.edit.name(op);
        self.named(op, inputs, &output);
        if let Some(node) = self.nodes.last_mut() {
            node.attributes.extend(attributes.map(|(name, attribute)| (name.to_string(), attribute)));
        }
        output
    }

    fn named(&mut self, op: &str, inputs: &[&str], output: &str) {
        let name = self.edit.name("node");
        self.nodes.push(Node {
            name,
            op: op.into(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: vec![output.into()],
            ..Node::default()
        });
    }

    /// A new f32 scalar.
    pub fn number(&mut self, number: f64) -> String {
        self.edit.constant(&Value::scalar(number as f32))
    }

    /// A new int64 list.
    pub fn list(&mut self, list: &[i64]) -> String {
        match Value::new([list.len()], list) {
            Ok(value) => self.edit.constant(&value),
            Err(_) => String::new(),
        }
    }

    /// A new constant.
    pub fn constant(&mut self, value: &Value) -> String {
        self.edit.constant(value)
    }

    /// A reduction over the last axis, which stays as 1.
    pub fn reduce_last(&mut self, op: &str, input: &str) -> String {
        let axes_are_an_input = if op == "ReduceSum" { 13 } else { 18 };
        if self.edit.opset() >= axes_are_an_input {
            let axes = self.list(&[-1]);
            return self.op(op, &[input, &axes]);
        }
        self.op_with(op, &[input], [("axes", Attribute::Ints(vec![-1]))])
    }
}
