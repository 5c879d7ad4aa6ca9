//! Checks of models with heads: every graph of every head is proven, faults in a head are caught and named, and the task is found or asked for.

#![expect(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{Folder, fixture, in_fixture};
use engine::{Engine, Value};
use onnx_graph::{Model, Tensor};
use onnx_session::{EngineKind, Session};
use parity::Verdict;
use parity::judge::{Bounds, References, Trial};
use parity::report::GraphReport;
use parity::suite::{FixedShape, as_choices, default_cases};
use parity::{Subject, check, decide};
use serde_json::Value as Json;

/// Correct graphs in f64, relative to the largest value. The largest that was measured is 5e-15; what a check asks for is 1e-10.
const PROVEN: f64 = 1e-12;

/// By how much an element of a weight is changed, relative to the largest of the tensor: far below what a comparison in f32 tells from rounding.
const NUDGE: f32 = 1e-5;

/// The heads' fixtures, with their graphs.
fn heads() -> Vec<(String, Vec<String>)> {
    let index: Vec<Json> =
        serde_json::from_slice(&std::fs::read(fixture("heads/index.json")).unwrap()).unwrap();
    let graphs = |entry: &Json| {
        let all = entry["onnx"].as_array().unwrap().iter();
        all.map(|graph| graph["file"].as_str().unwrap().to_string()).collect()
    };
    index.iter().map(|entry| (entry["name"].as_str().unwrap().to_string(), graphs(entry))).collect()
}

fn subject(head: &str) -> Subject {
    Subject::open(Some(&in_fixture("heads", head))).unwrap()
}

/// What a check of a graph comes to, on the engine `candle`.
fn judged(subject: &Subject, onnx: &str, model: &Model) -> GraphReport {
    let specs = &model.graph.inputs;
    let cases = default_cases(subject.config(), FixedShape::of(specs), None, None).unwrap();
    let mut cases = match subject.task() {
        candle_bert::Task::MultipleChoice => as_choices(cases, specs).unwrap(),
        _ => cases,
    };
    let references = References::load(subject).unwrap();
    for case in &mut cases {
        case.inputs = check::common_inputs(&case.inputs, references.single.engine.inputs(), specs).unwrap();
    }
    let session = Session::new(model, EngineKind::Candle).unwrap();
    let decides = decide::Decides::of(subject.task(), subject.config());
    let bounds = Bounds { options: check::Options { decides, ..Default::default() }, ..Bounds::default() };
    let trial = Trial::new(&references, &cases, |_| ()).unwrap();
    trial.judge(subject, onnx, model, &[&session], &bounds, |_| ()).unwrap()
}

/// The graphs of a head: those of the fixture, and one made here.
fn graphs(head: &str, files: &[String]) -> Vec<(String, Model)> {
    let subject = subject(head);
    let made = subject.graph_or_export(None).unwrap();
    let read = |file: &String| {
        let path = fixture("heads").join(head).join("onnx").join(file);
        (format!("{head}/{file}"), Model::open(path).unwrap())
    };
    files.iter().map(read).chain([made]).collect()
}

#[test]
fn every_graph_is_proven() {
    for (head, files) in heads() {
        let subject = subject(&head);
        for (onnx, model) in graphs(&head, &files) {
            let report = judged(&subject, &onnx, &model);
            let what = format!("{onnx}: {}", serde_json::to_string_pretty(&report).unwrap());
            assert!(report.verdict <= Verdict::Rounding, "{what}");
            assert!(report.proof.max_rel.unwrap() <= PROVEN, "{what}");
            assert_eq!(report.proof.outputs.len(), subject.task().outputs().len(), "{what}");
            assert!(
                report.culprits.is_empty() && report.relations.iter().all(|it| !it.is_violated()),
                "{what}"
            );
            let untraced = &report.weights.as_ref().unwrap().untraced;
            // A decoder that is tied is the table of words once more, or the table itself.
            assert!(untraced.iter().all(|tensor| tensor == "cls.predictions.decoder.weight"), "{what}");
            for output in report.checks.iter().flat_map(|check| &check.outputs) {
                let chooses = head != "regression";
                assert_eq!(output.decisions.is_some(), chooses, "{what}");
                let flipped = output.decisions.as_ref().map_or(0, |decisions| decisions.flipped);
                assert_eq!(flipped, 0, "{what}");
            }
        }
    }
}

