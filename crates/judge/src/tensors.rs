//! Named values in files: safetensors, numpy's `.npz`, and ONNX's test folders. They are the inputs and outputs of `parity run`, and the inputs
//! of `check` and `bench`.

mod folder;
mod npz;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, CheckpointError};
use engine::memory::OverBudget;
use engine::{DType, NamedValues, Value, ValueError, ValueSpec, read_file, replace_file};
use safetensors::{Dtype, View};

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
    /// A tensor file of a test folder is damaged.
    #[error("{0}")]
    Proto(String),
    /// A test folder has more tensors than the model takes or gives.
    #[error("{} has no place: this model has {count} {kind}s", path.display())]
    Surplus { path: PathBuf, kind: String, count: usize },
    /// A folder is not a test folder.
    #[error("{} has no {kind}_0.pb, so it is not one of ONNX's test folders", path.display())]
    NoTestData { path: PathBuf, kind: String },
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// The inputs of a model: those of a test folder (`input_0.pb`, …), or all tensors of a file.
///
/// # Errors
/// If the folder or file is missing or malformed.
pub fn read_inputs(path: impl AsRef<Path>, inputs: &[ValueSpec]) -> Result<NamedValues, TensorsError> {
    let path = path.as_ref();
    if path.is_dir() { folder::read(path, "input", inputs) } else { read(path) }
}

/// The outputs that are expected of a model: those of a test folder (`output_0.pb`, …), or all tensors of a file.
///
/// # Errors
/// If the folder or file is missing or malformed.
pub fn read_outputs(path: impl AsRef<Path>, outputs: &[ValueSpec]) -> Result<NamedValues, TensorsError> {
    let path = path.as_ref();
    if path.is_dir() { folder::read(path, "output", outputs) } else { read(path) }
}

/// Reads all tensors of a safetensors file, or of an `.npz` file, in file order. A pipe, and `-`
/// for standard input, are read to their end; what comes out of them is known by its first bytes.
///
/// # Errors
/// If the file is missing or malformed, or would take more memory than
/// [`engine::memory::allowed_memory`] says, or a tensor is malformed.
pub fn read(path: impl AsRef<Path>) -> Result<NamedValues, TensorsError> {
    let path = path.as_ref();
    let bytes = read_file(path).map_err(CheckpointError::from)?;
    if path.extension().is_some_and(|extension| extension == "npz") || bytes.starts_with(ZIP) {
        return npz::read(path, bytes);
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

/// Writes values to a safetensors file, which is replaced as a whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: impl AsRef<Path>, values: &NamedValues) -> Result<(), TensorsError> {
    let path = path.as_ref();
    let failed = |source| TensorsError::Write { path: path.into(), source };
    let views = values.iter().map(|(name, value)| (name, ValueView(value)));
    let bytes = safetensors::serialize(views, None).map_err(|error| failed(std::io::Error::other(error)))?;
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
        write(&path, &values).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.len(), values.len());
        for (name, value) in values.iter() {
            assert_eq!(back.get(name), Some(value), "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let error = read("nowhere/values.safetensors").unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        let error = write("nowhere/values.safetensors", &NamedValues::new()).unwrap_err();
        assert!(error.to_string().contains("cannot write nowhere"), "{error}");
    }
}
