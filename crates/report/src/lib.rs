//! What a check of a graph found, as plain data, and every form that shows it.
//!
//! [`Report`] is the `parity-report/1` JSON, which `REPORT.md` describes field by field. It is
//! written by `serde_json` and read back by [`read`]; from either, [`render`] makes Markdown, HTML
//! and JUnit's XML, and `terminal` (a feature) what `parity check` prints. Nothing here computes,
//! and nothing here knows a model or a graph.
//!
//! ```
//! let json = br#"{
//!     "schema": "parity-report/1", "verdict": "error", "model": "org/model", "atol": 1e-6, "error": "model.onnx: no such file"
//! }"#;
//! let report::Saved::Report(report) = report::read(json)? else { unreachable!() };
//! assert_eq!(report.verdict, report::Verdict::Error);
//! assert!(report::render::markdown(&report).starts_with("## parity: ERROR"));
//! # Ok::<(), report::ReadError>(())
//! ```

mod audit;
mod conversion;
mod folder;
mod modules;
mod output;
mod proof;
mod read;
pub mod render;
mod report;
mod selftest;
#[cfg(feature = "terminal")]
pub mod terminal;
mod tokenizer;
mod tokens;
mod trials;
mod verdict;

pub use audit::{
    Audit, Cast, Constant, Expect, Finding, FindingKind, FirstDifference, Layout, Leftover, Origin, Trace,
};
pub use conversion::{Conversion, Loss};
pub use folder::FolderDifference;
pub use modules::{Culprit, Located, ModuleError, ModulePlace};
pub use output::{Beyond, Decisions, EngineCheck, FromTruth, NonFinite, OutputReport, Padding, Recorded};
pub use proof::{DEFAULT_PROOF_TOL, Promoted, Proof, ProofOutput, Scope, Unexplained};
pub use read::{ReadError, Saved, read};
pub use report::{
    Feature, Features, GraphReport, InputSummary, Parts, ReferenceKind, ReferenceSide, Report, Repro, SCHEMA,
    Similar, Similarity, Timing, TimingReport,
};
pub use selftest::{Outcome, SELFTEST_SCHEMA, Selftest};
pub use tokenizer::{Token, TokenDifference, TokenizerReport};
pub use tokens::TokenErrors;
pub use trials::{Relation, STRESS_RATIO, Stress};
pub use verdict::Verdict;
