//! Runs a checked ONNX graph: the deployment path.
//!
//! A [`Session`] holds a graph on one of two engines. The engine `candle` is candle-onnx, made trustworthy: a graph is *lowered* to
//! the operators and forms that candle-onnx computes correctly, its initializers become candle tensors once, at load, and
//! what cannot be lowered is refused, naming node, operator and opset. candle-onnx 0.11 by itself has no
//! `LayerNormalization`, averages an opset-18 `ReduceMean` over all axes, and converts every initializer again on every call.
//!
//! The engine `compiled` makes few steps of a graph, each a kernel over packed weights: see [`compiled`].
//!
//! ```
//! use engine::{DType, Dim, NamedValues, Value, ValueSpec};
//! use onnx_graph::{Graph, Model, Node, Tensor};
//! use onnx_session::compiled::{Options, Threads};
//! use onnx_session::Session;
//!
//! let spec = |name: &str| ValueSpec {
//!     name: name.into(),
//!     dtype: DType::F32,
//!     shape: Some(vec![Dim::Symbol("batch".into()), Dim::Fixed(2)]),
//!     optional: false,
//! };
//! let weight = Value::new([2, 2], vec![1f32, 2., 3., 4.])?;
//! let model = Model {
//!     ir_version: 8,
//!     opsets: [(String::new(), 17)].into(),
//!     graph: Graph {
//!         inputs: vec![spec("x")],
//!         outputs: vec![spec("y")],
//!         initializers: [("w".to_string(), Tensor::from_value(&weight))].into(),
//!         nodes: vec![Node {
//!             name: "product".into(),
//!             op: "MatMul".into(),
//!             inputs: vec!["x".into(), "w".into()],
//!             outputs: vec!["y".into()],
//!             ..Node::default()
//!         }],
//!         ..Graph::default()
//!     },
//!     ..Model::default()
//! };
//! let session = Session::with(&model, Options { threads: Threads::Count(1), ..Options::default() })?;
//! let y = session.run(&NamedValues::from_iter([("x", Value::new([1, 2], vec![1f32, -1.])?)]))?;
//! assert_eq!(y.get("y"), Some(&Value::new([1, 2], vec![-2f32, -2.])?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features: `candle-onnx` (on by default) is that engine, and all that needs `protoc` at build time.

#[cfg(feature = "candle-onnx")]
pub mod candle;
pub mod compiled;
mod error;
mod session;
pub mod text_inputs;

pub use error::SessionError;
/// A graph as it is read and checked, so that whoever opens a [`Session`] needs no other crate for it.
pub use onnx_graph::Model;
pub use session::{EngineKind, Session};
