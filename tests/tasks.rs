//! Checks of models with heads: every graph of every head is proven, faults in a head are caught and named, and the task is found or asked for.

use crate::common::{Folder, change_weight, fixture, in_fixture, judged, node_mut};
use onnx_graph::Model;
use onnx_session::{EngineKind, Session};
use parity::compare::decide::Decides;
use parity::report::GraphReport;
use parity::{Bounds, Subject, Verdict};
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
fn checked(subject: &Subject, onnx: &str, model: &Model) -> GraphReport {
    let session = Session::new(model, EngineKind::Candle).unwrap();
    let decides = Decides::of(subject.task(), subject.family());
    let bounds = Bounds { decides, ..Bounds::default() };
    judged(subject, onnx, model, &[&session], &bounds)
}

/// The graph that is made of the checkpoint: the folder has several, none of which is the one.
fn exported(subject: &Subject) -> (String, Model) {
    let options = onnx_export::Options { task: subject.task(), ..Default::default() };
    let checkpoint = subject.files().checkpoint().unwrap();
    let model = onnx_export::export(&checkpoint, subject.family(), &options).unwrap();
    (format!("{} exported", subject.name()), model)
}

/// The graphs of a head: those of the fixture, and one made here.
fn graphs(head: &str, files: &[String]) -> Vec<(String, Model)> {
    let subject = subject(head);
    let made = exported(&subject);
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
            let report = checked(&subject, &onnx, &model);
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
        let audit = checked(&subject, &onnx, &model).parts.weights.unwrap();
        let of_head = |tensor: &str| !tensor.starts_with("embeddings.") && !tensor.starts_with("encoder.");
        for trace in audit.traced.iter().filter(|trace| of_head(&trace.tensor)) {
            if !model.graph.initializers.contains_key(&trace.initializer) {
                continue;
            }
            let mut wrong = model.clone();
            change_weight(&mut wrong, &trace.initializer, |elements, _| {
                let largest = elements.iter().fold(1f32, |largest, x| largest.max(x.abs()));
                elements[0] += NUDGE * largest;
            });
            let report = checked(&subject, &onnx, &wrong);
            assert_eq!(report.verdict, Verdict::Fail, "{onnx}: {}", trace.tensor);
            let first = report.culprits.first().map(|culprit| culprit.module.as_str());
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
fn a_transform_without_its_activation_is_explained() {
    let subject = subject("masked_lm");
    let (onnx, mut model) = exported(&subject);
    let dense = node_mut(&mut model, "Add", "/transform/dense/Add").outputs[0].clone();
    node_mut(&mut model, "LayerNormalization", "/transform/LayerNorm/LayerNormalization").inputs[0] = dense;
    let report = checked(&subject, &onnx, &model);
    assert_eq!(report.verdict, Verdict::Fail);
    let [culprit] = &report.culprits[..] else { unreachable!("{:?}", report.culprits) };
    assert_eq!(culprit.module, "cls.predictions.transform.(activation)");
    assert!(culprit.explanation.as_ref().unwrap().starts_with("activation left out: "), "{culprit:?}");
}

#[test]
fn the_task_is_that_of_the_architecture_or_of_the_command_line() {
    let folder = Folder::new();
    folder.copy_fixture("heads/sequence_classification", "model");
    let model = folder.at("model").display().to_string();
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
