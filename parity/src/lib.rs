//! The judge under the name of its command line: see [`judge`].
//!
//! `cargo run -p parity` is this package's binary. What it shows is a library's to tell, and that one has no argument parser, no terminal and no
//! HTTP client: tests of your own want `judge` alone, with [`assert_parity!`].

pub use judge::*;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
