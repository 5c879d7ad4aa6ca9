//! Judges whether an ONNX graph and its checkpoint compute the same function, and says where and
//! why they do not.
//!
//! This is what the `parity` command line shows, as a library: no argument parser, no terminal, no
//! HTTP client (unless the feature `hub` asks for one). A whole check is [`check::Check`]. Its
//! stages are the other modules: [`inputs`], [`audit`], both sides in f64 ([`proof`]), [`engines`],
//! [`blame`]. In a test of your own:
//!
//! ```
//! use judge::{Subject, assert_parity, inputs};
//! use onnx_session::Session;
//!
//! let subject = Subject::open(None)?; // or Subject::open(Some("path/to/model"))?
//! let reference = subject.reference(candle_core::DType::F32)?.engine;
//! let (_, graph) = subject.graph(None)?;
//! let session = Session::fastest(&graph, Default::default())?;
//!
//! let cases = inputs::default_cases(&subject.limits(), Default::default(), None, None)?;
//! assert_parity!(reference, session, &cases[..2]); // every output within 1e-6
//! assert_parity!(reference, session, &cases[..2], atol = 1e-5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For single values, [`engine::Value`] has `approx`'s traits (feature `approx` of that crate), so
//! that `approx::assert_abs_diff_eq!(a, b, epsilon = 1e-6)` compares dtype, shape and elements.

pub mod against;
pub mod audit;
pub mod blame;
pub mod bounds;
pub mod check;
pub mod compare;
pub mod engines;
mod error;
mod folder;
pub mod inputs;
pub mod inspect;
pub mod proof;
pub mod repro;
pub mod selftest;
mod structure;
mod subject;
pub mod tensors;
pub mod tokenizer;
pub mod trial;
mod verdict;

pub use ::report::{self, Verdict, render};
pub use bounds::{Bounds, DEFAULT_ATOL, DEFAULT_PROOF_TOL};
pub use error::{FitError, ParityError};
pub use subject::{Opened, Reference, References, Subject, is_graph, open_graph};

/// Panics, with a line for each output that differs, unless a candidate engine agrees with a
/// reference on every case.
///
/// `assert_parity!(reference, candidate, cases)` holds every shared output to [`DEFAULT_ATOL`];
/// `atol = x` to another tolerance. Nothing compared is a failure.
#[macro_export]
macro_rules! assert_parity {
    ($reference:expr, $candidate:expr, $cases:expr $(,)?) => {
        $crate::assert_parity!($reference, $candidate, $cases, atol = $crate::DEFAULT_ATOL)
    };
    ($reference:expr, $candidate:expr, $cases:expr, atol = $atol:expr $(,)?) => {
        if let Err(message) = $crate::engines::agree(&$reference, &$candidate, $cases, $atol) {
            panic!("{message}");
        }
    };
}
