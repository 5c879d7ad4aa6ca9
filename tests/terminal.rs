//! Names from files reach a terminal as letters: no escape, no second line, no other direction,
//! nothing that is not seen, whatever the command.

use std::ffi::OsString;

use crate::common::{Folder, Run, baseline_graph, plain_inputs};
use onnx_graph::{Model, Node};

/// Clears the screen, forges a line, reads backwards, and has what cannot be seen: C0 and C1
/// controls, a line break of each kind, marks of direction, letters without a width.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}[31mb\r\nPASS  forged\u{85}\u{9b}1m\u{7}\u{8}\u{7f}\u{2028}\u{202e}c\u{2066}d\u{200b}\u{200d}\u{feff}\u{ad}\u{61c}\u{e0041}e";

/// What must become of it. Within an error, lines are divided by a colon.
const SHOWN: [&str; 2] = ["a␛[2J␛[31mb", "PASS  forged��1m␇␈␡��c�d������e"];

/// Nothing is on the terminal but letters and line breaks, and no line begins as the name wants it.
#[track_caller]
fn is_inert(run: &Run) {
    for (text, name) in [(&run.stdout, "stdout"), (&run.stderr, "stderr")] {
        let stray = |letter: char| {
            (letter.is_control() && letter != '\n')
                || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
        };
        let found: Vec<char> = text.chars().filter(|letter| stray(*letter)).collect();
        assert!(found.is_empty(), "{name} has {found:?}: {run}");
        assert!(!text.lines().any(|line| line.starts_with("PASS  forged")), "{name} is forged: {run}");
    }
}

/// The name was shown, and is inert.
#[track_caller]
fn shows(run: &Run) {
    is_inert(run);
    let all = format!("{}{}", run.stdout, run.stderr);
    assert!(SHOWN.iter().all(|part| all.contains(part)), "the name is not shown: {run}");
}

/// The fixture's graph with the name for its first node, its producer, and an output beside the
/// others.
fn graph(change: impl FnOnce(&mut Model)) -> Vec<u8> {
    let mut model = baseline_graph();
    model.producer = HOSTILE.into();
    let hidden = model.graph.outputs[0].clone();
    model.graph.nodes.push(Node {
        name: HOSTILE.into(),
        op: "Identity".into(),
        inputs: vec![hidden.name.clone()],
        outputs: vec![HOSTILE.into()],
        ..Node::default()
    });
    model.graph.outputs.push(engine::ValueSpec { name: HOSTILE.into(), ..hidden });
    change(&mut model);
    model.to_bytes()
}

fn folder() -> (Folder, String) {
    let folder = Folder::new();
    folder.write("graph.onnx", graph(|_| ()));
    folder.write_values("in.safetensors", &plain_inputs([1, 4], &[1, 2, 3, 4]));
    let model = crate::common::fixture("baseline").to_str().unwrap().to_owned();
    (folder, model)
}

#[test]
fn every_command_that_reads_a_graph() {
    let (folder, model) = folder();
    shows(&folder.run(&["inspect", "graph.onnx"]));
    shows(&folder.run(&["run", "graph.onnx", "--inputs", "in.safetensors", "--outputs", "out.safetensors"]));
    shows(&folder.run(&["check", &model, "--onnx", "graph.onnx"]));
    shows(&folder.run(&["check", "graph.onnx", "--onnx", "graph.onnx"]));
    // What they say on stdout as JSON is the name itself, in letters.
    for args in [&["inspect", "graph.onnx"][..], &["check", "graph.onnx", "--onnx", "graph.onnx"]] {
        let run = folder.run(&[args, &["--json", "-"]].concat());
        is_inert(&run);
        assert!(
            run.json().to_string().contains(serde_json::to_string(HOSTILE).unwrap().trim_matches('"')),
            "{run}"
        );
    }
}

/// What a node does wrong is said with its name.
#[test]
fn a_report_that_fails() {
    let (folder, model) = folder();
    let spoiled = graph(|model| {
        let node = model.graph.nodes.iter_mut().rfind(|node| node.op == "MatMul").unwrap();
        node.name = format!("{HOSTILE}2");
        node.op = "Sub".into();
    });
    folder.write("graph.onnx", spoiled);
    for command in ["check", "bench", "selftest"] {
        let run = folder.run(&[command, &model, "--onnx", "graph.onnx"]);
        assert_ne!(run.code, 0, "{run}");
        is_inert(&run);
    }
    shows(&folder.run(&["check", &model, "--onnx", "graph.onnx", "--json", "saved.json"]));
    shows(&folder.run(&["render", "saved.json"]));
}

