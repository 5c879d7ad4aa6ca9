//! Graphs in half precision that are made of a checkpoint here: proven against the checkpoint rounded the same way, and refused where half precision is impossible.

use std::path::{Path, PathBuf};

use crate::common::{Folder, fixture, golden, index, inputs_of, judged, plain_inputs, with};
use candle_bert::Task;
use engine::{DType, Engine, NamedValues, Value};
use half::f16;
use onnx_eval::{Limits, Oracle, Precision};
use onnx_export::{FloatType, Options, Shape, Target, Weights, export};
use onnx_graph::{Model, Tensor};
use parity::audit::Expect;
use parity::report::GraphReport;
use parity::{Bounds, Subject, Verdict};

/// The first and the last opset, the first with LayerNormalization, and the first with Gelu.
const OPSETS: [i64; 4] = [13, 17, 20, 21];

/// A head beside the ten fixtures without one.
const HEAD: &str = "heads/question_answering";

/// The graph in f64, its weights as they are, against the checkpoint rounded the same way: what is asked of exports in f32.
const PROVEN: f64 = 1e-12;

/// What half precision may cost, against the checkpoint itself: the bounds that tests/fixtures/forms/make.py has for ONNX Runtime's own conversion of these fixtures.
const LOSS: f64 = 5e-2;
const LOSS_STIFF: f64 = 1.0;

/// The shape of a row that has no real token.
const EMPTY: [usize; 2] = [2, 8];

fn folders() -> Vec<(String, PathBuf)> {
    let mut names: Vec<String> = index().into_iter().map(|(name, _)| name).collect();
    names.push(HEAD.into());
    names.into_iter().map(|name| (name.clone(), fixture(&name))).collect()
}

fn subject(folder: &Path) -> Subject {
    Subject::open(folder.to_str()).unwrap()
}

fn in_half(subject: &Subject, opset: i64) -> Model {
    let options = Options { opset, task: subject.task(), dtype: FloatType::F16, ..Options::default() };
    export(&subject.files().checkpoint().unwrap(), subject.family(), &options).unwrap()
}

fn oracle(model: &Model) -> Oracle {
    Oracle::with(model, Precision::F32, Limits::default()).unwrap()
}

fn judge(subject: &Subject, model: &Model, expect: Expect) -> GraphReport {
    judged(subject, "graph", model, &[&oracle(model)], &Bounds { expect, ..Bounds::default() })
}

#[test]
fn every_graph_is_proven_against_the_checkpoint_in_half_precision() {
    let (mut apart, mut lost) = (0f64, 0f64);
    for (name, folder) in folders() {
        let subject = subject(&folder);
        for opset in OPSETS {
            let what = format!("{name}, opset {opset}");
            let report = judge(&subject, &in_half(&subject, opset), Expect::F16);
            assert_eq!(report.verdict, Verdict::Rounding, "{what}: {report:?}");
            let proof = report.proof.max_rel.unwrap();
            assert!(proof <= PROVEN, "{what}: {proof:.1e}");
            assert!(report.culprits.is_empty() && report.explanation.is_none(), "{what}: {report:?}");
            let precision = report.parts.precision.unwrap();
            assert!(precision.loss.len() == report.proof.outputs.len(), "{what}: {precision:?}");
            let bound = if name == "stiff" { LOSS_STIFF } else { LOSS };
            for loss in precision.loss {
                let most = loss.max_abs.unwrap();
                // It is half precision, and no more is lost than that.
                assert!(most > 1e-6 && most <= bound, "{what}: {loss:?}");
                lost = lost.max(if name == "stiff" { 0.0 } else { most });
            }
            apart = apart.max(proof);
        }
    }
    println!("at most {apart:.1e} apart in f64; {lost:.1e} is lost at most, but for 'stiff'");
}

#[test]
fn nobody_is_given_half_precision_without_knowing() {
    for folder in [fixture("baseline"), fixture(HEAD)] {
        let subject = subject(&folder);
        for expect in [Expect::Exact, Expect::Int8] {
            let report = judge(&subject, &in_half(&subject, 17), expect);
            assert_eq!((report.verdict, report.proof.verdict), (Verdict::Fail, Verdict::Fail));
            assert!(report.notes.iter().any(|note| note.contains("say --expect f16")), "{:?}", report.notes);
        }
    }
}

