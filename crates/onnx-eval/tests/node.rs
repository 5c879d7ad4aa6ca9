//! ONNX's own node tests, and those of tests/fixtures/node for old opsets, com.microsoft and
//! images, in both precisions.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

#[path = "../../../tests/common/node_cases.rs"]
mod node_cases;

use std::collections::BTreeMap;
use std::path::Path;

use engine::{DType, Engine, Value};
use node_cases::{NodeCase, NodeCases};
use onnx_eval::{Limits, Oracle, OracleError, Precision};
use onnx_graph::GraphError;

/// How far a float may be from the expected one: `absolute + relative · |expected|`. Integers and bools must be equal.
///
/// The expected values are numpy's or ONNX Runtime's, computed in the dtype itself with a handful of roundings; the oracle rounds once. (ONNX
/// itself asks for 1e-3 and 1e-7 of every dtype, which says nothing about a double.) Half of each relative tolerance was seen to suffice.
struct Tolerance {
    relative: f64,
    absolute: f64,
}

/// Two units in the last of 11 digits.
const F16: Tolerance = Tolerance { relative: 2e-3, absolute: 1e-4 };
/// Two units in the last of 8 digits.
const BF16: Tolerance = Tolerance { relative: 1.6e-2, absolute: 1e-3 };
/// Some 16 units in the last of 24 digits; the absolute part is for sums that cancel.
const F32: Tolerance = Tolerance { relative: 2e-6, absolute: 1e-6 };
/// Some thousand units in the last of 53 digits.
const F64: Tolerance = Tolerance { relative: 2e-13, absolute: 1e-13 };

fn tolerance(dtype: DType) -> Tolerance {
    match dtype {
        DType::F16 => F16,
        DType::BF16 => BF16,
        DType::F32 => F32,
        DType::F64 => F64,
        _ => Tolerance { relative: 0.0, absolute: 0.0 },
    }
}

/// Operators that take subgraphs the reader refuses, as their inputs have no type.
const LOOPS: [&str; 2] = ["Loop", "Scan"];

/// Where f64 is right to differ from expected values that were computed in f32.
const OTHERWISE_IN_F64: &[(&str, &str)] = &[
    ("test_bitcast_2d_float32_to_int32", BITS),
    ("test_bitcast_float32_to_int32", BITS),
    ("test_bitcast_int32_to_float32", BITS),
    ("test_bitcast_scalar_float32_to_int32", BITS),
    ("test_dynamicquantizelinear", TIE),
    ("test_dynamicquantizelinear_expanded", TIE),
];
const BITS: &str = "f64 has no bits of f32 to cast: refused";
const TIE: &str = "a quotient is 25.5 in f32, and goes to 26; in f64 it is a little less";

/// How many cases must pass in each precision. It is not to become fewer unnoticed.
const LEAST: usize = 1520;

/// What is wrong with an output, if anything.
fn mismatch(found: &Value, expected: &Value) -> Option<String> {
    if found.shape() != expected.shape() {
        return Some(format!("shape {:?} instead of {:?}", found.shape(), expected.shape()));
    }
    if !expected.dtype().is_float() {
        return (found != expected).then(|| format!("{found:?} instead of {expected:?}"));
    }
    let Tolerance { relative, absolute } = tolerance(expected.dtype());
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= absolute + relative * b.abs()
    };
    let (a, b) = (found.to_f64(), expected.to_f64());
    let at = (0..a.len()).find(|&at| !close(a[at], b[at]))?;
    Some(format!("element {at} is {} instead of {}", a[at], b[at]))
}

#[derive(Default)]
struct Counts {
    passed: usize,
    unknown: usize,
    wrong: Vec<String>,
}

fn run(cases: &NodeCases, case: &NodeCase, precision: Precision, counts: &mut Counts) {
    let name = &case.name;
    let model = match cases.model(case) {
        Ok(model) => model,
        Err(GraphError::UnknownDomain { .. }) => {
            counts.unknown += 1;
            return;
        }
        Err(_) if case.ops.iter().any(|op| LOOPS.contains(&op.as_str())) => {
            counts.unknown += 1;
            return;
        }
        Err(error) => {
            counts.wrong.push(format!("{name}: {error}"));
            return;
        }
    };
    let oracle = match Oracle::with(&model, precision, Limits::default()) {
        Ok(oracle) => oracle,
        Err(OracleError::UnknownOp { .. }) => {
            counts.unknown += 1;
            return;
        }
        Err(error) => {
            counts.wrong.push(format!("{name}: {error}"));
            return;
        }
    };
    for set in &case.sets {
        let expected = cases.values(&set.outputs);
        assert!(!expected.is_empty(), "{name} expects nothing");
        match oracle.run(&cases.values(&set.inputs)) {
            Err(error) => {
                counts.wrong.push(format!("{name}: {error}"));
                return;
            }
            Ok(outputs) => {
                for (output, expected) in expected.iter() {
                    let found = outputs.get(output).unwrap();
                    let wanted = if precision == Precision::F64 && expected.dtype().is_float() {
                        DType::F64
                    } else {
                        expected.dtype()
                    };
                    if found.dtype() != wanted {
                        counts
                            .wrong
                            .push(format!("{name}: '{output}' is {} instead of {wanted}", found.dtype()));
                        return;
                    }
                    if let Some(mismatch) = mismatch(found, expected) {
                        counts.wrong.push(format!("{name}: '{output}': {mismatch}"));
                        return;
                    }
                }
            }
        }
    }
    counts.passed += 1;
}

fn check(precision: Precision) {
    let cases = NodeCases::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let mut by_op: BTreeMap<&str, Counts> = BTreeMap::new();
    for case in &cases.cases {
        let otherwise = OTHERWISE_IN_F64.iter().any(|(name, _)| case.name == *name);
        if precision == Precision::F64 && otherwise {
            continue;
        }
        run(&cases, case, precision, by_op.entry(&case.op).or_default());
    }
    let total: usize = by_op.values().map(|counts| counts.passed).sum();
    for (op, Counts { passed, unknown, wrong }) in &by_op {
        println!("{op}: {passed} passed, {unknown} not claimed, {} wrong", wrong.len());
    }
    println!("{precision:?}: {total} passed");
    let wrong: Vec<&str> = by_op.values().flat_map(|counts| &counts.wrong).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(total >= LEAST, "only {total} passed");
}

#[test]
fn node_tests_pass_in_f32() {
    check(Precision::F32);
}

#[test]
fn node_tests_pass_in_f64() {
    check(Precision::F64);
}
