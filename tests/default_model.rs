//! `parity` without arguments: what a newcomer sees first.

use crate::common::{Folder, default_graph, distance, golden, house, inputs_of};
use candle_core::DType;
use engine::{Engine, NamedValues};
use onnx_session::{EngineKind, Session};
use parity::Subject;
use serde_json::Value as Json;

/// The claim of the first screen: both outputs within one f32 ULP at 8 to 16, absolute.
const ATOL: f64 = 1e-6;

/// How far the reference in f64 may be from PyTorch's f64, as a part of the tensor's largest value: both round at 1e-16, and add in
/// different orders. A constant rounded to f32 would cost 1e-8.
const F64_BOUND: f64 = 1e-12;

/// The proof of the embedded model: 1.3e-15 was measured; ten times that, as another machine may add in another order.
const PROVEN: f64 = 1.4e-14;

/// An f32 computation never comes nearer to f64 than this on values of size 1; anything below it is no comparison of two computations.
const BELOW_F32: &str = "1e-9";

#[test]
fn both_paths_agree() {
    let folder = Folder::new();
    let run = folder.run(&[]).exits(0);
    let headline = run.stdout.lines().next().unwrap();
    assert!(headline.starts_with("PASS") && headline.contains("bert-tiny"), "{run}");
    for output in ["last_hidden_state", "pooler_output"] {
        assert!(run.stdout.contains(output), "{run}");
    }
    // It works in an empty folder, and leaves it empty.
    assert_eq!(folder.listing(), [""; 0]);
}

#[test]
fn the_first_screen() {
    let run = Folder::new().run(&[]).exits(0);
    let mut settings = insta::Settings::clone_current();
    // Distances, times and the number of cores are the machine's; column widths follow from them.
    settings.add_filter(
        r"(?m)^  (last_hidden_state|pooler_output)( +[\d.e-]+){7}  pass$",
        "  $1  [numbers]  pass",
    );
    settings.add_filter(r"they agree to \de-\d+ in f64", "they agree to [distance] in f64");
    settings.add_filter(
        r"(?m)^  (last_hidden_state|pooler_output)( +[\d.e-]+){2} +(\d+)  pass$",
        "  $1  [distances]  $3  pass",
    );
    settings.add_filter(
        r"the (graph|reference) is [\d.e-]+ \([\d.]+ ULP\) from f64, nearer; the (graph|reference) is [\d.e-]+ \([\d.]+ ULP\) from f64",
        "the [side] is [distance] from f64, nearer; the [side] is [distance] from f64",
    );
    settings.add_filter(r"\d\.\d\de-?\d+ at padding", "[distance] at padding");
    settings.add_filter(
        r"at \[[\d, ]+\] of '[a-z ]+': reference -?[\d.]+, graph -?[\d.]+",
        "at [index] of '[input]': reference [value], graph [value]",
    );
    settings.add_filter(r"\d+(\.\d+)? ms", "[time]");
    settings.add_filter(r"median of \d+", "median of [runs]");
    settings.add_filter(r"\d+ threads", "[threads] threads");
    settings.add_filter(r" {2,}", "  ");
    settings.bind(|| insta::assert_snapshot!(run.stdout));
}

