//! Every engine of the trait on every fixture, by one test: the outputs against PyTorch's f64, and what is in between — the reference's modules
//! against PyTorch's, every value of a graph on `candle` against the oracle's.

use crate::common::{fixture, golden, index, inputs_of};
use engine::{DType, Engine, NamedValues, Value};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;
use onnx_session::{EngineKind, Session};
use parity::Subject;
use parity::inputs::fit_inputs;

/// How far f32 may be from f64, as a share of a tensor's largest value, or of 1 if that is less: ONNX Runtime's largest distance on these fixtures
/// (tests/fixtures/README.md: 7.2e-6, and 7.0e-5 on `stiff`, which is made to magnify rounding), times two for another order of summation.
const F32_REACH: f64 = 1.44e-5;
const F32_REACH_STIFF: f64 = 1.4e-4;

/// The same for an oracle in f64: the graph holds √2 and √d as f32.
const F64_REACH: f64 = 1e-6;

/// And for the reference in f64, which holds nothing as f32.
const REFERENCE_REACH: f64 = 1e-12;

/// The case with every kind of mask.
const CASE: &str = "masks";

/// Fails unless `found` is near `expected`, at every position: nothing is padding for an engine.
fn assert_near(what: &str, found: &Value, expected: &Value, reach: f64) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    if !found.dtype().is_float() {
        assert_eq!(found, expected, "{what}");
        return;
    }
    let expected = expected.to_f64();
    // f32::MIN marks what is masked; it must not hide what is not.
    let ordinary = |x: &f64| x.abs() < 1e30;
    let largest = expected.iter().copied().filter(ordinary).fold(1.0, |largest: f64, x| largest.max(x.abs()));
    for (a, b) in found.to_f64().into_iter().zip(expected) {
        let bound = if ordinary(&b) { reach * largest } else { reach * b.abs() };
        assert!(a == b || (a - b).abs() <= bound, "{what}: {a} instead of {b}, beyond {bound:e}");
    }
}

/// An engine's outputs on the case.
fn outputs(engine: &dyn Engine, case: &NamedValues) -> NamedValues {
    engine.run(&fit_inputs(&inputs_of(case), engine.inputs()).unwrap()).unwrap()
}

#[test]
fn every_engine_agrees_with_pytorch_and_with_the_others() {
    let (mut taps, mut values, mut graphs) = (0, 0, 0);
    for (name, exports) in index() {
        let case = golden(fixture(&name).join("golden.safetensors"))[CASE].clone();
        let reach = if name == "stiff" { F32_REACH_STIFF } else { F32_REACH };
        let subject = Subject::open(fixture(&name).to_str()).unwrap();

        for (dtype, reach) in [(candle_core::DType::F32, reach), (candle_core::DType::F64, REFERENCE_REACH)] {
            let reference = subject.reference(dtype).unwrap().engine;
            for (output, value) in outputs(&reference, &case).iter() {
                assert_near(&format!("{name}, reference: {output}"), value, case.get(output).unwrap(), reach);
            }
            let modules: Vec<&str> = case.names().filter_map(|name| name.strip_prefix("taps/")).collect();
            for (module, value) in reference.run_for(&inputs_of(&case), &modules).unwrap().iter() {
                let expected = case.get(&format!("taps/{module}")).unwrap();
                assert_near(&format!("{name}, reference: {module}"), value, expected, reach);
                taps += 1;
            }
        }

        for export in exports.iter().filter(|export| export["shapes"] == "dynamic") {
            let file = export["file"].as_str().unwrap();
            let model = Model::open(fixture(&name).join("onnx").join(file)).unwrap();
            let session = Session::new(&model, EngineKind::Candle).unwrap();
            let oracle = |precision| Oracle::with(&model, precision, Limits::default()).unwrap();
            let (narrow, wide) = (oracle(Precision::F32), oracle(Precision::F64));
            let engines: [(&dyn Engine, f64); 3] = [(&session, reach), (&narrow, reach), (&wide, F64_REACH)];
            for (engine, reach) in engines {
                for (output, value) in outputs(engine, &case).iter() {
                    let what = format!("{name}/{file}, {}: {output}", engine.name());
                    assert_near(&what, value, case.get(output).unwrap(), reach);
                }
            }
            let names: Vec<&str> = wide.values().collect();
            let inputs = fit_inputs(&inputs_of(&case), session.inputs()).unwrap();
            let (on_candle, expected) =
                (session.run_for(&inputs, &names).unwrap(), wide.run_for(&inputs, &names).unwrap());
            for (value, found) in on_candle.iter() {
                let expected = expected.get(value).unwrap();
                assert!(found.dtype() == expected.dtype() || expected.dtype() == DType::F64);
                assert_near(&format!("{name}/{file}: {value}"), found, expected, reach);
                values += 1;
            }
            graphs += 1;
        }
    }
    assert!(taps > 100 && graphs >= 40 && values > 40 * 50, "{taps} taps, {graphs} graphs, {values} values");
}