#[test]
fn a_fault_in_a_head_is_caught_and_named() {
    let mut caught = 0;
    for (head, files) in heads() {
        let subject = subject(&head);
        let (onnx, model) = graphs(&head, &files).into_iter().next().unwrap();
        let audit = judged(&subject, &onnx, &model).weights.unwrap();
        for trace in audit.traced.iter().filter(|trace| !trace.tensor.starts_with("e")) {
            let mut wrong = model.clone();
            let Some(carrier) = wrong.graph.initializers.get_mut(&trace.initializer) else { continue };
            let value = carrier.to_value().unwrap();
            let mut elements = value.as_slice::<f32>().unwrap().to_vec();
            let largest = elements.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            elements[0] += NUDGE * largest.max(1.0);
            *carrier = Tensor::from_value(&Value::new(value.shape(), elements).unwrap());
            let report = judged(&subject, &onnx, &wrong);
            assert_eq!(report.verdict, Verdict::Fail, "{onnx}: {}", trace.tensor);
            let first = report.culprits.first().map(|culprit| culprit.module.as_str());
            // The normalisation of the transform ends it.
            let module = trace.module.as_str();
            // What is added to the decoder's product is a tensor of another name than the decoder's.
            let module = if module == "cls.predictions" { "cls.predictions.decoder" } else { module };
            assert!(
                first == Some(module) || first == Some(trace.module.as_str()),
                "{onnx}: {} was changed, {first:?} is blamed",
                trace.tensor
            );
            caught += 1;
        }
    }
    assert!(caught >= 18, "{caught}");
}

#[test]
fn another_activation_in_the_transform_is_explained() {
    let subject = subject("masked_lm");
    let (onnx, mut model) = subject.graph_or_export(None).unwrap();
    let config = subject.config();
    let node = model.graph.nodes.iter_mut().rev().find(|node| node.op == "Erf");
    let Some(node) = node else { panic!("{} has no erf in its transform", config.hidden_act) };
    node.op = "Tanh".into();
    let report = judged(&subject, &onnx, &model);
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(report.culprits[0].module.starts_with("cls.predictions.transform"), "{:?}", report.culprits);
}

#[test]
fn the_task_is_that_of_the_architecture_or_of_the_command_line() {
    let folder = Folder::new();
    let model = in_fixture("heads", "sequence_classification");
    let (code, report) = folder.report(&[&model]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["checks"][0]["outputs"][0]["name"], "logits");
    assert_eq!(report["checks"][0]["outputs"][0]["decisions"]["flipped"], 0);

    let (code, report) = folder.report(&[&model, "--task", "feature-extraction"]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["checks"][0]["outputs"][0]["name"], "last_hidden_state");

    // Another head's weights are not there.
    folder.run(&[&model, "--task", "question-answering"]).is_mistake(&["qa_outputs.weight"]);
    let run = folder.run(&[&model, "--task", "translation"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("'translation'") && run.stderr.contains("fill-mask"), "{run}");

    // A checkpoint with a head, exported for its features.
    folder.run(&["export", &model, "--task", "feature-extraction", "-o", "features.onnx"]).exits(0);
    let (code, report) = folder.report(&[&model, "--onnx", "features.onnx"]);
    assert_eq!(code, 0, "{report:#}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("BertForSequenceClassification") && notes.contains("without the head"), "{notes}");

    // Something else than a BERT.
    let config = std::fs::read_to_string(fixture("heads/sequence_classification/config.json")).unwrap();
    folder
        .write("other/config.json", config.replace("BertForSequenceClassification", "BertForFortuneTelling"));
    let weights = std::fs::read(fixture("heads/sequence_classification/model.safetensors")).unwrap();
    folder.write("other/model.safetensors", weights);
    folder.run(&["other"]).is_mistake(&["BertForFortuneTelling", "BertForMaskedLM"]);
}
