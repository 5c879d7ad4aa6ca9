//! Every export of every fixture on an engine, against PyTorch's float64. Shared by path, for each engine's tests.

use std::path::Path;

use engine::{DType, Engine, NamedValues, Value};
use onnx_graph::Model;
use safetensors::SafeTensors;
use serde_json::Value as Json;

/// How far f32 may be from f64 on these fixtures. ONNX Runtime, which computes the same graphs in f32, is at most this far off on any of
/// them (tests/fixtures/README.md has its distances: 7.0e-5 on `stiff`, which is made to magnify rounding, 7.2e-6 on the others), times
/// two, because another order of summation rounds differently.
const F32_REACH_STIFF: f64 = 1.4e-4;
const F32_REACH: f64 = 1.44e-5;

/// How far f32 may be off on the fixture of that name.
pub fn f32_reach(fixture: &str) -> f64 {
    if fixture == "stiff" { F32_REACH_STIFF } else { F32_REACH }
}

/// The cases of a golden file: inputs and outputs, by case and name.
fn cases(golden: &SafeTensors) -> Vec<(String, NamedValues)> {
    let mut cases: Vec<(String, NamedValues)> = Vec::new();
    for (path, tensor) in golden.tensors() {
        let (case, name) = path.split_once('/').unwrap();
        let dtype = match tensor.dtype() {
            safetensors::Dtype::I64 => DType::I64,
            safetensors::Dtype::F64 => DType::F64,
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

/// The largest distance at positions whose mask is 1.
fn distance(candidate: &Value, golden: &Value, mask: &Value) -> f64 {
    assert_eq!(candidate.shape(), golden.shape());
    let mask = mask.as_slice::<i64>().unwrap();
    let per_position = if golden.shape().len() == 3 { *golden.shape().last().unwrap() } else { golden.len() };
    let distances = candidate.to_f64().into_iter().zip(golden.to_f64()).enumerate();
    distances
        .filter(|(at, _)| golden.shape().len() != 3 || mask[at / per_position] == 1)
        .map(|(_, (a, b))| (a - b).abs())
        // `f64::max` folds a NaN away.
        .fold(0.0, |worst, x| if x.is_nan() { f64::INFINITY } else { worst.max(x) })
}

/// Fails unless every output of every export on the engine that `open` makes is within `reach` of its fixture.
pub fn check_exports(open: impl Fn(&Model) -> Result<Box<dyn Engine>, String>, reach: impl Fn(&str) -> f64) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let index: Json = serde_json::from_slice(&std::fs::read(fixtures.join("index.json")).unwrap()).unwrap();
    let mut compared = 0;
    for fixture in index.as_array().unwrap() {
        let name = fixture["name"].as_str().unwrap();
        let folder = fixtures.join(name);
        let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let cases = cases(&SafeTensors::deserialize(&bytes).unwrap());
        let mut worst: f64 = 0.0;
        for graph in fixture["onnx"].as_array().unwrap() {
            let file = graph["file"].as_str().unwrap();
            let model = Model::open(folder.join("onnx").join(file)).unwrap();
            let engine = open(&model).unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
            let is_static = graph["shapes"] == "static";
            for (case, values) in cases.iter().filter(|(case, _)| !is_static || case == "static") {
                let inputs = engine
                    .inputs()
                    .iter()
                    .map(|spec| (spec.name.clone(), values.get(&spec.name).unwrap().clone()))
                    .collect();
                let outputs =
                    engine.run(&inputs).unwrap_or_else(|error| panic!("{name}/{file} on {case}: {error}"));
                for (output, value) in outputs.iter() {
                    let spec = engine.outputs().iter().find(|spec| spec.name == output).unwrap();
                    assert_eq!(value.dtype(), spec.dtype);
                    let golden = values.get(output).unwrap();
                    let off = distance(value, golden, values.get("attention_mask").unwrap());
                    assert!(off <= reach(name), "{name}/{file} on {case}: {output} is {off:.2e} off");
                    worst = worst.max(off);
                    compared += 1;
                }
            }
        }
        println!("{name}: at most {worst:.1e} off");
    }
    // 82 graphs, the dynamic ones on four or five cases, most with two outputs.
    assert!(compared > 400, "only {compared} outputs were compared");
}
