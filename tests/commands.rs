//! `parity run`, `embed` and `bench`, what a check can be given, and `assert_parity!`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::common::{
    Folder, Run, baseline_graph, change_weight, default_graph, distance, fixture, golden, house, in_fixture,
    inputs_of, node, plain_inputs, without,
};
use engine::{DType, Dim, NamedValues, Value, ValueSpec};
use onnx_graph::{Graph, Model};
use onnx_session::{EngineKind, Session};
use parity::inputs::{FixedShape, default_cases};
use parity::{Subject, assert_parity};
use serde_json::Value as Json;

/// The reference in f64 against PyTorch's f64, as a part of the largest value: both round at 1e-16, in different orders.
const F64_BOUND: f64 = 1e-12;

/// f32 against f64 on the fixture `baseline`: twice what ONNX Runtime is off there (tests/fixtures/README.md: 2.9e-6), because another
/// order of summation rounds differently.
const F32_REACH: f64 = 5.8e-6;

/// Two f32 computations of the same embedding: the tolerance of a check, which the default model is made for.
const EMBEDDINGS_APART: f64 = 1e-6;

/// Runs the case `masks` of the fixture `baseline`, and gives how far each output is off PyTorch's, with the largest value.
fn run_baseline(folder: &Folder, args: &[&str], dtype: DType) -> Vec<(String, f64, f64)> {
    let case = golden(fixture("baseline").join("golden.safetensors"))["masks"].clone();
    folder.write_values("in.safetensors", &inputs_of(&case));
    let files = ["--inputs", "in.safetensors", "--outputs", "out.safetensors"];
    let run = folder.run(&[&["run"], args, &files].concat()).exits(0);
    assert!(run.stdout.contains("last_hidden_state") && run.stdout.contains("out.safetensors"), "{run}");
    let outputs = folder.values("out.safetensors");
    assert_eq!(outputs.len(), 2);
    outputs
        .iter()
        .map(|(name, value)| {
            assert_eq!(value.dtype(), dtype, "{name}");
            let (off, largest) = distance(value, case.get(name).unwrap(), case.get("attention_mask"));
            (name.into(), off, largest)
        })
        .collect()
}

#[test]
fn run_computes_the_reference_in_f64() {
    let model = fixture("baseline");
    let outputs = run_baseline(&Folder::new(), &[model.to_str().unwrap(), "--dtype", "f64"], DType::F64);
    for (name, off, largest) in outputs {
        assert!(off <= F64_BOUND * largest, "{name} is {off:e} off, of {largest:e}");
    }
}

#[test]
fn run_computes_in_f32_by_every_engine() {
    let model = fixture("baseline");
    let model = model.to_str().unwrap();
    let graph = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    std::fs::copy(&graph, folder.at("model/model.onnx")).unwrap();
    for args in [
        &[model][..],
        &[model, "--engine", "reference"],
        &[&graph],
        &[&graph, "--engine", "candle"],
        &["model", "--engine", "candle"],
    ] {
        for (name, off, _) in run_baseline(&folder, args, DType::F32) {
            assert!(off > 0.0 && off <= F32_REACH, "{args:?}: {name} is {off:e} off");
        }
    }
}

#[test]
fn mask_and_token_types_may_be_left_out_where_the_model_has_a_default() {
    let folder = Folder::new();
    let model = fixture("baseline");
    let full = plain_inputs([2, 3], &[5, 6, 7, 8, 9, 10]);
    let only_ids = without(without(full.clone(), "attention_mask"), "token_type_ids");
    let outputs = [("full", full), ("ids", only_ids)].map(|(name, inputs)| {
        folder.write_values("in.safetensors", &inputs);
        let args = ["run", model.to_str().unwrap(), "--inputs", "in.safetensors", "--outputs", name];
        folder.run(&args).exits(0);
        folder.values(name)
    });
    assert_eq!(outputs[0], outputs[1]);
}

