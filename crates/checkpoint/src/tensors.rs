use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use engine::memory::Budget;
use engine::{DType, Value, read_file};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::files::refuse_lfs_pointer;
use crate::{CheckpointError, torch};

/// The bytes before the header: its length, a little-endian u64.
const LENGTH_BYTES: usize = 8;

/// The safetensors format's own limit for a header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Every tensor of a checkpoint, listed without being read. Clones share the list.
#[derive(Clone)]
pub struct Checkpoint {
    tensors: Arc<IndexMap<String, TensorEntry>>,
}

/// One tensor of a checkpoint: what it is and where it lies.
#[derive(Clone)]
pub struct TensorEntry {
    /// Its name, `encoder.layer.0.attention.self.query.weight`, as the checkpoint spells it.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// The name of the file that holds it, such as `model.safetensors`, or of one shard of many.
    pub file: Arc<str>,
    /// Where its first byte lies in that file, counted from the file's start. `None` if its elements do not lie there as they
    /// are: a transposed view in a file of PyTorch's, say.
    pub offset: Option<u64>,
    /// Its elements, little-endian, row-major: a slice of the mapped file, or a copy where there is no offset. They need not
    /// be aligned.
    pub bytes: Bytes,
}

impl TensorEntry {
    /// The tensor as a value of its own dtype and shape; the elements are copied.
    ///
    /// # Errors
    /// If a bool is neither 0 nor 1.
    pub fn to_value(&self) -> Result<Value, CheckpointError> {
        Value::from_le_bytes(self.dtype, self.shape.as_slice(), &self.bytes).map_err(|source| {
            CheckpointError::Value { file: self.file.to_string(), tensor: self.name.clone(), source }
        })
    }
}

impl Checkpoint {
    /// Lists the tensors of a safetensors file in memory. `name` is what [`TensorEntry::file`] and errors call it.
    ///
    /// # Errors
    /// If this is not a safetensors file, its header is wrong, does not cover the bytes exactly or
    /// would take more memory than [`engine::memory::allowed_memory`] says, or a tensor is of a
    /// dtype that is not one of [`DType`].
    pub fn from_safetensors(name: &str, bytes: Bytes) -> Result<Self, CheckpointError> {
        Format::Safetensors.read(name, name, &bytes)
    }

    /// Maps a safetensors file and lists its tensors. A pipe, and `-` for standard input, are read
    /// to their end.
    ///
    /// # Errors
    /// As [`Checkpoint::from_safetensors`], and if the file cannot be read.
    pub fn open_safetensors(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Format::Safetensors.open(path.as_ref())
    }

    /// Lists the tensors of a state dict that `torch.save` wrote, in either of its formats. `name` is what [`TensorEntry::file`]
    /// and errors call it.
    ///
    /// The file holds a pickle, which is a program. Nothing of it is run: only the part that describes plain tensors is
    /// understood.
    ///
    /// ```
    /// use checkpoint::Checkpoint;
    ///
    /// let fixtures = "../../tests/fixtures/checkpoints";
    /// let model = std::fs::read(format!("{fixtures}/legacy/pytorch_model.bin"))?;
    /// let checkpoint = Checkpoint::from_torch("pytorch_model.bin", model.into())?;
    /// let bias = checkpoint.get("pooler.dense.bias").ok_or("no pooler")?;
    /// assert_eq!(format!("{bias:?}"), "pooler.dense.bias: f32[16] at 28610 of pytorch_model.bin");
    ///
    /// let evil = std::fs::read(format!("{fixtures}/evil/legacy.bin"))?;
    /// let error = Checkpoint::from_torch("evil.bin", evil.into()).unwrap_err();
    /// assert!(error.to_string().starts_with("evil.bin: its pickle calls for posix.system, and only plain tensors are read"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If this is not such a file, if it is damaged, or if its pickle calls for anything but plain tensors
    /// ([`TorchError`](crate::TorchError)).
    pub fn from_torch(name: &str, bytes: Bytes) -> Result<Self, CheckpointError> {
        Format::Torch.read(name, name, &bytes)
    }

    /// Maps a file of `torch.save` and lists its tensors.
    ///
    /// # Errors
    /// As [`Checkpoint::from_torch`], and if the file cannot be mapped.
    pub fn open_torch(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Format::Torch.open(path.as_ref())
    }

    /// These tensors. Their names differ: of two with one name the last would stay.
    pub(crate) fn of(entries: impl IntoIterator<Item = TensorEntry>) -> Self {
        let tensors = entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        Self { tensors: Arc::new(tensors) }
    }

