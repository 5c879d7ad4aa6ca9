//! What every way of running a model has in common.
//!
//! * [`Value`]: a dense tensor of any ONNX number type, cheap to clone;
//! * [`NamedValues`]: values under their names, in the order they were given;
//! * [`ValueSpec`]: what an input or output is called, its dtype and its shape, as far as they are fixed;
//! * [`Engine`]: the one trait that the reference model, a candle session and the oracle implement;
//! * [`map_file`]: the one place where a file is mapped into memory, and [`release`] lets go of
//!   what is not looked at any more; [`read_file`] takes pipes and `-`, too;
//! * [`replace_file`]: writes a file as a whole or not at all, and [`NewFolder`] a folder;
//!   [`remove_unfinished`] is for signals;
//! * [`memory`]: what a file may make of memory when it is read.
//!
//! ```
//! use engine::{DType, NamedValues, Value};
//!
//! let ids = Value::new([1, 3], vec![101i64, 2023, 102])?;
//! assert_eq!(ids.dtype(), DType::I64);
//! assert_eq!(ids.as_slice::<i64>()?, [101, 2023, 102]);
//!
//! let inputs = NamedValues::from_iter([("input_ids", ids)]);
//! assert_eq!(inputs.get("input_ids").map(Value::shape), Some(&[1, 3][..]));
//! # Ok::<(), engine::ValueError>(())
//! ```

#[cfg(feature = "approx")]
mod approx;
#[cfg(feature = "candle")]
mod candle;
mod dtype;
mod map;
pub mod memory;
mod named;
mod replace;
mod run;
mod source;
mod spec;
mod unfinished;
mod value;

pub use dtype::{DType, Element};
pub use map::{MapError, map_file, release};
pub use named::NamedValues;
pub use replace::{Replacement, replace_file, replace_file_with};
pub use run::{Engine, EngineError};
pub use source::{STDIN, is_stream, open_stream, read_file, shown_path};
pub use spec::{Dim, InputError, ValueSpec, check_inputs};
pub use unfinished::{NewFolder, remove_unfinished};
pub use value::{Value, ValueError};
