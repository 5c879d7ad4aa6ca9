//! Faults are planted in a graph of every fixture: all must be caught, and put on the right module.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{Folder, fixture, index};
use parity::inputs::{EmbeddingTables, FixedShape, default_cases};
use parity::selftest::{Selftest, selftest};
use parity::trial::Graph;
use parity::{Bounds, Subject, Verdict};

/// The share of faults that spoil one module for which it is the first that is named.
const LOCATED: f64 = 0.95;

fn run(name: &str, file: &str) -> Selftest {
    let subject = Subject::open(fixture(name).to_str()).unwrap();
    let path = fixture(name).join("onnx").join(file);
    let (onnx, model) = subject.graph(Some(&path)).unwrap();
    let tables = EmbeddingTables::of(&subject.files().checkpoint().unwrap(), subject.family());
    let fixed = FixedShape::of(&model.graph.inputs);
    let cases = default_cases(&subject.limits(), fixed, None, tables.as_ref()).unwrap();
    let bounds = Bounds::default();
    selftest(&subject, Graph::new(&onnx, &model, &[], &bounds), &cases, |_, _| ()).unwrap()
}

/// What did not come out as it must.
fn complaints(what: &str, result: &Selftest) -> Vec<String> {
    let mut complaints: Vec<String> = result
        .outcomes
        .iter()
        .filter(|outcome| !outcome.right)
        .map(|outcome| format!("{what}: {} came out {}", outcome.fault, outcome.verdict))
        .collect();
    let misplaced = result.outcomes.iter().filter(|outcome| outcome.located == Some(false));
    if (result.located as f64) < LOCATED * result.locatable as f64 {
        complaints.extend(misplaced.map(|outcome| {
            format!("{what}: {} was put on {:?}, not on {:?}", outcome.fault, outcome.named, outcome.module)
        }));
    }
    let unexplained = result.outcomes.iter().filter(|outcome| outcome.explained == Some(false));
    complaints.extend(
        unexplained
            .map(|outcome| format!("{what}: {} was explained by {:?}", outcome.fault, outcome.explanation)),
    );
    if result.verdict != Verdict::Pass || result.faults < 100 || result.harmless == 0 {
        complaints.push(format!("{what}: {} with {} faults", result.verdict, result.faults));
    }
    complaints
}

#[test]
fn every_fault_in_every_fixture_is_caught_and_located() {
    // Two exporters, three spellings of LayerNorm, both kinds of attention.
    let files = ["ts14-eager-dynamic.onnx", "dynamo20-sdpa-dynamic.onnx", "ts17-sdpa-dynamic.onnx"];
    let mut graphs: Vec<(String, String)> = Vec::new();
    for (at, (name, exports)) in index().into_iter().enumerate() {
        let dynamic: Vec<String> = exports
            .iter()
            .filter(|export| export["shapes"] == "dynamic")
            .map(|export| export["file"].as_str().unwrap().to_string())
            .collect();
        if name == "baseline" {
            graphs.extend(files.map(|file| (name.clone(), file.to_string())));
        } else {
            graphs.push((name.clone(), dynamic[at % dynamic.len()].clone()));
        }
    }
    assert_eq!(graphs.len(), 9 + files.len(), "{graphs:?}");
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                while let Some((name, file)) = graphs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = complaints(&format!("{name}/{file}"), &run(name, file));
                    all.lock().unwrap().extend(found);
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn the_command_tells_what_was_caught() {
    let folder = Folder::new();
    let model = fixture("types1");
    let run = folder
        .run(&["selftest", model.to_str().unwrap(), "--onnx", &graph(), "--json", "selftest.json"])
        .exits(0);
    assert!(run.stdout.starts_with("PASS"), "{run}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.at("selftest.json")).unwrap()).unwrap();
    assert_eq!(report["schema"], "parity-selftest/1");
    assert_eq!(report["faults"], report["caught"]);
    assert_eq!(report["false_alarms"], 0);
    assert_eq!(folder.run(&["render", "selftest.json"]).exits(0).stdout, run.stdout);
}

fn graph() -> String {
    fixture("types1").join("onnx/ts17-sdpa-dynamic.onnx").to_str().unwrap().into()
}

#[test]
fn a_graph_that_is_wrong_is_not_tested() {
    let folder = Folder::new();
    let model = fixture("baseline");
    let run = folder.run(&["selftest", model.to_str().unwrap(), "--onnx", &graph()]);
    run.is_mistake(&["types1", "not sound", "parity check"]);
}
