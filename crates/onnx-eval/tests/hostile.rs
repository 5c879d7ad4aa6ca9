//! Whatever a graph or its inputs say, the oracle answers with a value or an error: no panic, no endless run, no memory beyond its limits.
//! (Tests are built with overflow checks.)

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use engine::{DType, Engine, NamedValues, Value};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::{Attribute, Model};
use serde_json::Value as Json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/node")
}

/// Inputs that nobody has in mind, of a dtype.
fn odd_values(dtype: DType) -> Vec<Value> {
    let bytes = |count: usize, byte: u8| vec![byte; count * dtype.size()];
    let filled = |shape: &[usize], byte: u8| {
        let byte = if dtype == DType::Bool { byte & 1 } else { byte };
        Value::from_le_bytes(dtype, shape, &bytes(shape.iter().product(), byte)).unwrap()
    };
    let mut largest = bytes(2, 0xff);
    for last in [dtype.size() - 1, 2 * dtype.size() - 1] {
        largest[last] = if dtype == DType::Bool { 1 } else { 0x7f };
    }
    if dtype == DType::Bool {
        largest.fill(1);
    }
    vec![
        filled(&[], 0),
        filled(&[], 0xff),
        filled(&[0], 0),
        filled(&[1], 1),
        filled(&[2, 0, 3], 0),
        filled(&[1, 2, 3, 1, 2], 0x80),
        Value::from_le_bytes(dtype, [2], &largest).unwrap(),
    ]
}

/// Numbers that no attribute should be.
const ODD_INTS: [i64; 5] = [i64::MIN, -1, 0, 1000, i64::MAX];

fn with_odd_attributes(model: &Model) -> Vec<Model> {
    let mut models = Vec::new();
    for (at, node) in model.graph.nodes.iter().enumerate() {
        for (name, attribute) in &node.attributes {
            for odd in ODD_INTS {
                let odd = match attribute {
                    Attribute::Int(_) => Attribute::Int(odd),
                    Attribute::Ints(ints) => Attribute::Ints(vec![odd; ints.len()]),
                    Attribute::Float(_) => Attribute::Float(odd as f32),
                    _ => Attribute::Ints(vec![odd]),
                };
                let mut changed = model.clone();
                changed.graph.nodes[at].attributes.insert(name.clone(), odd);
                models.push(changed);
            }
        }
    }
    models
}

#[test]
fn nothing_panics() {
    let index = std::fs::read(folder().join("index.json")).unwrap();
    let index: Json = serde_json::from_slice(&index).unwrap();
    let bytes = std::fs::read(folder().join("cases.bin")).unwrap();
    let read = |place: &Json| {
        let number = |at: usize| place[at].as_u64().unwrap() as usize;
        &bytes[number(0)..number(0) + number(1)]
    };
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
    let (mut answers, mut errors) = (0, 0);
    for case in index["cases"].as_array().unwrap().iter().filter(|case| case["expanded"] == false) {
        let Ok(mut model) = Model::from_bytes(read(&case["model"]).to_vec().into()) else { continue };
        for input in &mut model.graph.inputs {
            input.shape = None;
        }
        let values: NamedValues = model
            .graph
            .inputs
            .iter()
            .zip(case["sets"][0]["inputs"].as_array().unwrap())
            .map(|(spec, tensor)| {
                let shape: Vec<usize> = tensor["shape"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|d| d.as_u64().unwrap() as usize)
                    .collect();
                let value = Value::from_le_bytes(spec.dtype, shape, read(&tensor["at"])).unwrap();
                (spec.name.clone(), value)
            })
            .collect();
        let mut run = |model: &Model, values: &NamedValues| {
            let Ok(oracle) = Oracle::with(model, Precision::F32, limits) else {
                errors += 1;
                return;
            };
            match oracle.run(values) {
                Ok(_) => answers += 1,
                Err(_) => errors += 1,
            }
        };
        for spec in &model.graph.inputs {
            for odd in odd_values(spec.dtype) {
                let mut values = values.clone();
                values.insert(spec.name.clone(), odd);
                run(&model, &values);
            }
        }
        for changed in with_odd_attributes(&model) {
            run(&changed, &values);
        }
    }
    // Both kinds of end are met, many times.
    assert!(answers > 1000 && errors > 1000, "{answers} answers, {errors} errors");
}
