//! A fault, from the default inputs to a folder that replays it: shrunk, written, run by `cargo test`, and passing once it is mended.

use crate::common::{Folder, bypass, change_weight, default_graph, replay};
use candle_core::DType;
use engine::{Engine, NamedValues};
use onnx_eval::Precision;
use onnx_graph::Model;
use onnx_session::{EngineKind, Session};
use parity::Subject;
use parity::engines::agree;
use parity::inputs::{Case, FixedShape, default_cases};
use parity::repro::folder::{Replay, write};
use parity::repro::shrink::shrink;

/// The bound of an f32 check.
const ATOL: f64 = 1e-6;

/// More runs than shrinking takes here.
const BUDGET: usize = 300;

/// The first default input on which the graph fails, shrunk.
fn shrunk(graph: &Model) -> Case {
    let subject = Subject::open(None).unwrap();
    let reference = subject.reference(DType::F32).unwrap().engine;
    let session = Session::new(graph, EngineKind::Candle).unwrap();
    let fails = |case: &Case| agree(&reference, &session, std::slice::from_ref(case), ATOL).is_err();
    let cases = default_cases(&subject.limits(), FixedShape::default(), None, None).unwrap();
    let case = cases.iter().find(|case| fails(case)).unwrap();
    shrink(case, FixedShape::of(session.inputs()), fails, BUDGET)
}

/// Writes what the graph gets wrong on a case to `name` in this folder.
fn repro(folder: &Folder, name: &str, graph: &Model, case: &Case, precision: Precision) {
    let subject = Subject::open(None).unwrap();
    let outputs =
        |dtype| -> NamedValues { subject.reference(dtype).unwrap().engine.run(&case.inputs).unwrap() };
    let (expected, expected_f64) = (outputs(DType::F32), outputs(DType::F64));
    let replay = Replay {
        graph,
        inputs: &case.inputs,
        expected: &expected,
        expected_f64: &expected_f64,
        precision,
        atol: ATOL,
        command: "parity check --repro repro",
    };
    write(&folder.at(name), &replay).unwrap();
}

#[test]
fn a_fault_replays_and_passes_once_it_is_mended() {
    let folder = Folder::new();
    let mut wrong = default_graph();
    change_weight(&mut wrong, "model.embeddings.LayerNorm.bias", |elements, _| elements[0] += 0.1);
    let case = shrunk(&wrong);
    assert_eq!(case.inputs.get("input_ids").unwrap().shape(), [1, 1]);
    for (name, precision) in [("f32", Precision::F32), ("f64", Precision::F64)] {
        repro(&folder, name, &wrong, &case, precision);
        let output = replay(&folder, name);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{name}: {said}");
        // It failed for what the graph computes, and for nothing else.
        assert!(said.contains("last_hidden_state: ") && said.contains("beyond 1e-6"), "{name}: {said}");
        default_graph().save(folder.at(&format!("{name}/model.onnx"))).unwrap();
        let output = replay(&folder, name);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("1 passed"), "{name}: {said}");
    }
}

#[test]
fn the_command_of_the_readme_replays_it() {
    let folder = Folder::new();
    let mut wrong = default_graph();
    for layer in 0..2 {
        bypass(&mut wrong, "Add", &format!("layer.{layer}/attention/self/Add"));
    }
    // Only padding shows an ignored mask: two tokens, of which one is real.
    let case = shrunk(&wrong);
    assert_eq!(case.inputs.get("input_ids").unwrap().shape(), [1, 2]);
    let mask = case.inputs.get("attention_mask").unwrap().as_slice::<i64>().unwrap();
    assert_eq!(mask.iter().sum::<i64>(), 1, "{mask:?}");
    repro(&folder, "repro", &wrong, &case, Precision::F32);
    let data = "repro/test_data_set_0";
    let args =
        ["run", "repro/model.onnx", "--inputs", data, "--expected", data, "--outputs", "out.safetensors"];
    folder.run(&args).exits(1);
    default_graph().save(folder.at("repro/model.onnx")).unwrap();
    folder.run(&args).exits(0);
}