#[test]
fn errors_and_expected_outputs() {
    let (folder, model) = folder();
    folder.write(
        "graph.onnx",
        graph(|model| model.graph.nodes[0].inputs = vec![format!("{HOSTILE} is missing")]),
    );
    for args in [
        &["inspect", "graph.onnx"][..],
        &["run", "graph.onnx", "--inputs", "in.safetensors", "--outputs", "out.safetensors"],
        &["check", &model, "--onnx", "graph.onnx"],
        &["bench", &model, "--onnx", "graph.onnx"],
        &["selftest", &model, "--onnx", "graph.onnx"],
    ] {
        let run = folder.run(args);
        assert_eq!(run.code, 2, "{run}");
        shows(&run);
    }
    // Inputs that a file names.
    let mut inputs = plain_inputs([1, 4], &[1, 2, 3, 4]);
    inputs.insert(HOSTILE, inputs.get("input_ids").unwrap().clone());
    folder.write_values("more.safetensors", &inputs);
    folder.copy_fixture("baseline", "plain");
    for args in [
        &["check", "plain", "--inputs", "more.safetensors"][..],
        &["bench", "plain", "--inputs", "more.safetensors"],
    ] {
        let run = folder.run(args);
        assert_eq!(run.code, 2, "{run}");
        shows(&run);
    }
}

/// A file whose name is hostile, as an argument, wherever one is taken; and as an argument that is
/// none.
#[cfg(unix)]
#[test]
fn names_of_files() {
    let (folder, model) = folder();
    for args in [
        &["inspect", HOSTILE][..],
        &["run", HOSTILE, "--inputs", "in.safetensors", "--outputs", "out.safetensors"],
        &["run", &model, "--inputs", HOSTILE, "--outputs", "out.safetensors"],
        &["check", HOSTILE],
        &["check", &model, "--inputs", HOSTILE],
        &["check", &model, "--junit", HOSTILE, "--atol", HOSTILE],
        &["embed", "--file", HOSTILE],
        &["embed", "--text", "a", "--json", &format!("missing/{HOSTILE}")],
        &["predict", HOSTILE, "--text", "a"],
        &["export", HOSTILE, "-o", "a.onnx"],
        &["bench", HOSTILE],
        &["selftest", HOSTILE],
        &[HOSTILE, HOSTILE],
    ] {
        let run = folder.run(args);
        assert_eq!(run.code, 2, "{run}");
        shows(&run);
    }
    let args = ["run", &model, "--inputs", "in.safetensors", "--outputs"].map(OsString::from);
    let mut command = folder.parity(&[]);
    shows(&Run::of(command.args(args).arg(HOSTILE)));
    assert!(folder.at(HOSTILE).exists());
}

/// Texts, and the labels and words of a model, stand in tables.
#[test]
fn texts_and_labels() {
    let folder = Folder::new();
    let run = folder.run(&["embed", "--text", "a\u{1b}[2J\nPASS  forged\u{202e}b"]);
    is_inert(&run);
    assert!(run.stdout.contains("a␛[2J PASS  forged"), "{run}");
    folder.write("lines.txt", "a\u{1b}[2J\u{85}b\r\n");
    is_inert(&folder.run(&["embed", "--file", "lines.txt"]));
    let run = folder.run(&["embed", "--file", "lines.txt", "--jsonl", "-"]);
    is_inert(&run);
    assert_eq!(run.json()["text"], "a\u{1b}[2J\u{85}b");
}

/// A head whose labels are hostile.
#[test]
fn predictions() {
    let folder = Folder::new();
    let head = crate::common::fixture("heads/sequence_classification");
    for entry in std::fs::read_dir(&head).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap().to_str().unwrap();
            folder.write(&format!("model/{name}"), std::fs::read(&path).unwrap());
        }
    }
    let path = folder.at("model/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let labels = config["id2label"].as_object_mut().unwrap();
    for label in labels.values_mut() {
        *label = HOSTILE.into();
    }
    let names = (0..labels.len())
        .map(|id| (if id == 0 { HOSTILE.into() } else { format!("{HOSTILE}{id}") }, id.into()));
    config["label2id"] = names.collect::<serde_json::Map<_, _>>().into();
    folder.write("model/config.json", config.to_string());
    shows(&folder.run(&["predict", "model", "--text", "a", "--engine", "reference"]));
}
