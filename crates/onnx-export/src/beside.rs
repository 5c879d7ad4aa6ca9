//! A graph whose weights stay where they are, in the checkpoint.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use checkpoint::Checkpoint;
use onnx_graph::{Model, Place};

use crate::ExportError;

/// Floats as small as this stay in the graph: scalars. So do integers, which are no weights: axes,
/// shapes, and what is looked up by how far tokens stand apart.
const SMALL: usize = 64;

/// How many bytes of a file are looked at at once.
const CHUNK: usize = 1 << 16;

/// Writes a graph that was exported with [`Weights::AsStored`](crate::Weights::AsStored) into the
/// folder of its checkpoint. It is a few tens of kilobytes: its initializers point into the
/// checkpoint's files by offset and length.
///
/// # Errors
/// If the checkpoint's files do not lie in that folder, byte for byte where the graph points, or
/// are not safetensors; if a weight is not the checkpoint's; or if the graph cannot be written.
pub fn save_beside(
    model: &Model,
    checkpoint: &Checkpoint,
    path: impl AsRef<Path>,
) -> Result<(), ExportError> {
    let path = path.as_ref();
    let mut places: HashMap<&str, Place> = HashMap::new();
    for (name, tensor) in &model.graph.initializers {
        let Some(entry) = checkpoint.get(name) else {
            if tensor.dtype.is_float() && tensor.bytes.len() > SMALL {
                return Err(ExportError::NotAsStored { tensor: name.clone() });
            }
            continue;
        };
        let file: &str = &entry.file;
        // A tensor that was put together of several places has none.
        let Some(offset) = entry.offset.filter(|_| file.ends_with(".safetensors")) else {
            return Err(ExportError::NotSafetensors { file: file.into() });
        };
        let beside = path.with_file_name(file);
        let is_here = holds(&beside, offset, &tensor.bytes)
            .map_err(|source| ExportError::NoCheckpoint { path: beside.clone(), source })?;
        if !is_here {
            return Err(ExportError::NotBeside { file: file.into(), path: beside });
        }
        places.insert(name, Place { location: file.into(), offset });
    }
    Ok(model.save_pointing(path, |name| places.get(name).cloned())?)
}

/// Whether a file has these bytes from that offset on. It is read, not mapped, as its like is
/// mapped already and memory would be taken for both.
fn holds(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut read = [0; CHUNK];
    for expected in bytes.chunks(CHUNK) {
        let read = &mut read[..expected.len()];
        match file.read_exact(read) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            done => done?,
        }
        if read != expected {
            return Ok(false);
        }
    }
    Ok(true)
}
