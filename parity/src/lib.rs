//! The judge under the name of its command line: see [`judge`].
//!
//! This package is the binary that `cargo run -p parity` runs. The check itself is the library
//! `judge`, which has no argument parser, no terminal and no HTTP client: tests of your own need
//! that alone, with [`assert_parity!`].

pub use judge::*;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
