//! Every export of every fixture, and every form that tools make of them, on the engine `compiled`: against PyTorch's float64, and against the oracle.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

#[path = "../../../tests/common/exports.rs"]
mod exports;

use std::path::{Path, PathBuf};

use engine::{DType, Engine, NamedValues, Value};
use exports::{check_exports, f32_reach};
use onnx_graph::Model;
use onnx_session::compiled::{CompiledEngine, Options, Passes, Threads};
use serde::Deserialize;

fn options() -> Options {
    Options { threads: Threads::Count(2), ..Options::default() }
}

#[test]
fn every_export_is_within_f32_reach_of_pytorch_in_f64() {
    let open = |model: &_| match CompiledEngine::new(model, options()) {
        Ok(engine) => Ok(Box::new(engine) as _),
        Err(error) => Err(error.to_string()),
    };
    check_exports(open, f32_reach);
}

#[derive(Deserialize)]
struct Form {
    fixture: String,
    form: String,
    file: String,
    precision: String,
    bound: f64,
    golden: String,
    recorded: Option<String>,
    recorded_bound: Option<f64>,
    #[serde(default)]
    not_recorded: Vec<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn read(path: &Path) -> NamedValues {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .iter()
        .map(|(name, view)| {
            let dtype = match view.dtype() {
                safetensors::Dtype::I64 => DType::I64,
                safetensors::Dtype::F64 => DType::F64,
                safetensors::Dtype::F32 => DType::F32,
                safetensors::Dtype::F16 => DType::F16,
                other => panic!("{other:?}"),
            };
            (name.clone(), Value::from_le_bytes(dtype, view.shape(), view.data()).unwrap())
        })
        .collect()
}

/// The inputs of a case, as the graph takes them.
fn fitted(values: &NamedValues, case: &str, engine: &dyn Engine) -> NamedValues {
    let mut inputs = NamedValues::new();
    for spec in engine.inputs().iter().filter(|spec| !spec.optional) {
        let value = values.get(&format!("{case}/{}", spec.name)).unwrap();
        let value = match spec.dtype {
            DType::I32 => {
                let narrow: Vec<i32> = value.as_slice::<i64>().unwrap().iter().map(|&x| x as i32).collect();
                Value::new(value.shape(), narrow).unwrap()
            }
            _ => value.clone(),
        };
        inputs.insert(spec.name.clone(), value);
    }
    inputs
}

/// The largest difference at real tokens.
fn distance(found: &NamedValues, expected: &NamedValues, prefix: &str, mask: &Value) -> f64 {
    let real: Vec<bool> = mask.as_slice::<i64>().unwrap().iter().map(|&bit| bit != 0).collect();
    let length = mask.shape()[1];
    let mut worst = 0f64;
    for (name, found) in found.iter() {
        let expected = expected.get(&format!("{prefix}/{name}")).unwrap_or_else(|| panic!("{prefix}/{name}"));
        assert_eq!(found.shape(), expected.shape(), "{prefix}/{name}");
        let width = found.shape()[found.shape().len() - 1];
        for (row, (a, b)) in found.to_f64().chunks(width).zip(expected.to_f64().chunks(width)).enumerate() {
            let decides = match found.shape().len() {
                3 => real[row],
                _ => real[row * length..(row + 1) * length].contains(&true),
            };
            if decides {
                let rows = a.iter().zip(b).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
                worst = rows.fold(worst, |worst, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) });
            }
        }
    }
    worst
}

/// The operators that no kernel runs.
fn left(engine: &CompiledEngine) -> Vec<String> {
    engine.steps().into_iter().map(|step| step.op).filter(|op| !op.ends_with('*')).collect()
}

/// Forms of which some nodes run without a kernel: with pooling behind the model, with key lengths in the place of a mask, and, where the activation is
/// `gelu_pytorch_tanh`, those in which ONNX Runtime has moved its ½ into the product that follows.
fn is_left_in_part(form: &Form) -> bool {
    let half_moved = ["ort-extended-ts17-sdpa", "ort-all-ts17-sdpa", "ort-extended-ts14", "ort-all-ts14"];
    form.form.starts_with("sentence")
        || form.form.ends_with("-lengths")
        || (form.fixture == "types3" && half_moved.contains(&&*form.form))
}

