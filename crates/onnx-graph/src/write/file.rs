//! A model's file as a stream: the initializers' bytes go from where they are to the file, or stay in another one.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem::take;
use std::path::Path;

use bytes::Bytes;
use engine::{replace_file, replace_file_with};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::proto::{DataLocation, GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use crate::{GraphError, Model, Tensor};

/// The largest message that protobuf implementations read: <https://protobuf.dev/programming-guides/proto-limits/#total>.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// The numbers of the fields that are written apart, in onnx.proto.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;

/// Where tensors begin in a file of their own, in bytes: a memory page, as ONNX advises so that they can be mapped
/// (<https://github.com/onnx/onnx/blob/main/docs/ExternalData.md>).
const ALIGNMENT: u64 = 4096;

/// Which initializers go to a file of their own: `<model file>.data`, beside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct External {
    /// Those of as many bytes and more.
    pub threshold: usize,
}

impl Default for External {
    /// Of 1024 bytes, as ONNX's own helper has it: what shape inference has to see, such as axes and shapes, stays in the graph.
    fn default() -> Self {
        Self { threshold: 1024 }
    }
}

/// Where an initializer's bytes lie, if not in the model's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path of the file, relative to the model's folder.
    pub location: String,
    /// Its first byte, counted from the file's start. Its length is what dtype and shape make it.
    pub offset: u64,
}

impl Model {
    /// Writes this model with its large initializers in a second file beside it, [`External`]: the way to write a model of more than 2 GiB.
    ///
    /// Both files are complete before either has its name, and the data comes first: only an end of the power in between could leave an old model with new data.
    ///
    /// # Errors
    /// If what stays in the model's file is larger than 2 GiB, the path is not one that UTF-8 can spell, or a file cannot be written.
    pub fn save_with(&self, path: impl AsRef<Path>, external: &External) -> Result<(), GraphError> {
        let path = path.as_ref();
        let error = |path: &Path, source| GraphError::Write { path: path.to_path_buf(), source };
        let mut data_name = OsString::from(path.file_name().unwrap_or_default());
        data_name.push(".data");
        let Some(location) = data_name.to_str() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "a model can name only files in UTF-8");
            return Err(error(path, source));
        };
        let mut end = 0u64;
        let mut places: HashMap<&str, Place> = HashMap::new();
        let mut outside = Vec::new();
        for (name, tensor) in &self.graph.initializers {
            if tensor.bytes.len() >= external.threshold.max(1) {
                let offset = end.next_multiple_of(ALIGNMENT);
                end = offset + tensor.bytes.len() as u64;
                places.insert(name, Place { location: location.into(), offset });
                outside.push((offset, tensor));
            }
        }
        if outside.is_empty() {
            return self.save(path);
        }
        let stream = Stream::new(self, |name| places.get(name).cloned())?;
        let data_path = path.with_file_name(&data_name);
        let mut data_error = None;
        let written = replace_file_with(path, |file| {
            stream.write_to(file)?;
            let data = replace_file_with(&data_path, |file| write_data(file, &outside));
            data.map_err(|source| {
                let kind = source.kind();
                data_error = Some(source);
                kind.into()
            })
        });
        match (written, data_error) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(source)) => Err(error(&data_path, source)),
            (Err(source), None) => Err(error(path, source)),
        }
    }

    /// Writes this model with some initializers left where they are: those for which `place` gives one. Nobody looks whether their bytes lie there.
    ///
    /// # Errors
    /// If what stays in the model's file is larger than 2 GiB, or the file cannot be written.
    pub fn save_pointing(
        &self,
        path: impl AsRef<Path>,
        place: impl Fn(&str) -> Option<Place>,
    ) -> Result<(), GraphError> {
        let path = path.as_ref();
        let stream = Stream::new(self, place)?;
        replace_file_with(path, |file| stream.write_to(file))
            .map_err(|source| GraphError::Write { path: path.to_path_buf(), source })
    }
}

/// Writes a message to a file as a whole or not at all.
pub(super) fn save(path: &Path, proto: &impl Message) -> Result<(), GraphError> {
    let bytes = proto.encoded_len();
    if bytes > MAX_MESSAGE {
        return Err(GraphError::TooLargeForOneFile { bytes });
    }
    replace_file(path, &proto.encode_to_vec())
        .map_err(|source| GraphError::Write { path: path.to_path_buf(), source })
}

fn write_data(file: &mut File, tensors: &[(u64, &Tensor)]) -> io::Result<()> {
    let mut at = 0;
    for &(offset, tensor) in tensors {
        // At most a page of zeros.
        file.write_all(&vec![0; (offset - at) as usize])?;
        file.write_all(&tensor.bytes)?;
        at = offset + tensor.bytes.len() as u64;
    }
    Ok(())
}

/// The bytes of a model's file in their order, those of its initializers shared with them.
struct Stream(Vec<Bytes>);

impl Stream {
    fn new(model: &Model, place: impl Fn(&str) -> Option<Place>) -> Result<Self, GraphError> {
        let mut before = model.to_proto();
        let mut graph = before.graph.take().unwrap_or_default();
        // protobuf writes fields by their numbers: what is taken out here stands behind the graph, and behind the initializers.
        let after = ModelProto {
            opset_import: take(&mut before.opset_import),
            metadata_props: take(&mut before.metadata_props),
            functions: take(&mut before.functions),
            ..ModelProto::default()
        };
        let initializers = take(&mut graph.initializer);
        let nodes =
            GraphProto { node: take(&mut graph.node), name: take(&mut graph.name), ..GraphProto::default() };

        let mut inner = vec![Bytes::from(nodes.encode_to_vec())];
        for tensor in initializers {
            let place = place(&tensor.name);
            inner.extend(field(GRAPH_INITIALIZER, initializer(tensor, place)));
        }
        inner.push(graph.encode_to_vec().into());

        let mut parts = vec![Bytes::from(before.encode_to_vec())];
        parts.extend(field(MODEL_GRAPH, inner));
        parts.push(after.encode_to_vec().into());
        let bytes = length(&parts);
        if bytes > MAX_MESSAGE {
            return Err(GraphError::TooLargeForOneFile { bytes });
        }
        Ok(Self(parts))
    }

    fn write_to(&self, file: &mut File) -> io::Result<()> {
        let mut file = BufWriter::new(file);
        for part in &self.0 {
            file.write_all(part)?;
        }
        file.flush()
    }
}

/// The parts of a tensor's message.
fn initializer(mut tensor: TensorProto, place: Option<Place>) -> Vec<Bytes> {
    let data = take(&mut tensor.raw_data);
    let Some(Place { location, offset }) = place else {
        let raw = if data.is_empty() { Vec::new() } else { field(TENSOR_RAW_DATA, vec![data]) };
        return [vec![tensor.encode_to_vec().into()], raw].concat();
    };
    let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.into(), value };
    tensor.data_location = DataLocation::External.into();
    tensor.external_data =
        [("location", location), ("offset", offset.to_string()), ("length", data.len().to_string())]
            .map(entry)
            .into();
    vec![tensor.encode_to_vec().into()]
}

/// A field of bytes: its key, its length, and the bytes.
fn field(number: u32, parts: Vec<Bytes>) -> Vec<Bytes> {
    let mut head = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut head);
    encode_varint(length(&parts) as u64, &mut head);
    [vec![head.into()], parts].concat()
}

fn length(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}
