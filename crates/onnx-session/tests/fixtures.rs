//! Every export of every fixture on the `candle` engine, against PyTorch's float64.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

use std::path::{Path, PathBuf};

use engine::{NamedValues, Value};
use onnx_graph::Model;
use onnx_session::{EngineKind, Session};
use safetensors::SafeTensors;
use serde_json::Value as Json;

/// How far f32 may be from f64 on these fixtures. ONNX Runtime, which computes the same graphs in f32, is at most this far off on any of
/// them (tests/fixtures/README.md has its distances: 7.0e-5 on `stiff`, which is made to magnify rounding, 7.2e-6 on the others), times
/// two, because another order of summation rounds differently.
const F32_REACH_STIFF: f64 = 1.4e-4;
const F32_REACH: f64 = 1.44e-5;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The cases of a golden file: inputs and outputs, by case and name.
fn cases(golden: &SafeTensors) -> Vec<(String, NamedValues)> {
    let mut cases: Vec<(String, NamedValues)> = Vec::new();
    for (path, tensor) in golden.tensors() {
        let (case, name) = path.split_once('/').unwrap();
        let dtype = match tensor.dtype() {
            safetensors::Dtype::I64 => engine::DType::I64,
            safetensors::Dtype::F64 => engine::DType::F64,
            other => panic!("{path} is {other:?}"),
        };
        let value = Value::from_le_bytes(dtype, tensor.shape(), tensor.data()).unwrap();
        match cases.iter_mut().find(|(known, _)| known == case) {
            Some((_, values)) => values.insert(name, value),
            None => cases.push((case.into(), NamedValues::from_iter([(name, value)]))),
        }
    }
    cases
}

fn distance(candidate: &Value, golden: &Value) -> f64 {
    assert_eq!(candidate.shape(), golden.shape());
    let distances = candidate.to_f64().into_iter().zip(golden.to_f64()).map(|(a, b)| (a - b).abs());
    // `f64::max` folds a NaN away.
    distances.fold(0.0, |worst, x| if x.is_nan() { f64::INFINITY } else { worst.max(x) })
}

/// Position `p` of row `r` decides where the mask is 1.
fn real_tokens(value: &Value, mask: &Value) -> Value {
    let mask = mask.as_slice::<i64>().unwrap();
    let [batch, sequence, hidden] = value.shape() else { return value.clone() };
    assert_eq!(batch * sequence, mask.len());
    let rows = value.to_f64();
    let kept: Vec<f64> = rows
        .chunks(*hidden)
        .zip(mask)
        .filter(|&(_, &bit)| bit == 1)
        .flat_map(|(row, _)| row.iter().copied())
        .collect();
    Value::new([kept.len()], kept).unwrap()
}

#[test]
fn every_export_is_within_f32_reach_of_pytorch_in_f64() {
    let index: Json = serde_json::from_slice(&std::fs::read(fixtures().join("index.json")).unwrap()).unwrap();
    let mut compared = 0;
    for fixture in index.as_array().unwrap() {
        let name = fixture["name"].as_str().unwrap();
        let folder = fixtures().join(name);
        let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let cases = cases(&SafeTensors::deserialize(&bytes).unwrap());
        let reach = if name == "stiff" { F32_REACH_STIFF } else { F32_REACH };
        for graph in fixture["onnx"].as_array().unwrap() {
            let file = graph["file"].as_str().unwrap();
            let model = Model::open(folder.join("onnx").join(file)).unwrap();
            let session = Session::new(&model, EngineKind::Candle)
                .unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
            let is_static = graph["shapes"] == "static";
            for (case, values) in cases.iter().filter(|(case, _)| !is_static || case == "static") {
                let inputs = session
                    .inputs()
                    .iter()
                    .map(|spec| (spec.name.clone(), values.get(&spec.name).unwrap().clone()))
                    .collect();
                let outputs =
                    session.run(&inputs).unwrap_or_else(|error| panic!("{name}/{file} on {case}: {error}"));
                for (output, value) in outputs.iter() {
                    let mask = values.get("attention_mask").unwrap();
                    let golden = values.get(output).unwrap();
                    let off = distance(&real_tokens(value, mask), &real_tokens(golden, mask));
                    assert!(off <= reach, "{name}/{file} on {case}: {output} is {off:.2e} off");
                    compared += 1;
                }
            }
        }
    }
    // 82 graphs, the dynamic ones on four or five cases, most with two outputs.
    assert!(compared > 400, "only {compared} outputs were compared");
}
