//! Graphs that mean harm, through the real binary: each ends in one line on stderr that names the thing, within seconds and within a
//! memory limit that the operating system enforces. All are the graph of the fixture `baseline`, spoiled in one place.

use std::time::{Duration, Instant};

use crate::common::{Folder, Run, fixture, in_fixture, plain_inputs};
use bytes::Bytes;
use onnx_graph::proto::{
    AttributeProto, AttributeType, DataLocation, DataType, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto,
};
use prost::Message;

/// How long one run may take. All of them take a small part of a second; a build machine may be busy.
const LONGEST: Duration = Duration::from_secs(5);

/// How much address space one run may have, in KiB: 512 MiB. That is for the binary, its maps and the stacks and heaps that its threads
/// reserve: a check of the graph as it is gets by with a quarter of it.
#[cfg(target_os = "linux")]
const ADDRESS_SPACE: usize = 1 << 19;

/// An output of the graph.
const OUTPUT: &str = "pooler_output";

/// 2^20 times 2^18 floats are 2^40 bytes.
const TERABYTE: [i64; 2] = [1 << 20, 1 << 18];

/// Shapes that nothing can have.
const OVERFLOWING: [[i64; 2]; 4] =
    [[1 << 32, 1 << 32], [i64::MAX, i64::MAX], [i64::MIN, i64::MIN], [-5, 1 << 62]];

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A node of the same name as its first output.
fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        name: outputs.first().copied().unwrap_or_default().into(),
        op_type: op.into(),
        input: strings(inputs),
        output: strings(outputs),
        ..NodeProto::default()
    }
}

/// The last node of the graph, whose output is [`OUTPUT`].
fn last(model: &mut ModelProto) -> &mut NodeProto {
    graph(model).node.iter_mut().find(|node| node.output == [OUTPUT]).unwrap()
}

/// Puts nodes behind the graph. Their `in` is what was the output, their `out` is the output now.
fn append(model: &mut ModelProto, nodes: Vec<NodeProto>) {
    let rename = |name: &mut String| match name.as_str() {
        "in" => *name = "inner".into(),
        "out" => *name = OUTPUT.into(),
        _ => {}
    };
    last(model).output = strings(&["inner"]);
    for mut node in nodes {
        node.input.iter_mut().for_each(rename);
        node.output.iter_mut().for_each(rename);
        graph(model).node.push(node);
    }
}

fn initializer(model: &mut ModelProto, name: &str, data_type: DataType, dims: &[i64], data: &[u8]) {
    graph(model).initializer.push(TensorProto {
        name: name.into(),
        data_type: data_type.into(),
        dims: dims.to_vec(),
        raw_data: Bytes::copy_from_slice(data),
        ..TensorProto::default()
    });
}

/// A list of int64.
fn list(model: &mut ModelProto, name: &str, numbers: &[i64]) {
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    initializer(model, name, DataType::Int64, &[numbers.len() as i64], &data);
}

/// Makes a weight of the graph external, with the file and these further entries.
fn external(model: &mut ModelProto, location: &str, entries: &[(&str, &str)]) {
    let tensor = weight(model);
    tensor.raw_data = Bytes::new();
    tensor.data_location = DataLocation::External.into();
    tensor.external_data = [&[("location", location)], entries]
        .concat()
        .iter()
        .map(|(key, value)| StringStringEntryProto { key: (*key).into(), value: (*value).into() })
        .collect();
}

const WEIGHT: &str = "model.pooler.dense.bias";

fn weight(model: &mut ModelProto) -> &mut TensorProto {
    graph(model).initializer.iter_mut().find(|tensor| tensor.name == WEIGHT).unwrap()
}

/// `parity` with a limit on its memory, where the system has one that can be set from outside.
fn limited(folder: &Folder, args: &[&str]) -> Run {
    #[cfg(target_os = "linux")]
    let mut command = {
        let script = format!("ulimit -v {ADDRESS_SPACE}; exec \"$0\" \"$@\"");
        let mut command = folder.command("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_parity")]).args(args);
        command
    };
    #[cfg(not(target_os = "linux"))]
    let mut command = folder.parity(args);
    // As many threads on every machine: each reserves address space.
    command.env("RAYON_NUM_THREADS", "2");
    let start = Instant::now();
    let run = Run::of(&mut command);
    assert!(start.elapsed() < LONGEST, "{run}\n--- after {:?}", start.elapsed());
    run
}

