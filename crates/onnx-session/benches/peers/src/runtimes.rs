//! One module a runtime.

pub mod candle_models;
pub mod house;
pub mod onnxruntime;
pub mod rten;
pub mod tract;
