//! Holds a BERT's ONNX graph against its checkpoint: do both compute the same function?
//!
//! The `parity` binary is this library with a command line. In a test of your own:
//!
//! ```
//! use engine::Engine;
//! use onnx_session::{EngineKind, Session};
//! use parity::{Subject, assert_parity, suite};
//!
//! let subject = Subject::open(None)?; // or Subject::open(Some("path/to/model"))?
//! let reference = subject.reference(candle_core::DType::F32)?.engine;
//! let (_, graph) = subject.graph(None)?;
//! let session = Session::new(&graph, EngineKind::Candle)?;
//!
//! let cases = suite::default_cases(&subject.limits(), Default::default(), None, None)?;
//! assert_parity!(reference, session, &cases[..2]); // every output within 1e-6
//! assert_parity!(reference, session, &cases[..2], atol = 1e-5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For single values, [`engine::Value`] has `approx`'s traits (feature `approx` of that crate), so that
//! `approx::assert_abs_diff_eq!(a, b, epsilon = 1e-6)` compares dtype, shape and elements.

pub mod against;
pub mod audit;
pub mod bench;
pub mod check;
pub mod compare;
mod culprits;
pub mod decide;
mod error;
pub mod expect;
pub mod explain;
pub mod inspect;
pub mod judge;
pub mod locate;
pub mod outputs;
pub mod proof;
pub mod recorded;
pub mod relations;
pub mod replay;
pub mod repro;
pub mod selftest;
pub mod shrink;
pub mod stress;
mod subject;
pub mod suite;
pub mod tensors;
pub mod tokenizer_check;
mod tokens;

pub use ::report::{self, Verdict, render};
pub use error::ParityError;
pub use subject::{Reference, Subject, is_graph, open_graph};

/// Panics, with a line for each output that differs, unless a candidate engine agrees with a reference on every case.
///
/// `assert_parity!(reference, candidate, cases)` holds every shared output to [`check::DEFAULT_ATOL`];
/// `atol = x` to another tolerance. Nothing compared is a failure.
#[macro_export]
macro_rules! assert_parity {
    ($reference:expr, $candidate:expr, $cases:expr $(,)?) => {
        $crate::assert_parity!($reference, $candidate, $cases, atol = $crate::check::DEFAULT_ATOL)
    };
    ($reference:expr, $candidate:expr, $cases:expr, atol = $atol:expr $(,)?) => {
        if let Err(message) = $crate::check::agree(&$reference, &$candidate, $cases, $atol) {
            panic!("{message}");
        }
    };
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
