//! The plan of the house: which crate may use which, and which room of the judge.
//!
//! The reference path never sees ONNX, and the deployment path never sees a checkpoint: only because they share nothing that could
//! be wrong on both sides does it mean something that they agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use architecture::Task;
use candle_bert::BertConfig;
use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate by its folder, and what it may use of the others, tests and benches aside.
const MAY_USE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("kernels", &[]),
    ("report", &[]),
    ("checkpoint", &["engine"]),
    ("onnx-graph", &["engine"]),
    ("architecture", &["engine", "checkpoint"]),
    ("candle-blocks", &["engine", "checkpoint", "architecture"]),
    ("candle-bert", &["checkpoint", "architecture", "candle-blocks"]),
    ("onnx-eval", &["engine", "onnx-graph"]),
    ("onnx-session", &["engine", "onnx-graph", "onnx-eval", "kernels"]),
    ("onnx-export", &["engine", "checkpoint", "architecture", "onnx-graph"]),
    ("bert-pipeline", &["engine", "checkpoint", "candle-bert", "onnx-session"]),
    ("models", &[]),
    (
        "judge",
        &[
            "report",
            "engine",
            "checkpoint",
            "onnx-graph",
            "candle-bert",
            "onnx-eval",
            "onnx-session",
            "onnx-export",
            "architecture",
            "candle-blocks",
            "bert-pipeline",
            "models",
        ],
    ),
    (
        "parity",
        &[
            "judge",
            "report",
            "engine",
            "checkpoint",
            "onnx-graph",
            "onnx-eval",
            "onnx-session",
            "onnx-export",
            "architecture",
            "bert-pipeline",
            "models",
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
    let place = |path: &Utf8Path| path.file_name().unwrap().to_string();
    let places: Vec<String> =
        metadata.packages.iter().map(|package| place(package.manifest_path.parent().unwrap())).collect();
    let found: BTreeSet<&str> = places.iter().map(String::as_str).collect();
    assert_eq!(found, plan.keys().copied().collect(), "a crate is missing from the plan, or from the house");
    for (package, used_by) in metadata.packages.iter().zip(&places) {
        for dependency in &package.dependencies {
            let Some(used) = dependency.path.as_deref().map(place) else { continue };
            let allowed = plan[used_by.as_str()].contains(&used.as_str());
            let tests = dependency.kind == DependencyKind::Development;
            assert!(tests || allowed, "{used_by} uses {used}, which the plan does not allow");
        }
        // Names without the prefix are taken in the registry.
        let published = package.publish.is_none();
        assert_eq!(published, package.name.starts_with("candle-parity-"), "{}", package.name);
    }
}

/// Whoever holds graphs to checkpoints in tests builds no command line, no terminal and no HTTP
/// client.
#[test]
fn the_judge_has_no_command_line_and_no_http_client() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            "candle-parity-judge",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(
        crates.contains("candle-parity-onnx-session") && crates.contains("candle-parity-report"),
        "{tree}"
    );
    for unwanted in ["clap", "indicatif", "comfy-table", "anstream", "hf-hub", "ureq", "rustls", "ring"] {
        assert!(!crates.contains(unwanted), "the judge builds {unwanted}");
    }
}

/// The rooms of the judge, from the ground up: each may use those before it. A check goes through
/// them in this order, and a report is made where it ends.
const ROOMS: &[&str] = &[
    "inspect",
    "tensors",
    "error",
    "inputs",
    "compare",
    "bounds",
    "subject",
    "tokenizer",
    "folder",
    "audit",
    "proof",
    "engines",
    "blame",
    "structure",
    "verdict",
    "trial",
    "against",
    "repro",
    "selftest",
    "check",
];

