//! The plan of the house: which crate may use which.
//!
//! The reference path never sees ONNX, and the deployment path never sees a checkpoint: only because they share nothing that could
//! be wrong on both sides does it mean something that they agree.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate and what it may use of the others, tests and benches aside.
const MAY_USE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("kernels", &[]),
    ("report", &[]),
    ("checkpoint", &["engine"]),
    ("onnx-graph", &["engine"]),
    ("candle-bert", &["engine", "checkpoint"]),
    ("onnx-eval", &["engine", "onnx-graph"]),
    ("onnx-session", &["engine", "onnx-graph", "onnx-eval", "kernels"]),
    ("bert-export", &["engine", "checkpoint", "candle-bert", "onnx-graph"]),
    ("bert-pipeline", &["engine", "checkpoint", "candle-bert", "onnx-session"]),
    ("bert-tiny", &[]),
    (
        "parity",
        &[
            "report",
            "engine",
            "checkpoint",
            "onnx-graph",
            "candle-bert",
            "onnx-eval",
            "onnx-session",
            "bert-export",
            "bert-pipeline",
            "bert-tiny",
        ],
    ),
];

#[test]
fn crates_use_only_what_they_may() {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_string()])
        .exec()
        .unwrap();
    let plan: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let found: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(found, plan.keys().copied().collect(), "a crate is missing from the plan, or from the house");
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if dependency.kind == DependencyKind::Development || !plan.contains_key(name) {
                continue;
            }
            assert!(
                plan[package.name.as_str()].contains(&name),
                "{} uses {name}, which the plan does not allow",
                package.name
            );
        }
    }
}
