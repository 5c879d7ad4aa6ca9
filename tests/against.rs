//! `parity check RAW.onnx --onnx OPTIMISED.onnx`, `--expected` and `--repro`.

use crate::common::{
    Folder, bypass, change_weight, default_graph, fixture, golden, house, in_fixture, inputs_of, node_mut,
    plain_inputs, replay, with,
};
use engine::{Engine, NamedValues, Value};
use onnx_graph::{Attribute, Model};
use onnx_session::{EngineKind, Session};
use parity::against::{Original, cases, judge};
use parity::proof::Scope;
use parity::report::GraphReport;
use parity::trial::Graph;
use parity::{Bounds, Verdict, tensors};
use serde_json::Value as Json;

fn form(fixture: &str, form: &str) -> Model {
    Model::open(house().join(format!("tests/fixtures/forms/{fixture}/{form}.onnx"))).unwrap()
}

fn export(fixture: &str, export: &str) -> Model {
    Model::open(in_fixture(fixture, &format!("onnx/{export}.onnx"))).unwrap()
}

/// Holds one graph against another, on candle where it takes the second.
pub fn against(raw: &Model, optimised: &Model) -> GraphReport {
    let original = Original::new("raw", raw, optimised).unwrap();
    let cases = cases(raw, optimised).unwrap();
    let session = Session::new(optimised, EngineKind::Candle).ok();
    let oracle =
        onnx_eval::Oracle::with(optimised, onnx_eval::Precision::F32, onnx_eval::Limits::default()).unwrap();
    let engine: &dyn Engine = session.as_ref().map_or(&oracle, |session| session);
    let bounds = Bounds::default();
    let graph = Graph::new("optimised", optimised, std::slice::from_ref(&engine), &bounds);
    judge(&original, graph, &cases, |_| ()).unwrap().report
}

