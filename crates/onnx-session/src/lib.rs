//! Runs a checked ONNX graph: the deployment path.
//!
//! A [`Session`] holds a graph on one engine. The engine `candle` is candle-onnx, made trustworthy: a graph is *lowered* to
//! the operators and forms that candle-onnx computes correctly, its initializers become candle tensors once, at load, and
//! what cannot be lowered is refused, naming node, operator and opset. candle-onnx 0.11 by itself has no
//! `LayerNormalization`, averages an opset-18 `ReduceMean` over all axes, and converts every initializer again on every call.
//!
//! Features: `candle-onnx` (on by default) is that engine, and all that needs `protoc` at build time.

#[cfg(feature = "candle-onnx")]
pub mod candle;
mod error;
mod session;

pub use error::SessionError;
pub use session::{EngineKind, Session};
