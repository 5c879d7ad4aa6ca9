//! Every export of every fixture on the `candle` engine, against PyTorch's float64.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

#[path = "../../../tests/common/exports.rs"]
mod exports;

use exports::{check_exports, f32_reach};
use onnx_session::{EngineKind, Session};

#[test]
fn every_export_is_within_f32_reach_of_pytorch_in_f64() {
    let open = |model: &_| match Session::new(model, EngineKind::Candle) {
        Ok(session) => Ok(Box::new(session) as _),
        Err(error) => Err(error.to_string()),
    };
    check_exports(open, f32_reach);
}