/// A hub cache as its clients leave it: files in blobs/ under their hash, links to them in the snapshot.
#[cfg(unix)]
#[test]
fn a_model_is_found_in_the_hub_cache_behind_its_links() {
    let folder = Folder::new();
    let repository = "home/hub/models--org--tiny";
    folder.write(&format!("{repository}/refs/main"), "0123abcd");
    for (number, (file, from)) in [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors"),
        ("onnx/model.onnx", "onnx/ts17-sdpa-dynamic.onnx"),
    ]
    .into_iter()
    .enumerate()
    {
        folder.write(
            &format!("{repository}/blobs/{number}"),
            std::fs::read(in_fixture("types1", from)).unwrap(),
        );
        let link = folder.at(&format!("{repository}/snapshots/0123abcd/{file}"));
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(2 + file.matches('/').count());
        std::os::unix::fs::symlink(format!("{up}blobs/{number}"), link).unwrap();
    }
    for (variable, place) in [("HF_HOME", "home"), ("HF_HUB_CACHE", "home/hub")] {
        for model in ["org/tiny", "org/tiny@main", "org/tiny@0123abcd"] {
            let run = Run::of(folder.parity(&[model]).env(variable, folder.at(place))).exits(0);
            assert!(run.stdout.starts_with("PASS") && run.stdout.contains(model), "{run}");
        }
    }
}

/// A graph that is no BERT: three nodes over three dtypes.
fn small_graph() -> Model {
    let spec = |name: &str, dtype, dims: &[Dim]| ValueSpec {
        name: name.into(),
        dtype,
        shape: Some(dims.to_vec()),
        optional: false,
    };
    let rows = [Dim::Symbol("rows".into()), Dim::Fixed(2)];
    Model {
        ir_version: 8,
        opsets: [(String::new(), 17)].into(),
        graph: Graph {
            inputs: vec![
                spec("x", DType::F32, &rows),
                spec("y", DType::F32, &rows),
                spec("n", DType::I64, &rows),
                spec("b", DType::Bool, &[Dim::Any]),
            ],
            outputs: vec![
                spec("sum", DType::F32, &rows),
                spec("double", DType::I64, &rows),
                spec("not", DType::Bool, &[Dim::Any]),
            ],
            nodes: vec![
                node("Add", &["x", "y"], "sum"),
                node("Add", &["n", "n"], "double"),
                node("Not", &["b"], "not"),
            ],
            ..Graph::default()
        },
        ..Model::default()
    }
}

#[test]
fn run_takes_any_graph() {
    let folder = Folder::new();
    small_graph().save(folder.at("small.onnx")).unwrap();
    folder.write_values(
        "in.safetensors",
        &NamedValues::from_iter([
            ("x", Value::new([2, 2], vec![1f32, 2., 3., 4.]).unwrap()),
            ("y", Value::new([2, 2], vec![0.5f32, 0.5, 0.5, -4.]).unwrap()),
            ("n", Value::new([2, 2], vec![1i64, -2, 1 << 40, 0]).unwrap()),
            ("b", Value::new([3], vec![true, false, true]).unwrap()),
        ]),
    );
    let run = folder
        .run(&["run", "small.onnx", "--inputs", "in.safetensors", "--outputs", "out.safetensors"])
        .exits(0);
    assert!(run.stdout.contains("sum f32 2×2"), "{run}");
    let outputs = folder.values("out.safetensors");
    assert_eq!(outputs.get("sum"), Some(&Value::new([2, 2], vec![1.5f32, 2.5, 3.5, 0.]).unwrap()));
    assert_eq!(outputs.get("double"), Some(&Value::new([2, 2], vec![2i64, -4, 1 << 41, 0]).unwrap()));
    assert_eq!(outputs.get("not"), Some(&Value::new([3], vec![false, true, false]).unwrap()));
    // The outputs of one graph are inputs of the next.
    let next = Model {
        graph: Graph {
            inputs: small_graph().graph.outputs,
            outputs: vec![ValueSpec { name: "same".into(), ..small_graph().graph.outputs[0].clone() }],
            nodes: vec![node("Identity", &["sum"], "same")],
            ..Graph::default()
        },
        ..small_graph()
    };
    next.save(folder.at("next.onnx")).unwrap();
    folder.run(&["run", "next.onnx", "--inputs", "out.safetensors", "--outputs", "out.safetensors"]).exits(0);
    assert_eq!(folder.values("out.safetensors").get("same"), outputs.get("sum"));
    assert_eq!(folder.listing(), ["in.safetensors", "next.onnx", "out.safetensors", "small.onnx"]);
}

/// The vectors that `parity embed … --json -` writes.
fn embed(folder: &Folder, args: &[&str]) -> Vec<Vec<f32>> {
    let embedded = folder.run(&[&["embed"], args, &["--json", "-"]].concat()).exits(0).json();
    assert_eq!(embedded["model"], "bert-tiny");
    let rows: Vec<Vec<f32>> = serde_json::from_value(embedded["embeddings"].clone()).unwrap();
    assert_eq!(embedded["dimension"], 128);
    assert!(rows.iter().all(|row| row.len() == 128 && row.iter().all(|x| x.is_finite())));
    rows
}

