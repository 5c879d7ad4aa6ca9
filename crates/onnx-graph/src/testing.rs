//! A small valid model, which tests spoil in one way each.

use std::collections::BTreeMap;

use engine::{DType, Dim, Value, ValueSpec};

use crate::proto::AttributeType;
use crate::{Attribute, Function, Graph, GraphError, Model, Node, Tensor};

pub(crate) fn spec(name: &str) -> ValueSpec {
    ValueSpec {
        name: name.into(),
        dtype: DType::F32,
        shape: Some(vec![Dim::Symbol("batch".into()), Dim::Fixed(2), Dim::Any]),
        optional: false,
    }
}

pub(crate) fn node(name: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Node {
        name: name.into(),
        op: op.into(),
        inputs: strings(inputs),
        outputs: strings(outputs),
        ..Node::default()
    }
}

pub(crate) fn tensor() -> Tensor {
    Tensor::from_value(&Value::new([2, 1], vec![0.5f32, -1.]).unwrap())
}

/// `y = relu(x + w)`, by way of a function, a subgraph, and an attribute of every type.
pub(crate) fn model() -> Model {
    let branch = |name: &str, value: &str| Graph {
        name: name.into(),
        outputs: vec![ValueSpec { shape: None, ..spec(value) }],
        nodes: vec![node(&format!("{name}_node"), "Relu", &["sum"], &[value])],
        ..Graph::default()
    };
    let text = |text: &str| text.to_string();
    let function = Function {
        domain: "pkg.test".into(),
        name: "AddScaled".into(),
        inputs: vec!["a".into(), "b".into()],
        outputs: vec!["c".into()],
        attributes: vec!["axis".into()],
        defaults: [("alpha".to_string(), Attribute::Float(1.))].into(),
        opsets: [(String::new(), 18)].into(),
        nodes: vec![Node {
            attributes: [(
                text("value_float"),
                Attribute::Reference { name: "alpha".into(), kind: AttributeType::Float },
            )]
            .into(),
            ..node("scale", "Constant", &[], &["s"])
        }]
        .into_iter()
        .chain([node("mul", "Mul", &["b", "s"], &["m"]), node("add", "Add", &["a", "m"], &["c"])])
        .collect(),
        value_info: [(text("m"), spec("m"))].into(),
        metadata: [(text("f"), text("g"))].into(),
        doc: "a + alpha b".into(),
        overload: "v1".into(),
    };
    Model {
        ir_version: 10,
        opsets: [(String::new(), 18), ("pkg.test".into(), 1), ("com.microsoft".into(), 1)].into(),
        producer: "test".into(),
        producer_version: "1.0".into(),
        metadata: [(text("key"), text("value"))].into(),
        graph: Graph {
            name: "main".into(),
            inputs: vec![spec("x"), ValueSpec { optional: true, ..spec_of_w() }],
            outputs: vec![spec("y")],
            initializers: [(text("w"), tensor()), (text("cond"), Tensor::from_value(&Value::scalar(true)))]
                .into(),
            nodes: vec![
                Node {
                    domain: "pkg.test".into(),
                    overload: "v1".into(),
                    attributes: [(text("alpha"), Attribute::Float(1.))].into(),
                    metadata: [(text("module"), text("encoder.layer.0"))].into(),
                    doc: "adds".into(),
                    ..node("call", "AddScaled", &["x", "w"], &["sum"])
                },
                Node {
                    attributes: [
                        (text("then_branch"), Attribute::Graph(Box::new(branch("then", "then_y")))),
                        (text("else_branch"), Attribute::Graph(Box::new(branch("else", "else_y")))),
                    ]
                    .into(),
                    ..node("if", "If", &["cond"], &["y"])
                },
                Node {
                    domain: "com.microsoft".into(),
                    attributes: [
                        (text("int"), Attribute::Int(0)),
                        (text("string"), Attribute::String("tanh".into())),
                        (text("tensor"), Attribute::Tensor(tensor())),
                        (text("ints"), Attribute::Ints(vec![-1, 0])),
                        (text("floats"), Attribute::Floats(vec![0., 1.5])),
                        (text("strings"), Attribute::Strings(vec!["a".into(), String::new()])),
                        (text("tensors"), Attribute::Tensors(vec![tensor()])),
                        (text("graphs"), Attribute::Graphs(vec![branch("third", "third_y")])),
                        (text("no_ints"), Attribute::Ints(vec![])),
                    ]
                    .into(),
                    ..node("rich", "Anything", &["sum", "", "y"], &["", "unused"])
                },
            ],
            value_info: [(text("sum"), spec("sum"))].into(),
            metadata: BTreeMap::from([(text("graph"), text("properties"))]),
            doc: "the graph".into(),
        },
        functions: vec![function],
    }
}

fn spec_of_w() -> ValueSpec {
    ValueSpec { shape: Some(vec![Dim::Fixed(2), Dim::Any]), ..spec("w") }
}

/// The message of the error of a result that must be one.
pub(crate) fn message<T>(result: Result<T, GraphError>) -> String {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => error.to_string(),
    }
}
