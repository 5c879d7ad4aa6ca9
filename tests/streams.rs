//! Everything that is taken as a file may be a pipe or standard input, which can be opened and read
//! only once.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::{Folder, Run, in_fixture, plain_inputs};
use serde_json::Value as Json;

/// `parity` with something on its standard input.
fn piped(folder: &Folder, args: &[&str], stdin: &[u8]) -> Run {
    let mut command = folder.parity(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    // It may end before it has read all.
    let writer = std::thread::spawn(move || _ = pipe.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Run {
        what: format!("parity {args:?}"),
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A named pipe in the folder, through which these bytes come once: whoever opens it again waits in
/// vain, and is told so.
#[cfg(unix)]
fn fifo(folder: &Folder, name: &str, bytes: Vec<u8>) -> PathBuf {
    let pipe = folder.at(name);
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let to = pipe.clone();
    std::thread::spawn(move || _ = File::options().write(true).open(to).unwrap().write_all(&bytes));
    pipe
}

fn embeddings(run: &Run) -> Vec<(String, Json)> {
    assert_eq!(run.code, 0, "{run}");
    let line = |line: &str| {
        let json: Json = serde_json::from_str(line).unwrap();
        (json["text"].as_str().unwrap().to_owned(), json["embedding"].clone())
    };
    run.stdout.lines().map(line).collect()
}

#[test]
fn texts_come_through_standard_input() {
    let folder = Folder::new();
    folder.write("lines.txt", "one\ntwo\r\n\nthree");
    let from_file = embeddings(&folder.run(&["embed", "--file", "lines.txt", "--jsonl", "-"]));
    let texts: Vec<&str> = from_file.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "", "three"]);
    let mut names = vec!["-"];
    if cfg!(unix) {
        names.push("/dev/stdin");
    }
    for name in names {
        let run = piped(&folder, &["embed", "--file", name, "--jsonl", "-"], b"one\ntwo\r\n\nthree");
        assert_eq!(embeddings(&run), from_file, "{name}");
        // Nothing is nothing to embed.
        let run = piped(&folder, &["embed", "--file", name, "--jsonl", "-"], b"");
        run.is_mistake(&["has no lines"]);
    }
    // What an editor puts before the first line belongs to no text.
    folder.write("marked.jsonl", "\u{feff}{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n");
    let marked = embeddings(&folder.run(&["embed", "--file", "marked.jsonl", "--jsonl", "-"]));
    assert_eq!(marked, from_file[..2]);
}

/// A line that cannot be read is told by its number, whether a model was asked for by then or not,
/// and nothing is handed out.
#[test]
fn a_line_that_is_none_is_named() {
    let folder = Folder::new();
    folder.write("first.jsonl", "{\"text\": 1}\n");
    folder.write("third.jsonl", "{\"text\": \"one\"}\n\n[]\n");
    folder.write("blank.jsonl", "\n\n");
    folder.write("latin.txt", b"one\ncaf\xe9\n");
    for (file, words) in [
        ("first.jsonl", ["line 1", "text"]),
        ("third.jsonl", ["line 3", "text"]),
        ("blank.jsonl", ["no lines", "nothing to read"]),
        ("latin.txt", ["line 2", "UTF-8"]),
    ] {
        for to in ["-", "vectors.jsonl"] {
            let run = folder.run(&["embed", "--file", file, "--jsonl", to]);
            run.is_mistake(&[&[file], &words[..]].concat());
        }
    }
    assert!(!folder.listing().contains(&"vectors.jsonl".into()));
}

#[cfg(unix)]
#[test]
fn texts_come_through_a_named_pipe() {
    let folder = Folder::new();
    fifo(&folder, "lines", b"one\ntwo\n".to_vec());
    let found = embeddings(&folder.run(&["embed", "--file", "lines", "--jsonl", "-"]));
    let texts: Vec<&str> = found.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["one", "two"]);
}

/// The fixture's graph, its inputs in both forms, and what comes out: all through pipes, each
/// opened once.
#[cfg(unix)]
#[test]
fn graphs_inputs_and_outputs_come_through_pipes() {
    let folder = Folder::new();
    let graph = std::fs::read(in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx")).unwrap();
    folder.write("graph.onnx", &graph);
    folder.write_values("in.safetensors", &plain_inputs([1, 4], &[1, 2, 3, 4]));
    let inputs = std::fs::read(folder.at("in.safetensors")).unwrap();
    folder.run(&["run", "graph.onnx", "--inputs", "in.safetensors", "--outputs", "out.safetensors"]).exits(0);
    let outputs = std::fs::read(folder.at("out.safetensors")).unwrap();

    let run = piped(&folder, &["inspect", "-"], &graph).exits(0);
    assert!(run.stdout.starts_with("standard input: opset 17"), "{run}");
    let args =
        ["run", "-", "--inputs", "in.safetensors", "--expected", "out.safetensors", "--outputs", "again"];
    assert!(piped(&folder, &args, &graph).exits(0).stdout.contains("\npass  last_hidden_state"));

    fifo(&folder, "graph", graph.clone());
    fifo(&folder, "in", inputs.clone());
    fifo(&folder, "out", outputs.clone());
    let args = ["run", "graph", "--inputs", "in", "--expected", "out", "--outputs", "again"];
    assert!(folder.run(&args).exits(0).stdout.contains("\npass  last_hidden_state"));

    // Two graphs are held to the same inputs and outputs, and a third against one of them.
    let model = crate::common::fixture("baseline");
    let model = model.to_str().unwrap();
    for (name, bytes) in [("g1", &graph), ("i1", &inputs), ("o1", &outputs), ("g2", &graph), ("i2", &inputs)]
    {
        fifo(&folder, name, bytes.clone());
    }
    let args = ["check", model, "--onnx", "g1", "--onnx", "graph.onnx", "--inputs", "i1", "--expected", "o1"];
    let (code, report) = folder.report(&args);
    assert_eq!(code, 0, "{}", report["verdict"]);
    // Both graphs on the oracle and on both engines, and the checkpoint in f32 and f64.
    assert_eq!(report["recorded"].as_array().unwrap().len(), 8);
    assert_eq!(report["graphs"].as_array().unwrap().len(), 2);
    let args = ["check", "g2", "--onnx", "graph.onnx", "--onnx", "graph.onnx", "--inputs", "i2"];
    let run = folder.run(&args).exits(0);
    assert!(run.stdout.contains("the ONNX graph computes what g2 does"), "{run}");

    // Both engines are timed on one graph.
    fifo(&folder, "g3", graph);
    fifo(&folder, "i3", inputs);
    let args =
        ["bench", model, "--onnx", "g3", "--inputs", "i3", "--engine", "candle", "--engine", "compiled"];
    folder.run(&args).exits(0);
}

/// numpy's archives are known by their first bytes where there is no name.
#[test]
fn an_archive_without_a_name() {
    let folder = Folder::new();
    let graph = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    let npz =
        std::fs::read(crate::common::house().join("crates/judge/src/tensors/testdata/plain.npz")).unwrap();
    let run = piped(&folder, &["run", &graph, "--inputs", "-", "--outputs", "out.safetensors"], &npz);
    // It was read: its arrays are not what the graph takes.
    run.is_mistake(&["there is no input 'ids'"]);
}

#[test]
fn what_came_once_does_not_come_again() {
    let folder = Folder::new();
    let run = piped(
        &folder,
        &["check", "--onnx", "-", "--inputs", "-"],
        &std::fs::read(in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx")).unwrap(),
    );
    run.is_mistake(&["standard input", "read already"]);
}

/// A graph that comes through a pipe has no folder that its weights could lie in.
#[test]
fn a_graph_without_a_folder_has_no_external_data() {
    let folder = Folder::new();
    folder
        .run(&["export", in_fixture("baseline", "").as_str(), "-o", "graph.onnx", "--external-data"])
        .exits(0);
    let graph = std::fs::read(folder.at("graph.onnx")).unwrap();
    piped(&folder, &["inspect", "-"], &graph).is_mistake(&[
        "standard input",
        "graph.onnx.data",
        "open it from its file",
    ]);
}
