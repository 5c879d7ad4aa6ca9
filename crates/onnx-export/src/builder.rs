//! A graph that grows node by node, in the order of execution.

use std::collections::{BTreeMap, HashMap};

use architecture::{Program, run_of};
use engine::{DType, Dim, Value, ValueSpec};
use half::f16;
use onnx_graph::proto::DataType;
use onnx_graph::{Attribute, Graph, Model, Node, Tensor};

use crate::dialect::Dialect;
use crate::weights::Store;
use crate::{ExportError, FloatType, Options};

/// The property of a node that holds its module's path.
const MODULE: &str = "module";
/// The property of a node that holds its module's classes.
const HIERARCHY_TAG: &str = "hierarchy_tag";

/// The name of a value in the graph.
pub(crate) type Name = String;

pub(crate) struct Builder<'a> {
    pub dialect: Dialect,
    /// What the graph computes in.
    pub dtype: FloatType,
    weights: Store<'a>,
    graph: Graph,
    program: &'a Program,
    /// How many nodes have a name already.
    named: HashMap<String, usize>,
}

impl<'a> Builder<'a> {
    pub fn new(dialect: Dialect, weights: Store<'a>, program: &'a Program, dtype: FloatType) -> Self {
        let graph = Graph { name: program.class.clone(), ..Graph::default() };
        Self { dialect, dtype, weights, graph, program, named: HashMap::new() }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> Name {
        self.graph.inputs.push(spec(name, dtype, shape));
        name.into()
    }

    /// Makes a value an output of the graph, in f32. Where it has to be cast for that, the node
    /// belongs to a module.
    pub fn output(&mut self, name: &str, value: &Name, module: &str, shape: &[Dim]) {
        let computed = match self.dtype {
            FloatType::F32 => value.clone(),
            FloatType::F16 => self.cast(module, value, FloatType::F32),
        };
        for node in &mut self.graph.nodes {
            let names = node.inputs.iter_mut().chain(&mut node.outputs);
            names.filter(|other| **other == computed).for_each(|other| *other = name.into());
        }
        self.graph.outputs.push(spec(name, DType::F32, shape));
    }

    /// Adds a node that belongs to a module; gives its output.
    pub fn node(&mut self, module: &str, op: &str, inputs: &[&Name]) -> Name {
        self.node_with(module, op, inputs, [])
    }

    /// The same with attributes.
    pub fn node_with<const N: usize>(
        &mut self,
        module: &str,
        op: &str,
        inputs: &[&Name],
        attributes: [(&str, Attribute); N],
    ) -> Name {
        let name = self.name(format!("{}/{op}", scope(module)));
        let output = format!("{name}_output_0");
        let (own, _) = run_of(module);
        let tags = [(MODULE, own.to_string()), (HIERARCHY_TAG, self.program.hierarchy_tag(module))];
        let doc: Vec<String> = tags.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        self.graph.nodes.push(Node {
            name,
            op: op.into(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: vec![output.clone()],
            attributes: attributes.into_iter().map(|(name, attribute)| (name.into(), attribute)).collect(),
            metadata: tags.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            doc: if self.dialect.tags_in_doc { doc.join("\n") } else { String::new() },
            ..Node::default()
        });
        output
    }

    /// A value in another dtype.
    pub fn cast(&mut self, module: &str, x: &Name, to: FloatType) -> Name {
        let to = match to {
            FloatType::F32 => DataType::Float,
            FloatType::F16 => DataType::Float16,
        };
        self.cast_as(module, x, to)
    }

    /// A value as i64.
    pub fn cast_to_i64(&mut self, module: &str, x: &Name) -> Name {
        self.cast_as(module, x, DataType::Int64)
    }

    fn cast_as(&mut self, module: &str, x: &Name, to: DataType) -> Name {
        self.node_with(module, "Cast", &[x], [("to", Attribute::Int(to as i64))])
    }

    /// A name that no node has yet: the second one of a kind gets a number.
    fn name(&mut self, base: String) -> String {
        let count = self.named.entry(base.clone()).or_default();
        *count += 1;
        if *count == 1 { base } else { format!("{base}_{}", *count - 1) }
    }

    /// A tensor of the checkpoint, as it lies there.
    pub fn weight(&mut self, name: &str) -> Result<Name, ExportError> {
        let (name, tensor) = self.weights.plain(name)?;
        Ok(self.initializer(name, tensor))
    }

    /// Whether weights of linear layers come as `[in, out]`.
    pub fn transposes(&self) -> bool {
        self.weights.transposes()
    }

    /// The weight of a linear layer, `[in, out]`.
    pub fn transposed_weight(&mut self, name: &str) -> Result<Name, ExportError> {
        let (name, tensor) = self.weights.transposed(name)?;
        Ok(self.initializer(name, tensor))
    }

    /// A scalar that is computed with, kept under a name that says what it is. The file has it
    /// rounded.
    pub fn scalar(&mut self, name: &str, number: f64) -> Name {
        match self.dtype {
            FloatType::F32 => self.single(name, number),
            FloatType::F16 => {
                let value = Value::scalar(f16::from_f64(number));
                self.initializer(format!("constant.{name}_f16"), Tensor::from_value(&value))
            }
        }
    }

    /// The same in f32, whatever the graph computes in.
    pub fn single(&mut self, name: &str, number: f64) -> Name {
        self.initializer(format!("constant.{name}"), Tensor::from_value(&Value::scalar(number as f32)))
    }

    /// A list of f32 under a name that says what it is.
    pub fn singles(&mut self, name: &str, list: &[f64]) -> Name {
        let bytes: Vec<u8> = list.iter().flat_map(|&number| (number as f32).to_le_bytes()).collect();
        let tensor = Tensor { dtype: DType::F32, shape: vec![list.len()], bytes: bytes.into() };
        self.initializer(format!("constant.{name}"), tensor)
    }

    /// An i64 scalar.
    pub fn index(&mut self, index: i64) -> Name {
        self.initializer(format!("constant.index_{index}"), Tensor::from_value(&Value::scalar(index)))
    }

    /// A list of i64: a shape, or axes.
    pub fn ints(&mut self, ints: &[i64]) -> Name {
        let words: Vec<String> = ints.iter().map(ToString::to_string).collect();
        self.list(&format!("ints_{}", words.join("_")), ints.to_vec())
    }

    /// A list of i64 under a name that says what it is.
    pub fn list(&mut self, name: &str, list: Vec<i64>) -> Name {
        let bytes: Vec<u8> = list.iter().flat_map(|int| int.to_le_bytes()).collect();
        let tensor = Tensor { dtype: DType::I64, shape: vec![list.len()], bytes: bytes.into() };
        self.initializer(format!("constant.{name}"), tensor)
    }

    fn initializer(&mut self, name: String, tensor: Tensor) -> Name {
        self.graph.initializers.entry(name.clone()).or_insert(tensor);
        name
    }

    pub fn finish(self, options: &Options) -> Model {
        Model {
            ir_version: self.dialect.ir_version,
            opsets: BTreeMap::from([(String::new(), options.opset)]),
            producer: "candle-parity".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: self.graph,
            ..Model::default()
        }
    }
}

/// A module's path as the names of nodes have it: `/encoder/layer.0/attention/self`, where a list
/// and the number in it stay together.
fn scope(module: &str) -> String {
    let (module, _) = run_of(module);
    let mut scope = String::new();
    for word in module.split('.').filter(|word| !word.is_empty()) {
        scope.push(if word.starts_with(|c: char| c.is_ascii_digit()) { '.' } else { '/' });
        scope.push_str(word);
    }
    scope
}

fn spec(name: &str, dtype: DType, shape: &[Dim]) -> ValueSpec {
    ValueSpec { name: name.into(), dtype, shape: Some(shape.to_vec()), optional: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_those_of_exporters() {
        assert_eq!(scope("a.layer.10.b.query"), "/a/layer.10/b/query");
        assert_eq!(scope("pooler"), "/pooler");
        assert_eq!(scope("a.groups.0.ffn#3"), "/a/groups.0/ffn");
    }
}
