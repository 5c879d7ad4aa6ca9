//! The tests of the whole house: each file is about one thing that it promises, and most of them drive the real binary.
//!
//! They are one program: each program would be linked anew with candle and the rest, at 80 MB and some seconds apiece.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says what broke by panicking"
)]

mod common;

#[cfg(unix)]
mod action;
mod against;
mod audit;
mod bombs;
mod commands;
mod conformance;
mod constants;
mod default_model;
mod descriptions;
mod expect;
mod export;
mod export_f16;
mod families;
mod fixtures;
mod folders;
mod forms;
mod heads;
mod hostile;

#[cfg(feature = "hub")]
mod hub;
mod meaning;
mod minilm_forms;
mod mistakes;
mod pipelines;
mod plan;
mod proof;
mod quantized;
mod real_model;
mod reports;
mod repro;
mod selftest;
mod sentence;
mod streams;
mod structure;
mod supported_ops;
mod tasks;
mod terminal;
mod toy;
#[cfg(unix)]
mod whole;
