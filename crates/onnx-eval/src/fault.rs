//! What can go wrong in one node; [`OracleError`](crate::OracleError) says in which.

use engine::{DType, ValueError};
use onnx_graph::GraphError;

/// Why an operator cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum Fault {
    /// A required input is left out.
    #[error("input {0} is missing")]
    MissingInput(usize),
    /// The graph uses an output that the operator does not give here.
    #[error("output {0} does not exist in this case")]
    MissingOutput(usize),
    /// A required attribute is left out.
    #[error("attribute '{0}' is missing")]
    MissingAttribute(&'static str),
    /// An attribute of another type.
    #[error(transparent)]
    Attribute(#[from] GraphError),
    /// A number, word or list that the operator does not define.
    #[error("{what} is {found}, which must be {wanted}")]
    Argument { what: &'static str, found: String, wanted: &'static str },
    /// An input of a dtype that the operator is not defined for.
    #[error("input {input} is {found}, which must be {wanted}")]
    DType { input: usize, found: DType, wanted: &'static str },
    /// Inputs of two dtypes where they must be of one.
    #[error("inputs of {first} and {second} must be of one dtype; insert a Cast")]
    Mixed { first: DType, second: DType },
    /// A dtype that a cast or constant asks for and that is not supported.
    #[error("elements of ONNX's data type {0} are not supported")]
    UnsupportedDType(i64),
    /// Shapes that cannot be broadcast together.
    #[error("shapes {left:?} and {right:?} cannot be broadcast together")]
    Broadcast { left: Vec<usize>, right: Vec<usize> },
    /// A shape that does not fit the other inputs.
    #[error("{what} has shape {found:?}, which must be {wanted}")]
    Shape { what: &'static str, found: Vec<usize>, wanted: String },
    /// A number of elements that does not fit a shape.
    #[error("{found} elements cannot have shape {shape:?}")]
    Elements { shape: Vec<usize>, found: usize },
    /// An axis that is not there, or is there twice.
    #[error("axis {axis} is outside rank {rank}, or given twice")]
    Axis { axis: i64, rank: usize },
    /// An index that is not there.
    #[error("index {index} is outside an axis of size {size}")]
    Index { index: i128, size: usize },
    /// An integer divided by zero.
    #[error("an integer is divided by zero")]
    DivisionByZero,
    /// A value that would be too large, by itself or together with those that are alive.
    #[error(
        "shape {shape:?} would take more than the limit of {limit} bytes, of which {alive} are in use; give \
         less at once, or raise Limits::max_bytes if that is meant"
    )]
    TooLarge { shape: Vec<usize>, alive: usize, limit: usize },
    /// Dropout in training mode, of a model that was exported without being set to evaluation first.
    #[error(
        "it drops values at random, so the graph is not deterministic: export the model in evaluation mode, as after model.eval()"
    )]
    NotDeterministic,
    /// Something that the specification defines and this operator does not do yet.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// Elements that are not what their dtype says.
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl Fault {
    pub(crate) fn argument(what: &'static str, found: impl ToString, wanted: &'static str) -> Self {
        Self::Argument { what, found: found.to_string(), wanted }
    }

    pub(crate) fn shape(what: &'static str, found: &[usize], wanted: impl Into<String>) -> Self {
        Self::Shape { what, found: found.to_vec(), wanted: wanted.into() }
    }
}
