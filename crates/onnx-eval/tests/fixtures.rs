//! Every export of every fixture on the oracle, against PyTorch's float64.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

#[path = "../../../tests/common/exports.rs"]
mod exports;

use engine::Engine;
use exports::{check_exports, f32_reach};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;

/// How far the oracle may be from PyTorch where both compute in f64. √2, √d and ε are f32 constants in a graph, and each is up to 3e-8 off,
/// relatively; `stiff` magnifies that to 7e-7. Nothing else differs.
const F64_REACH: f64 = 1e-6;

fn oracle(precision: Precision) -> impl Fn(&Model) -> Result<Box<dyn Engine>, String> {
    move |model| match Oracle::with(model, precision, Limits::default()) {
        Ok(oracle) => Ok(Box::new(oracle)),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn every_export_in_f64_is_pytorch_in_f64() {
    check_exports(oracle(Precision::F64), |_| F64_REACH);
}

#[test]
fn every_export_in_f32_is_within_f32_reach() {
    check_exports(oracle(Precision::F32), f32_reach);
}
