//! An ONNX file as a checked, typed graph.
//!
//! What [`Model::open`] returns keeps these promises, so that nobody who runs a graph has to look again:
//!
//! * every value is defined once, and before it is used; every graph output is defined;
//! * every node has a name of its own, a known domain, and an opset for it;
//! * every tensor has exactly the bytes that its shape and dtype need;
//! * functions call each other with fitting arguments and without recursion.
//!
//! Weights are not copied: a [`Tensor`] is a slice of the mapped file, or of the external data file beside it. Which operators
//! there are, what they take and what they do is not known here: that is for those who run the graph.
//! They share one thing: the rules of axes and shapes, in [`shape`].
//!
//! Not kept, because nothing here depends on it: training info, quantization annotations, device configurations, denotations,
//! and the model's own domain, version and doc string.
//!
//! ```
//! use engine::{DType, Dim, Value, ValueSpec};
//! use onnx_graph::{Graph, Model, Node, Tensor};
//!
//! let spec = |name: &str| ValueSpec {
//!     name: name.into(),
//!     dtype: DType::F32,
//!     shape: Some(vec![Dim::Symbol("batch".into()), Dim::Fixed(2)]),
//!     optional: false,
//! };
//! let model = Model {
//!     ir_version: 8,
//!     opsets: [(String::new(), 17)].into(),
//!     graph: Graph {
//!         inputs: vec![spec("x")],
//!         outputs: vec![spec("y")],
//!         initializers: [("b".to_string(), Tensor::from_value(&Value::new([2], vec![1f32, 2.])?))].into(),
//!         nodes: vec![Node {
//!             name: "add".into(),
//!             op: "Add".into(),
//!             inputs: vec!["x".into(), "b".into()],
//!             outputs: vec!["y".into()],
//!             ..Node::default()
//!         }],
//!         ..Graph::default()
//!     },
//!     ..Model::default()
//! };
//! model.check()?;
//! assert_eq!(Model::from_bytes(model.to_bytes().into())?, model);
//!
//! let error = Model::from_bytes("<!DOCTYPE html><title>404</title>".into()).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "the byte buffer is not an ONNX model: it is an HTML page, perhaps the answer to a failed download; \
//!      fetch the file again"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod error;
mod external;
mod fault;
mod model;
pub mod proto;
mod read;
pub mod shape;
mod sniff;
mod tensor;
mod weigh;
mod write;

#[cfg(test)]
mod testing;

pub use check::{DOMAINS, MAX_DEPTH, MAX_NODES};
pub use error::{GraphError, NotOnnx};
pub use fault::{AttributeFault, ExternalFault, TensorFault};
pub use model::{Attribute, Function, Graph, Model, Node};
pub use read::{IR_VERSIONS, dtype_of, memory_of};
pub use tensor::Tensor;
pub use write::{External, Place, data_type};
