//! The oracle: an evaluator of ONNX graphs that is written to be right, and to be read.
//!
//! Every operator follows the ONNX specification at the graph's own opset, one short function each; nothing is fused, reordered or
//! approximated. Every node is computed in f64 (or, for integers, in i128), whatever its dtype is. Its results are then brought once to the grid of
//! their dtype, and that is the only place where anything is rounded:
//!
//! | dtype | [`Precision::F32`] | [`Precision::F64`] | [`Precision::Exact`] |
//! | --- | --- | --- | --- |
//! | f32 | rounded to f32 after each node | never rounded: f32 constants, attributes and inputs are widened exactly, a cast to float rounds nothing, `stash_type` follows | never rounded |
//! | f16, bf16 | rounded after each node | rounded after each node | never rounded |
//! | f64 | never rounded | never rounded | never rounded |
//! | integers | modulo 2^width | modulo 2^width | modulo 2^width |
//!
//! So the f64 run is what the graph's author meant, to some 1e-15, and the f32 run is as good as f32 can be from node to node. `Exact` is for graphs of
//! half precision: what they would be, had they rounded nothing but their weights. In both of the latter all float outputs are handed out as f64.
//!
//! What a graph has beyond what is known here is refused, never skipped: an operator at an opset without it, an attribute it does not have
//! there, an input too many. [`operators`] lists what is known. Functions of the model are written out where they are called, with the opsets
//! they import themselves. exp, tanh, erf and their like come from libm, in pure Rust, and are tested against a table of high precision.
//!
//! No tensor library is shared with candle.
//!
//! ```
//! use engine::{DType, Engine, NamedValues, Value, ValueSpec};
//! use onnx_eval::Oracle;
//! use onnx_graph::{Graph, Model, Node};
//!
//! let spec = |name: &str| ValueSpec { name: name.into(), dtype: DType::F32, shape: None, optional: false };
//! let model = Model {
//!     ir_version: 8,
//!     opsets: [(String::new(), 17)].into(),
//!     graph: Graph {
//!         inputs: vec![spec("x")],
//!         outputs: vec![spec("y")],
//!         nodes: vec![Node {
//!             name: "root".into(),
//!             op: "Sqrt".into(),
//!             inputs: vec!["x".into()],
//!             outputs: vec!["y".into()],
//!             ..Node::default()
//!         }],
//!         ..Graph::default()
//!     },
//!     ..Model::default()
//! };
//! let oracle = Oracle::new(&model)?;
//! let y = oracle.run(&NamedValues::from_iter([("x", Value::scalar(2f32))]))?;
//! assert_eq!(y.get("y"), Some(&Value::scalar(2f64.sqrt())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod context;
mod error;
mod fault;
mod fold;
mod inline;
mod memory;
mod operation;
mod ops;
mod oracle;
mod program;
mod round;
mod substitute;
mod tensor;

pub use error::OracleError;
pub use fault::Fault;
pub use fold::Folded;
pub use operation::{Operation, operations};
pub use ops::{Operator, PackedMatrix, operators, packed_matrix};
pub use oracle::{Limits, Oracle};
pub use round::Precision;
pub use substitute::{Constant, NodeId, Place, Promotions};
