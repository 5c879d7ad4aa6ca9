//! Parity in the tests of your own project: what would stand in a `#[test]` there.
//!
//! `cargo run -p parity --example in_your_ci`

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use candle_core::DType;
use engine::Engine;
use onnx_session::{EngineKind, Session};
use parity::inputs::{FixedShape, default_cases};
use parity::trial::{Graph, Trial};
use parity::{Bounds, References, Subject, Verdict, assert_parity};

fn main() -> Result<(), Box<dyn Error>> {
    // The model that you deploy: a folder or a hub id; here the embedded one.
    let subject = Subject::open(None)?;
    let (onnx, graph) = subject.graph_or_export(None)?;
    let session = Session::new(&graph, EngineKind::Candle)?;
    let cases = default_cases(
        &subject.limits(),
        FixedShape::of(&graph.graph.inputs),
        subject.tokenizer()?.as_ref(),
        None,
    )?;

    // The short way: f32 against f32, within 1e-6, or a panic that says where.
    let reference = subject.reference(DType::F32)?.engine;
    assert_parity!(reference, session, &cases);

    // The whole: the proof in f64, the audit of all weights, and the budget of f32.
    let references = References::load(&subject)?;
    let engines: [&dyn Engine; 1] = [&session];
    let trial = Trial::new(&subject, &references, &cases, |_| ())?;
    let bounds = Bounds::default();
    let report = trial.judge(Graph::new(&onnx, &graph, &engines, &bounds), |_| ())?.report;
    if report.verdict > Verdict::Rounding {
        return Err(serde_json::to_string_pretty(&report)?.into());
    }
    println!("{onnx}: {}, {:?} apart in f64", report.verdict, report.proof.max_rel);
    Ok(())
}
