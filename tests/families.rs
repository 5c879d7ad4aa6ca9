//! The families beside BERT have what BERT has: tokens as transformers makes them, answers as its
//! pipelines give them, graphs that are proven, graphs of our own, and faults that are found.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bert_pipeline::pipeline::{
    Aggregation, Embeddings, EngineChoice, FillMask, MultipleChoice, Options, Pipeline as _,
    QuestionAnswering, TextClassification, TokenClassification,
};
use bert_pipeline::{Text, Tokenizer};
use checkpoint::ModelFiles;
use engine::Value;
use onnx_export::{Shape, Target, export};
use onnx_graph::{Attribute, Model, Node, Tensor as Constant};
use onnx_session::{EngineKind, Session};
use parity::inputs::{EmbeddingTables, cases_for};
use parity::proof::Scope;
use parity::report::GraphReport;
use parity::selftest::selftest;
use parity::trial::{Graph, Trial};
use parity::{Bounds, References, Subject, Verdict};
use serde_json::{Value as Json, json};

use crate::common::{Folder, fixture, node, node_mut, reroute};

/// Families that have fixtures and no description yet.
const NOT_YET: [&str; 2] = ["bert", "deberta-v2"];

/// Models whose angles depend on how long a text is, or are spread otherwise: no published
/// config.json says so, and they are refused by name.
const REFUSED: [&str; 2] = ["nomic-bert/scaled", "gte/mixed"];

/// How far a score may be from transformers', and an element of a vector of length 1 from
/// PyTorch's: both round to f32 in every layer, in another order.
const TOLERANCE: f64 = 1e-5;

/// How far a correct graph may be from its checkpoint in f64, relative to values above 1. The
/// largest that was measured is 1.6e-13.
const PROVEN: f64 = 1e-12;

fn table(name: &str) -> Json {
    serde_json::from_slice(&std::fs::read(fixture("families").join(name)).unwrap()).unwrap()
}

/// Whether a fixture's family has a description.
pub fn is_known(name: &str) -> bool {
    !NOT_YET.contains(&name.split('/').next().unwrap()) && !REFUSED.contains(&name)
}

fn files(name: &str) -> ModelFiles {
    ModelFiles::from_folder(fixture("families").join(name)).unwrap()
}

/// The graphs of every model: model, file, and whether it is right.
fn graphs() -> Vec<(String, PathBuf, bool)> {
    let index = table("index.json");
    let known = index.as_array().unwrap().iter().filter(|entry| is_known(entry["name"].as_str().unwrap()));
    let of = |entry: &Json| {
        let name = entry["name"].as_str().unwrap().to_string();
        let graph = |graph: &Json| {
            let path = fixture("families").join(&name).join("onnx").join(graph["file"].as_str().unwrap());
            (name.clone(), path, graph["wrong"].is_null())
        };
        entry["onnx"].as_array().unwrap().iter().map(graph).collect::<Vec<_>>()
    };
    known.flat_map(of).collect()
}

/// Several at once.
fn for_each<T: Sync>(all: &[T], one: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(of) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    one(of);
                }
            });
        }
    });
}

/// What a check makes of a graph.
fn checked(name: &str, model: &Model) -> GraphReport {
    let subject = Subject::open(fixture("families").join(name).to_str()).unwrap();
    let references = References::load(&subject).unwrap();
    let tokenizer = subject.tokenizer().unwrap();
    let tables = EmbeddingTables::of(&subject.files().checkpoint().unwrap(), subject.family());
    let cases = cases_for(
        subject.task(),
        &subject.limits(),
        &model.graph.inputs,
        tokenizer.as_ref(),
        tables.as_ref(),
    );
    let session = Session::new(model, EngineKind::Compiled).unwrap();
    let (cases, bounds) = (cases.unwrap(), Bounds::default());
    let trial = Trial::new(&subject, &references, &cases, |_| ()).unwrap();
    trial.judge(Graph::new("m.onnx", model, &[&session], &bounds), |_| ()).unwrap().report
}

