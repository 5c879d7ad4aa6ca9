use std::io;
use std::path::PathBuf;

use engine::MapError;

use crate::{AttributeFault, ExternalFault, TensorFault};

/// Why a file could not be read as a model, or a model is not a valid one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The file could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The file would take more memory than it may.
    #[error(transparent)]
    Memory(#[from] engine::memory::OverBudget),
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The model is larger than a protobuf message may be.
    #[error("the model takes {bytes} bytes; in one file the limit is 2 GiB, which is protobuf's")]
    TooLargeForOneFile {
        /// Its size in the file.
        bytes: usize,
    },
    /// Something else than ONNX.
    #[error("{file} is not an ONNX model: {found}")]
    NotOnnx {
        /// The file.
        file: String,
        /// What it is instead, as far as its bytes tell.
        found: NotOnnx,
    },
    /// The file ends in the midst of a field.
    #[error(
        "{file} seems to be cut short: it breaks off in its {field}, {missing} bytes or more before the end; fetch the file again"
    )]
    Truncated {
        /// The file.
        file: String,
        /// The field that is not complete.
        field: &'static str,
        /// How many bytes this field still needs.
        missing: u64,
    },
    /// The file starts as ONNX does, but protobuf cannot read it.
    #[error("{file} is damaged: {source}")]
    Damaged {
        /// The file.
        file: String,
        /// What protobuf said.
        source: prost::DecodeError,
    },
    /// A model without a graph.
    #[error("{file} has no graph; it may have been cut short")]
    NoGraph {
        /// The file.
        file: String,
    },
    /// A version of the file format that is not known here.
    #[error("{file} has IR version {version}; supported are {first} to {last}", first = crate::IR_VERSIONS.start(), last = crate::IR_VERSIONS.end())]
    IrVersion {
        /// The file.
        file: String,
        /// The version it states.
        version: i64,
    },
    /// A model without operator sets.
    #[error("the model imports no operator set (opset_import is empty); the file may have been cut short")]
    NoOpsets,
    /// An operator set of an impossible version.
    #[error("the operator set of domain '{domain}' is imported in version {version}, which does not exist")]
    OpsetVersion {
        /// Its domain.
        domain: String,
        /// The version.
        version: i64,
    },
    /// A domain that is imported twice, in different versions.
    #[error("the operator set of domain '{domain}' is imported in version {first} and in version {second}")]
    OpsetTwice {
        /// Its domain.
        domain: String,
        /// One version.
        first: i64,
        /// The other.
        second: i64,
    },
    /// Something that must have a name has none.
    #[error("{what} has no name")]
    NoName {
        /// What it is.
        what: String,
    },
    /// A node without an operator.
    #[error("node '{node}' has no operator (op_type is empty)")]
    NoOperator {
        /// The node.
        node: String,
    },
    /// Two nodes of the same name.
    #[error("two nodes are called '{node}'")]
    DuplicateNode {
        /// Their name.
        node: String,
    },
    /// An input or output without a type.
    #[error("{value} has no type; ONNX's shape inference can add it")]
    NoType {
        /// Such as `input 'x'`.
        value: String,
    },
    /// An input or output that is not a dense tensor.
    #[error("{value} is {kind}; only dense tensors are supported")]
    NotATensor {
        /// Such as `input 'x'`.
        value: String,
        /// Such as `a sequence`.
        kind: &'static str,
    },
    /// An input or output of elements that [`engine::DType`] does not have.
    #[error("{value} has elements of type {dtype}, which is not supported")]
    ElementType {
        /// Such as `input 'x'`.
        value: String,
        /// ONNX's name for the type.
        dtype: String,
    },
    /// An input or output of an impossible size.
    #[error("{value} has dimension {dim}")]
    Dimension {
        /// Such as `input 'x'`.
        value: String,
        /// The dimension.
        dim: i64,
    },
    /// A sparse initializer.
    #[error("initializer '{name}' is sparse; only dense tensors are supported")]
    SparseInitializer {
        /// Its name.
        name: String,
    },
    /// A tensor that cannot be read.
    #[error("{tensor}: {fault}")]
    Tensor {
        /// Such as `initializer 'w'`.
        tensor: String,
        /// What is wrong.
        #[source]
        fault: TensorFault,
    },
    /// A tensor whose data lies in another file and cannot be read from there.
    #[error("{tensor}, stored in '{location}': {fault}")]
    External {
        /// Such as `initializer 'w'`.
        tensor: String,
        /// The other file, as the model spells it.
        location: String,
        /// What is wrong.
        #[source]
        fault: ExternalFault,
    },
    /// An attribute that cannot be read.
    #[error("attribute '{attribute}' of {owner} {fault}")]
    Attribute {
        /// Such as `node 'n' (Op)`.
        owner: String,
        /// The attribute.
        attribute: String,
        /// What is wrong.
        #[source]
        fault: AttributeFault,
    },
    /// An attribute was asked for that is of another type.
    #[error("attribute '{attribute}' of node '{node}' ({op}) must be {expected}, found {found}")]
    AttributeType {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The attribute.
        attribute: String,
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A value that is defined twice, or hides one of an outer graph.
    #[error("value '{value}' is defined twice: by {first} and by {second}")]
    DuplicateValue {
        /// The value.
        value: String,
        /// What defined it first.
        first: String,
        /// What defined it again.
        second: String,
    },
    /// A value that is used too early.
    #[error(
        "value '{value}' is used by node '{node}' ({op}) before it is defined, by {definer}; nodes must stand in topological order"
    )]
    UsedBeforeDefined {
        /// The value.
        value: String,
        /// The node that uses it.
        node: String,
        /// Its operator.
        op: String,
        /// The node that defines it.
        definer: String,
    },
    /// A value that is used, but not defined.
    #[error("value '{value}', used by node '{node}' ({op}), is defined nowhere")]
    Undefined {
        /// The value.
        value: String,
        /// The node that uses it.
        node: String,
        /// Its operator.
        op: String,
    },
    /// An output that is not defined.
    #[error("output '{value}' is defined nowhere")]
    UndefinedOutput {
        /// The output.
        value: String,
    },
    /// An output that is listed twice.
    #[error("output '{value}' is listed twice")]
    DuplicateOutput {
        /// The output.
        value: String,
    },
    /// An initializer that is not what the input of its name may be.
    #[error("input '{declared}' has an initializer that is {found}")]
    InitializerType {
        /// The input with its dtype and shape.
        declared: String,
        /// The initializer's.
        found: String,
    },
    /// Subgraphs nested too deeply.
    #[error("subgraphs are nested more than {limit} deep", limit = crate::MAX_DEPTH)]
    TooDeep,
    /// A domain whose operators nobody here knows.
    #[error(
        "node '{node}' uses operator '{op}' of domain '{domain}', which is not supported and for which the model has no functions"
    )]
    UnknownDomain {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The domain.
        domain: String,
    },
    /// A function that the model does not have.
    #[error("node '{node}' calls function '{function}', which the model does not have")]
    UnknownFunction {
        /// The node.
        node: String,
        /// The function.
        function: String,
    },
    /// A domain that is used, but not imported.
    #[error("node '{node}' uses operator '{op}' of domain '{domain}', for which no operator set is imported")]
    NoOpset {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The domain, `ai.onnx` for ONNX's own.
        domain: String,
    },
    /// An attribute that refers to one of the enclosing function's, of which there is none.
    #[error(
        "attribute '{attribute}' of node '{node}' ({op}) refers to '{reference}', which is no attribute of an enclosing function"
    )]
    UnknownReference {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// Its attribute.
        attribute: String,
        /// What it refers to.
        reference: String,
    },
    /// Something is wrong within a function.
    #[error("in function '{function}': {source}")]
    InFunction {
        /// The function.
        function: String,
        /// What it is.
        source: Box<GraphError>,
    },
    /// Two functions of the same domain, name and overload.
    #[error("function '{function}' is defined twice")]
    DuplicateFunction {
        /// The function.
        function: String,
    },
    /// A function that would stand in for one of ONNX's own operators.
    #[error("function '{function}' is in ONNX's own domain, where runtimes differ about which one is meant")]
    FunctionInOnnxDomain {
        /// The function.
        function: String,
    },
    /// A function attribute that is declared twice.
    #[error("function '{function}' declares attribute '{attribute}' twice")]
    DuplicateParameter {
        /// The function.
        function: String,
        /// The attribute.
        attribute: String,
    },
    /// A call with more inputs, or more outputs, than the function has.
    #[error("node '{node}' calls function '{function}' with {found} {what}, it has {expected}")]
    Arity {
        /// The node.
        node: String,
        /// The function.
        function: String,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many the call has.
        found: usize,
        /// How many the function has.
        expected: usize,
    },
    /// A call with an attribute that the function does not have.
    #[error("node '{node}' calls function '{function}' with attribute '{attribute}', which it does not have")]
    UnknownParameter {
        /// The node.
        node: String,
        /// The function.
        function: String,
        /// The attribute.
        attribute: String,
    },
    /// A function that calls itself, directly or through others.
    #[error("function '{function}' calls itself")]
    Recursion {
        /// The function.
        function: String,
    },
    /// Functions that call functions that call functions, beyond all measure.
    #[error("the graph has more than {limit} nodes when its functions are written out", limit = crate::MAX_NODES)]
    TooManyNodes,
}

/// What a file is that is not ONNX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotOnnx {
    /// No bytes at all.
    #[error("it is empty")]
    Empty,
    /// What git holds in place of a large file.
    #[error("it is a git-lfs pointer; fetch the file itself with `git lfs pull`")]
    GitLfs,
    /// A web page.
    #[error("it is an HTML page, perhaps the answer to a failed download")]
    Html,
    /// A format that is known by its first bytes.
    #[error("it is {0}")]
    Format(&'static str),
    /// Nothing that is known.
    #[error("its bytes do not form one")]
    Unknown,
}
