//! An export in which nodes were changed, run by the oracle.

mod attention;
mod ends;
mod layers;

use std::collections::HashSet;

use onnx_graph::{Attribute, Model, Node, Tensor as Constant};

use super::*;
use crate::proof::exact_graph;

/// The golden inputs, and an export without fused attention or fused activations.
struct Export {
    bench: Bench,
    model: Model,
}

impl Export {
    fn new() -> Self {
        let bench = Bench::new("baseline");
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/baseline/onnx/ts17-eager-dynamic.onnx"
        );
        let (_, model) = bench.subject.graph(Some(file.as_ref())).unwrap();
        Self { bench, model }
    }

    /// The same with another mask.
    fn mask(&mut self, bits: Vec<i64>) {
        let mut inputs = self.bench.inputs.clone();
        inputs.insert("attention_mask", Value::new([4, 11], bits).unwrap());
        let folder = self.bench.subject.files().folder().unwrap().to_str().unwrap().to_owned();
        self.bench = Bench::on(&folder, inputs);
    }

    /// One value of the graph with something changed.
    fn found(&self, value: &str, change: impl FnOnce(&mut Edit)) -> Value {
        let mut edit = Edit { model: self.model.clone() };
        change(&mut edit);
        assert_ne!(edit.model, self.model);
        edit.sort();
        edit.model.check().unwrap();
        let (oracle, _) = exact_graph(&edit.model, self.bench.subject.program()).unwrap();
        oracle.run_for(&self.bench.inputs, &[value]).unwrap().remove(value).unwrap()
    }

    #[track_caller]
    fn check(
        &self,
        module: &str,
        value: &str,
        change: impl FnOnce(&mut Edit),
        text: &str,
        blamed: Option<&str>,
    ) {
        let explanation = self.bench.explain(module, &self.found(value, change));
        assert_eq!(
            (explanation.text.as_str(), explanation.module.as_deref()),
            (text, blamed),
            "{explanation}"
        );
    }
}

/// A graph that is being changed. Names of nodes and values are given from `/model` on.
struct Edit {
    model: Model,
}

/// The name of a value or a node, in full.
fn full(name: &str) -> String {
    if name.starts_with('/') && !name.starts_with("/model/") { format!("/model{name}") } else { name.into() }
}

impl Edit {
    fn node(&mut self, name: &str) -> &mut Node {
        let name = full(name);
        self.model
            .graph
            .nodes
            .iter_mut()
            .find(|node| node.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// Another value as the input of a node.
    fn input(&mut self, node: &str, at: usize, value: &str) {
        self.node(node).inputs[at] = full(value);
    }

    fn attribute(&mut self, node: &str, name: &str, value: Attribute) {
        self.node(node).attributes.insert(name.into(), value);
    }

    /// The node with another operator.
    fn op(&mut self, node: &str, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) {
        let node = self.node(node);
        node.op = op.into();
        node.inputs = inputs.iter().map(|name| full(name)).collect();
        node.attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    }

    /// A new node before another one; it gives the value `output`.
    fn before(
        &mut self,
        node: &str,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Attribute)],
    ) {
        let name = full(node);
        let at = self.model.graph.nodes.iter().position(|node| node.name == name).unwrap();
        let new = Node {
            name: format!("new {output}"),
            op: op.into(),
            inputs: inputs.iter().map(|name| full(name)).collect(),
            outputs: vec![output.into()],
            attributes: attributes.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
            ..Node::default()
        };
        self.model.graph.nodes.insert(at, new);
    }

    /// Every node after those that it takes something from.
    fn sort(&mut self) {
        let mut waiting = std::mem::take(&mut self.model.graph.nodes);
        let mut missing: HashSet<String> = waiting.iter().flat_map(|node| node.outputs.clone()).collect();
        while !waiting.is_empty() {
            let ready = |node: &Node| !node.inputs.iter().any(|input| missing.contains(input));
            let next = waiting.iter().position(ready).expect("a circle");
            let node = waiting.remove(next);
            node.outputs.iter().for_each(|output| {
                missing.remove(output);
            });
            self.model.graph.nodes.push(node);
        }
    }

    fn constant(&mut self, name: &str, value: Value) {
        self.model.graph.initializers.insert(name.into(), Constant::from_value(&value));
    }

    fn float(&mut self, name: &str, x: f32) {
        self.constant(name, Value::scalar(x));
    }

    fn ints(&mut self, name: &str, x: &[i64]) {
        self.constant(name, Value::new([x.len()], x.to_vec()).unwrap());
    }
}

fn ints(x: &[i64]) -> Attribute {
    Attribute::Ints(x.to_vec())
}

const SELF: &str = "encoder.layer.0.attention.self";
const S: &str = "/encoder/layer.0/attention/self";
const CONTEXT: &str = "/model/encoder/layer.0/attention/self/Reshape_3_output_0";

fn s(name: &str) -> String {
    format!("{S}/{name}")
}

const ACTIVATED: &str = "/model/encoder/layer.0/intermediate/intermediate_act_fn/Mul_1_output_0";
const NORMED: &str = "/model/encoder/layer.0/attention/output/LayerNorm/LayerNormalization_output_0";
const EMBEDDED: &str = "/model/embeddings/LayerNorm/LayerNormalization_output_0";

#[test]
fn the_export_is_right_as_it_is() {
    let export = Export::new();
    let (oracle, _) = exact_graph(&export.model, export.bench.subject.program()).unwrap();
    let values = [
        (SELF, CONTEXT),
        ("pooler", "pooler_output"),
        ("encoder.layer.0.attention.output.LayerNorm", NORMED),
        ("encoder.layer.0.intermediate", ACTIVATED),
    ];
    for (module, value) in values {
        let found = oracle.run_for(&export.bench.inputs, &[value]).unwrap().remove(value).unwrap();
        assert_eq!(explain(&export.bench.evidence(), module, &found).unwrap(), None, "{module}");
    }
}
