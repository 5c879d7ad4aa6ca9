//! ONNX's node tests, read from tests/fixtures/node (its README describes the files). Shared by path, for each engine's tests.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::path::Path;

use engine::{DType, NamedValues, Value};
use onnx_graph::{GraphError, Model};
use serde::Deserialize;

/// All cases, and the bytes that they point into.
pub struct NodeCases {
    pub cases: Vec<NodeCase>,
    bytes: Vec<u8>,
}

/// One graph, usually of one node, with inputs and what must come out.
#[derive(Deserialize)]
pub struct NodeCase {
    pub name: String,
    /// The operator under test, with its domain unless that is ONNX's own.
    pub op: String,
    /// Whether the operator was replaced by its function body.
    pub expanded: bool,
    /// All operators of the graph.
    pub ops: Vec<String>,
    /// ONNX's own tolerances for its tests.
    pub rtol: f64,
    pub atol: f64,
    pub sets: Vec<NodeSet>,
    model: [usize; 2],
}

#[derive(Deserialize)]
pub struct NodeSet {
    pub inputs: Vec<NodeTensor>,
    pub outputs: Vec<NodeTensor>,
}

#[derive(Deserialize)]
pub struct NodeTensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    at: [usize; 2],
}

impl NodeCases {
    /// Reads `tests/fixtures/node`, given the top of the workspace.
    pub fn read(top: &Path) -> Self {
        #[derive(Deserialize)]
        struct Index {
            cases: Vec<NodeCase>,
        }
        let read = |file: &str| std::fs::read(top.join("tests/fixtures/node").join(file)).unwrap();
        let Index { cases } = serde_json::from_slice(&read("index.json")).unwrap();
        Self { cases, bytes: read("cases.bin") }
    }

    /// The case's graph, if it can be read.
    pub fn model(&self, case: &NodeCase) -> Result<Model, GraphError> {
        Model::from_bytes(self.at(case.model).to_vec().into())
    }

    /// The values of a set's inputs or outputs.
    pub fn values(&self, tensors: &[NodeTensor]) -> NamedValues {
        tensors
            .iter()
            .map(|tensor| {
                let dtype = DType::ALL.into_iter().find(|dtype| dtype.to_string() == tensor.dtype).unwrap();
                let value = Value::from_le_bytes(dtype, tensor.shape.as_slice(), self.at(tensor.at)).unwrap();
                (tensor.name.clone(), value)
            })
            .collect()
    }

    /// The cases of each operator, those with a function body in its place aside.
    pub fn by_operator(&self) -> BTreeMap<&str, Vec<&NodeCase>> {
        let mut by_operator: BTreeMap<&str, Vec<&NodeCase>> = BTreeMap::new();
        for case in self.cases.iter().filter(|case| !case.expanded) {
            by_operator.entry(&case.op).or_default().push(case);
        }
        by_operator
    }

    fn at(&self, [offset, length]: [usize; 2]) -> &[u8] {
        &self.bytes[offset..offset + length]
    }
}
