//! What the end-to-end tests share: a folder of their own in which the real binary runs, the fixtures and their golden values, and
//! graphs that are changed on purpose.

pub mod hub_server;
pub mod node_cases;
pub mod real_model;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use candle_core::Device;
use engine::{Engine, NamedValues, Value};
use onnx_graph::{Attribute, Model, Node, Tensor};
use parity::inputs::{EmbeddingTables, cases_for, common_inputs};
use parity::report::GraphReport;
use parity::trial::{Graph, Trial};
use parity::{Bounds, References, Subject};
use serde_json::Value as Json;
use tempfile::TempDir;

/// Everything in the environment that could change what the binary does: where models are cached, colours, threads.
const REMOVED: [&str; 21] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGING_FACE_HUB_TOKEN",
    "TRANSFORMERS_OFFLINE",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "http_proxy",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "NO_COLOR",
    "FORCE_COLOR",
    "RAYON_NUM_THREADS",
    "COLUMNS",
];

/// An empty folder, in which `parity` is run; it goes when the test ends.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of something in this folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Writes named values as a safetensors file.
    pub fn write_values(&self, name: &str, values: &NamedValues) {
        parity::tensors::write(self.at(name), values).unwrap();
    }

    /// The values of a safetensors file.
    pub fn values(&self, name: &str) -> NamedValues {
        parity::tensors::read(self.at(name)).unwrap()
    }

    /// A copy of a fixture's checkpoint, to be changed, in the folder `name`.
    pub fn copy_fixture(&self, fixture: &str, name: &str) {
        for file in ["config.json", "model.safetensors"] {
            self.write(&format!("{name}/{file}"), std::fs::read(self::fixture(fixture).join(file)).unwrap());
        }
    }

    /// The names in this folder.
    pub fn listing(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A command that runs in this folder, cut off from the caller's caches, and from the network. It may make backtraces: they must not be shown.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env("HOME", self.path()).env("RUST_BACKTRACE", "1");
        for variable in REMOVED {
            command.env_remove(variable);
        }
        command.env("HF_HUB_OFFLINE", "1");
        command
    }

    /// `parity`, with arguments.
    pub fn parity(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_parity"));
        command.args(args);
        command
    }

    /// Runs `parity`.
    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.parity(args))
    }

    /// Runs `parity … --json -`, and gives the JSON beside the exit code that it must agree with.
    pub fn report(&self, args: &[&str]) -> (i32, Json) {
        let run = self.run(&[args, &["--json", "-"]].concat());
        (run.code, run.json())
    }
}

/// What a command did.
pub struct Run {
    pub what: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let args: Vec<OsString> = command.get_args().map(Into::into).collect();
        let run = Self {
            what: format!("parity {args:?}"),
            code: status.code().unwrap_or_else(|| panic!("{args:?} was ended by a signal: {status}")),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        };
        assert!(!run.stderr.contains("panicked"), "{run}");
        run
    }

    /// That exit code, and nothing on stderr.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        assert!(self.stderr.is_empty(), "{self}");
        self
    }

    /// A user's mistake: exit code 2, nothing on stdout, and one line on stderr that says all these words. Gives the line's message.
    #[track_caller]
    pub fn is_mistake(&self, words: &[&str]) -> String {
        assert_eq!(self.code, 2, "{self}");
        assert!(self.stdout.is_empty(), "{self}");
        let message = self.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{self}"));
        assert!(message.ends_with('\n') && message.lines().count() == 1, "{self}");
        for word in words {
            assert!(message.contains(word), "'{word}' is not said: {self}");
        }
        message.trim_end().into()
    }

    /// stdout, which holds JSON and nothing else.
    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, code, stdout, stderr } = self;
        write!(f, "{what} gave exit code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// The top of the tree.
pub fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `cargo test` in a folder that `--repro` has made, as its README says.
pub fn replay(folder: &Folder, name: &str) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo)
        .args(["test", "--offline", "--quiet"])
        .current_dir(folder.at(name))
        .env("PARITY", env!("CARGO_BIN_EXE_parity"))
        .env("CARGO_TARGET_DIR", folder.at("target"))
        .output()
        .unwrap()
}