/// The largest difference between two lists of vectors.
fn apart(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let value = |rows: &[Vec<f32>]| Value::new([rows.len(), rows[0].len()], rows.concat()).unwrap();
    distance(&value(a), &value(b), None).0
}

#[test]
fn embeddings_are_the_same_by_both_engines() {
    let folder = Folder::new();
    let texts = [
        "--text",
        "Read a file.",
        "--text",
        "Open the file, then read all of its lines.",
        "--text",
        "Read a file.",
    ];
    let reference = embed(&folder, &[&texts[..], &["--engine", "reference"]].concat());
    let candle = embed(&folder, &[&texts[..], &["--engine", "candle"]].concat());
    let default = embed(&folder, &texts);
    assert_eq!(reference.len(), 3);
    assert!(apart(&reference, &candle) <= EMBEDDINGS_APART, "{:e}", apart(&reference, &candle));
    assert!(apart(&default, &candle) <= EMBEDDINGS_APART, "{:e}", apart(&default, &candle));
    // The same text is the same vector, another is not.
    assert_eq!(candle[0], candle[2]);
    assert!(apart(&candle[..1], &candle[1..2]) > 0.1);
}

#[test]
fn embeddings_do_not_depend_on_their_neighbours() {
    let folder = Folder::new();
    // More than the 32 of one batch, of many lengths, so that most rows are padded.
    let texts: Vec<String> =
        (0..40).map(|length| format!("The file is {}.", "very ".repeat(length % 13))).collect();
    folder.write("texts.txt", texts.join("\n"));
    let together = embed(&folder, &["--file", "texts.txt"]);
    assert_eq!(together.len(), 40);
    for (row, text) in [0, 12, 31, 32, 39].map(|row| (row, &texts[row])) {
        let alone = embed(&folder, &["--text", text]);
        let apart = apart(&alone, &together[row..=row]);
        assert!(apart <= EMBEDDINGS_APART, "text {row} is {apart:e} apart");
    }
}

#[test]
fn embed_shows_a_table_and_writes_json_to_a_file() {
    let folder = Folder::new();
    let run = folder.run(&["embed", "--text", "Read a file.", "--json", "vectors.json"]).exits(0);
    assert!(run.stdout.contains("1 vectors of 128 numbers") && run.stdout.contains("Read a file."), "{run}");
    let json: Json = serde_json::from_slice(&std::fs::read(folder.at("vectors.json")).unwrap()).unwrap();
    assert_eq!(json["dimension"], 128);
}

fn bench(args: &[&str]) -> Vec<Json> {
    let results = Folder::new().run(&[&["bench"], args, &["--json", "-"]].concat()).exits(0).json();
    results["results"].as_array().unwrap().clone()
}

#[test]
fn bench_times_both_engines() {
    let results = bench(&["--threads", "1", "--batch", "2", "--seq", "8"]);
    let engines: Vec<&str> = results.iter().map(|result| result["engine"].as_str().unwrap()).collect();
    assert_eq!(engines, ["reference", "candle", "compiled"]);
    for result in &results {
        assert_eq!(result["threads"], 1);
        assert!(result["runs"].as_u64().unwrap() >= 30, "{result}");
        let [median, p90] = ["median_ms", "p90_ms"].map(|field| result[field].as_f64().unwrap());
        assert!(median > 0.0 && median <= p90, "{result}");
    }
}

#[test]
fn bench_times_one_engine_on_given_inputs() {
    let results = bench(&["--engine", "reference", "--runs", "31"]);
    assert_eq!(results.len(), 1);
    assert_eq!((&results[0]["engine"], &results[0]["runs"]), (&"reference".into(), &31.into()));

    let folder = Folder::new();
    folder.write_values("in.safetensors", &plain_inputs([1, 3], &[2, 7, 3]));
    let run = folder.run(&["bench", "--inputs", "in.safetensors"]).exits(0);
    assert!(run.stdout.contains("in.safetensors") && run.stdout.contains("candle"), "{run}");
}

#[test]
fn check_runs_given_inputs_and_nothing_else() {
    let folder = Folder::new();
    folder.write_values("in.safetensors", &plain_inputs([1, 3], &[2, 7, 3]));
    let (code, report) = folder.report(&["--inputs", "in.safetensors"]);
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()));
    let inputs = report["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), 1);
    assert_eq!((inputs[0]["shape"].to_string(), &inputs[0]["tokens"]), ("[1,3]".into(), &3.into()));
    assert_eq!(report["checks"][0]["outputs"][0]["compared"], 3 * 128);
}