#[test]
fn one_bit_of_a_weight_fails() {
    let subject = subject(&fixture("baseline"));
    let mut model = in_half(&subject, 17);
    let weight = "encoder.layer.1.attention.self.query.weight";
    let tensor = model.graph.initializers.get_mut(&format!("{weight}_transposed")).unwrap();
    let mut bytes = tensor.bytes.to_vec();
    bytes[40] ^= 1;
    tensor.bytes = bytes.into();
    let report = judge(&subject, &model, Expect::F16);
    assert_eq!((report.verdict, report.proof.verdict), (Verdict::Fail, Verdict::Fail));
    let findings = &report.weights.as_ref().unwrap().findings;
    assert!(findings.iter().any(|finding| finding.fails && finding.tensors == [weight]), "{findings:?}");
}

/// Whole numbers in, f32 out, and in between f16, but for what is inside a layer norm.
#[test]
fn weights_are_f16_and_the_border_is_not() {
    for (name, folder) in folders() {
        let subject = subject(&folder);
        for opset in OPSETS {
            let model = in_half(&subject, opset);
            let what = format!("{name}, opset {opset}");
            assert!(model.graph.inputs.iter().all(|input| input.dtype == DType::I64), "{what}");
            assert!(model.graph.outputs.iter().all(|output| output.dtype == DType::F32), "{what}");
            for (tensor, held) in &model.graph.initializers {
                let single = tensor == "constant.two" || tensor.starts_with("constant.layer_norm_eps");
                let expected = match held.dtype {
                    DType::I64 => DType::I64,
                    _ if single => DType::F32,
                    _ => DType::F16,
                };
                assert_eq!(held.dtype, expected, "{what}: {tensor}");
            }
            assert!(
                model.graph.nodes.iter().all(|node| node.metadata.contains_key("module")),
                "{what}: a node has no module"
            );
        }
    }
}

#[test]
fn a_row_without_a_real_token_is_finite() {
    for (name, folder) in folders() {
        let subject = subject(&folder);
        let ids: Vec<i64> = (1..17).collect();
        let mask = Value::new(EMPTY, [[1i64; 8], [0; 8]].concat()).unwrap();
        let inputs = with(plain_inputs(EMPTY, &ids), "attention_mask", mask);
        for opset in OPSETS {
            let mut model = in_half(&subject, opset);
            let outputs = oracle(&model).run(&inputs).unwrap();
            assert!(all_finite(&outputs), "{name}, opset {opset}");
            // f32's constant, as a converter rounds it: what is to be avoided.
            set_mask(&mut model, f16::NEG_INFINITY);
            assert!(!all_finite(&oracle(&model).run(&inputs).unwrap()), "{name}, opset {opset}");
            // Beside the lowest number, scores below −16 become −∞; `stiff` has rows of no other.
            if name == "stiff" {
                set_mask(&mut model, f16::MIN);
                assert!(!all_finite(&oracle(&model).run(&inputs).unwrap()), "opset {opset}");
            }
        }
    }
}

fn set_mask(model: &mut Model, lowest: f16) {
    let constant = model.graph.initializers.get_mut("constant.lowest_f16").unwrap();
    *constant = Tensor::from_value(&Value::scalar(lowest));
}

fn all_finite(outputs: &NamedValues) -> bool {
    !outputs.is_empty() && outputs.iter().all(|(_, value)| value.to_f64().into_iter().all(f64::is_finite))
}

/// Values a few hundred large are usual in the residual stream of a BERT; their squares are more than f16 holds, and an eps of 1e-12 is less.
#[test]
fn squares_within_a_layer_norm_do_not_overflow() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let mut checkpoint = folder.values("model/model.safetensors");
    let name = "encoder.layer.0.output.dense.bias";
    let bias = checkpoint.get(name).unwrap();
    let mut elements = bias.as_slice::<f32>().unwrap().to_vec();
    elements[0] = 3000.0;
    let shape = bias.shape().to_vec();
    checkpoint.insert(name.to_string(), Value::new(shape, elements).unwrap());
    folder.write_values("model/model.safetensors", &checkpoint);
    let subject = subject(&folder.at("model"));
    for opset in OPSETS {
        let report = judge(&subject, &in_half(&subject, opset), Expect::F16);
        assert_eq!(report.verdict, Verdict::Rounding, "opset {opset}: {report:?}");
    }
}