#[test]
fn every_right_export_is_proven_for_every_input() {
    let graphs = graphs();
    assert!(graphs.len() >= 80, "only {}", graphs.len());
    let worst = Mutex::new(0f64);
    for_each(&graphs, |(name, path, is_right)| {
        let what = path.display();
        let (_, model) = Subject::open(fixture("families").join(name).to_str())
            .unwrap()
            .graph_or_export(Some(path))
            .unwrap();
        let report = checked(name, &model);
        if !is_right {
            assert!(report.verdict >= Verdict::Fail, "{what}: {:?}", report.verdict);
            return;
        }
        assert!(report.verdict <= Verdict::Rounding, "{what}: {:?}", report.verdict);
        let proof = &report.proof;
        assert_eq!((proof.scope, &proof.unexplained[..]), (Scope::EveryInput, &[][..]), "{what}");
        for output in &proof.outputs {
            let relative = output.max_rel.unwrap();
            assert!(relative <= PROVEN, "{what}: {relative:e}");
            let mut worst = worst.lock().unwrap();
            *worst = worst.max(relative);
        }
        let audit = report.weights.as_ref().unwrap();
        // optimum leaves the pooler out.
        let untraced: Vec<&String> =
            audit.untraced.iter().filter(|tensor| !tensor.contains("pooler.")).collect();
        assert_eq!((audit.verdict, untraced), (Verdict::Pass, Vec::new()), "{what}");
    });
    println!(
        "{} graphs, at most {:.1e} from their checkpoints in f64",
        graphs.len(),
        worst.into_inner().unwrap()
    );
}

#[test]
fn graphs_of_our_own_are_proven_at_every_opset() {
    let models =
        ["electra/plain", "distilbert/masked_lm", "roberta/plain", "xlm-roberta/sequence_classification"];
    let more = [
        "mpnet/plain",
        "mpnet/question_answering",
        "electra/multiple_choice",
        "albert/stiff",
        "albert/masked_lm",
        "modernbert/plain",
        "modernbert/stiff",
        "modernbert/sequence_classification_mean",
        "nomic-bert/stiff",
        "nomic-bert/multiple_choice",
        "gte/stiff",
        "gte/sequence_classification",
    ];
    let all: Vec<(&str, i64, Target)> = models
        .into_iter()
        .chain(more)
        .flat_map(|name| {
            [(13, Target::Onnx), (17, Target::Onnx), (21, Target::Onnx), (17, Target::CandleOnnx)]
                .map(|(opset, target)| (name, opset, target))
        })
        .collect();
    for_each(&all, |&(name, opset, target)| {
        let subject = Subject::open(fixture("families").join(name).to_str()).unwrap();
        let checkpoint = subject.files().checkpoint().unwrap();
        let shape = if opset == 17 { Shape::Static { batch: 2, sequence: 7 } } else { Shape::Dynamic };
        let shape = if name.ends_with("choice") { Shape::Dynamic } else { shape };
        let options =
            onnx_export::Options { task: subject.task(), opset, shape, target, ..Default::default() };
        let model = export(&checkpoint, subject.family(), &options).unwrap();
        let untagged = model.graph.nodes.iter().find(|node| node.metadata["module"].is_empty());
        assert!(untagged.is_none(), "{name}: {untagged:?}");
        let report = checked(name, &model);
        assert!(report.verdict <= Verdict::Rounding, "{name}, {options:?}: {:?}", report.verdict);
        let proof = &report.proof;
        assert_eq!(
            (proof.scope, &proof.unexplained[..]),
            (Scope::EveryInput, &[][..]),
            "{name}, {options:?}"
        );
    });
}

/// A graph whose weights stay in the checkpoint has lists of its own: which bucket a distance is
/// in.
#[test]
fn weights_may_stay_in_the_checkpoint() {
    let folder = Folder::new();
    let from = fixture("families/mpnet/plain");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        folder.write(&format!("m/{file}"), std::fs::read(from.join(file)).unwrap());
    }
    folder.run(&["export", "m", "-o", "m/model.onnx", "--weights-from", "safetensors"]).exits(0);
    let (code, report) = folder.report(&["m"]);
    assert_eq!((code, &report["proof"]["scope"]), (0, &json!("every_input")), "{report:#}");
}