/// When a graph is refused, and so what a check makes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    /// When its file is read: an error.
    Read,
    /// When an engine prepares it, and by both: nothing can be compared.
    Load,
    /// When the oracle computes the node, if not earlier. The checkpoint runs these inputs: a graph that does not is not the same function.
    Run,
}

/// `hostile.onnx` in a folder cannot be run on an engine, with an error that says these words.
#[track_caller]
fn cannot_run(folder: &Folder, engine: &str, words: &[&str]) {
    folder.write_values("in.safetensors", &plain_inputs([1, 4], &[1, 2, 3, 4]));
    let files = ["hostile.onnx", "--inputs", "in.safetensors", "--outputs", "out.safetensors"];
    limited(folder, &[&["run"], &files[..], &["--engine", engine]].concat()).is_mistake(words);
    assert!(!folder.listing().contains(&"out.safetensors".into()), "an output is written");
}

/// What must become of `hostile.onnx` in a folder: an error that says these words, whichever way the graph is read.
#[track_caller]
fn is_refused(folder: &Folder, at: At, words: &[&str]) {
    cannot_run(folder, "oracle", words);
    cannot_run(folder, "candle", words);
    let model = fixture("baseline");
    let run = limited(folder, &["check", model.to_str().unwrap(), "--onnx", "hostile.onnx"]);
    let (code, mark) = match at {
        At::Read => {
            run.is_mistake(words);
            return;
        }
        At::Load => (3, "nor can the oracle: "),
        // That it takes more than the oracle may says nothing about the graph; what candle refuses to compute, it fails in.
        At::Run if run.stdout.contains("would take more than the limit") && run.code == 3 => (3, "on input "),
        At::Run => (1, "on input "),
    };
    assert_eq!(run.code, code, "{run}");
    let line = run.stdout.lines().find(|line| line.contains(mark)).unwrap_or_default();
    assert!(words.iter().all(|word| line.contains(word)), "{words:?} are not said: {run}");
}

fn baseline() -> ModelProto {
    let path = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap()
}

/// A folder with the graph, spoiled.
fn folder_with(spoil: impl FnOnce(&mut ModelProto)) -> Folder {
    let folder = Folder::new();
    let mut model = baseline();
    spoil(&mut model);
    folder.write("hostile.onnx", model.encode_to_vec());
    folder
}

/// Spoils the graph: what must become of it is [`is_refused`].
#[track_caller]
fn spoiled(spoil: impl FnOnce(&mut ModelProto), at: At, words: &[&str]) {
    is_refused(&folder_with(spoil), at, words);
}

/// The limits are generous enough for a graph that is not spoiled, and what the other tests append to it can be computed.
#[test]
fn the_limits_are_not_what_refuses() {
    let folder = Folder::new();
    let mut model = baseline();
    list(&mut model, "sizes", &[1, 4, 1, 1]);
    let tiled = node("Expand", &["in", "sizes"], &["tiled"]);
    append(
        &mut model,
        vec![tiled, node("ReduceMean", &["tiled"], &["mean"]), node("Add", &["in", "mean"], &["out"])],
    );
    folder.write("hostile.onnx", model.encode_to_vec());
    folder.write_values("in.safetensors", &plain_inputs([1, 4], &[1, 2, 3, 4]));
    for engine in ["oracle", "candle"] {
        let args =
            ["run", "hostile.onnx", "--inputs", "in.safetensors", "--outputs", "out", "--engine", engine];
        assert_eq!(limited(&folder, &args).code, 0);
    }
}

#[test]
fn a_cycle() {
    let two = |model: &mut ModelProto| {
        append(
            model,
            vec![
                node("Add", &["in", "b"], &["a"]),
                node("Neg", &["a"], &["b"]),
                node("Add", &["a", "b"], &["out"]),
            ],
        );
    };
    spoiled(two, At::Read, &["'b'", "node 'a'", "node 'b'"]);
    let itself = |model: &mut ModelProto| append(model, vec![node("Add", &["in", "out"], &["out"])]);
    spoiled(itself, At::Read, &[OUTPUT, "Add"]);
    let functions = |model: &mut ModelProto| {
        let function = |name: &str, calls: &str| FunctionProto {
            name: name.into(),
            domain: "test".into(),
            input: strings(&["x"]),
            output: strings(&["y"]),
            opset_import: [("", 17), ("test", 1)]
                .map(|(domain, version)| OperatorSetIdProto { domain: domain.into(), version })
                .into(),
            node: vec![NodeProto { domain: "test".into(), ..node(calls, &["x"], &["y"]) }],
            ..FunctionProto::default()
        };
        model.opset_import.push(OperatorSetIdProto { domain: "test".into(), version: 1 });
        model.functions = vec![function("Ping", "Pong"), function("Pong", "Ping")];
        append(model, vec![NodeProto { domain: "test".into(), ..node("Ping", &["in"], &["out"]) }]);
    };
    spoiled(functions, At::Read, &["Ping", "calls itself"]);
}

