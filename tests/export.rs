//! Graphs that are made of a checkpoint here: every fixture at every opset, for any engine and for stock candle-onnx, with dynamic and static shapes.

use std::collections::HashMap;
use std::path::Path;

use crate::common::{Folder, distance, fixture, golden, index, inputs_of, off, plain_inputs, stock, with};
use candle_bert::BertConfig;
use candle_core::{DType as CandleDType, Device};
use engine::{Engine, NamedValues, Value};
use onnx_export::{OPSETS, Options, Shape, Target, Weights, export, save_beside};
use onnx_graph::{External, Model};
use onnx_session::{EngineKind, Session};
use parity::Subject;
use parity::proof::exact_graph;
use prost::Message as _;

/// The graph in f64 against the checkpoint in f64, as a part of the largest value. The largest that was measured is 6.3e-15; this is what is asked for.
const PROVEN: f64 = 1e-12;

/// f32 against PyTorch's f64: what ONNX Runtime is off on the fixtures' own exports (tests/fixtures/README.md), 7.0e-5 on `stiff` and 7.2e-6
/// elsewhere, times two, because another order of summation rounds differently.
const F32_REACH_STIFF: f64 = 1.4e-4;
const F32_REACH: f64 = 1.44e-5;

/// The shape that static graphs are made for; the fixtures' case of this shape is called `static`.
const STATIC: Shape = Shape::Static { batch: 2, sequence: 8 };

const SHAPES: [Shape; 2] = [Shape::Dynamic, STATIC];

fn subject(fixture: &str) -> Subject {
    Subject::open(self::fixture(fixture).to_str()).unwrap()
}

fn exported(subject: &Subject, options: &Options) -> Model {
    let checkpoint = subject.files().checkpoint().unwrap();
    export(&checkpoint, subject.family(), options).unwrap_or_else(|error| panic!("{options:?}: {error}"))
}

/// All graphs of a fixture for a target, with the options they were made with.
fn graphs(subject: &Subject, target: Target) -> Vec<(Options, Model)> {
    let all =
        OPSETS.flat_map(|opset| SHAPES.map(|shape| Options { opset, shape, target, ..Options::default() }));
    all.map(|options| (options, exported(subject, &options))).collect()
}

/// The cases that a graph takes.
fn cases<'a, T>(all: &'a [(String, T)], options: &Options) -> impl Iterator<Item = &'a (String, T)> {
    let fixed = options.shape != Shape::Dynamic;
    all.iter().filter(move |(case, _)| !fixed || case.contains("static"))
}

/// The fixture's own inputs, and two rows of which one has no real token.
fn inputs(subject: &Subject) -> Vec<(String, NamedValues)> {
    let mut all: Vec<(String, NamedValues)> = golden(
        fixture(Path::new(subject.name()).file_name().unwrap().to_str().unwrap()).join("golden.safetensors"),
    )
    .into_iter()
    .map(|(case, values)| (case, inputs_of(&values)))
    .collect();
    let ids: Vec<i64> = (1..17).collect();
    let mask = Value::new([2, 8], [[1i64; 8], [0; 8]].concat()).unwrap();
    all.push(("no real token, static".into(), with(plain_inputs([2, 8], &ids), "attention_mask", mask)));
    all
}

