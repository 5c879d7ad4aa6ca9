//! The nodes of a graph one at a time, for an engine that computes some of them itself.

use engine::Value;
use onnx_graph::{Model, Node};

use crate::context::Context;
use crate::inline::{Placed, inline};
use crate::memory::Memory;
use crate::ops::{self, Op};
use crate::tensor::Tensor;
use crate::{Fault, Limits, NodeId, OracleError, Precision, Promotions};

/// One node of a graph, with the operator that it is at its opset: what [`Oracle`](crate::Oracle) computes in [`Precision::F32`], by itself.
#[derive(Clone)]
pub struct Operation {
    node: Node,
    opset: i64,
    op: &'static Op,
    branches: bool,
}

/// The nodes of a model in the order they are computed in, functions written out and their values named as in
/// [`Oracle::values`](crate::Oracle::values).
///
/// # Errors
/// If the model does not pass [`Model::check`], or has an operator, attribute or number of inputs that is not known at its opset.
pub fn operations(model: &Model) -> Result<Vec<Operation>, OracleError> {
    model.check()?;
    inline(model)?.into_iter().map(Operation::new).collect()
}

impl Operation {
    fn new(placed: Placed) -> Result<Self, OracleError> {
        let Placed { node, opset, branches } = placed;
        let op = ops::find(&node, opset)?;
        Ok(Self { node, opset, op, branches: !branches.is_empty() })
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The version of its domain.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Whether it holds graphs of its own, as `If` does. Such a node reads more than its inputs, and cannot be run by itself.
    pub fn has_branches(&self) -> bool {
        self.branches
    }

    /// Computes the node from its inputs, `None` where an optional one is left out. There is a result for each of the node's outputs, `None` where
    /// the node leaves it unnamed.
    ///
    /// # Errors
    /// If the inputs do not fit the operator, or it would take more memory than the limit.
    pub fn run(&self, inputs: &[Option<&Value>], limits: Limits) -> Result<Vec<Option<Value>>, OracleError> {
        self.compute(inputs, limits).map_err(|fault| OracleError::node(&self.node, self.opset, fault))
    }

    fn compute(&self, inputs: &[Option<&Value>], limits: Limits) -> Result<Vec<Option<Value>>, Fault> {
        if self.branches {
            return Err(Fault::Unsupported("a node with branches, by itself,"));
        }
        let mut memory = Memory::new(limits.max_bytes);
        let mut tensors = Vec::with_capacity(inputs.len());
        for input in inputs {
            if let Some(value) = input {
                memory.take(value.dtype(), value.shape())?;
            }
            tensors.push(input.map(Tensor::from_value).transpose()?);
        }
        let promotions = Promotions::default();
        let context = Context {
            // Nothing is promoted here.
            id: NodeId(0),
            node: &self.node,
            opset: self.opset,
            precision: Precision::F32,
            memory,
            inputs: tensors,
            promotions: &promotions,
        };
        let results = (self.op.run)(&context)?;
        let result = |(index, name): (usize, &String)| {
            if name.is_empty() {
                return Ok(None);
            }
            let tensor = results.get(index).cloned().ok_or(Fault::MissingOutput(index))?;
            Ok(Some(tensor.settled(Precision::F32).to_value(Precision::F32)?))
        };
        self.node.outputs.iter().enumerate().map(result).collect()
    }
}

#[cfg(test)]
mod tests {
    use engine::{DType, Engine, NamedValues, ValueSpec};
    use onnx_graph::Graph;

    use super::*;
    use crate::Oracle;

    fn model(op: &str) -> Model {
        let spec =
            |name: &str| ValueSpec { name: name.into(), dtype: DType::F32, shape: None, optional: false };
        let node = Node {
            name: "node".into(),
            op: op.into(),
            inputs: vec!["x".into()],
            outputs: vec!["y".into()],
            ..Node::default()
        };
        Model {
            ir_version: 8,
            opsets: [(String::new(), 17)].into(),
            graph: Graph {
                inputs: vec![spec("x")],
                outputs: vec![spec("y")],
                nodes: vec![node],
                ..Graph::default()
            },
            ..Model::default()
        }
    }

    #[test]
    fn a_node_alone_gives_what_the_graph_gives() {
        let model = model("Erf");
        let x = Value::new([3], vec![0.1f32, -2.0, 7.5]).unwrap();
        let alone = &operations(&model).unwrap()[0];
        let y = alone.run(&[Some(&x)], Limits::default()).unwrap();
        let oracle = Oracle::with(&model, Precision::F32, Limits::default()).unwrap();
        let whole = oracle.run(&NamedValues::from_iter([("x", x.clone())])).unwrap();
        assert_eq!(y[0].as_ref(), whole.get("y"));
        let tight = Limits { max_bytes: 8, ..Limits::default() };
        assert!(alone.run(&[Some(&x)], tight).unwrap_err().to_string().contains("more than the limit"));
        assert!(alone.run(&[], Limits::default()).unwrap_err().to_string().contains("input 0 is missing"));
    }

    #[test]
    fn an_unknown_operator_is_refused_before_anything_runs() {
        let error = operations(&model("Unheard")).err().unwrap().to_string();
        assert!(error.contains("there is no Unheard"), "{error}");
    }
}