/// The exports of a fixture that forms were made of: those of the folder beside, by the form's middle name.
fn exports(fixture: &str) -> Vec<(&'static str, String)> {
    let names: Vec<String> = std::fs::read_dir(crate::common::fixture(fixture).join("onnx"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let find = |start: &str, attention: &str| {
        let name = names
            .iter()
            .find(|name| name.starts_with(start) && name.contains(attention) && name.contains("dynamic"));
        name.map(|name| name.trim_end_matches(".onnx").to_string())
    };
    [
        ("ts14", "ts14-eager", ""),
        ("ts17", "ts17-eager", ""),
        ("ts17-sdpa", "ts17-sdpa", ""),
        ("dynamo20", "dynamo20", ""),
    ]
    .into_iter()
    .filter_map(|(source, start, attention)| Some((source, find(start, attention)?)))
    .collect()
}

const OPTIMISERS: [&str; 5] = ["onnxslim", "onnxsim", "ort-basic", "ort-extended", "ort-all"];

/// What a simplifier or an optimizer made right is the same function.
fn all_right_forms_hold(fixture: &str) {
    let mut held = 0;
    for (source, export_name) in exports(fixture) {
        let raw = export(fixture, &export_name);
        for optimiser in OPTIMISERS.iter().chain(&["ort-transformers"]) {
            let name = format!("{optimiser}-{source}");
            if !house().join(format!("tests/fixtures/forms/{fixture}/{name}.onnx")).exists() {
                continue;
            }
            let report = against(&raw, &form(fixture, &name));
            let proof = &report.proof;
            assert!(proof.max_rel.unwrap() <= proof.tol, "{fixture} {name}: {:?}", proof.max_rel);
            assert!(report.verdict <= Verdict::Rounding, "{fixture} {name}: {:#?}", report.checks);
            assert!(report.culprits.is_empty(), "{fixture} {name}");
            held += 1;
        }
    }
    assert!(held >= 4, "only {held} forms of {fixture} were found");
}

#[test]
fn right_forms_of_baseline_hold() {
    all_right_forms_hold("baseline");
}

#[test]
fn right_forms_of_odd_hold() {
    all_right_forms_hold("odd");
}

#[test]
fn right_forms_of_stiff_hold() {
    all_right_forms_hold("stiff");
}

/// The operators of the culprits' nodes in the second graph, culprit by culprit.
fn operators(model: &Model, report: &GraphReport) -> Vec<Vec<String>> {
    let op = |name: &String| model.graph.nodes.iter().find(|node| node.name == *name).unwrap().op.clone();
    report.culprits.iter().map(|culprit| culprit.nodes.iter().map(op).collect()).collect()
}

#[test]
fn a_multiple_choice_is_held_against_itself() {
    let raw = Model::open(in_fixture("heads/multiple_choice", "onnx/ts17-eager.onnx")).unwrap();
    let report = against(&raw, &raw);
    assert_eq!(report.verdict, Verdict::Pass, "{:#?}", report.checks);
    let mut wrong = raw.clone();
    let bias = "embeddings.LayerNorm.bias";
    let name = wrong.graph.initializers.keys().find(|name| name.ends_with(bias)).unwrap().clone();
    change_weight(&mut wrong, &name, |elements, _| elements[3] += 0.1);
    let report = against(&raw, &wrong);
    assert_eq!(report.verdict, Verdict::Fail);
    assert!(!report.culprits.is_empty());
}

#[test]
fn another_gelu_is_named_in_every_layer() {
    for (fixture, raw, optimised, op, layers) in [
        ("baseline", "ts14-eager-dynamic", "ort-transformers-ts14-approximation", "FastGelu", 2),
        ("stiff", "ts14-eager-dynamic", "ort-transformers-ts14-approximation", "FastGelu", 4),
    ] {
        let optimised = form(fixture, optimised);
        let report = against(&export(fixture, raw), &optimised);
        assert_eq!(report.verdict, Verdict::Fail);
        assert!(report.proof.max_abs.unwrap() > 1e-4);
        assert_eq!(operators(&optimised, &report), vec![[op]; layers], "{:#?}", report.culprits);
        for culprit in &report.culprits {
            // The first graph's node that gives what the FastGelu should have given.
            assert!(culprit.module.contains("Mul"), "{culprit:?}");
            assert!(culprit.max_abs.unwrap() > 1e-5, "{culprit:?}");
        }
    }
}

#[test]
fn an_optimizer_that_takes_one_gelu_for_another_is_found() {
    let optimised = form("types3", "ort-transformers-dynamo20");
    // It was made of a dynamic export, which does not lie there: a static one of the same exporter, and another exporter's.
    for raw in ["dynamo20-eager-static", "ts17-eager-dynamic"] {
        let report = against(&export("types3", raw), &optimised);
        assert_eq!(report.verdict, Verdict::Fail, "{raw}");
        assert_eq!(operators(&optimised, &report), [["BiasGelu"]; 2], "{raw}: {:#?}", report.culprits);
    }
}

#[test]
fn a_mask_that_became_a_length_is_found_at_the_attention() {
    let optimised = form("baseline", "ort-transformers-ts14-lengths");
    let report = against(&export("baseline", "ts14-eager-dynamic"), &optimised);
    assert_eq!(report.verdict, Verdict::Fail);
    let operators = operators(&optimised, &report);
    assert_eq!(operators.len(), 2, "{:#?}", report.culprits);
    assert!(operators.iter().all(|nodes| nodes.contains(&"Attention".to_string())), "{operators:?}");
}

/// One weight by one ULP; a scale; what is added left out; the last node of all.
#[test]
fn the_node_that_was_changed_is_the_first_culprit() {
    let raw = export("stiff", "ts17-eager-dynamic");
    let weight = raw
        .graph
        .initializers
        .iter()
        .find(|(_, tensor)| tensor.shape == [32, 16])
        .map(|(name, _)| name.clone())
        .unwrap();
    let user = raw.graph.nodes.iter().find(|node| node.inputs.contains(&weight)).unwrap().name.clone();
    let mut ulp = raw.clone();
    change_weight(&mut ulp, &weight, |elements, _| elements[3] = f32::from_bits(elements[3].to_bits() + 1));
    let mut residual = raw.clone();
    let add = "/model/encoder/layer.2/attention/output/Add";
    bypass(&mut residual, "Add", add);
    let mut pooler = raw.clone();
    let tanh = node_mut(&mut pooler, "Tanh", "").name.clone();
    bypass(&mut pooler, "Tanh", "");
    // Without it its value is one that both graphs have: what reads it is the first that is not.
    let normalized = "/model/encoder/layer.2/attention/output/LayerNorm/LayerNormalization".to_string();
    for (optimised, node, by) in
        [(ulp, user.clone(), user), (residual, normalized, add.into()), (pooler, tanh.clone(), tanh)]
    {
        let report = against(&raw, &optimised);
        assert_eq!(report.verdict, Verdict::Fail, "{node}");
        assert_eq!(report.culprits.len(), 1, "{node}: {:#?}", report.culprits);
        let culprit = &report.culprits[0];
        assert_eq!((&culprit.module, &culprit.nodes), (&node, &vec![node.clone()]));
        let explanation = culprit.explanation.as_ref().unwrap();
        assert!(explanation.contains(&format!("by {by}")), "{explanation}");
    }
}

#[test]
fn a_graph_is_itself() {
    let raw = export("baseline", "ts14-eager-static");
    let report = against(&raw, &raw);
    assert_eq!(report.proof.max_abs, Some(0.0));
    assert!(report.verdict <= Verdict::Rounding);
}

#[test]
fn two_graphs_on_the_command_line() {
    let folder = Folder::new();
    let raw = in_fixture("baseline", "onnx/ts14-eager-dynamic.onnx");
    let right = in_fixture("forms/baseline", "ort-transformers-ts14.onnx");
    let wrong = in_fixture("forms/baseline", "ort-transformers-ts14-approximation.onnx");
    let (code, report) = folder.report(&[&raw, "--onnx", &right]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((report["schema"].as_str(), report["model"].as_str()), (Some("parity-report/1"), Some(&*raw)));
    assert_eq!((&report["weights"], &report["located"]), (&Json::Null, &Json::Null));
    assert!(report["proof"]["max_abs"].as_f64().unwrap() <= 1e-10);
    let (code, report) = folder.report(&["check", &raw, "--onnx", &wrong]);
    assert_eq!((code, report["verdict"].as_str()), (1, Some("fail")));
    assert!(report["culprits"][0]["nodes"][0].as_str().unwrap().contains("Gelu"), "{}", report["culprits"]);
    // In words.
    let run = folder.run(&[&raw, "--onnx", &wrong]).exits(1);
    let said = format!("than {raw} over");
    assert!(run.stdout.starts_with("FAIL") && run.stdout.contains(&said), "{run}");
    assert!(run.stdout.contains("a graph, on the oracle in f32"), "{run}");
    // On inputs of one's own, which must be the graph's.
    folder.write_values("in.safetensors", &plain_inputs([1, 4], &[1, 2, 3, 4]));
    let (code, report) = folder.report(&[&raw, "--onnx", &wrong, "--inputs", "in.safetensors"]);
    assert_eq!((code, report["inputs"].as_array().unwrap().len()), (1, 1));
    let unknown = with(plain_inputs([1, 1], &[1]), "inputs_ids", Value::new([1, 1], vec![1i64]).unwrap());
    folder.write_values("unknown.safetensors", &unknown);
    folder.run(&[&raw, "--onnx", &wrong, "--inputs", "unknown.safetensors"]).is_mistake(&["inputs_ids"]);
    folder.run(&[&raw, "--onnx", &wrong, "--text", "a"]).is_mistake(&["tokenizer", "--inputs"]);
    folder.run(&[&raw, "--onnx", "nowhere.onnx"]).is_mistake(&["nowhere.onnx"]);
}

/// A case of a fixture as two files, the second made of the first's answers.
fn record(folder: &Folder, fixture: &str, case: &str, change: impl Fn(&str, &Value) -> Value) {
    let case = golden(crate::common::fixture(fixture).join("golden.safetensors"))[case].clone();
    folder.write_values("in.safetensors", &inputs_of(&case));
    let outputs: NamedValues = ["last_hidden_state", "pooler_output"]
        .map(|name| (name, change(name, case.get(name).unwrap())))
        .into_iter()
        .collect();
    folder.write_values("out.safetensors", &outputs);
}

const RECORDED: [&str; 4] = ["--inputs", "in.safetensors", "--expected", "out.safetensors"];

#[test]
fn what_pytorch_recorded_holds_for_every_side() {
    let folder = Folder::new();
    let single = |value: &Value| {
        let elements: Vec<f32> = value.to_f64().into_iter().map(|x| x as f32).collect();
        Value::new(value.shape(), elements).unwrap()
    };
    let model = fixture("stiff");
    let graph = in_fixture("stiff", "onnx/ts17-sdpa-dynamic.onnx");
    for rounded in [false, true] {
        record(&folder, "stiff", "masks", |_, value| if rounded { single(value) } else { value.clone() });
        for raw in [model.to_str().unwrap(), &graph] {
            let args = [&[raw, "--onnx", &graph][..], &RECORDED].concat();
            let (code, report) = folder.report(&args);
            assert_eq!(code, 0, "{raw}: {:#}", report["recorded"]);
            let recorded = report["recorded"].as_array().unwrap();
            let sides: Vec<(&str, &str)> = recorded
                .iter()
                .map(|side| (side["engine"].as_str().unwrap(), side["dtype"].as_str().unwrap()))
                .collect();
            let first = if raw.ends_with(".onnx") { "oracle" } else { "reference" };
            let engines = [("oracle", "f64"), ("candle", "f32"), ("compiled", "f32")];
            assert_eq!(sides, [&[(first, "f32"), (first, "f64")][..], &engines].concat());
            for side in recorded {
                assert_eq!(side["outputs"].as_array().unwrap().len(), 2);
                // Both f64 sides are PyTorch's, where it was recorded in f64; a graph held against a graph knows no config.json, and none is needed.
                let max_abs = side["outputs"][0]["max_abs"].as_f64().unwrap();
                assert!(side["dtype"] == "f32" || rounded || max_abs <= 1e-10, "{side:#}");
            }
        }
    }
}

#[test]
fn what_was_recorded_of_another_function_fails_every_side() {
    let folder = Folder::new();
    // Beyond the tolerance and any budget of this fixture, at a position that decides.
    record(&folder, "baseline", "pair", |_, value| {
        let mut elements = value.to_f64();
        elements[0] += 1e-3;
        Value::new(value.shape(), elements).unwrap()
    });
    let model = fixture("baseline");
    let graph = in_fixture("baseline", "onnx/ts17-sdpa-dynamic.onnx");
    let args = [&[model.to_str().unwrap(), "--onnx", &graph][..], &RECORDED].concat();
    let (code, report) = folder.report(&args);
    assert_eq!((code, report["verdict"].as_str()), (1, Some("fail")));
    // The proof has nothing to do with it.
    assert_eq!(report["proof"]["verdict"], "pass");
    assert!(report["recorded"].as_array().unwrap().iter().all(|side| side["verdict"] == "fail"));
    let run = folder.run(&args).exits(1);
    assert!(run.stdout.contains("does not give what was recorded"), "{run}");
    assert!(run.stdout.contains("Against what was recorded"), "{run}");
}

#[test]
fn a_record_must_fit() {
    let folder = Folder::new();
    let model = fixture("baseline");
    let graph = in_fixture("baseline", "onnx/ts17-sdpa-dynamic.onnx");
    let check = [model.to_str().unwrap(), "--onnx", &graph];
    record(&folder, "baseline", "pair", |_, value| Value::new([value.len()], value.to_f64()).unwrap());
    let (code, report) = folder.report(&[&check[..], &RECORDED].concat());
    assert_eq!(code, 1);
    let mismatch = report["recorded"][0]["outputs"][0]["mismatch"].as_str().unwrap();
    assert!(mismatch.contains("shape"), "{mismatch}");
    folder.write_values("out.safetensors", &plain_inputs([1, 1], &[1]));
    folder.run(&[&check[..], &RECORDED].concat()).is_mistake(&["is expected of output", "last_hidden_state"]);
    // Inputs belong to it.
    let run = folder.run(&[&check[..], &["--expected", "out.safetensors"]].concat());
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("--inputs"), "{run}");
}

#[test]
fn a_failing_check_leaves_a_replay() {
    let folder = Folder::new();
    let mut wrong = default_graph();
    for layer in 0..2 {
        bypass(&mut wrong, "Add", &format!("layer.{layer}/attention/self/Add"));
    }
    wrong.save(folder.at("wrong.onnx")).unwrap();
    let (code, report) = folder.report(&["--onnx", "wrong.onnx", "--repro", "repro"]);
    assert_eq!(code, 1);
    let repro = &report["repro"];
    assert_eq!((repro["dir"].as_str(), repro["precision"].as_str()), (Some("repro"), Some("f64")));
    // Only padding shows an ignored mask: two tokens, of which one is real.
    assert_eq!(repro["shape"], serde_json::json!([1, 2]));
    let outputs: Vec<_> = default_graph().graph.inputs;
    let inputs = tensors::read_inputs(folder.at("repro/test_data_set_0"), &outputs).unwrap();
    let mask = inputs.get("attention_mask").unwrap().as_slice::<i64>().unwrap();
    assert_eq!(mask.iter().sum::<i64>(), 1, "{mask:?}");
    assert!(!replay(&folder, "repro").status.success());
    default_graph().save(folder.at("repro/model.onnx")).unwrap();
    assert!(replay(&folder, "repro").status.success());
    // Nothing is overwritten.
    folder.run(&["--onnx", "wrong.onnx", "--repro", "repro"]).is_mistake(&["repro", "not empty"]);
}

#[test]
fn a_replay_of_two_graphs_takes_what_f32_constants_cost() {
    let folder = Folder::new();
    let raw = in_fixture("stiff", "onnx/ts14-eager-dynamic.onnx");
    let wrong = in_fixture("forms/stiff", "ort-transformers-ts14-approximation.onnx");
    let (code, report) = folder.report(&[&raw, "--onnx", &wrong, "--repro", "repro"]);
    assert_eq!(
        (code, report["repro"]["shape"].clone()),
        (1, serde_json::json!([1, 1])),
        "{}",
        report["notes"]
    );
    let atol = report["repro"]["atol"].as_f64().unwrap();
    let args = |graph: &str| {
        let data = "repro/test_data_set_0".to_string();
        let exact = "repro/reference-f64.safetensors".to_string();
        let atol = format!("{atol:e}");
        let out = "out.safetensors".to_string();
        let words =
            ["run", graph, "--dtype", "f64", "--inputs", &data, "--expected", &exact, "--atol", &atol];
        words.iter().map(ToString::to_string).chain(["--outputs".into(), out]).collect::<Vec<String>>()
    };
    let run = |graph: &str| {
        let args = args(graph);
        folder.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).code
    };
    assert_eq!(run("repro/model.onnx"), 1);
    assert_eq!(run(&in_fixture("forms/stiff", "ort-transformers-ts14.onnx")), 0);
}

#[test]
fn where_nothing_fails_there_is_nothing_to_replay() {
    let folder = Folder::new();
    let (code, report) = folder.report(&["--repro", "repro"]);
    assert_eq!((code, &report["repro"]), (0, &Json::Null));
    let notes = report["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains("no graph fails")), "{notes:?}");
    // A weight that no input touches fails the audit alone.
    let mut wrong = default_graph();
    let words = "model.embeddings.word_embeddings.weight";
    change_weight(&mut wrong, words, |elements, _| elements[0] = f32::from_bits(elements[0].to_bits() + 1));
    wrong.save(folder.at("wrong.onnx")).unwrap();
    folder.write_values("in.safetensors", &plain_inputs([1, 2], &[5, 6]));
    let (code, report) =
        folder.report(&["--onnx", "wrong.onnx", "--inputs", "in.safetensors", "--repro", "repro"]);
    // Nor does the proof say anything of others.
    assert_eq!((code, &report["proof"]["verdict"]), (1, &Json::from("inconclusive")));
    let notes = report["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains("no input shows")), "{notes:?}");
    assert!(!folder.at("repro").exists());
}

/// What a simplifier leaves of a graph takes the same operators, and is proven for every input.
/// What an optimizer fuses is not, and passes on the inputs tried.
#[test]
fn simplified_graphs_are_the_same_for_every_input() {
    let mut proven = 0;
    for (source, export_name) in [
        ("ts14", "ts14-eager-dynamic"),
        ("ts17", "ts17-eager-dynamic"),
        ("ts17-sdpa", "ts17-sdpa-dynamic"),
        ("dynamo20", "dynamo20-sdpa-dynamic"),
    ] {
        let raw = export("baseline", export_name);
        assert_eq!(against(&raw, &raw).proof.scope, Scope::EveryInput, "{export_name}");
        for optimiser in ["onnxslim", "onnxsim", "ort-basic", "ort-extended"] {
            let name = format!("{optimiser}-{source}");
            if !house().join(format!("tests/fixtures/forms/baseline/{name}.onnx")).exists() {
                continue;
            }
            let proof = against(&raw, &form("baseline", &name)).proof;
            if optimiser == "ort-extended" {
                assert_eq!((proof.verdict, proof.scope), (Verdict::Pass, Scope::Tried), "{name}");
                assert!(!proof.unexplained.is_empty(), "{name}");
            } else {
                assert_eq!(proof.scope, Scope::EveryInput, "{name}: {:?}", proof.unexplained);
                proven += 1;
            }
        }
    }
    assert!(proven >= 6, "{proven}");
}

/// One row of the word table, which no input of the suite looks up, is another: the two tables say
/// which.
#[test]
fn a_row_that_differs_leads_to_its_id() {
    let folder = Folder::new();
    let raw = default_graph();
    let mut wrong = raw.clone();
    change_weight(&mut wrong, "model.embeddings.word_embeddings.weight", |elements, _| {
        const ROW: usize = 1_733;
        let width = elements.len() / 2048;
        elements.copy_within((ROW + 1) * width..(ROW + 2) * width, ROW * width);
    });
    raw.save(folder.at("raw.onnx")).unwrap();
    wrong.save(folder.at("wrong.onnx")).unwrap();
    let report = against(&raw, &wrong);
    assert_eq!(report.proof.verdict, Verdict::Fail);
    assert!(report.proof.failure.unwrap().contains("rows that 'input_ids' looks up, which differ"));
    let run = folder.run(&["check", "raw.onnx", "--onnx", "wrong.onnx"]).exits(1);
    assert!(run.stdout.contains("rows that 'input_ids' looks up"), "{run}");
}

#[test]
fn another_number_anywhere_is_not_the_same() {
    let raw = export("baseline", "ts17-eager-dynamic");
    for (op, attribute) in [("Transpose", "perm"), ("LayerNormalization", "epsilon")] {
        let mut other = raw.clone();
        let node = other.graph.nodes.iter_mut().find(|node| node.op == op).unwrap();
        match node.attributes.get_mut(attribute).unwrap() {
            Attribute::Ints(axes) => axes.swap(0, 1),
            Attribute::Float(number) => *number *= 2.0,
            _ => unreachable!(),
        }
        let proof = against(&raw, &other).proof;
        assert_eq!(proof.scope, Scope::Tried, "{op}");
    }
}
