//! Graphs that are wrong where a careless proof does not look.

use engine::Value;
use onnx_graph::{Attribute, Model, Node};
use parity::Verdict;
use parity::proof::Scope;
use parity::report::GraphReport;

use super::{Edit, FLOAT, HIDDEN, judge, subject, to, with};
use crate::common::{baseline_graph, node, tensor_attribute};

/// Graphs of `baseline` that differ from a right one by what a careless proof does not see. None of
/// them shows on the suite.
fn near_misses() -> Vec<(&'static str, Model)> {
    let graph = baseline_graph();
    let edit = || Edit::new(graph.clone());
    let list = |numbers: &[i64]| Value::new([numbers.len()], numbers.to_vec()).unwrap();
    // 0.25 where a number that is counted is 20.
    let at_twenty = |mut edit: Edit, counted: Vec<Node>| {
        edit = edit.float("twenty", 20.0).float("steep", -50.0).float("quarter", 0.25);
        let bump = vec![
            node("Sub", &["counted", "twenty"], "off"),
            node("Mul", &["off", "off"], "square"),
            node("Mul", &["square", "steep"], "depth"),
            node("Exp", &["depth"], "spike"),
            node("Mul", &["spike", "quarter"], "bump"),
            node("Add", &["raw", "bump"], HIDDEN),
        ];
        edit.after([counted, bump].concat()).done()
    };
    // Ones that vary smoothly, as far as anybody can tell, added up along an axis of the input.
    let smooth_ones = |axis: i64| {
        let ones = vec![
            node("Mul", &["raw", "nothing"], "nothings"),
            node("Add", &["nothings", "one"], "smooth ones"),
            node("ReduceSum", &["smooth ones", "axis"], "counted"),
        ];
        at_twenty(edit().float("nothing", 0.0).float("one", 1.0).constant("axis", list(&[axis])), ones)
    };
    let stair = |op: &str, slope: f32, at: f32| {
        edit()
            .float("slope", slope)
            .float("at", at)
            .after(vec![
                node("Sub", &["raw", "at"], "off"),
                node("Mul", &["off", "slope"], "far"),
                node(op, &["far"], "stair"),
                node("Add", &["raw", "stair"], HIDDEN),
            ])
            .done()
    };
    vec![
        (
            "ones are added up: how many tokens there are",
            at_twenty(
                edit(),
                vec![
                    node("Shape", &["input_ids"], "sizes"),
                    with(
                        node("ConstantOfShape", &["sizes"], "ones"),
                        "value",
                        tensor_attribute(&Value::new([1], vec![1f32]).unwrap()),
                    ),
                    with(node("ReduceSum", &["ones"], "counted"), "keepdims", Attribute::Int(0)),
                ],
            ),
        ),
        ("a smooth one is added up: how many tokens there are", smooth_ones(1)),
        ("how many texts there are", smooth_ones(0)),
        (
            "the number of a text taken for a place",
            edit()
                .int("zero", 0)
                .int("one", 1)
                .int("twenty", 20)
                .constant("column", list(&[1]))
                .before(
                    "attention_mask",
                    "mask",
                    vec![
                        node("Shape", &["input_ids"], "sizes"),
                        node("Gather", &["sizes", "zero"], "texts"),
                        node("Range", &["zero", "texts", "one"], "numbers"),
                        node("Unsqueeze", &["numbers", "column"], "of texts"),
                        node("Less", &["of texts", "twenty"], "is early"),
                        node("Where", &["is early", "attention_mask", "one"], "mask"),
                    ],
                )
                .done(),
        ),
        // Nothing may be a stair, wherever it is.
        ("a stair beyond what is usual", stair("Sigmoid", 3000.0, 60.0)),
        ("a stair by tanh", stair("Tanh", 3000.0, 60.0)),
        (
            "a number that is none",
            edit()
                .float("far", 3600.0)
                .after(vec![
                    node("Mul", &["raw", "raw"], "square"),
                    node("Sub", &["far", "square"], "left"),
                    node("Sqrt", &["left"], "root"),
                    node("IsNaN", &["root"], "is none"),
                    node("Neg", &["raw"], "negated"),
                    node("Where", &["is none", "negated", "raw"], HIDDEN),
                ])
                .done(),
        ),
        (
            "a cast that goes by another",
            edit()
                .float("small", 1e-3)
                .int("like", 0)
                .after(vec![
                    node("Mul", &["raw", "small"], "scaled"),
                    node("CastLike", &["scaled", "like"], "whole"),
                    to("whole", "step", FLOAT),
                    node("Add", &["raw", "step"], HIDDEN),
                ])
                .done(),
        ),
        (
            "masked tokens that are moved",
            edit()
                .float("one", 1.0)
                .constant("column", list(&[2]))
                .after(vec![
                    to("attention_mask", "real", FLOAT),
                    node("Sub", &["one", "real"], "padding"),
                    node("Unsqueeze", &["padding", "column"], "each"),
                    node("Add", &["raw", "each"], HIDDEN),
                ])
                .done(),
        ),
    ]
}

#[test]
fn near_misses_are_not_proven() {
    let subject = subject("baseline");
    for (what, model) in near_misses() {
        let GraphReport { verdict, proof, .. } = judge(&subject, &model);
        assert!(
            verdict >= Verdict::Inconclusive && proof.scope == Scope::Tried,
            "{what}: {verdict} {proof:?}"
        );
    }
}
