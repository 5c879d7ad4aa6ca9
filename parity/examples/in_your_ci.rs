//! Parity in the tests of your own project: what would stand in a `#[test]` there.
//!
//! `cargo run -p parity --example in_your_ci`

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use candle_core::DType;
use judge::check::Check;
use judge::inputs::{FixedShape, default_cases};
use judge::{Subject, Verdict, assert_parity};
use onnx_session::{EngineKind, Session};

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

    // The whole, as `parity check` shows it: the proof in f64, the audit of all weights, the
    // engines, and who is to blame.
    let report = Check::default().of_model(subject, &mut |_| ())?;
    if report.verdict > Verdict::Rounding {
        return Err(serde_json::to_string_pretty(&report)?.into());
    }
    println!("{onnx}: {}, {:?} apart in f64", report.verdict, report.proof.and_then(|proof| proof.max_rel));
    Ok(())
}
