//! ONNX's own node tests on the engine `candle`: it passes or refuses every one of them. A silent wrong answer fails, and so does a
//! panic that the engine had to catch.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what broke by panicking"
)]

#[path = "../../../tests/common/node_cases.rs"]
mod node_cases;

use std::collections::BTreeMap;
use std::path::Path;

use node_cases::{NodeCase, NodeCases};
use onnx_session::{EngineKind, Session};

/// As many pass today. Rules may be added, none may be lost.
const PASSING: usize = 299;

enum Outcome {
    Passed,
    Refused,
    Wrong(String),
}

fn outcome(cases: &NodeCases, case: &NodeCase) -> Outcome {
    let Ok(model) = cases.model(case) else { return Outcome::Refused };
    let Ok(session) = Session::new(&model, EngineKind::Candle) else { return Outcome::Refused };
    for set in &case.sets {
        let outputs = match session.run(&cases.values(&set.inputs)) {
            Ok(outputs) => outputs,
            Err(error) if error.to_string().contains("panicked") => return Outcome::Wrong(error.to_string()),
            Err(_) => return Outcome::Refused,
        };
        for (name, expected) in cases.values(&set.outputs).iter() {
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
    let cases = NodeCases::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let mut passed = 0;
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases.cases {
        match outcome(&cases, case) {
            Outcome::Passed => passed += 1,
            Outcome::Refused => *refused.entry(&case.op).or_default() += 1,
            Outcome::Wrong(how) => wrong.push(format!("{}: {how}", case.name)),
        }
    }
    println!("{passed} of {} passed; refused: {refused:?}", cases.cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed >= PASSING, "only {passed} of {} passed", cases.cases.len());
}
