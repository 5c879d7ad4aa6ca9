//! A failing check as a folder that replays it, for whoever has to mend the graph.
//!
//! ```text
//! model.onnx                    the graph, weights inside
//! test_data_set_0/              its inputs, and the reference's outputs in f32, as ONNX's own tests have them
//! reference-f64.safetensors     the reference's outputs in f64
//! Cargo.toml, tests/replay.rs   `cargo test` runs the graph and holds it against these outputs
//! README.md
//! ```

use std::path::{Path, PathBuf};
use std::{fs, io};

use engine::{DType, NamedValues, NewFolder, ValueSpec, replace_file};
use onnx_eval::Precision;
use onnx_graph::{GraphError, Model, Tensor};

use crate::error::FitError;
use crate::inputs::fit_inputs;
use crate::tensors::{self, TensorsError};

const DATA: &str = "test_data_set_0";
const EXACT: &str = "reference-f64.safetensors";

/// The package around the data: no dependency, and a workspace of its own wherever it lies.
const MANIFEST: &str = "\
[package]
name = \"parity-repro\"
version = \"0.0.0\"
edition = \"2021\"
publish = false

[workspace]
";

/// What replays a failing check.
#[derive(Debug, Clone, Copy)]
pub struct Replay<'a> {
    /// The graph.
    pub graph: &'a Model,
    /// What it fails on, named as its inputs. What the graph does not take is left out.
    pub inputs: &'a NamedValues,
    /// The reference's outputs in f32. What the graph does not give is left out.
    pub expected: &'a NamedValues,
    /// The reference's outputs in f64.
    pub expected_f64: &'a NamedValues,
    /// In which precision the replay runs the graph. In f64 the oracle takes the graph's constants as they are, the f32 roundings of √2 and of
    /// others included, which alone may cost 1e-6; the proof of a check promotes them.
    pub precision: Precision,
    /// The largest |reference − graph| that passes the replay, at every position, padding included.
    pub atol: f64,
    /// The command line that found it.
    pub command: &'a str,
}

/// Why a failing check could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum FolderError {
    /// The folder has something in it already.
    #[error("{} is not empty, and nothing is overwritten: give a new folder", .0.display())]
    NotEmpty(PathBuf),
    /// The reference has none of the graph's outputs, so that there is nothing to hold it against.
    #[error("the reference has none of the graph's outputs, so a replay would compare nothing")]
    NothingExpected,
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The graph or a tensor could not be written.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The outputs in f64 could not be written.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// The inputs do not fit the graph.
    #[error(transparent)]
    Fit(#[from] FitError),
}

/// Writes a failing check to a folder, which is made if it is not there: all of it, or nothing.
///
/// # Errors
/// If the folder is not empty, the inputs do not fit the graph, no output can be compared, or a file cannot be written.
pub fn write(dir: &Path, replay: &Replay) -> Result<(), FolderError> {
    let graph = &replay.graph.graph;
    let inputs = fit_inputs(replay.inputs, &graph.inputs)?;
    let [expected, exact] =
        [replay.expected, replay.expected_f64].map(|outputs| of_graph(outputs, &graph.outputs));
    let compared = if replay.precision == Precision::F32 { &expected } else { &exact };
    if compared.is_empty() {
        return Err(FolderError::NothingExpected);
    }
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(FolderError::NotEmpty(dir.into()));
    }
    let folder = NewFolder::create(dir).map_err(failed(dir))?;
    fill(folder.path(), replay, &inputs, &expected, &exact)?;
    folder.finish().map_err(failed(dir))
}