#[test]
fn json_on_stdout_is_alone_and_has_the_fields_of_the_contract() {
    let run = Folder::new().run(&["--json", "-"]).exits(0);
    let report = run.json();
    assert_eq!(report["schema"], "parity-report/1");
    assert_eq!(report["verdict"], "pass");
    assert_eq!(report["model"], "bert-tiny");
    assert_eq!(report["onnx"], "bert-tiny/onnx/model.onnx");
    let proof = &report["proof"];
    assert_eq!(proof["verdict"], "pass");
    let proven = proof["max_rel"].as_f64().unwrap();
    assert!(proven > 0.0 && proven <= PROVEN, "{run}");
    assert_eq!(proof["outputs"].as_array().unwrap().len(), 2);
    assert!(!proof["promoted"].as_array().unwrap().is_empty(), "the graph holds √2 as an f32: {run}");
    assert_eq!(report["weights"]["verdict"], "pass");
    assert_eq!(report["culprits"], Json::Array(vec![]));
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks[0]["engine"], "candle");
    assert_eq!(checks[0]["dtype"], "f32");
    assert_eq!(checks[0]["verdict"], "pass");
    let outputs = checks[0]["outputs"].as_array().unwrap();
    let names: Vec<&str> = outputs.iter().map(|output| output["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["last_hidden_state", "pooler_output"]);
    for output in outputs {
        for field in [
            "name",
            "shape",
            "max_abs",
            "max_rel",
            "max_ulp",
            "mean_abs",
            "cosine",
            "worst_index",
            "reference",
            "candidate",
            "compared",
            "beyond_atol",
            "non_finite",
            "budget",
            "verdict",
            "padding",
        ] {
            assert!(output.get(field).is_some(), "no '{field}': {run}");
        }
        // Two computations in f32 that round differently: not the same one twice, and within the claim.
        let max_abs = output["max_abs"].as_f64().unwrap();
        assert!(max_abs > 0.0 && max_abs <= ATOL, "{run}");
        let [reference, candidate] = ["reference", "candidate"].map(|side| output[side].as_f64().unwrap());
        // A JSON parser may be an ULP of f64 off on each number.
        let shown = (reference - candidate).abs();
        assert!((shown - max_abs).abs() < 1e-15, "the worst values are those that are shown: {run}");
        assert_eq!(
            output["worst_index"].as_array().unwrap().len(),
            output["shape"].as_array().unwrap().len()
        );
        assert_eq!(output["beyond_atol"], 0);
        assert!(output["budget"].as_f64().unwrap() > max_abs, "{run}");
        assert_eq!(output["verdict"], "pass");
        assert!(output["padding"].get("max_abs").is_some() && output["padding"].get("compared").is_some());
        assert_eq!(output["non_finite"]["candidate"], 0);
    }
    // Not one lucky draw: several shapes, padding, texts and pairs.
    assert!(outputs[0]["compared"].as_u64().unwrap() > 50_000, "{run}");
    assert!(outputs[0]["padding"]["compared"].as_u64().unwrap() > 1_000, "{run}");
    assert!(report["inputs"].as_array().unwrap().len() >= 5, "{run}");
    for timing in report["timing"]["results"].as_array().unwrap() {
        assert!(timing["median_ms"].as_f64().unwrap() > 0.0, "{run}");
    }
}

#[test]
fn json_goes_to_a_file_beside_the_report() {
    let folder = Folder::new();
    let run = folder.run(&["check", "--json", "report.json"]).exits(0);
    assert!(run.stdout.starts_with("PASS"), "{run}");
    let report: Json = serde_json::from_slice(&std::fs::read(folder.at("report.json")).unwrap()).unwrap();
    assert_eq!(report["verdict"], "pass");
    assert_eq!(folder.listing(), ["report.json"]);
}

#[test]
fn a_tolerance_that_f32_cannot_meet_is_rounding() {
    let run = Folder::new().run(&["--atol", BELOW_F32]).exits(0);
    assert!(run.stdout.starts_with("ROUNDING"), "{run}");
    let (code, report) = Folder::new().report(&["--atol", BELOW_F32, "--strict"]);
    assert_eq!((code, &report["verdict"]), (1, &"rounding".into()));
    assert!(report["checks"][0]["outputs"][0]["beyond_atol"].as_u64().unwrap() > 0);
}

#[test]
fn an_output_that_neither_side_has_is_inconclusive() {
    let run = Folder::new().run(&["--output", "nothing"]).exits(3);
    assert!(run.stdout.starts_with("INCONCLUSIVE") && run.stdout.contains("'nothing'"), "{run}");
    // One that is there does not make up for one that is not.
    let (code, report) = Folder::new().report(&["--output", "pooler_output", "--output", "nothing"]);
    assert_eq!((code, &report["verdict"]), (3, &"inconclusive".into()));
    assert_eq!(report["checks"][0]["outputs"].as_array().unwrap().len(), 1);
}

fn golden_cases() -> Vec<(String, NamedValues)> {
    let cases = golden(house().join("models/bert-tiny/golden.safetensors"));
    assert_eq!(cases.len(), 5, "{:?}", cases.keys());
    cases.into_iter().collect()
}

/// Calls `judge` with case, output, distance from PyTorch's f64 at real tokens, and the largest value there.
fn against_golden(engine: &dyn Engine, judge: impl Fn(&str, f64, f64)) {
    for (case, values) in golden_cases() {
        let outputs = engine.run(&inputs_of(&values)).unwrap();
        assert_eq!(outputs.len(), 2);
        for (name, output) in outputs.iter() {
            let (off, largest) = distance(output, values.get(name).unwrap(), values.get("attention_mask"));
            judge(&format!("{} on {case}, {name}", engine.name()), off, largest);
        }
    }
}

#[test]
fn the_reference_in_f64_is_pytorch_in_f64() {
    let reference = Subject::open(None).unwrap().reference(DType::F64).unwrap().engine;
    against_golden(&reference, |what, off, largest| {
        assert!(off <= F64_BOUND * largest, "{what}: {off:e} off, of {largest:e}");
    });
}

#[test]
fn both_paths_in_f32_are_near_pytorch_in_f64() {
    let reference = Subject::open(None).unwrap().reference(DType::F32).unwrap().engine;
    let session = Session::new(&default_graph(), EngineKind::Candle).unwrap();
    let sides: [&dyn Engine; 2] = [&reference, &session];
    for engine in sides {
        against_golden(engine, |what, off, _| assert!(off <= ATOL, "{what}: {off:e} off"));
    }
}

#[test]
fn the_embedded_files_are_those_of_the_folder() {
    for (name, bytes) in bert_tiny::FILES {
        let file = std::fs::read(house().join("models/bert-tiny").join(name)).unwrap();
        assert!(file == *bytes, "{name} was changed after it was compiled in");
    }
    // The same model, as a folder.
    let folder = house().join("models/bert-tiny");
    let (code, report) = Folder::new().report(&[folder.to_str().unwrap()]);
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()));
}