/// Checkpoints that are f16 already, bf16 and f64; the model is the baseline's.
#[test]
fn checkpoints_of_other_dtypes_become_half_precision() {
    let folder = Folder::new();
    for (form, file) in [
        ("legacy-auto-model-f16", "pytorch_model.bin"),
        ("safetensors-model-bf16", "model.safetensors"),
        ("zip-model-f64", "pytorch_model.bin"),
    ] {
        let stored = fixture("checkpoints").join(form).join(file);
        folder.write(&format!("{form}/{file}"), std::fs::read(stored).unwrap());
        let config = fixture("baseline").join("config.json");
        folder.write(&format!("{form}/config.json"), std::fs::read(config).unwrap());
        let subject = subject(&folder.at(form));
        let report = judge(&subject, &in_half(&subject, 17), Expect::F16);
        assert_eq!(report.verdict, Verdict::Rounding, "{form}: {report:?}");
        assert!(report.proof.max_rel.unwrap() <= PROVEN, "{form}: {:?}", report.proof);
    }
}

#[test]
fn the_shape_may_be_fixed() {
    let subject = subject(&fixture("types1"));
    let golden = golden(fixture("types1").join("golden.safetensors"));
    let inputs = inputs_of(&golden["static"]);
    let options = Options {
        dtype: FloatType::F16,
        shape: Shape::Static { batch: 2, sequence: 8 },
        ..Options::default()
    };
    let fixed = export(&subject.files().checkpoint().unwrap(), subject.family(), &options).unwrap();
    assert_eq!(
        oracle(&fixed).run(&inputs).unwrap(),
        oracle(&in_half(&subject, options.opset)).run(&inputs).unwrap()
    );
}

#[test]
fn what_half_precision_cannot_be_is_refused() {
    let subject = subject(&fixture("baseline"));
    let checkpoint = subject.files().checkpoint().unwrap();
    let half = Options { dtype: FloatType::F16, task: Task::FeatureExtraction, ..Options::default() };
    for (options, words) in [
        (Options { target: Target::CandleOnnx, ..half }, "a graph for candle-onnx must be in f32"),
        (Options { weights: Weights::AsStored, ..half }, "cannot point at the checkpoint's weights"),
    ] {
        let error = export(&checkpoint, subject.family(), &options).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_command_writes_half_precision() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    folder.run(&["export", "model", "-o", "f32.onnx"]).exits(0);
    folder.run(&["export", "model", "-o", "f16.onnx", "--dtype", "f16"]).exits(0);
    let bytes = |file: &str| -> usize {
        let model = Model::open(folder.at(file)).unwrap();
        model.graph.initializers.values().map(|tensor| tensor.bytes.len()).sum()
    };
    assert!(bytes("f16.onnx") * 100 < bytes("f32.onnx") * 51, "{} bytes", bytes("f16.onnx"));

    let args = ["check", "model", "--onnx", "f16.onnx"];
    let (code, report) = folder.report(&args);
    assert_eq!(code, 1);
    assert!(report["notes"].to_string().contains("say --expect f16"), "{}", report["notes"]);
    let (code, report) = folder.report(&[&args[..], &["--expect", "f16"]].concat());
    assert_eq!((code, &report["verdict"]), (0, &"rounding".into()), "{report:#}");
    assert!(report["proof"]["max_rel"].as_f64().unwrap() <= PROVEN, "{}", report["proof"]);

    let export = |args: &[&str]| {
        folder.run(&[&["export", "model", "-o", "model/m.onnx", "--dtype", "f16"], args].concat())
    };
    export(&["--target", "candle-onnx"]).is_mistake(&["candle-onnx", "f32"]);
    export(&["--weights-from", "safetensors"]).is_mistake(&["f16", "checkpoint's weights"]);
    let mut checkpoint = folder.values("model/model.safetensors");
    let name = "embeddings.word_embeddings.weight";
    let words = checkpoint.get(name).unwrap();
    let mut elements = words.as_slice::<f32>().unwrap().to_vec();
    elements[5] = -1e5;
    let shape = words.shape().to_vec();
    checkpoint.insert(name.to_string(), Value::new(shape, elements).unwrap());
    folder.write_values("model/model.safetensors", &checkpoint);
    export(&[]).is_mistake(&[name, "-1e5", "65504"]);
    assert!(!folder.at("model/m.onnx").exists());
}
