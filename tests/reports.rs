//! The report of a check as Markdown, HTML and JUnit, as the real binary writes them.

use std::path::PathBuf;

use crate::common::{Folder, Run, fixture, in_fixture};
use parity::check::Check;
use parity::report::Expect;
use parity::{Bounds, Subject};
use serde_json::Value as Json;

const FILES: [&str; 8] = ["--json", "r.json", "--markdown", "r.md", "--html", "r.html", "--junit", "r.xml"];

/// Runs a check that writes all forms, and gives them, and what the terminal showed.
fn reports(args: &[&str], code: i32) -> (Json, [String; 4]) {
    let folder = Folder::new();
    let run = folder.run(&[args, &FILES].concat());
    assert_eq!(run.code, code, "{run}");
    let read = |name: &str| std::fs::read_to_string(folder.at(name)).unwrap();
    (
        serde_json::from_str(&read("r.json")).unwrap(),
        [read("r.md"), read("r.html"), read("r.xml"), run.stdout.clone()],
    )
}

/// What the binary shows is the library's: the whole check, and nothing less.
#[test]
fn the_library_makes_the_report_that_the_binary_writes() {
    let model = fixture("baseline").display().to_string();
    let graphs = ["baseline/ort-transformers-ts14-approximation.onnx", "baseline/ts11-eager.onnx"];
    let graphs = graphs.map(|graph| in_fixture("forms", graph));
    let args = [model.as_str(), "--onnx", &graphs[0], "--onnx", &graphs[1]];
    let (code, binary) = Folder::new().report(&args);
    assert_eq!(code, 1, "{binary}");
    let check = Check { onnx: graphs.map(PathBuf::from).into(), ..Check::default() };
    let mut steps = 0;
    let report = check.of_model(Subject::open(Some(&model)).unwrap(), &mut |_| steps += 1).unwrap();
    // As text: a value in memory has an f32 with the digits that it has as f64.
    let library = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    // Two clocks do not agree, and a program has no command line.
    let but_for = |mut json: Json| {
        json.as_object_mut().unwrap().retain(|field, _| field != "timing" && field != "command");
        json
    };
    let stressed = report.graphs.iter().filter(|graph| !graph.stress.is_empty()).count();
    assert!(steps > 100 && stressed == 1 && report.timing.is_some(), "{steps} steps, {stressed} stressed");
    assert_eq!(but_for(library), but_for(binary));
}

#[test]
fn what_does_not_go_together_is_refused_by_the_library_too() {
    let refused =
        |check: Check| check.of_model(Subject::open(None).unwrap(), &mut |_| ()).unwrap_err().to_string();
    let expected = Check { expected: Some("out.npz".into()), ..Check::default() };
    assert!(refused(expected).contains("those of a file's inputs"));
    let bounds = Bounds { expect: Expect::Int8, ..Bounds::default() };
    let repro = Check { repro: Some("no/such/folder".into()), bounds, ..Check::default() };
    assert!(refused(repro).contains("is not replayed"));
}

#[test]
fn a_check_that_passes_writes_every_form() {
    let (json, [markdown, html, junit, _]) = reports(&["--output", "last_hidden_state"], 0);
    assert_eq!(json["verdict"], "pass");
    assert_eq!(
        json["command"],
        "parity --output last_hidden_state --json r.json --markdown r.md --html r.html --junit r.xml"
    );
    assert!(markdown.starts_with("## parity: PASS\n"), "{markdown}");
    assert!(html.starts_with("<!doctype html>") && html.contains("bert-tiny"), "{html}");
    assert!(
        junit.contains("<testcase name=\"proof of last_hidden_state\"") && !junit.contains("<failure"),
        "{junit}"
    );
}

/// FastGelu in place of Gelu: another function.
#[test]
fn a_check_that_fails_writes_what_is_wrong_in_every_form() {
    let model = fixture("baseline");
    let graph = in_fixture("forms", "baseline/ort-transformers-ts14-approximation.onnx");
    let (json, [markdown, html, junit, terminal]) = reports(&[model.to_str().unwrap(), "--onnx", &graph], 1);
    assert_eq!(json["verdict"], "fail");
    assert!(markdown.starts_with("## parity: FAIL\n"), "{markdown}");
    assert!(html.contains("<span class=\"badge fail\">"), "{html}");
    assert!(junit.contains("<failure type=\"fail\""), "{junit}");
    let culprits = json["culprits"].as_array().unwrap();
    assert!(!culprits.is_empty());
    for culprit in culprits {
        let module = culprit["module"].as_str().unwrap();
        assert!(markdown.contains(module) && junit.contains(module), "{module}");
        let row = |line: &&str| line.contains(module) && line.contains("off by itself");
        assert!(terminal.lines().any(|line| row(&line)), "{terminal}");
        // The page allows a break after each dot.
        assert!(html.replace("<wbr>", "").contains(module), "{module}");
    }
}