#[test]
fn check_runs_given_texts_and_nothing_else() {
    let (code, report) =
        Folder::new().report(&["check", "--text", "Read a file.", "--text", "Read all of the lines of it."]);
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()));
    let inputs = report["inputs"].as_array().unwrap();
    assert_eq!((inputs.len(), &inputs[0]["shape"][0]), (1, &2.into()));
    // The shorter is padded.
    assert!(report["checks"][0]["outputs"][0]["padding"]["compared"].as_u64().unwrap() > 0);
}

#[test]
fn a_row_without_a_real_token_never_decides() {
    let folder = Folder::new();
    let mut inputs = plain_inputs([2, 2], &[2, 3, 2, 3]);
    inputs.insert("attention_mask", Value::new([2, 2], vec![1i64, 1, 0, 0]).unwrap());
    folder.write_values("in.safetensors", &inputs);
    let (_, report) = folder.report(&["--inputs", "in.safetensors"]);
    for (output, compared) in report["checks"][0]["outputs"].as_array().unwrap().iter().zip([2 * 128, 128]) {
        assert_eq!(output["compared"], compared, "{output:#}");
        assert_eq!(output["padding"]["compared"], compared, "{output:#}");
    }
}

#[test]
fn help_and_version_are_told() {
    let folder = Folder::new();
    let run = folder.run(&["--help"]).exits(0);
    for word in ["check", "run", "embed", "bench", "--onnx", "--atol", "Exit code 0"] {
        assert!(run.stdout.contains(word), "'{word}' is not said: {run}");
    }
    for command in ["check", "run", "embed", "bench"] {
        assert!(folder.run(&[command, "--help"]).exits(0).stdout.contains("Usage: parity"));
    }
    let run = folder.run(&["--version"]).exits(0);
    assert_eq!(run.stdout.trim(), format!("parity {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn assert_parity_passes_where_both_agree_and_tells_where_they_do_not() {
    let subject = Subject::open(None).unwrap();
    let reference = subject.reference(candle_core::DType::F32).unwrap().engine;
    let session = Session::new(&default_graph(), EngineKind::Candle).unwrap();
    let cases = default_cases(&subject.limits(), FixedShape::default(), None, None).unwrap();
    assert_parity!(reference, session, &cases);
    assert_parity!(reference, session, &cases[..1], atol = 1e-5);

    let mut wrong = default_graph();
    change_weight(&mut wrong, "model.embeddings.LayerNorm.bias", |elements, _| elements[0] += 0.1);
    let wrong = Session::new(&wrong, EngineKind::Candle).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| assert_parity!(reference, wrong, &cases))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    for word in ["candle against reference: fail", "last_hidden_state: ", "beyond 1e-6"] {
        assert!(message.contains(word), "'{word}' is not said: {message}");
    }
    // No input, nothing compared: that is no pass.
    catch_unwind(AssertUnwindSafe(|| assert_parity!(reference, session, &[]))).unwrap_err();
}

#[test]
fn ids_alone_are_enough_for_a_check() {
    let folder = Folder::new();
    let ids = without(without(plain_inputs([1, 4], &[1, 2, 3, 4]), "attention_mask"), "token_type_ids");
    folder.write_values("in.safetensors", &ids);
    let run = folder.run(&["--inputs", "in.safetensors"]).exits(0);
    for default in ["'attention_mask' was not given: a mask of ones", "'token_type_ids' was not given: zeros"]
    {
        assert!(run.stdout.contains(default), "{run}");
    }
    folder.run(&["bench", "--inputs", "in.safetensors"]).exits(0);
}

#[test]
fn the_oracle_runs_a_graph_in_f64() {
    let folder = Folder::new();
    let graph = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    // The graph holds √2 and √d as f32, so it is not the model to the last digit.
    for engine in [&["--engine", "oracle", "--dtype", "f64"][..], &["--dtype", "f64"]] {
        for (name, off, _) in run_baseline(&folder, &[&[graph.as_str()], engine].concat(), DType::F64) {
            assert!(off <= 1e-6, "{name} is {off} off");
        }
    }
}

#[test]
fn a_graph_that_candle_refuses_runs_on_another_engine_and_the_report_says_so() {
    let folder = Folder::new();
    let model = fixture("baseline");
    let graph = in_fixture("forms", "baseline/ort-all-ts14.onnx");
    let args = [model.to_str().unwrap(), "--onnx", &graph, "--atol", "1e-5"];
    let run = folder.run(&args).exits(0);
    assert!(run.stdout.contains("was run on compiled, because the candle engine cannot run node"), "{run}");
    assert!(run.stdout.contains("(com.microsoft.FusedMatMul, opset 1)"), "{run}");
    folder.run(&[&args[..], &["--engine", "candle"]].concat()).is_mistake(&["FusedMatMul", "the oracle can"]);
    folder.run(&[&args[..], &["--engine", "oracle"]].concat()).exits(0);
}

/// A graph of three inputs, the last optional, that hands each on; and what it is run on: a scalar, an empty list, bools.
fn generic(folder: &Folder) -> (String, NamedValues) {
    let values = NamedValues::from_iter([
        ("scalar", Value::scalar(2.5f32)),
        ("empty", Value::new([0, 2], Vec::<i64>::new()).unwrap()),
        ("flags", Value::new([2], vec![true, false]).unwrap()),
    ]);
    let spec = |name: &str, value: &Value, optional| ValueSpec {
        name: name.into(),
        dtype: value.dtype(),
        shape: Some(value.shape().iter().map(|&size| Dim::Fixed(size)).collect()),
        optional,
    };
    let flags = values.get("flags").unwrap();
    let model = Model {
        ir_version: 8,
        opsets: [(String::new(), 17)].into(),
        graph: Graph {
            inputs: values.iter().map(|(name, value)| spec(name, value, name == "flags")).collect(),
            outputs: values.iter().map(|(name, value)| spec(&format!("{name}_out"), value, false)).collect(),
            initializers: [("flags".to_string(), onnx_graph::Tensor::from_value(flags))].into(),
            nodes: values.names().map(|name| node("Identity", &[name], &format!("{name}_out"))).collect(),
            ..Graph::default()
        },
        ..Model::default()
    };
    model.save(folder.at("graph.onnx")).unwrap();
    (folder.at("graph.onnx").to_str().unwrap().to_string(), values)
}

#[test]
fn a_generic_graph_runs_on_a_test_folder_and_is_held_to_its_outputs() {
    let folder = Folder::new();
    let (graph, values) = generic(&folder);
    // ONNX's test_data_set_0: a TensorProto a file, here without names, so by their places.
    let proto = |value: &Value| {
        let model = Model {
            ir_version: 8,
            opsets: [(String::new(), 17)].into(),
            graph: Graph {
                initializers: [(String::new(), onnx_graph::Tensor::from_value(value))].into(),
                ..Graph::default()
            },
            ..Model::default()
        };
        prost::Message::encode_to_vec(&model.to_proto().graph.unwrap().initializer[0])
    };
    std::fs::create_dir(folder.at("test_data_set_0")).unwrap();
    // The third input may be left out; its output is there all the same.
    for (index, (_, value)) in values.iter().enumerate() {
        if index < 2 {
            folder.write(&format!("test_data_set_0/input_{index}.pb"), proto(value));
        }
        folder.write(&format!("test_data_set_0/output_{index}.pb"), proto(value));
    }
    let args =
        ["--inputs", "test_data_set_0", "--expected", "test_data_set_0", "--outputs", "out.safetensors"];
    for engine in ["candle", "oracle"] {
        let run = folder.run(&[&["run", &graph, "--engine", engine], &args[..]].concat()).exits(0);
        assert_eq!(run.stdout.matches("pass").count(), 2, "{run}");
        assert!(run.stdout.contains("empty_out: nothing was compared"), "{run}");
        let outputs = folder.values("out.safetensors");
        for (name, value) in values.iter() {
            assert_eq!(outputs.get(&format!("{name}_out")), Some(value), "{engine}");
        }
    }
    // Another value, another shape: each is a fail.
    for other in [Value::scalar(2.75f32), Value::new([1], vec![2.5f32]).unwrap()] {
        folder.write("test_data_set_0/output_0.pb", proto(&other));
        let run = folder.run(&[&["run", &graph], &args[..]].concat()).exits(1);
        assert!(run.stdout.contains("fail  scalar_out"), "{run}");
    }
    folder.write("test_data_set_0/input_0.pb", b"\x0f not a tensor");
    folder.run(&[&["run", &graph], &args[..]].concat()).is_mistake(&["input_0.pb"]);
    std::fs::create_dir(folder.at("nothing")).unwrap();
    let args = ["--inputs", "nothing", "--outputs", "out.safetensors"];
    folder.run(&[&["run", &graph], &args[..]].concat()).is_mistake(&["nothing has no input_0.pb"]);
}

#[test]
fn numpy_archives_are_inputs_and_expected_outputs() {
    let folder = Folder::new();
    let archive = |name: &str| {
        house().join("crates/judge/src/tensors/testdata").join(name).to_str().unwrap().to_string()
    };
    let spec = |name: &str| ValueSpec {
        name: name.into(),
        dtype: DType::I64,
        shape: Some(vec![Dim::Any, Dim::Any]),
        optional: false,
    };
    let model = Model {
        ir_version: 8,
        opsets: [(String::new(), 17)].into(),
        graph: Graph {
            inputs: vec![spec("ids")],
            outputs: vec![spec("out")],
            nodes: vec![node("Identity", &["ids"], "out")],
            ..Graph::default()
        },
        ..Model::default()
    };
    model.save(folder.at("graph.onnx")).unwrap();
    let args = ["run", "graph.onnx", "--outputs", "out.safetensors", "--inputs"];
    let run = |more: &[&str]| folder.run(&[&args[..], more].concat());
    run(&[&archive("ids.npz"), "--expected", &archive("out.npz")]).exits(0);
    let ids = Value::new([2, 2], vec![1i64, -2, 3, 4]).unwrap();
    assert_eq!(folder.values("out.safetensors").get("out"), Some(&ids));
    // More than the graph takes or gives is said, not passed over.
    run(&[&archive("compressed.npz")]).is_mistake(&["there is no input 'mask'", "ids"]);
    run(&[&archive("ids.npz"), "--expected", &archive("ids.npz")]).is_mistake(&["output 'ids'", "gives out"]);
    run(&[&archive("fortran.npz")]).is_mistake(&["fortran.npz", "column by column"]);
}

/// What `run` writes is what its name says, and is read back by value: in f64 and f16, too.
#[test]
fn outputs_are_written_in_the_form_of_their_name() {
    let folder = Folder::new();
    folder.write_values("in.safetensors", &plain_inputs([1, 4], &[1, 2, 3, 4]));
    let graph = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    let run = |more: &[&str]| folder.run(&[&["run", &graph, "--inputs", "in.safetensors"], more].concat());
    run(&["--outputs", "out.safetensors"]).exits(0);
    run(&["--outputs", "out.npz"]).exits(0);
    let (expected, found) = (folder.values("out.safetensors"), folder.values("out.npz"));
    assert!(std::fs::read(folder.at("out.npz")).unwrap().starts_with(b"PK"));
    assert!(found.len() == 2 && found.iter().eq(expected.iter()));
    let named = run(&["--outputs", "out.npy"]).is_mistake(&["out.npy", "last_hidden_state", ".npz"]);
    assert!(named.contains("there are 2") && !folder.at("out.npy").exists(), "{named}");

    // One output is an array alone, which is named by whom it is for.
    let mut model = baseline_graph();
    model.graph.outputs.retain(|spec| spec.name == "last_hidden_state");
    model.save(folder.at("one.onnx")).unwrap();
    let one = ["run", "one.onnx", "--inputs", "in.safetensors"];
    folder.run(&[&one[..], &["--outputs", "out.npy"]].concat()).exits(0);
    assert!(std::fs::read(folder.at("out.npy")).unwrap().starts_with(b"\x93NUMPY"));
    let same = [&one[..], &["--outputs", "again", "--expected", "out.npy"]].concat();
    folder.run(&same).exits(0);

    let [hidden] = ["last_hidden_state"].map(|name| expected.get(name).unwrap().clone());
    let numbers = hidden.to_f64();
    let half: Vec<half::f16> = numbers.iter().map(|&x| half::f16::from_f64(x)).collect();
    let wide = Value::new(hidden.shape(), numbers).unwrap();
    let half = Value::new(hidden.shape(), half).unwrap();
    let hold = |value: Value, atol: &str| {
        folder.write_values("expected.safetensors", &NamedValues::from_iter([("last_hidden_state", value)]));
        let more = ["--outputs", "again", "--expected", "expected.safetensors", "--atol", atol];
        folder.run(&[&one[..], &more].concat()).code
    };
    assert_eq!([hold(wide, "1e-6"), hold(half.clone(), "1e-2"), hold(half, "1e-6")], [0, 0, 1]);
}