#[test]
fn every_graph_computes_what_its_checkpoint_does() {
    let mut compared = 0;
    let mut worst = 0f64;
    for (name, _) in index() {
        let subject = subject(&name);
        let inputs = inputs(&subject);
        let reference = subject.reference(CandleDType::F64).unwrap().engine;
        let expected: HashMap<&str, NamedValues> =
            inputs.iter().map(|(case, inputs)| (case.as_str(), reference.run(inputs).unwrap())).collect();
        for target in [Target::Onnx, Target::CandleOnnx] {
            for (options, model) in graphs(&subject, target) {
                let (oracle, _) = exact_graph(&model, subject.program()).unwrap();
                for (case, inputs) in cases(&inputs, &options) {
                    let off = off(&oracle.run(inputs).unwrap(), &expected[case.as_str()]);
                    assert!(off <= PROVEN, "{name}, {options:?} on {case}: {off:.1e}");
                    worst = worst.max(off);
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} runs, at most {worst:.1e} off");
    assert!(compared > 10 * 9 * 2 * 6, "only {compared} runs, at most {worst:.1e} off");
}

/// Holds f32 outputs against PyTorch's f64, at the positions of real tokens.
#[track_caller]
fn near(fixture: &str, what: &str, found: &NamedValues, expected: &NamedValues) {
    let reach = if fixture == "stiff" { F32_REACH_STIFF } else { F32_REACH };
    assert!(!found.is_empty(), "{what}");
    for (output, value) in found.iter() {
        let (off, _) = distance(value, expected.get(output).unwrap(), expected.get("attention_mask"));
        assert!(off <= reach, "{what}: {output} is {off:.1e} off");
    }
}

#[test]
fn what_is_left_out_is_said_first() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let first = || folder.run(&["export", "model", "-o", "out.onnx"]).exits(0).stdout;
    assert!(first().starts_with("out.onnx: opset 17, "), "{}", first());
    let module = |kind: &str, path: &str| serde_json::json!({ "type": format!("sentence_transformers.models.{kind}"), "path": path });
    let modules =
        [module("Transformer", ""), module("Pooling", "1_Pooling"), module("Normalize", "2_Normalize")];
    folder.write("model/modules.json", serde_json::json!(modules).to_string());
    folder.write("model/1_Pooling/config.json", r#"{ "pooling_mode": "cls" }"#);
    let says =
        "out.onnx: the transformer alone, without what modules.json lists after it (cls pooling, normalized)";
    assert!(first().starts_with(says), "{}", first());
}

#[test]
fn the_candle_engine_takes_every_graph() {
    for (name, _) in index() {
        let subject = subject(&name);
        let golden: Vec<_> = golden(fixture(&name).join("golden.safetensors")).into_iter().collect();
        for (options, model) in graphs(&subject, Target::Onnx) {
            let session = Session::new(&model, EngineKind::Candle)
                .unwrap_or_else(|error| panic!("{name}, {options:?}: {error}"));
            for (case, values) in cases(&golden, &options) {
                let found = session.run(&inputs_of(values)).unwrap();
                near(&name, &format!("{name}, {options:?} on {case}"), &found, values);
            }
        }
    }
}

#[test]
fn stock_candle_onnx_evaluates_what_is_made_for_it() {
    let folder = Folder::new();
    let path = folder.at("m.onnx");
    for (name, _) in index() {
        let subject = subject(&name);
        let golden: Vec<_> = golden(fixture(&name).join("golden.safetensors")).into_iter().collect();
        let reference = subject.reference(CandleDType::F64).unwrap().engine;
        for (options, model) in graphs(&subject, Target::CandleOnnx) {
            model.save(&path).unwrap();
            for (case, values) in cases(&golden, &options) {
                let what = format!("{name}, {options:?} on {case}");
                near(&name, &what, &stock(&path, &inputs_of(values)), values);
            }
            let (case, inputs) = inputs(&subject).pop().unwrap();
            // All positions count here.
            let expected = reference.run(&inputs).unwrap();
            near(&name, &format!("{name}, {options:?} on {case}"), &stock(&path, &inputs), &expected);
        }
    }
}

/// So that the target means something.
#[test]
fn stock_candle_onnx_does_not_evaluate_what_is_made_for_others() {
    let subject = subject("baseline");
    let model = exported(&subject, &Options::default());
    let proto = candle_onnx::onnx::ModelProto::decode(model.to_bytes().as_slice()).unwrap();
    let (_, inputs) = inputs(&subject).pop().unwrap();
    let inputs = inputs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_tensor(&Device::Cpu).unwrap()))
        .collect();
    let error = candle_onnx::simple_eval(&proto, inputs).unwrap_err().to_string();
    assert!(error.contains("unsupported op_type LayerNormalization"), "{error}");
}

#[test]
fn every_node_is_named_and_tagged_with_a_module_of_the_checkpoint() {
    for (name, _) in index() {
        let subject = subject(&name);
        let reference = subject.reference(CandleDType::F64).unwrap().engine;
        let paths: Vec<String> = reference.program().module_paths().map(String::from).collect();
        let layers = (0..subject.program().layers()).map(|n| format!("encoder.layer.{n}.attention.self"));
        for target in [Target::Onnx, Target::CandleOnnx] {
            for (options, model) in graphs(&subject, target) {
                for node in &model.graph.nodes {
                    let (module, tag) = (&node.metadata["module"], &node.metadata["hierarchy_tag"]);
                    let what = format!("{name}, {options:?}: {}", node.name);
                    assert!(paths.contains(module), "{what} is of '{module}'");
                    assert!(tag.starts_with("/BertModel/Bert"), "{what}: {tag}");
                    let said = node.name.replace('/', ".");
                    assert!(said.starts_with(&format!(".{module}.{}", node.op)), "{what} is of '{module}'");
                    // What cannot carry properties has them in words.
                    let in_words = format!("module: {module}\nhierarchy_tag: {tag}");
                    let carries = options.opset == 21 && target == Target::Onnx;
                    assert_eq!(node.doc, if carries { String::new() } else { in_words }, "{what}");
                }
                for path in layers.clone() {
                    let here =
                        model.graph.nodes.iter().filter(|node| node.metadata["module"] == path).count();
                    assert!(here >= 10, "{name}, {options:?}: {path} has {here} nodes");
                }
            }
        }
    }
}

#[test]
fn a_graph_may_share_the_weights_of_its_checkpoint() {
    for (name, _) in index() {
        let folder = Folder::new();
        folder.copy_fixture(&name, "model");
        let subject = Subject::open(folder.at("model").to_str()).unwrap();
        let checkpoint = subject.files().checkpoint().unwrap();
        let options = Options { weights: Weights::AsStored, ..Options::default() };
        let model = exported(&subject, &options);
        let path = folder.at("model/model.onnx");
        save_beside(&model, &checkpoint, &path).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < 100_000, "{name}: {size} bytes");
        let read = Model::open(&path).unwrap();
        assert_eq!(read, model);

        let (oracle, _) = exact_graph(&read, subject.program()).unwrap();
        let reference = subject.reference(CandleDType::F64).unwrap().engine;
        let inputs = plain_inputs([2, 3], &[1, 2, 3, 4, 5, 6]);
        let off = off(&oracle.run(&inputs).unwrap(), &reference.run(&inputs).unwrap());
        assert!(off <= PROVEN, "{name}: {off:.1e}");

        // Elsewhere there is no checkpoint, or another one.
        let error = save_beside(&model, &checkpoint, folder.at("model.onnx")).unwrap_err().to_string();
        assert!(error.contains("must be written into the checkpoint's folder"), "{error}");
        let mut other = std::fs::read(folder.at("model/model.safetensors")).unwrap();
        let used =
            checkpoint.iter().find(|entry| model.graph.initializers.contains_key(&entry.name)).unwrap();
        other[usize::try_from(used.offset.unwrap()).unwrap()] ^= 1;
        folder.write("model.safetensors", other);
        let error = save_beside(&model, &checkpoint, folder.at("model.onnx")).unwrap_err().to_string();
        assert!(error.contains("is not the checkpoint's file"), "{name}: {error}");
        assert!(!folder.at("model.onnx").exists());
        // A graph with copies of its weights has nothing to point with.
        let error = save_beside(&exported(&subject, &Options::default()), &checkpoint, &path).unwrap_err();
        assert!(error.to_string().contains("is not as the checkpoint has it"), "{error}");
    }
}