#[test]
fn a_value_that_is_missing() {
    spoiled(|model| last(model).input = strings(&["nowhere"]), At::Read, &["'nowhere'", "Tanh"]);
    spoiled(|model| last(model).output = strings(&["elsewhere"]), At::Read, &[OUTPUT]);
    spoiled(|model| last(model).input = strings(&[""]), At::Run, &["Tanh"]);
    // A value of a branch, read from outside.
    let branch = |name: &str, op: &str| AttributeProto {
        name: name.into(),
        r#type: AttributeType::Graph.into(),
        g: Some(GraphProto {
            name: name.into(),
            node: vec![node(op, &["inner"], &[op])],
            ..GraphProto::default()
        }),
        ..AttributeProto::default()
    };
    let leaks = |model: &mut ModelProto| {
        initializer(model, "yes", DataType::Bool, &[], &[1]);
        let mut choose = node("If", &["yes"], &["chosen"]);
        choose.attribute = vec![branch("then_branch", "Neg"), branch("else_branch", "Abs")];
        append(model, vec![choose, node("Add", &["in", "Neg"], &["out"])]);
    };
    spoiled(leaks, At::Read, &["'Neg'", "'out'"]);
}

#[test]
fn a_node_of_the_wrong_arity() {
    spoiled(|model| last(model).input.clear(), At::Load, &["Tanh"]);
    spoiled(|model| last(model).input.push("input_ids".into()), At::Load, &["Tanh"]);
    spoiled(|model| last(model).output.push("second".into()), At::Load, &["Tanh", "2 outputs"]);
    spoiled(|model| append(model, vec![node("Where", &["in"], &["out"])]), At::Load, &["Where", "'out'"]);
    spoiled(|model| append(model, vec![node("Concat", &[], &["out"])]), At::Load, &["Concat", "'out'"]);
    // As many as a million.
    let many = |model: &mut ModelProto| append(model, vec![node("Add", &vec!["in"; 1_000_000], &["out"])]);
    spoiled(many, At::Load, &["Add", "'out'"]);
}

#[test]
fn dimensions_that_overflow() {
    for dims in
        [&[1 << 32, 1 << 32][..], &[i64::MAX, 2], &[i64::MAX], &[1 << 62, 1 << 62, 4], &[-1], &[i64::MIN, 2]]
    {
        spoiled(|model| weight(model).dims = dims.to_vec(), At::Read, &[WEIGHT]);
    }
    for sizes in OVERFLOWING {
        for op in ["Tile", "Reshape"] {
            let ask = |model: &mut ModelProto| {
                list(model, "sizes", &sizes);
                append(model, vec![node(op, &["in", "sizes"], &["out"])]);
            };
            spoiled(ask, At::Run, &[op, "'out'"]);
        }
    }
}

/// A file beside the folder of the graph, which it must not read: [`is_refused`] with words of the reason.
#[test]
fn an_external_path_that_leaves_the_folder() {
    for (location, words) in [
        ("../secret.bin", &["../secret.bin"][..]),
        ("weights/../../secret.bin", &["secret.bin"]),
        ("/etc/passwd", &["/etc/passwd"]),
        ("", &["location"]),
        (".", &["location"]),
        ("no-such-file.bin", &["no-such-file.bin"]),
        ("weights", &["weights"]),
        ("weights\0.bin", &["weights"]),
    ] {
        let words = [&[WEIGHT], words].concat();
        let folder = Folder::new();
        folder.write("weights/some.bin", [0; 64]);
        let mut model = baseline();
        external(&mut model, location, &[]);
        folder.write("hostile.onnx", model.encode_to_vec());
        is_refused(&folder, At::Read, &words);
    }
    for entry in [("offset", "18446744073709551615"), ("offset", "1"), ("offset", "-1"), ("length", "65")] {
        let folder = Folder::new();
        folder.write("some.bin", [0; 64]);
        let mut model = baseline();
        external(&mut model, "some.bin", &[entry]);
        folder.write("hostile.onnx", model.encode_to_vec());
        is_refused(&folder, At::Read, &[WEIGHT, "some.bin"]);
    }
}

