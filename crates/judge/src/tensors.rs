//! Named values in files: safetensors, numpy's `.npz` and `.npy`, and ONNX's test folders. They are
//! the inputs and outputs of `parity run`, and the inputs of `check` and `bench`.

mod folder;
mod npy;
mod npz;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, CheckpointError};
use engine::memory::OverBudget;
use engine::{DType, NamedValues, Value, ValueError, ValueSpec, read_file, replace_file};
use safetensors::{Dtype, View};

/// How an array of numpy's begins.
const NUMPY: &[u8] = b"\x93NUMPY";

/// How a zip archive begins, as an `.npz` file is one.
const ZIP: &[u8] = b"PK\x03\x04";

/// Why values could not be read from or written to a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum TensorsError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] CheckpointError),
    /// A tensor in it is not a value.
    #[error("tensor '{name}' in {}: {source}", path.display())]
    Value { name: String, path: PathBuf, source: ValueError },
    /// The file would take more memory than it may.
    #[error(transparent)]
    Memory(#[from] OverBudget),
    /// A numpy archive is damaged, or holds what graphs do not take.
    #[error("{}: {what}", path.display())]
    Npz { path: PathBuf, what: String },
    /// An array has no name, and there is more than one place for it.
    #[error(
        "{} is one array without a name, and {}: use .npz or .safetensors, which hold several with their names",
        path.display(), places(names)
    )]
    Unnamed { path: PathBuf, names: Vec<String> },
    /// numpy has no such numbers.
    #[error("{} cannot hold '{name}', which is bf16: numpy has no such dtype; use .safetensors", path.display())]
    NotNumpy { path: PathBuf, name: String },
    /// A tensor file of a test folder is damaged.
    #[error("{0}")]
    Proto(String),
    /// A test folder has more tensors than the model takes or gives.
    #[error("{} has no place: this model has {count} {kind}s; take it out of the folder", path.display())]
    Surplus { path: PathBuf, kind: String, count: usize },
    /// A folder is not a test folder.
    #[error(
        "{} has no {kind}_0.pb, so it is not one of ONNX's test folders: give one, or a .safetensors, \
         .npz or .npy file",
        path.display()
    )]
    NoTestData { path: PathBuf, kind: String },
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

fn places(names: &[String]) -> String {
    match names {
        [] => "nothing says which it is".to_owned(),
        names => format!("there are {}: {}", names.len(), names.join(", ")),
    }
}

/// The inputs of a model: those of a test folder (`input_0.pb`, …), or all tensors of a file.
///
/// # Errors
/// If the folder or file is missing or malformed.
pub fn read_inputs(path: impl AsRef<Path>, inputs: &[ValueSpec]) -> Result<NamedValues, TensorsError> {
    let path = path.as_ref();
    if path.is_dir() { folder::read(path, "input", inputs) } else { read_for(path, inputs) }
}

/// The outputs that are expected of a model: those of a test folder (`output_0.pb`, …), or all tensors of a file.
///
/// # Errors
/// If the folder or file is missing or malformed.
pub fn read_outputs(path: impl AsRef<Path>, outputs: &[ValueSpec]) -> Result<NamedValues, TensorsError> {
    let path = path.as_ref();
    if path.is_dir() { folder::read(path, "output", outputs) } else { read_for(path, outputs) }
}

/// Reads all tensors of a safetensors file, or of an `.npz` file, in file order; a `.npy` file has
/// no name for its array, and is for [`read_inputs`] and [`read_outputs`]. A pipe, and `-`
/// for standard input, are read to their end; what comes out of them is known by its first bytes.
///
/// # Errors
/// If the file is missing or malformed, or would take more memory than
/// [`engine::memory::allowed_memory`] says, or a tensor is malformed.
pub fn read(path: impl AsRef<Path>) -> Result<NamedValues, TensorsError> {
    read_for(path.as_ref(), &[])
}