#[test]
fn a_check_that_cannot_be_run_says_so_in_every_form() {
    let (json, [markdown, html, junit, _]) = reports(&["--onnx", "missing.onnx"], 2);
    assert_eq!(json["verdict"], "error");
    for form in [&markdown, &html, &junit] {
        assert!(form.contains("missing.onnx"), "{form}");
    }
    assert!(junit.contains("<error type=\"error\""), "{junit}");
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_and_keeps_no_other_from_it() {
    let folder = Folder::new();
    let run = folder.run(&["--markdown", "no/such/folder/r.md", "--junit", "r.xml"]);
    run.is_mistake(&["cannot write no/such/folder/r.md"]);
    assert!(folder.at("r.xml").exists());
}

/// What `parity check` wrote and showed, `parity render` makes again of its JSON, to the byte.
#[test]
fn a_saved_report_is_rendered_as_it_was() {
    let folder = Folder::new();
    let [baseline, raw] = ["", "onnx/ts17-eager-dynamic.onnx"].map(|file| in_fixture("baseline", file));
    let head = in_fixture("heads", "masked_lm_untied");
    let [int8, wrong, other] = ["int8", "ort-transformers-ts14-approximation", "onnxsim-ts17"]
        .map(|form| in_fixture("forms", &format!("baseline/{form}.onnx")));
    let checks: [(&[&str], i32); 6] = [
        (&[], 0),
        (&[&baseline, "--onnx", &wrong], 1),
        (&[&baseline, "--onnx", &raw, "--onnx", &wrong], 1),
        (&[&baseline, "--onnx", &int8, "--expect", "int8"], 0),
        (&[&head], 0),
        (&[&raw, "--onnx", &other], 0),
    ];
    for (args, code) in checks {
        let check = folder.run(&[args, &FILES].concat());
        assert_eq!(check.code, code, "{check}");
        assert_eq!(folder.run(&["render", "r.json"]).exits(0).stdout, check.stdout);
        let forms = ["--markdown", "2.md", "--html", "2.html", "--junit", "2.xml"];
        let run = folder.run(&[&["render", "r.json"], &forms[..]].concat()).exits(0);
        assert!(run.stdout.is_empty(), "{run}");
        let read = |name: &str| std::fs::read(folder.at(name)).unwrap();
        for (was, is) in [("r.md", "2.md"), ("r.html", "2.html"), ("r.xml", "2.xml")] {
            assert!(read(was) == read(is), "{is} of {args:?}");
        }
    }
    folder.run(&["--onnx", "missing.onnx", "--json", "error.json"]);
    let run = folder.run(&["render", "error.json"]).exits(0);
    assert!(run.stdout.starts_with("ERROR  the check of bert-tiny could not be run: "), "{run}");
}

#[test]
fn what_is_no_saved_report_is_refused() {
    let folder = Folder::new();
    let refused = |name: &str, json: &str, words: &[&str]| {
        folder.write(name, json);
        folder.run(&["render", name]).is_mistake(&[&[name, "is no saved report"], words].concat());
        let file = std::fs::File::open(folder.at(name)).unwrap();
        let run = Run::of(folder.parity(&["render", "-"]).stdin(file));
        run.is_mistake(&[&["standard input is no saved report"], words].concat());
    };
    refused("empty.json", "", &["no JSON", "parity check --json FILE"]);
    refused(
        "other.json",
        "{\"results\": []}",
        &["without the `schema` parity-report/1", "parity check --json FILE"],
    );
    refused(
        "later.json",
        "{\"schema\": \"parity-report/2\"}",
        &["'parity-report/2'", "the version of parity that wrote it"],
    );
    refused(
        "cut.json",
        "{\"schema\": \"parity-report/1\"}",
        &["missing field `verdict`", "parity check --json FILE"],
    );
    folder.run(&["render", "missing.json"]).is_mistake(&["missing.json"]);
    folder.run(&["render", "."]).is_mistake(&["folder"]);
    folder.run(&["render", "later.json", "--max-memory", "100"]).is_mistake(&[
        "later.json",
        "of memory",
        "--max-memory",
    ]);
    folder.write("self.json", SELFTEST);
    assert!(folder.run(&["render", "self.json"]).exits(0).stdout.starts_with("PASS  1 of 1 planted faults"));
    folder
        .run(&["render", "self.json", "--html", "a.html"])
        .is_mistake(&["self.json is a selftest", "--html"]);
}

const SELFTEST: &str = r#"{
    "schema": "parity-selftest/1", "verdict": "pass", "model": "m", "onnx": "m.onnx", "faults": 1, "caught": 1, "locatable": 0,
    "located": 0, "explainable": 0, "explained": 0, "harmless": 0, "false_alarms": 0, "outcomes": []
}"#;

/// Every key of a real report has its line in REPORT.md.
#[test]
fn every_field_is_documented() {
    fn keys(json: &Json, found: &mut Vec<String>) {
        match json {
            Json::Object(fields) => fields.iter().for_each(|(key, value)| {
                found.push(key.clone());
                keys(value, found);
            }),
            Json::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }
    let documentation = include_str!("../crates/report/REPORT.md");
    let mut found = Vec::new();
    keys(&reports(&[], 0).0, &mut found);
    assert!(found.len() > 100, "{found:?}");
    for key in found {
        assert!(documentation.contains(&format!("`{key}`")), "{key}");
    }
}
