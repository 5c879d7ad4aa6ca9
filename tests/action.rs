//! What the action for GitHub's workflows does, without GitHub: the script that it runs.

use crate::common::{Folder, Run, house, in_fixture, real_model};

/// Runs the action's script in a folder, as a workflow would.
fn action(folder: &Folder, model: &str, onnx: &str, arguments: &str) -> Run {
    let script = house().join(".github/actions/parity/check.sh");
    let mut command = folder.command("bash");
    command.arg(script).arg(env!("CARGO_BIN_EXE_parity"));
    let inputs = [
        ("MODEL", model),
        ("ONNX", onnx),
        ("ARGUMENTS", arguments),
        ("JSON", "report.json"),
        ("JUNIT", "junit.xml"),
    ];
    for (name, value) in inputs {
        command.env(format!("PARITY_{name}"), value);
    }
    command.env("GITHUB_STEP_SUMMARY", folder.at("summary")).env("GITHUB_OUTPUT", folder.at("output"));
    Run::of(&mut command)
}

fn read(folder: &Folder, file: &str) -> String {
    std::fs::read_to_string(folder.at(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn the_action_passes_and_fails_as_the_check_does() {
    let folder = Folder::new();
    let model = in_fixture("baseline", "");
    let right = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    action(&folder, &model, &right, "--atol 1e-4\n  --html page.html\n").exits(0);
    assert_eq!(read(&folder, "output"), "verdict=pass\n");
    assert!(read(&folder, "summary").contains("PASS"));
    assert!(read(&folder, "report.json").contains("parity-report/1"));
    assert!(read(&folder, "junit.xml").contains("<testsuite"));
    assert!(read(&folder, "page.html").contains("<html"));

    let folder = Folder::new();
    let wrong = in_fixture("stiff", "onnx/ts17-eager-dynamic.onnx");
    let run = action(&folder, &model, &wrong, "");
    assert_ne!(run.code, 0, "{run}");
    assert!(!read(&folder, "output").contains("pass"), "{run}");

    // Bad usage leaves no report, and no older one stands in for it.
    let folder = Folder::new();
    folder.write("report.json", r#"{"verdict": "pass"}"#);
    let run = action(&folder, &model, &right, "--bogus");
    assert_eq!(run.code, 2, "{run}");
    assert!(!folder.at("output").exists(), "{run}");

    // A name is a name, whatever is in it.
    let folder = Folder::new();
    let run = action(&folder, "$(touch oops); `touch oops`", "", "");
    assert_eq!(run.code, 2, "{run}");
    assert!(!folder.at("oops").exists());
}

/// The arguments that README's workflow gives.
fn arguments_of_readme() -> String {
    let readme = std::fs::read_to_string(house().join("README.md")).unwrap();
    let (_, after) = readme.split_once("/.github/actions/parity@").unwrap();
    let line = after.lines().map(str::trim).find_map(|line| line.strip_prefix("arguments: "));
    line.unwrap().to_owned()
}

#[test]
fn the_workflow_of_readme_passes_on_a_correct_minilm() {
    let Some(home) = real_model::cache() else { return };
    let (folder, model) = (Folder::new(), real_model::snapshot(&home));
    let onnx = model.join("onnx/model.onnx");
    let [model, onnx] = [model, onnx].map(|path| path.display().to_string());
    action(&folder, &model, &onnx, &arguments_of_readme()).exits(0);
    assert_eq!(read(&folder, "output"), "verdict=rounding\n");
    assert!(read(&folder, "parity.html").contains("<html"));
}
