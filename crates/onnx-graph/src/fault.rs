//! What can be wrong with one tensor or attribute; [`GraphError`](crate::GraphError) says with which.

use std::io;
use std::path::PathBuf;

use engine::memory::OverBudget;
use engine::{DType, MapError};

/// Why a tensor cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum TensorFault {
    /// Elements that [`DType`] does not have, by ONNX's name for them.
    #[error("elements of type {dtype} are not supported")]
    DType { dtype: String },
    /// A negative dimension.
    #[error("shape {dims:?} has a negative dimension")]
    NegativeDim { dims: Vec<i64> },
    /// A size that cannot be addressed.
    #[error("{dtype}{dims:?} is too large for this machine's address space")]
    Overflow { dtype: DType, dims: Vec<i64> },
    /// Data in more than one field.
    #[error("its data is given twice, as {first} and as {second}")]
    TwoPlaces { first: &'static str, second: &'static str },
    /// Data in a field that is not for this dtype.
    #[error("{dtype} cannot be stored in {field}")]
    WrongField { dtype: DType, field: &'static str },
    /// Too many bytes, or too few.
    #[error("{dtype}{shape:?} needs {expected} bytes, {field} has {found}")]
    Size { dtype: DType, shape: Vec<usize>, expected: usize, field: &'static str, found: usize },
    /// An element that the dtype cannot hold.
    #[error("element {index} is {value}, which is not {dtype}")]
    OutOfRange { index: usize, value: String, dtype: DType },
    /// A sparse tensor whose parts do not fit each other.
    #[error("it is sparse, and {0}")]
    Sparse(String),
    /// A part of a tensor.
    #[error("it is one segment of a tensor, which is not supported")]
    Segment,
    /// A place for data that is not known here.
    #[error("data_location {0} is not known")]
    DataLocation(i32),
}

/// Why a tensor's data cannot be read from another file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum ExternalFault {
    /// The model did not come from a file.
    #[error("the model was given as bytes, so that there is no folder to look in; open it from its file")]
    NoFolder,
    /// No file is named.
    #[error("no location is given")]
    NoLocation,
    /// An entry that is there twice.
    #[error("'{0}' is given twice")]
    KeyTwice(String),
    /// An offset or length that is not a number.
    #[error("{key} is '{value}', which is not a number of bytes")]
    NotANumber { key: &'static str, value: String },
    /// A path from the root.
    #[error("the path is absolute; it must be relative to the model's folder")]
    Absolute,
    /// A path that leads upwards.
    #[error("the path has '..' in it; the file must lie below the model's folder")]
    ParentFolder,
    /// There is no such file.
    #[error("there is no file {}; it belongs beside the model", .0.display())]
    Missing(PathBuf),
    /// The path could not be looked at.
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A link to somewhere else.
    #[error(
        "it is a link to {}, which lies neither below the model's folder nor in the same hub cache: put \
         the file itself beside the model",
        .0.display()
    )]
    Outside(PathBuf),
    /// The file could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Tensors that share their data are far larger together than the files.
    #[error("{0}; many tensors share these bytes")]
    Memory(#[from] OverBudget),
    /// A length that is not what shape and dtype need.
    #[error("its length is given as {found} bytes, its shape and dtype need {expected}")]
    Length { expected: usize, found: u64 },
    /// Data beyond the file's end.
    #[error(
        "{length} bytes from offset {offset} reach beyond the file's end at {size}; the file may have been \
         cut short: fetch it again"
    )]
    OutOfFile { offset: u64, length: usize, size: usize },
}

/// Why an attribute cannot be read. Each message continues "attribute 'a' of node 'n' (Op) …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum AttributeFault {
    /// It is there twice.
    #[error("is given twice")]
    Twice,
    /// It has no value.
    #[error("has no value")]
    NoValue,
    /// It has values of more than one type, and does not say which one counts.
    #[error("has values of several types: {first} and {second}")]
    SeveralValues { first: &'static str, second: &'static str },
    /// It says that it is of one type and has a value of another.
    #[error("is declared as {declared}, but has {found}")]
    Mismatch { declared: &'static str, found: &'static str },
    /// It is both a value and a reference to one.
    #[error("both has a value and refers to '{0}'")]
    ReferenceWithValue(String),
    /// A type of attribute that is not known here.
    #[error("is of type {0}, which is not known")]
    UnknownType(i32),
    /// A type of attribute that is not supported.
    #[error("is {0}, which is not supported")]
    Unsupported(&'static str),
    /// A graph that is given to a function.
    #[error("is a graph for a function, which is not supported")]
    GraphForFunction,
    /// A default that is not a value.
    #[error("has a reference as its default; it must be a value")]
    ReferenceAsDefault,
    /// A string that is not one.
    #[error("is a string that is not UTF-8")]
    NotUtf8,
}