#[test]
fn every_export_is_kernels_alone() {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("index.json")).unwrap()).unwrap();
    let mut graphs = 0;
    for fixture in index.as_array().unwrap() {
        for export in fixture["onnx"].as_array().unwrap() {
            let (name, file) = (fixture["name"].as_str().unwrap(), export["file"].as_str().unwrap());
            let model = Model::open(fixtures().join(name).join("onnx").join(file)).unwrap();
            let engine = CompiledEngine::new(&model, options()).unwrap();
            assert_eq!(left(&engine), [""; 0], "{name}/{file}");
            assert!(engine.can_skip_padding(), "{name}/{file}");
            graphs += 1;
        }
    }
    assert!(graphs > 80, "{graphs}");
}

#[test]
fn every_form_is_right() {
    let forms: Vec<Form> =
        serde_json::from_slice(&std::fs::read(fixtures().join("forms/index.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let (mut ran, mut fused) = (0, 0);
    for form in &forms {
        let name = format!("{}/{}", form.fixture, form.form);
        let model = Model::open(fixtures().join("forms").join(&form.file)).unwrap();
        let engine = match CompiledEngine::new(&model, options()) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(error.to_string().contains("QEmbedLayerNormalization"), "{name}: {error}");
                continue;
            }
        };
        let left: Vec<String> = left(&engine);
        if form.precision == "f32" && !is_left_in_part(form) {
            if !left.is_empty() || !engine.can_skip_padding() {
                wrong.push(format!("{name}: these run without a kernel: {left:?}"));
            }
            fused += 1;
        }
        let inputs = read(&fixtures().join("forms").join(format!("../{}/golden.safetensors", form.fixture)));
        let golden = read(&fixtures().join("forms").join(&form.golden));
        let recorded = form.recorded.as_ref().map(|file| read(&fixtures().join("forms").join(file)));
        let cases = inputs.names().filter_map(|name| name.strip_suffix("/input_ids"));
        for case in cases {
            let outputs = engine.run(&fitted(&inputs, case, &engine));
            let Ok(outputs) = outputs.map_err(|error| wrong.push(format!("{name} {case}: {error}"))) else {
                continue;
            };
            let mask = inputs.get(&format!("{case}/attention_mask")).unwrap();
            let (expected, prefix, bound) = match &recorded {
                Some(recorded) if !form.not_recorded.iter().any(|other| other == case) => {
                    (recorded, format!("{}/{case}", form.form), form.recorded_bound.unwrap())
                }
                _ => (&golden, case.to_string(), form.bound),
            };
            let distance = distance(&outputs, expected, &prefix, mask);
            if distance > bound {
                wrong.push(format!("{name} {case}: {distance:.2e} off, allowed are {bound:e}"));
            }
            ran += 1;
        }
        if engine.general_runs() > 0 {
            wrong.push(format!("{name}: {} runs went the general way", engine.general_runs()));
        }
    }
    assert!(wrong.is_empty(), "{} of {ran}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ran > 2000 && fused > 300, "{ran} runs, {fused} forms in kernels alone");
}

#[test]
fn every_pass_can_be_switched_off() {
    let graphs = [
        "baseline/onnx/ts14-sdpa-dynamic.onnx",
        "baseline/onnx/dynamo23-sdpa-dynamic.onnx",
        "forms/baseline/onnxsim-ts17.onnx",
        "forms/baseline/ort-transformers-ts14.onnx",
        "forms/baseline/ort-transformers-ts14-mha.onnx",
        "forms/baseline/ort-extended-dynamo20.onnx",
    ];
    let golden = read(&fixtures().join("baseline/golden.safetensors"));
    let mask = golden.get("masks/attention_mask").unwrap();
    for graph in graphs {
        let model = Model::open(fixtures().join(graph)).unwrap();
        let open = |passes| {
            CompiledEngine::new(&model, Options { passes, skip_padding: true, ..options() }).unwrap()
        };
        let fewest = open(Passes::all()).steps().len();
        let all = Passes::names().map(|name| (name, Passes::all().without(name).unwrap()));
        for (name, passes) in all.chain([("all", Passes::none())]) {
            let engine = open(passes);
            assert!(engine.steps().len() >= fewest, "{graph} without {name}");
            let outputs = engine.run(&fitted(&golden, "masks", &engine)).unwrap();
            let off = distance(&outputs, &golden, "masks", mask);
            assert!(off <= f32_reach("baseline"), "{graph} without {name}: {off:.2e} off");
            assert_eq!(engine.general_runs(), 0, "{graph} without {name}");
        }
    }
}
