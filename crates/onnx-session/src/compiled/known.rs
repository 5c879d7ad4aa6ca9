//! What is known of a graph's values before anything runs.

use std::collections::HashMap;

use engine::{DType, Value};
use onnx_eval::{OracleError, operations};
use onnx_graph::Model;
use onnx_graph::shape::Size as _;

use super::build::build;
pub use super::dim::{Dim, Int};
use super::ir::{Fact, Guard, Info};

/// What is known of each value of a graph, functions written out, by the names of
/// [`Oracle::values`](onnx_eval::Oracle::values), initializers and inputs.
///
/// Shapes follow from operators, from constants and from the inputs' declarations; what a file says
/// of values in between is not read. A dimension of an input that has a name, or none, is a symbol;
/// one shape holds for every size that the symbols may be.
///
/// ```
/// use engine::{DType, Dim, ValueSpec};
/// use onnx_graph::{Graph, Model, Node};
/// use onnx_session::compiled::Known;
///
/// let dims = ["batch", "sequence"].map(|name| Dim::Symbol(name.into()));
/// let spec = |name: &str, shape| {
///     ValueSpec { name: name.into(), dtype: DType::I64, shape, optional: false }
/// };
/// let graph = Graph {
///     inputs: vec![spec("ids", Some(dims.to_vec()))],
///     outputs: vec![spec("sizes", None)],
///     nodes: vec![Node {
///         name: "sizes".into(),
///         op: "Shape".into(),
///         inputs: vec!["ids".into()],
///         outputs: vec!["sizes".into()],
///         ..Node::default()
///     }],
///     ..Graph::default()
/// };
/// let opsets = [(String::new(), 17)].into();
/// let model = Model { ir_version: 8, opsets, graph, ..Model::default() };
/// let known = Known::of(&model)?;
/// assert!(known.is_sizes("sizes") && !known.is_constant("sizes"));
/// assert_eq!(known.shape("ids").map(|shape| shape.len()), Some(2));
/// # Ok::<(), onnx_eval::OracleError>(())
/// ```
pub struct Known {
    values: HashMap<String, Info>,
    limits: Vec<(Dim, usize)>,
}

impl Known {
    /// Looks at a graph without running it.
    ///
    /// # Errors
    /// If it does not pass [`Model::check`], or has an operator that is not known at its opset.
    pub fn of(model: &Model) -> Result<Self, OracleError> {
        let ir = build(model, &operations(model)?, &[])?;
        let limits = ir.guards.iter().filter_map(|guard| match *guard {
            Guard::AtMost(symbol, most) => Some((Dim::symbol(symbol), most)),
            Guard::Binary(_) => None,
        });
        let limits = limits.collect();
        let values = ir.values.into_iter().map(|info| (info.name.clone(), info)).collect();
        Ok(Self { values, limits })
    }

    /// What the shapes take to hold: dimensions of inputs that are at most so many, since that is
    /// how many elements of a constant are there to be cut from.
    pub fn limits(&self) -> &[(Dim, usize)] {
        &self.limits
    }

    /// The dtype, where it is known.
    pub fn dtype(&self, value: &str) -> Option<DType> {
        self.values.get(value)?.dtype
    }

    /// The shape, if it is a product of numbers and of inputs' dimensions.
    pub fn shape(&self, value: &str) -> Option<&[Dim]> {
        self.values.get(value)?.shape.as_deref()
    }

    /// Whether the value follows from constants alone, or from shapes that are always the same.
    pub fn is_constant(&self, value: &str) -> bool {
        matches!(self.fact(value), Some(Fact::Const(_)))
    }

    /// Whether it is a list of sizes, or one, each a product of numbers and of inputs' dimensions.
    pub fn is_sizes(&self, value: &str) -> bool {
        matches!(self.fact(value), Some(Fact::Ints(_)))
    }

    /// The elements of such a list, of which two are the same in every run if they are equal.
    pub fn sizes(&self, value: &str) -> Option<&[Int]> {
        match self.fact(value)? {
            Fact::Ints(sizes) => Some(sizes),
            _ => None,
        }
    }

    /// The constant; nothing where it is a tensor that says of itself what it is not.
    pub fn constant(&self, value: &str) -> Option<Value> {
        match self.fact(value)? {
            Fact::Const(constant) => constant.value(),
            _ => None,
        }
    }

    /// The elements of a short constant list of integers.
    pub fn ints(&self, value: &str) -> Option<Vec<i64>> {
        match self.fact(value)? {
            Fact::Const(constant) => constant.ints(),
            _ => None,
        }
    }

    /// The one element of a float constant.
    pub fn float(&self, value: &str) -> Option<f32> {
        match self.fact(value)? {
            Fact::Const(constant) => constant.float(),
            _ => None,
        }
    }

    /// Whether a dimension is the same for every input.
    pub fn is_fixed(dim: &Dim) -> bool {
        dim.known().is_some()
    }

    fn fact(&self, value: &str) -> Option<&Fact> {
        self.values.get(value).map(|info| &info.fact)
    }
}