/// Whether a model's graph is still proven for every input once it is changed.
fn is_proven_when_changed(name: &str, change: &dyn Fn(&mut Model)) -> bool {
    let path = fixture("families").join(name).join("onnx/ts14-eager-dynamic.onnx");
    let subject = Subject::open(fixture("families").join(name).to_str()).unwrap();
    let (_, mut model) = subject.graph_or_export(Some(&path)).unwrap();
    change(&mut model);
    let report = checked(name, &model);
    report.verdict <= Verdict::Rounding && report.proof.scope == Scope::EveryInput
}

/// Positions that are counted otherwise for a few texts: nobody says that they are the model's.
#[test]
fn positions_that_are_nearly_right_are_not_proven() {
    let is_proven = |change: &dyn Fn(&mut Model)| is_proven_when_changed("roberta/plain", change);
    assert!(is_proven(&|_| ()));
    for setting in ["reverse", "exclusive"] {
        let set = |model: &mut Model| {
            node_mut(model, "CumSum", "").attributes.insert(setting.into(), Attribute::Int(1));
        };
        assert!(!is_proven(&set), "{setting}");
    }
    // One more where 19 tokens were counted.
    let bump = |model: &mut Model| {
        let sums = node_mut(model, "CumSum", "").outputs[0].clone();
        let at = model.graph.nodes.iter().position(|node| node.op == "CumSum").unwrap();
        reroute(model, &sums, "bumped");
        let limit = Constant::from_value(&Value::scalar(19i32));
        model.graph.initializers.insert("nineteen".into(), limit);
        let mut cast = node("Cast", &["is_nineteen"], "one_more");
        cast.attributes.insert("to".into(), Attribute::Int(6));
        let nodes = [
            node("Equal", &[&sums, "nineteen"], "is_nineteen"),
            cast,
            node("Add", &[&sums, "one_more"], "bumped"),
        ];
        model.graph.nodes.splice(at + 1..at + 1, nodes);
    };
    assert!(!is_proven(&bump), "one more");
    let other = |model: &mut Model| {
        let id = Constant::from_value(&Value::scalar(2i64));
        model.graph.initializers.insert("other".into(), id);
        let mut nodes = model.graph.nodes.iter_mut();
        let is_about_ids = |node: &&mut Node| node.op == "Equal" && node.inputs[0] == "input_ids";
        nodes.find(is_about_ids).unwrap().inputs[1] = "other".into();
    };
    assert!(!is_proven(&other), "another id");
}

/// Windows, angles and gates that are nearly the model's.
#[test]
fn windows_angles_and_gates_that_are_nearly_right_are_not_proven() {
    let is_proven = |change: &dyn Fn(&mut Model)| is_proven_when_changed("modernbert/plain", change);
    assert!(is_proven(&|_| ()));
    let first = |model: &Model, op: &str| {
        let at = model.graph.nodes.iter().position(|node| node.op == op).unwrap();
        (at, model.graph.nodes[at].outputs[0].clone())
    };
    let insert = |model: &mut Model, at: usize, new: Vec<Node>, constant: Value| {
        model.graph.initializers.insert("limit".into(), Constant::from_value(&constant));
        model.graph.nodes.splice(at + 1..at + 1, new);
    };
    let narrower = |model: &mut Model| {
        let (at, _) = first(model, "LessOrEqual");
        model.graph.nodes[at].op = "Less".into();
    };
    assert!(!is_proven(&narrower), "narrower");
    // Tokens that are 27 apart, which only the longest texts have, see each other again.
    let far = |model: &mut Model| {
        let (at, near) = first(model, "LessOrEqual");
        let distances = model.graph.nodes[at].inputs[0].clone();
        reroute(model, &near, "seen");
        let new = vec![
            node("Equal", &[&distances, "limit"], "is_farthest"),
            node("Or", &[&near, "is_farthest"], "seen"),
        ];
        insert(model, at, new, Value::scalar(27i64));
    };
    assert!(!is_proven(&far), "far");
    let bent = |model: &mut Model| {
        let (at, cosines) = first(model, "Cos");
        reroute(model, &cosines, "bent");
        insert(model, at, vec![node("Max", &[&cosines, "limit"], "bent")], Value::scalar(-0.99f32));
    };
    assert!(!is_proven(&bent), "bent");
    let gated = |model: &mut Model| {
        let (at, gate) = first(model, "Erf");
        reroute(model, &gate, "clamped");
        insert(model, at, vec![node("Min", &[&gate, "limit"], "clamped")], Value::scalar(0.999_999f32));
    };
    assert!(!is_proven(&gated), "gated");
}

