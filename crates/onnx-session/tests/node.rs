//! ONNX's own node tests on the engine `candle`: it passes or refuses every one of them. A silent wrong answer fails, and so does a
//! panic that the engine had to catch.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use engine::{DType, NamedValues, Value};
use onnx_graph::Model;
use onnx_session::{EngineKind, Session};
use serde::Deserialize;

/// As many pass today. Rules may be added, none may be lost.
const PASSING: usize = 299;

#[derive(Deserialize)]
struct Index {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    op: String,
    /// ONNX's own tolerances for its tests.
    rtol: f64,
    atol: f64,
    model: [usize; 2],
    sets: Vec<Set>,
}

#[derive(Deserialize)]
struct Set {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    at: [usize; 2],
}

fn values(tensors: &[Tensor], bytes: &Bytes) -> NamedValues {
    tensors
        .iter()
        .map(|tensor| {
            let dtype = DType::ALL.into_iter().find(|dtype| dtype.to_string() == tensor.dtype).unwrap();
            let [offset, length] = tensor.at;
            let data = &bytes[offset..offset + length];
            (tensor.name.clone(), Value::from_le_bytes(dtype, tensor.shape.as_slice(), data).unwrap())
        })
        .collect()
}

enum Outcome {
    Passed,
    Refused,
    Wrong(String),
}

fn outcome(case: &Case, bytes: &Bytes) -> Outcome {
    let [offset, length] = case.model;
    let Ok(model) = Model::from_bytes(bytes.slice(offset..offset + length)) else { return Outcome::Refused };
    let Ok(session) = Session::new(&model, EngineKind::Candle) else { return Outcome::Refused };
    for set in &case.sets {
        let outputs = match session.run(&values(&set.inputs, bytes)) {
            Ok(outputs) => outputs,
            Err(error) if error.to_string().contains("panicked") => return Outcome::Wrong(error.to_string()),
            Err(_) => return Outcome::Refused,
        };
        for (name, expected) in values(&set.outputs, bytes).iter() {
            let Some(found) = outputs.get(name) else { return Outcome::Wrong(format!("no output '{name}'")) };
            if (found.dtype(), found.shape()) != (expected.dtype(), expected.shape()) {
                return Outcome::Wrong(format!("'{name}' is {found:?} instead of {expected:?}"));
            }
            for (found, expected) in found.to_f64().into_iter().zip(expected.to_f64()) {
                let close = found == expected
                    || (found - expected).abs() <= case.atol + case.rtol * expected.abs()
                    || (found.is_nan() && expected.is_nan());
                if !close {
                    return Outcome::Wrong(format!("'{name}' holds {found} instead of {expected}"));
                }
            }
        }
    }
    Outcome::Passed
}

#[test]
fn every_node_test_is_passed_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/node");
    let bytes = Bytes::from(std::fs::read(folder.join("cases.bin")).unwrap());
    let index: Index = serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let mut passed = 0;
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &index.cases {
        match outcome(case, &bytes) {
            Outcome::Passed => passed += 1,
            Outcome::Refused => *refused.entry(&case.op).or_default() += 1,
            Outcome::Wrong(how) => wrong.push(format!("{}: {how}", case.name)),
        }
    }
    println!("{passed} of {} passed; refused: {refused:?}", index.cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed >= PASSING, "only {passed} of {} passed", index.cases.len());
}