/// The folder of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    house().join("tests/fixtures").join(name)
}

/// The path of something in a fixture, as an argument.
pub fn in_fixture(name: &str, file: &str) -> String {
    fixture(name).join(file).to_str().unwrap().into()
}

/// The index of fixtures: name, and its graphs.
pub fn index() -> Vec<(String, Vec<Json>)> {
    let bytes = std::fs::read(house().join("tests/fixtures/index.json")).unwrap();
    let index: Vec<Json> = serde_json::from_slice(&bytes).unwrap();
    index
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap().into(), entry["onnx"].as_array().unwrap().clone()))
        .collect()
}

/// PyTorch's values by case: inputs and outputs under their names.
pub fn golden(path: impl AsRef<Path>) -> BTreeMap<String, NamedValues> {
    let mut cases: BTreeMap<String, NamedValues> = BTreeMap::new();
    for (name, value) in parity::tensors::read(path).unwrap() {
        let (case, name) = name.split_once('/').unwrap();
        cases.entry(case.into()).or_default().insert(name, value);
    }
    cases
}

/// The inputs among the values of a case.
pub fn inputs_of(case: &NamedValues) -> NamedValues {
    ["input_ids", "attention_mask", "token_type_ids"]
        .map(|name| (name, case.get(name).unwrap().clone()))
        .into_iter()
        .collect()
}

/// Full inputs for these ids: a mask of ones, token types of zeros.
pub fn plain_inputs(shape: [usize; 2], ids: &[i64]) -> NamedValues {
    let value = |data: Vec<i64>| Value::new(shape, data).unwrap();
    NamedValues::from_iter([
        ("input_ids", value(ids.to_vec())),
        ("attention_mask", value(vec![1; ids.len()])),
        ("token_type_ids", value(vec![0; ids.len()])),
    ])
}

/// Those inputs with one of them replaced.
pub fn with(mut inputs: NamedValues, name: &str, value: Value) -> NamedValues {
    inputs.insert(name, value);
    inputs
}

/// Those inputs with one of them taken out.
pub fn without(mut inputs: NamedValues, name: &str) -> NamedValues {
    inputs.remove(name).unwrap();
    inputs
}

/// The largest distance of two values of one shape, at the positions where `mask` is 1 (`[batch, sequence]`, if the values have these
/// axes), and the largest |expected| there. Nothing may be other than finite.
#[track_caller]
pub fn distance(found: &Value, expected: &Value, mask: Option<&Value>) -> (f64, f64) {
    assert_eq!(found.shape(), expected.shape());
    let mask = mask.filter(|mask| found.shape().len() == 3 && found.shape().starts_with(mask.shape()));
    let mask = mask.map(|mask| mask.as_slice::<i64>().unwrap());
    let per_position = mask.map_or(1, |mask| found.len() / mask.len());
    let (mut off, mut largest, mut compared) = (0f64, 0f64, 0);
    for (flat, (found, expected)) in found.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        if mask.is_some_and(|mask| mask[flat / per_position] == 0) {
            continue;
        }
        assert!(found.is_finite() && expected.is_finite(), "{found} against {expected} at element {flat}");
        off = off.max((found - expected).abs());
        largest = largest.max(expected.abs());
        compared += 1;
    }
    assert!(compared > 0, "nothing was compared");
    (off, largest)
}