/// The largest part of the planted faults of ALBERT and gte that is put on another module than the
/// planted one, or is not explained. ALBERT's layers share their weights, and a fault of one run
/// may be told as well by what stands beside it; the bias of gte's one projection of queries, keys
/// and values shows in the attention. Measured: 5 of 173, and 4 of 112.
const ASTRAY: f64 = 0.1;

/// Every fault that is planted is caught, and nothing else; and nearly all are put where they are.
#[test]
fn planted_faults_are_found() {
    let graphs = graphs();
    let is_plain = |path: &Path| path.ends_with("plain/onnx/ts14-eager-dynamic.onnx");
    let plain: Vec<_> = graphs.iter().filter(|(_, path, _)| is_plain(path)).collect();
    assert!(plain.len() >= 7, "only {plain:?}");
    for_each(&plain, |(name, path, _)| {
        let subject = Subject::open(fixture("families").join(name).to_str()).unwrap();
        let (_, model) = subject.graph_or_export(Some(path)).unwrap();
        let tables = EmbeddingTables::of(&subject.files().checkpoint().unwrap(), subject.family());
        let limits = subject.limits();
        let cases = cases_for(subject.task(), &limits, &model.graph.inputs, None, tables.as_ref()).unwrap();
        let bounds = Bounds::default();
        let graph = Graph::new("m.onnx", &model, &[], &bounds);
        let result = selftest(&subject, graph, &cases, |_, _| ()).unwrap();
        let of = |is: &dyn Fn(&parity::selftest::Outcome) -> bool| -> Vec<String> {
            let found = result.outcomes.iter().filter(|outcome| is(outcome));
            found
                .map(|outcome| format!("{}: {:?} {:?}", outcome.fault, outcome.named, outcome.explanation))
                .collect()
        };
        assert_eq!(of(&|outcome| !outcome.right), [""; 0], "{name}");
        let astray = of(&|outcome| outcome.located == Some(false));
        let unexplained = of(&|outcome| outcome.explained == Some(false));
        println!("{name}: {} faults, {} on another module", result.faults, astray.len());
        let may_stray = name.starts_with("albert") || name.starts_with("gte");
        let part = if may_stray { ASTRAY } else { 0.0 };
        let may_stray = (part * result.faults as f64) as usize;
        assert!(astray.len() <= may_stray, "{name}: {astray:?}");
        assert!(unexplained.len() <= may_stray, "{name}: {unexplained:?}");
        // Layers without biases have fewer.
        assert!(result.faults >= 70, "{name}: {}", result.faults);
    });
}