    fn parse(file: &str, shown: &str, bytes: &Bytes) -> Result<Self, CheckpointError> {
        let (start, metadata) = read_header(shown, bytes)?;

        // The length that the header promises was compared with the file's, so the slices below lie within it; they are
        // taken with a check all the same.
        let mut infos: Vec<(String, &TensorInfo)> = metadata.tensors().into_iter().collect();
        // By name where offsets tie (empty tensors), so that the order never varies.
        infos.sort_by(|(a_name, a), (b_name, b)| {
            a.data_offsets.cmp(&b.data_offsets).then_with(|| a_name.cmp(b_name))
        });

        let file: Arc<str> = Arc::from(file);
        let mut entries = Vec::with_capacity(infos.len());
        for (name, info) in infos {
            let dtype = dtype(info.dtype).ok_or_else(|| CheckpointError::DType {
                file: shown.to_owned(),
                tensor: name.clone(),
                dtype: info.dtype.to_string(),
            })?;
            let (begin, end) = info.data_offsets;
            let range = start.checked_add(begin).zip(start.checked_add(end));
            let (begin, end) =
                range.filter(|&(begin, end)| begin <= end && end <= bytes.len()).ok_or_else(|| {
                    CheckpointError::Truncated {
                        file: shown.to_owned(),
                        promised: (start as u64).saturating_add(end as u64),
                        found: bytes.len() as u64,
                    }
                })?;
            entries.push(TensorEntry {
                name,
                dtype,
                shape: info.shape.clone(),
                file: Arc::clone(&file),
                offset: Some(begin as u64),
                bytes: bytes.slice(begin..end),
            });
        }
        Ok(Self::of(entries))
    }

    /// The same tensors, with these in the place of those of their names.
    #[must_use]
    pub fn replacing(&self, entries: impl IntoIterator<Item = TensorEntry>) -> Self {
        let mut tensors = IndexMap::clone(&self.tensors);
        tensors.extend(entries.into_iter().map(|entry| (entry.name.clone(), entry)));
        Self { tensors: Arc::new(tensors) }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.get(name)
    }

    /// All tensors: of safetensors in the order of their bytes, of PyTorch's files in that of the state dict, and shard after
    /// shard.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TensorEntry> {
        self.tensors.values()
    }

    /// Their names, in the same order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

/// What a file of tensors is written in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Format {
    Safetensors,
    Torch,
}

impl Format {
    fn open(self, path: &Path) -> Result<Checkpoint, CheckpointError> {
        let shown = path.display().to_string();
        let file = path.file_name().map_or_else(|| shown.as_str().into(), |name| name.to_string_lossy());
        self.read(&file, &shown, &read_file(path)?)
    }

    /// `file` is the name for entries, `shown` the one for errors.
    pub(crate) fn read(self, file: &str, shown: &str, bytes: &Bytes) -> Result<Checkpoint, CheckpointError> {
        refuse_lfs_pointer(shown, bytes)?;
        match self {
            Self::Safetensors => Checkpoint::parse(file, shown, bytes),
            Self::Torch => torch::read(file, shown, bytes).map(Checkpoint::of),
        }
    }
}

/// Reads the header; gives where the tensors' bytes start, and what the header says.
///
/// The crate's own `read_metadata` adds the sizes that a header claims without a check for overflow, so the lengths are
/// compared here; names, shapes and offsets against each other are judged by the crate.
fn read_header(shown: &str, bytes: &[u8]) -> Result<(usize, Metadata), CheckpointError> {
    let found = bytes.len() as u64;
    let not_safetensors = |reason| CheckpointError::NotSafetensors { file: shown.to_owned(), reason };

    if let Some(reason) = other_format(bytes) {
        return Err(not_safetensors(reason));
    }
    let (length, rest) = bytes
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or_else(|| not_safetensors("it is too short to have a header"))?;
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(not_safetensors("its first eight bytes are not the length of a header"));
    }
    // Every header is a JSON object. Anything else in its place is another format, not a file cut short.
    if rest.first().is_some_and(|&first| first != b'{') {
        return Err(not_safetensors("its header does not start with '{'"));
    }
    let truncated = |promised| CheckpointError::Truncated { file: shown.to_owned(), promised, found };
    let header = usize::try_from(header_bytes)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| truncated(LENGTH_BYTES as u64 + header_bytes))?;
    Budget::of(shown, found).spend_json(header)?;
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|source| CheckpointError::Header { file: shown.to_owned(), source })?;

    let start = LENGTH_BYTES + header.len();
    let promised = (start as u64).saturating_add(metadata.data_len() as u64);
    if promised > found {
        return Err(truncated(promised));
    }
    if promised < found {
        return Err(CheckpointError::TrailingBytes { file: shown.to_owned(), promised, found });
    }
    Ok((start, metadata))
}

/// What often lies under a safetensors file's name by mistake.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    // A header of 640 bytes has the length that a pickle begins with.
    let has_header = bytes.get(LENGTH_BYTES) == Some(&b'{');
    let starts = |prefix: &[u8]| !has_header && bytes.starts_with(prefix);
    if starts(b"PK\x03\x04") || starts(b"\x80\x02") {
        Some("it is a PyTorch pickle file")
    } else if starts(b"\x89HDF") {
        Some("it is an HDF5 file")
    } else if starts(b"<!") || starts(b"<html") {
        Some("it is a web page")
    } else {
        None
    }
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::U16 => DType::U16,
        Dtype::I16 => DType::I16,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::F32 => DType::F32,
        Dtype::U64 => DType::U64,
        Dtype::I64 => DType::I64,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}

impl fmt::Debug for TensorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{:?} ", self.name, self.dtype, self.shape)?;
        match self.offset {
            Some(offset) => write!(f, "at {offset} of {}", self.file),
            None => write!(f, "copied from {}", self.file),
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