/// How far one side is from the other, over all outputs and all positions, as a part of the largest value where that is above 1.
#[track_caller]
pub fn off(found: &NamedValues, expected: &NamedValues) -> f64 {
    assert_eq!(found.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
    let apart = found.iter().map(|(name, value)| {
        let (off, largest) = distance(value, expected.get(name).unwrap(), None);
        off / largest.max(1.0)
    });
    apart.fold(0.0, f64::max)
}

/// What stock candle-onnx makes of a file.
pub fn stock(path: &Path, inputs: &NamedValues) -> NamedValues {
    let proto = candle_onnx::read_file(path).unwrap();
    let inputs = inputs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_tensor(&Device::Cpu).unwrap()))
        .collect();
    let outputs = candle_onnx::simple_eval(&proto, inputs).unwrap();
    let declared = proto.graph.unwrap().output;
    declared
        .iter()
        .map(|output| (output.name.clone(), Value::from_tensor(&outputs[&output.name]).unwrap()))
        .collect()
}

/// What a check of a graph comes to, on the default inputs and on these engines.
pub fn judged(
    subject: &Subject,
    onnx: &str,
    model: &Model,
    engines: &[&dyn Engine],
    bounds: &Bounds,
) -> GraphReport {
    let references = References::load(subject).unwrap();
    let specs = &model.graph.inputs;
    let tables = EmbeddingTables::of(&subject.files().checkpoint().unwrap(), subject.family());
    let mut cases = cases_for(subject.task(), &subject.limits(), specs, None, tables.as_ref()).unwrap();
    for case in &mut cases {
        case.inputs = common_inputs(&case.inputs, references.single.engine.inputs(), specs).unwrap();
    }
    let trial = Trial::new(subject, &references, &cases, |_| ()).unwrap();
    let judged = trial.judge(Graph::new(onnx, model, engines, bounds), |_| ());
    judged.unwrap_or_else(|error| panic!("{onnx}: {error}")).report
}

/// The graph of the embedded model.
pub fn default_graph() -> Model {
    let (_, bytes) = bert_tiny::FILES.iter().find(|(name, _)| *name == "onnx/model.onnx").unwrap();
    Model::from_bytes(Bytes::from_static(bytes)).unwrap()
}

/// A graph of the fixture `baseline`.
pub fn baseline_graph() -> Model {
    Model::open(in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx")).unwrap()
}

/// A node by its operator and the end of its name.
pub fn node_mut<'a>(model: &'a mut Model, op: &str, name_ends: &str) -> &'a mut Node {
    let mut nodes =
        model.graph.nodes.iter_mut().filter(|node| node.op == op && node.name.ends_with(name_ends));
    let node = nodes.next().unwrap_or_else(|| panic!("there is no {op} '…{name_ends}'"));
    assert!(nodes.next().is_none(), "there are several {op} '…{name_ends}'");
    node
}

/// A new node of the same name as its only output.
pub fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: output.into(),
        op: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec![output.into()],
        ..Node::default()
    }
}

/// Takes a node out: its output is its first input from now on.
pub fn bypass(model: &mut Model, op: &str, name_ends: &str) {
    let node = node_mut(model, op, name_ends);
    node.op = "Identity".into();
    node.inputs.truncate(1);
    node.attributes = [].into();
}

/// Changes the elements of an f32 initializer; `change` gets them with the initializer's last dimension.
pub fn change_weight(model: &mut Model, name: &str, change: impl FnOnce(&mut [f32], usize)) {
    let tensor = model.graph.initializers.get_mut(name).unwrap_or_else(|| panic!("no initializer '{name}'"));
    let value = tensor.to_value().unwrap();
    let mut elements = value.as_slice::<f32>().unwrap().to_vec();
    change(&mut elements, *value.shape().last().unwrap());
    *tensor = Tensor::from_value(&Value::new(value.shape(), elements).unwrap());
}

/// Lets every node that read `old` read `new`.
pub fn reroute(model: &mut Model, old: &str, new: &str) {
    for input in model.graph.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
        if input == old {
            *input = new.into();
        }
    }
}

/// An attribute for a node of [`node`].
pub fn tensor_attribute(value: &Value) -> Attribute {
    Attribute::Tensor(Tensor::from_value(value))
}