/// No circle between rooms, no arrow up.
#[test]
fn rooms_of_the_judge_use_only_those_below() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/judge/src");
    let lib = fs::read_to_string(root.join("lib.rs")).unwrap();
    // What the crate shows of its rooms under its own name: `pub use room::{A, B};`.
    let mut room_of: BTreeMap<&str, &str> = ROOMS.iter().map(|room| (*room, *room)).collect();
    for line in lib.lines().filter_map(|line| line.strip_prefix("pub use ")) {
        let (room, names) = line.split_once("::").unwrap();
        room_of.extend(names.split(|c: char| !is_of_a_name(c)).map(|name| (name, room)));
    }
    let is_room = |line: &&str| line.trim_start_matches("pub ").starts_with("mod ");
    assert_eq!(lib.lines().filter(is_room).count(), ROOMS.len(), "a room is not in the plan");
    let mut sources = Vec::new();
    collect(&root, &mut sources);
    let mut arrows = 0;
    for source in sources.iter().filter(|source| !source.ends_with("lib.rs")) {
        let path = source.strip_prefix(&root).unwrap().with_extension("");
        let room = path.iter().next().unwrap().to_str().unwrap();
        let floor = ROOMS.iter().position(|other| *other == room);
        let floor = floor.unwrap_or_else(|| panic!("{room} is not in the plan"));
        for name in names_of_the_crate(&fs::read_to_string(source).unwrap()) {
            let Some(&used) = room_of.get(name.as_str()) else { continue };
            let below = ROOMS.iter().position(|other| *other == used).is_none_or(|other| other <= floor);
            assert!(below, "{} uses {name} of {used}, which is above {room}", source.display());
            arrows += usize::from(used != room);
        }
    }
    assert!(arrows > 50, "only {arrows} uses of one room by another were found");
}

/// What follows `crate::` in a source, tests and comments aside: names, or those of a list.
fn names_of_the_crate(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let after = code.split("crate::").skip(1);
    let names = after.flat_map(|rest| match rest.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
        None => vec![rest],
    });
    names.map(|name| name.trim().chars().take_while(|&c| is_of_a_name(c)).collect()).collect()
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Families' own files lie in `crates/candle-*`: no other source names a module's path, so that
/// whatever is known of a model follows from its description.
#[test]
fn no_source_outside_the_families_names_a_module() {
    let config = BertConfig::default();
    let mut words: BTreeSet<String> = BTreeSet::new();
    for task in Task::ALL {
        let program = config.program(task, &|_| true).unwrap();
        for path in program.module_paths() {
            let parts: Vec<&str> = path.split('.').filter(|part| part.parse::<usize>().is_err()).collect();
            // Two names in a row are nobody's but a model's, and so is one that no dictionary has.
            words.extend(parts.windows(2).map(|pair| pair.join(".")));
            let own = parts.iter().filter(|part| part.contains('_') || part.contains(char::is_uppercase));
            // LayerNorm is a word of sentences, too.
            words.extend(
                own.map(|part| if part.contains('_') { (*part).to_string() } else { format!(".{part}") }),
            );
        }
    }
    assert!(
        words.len() > 15 && words.contains("attention.self") && words.contains(".LayerNorm"),
        "{words:?}"
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let others = crates.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("candle-"));
    let mut sources = Vec::new();
    for folder in others.chain([root.join("parity")]) {
        collect(&folder.join("src"), &mut sources);
    }
    assert!(sources.len() > 150, "only {} sources", sources.len());
    let mut named = Vec::new();
    for source in &sources {
        let text = fs::read_to_string(source).unwrap();
        // Tests speak of one model and its modules.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let literals: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let comment = line.trim_start().starts_with("//");
            let hit = literals.iter().find(|text| words.iter().any(|word| has_word(text, word)));
            if let Some(hit) = hit.filter(|_| !comment) {
                named.push(format!("{}:{}: {hit}", source.display(), number + 1));
            }
        }
    }
    assert_eq!(named, [""; 0], "{}", named.join("\n"));
}

/// Whether a literal has a word that neither goes on before nor after.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let goes_on = |c: Option<char>| c.is_some_and(is_of_a_name);
        !goes_on(text[..at].chars().next_back()) && !goes_on(text[at + word.len()..].chars().next())
    })
}

/// The sources in a folder, but those of tests.
fn collect(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() && name != "tests" {
            collect(&path, sources);
        } else if name.ends_with(".rs") && !["tests.rs", "testing.rs"].contains(&name.as_str()) {
            sources.push(path);
        }
    }
}