#[cfg(unix)]
#[test]
fn an_external_path_that_is_a_link_out_of_the_folder() {
    let elsewhere = Folder::new();
    elsewhere.write("secret.bin", [0; 64]);
    for target in [&elsewhere.at("secret.bin"), std::path::Path::new("/dev/zero")] {
        let folder = Folder::new();
        std::os::unix::fs::symlink(target, folder.at("weights.bin")).unwrap();
        let mut model = baseline();
        external(&mut model, "weights.bin", &[]);
        folder.write("hostile.onnx", model.encode_to_vec());
        is_refused(&folder, At::Read, &[WEIGHT, "weights.bin"]);
    }
}

#[test]
fn a_tensor_that_wants_a_terabyte() {
    // It is declared, and not there.
    spoiled(|model| weight(model).dims = TERABYTE.to_vec(), At::Read, &[WEIGHT, "1099511627776"]);
    let folder = folder_with(|model| {
        external(model, "some.bin", &[]);
        weight(model).dims = TERABYTE.to_vec();
    });
    folder.write("some.bin", [0; 64]);
    is_refused(&folder, At::Read, &[WEIGHT, "some.bin"]);

    // It is computed from constants.
    for node in [
        node("ConstantOfShape", &["sizes"], &["large"]),
        node("MatMul", &["column", "row"], &["large"]),
        node("Add", &["column", "row"], &["large"]),
    ] {
        let op = node.op_type.clone();
        let compute = |model: &mut ModelProto| {
            list(model, "sizes", &TERABYTE);
            initializer(model, "column", DataType::Float, &[1 << 20, 1], &[0; 4 << 20]);
            initializer(model, "row", DataType::Float, &[1, 1 << 18], &[0; 1 << 20]);
            append_mean(model, vec![node]);
        };
        spoiled(compute, At::Run, &[&op, "'large'"]);
    }
}

/// Appends the mean of `large`, which these nodes make, to what is handed out.
fn append_mean(model: &mut ModelProto, mut nodes: Vec<NodeProto>) {
    nodes.push(node("ReduceMean", &["large"], &["mean"]));
    nodes.push(node("Add", &["in", "mean"], &["out"]));
    append(model, nodes);
}

/// Graphs whose node `large` asks for a shape that is absurd: by constants, or by the shape of the inputs.
fn absurd_shapes() -> Vec<Folder> {
    let mut folders = Vec::new();
    for sizes in OVERFLOWING {
        folders.push(folder_with(|model| {
            list(model, "sizes", &[&sizes[..], &[1, 1]].concat());
            append_mean(model, vec![node("Expand", &["in", "sizes"], &["large"])]);
        }));
        folders.push(folder_with(|model| {
            list(model, "sizes", &sizes);
            append_mean(model, vec![node("ConstantOfShape", &["sizes"], &["large"])]);
        }));
    }
    for op in ["Expand", "ConstantOfShape"] {
        folders.push(folder_with(|model| {
            list(model, "sizes", &TERABYTE);
            initializer(model, "one", DataType::Float, &[1, 1], &[0; 4]);
            let inputs = if op == "Expand" { &["one", "asked"][..] } else { &["asked"] };
            let asked = node("Mul", &["shape", "sizes"], &["asked"]);
            append_mean(
                model,
                vec![node("Shape", &["input_ids"], &["shape"]), asked, node(op, inputs, &["large"])],
            );
        }));
    }
    folders
}

#[test]
fn a_shape_that_is_absurd_on_the_oracle() {
    for folder in absurd_shapes() {
        cannot_run(&folder, "oracle", &["'large'"]);
    }
}

#[test]
fn a_shape_that_is_absurd_on_candle() {
    for folder in absurd_shapes() {
        is_refused(&folder, At::Run, &["'large'"]);
    }
}

/// candle panics where it takes the softmax of nothing. The engine says so as an error of the node, and the panic itself prints nothing.
#[test]
fn a_panic_inside_candle() {
    let folder = folder_with(|model| {
        list(model, "none", &[0]);
        list(model, "last", &[-1]);
        let nothing = node("Slice", &["in", "none", "none", "last"], &["nothing"]);
        append(model, vec![nothing, node("Softmax", &["nothing"], &["out"])]);
    });
    cannot_run(&folder, "candle", &["'out'", "Softmax", "a fault inside candle-onnx"]);
}

/// Nobody writes to it, so opening it would wait for ever.
#[cfg(unix)]
#[test]
fn a_graph_that_is_a_pipe() {
    let folder = Folder::new();
    let pipe = folder.at("hostile.onnx");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    is_refused(&folder, At::Read, &["hostile.onnx", "not a regular file"]);
}