/// Reads all tensors of a file; a `.npy` file holds the one that is specified, if there is only
/// one.
fn read_for(path: &Path, specs: &[ValueSpec]) -> Result<NamedValues, TensorsError> {
    let bytes = read_file(path).map_err(CheckpointError::from)?;
    if path.extension().is_some_and(|extension| extension == "npz") || bytes.starts_with(ZIP) {
        return npz::read(path, bytes);
    }
    if bytes.starts_with(NUMPY) {
        let [spec] = specs else { return Err(unnamed(path, specs.iter().map(|spec| spec.name.clone()))) };
        return Ok(NamedValues::from_iter([(spec.name.clone(), npy::read(path, bytes)?)]));
    }
    Checkpoint::from_safetensors(&path.display().to_string(), bytes)?
        .iter()
        .map(|tensor| {
            let value = Value::from_le_bytes(tensor.dtype, tensor.shape.as_slice(), &tensor.bytes).map_err(
                |source| TensorsError::Value { name: tensor.name.clone(), path: path.into(), source },
            )?;
            Ok((tensor.name.clone(), value))
        })
        .collect()
}

fn unnamed(path: &Path, names: impl Iterator<Item = String>) -> TensorsError {
    TensorsError::Unnamed { path: path.into(), names: names.collect() }
}

/// Writes values to a file, which is replaced as a whole or not at all: numpy's archive if it is
/// called `.npz`, numpy's array if `.npy`, else safetensors.
///
/// # Errors
/// If the file cannot be written; of `.npy` if there is not one value, of both if numpy lacks its
/// dtype.
pub fn write(path: impl AsRef<Path>, values: &NamedValues) -> Result<(), TensorsError> {
    let path = path.as_ref();
    let failed = |source| TensorsError::Write { path: path.into(), source };
    let bytes = match path.extension().and_then(OsStr::to_str) {
        Some("npz") => npz::bytes(path, values)?,
        Some("npy") => {
            let mut all = values.iter();
            match (all.next(), all.next()) {
                (Some((name, value)), None) => npy::bytes(path, name, value)?,
                _ => return Err(unnamed(path, values.names().map(str::to_owned))),
            }
        }
        _ => {
            let views = values.iter().map(|(name, value)| (name, ValueView(value)));
            safetensors::serialize(views, None).map_err(|error| failed(std::io::Error::other(error)))?
        }
    };
    replace_file(path, &bytes).map_err(failed)
}

struct ValueView<'a>(&'a Value);

impl View for ValueView<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::I8 => Dtype::I8,
            DType::I16 => Dtype::I16,
            DType::I32 => Dtype::I32,
            DType::I64 => Dtype::I64,
            DType::U8 => Dtype::U8,
            DType::U16 => Dtype::U16,
            DType::U32 => Dtype::U32,
            DType::U64 => Dtype::U64,
            DType::Bool => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.to_le_bytes().into()
    }

    fn data_len(&self) -> usize {
        self.0.len() * self.0.dtype().size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values.safetensors");
        let values = NamedValues::from_iter([
            ("ids", Value::new([1, 2], vec![5i64, 6]).unwrap()),
            ("mask", Value::new([2], vec![true, false]).unwrap()),
            ("scalar", Value::scalar(1.5f64)),
            ("empty", Value::new([0, 3], Vec::<f32>::new()).unwrap()),
        ]);
        for path in [path, folder.path().join("values.npz")] {
            write(&path, &values).unwrap();
            let back = read(&path).unwrap();
            assert_eq!(back.len(), values.len());
            for (name, value) in values.iter() {
                assert_eq!(back.get(name), Some(value), "{name}");
            }
        }
        assert!(std::fs::read(folder.path().join("values.npz")).unwrap().starts_with(ZIP));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn errors_name_the_file() {
        let error = read("nowhere/values.safetensors").unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        let error = write("nowhere/values.safetensors", &NamedValues::new()).unwrap_err();
        assert!(error.to_string().contains("cannot write nowhere"), "{error}");
    }
}