#[test]
fn tokens_are_those_of_transformers() {
    let mut compared = 0;
    for (family, cases) in table("tokenizers.json").as_object().unwrap() {
        if !is_known(family) {
            continue;
        }
        for case in cases.as_array().unwrap() {
            let length = case["max_length"].as_u64().map(|length| length as usize);
            let files = files(&format!("{family}/plain"));
            let config: Json =
                serde_json::from_slice(&files.read("tokenizer_config.json").unwrap().unwrap()).unwrap();
            let most = config["model_max_length"].as_u64().map(|length| length as usize);
            let cuts = case["truncation"].as_bool() == Some(true);
            let tokenizer = Tokenizer::from_files(&files, None).unwrap();
            let tokenizer = tokenizer.with_truncation(length.or(most).filter(|_| cuts)).unwrap();
            let text = case["text"].as_str().unwrap();
            // transformers takes an empty second text for none.
            let text = match case["pair"].as_str().filter(|pair| !pair.is_empty()) {
                Some(pair) => Text::from((text, pair)),
                None => Text::from(text),
            };
            // RoBERTa's own files say what tokenizer.json does.
            if family == "roberta" {
                let own = ["config.json", "tokenizer_config.json", "vocab.json", "merges.txt"];
                let own = own.map(|name| (name, files.read(name).unwrap().unwrap()));
                let other = Tokenizer::from_files(&ModelFiles::from_memory("own", own), None).unwrap();
                let other = other.with_truncation(length.or(most).filter(|_| cuts)).unwrap();
                let [found, expected] = [&other, &tokenizer].map(|tokenizer| {
                    tokenizer.encode(std::slice::from_ref(&text)).unwrap().to_named_values()
                });
                assert_eq!(found.get("input_ids").unwrap(), expected.get("input_ids").unwrap(), "{case}");
            }
            let found = tokenizer.encode(&[text]).unwrap().to_named_values();
            for (name, expected) in case.as_object().unwrap() {
                let Some(expected) = expected.as_array() else { continue };
                let found = found.get(name).unwrap().as_slice::<i64>().unwrap().to_vec();
                assert_eq!(json!(found), json!(expected), "{family}: {name} of {case}");
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "only {compared}");
}

/// The checkpoint, and its graphs.
fn ways(name: &str) -> Vec<Options> {
    let options = Options::default().with_batch_size(3);
    let native = options.clone().with_engine(EngineChoice::Native);
    let engine = EngineChoice::Session(EngineKind::Compiled);
    let own = graphs()
        .into_iter()
        .filter(|(of, path, is_right)| of == name && *is_right && !path.to_string_lossy().contains("static"));
    std::iter::once(native)
        .chain(own.map(|(_, path, _)| options.clone().with_engine(engine).with_onnx(path)))
        .collect()
}

fn same(found: &Json, expected: &Json, place: &str) {
    match (found, expected) {
        (Json::Array(a), Json::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{place}: {found} {expected}");
            a.iter().zip(b).for_each(|(a, b)| same(a, b, place));
        }
        (Json::Object(a), Json::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{place}");
            a.iter().for_each(|(key, a)| same(a, &b[key], place));
        }
        (Json::Number(a), Json::Number(b)) if b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= TOLERANCE, "{place}: {a} {b}");
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

/// What a pipeline answers.
fn answer(files: &ModelFiles, case: &Json, options: &Options) -> Json {
    let (settings, inputs) = (&case["settings"], &case["inputs"]);
    let text = |input: &Json| input.as_str().unwrap().to_owned();
    let size = |name: &str| settings[name].as_u64().map(|size| size as usize);
    let options = match settings["truncation"].as_bool() {
        Some(truncation) => options.clone().with_truncation(truncation),
        None => options.clone(),
    };
    let pairs: Vec<(String, Option<String>)> = inputs
        .as_array()
        .unwrap()
        .iter()
        .map(|input| match input {
            Json::String(text) => (text.clone(), None),
            pair => (text(&pair[0]), pair.get(1).map(text)),
        })
        .collect();
    let texts: Vec<Text<'_>> = pairs
        .iter()
        .map(|(first, second)| match second {
            Some(second) => Text::from((first.as_str(), second.as_str())),
            None => Text::from(first.as_str()),
        })
        .collect();
    match case["task"].as_str().unwrap() {
        "text-classification" => {
            let mut pipe = TextClassification::from_files(files, &options).unwrap();
            if let Some(top_k) = size("top_k") {
                pipe = pipe.with_top_k(Some(top_k));
            }
            json!(pipe.run(&texts).unwrap())
        }
        "token-classification" => {
            let aggregation: Aggregation = settings["aggregation"].as_str().unwrap().parse().unwrap();
            let pipe = TokenClassification::from_files(files, &options).unwrap();
            json!(pipe.with_aggregation(aggregation).unwrap().run(&texts).unwrap())
        }
        "question-answering" => {
            let mut pipe = QuestionAnswering::from_files(files, &options).unwrap();
            if let Some(top_k) = size("top_k") {
                pipe = pipe.with_top_k(top_k).unwrap();
            }
            let impossible = settings["handle_impossible_answer"].as_bool().unwrap_or(false);
            json!(pipe.with_impossible_answers(impossible).run(&texts).unwrap())
        }
        "fill-mask" => {
            let mut pipe = FillMask::from_files(files, &options).unwrap();
            if let Some(top_k) = size("top_k") {
                pipe = pipe.with_top_k(top_k).unwrap();
            }
            json!(pipe.run(&texts).unwrap())
        }
        "multiple-choice" => {
            let pipe = MultipleChoice::from_files(files, &options).unwrap();
            let choices: Vec<String> = inputs[1].as_array().unwrap().iter().map(text).collect();
            let choices: Vec<&str> = choices.iter().map(String::as_str).collect();
            json!(pipe.choose(inputs[0].as_str().unwrap(), &choices).unwrap())
        }
        "sentence-embedding" => {
            let pipe = Embeddings::from_files(files, &options.with_truncation(true)).unwrap();
            let normalised = |vector: Vec<f32>| -> Vec<f64> {
                let vector: Vec<f64> = vector.into_iter().map(f64::from).collect();
                let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
                vector.into_iter().map(|x| x / length).collect()
            };
            json!(pipe.embed(&texts).unwrap().into_iter().map(normalised).collect::<Vec<_>>())
        }
        other => panic!("no pipeline for {other}"),
    }
}

/// What is expected, without what is no answer: where a context has fewer spans than are asked for,
/// transformers fills the list with spans of score 0.
fn possible(case: &Json) -> Json {
    let mut expected = case["expected"].clone();
    if case["task"] == "question-answering" {
        for answers in expected.as_array_mut().unwrap() {
            if let Json::Array(list) = answers {
                list.retain(|answer| answer["score"].as_f64() != Some(0.0));
                if let [one] = list.as_slice() {
                    *answers = one.clone();
                }
            }
        }
    }
    expected
}

#[test]
fn answers_are_those_of_transformers() {
    let all = table("pipelines.json");
    let mut tasks = std::collections::BTreeMap::<String, usize>::new();
    for case in all.as_array().unwrap() {
        let name = case["model"].as_str().unwrap();
        if !is_known(name) {
            continue;
        }
        for options in ways(name) {
            let place = format!("{name}, {}, {}, {:?}", case["task"], case["settings"], options.onnx);
            same(&answer(&files(name), case, &options), &possible(case), &place);
            *tasks.entry(case["task"].as_str().unwrap().into()).or_default() += 1;
        }
    }
    assert!(tasks.len() == 6 && tasks.values().all(|&count| count >= 8), "{tasks:?}");
}

/// A family that is not known here: there is no reference of it, and its graphs are run all the
/// same.
#[test]
fn graphs_of_other_families_are_run() {
    let folder = Folder::new();
    let from = fixture("families/distilbert/sequence_classification");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "onnx/optimum.onnx"] {
        folder.write(&format!("m/{file}"), std::fs::read(from.join(file)).unwrap());
    }
    let config = std::fs::read_to_string(folder.at("m/config.json")).unwrap();
    folder.write("m/config.json", config.replace("\"distilbert\"", "\"fnet\""));
    let graph = "m/onnx/optimum.onnx";
    let words = ["'fnet'", "distilbert", "parity run GRAPH --expected"];
    folder.run(&["m", "--onnx", graph]).is_mistake(&words);
    let run =
        folder.run(&["predict", "m", "--onnx", graph, "--text", "Maria lives in Berlin", "--json", "-"]);
    let found = run.exits(0).json();
    folder.write("m/config.json", &config);
    let run =
        folder.run(&["predict", "m", "--onnx", graph, "--text", "Maria lives in Berlin", "--json", "-"]);
    same(&found, &run.exits(0).json(), "the graph alone");
    folder.run(&[graph, "--onnx", graph]).exits(0);
}
