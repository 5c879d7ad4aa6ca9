//! exp, tanh, erf and log against tests/scalar/table.txt, which mpmath computed at 60 digits (make.py beside it).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use engine::{DType, Engine, NamedValues, Value, ValueSpec};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::{Graph, Model, Node};

/// How many units in the last place of f64 a function may be off. musl, where libm comes from, says of exp, log and erf that they are below 1, and
/// of tanh below 2 or so; the measured worst is 1 for all but tanh.
const F64_ULP: u64 = 2;

struct Row {
    function: String,
    x: f64,
    expected: f64,
}

fn table() -> Vec<Row> {
    let bits = |text: &str| f64::from_bits(u64::from_str_radix(text, 16).unwrap());
    include_str!("scalar/table.txt")
        .lines()
        .map(|line| {
            let [function, x, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            Row { function: function.into(), x: bits(x), expected: bits(expected) }
        })
        .collect()
}

fn evaluate(function: &str, xs: Vec<f32>, precision: Precision) -> Value {
    let spec = |name: &str| ValueSpec { name: name.into(), dtype: DType::F32, shape: None, optional: false };
    let model = Model {
        ir_version: 8,
        opsets: [(String::new(), 17)].into(),
        graph: Graph {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            nodes: vec![Node {
                name: "node".into(),
                op: function.into(),
                inputs: vec!["x".into()],
                outputs: vec!["y".into()],
                ..Node::default()
            }],
            ..Graph::default()
        },
        ..Model::default()
    };
    let oracle = Oracle::with(&model, precision, Limits::default()).unwrap();
    let x = Value::new([xs.len()], xs).unwrap();
    oracle.run(&NamedValues::from_iter([("x", x)])).unwrap().remove("y").unwrap()
}

/// How many numbers lie from one to the other.
fn distance(a: i64, b: i64) -> u64 {
    let place = |bits: i64| if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits };
    place(a).abs_diff(place(b))
}

#[test]
fn functions_are_right_to_the_last_places() {
    let table = table();
    for function in ["Exp", "Tanh", "Erf", "Log"] {
        let rows: Vec<&Row> = table.iter().filter(|row| row.function == function).collect();
        assert!(rows.len() > 200);
        let xs: Vec<f32> = rows.iter().map(|row| row.x as f32).collect();
        assert!(xs.iter().zip(&rows).all(|(x, row)| f64::from(*x) == row.x));
        let (mut worst64, mut worst32) = (0, 0);
        let f64s = evaluate(function, xs.clone(), Precision::F64);
        for (row, found) in rows.iter().zip(f64s.as_slice::<f64>().unwrap()) {
            worst64 = worst64.max(distance(found.to_bits() as i64, row.expected.to_bits() as i64));
        }
        let f32s = evaluate(function, xs, Precision::F32);
        for (row, found) in rows.iter().zip(f32s.as_slice::<f32>().unwrap()) {
            let expected = row.expected as f32;
            worst32 =
                worst32.max(distance((found.to_bits() as i32).into(), (expected.to_bits() as i32).into()));
        }
        println!("{function}: at most {worst64} ULP off in f64, {worst32} in f32");
        assert!(worst64 <= F64_ULP, "{function} is {worst64} ULP off in f64");
        // The f64 result is rounded once: only one within 2 f64 ULP of a tie could go to the other side, and none of the table is.
        assert_eq!(worst32, 0, "{function} is {worst32} ULP off in f32");
    }
}