#[test]
fn large_weights_lie_beside_the_graph() {
    let folder = Folder::new();
    let path = folder.at("m.onnx");
    let model = exported(&subject("odd"), &Options::default());
    model.save_with(&path, &External::default()).unwrap();
    assert_eq!(folder.listing(), ["m.onnx", "m.onnx.data"]);
    assert_eq!(Model::open(&path).unwrap(), model);
}

#[test]
fn a_shape_that_the_model_cannot_take_is_refused() {
    let subject = subject("baseline");
    let checkpoint = subject.files().checkpoint().unwrap();
    for (batch, sequence) in [(0, 8), (2, 0), (1, 25)] {
        let options = Options { shape: Shape::Static { batch, sequence }, ..Options::default() };
        let error = export(&checkpoint, subject.family(), &options).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{batch} rows of {sequence} tokens")) && error.contains("24 tokens"),
            "{error}"
        );
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused_by_its_tensors() {
    let subject = subject("baseline");
    let mut config = BertConfig::from_json(&subject.files().config().unwrap()).unwrap();
    config.num_hidden_layers = 3;
    let error = export(&subject.files().checkpoint().unwrap(), &config, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("encoder.layer.2.attention.self.query.weight"), "{error}");
}

/// The command does what the library does, and what it writes is proven, with the checkpoint's own weights.
#[test]
fn what_the_command_writes_is_proven() {
    let folder = Folder::new();
    folder.copy_fixture("types1", "model");
    for (number, arguments) in [
        &["--opset", "13"][..],
        &["--static", "2,8", "--opset", "21"],
        &["--target", "candle-onnx", "--opset", "20"],
        &["--external-data"],
        &["--weights-from", "safetensors"],
    ]
    .into_iter()
    .enumerate()
    {
        let file = format!("model/{number}.onnx");
        folder.run(&[&["export", "model", "-o", &file][..], arguments].concat()).exits(0);
        let (code, report) = folder.report(&["model", "--onnx", &file]);
        assert_eq!((code, &report["verdict"]), (0, &"pass".into()), "{arguments:?}: {report}");
        assert!(report["proof"]["max_rel"].as_f64().unwrap() <= PROVEN, "{arguments:?}: {}", report["proof"]);
        assert_eq!(report["weights"]["verdict"], "pass", "{arguments:?}: {}", report["weights"]);
    }
    assert!(folder.at("model/3.onnx.data").exists());
    assert!(std::fs::metadata(folder.at("model/4.onnx")).unwrap().len() < 30_000);
}

#[test]
fn a_model_without_a_graph_is_checked_on_one_made_in_memory() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let before = folder.listing();
    let (code, report) = folder.report(&["model"]);
    assert_eq!(code, 0, "{report:#}");
    let proof = report["proof"]["max_rel"].as_f64().unwrap();
    assert!(proof > 0.0 && proof <= PROVEN, "{proof}");
    assert_eq!(report["onnx"], "model (exported in memory)");
    assert_eq!(report["checks"][0]["engine"], "candle");
    let notes: Vec<&str> =
        report["notes"].as_array().unwrap().iter().filter_map(|note| note.as_str()).collect();
    assert!(notes.iter().any(|note| note.contains("no ONNX file lies beside model")), "{notes:?}");
    assert_eq!(folder.listing(), before);

    // What cannot be exported is no graph that passes.
    std::fs::remove_file(folder.at("model/model.safetensors")).unwrap();
    folder.run(&["model"]).is_mistake(&["model", "model.safetensors"]);
}

