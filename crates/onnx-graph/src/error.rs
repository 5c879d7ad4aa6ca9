use std::io;
use std::path::PathBuf;

use engine::MapError;

use crate::{AttributeFault, ExternalFault, TensorFault};

/// Why a file could not be read as a model, or a model is not a valid one. Where a message does not
/// say what a name is the name of, the name does: `input 'x'`, `node 'n' (Op)`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum GraphError {
    /// The file could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The file would take more memory than it may.
    #[error(transparent)]
    Memory(#[from] engine::memory::OverBudget),
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The model is larger than a protobuf message may be.
    #[error("the model takes {bytes} bytes; in one file the limit is 2 GiB, which is protobuf's")]
    TooLargeForOneFile { bytes: usize },
    /// Something else than ONNX.
    #[error("{file} is not an ONNX model: {found}")]
    NotOnnx { file: String, found: NotOnnx },
    /// The file ends in the midst of a field.
    #[error(
        "{file} seems to be cut short: it breaks off in its {field}, {missing} bytes or more before the end; fetch the file again"
    )]
    Truncated { file: String, field: &'static str, missing: u64 },
    /// The file starts as ONNX does, but protobuf cannot read it.
    #[error("{file} is damaged: {source}; fetch the file again, or export it again")]
    Damaged { file: String, source: prost::DecodeError },
    /// A model without a graph.
    #[error("{file} has no graph; it may have been cut short: fetch the file again")]
    NoGraph { file: String },
    /// A version of the file format that is not known here.
    #[error(
        "{file} has IR version {version}; supported are {first} to {last}: export it again for one of these",
        first = crate::IR_VERSIONS.start(),
        last = crate::IR_VERSIONS.end()
    )]
    IrVersion { file: String, version: i64 },
    /// A model without operator sets.
    #[error(
        "the model imports no operator set (opset_import is empty); the file may have been cut short: fetch \
         it again"
    )]
    NoOpsets,
    /// An operator set of an impossible version.
    #[error("the operator set of domain '{domain}' is imported in version {version}, which does not exist")]
    OpsetVersion { domain: String, version: i64 },
    /// A domain that is imported twice, in different versions.
    #[error("the operator set of domain '{domain}' is imported in version {first} and in version {second}")]
    OpsetTwice { domain: String, first: i64, second: i64 },
    /// Something that must have a name has none.
    #[error("{what} has no name")]
    NoName { what: String },
    /// A node without an operator.
    #[error("node '{node}' has no operator (op_type is empty)")]
    NoOperator { node: String },
    /// Two nodes of the same name.
    #[error("two nodes are called '{node}'")]
    DuplicateNode { node: String },
    /// An input or output without a type.
    #[error("{value} has no type; ONNX's shape inference can add it")]
    NoType { value: String },
    /// An input or output that is not a dense tensor.
    #[error("{value} is {kind}; only dense tensors are supported")]
    NotATensor { value: String, kind: &'static str },
    /// An input or output of elements that [`engine::DType`] does not have, by ONNX's name.
    #[error("{value} has elements of type {dtype}, which is not supported")]
    ElementType { value: String, dtype: String },
    /// An input or output of an impossible size.
    #[error("{value} has dimension {dim}")]
    Dimension { value: String, dim: i64 },
    /// A tensor that cannot be read.
    #[error("{tensor}: {fault}")]
    Tensor {
        tensor: String,
        #[source]
        fault: TensorFault,
    },
    /// A tensor whose data lies in another file, as the model spells it, and cannot be read there.
    #[error("{tensor}, stored in '{location}': {fault}")]
    External {
        tensor: String,
        location: String,
        #[source]
        fault: ExternalFault,
    },
    /// An attribute that cannot be read.
    #[error("attribute '{attribute}' of {owner} {fault}")]
    Attribute {
        owner: String,
        attribute: String,
        #[source]
        fault: AttributeFault,
    },
    /// An attribute was asked for that is of another type.
    #[error("attribute '{attribute}' of node '{node}' ({op}) must be {expected}, found {found}")]
    AttributeType { node: String, op: String, attribute: String, expected: &'static str, found: &'static str },
    /// A value that is defined twice, or hides one of an outer graph.
    #[error("value '{value}' is defined twice: by {first} and by {second}")]
    DuplicateValue { value: String, first: String, second: String },
    /// A value that is used too early.
    #[error(
        "value '{value}' is used by node '{node}' ({op}) before it is defined, by {definer}; nodes must stand in topological order"
    )]
    UsedBeforeDefined { value: String, node: String, op: String, definer: String },
    /// A value that is used, but not defined.
    #[error("value '{value}', used by node '{node}' ({op}), is defined nowhere")]
    Undefined { value: String, node: String, op: String },
    /// An output that is not defined.
    #[error("output '{value}' is defined nowhere")]
    UndefinedOutput { value: String },
    /// An output that is listed twice.
    #[error("output '{value}' is listed twice")]
    DuplicateOutput { value: String },
    /// An initializer that is not what the input of its name may be.
    #[error("input '{declared}' has an initializer that is {found}")]
    InitializerType { declared: String, found: String },
    /// Subgraphs nested too deeply.
    #[error("subgraphs are nested more than {limit} deep", limit = crate::MAX_DEPTH)]
    TooDeep,
    /// A domain whose operators nobody here knows.
    #[error(
        "node '{node}' uses operator '{op}' of domain '{domain}', which is not supported and for which the \
         model has no functions: export the model without that operator"
    )]
    UnknownDomain { node: String, op: String, domain: String },
    /// A function that the model does not have.
    #[error("node '{node}' calls function '{function}', which the model does not have")]
    UnknownFunction { node: String, function: String },
    /// A domain that is used, but not imported; ONNX's own is `ai.onnx` here.
    #[error("node '{node}' uses operator '{op}' of domain '{domain}', for which no operator set is imported")]
    NoOpset { node: String, op: String, domain: String },
    /// An attribute that refers to one of the enclosing function's, of which there is none.
    #[error(
        "attribute '{attribute}' of node '{node}' ({op}) refers to '{reference}', which is no attribute of an enclosing function"
    )]
    UnknownReference { node: String, op: String, attribute: String, reference: String },
    /// Something is wrong within a function.
    #[error("in function '{function}': {source}")]
    InFunction { function: String, source: Box<GraphError> },
    /// Two functions of the same domain, name and overload.
    #[error("function '{function}' is defined twice")]
    DuplicateFunction { function: String },
    /// A function that would stand in for one of ONNX's own operators.
    #[error("function '{function}' is in ONNX's own domain, where runtimes differ about which one is meant")]
    FunctionInOnnxDomain { function: String },
    /// A function attribute that is declared twice.
    #[error("function '{function}' declares attribute '{attribute}' twice")]
    DuplicateParameter { function: String, attribute: String },
    /// A call with more inputs, or more outputs, than the function has.
    #[error("node '{node}' calls function '{function}' with {found} {what}, it has {expected}")]
    Arity { node: String, function: String, what: &'static str, found: usize, expected: usize },
    /// A call with an attribute that the function does not have.
    #[error("node '{node}' calls function '{function}' with attribute '{attribute}', which it does not have")]
    UnknownParameter { node: String, function: String, attribute: String },
    /// A function that calls itself, directly or through others.
    #[error("function '{function}' calls itself")]
    Recursion { function: String },
    /// Functions that call functions that call functions, beyond all measure.
    #[error("the graph has more than {limit} nodes when its functions are written out", limit = crate::MAX_NODES)]
    TooManyNodes,
}

/// What a file is that is not ONNX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum NotOnnx {
    /// No bytes at all.
    #[error("it is empty; fetch the file again")]
    Empty,
    /// What git holds in place of a large file.
    #[error("it is a git-lfs pointer; fetch the file itself with `git lfs pull`")]
    GitLfs,
    /// A web page.
    #[error("it is an HTML page, perhaps the answer to a failed download; fetch the file again")]
    Html,
    /// A format that is known by its first bytes.
    #[error("it is {0}")]
    Format(&'static str),
    /// Nothing that is known.
    #[error("its bytes do not form one")]
    Unknown,
}