fn fill(
    dir: &Path,
    replay: &Replay,
    inputs: &NamedValues,
    expected: &NamedValues,
    exact: &NamedValues,
) -> Result<(), FolderError> {
    let data = dir.join(DATA);
    let tests = dir.join("tests");
    for folder in [&data, &tests] {
        fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    replay.graph.save(dir.join("model.onnx"))?;
    for (kind, values) in [("input", inputs), ("output", expected)] {
        for (index, (name, value)) in values.iter().enumerate() {
            Tensor::from_value(value).save(data.join(format!("{kind}_{index}.pb")), name)?;
        }
    }
    tensors::write(dir.join(EXACT), exact)?;
    for (file, text) in [
        (dir.join("Cargo.toml"), MANIFEST.to_owned()),
        (tests.join("replay.rs"), test(replay)),
        (dir.join("README.md"), readme(replay)),
    ] {
        replace_file(&file, text.as_bytes()).map_err(failed(&file))?;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_path_buf();
    move |source| FolderError::Write { path, source }
}

/// Those of the outputs that the graph has, in its order.
fn of_graph(outputs: &NamedValues, specs: &[ValueSpec]) -> NamedValues {
    specs.iter().filter_map(|spec| Some((spec.name.clone(), outputs.get(&spec.name)?.clone()))).collect()
}

/// What the replay holds the graph against, and what `parity run` calls the precision.
fn expectation(precision: Precision) -> (&'static str, DType) {
    match precision {
        Precision::F32 => (DATA, DType::F32),
        Precision::F64 | Precision::Exact => (EXACT, DType::F64),
    }
}

/// The test, which knows no more than the command line.
fn test(replay: &Replay) -> String {
    let (expected, dtype) = expectation(replay.precision);
    format!(
        r#"//! Fails as long as model.onnx does not compute what its checkpoint does on these inputs.
//!
//! Runs `parity` as it is found on PATH, or the one that the variable PARITY names.

use std::path::Path;
use std::process::Command;

#[test]
fn replay() {{
    let parity = std::env::var_os("PARITY").unwrap_or_else(|| "parity".into());
    let outputs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outputs.safetensors");
    let output = Command::new(&parity)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["run", "model.onnx", "--inputs", "{DATA}", "--expected", "{expected}"])
        .args(["--dtype", "{dtype}", "--atol", "{atol:e}", "--outputs"])
        .arg(&outputs)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {{parity:?}}: {{error}}; name the binary in PARITY"));
    assert!(
        output.status.success(),
        "{{}}{{}}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}}
"#,
        atol = replay.atol,
    )
}

fn readme(replay: &Replay) -> String {
    let (expected, dtype) = expectation(replay.precision);
    let atol = replay.atol;
    let shapes: Vec<String> = replay
        .inputs
        .iter()
        .map(|(name, value)| format!("`{name}` {} {:?}", value.dtype(), value.shape()))
        .collect();
    // Indented, a command is code whatever it holds.
    let command = replay.command.replace('\n', "\n    ");
    format!(
        "\
# A graph that does not compute what its checkpoint does

Found by

    {command}

on {shapes}, after the input was made as small as the fault allows. Replay it, with `parity` on PATH or named in PARITY, by

    cargo test

or by hand:

    parity run model.onnx --inputs {DATA} --expected {expected} --dtype {dtype} --atol {atol:e} --outputs outputs.safetensors

`{DATA}` has the inputs and the outputs of the checkpoint in f32, as ONNX's own tests have them; `{EXACT}` has its outputs in f64. Every
position is compared, padding included.
",
        shapes = shapes.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use engine::Value;

    use super::*;
    use crate::Subject;

    fn values(names: &[&str]) -> NamedValues {
        names.iter().map(|&name| (name, Value::new([1, 2], vec![5i64, 1]).unwrap())).collect()
    }

    fn outputs(names: &[&str], value: f64) -> NamedValues {
        names.iter().map(|&name| (name, Value::new([1, 1], vec![value]).unwrap())).collect()
    }

    const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

    #[test]
    fn the_folder_reads_back_the_same() {
        let (_, graph) = Subject::open(None).unwrap().graph(None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a/b");
        let inputs = values(&[INPUTS.as_slice(), &["position_ids"]].concat());
        let expected = outputs(&["pooler_output", "logits"], 1.5);
        let expected_f64 = outputs(&["pooler_output"], 1.25);
        let repro = Replay {
            graph: &graph,
            inputs: &inputs,
            expected: &expected,
            expected_f64: &expected_f64,
            precision: Precision::F32,
            atol: 1e-6,
            command: "parity check m\n  --repro a/b",
        };
        write(&dir, &repro).unwrap();
        assert_eq!(Model::open(dir.join("model.onnx")).unwrap(), graph);
        let data = dir.join(DATA);
        // What the graph neither takes nor gives is left out.
        assert_eq!(tensors::read_inputs(&data, &graph.graph.inputs).unwrap(), values(&INPUTS));
        let read = tensors::read_outputs(&data, &graph.graph.outputs).unwrap();
        assert_eq!(read, outputs(&["pooler_output"], 1.5));
        assert_eq!(tensors::read(dir.join(EXACT)).unwrap(), expected_f64);
        let readme = fs::read_to_string(dir.join("README.md")).unwrap();
        assert!(readme.contains("\n    parity check m\n      --repro a/b\n"), "{readme}");
        assert!(readme.contains("`input_ids` i64 [1, 2]"), "{readme}");
        // Not a second time.
        let error = write(&dir, &repro).unwrap_err();
        assert!(matches!(error, FolderError::NotEmpty(ref path) if *path == dir), "{error}");
    }

    #[test]
    fn a_replay_that_would_compare_nothing_is_refused_and_leaves_nothing() {
        let (_, graph) = Subject::open(None).unwrap().graph(None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (inputs, none, some) = (values(&INPUTS), NamedValues::new(), outputs(&["pooler_output"], 1.0));
        let repro = |precision| Replay {
            graph: &graph,
            inputs: &inputs,
            expected: &some,
            expected_f64: &none,
            precision,
            atol: 1e-6,
            command: "",
        };
        let error = write(folder.path(), &repro(Precision::F64)).unwrap_err();
        assert!(matches!(error, FolderError::NothingExpected), "{error}");
        let missing = values(&["attention_mask"]);
        let error = write(folder.path(), &Replay { inputs: &missing, ..repro(Precision::F32) }).unwrap_err();
        assert!(error.to_string().contains("input_ids"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = write(&file, &repro(Precision::F32)).unwrap_err();
        assert!(error.to_string().starts_with("cannot write"), "{error}");
    }
}