#[test]
fn mistakes_are_named() {
    let folder = Folder::new();
    folder.copy_fixture("types1", "model");
    let export =
        |arguments: &[&str]| folder.run(&[&["export", "model", "-o", "m.onnx"][..], arguments].concat());
    export(&["--opset", "12"]).is_mistake(&["opset 12", "13 to 21"]);
    export(&["--static", "1,25"]).is_mistake(&["1 rows of 25 tokens", "24 tokens"]);
    export(&["--weights-from", "safetensors"]).is_mistake(&["must be written into the checkpoint's folder"]);
    folder.run(&["export", "model", "-o", "no/m.onnx"]).is_mistake(&["cannot write no/m.onnx"]);
    folder.run(&["export", "nothing/here/at/all", "-o", "m.onnx"]).is_mistake(&["nothing/here/at/all"]);
    // What looks like the checkpoint is not written to.
    let run = folder.run(&["export", "model", "-o", "model/model.safetensors"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("ends in .onnx"), "{run}");
    assert_eq!(folder.listing(), ["model"]);
}

#[test]
fn a_graph_can_be_inspected() {
    let folder = Folder::new();
    folder.copy_fixture("types1", "model");
    folder.run(&["export", "model", "-o", "m.onnx"]).exits(0);
    let (code, found) = folder.report(&["inspect", "m.onnx"]);
    assert_eq!(code, 0);
    assert_eq!((&found["opsets"][""], &found["untagged"]), (&17.into(), &0.into()));
    assert_eq!(found["inputs"][0], "input_ids i64[batch, sequence]");
    assert_eq!(found["outputs"][0], "last_hidden_state f32[batch, sequence, 16]");
    let modules = found["modules"].as_array().unwrap();
    let module = |path: &str| modules.iter().find(|module| module["path"] == path).unwrap();
    // [16, 16] and [16] in f32.
    let query = module("encoder.layer.0.attention.self.query");
    assert_eq!((&query["nodes"], &query["bytes"]), (&2.into(), &(4 * (16 * 16 + 16)).into()));
    let nodes = Model::open(folder.at("m.onnx")).unwrap().graph.nodes.len();
    assert_eq!(module("")["nodes"], nodes);
    let shown = folder.run(&["inspect", "m.onnx"]).exits(0).stdout;
    assert!(shown.contains("opset 17, IR version 8, by candle-parity"), "{shown}");
    assert!(shown.contains("      attention\n") || shown.contains("      attention "), "{shown}");
    folder.run(&["inspect", "model/config.json"]).is_mistake(&["config.json"]);
}
