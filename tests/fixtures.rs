//! `parity check` over every export of every fixture, over wrong pairs, and over graphs with a planted fault.

use crate::common::{
    Folder, bypass, change_weight, default_graph, fixture, in_fixture, node, node_mut, reroute,
    tensor_attribute,
};
use engine::{DType, Dim, Value};
use onnx_graph::{Attribute, Model, Node, Tensor};
use parity::DEFAULT_ATOL;
use serde_json::{Value as Json, json};

/// Above all that f32 rounding comes to on `stiff`: up to 4.0e-4 on the graph's side, 3.1e-4 on the reference's.
const REACH_STIFF: f64 = 2.0 * 8.0e-4;

/// A graph of another model is this far off at least; its values are of size 1 to 10.
const ANOTHER_MODEL: f64 = 0.1;

/// A planted fault is this far off at least: ten times the tolerance that the same graph is within without it.
const FAULT: f64 = 1e-5;

/// `parity FIXTURE --onnx GRAPH`
fn check_fixture(checkpoint: &str, graph: (&str, &str)) -> (i32, Json) {
    let (folder, file) = graph;
    let onnx = in_fixture(folder, &format!("onnx/{file}"));
    Folder::new().report(&[fixture(checkpoint).to_str().unwrap(), "--onnx", &onnx])
}

fn outputs(report: &Json) -> &[Json] {
    report["checks"][0]["outputs"].as_array().unwrap()
}

fn max_abs(report: &Json, output: &str) -> f64 {
    let found = outputs(report).iter().find(|found| found["name"] == output);
    found.unwrap_or_else(|| panic!("no {output} in {report:#}"))["max_abs"].as_f64().unwrap()
}

#[test]
fn a_fixture_that_is_tame_passes() {
    let (code, report) = check_fixture("types1", ("types1", "ts17-sdpa-dynamic.onnx"));
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()));
}

#[test]
fn a_fixture_that_magnifies_rounding_is_told_from_a_fault() {
    let onnx = in_fixture("stiff", "onnx/ts20-eager-dynamic.onnx");
    let model = fixture("stiff");
    let args = [model.to_str().unwrap(), "--onnx", &onnx];
    let (code, report) = Folder::new().report(&args);
    assert_eq!(
        (code, &report["verdict"], &report["proof"]["verdict"]),
        (0, &"rounding".into(), &"pass".into())
    );
    assert!(max_abs(&report, "last_hidden_state") > DEFAULT_ATOL, "{report:#}");
    // The report is the same, the exit code is not.
    let (code, report) = Folder::new().report(&[&args[..], &["--strict"]].concat());
    assert_eq!((code, &report["verdict"]), (1, &"rounding".into()));
    let (code, report) =
        Folder::new().report(&[&args[..], &["--atol", &format!("{REACH_STIFF:e}")]].concat());
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()));
    // Nothing real is proven to this.
    let (code, report) = Folder::new().report(&[&args[..], &["--proof-tol", "1e-18"]].concat());
    assert_eq!((code, &report["verdict"]), (1, &"fail".into()));
}

#[test]
fn several_graphs_are_judged_one_by_one() {
    let [static_graph, dynamic_graph] = ["ts20-sdpa-static.onnx", "dynamo23-sdpa-static.onnx"]
        .map(|file| in_fixture("types1", &format!("onnx/{file}")));
    let model = fixture("types1");
    let (code, report) =
        Folder::new().report(&[model.to_str().unwrap(), "--onnx", &static_graph, "--onnx", &dynamic_graph]);
    assert_eq!(code, 0);
    let mut graphs: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|check| check["onnx"].as_str().unwrap()).collect();
    // Each on both engines.
    assert_eq!(graphs.len(), 4);
    graphs.dedup();
    assert_eq!(graphs, [&static_graph, &dynamic_graph]);

    // One that is wrong is not made up for by one that is right.
    let wrong = in_fixture("stiff", "onnx/ts17-eager-static.onnx");
    let (code, _) =
        Folder::new().report(&[model.to_str().unwrap(), "--onnx", &static_graph, "--onnx", &wrong]);
    assert_eq!(code, 1);
}

#[test]
fn a_head_in_the_checkpoint_is_noted() {
    let (_, report) = check_fixture("prefixed", ("prefixed", "ts14-eager-dynamic.onnx"));
    let notes = report["notes"].to_string();
    assert!(notes.contains("cls.predictions"), "{notes}");
    assert_eq!(outputs(&report).len(), 2);
}

#[test]
fn a_graph_without_a_pooler_is_compared_without() {
    let (_, report) = check_fixture("no_pooler", ("no_pooler", "ts14-eager-dynamic.onnx"));
    assert_eq!(outputs(&report).len(), 1);
    assert_eq!(report["checks"][0]["not_compared"], Json::Array(vec![]));
}

#[test]
fn the_graph_of_another_model_fails() {
    // The same geometry, other weights.
    for checkpoint in ["position_ids", "eps", "no_pooler"] {
        let (code, report) = check_fixture(checkpoint, ("baseline", "ts17-eager-dynamic.onnx"));
        assert_eq!((code, &report["verdict"]), (1, &"fail".into()), "{checkpoint}");
        assert!(max_abs(&report, "last_hidden_state") > ANOTHER_MODEL, "{checkpoint}");
    }
    // Another hidden size.
    let (code, report) = check_fixture("baseline", ("odd", "ts17-sdpa-dynamic.onnx"));
    assert_eq!(code, 1);
    assert!(report["checks"][0].to_string().contains("21]"), "the shapes are shown: {report:#}");
}

/// The default model against its own graph, changed.
fn check_changed(change: impl FnOnce(&mut Model), args: &[&str]) -> (i32, Json) {
    let folder = Folder::new();
    let mut model = default_graph();
    change(&mut model);
    model.check().unwrap();
    model.save(folder.at("changed.onnx")).unwrap();
    folder.report(&[args, &["--onnx", "changed.onnx"]].concat())
}

#[track_caller]
fn is_caught(change: impl FnOnce(&mut Model)) -> Json {
    let (code, report) = check_changed(change, &[]);
    assert_eq!((code, &report["verdict"]), (1, &"fail".into()), "{report:#}");
    report
}

/// A fault that is seen in numbers.
#[track_caller]
fn differs(change: impl FnOnce(&mut Model)) -> Json {
    let report = is_caught(change);
    let worst = outputs(&report).iter().map(|output| output["max_abs"].as_f64().unwrap()).fold(0.0, f64::max);
    assert!(worst > FAULT, "{worst:e}");
    report
}

#[test]
fn the_graph_as_it_is_passes_from_a_file_too() {
    let (code, report) = check_changed(|_| (), &[]);
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()));
}

#[test]
fn one_weight_row_that_is_off_is_caught() {
    differs(|model| {
        let weight = node_mut(model, "MatMul", "layer.1/intermediate/dense/MatMul").inputs[1].clone();
        change_weight(model, &weight, |elements, columns| {
            elements[5 * columns..6 * columns].iter_mut().for_each(|x| *x += 1e-3);
        });
    });
}

#[test]
fn query_and_key_exchanged_are_caught() {
    differs(|model| {
        let [query, key] = ["query", "key"].map(|name| {
            node_mut(model, "MatMul", &format!("layer.0/attention/self/{name}/MatMul")).inputs[1].clone()
        });
        node_mut(model, "MatMul", "layer.0/attention/self/query/MatMul").inputs[1] = key;
        node_mut(model, "MatMul", "layer.0/attention/self/key/MatMul").inputs[1] = query;
    });
}

/// erf(u), u = x / √2, by the tanh form of GELU: tanh(√(2/π) · (x + 0.044715 x³)) = tanh(2/√π · u · (1 + 0.08943 u²)).
fn erf_by_tanh(model: &mut Model) {
    let at = model.graph.nodes.iter().position(|node| node.op == "Erf").unwrap();
    let Node { inputs, outputs, .. } = model.graph.nodes.remove(at);
    let u = inputs[0].as_str();
    for (name, value) in
        [("fault.two", std::f32::consts::FRAC_2_SQRT_PI), ("fault.cubic", 0.08943), ("fault.one", 1.0)]
    {
        model.graph.initializers.insert(name.into(), Tensor::from_value(&Value::scalar(value)));
    }
    let mut tanh = node("Tanh", &["fault.product"], "fault.tanh");
    tanh.outputs = outputs;
    let nodes = [
        node("Mul", &[u, u], "fault.square"),
        node("Mul", &["fault.square", "fault.cubic"], "fault.term"),
        node("Add", &["fault.term", "fault.one"], "fault.sum"),
        node("Mul", &[u, "fault.two"], "fault.scaled"),
        node("Mul", &["fault.scaled", "fault.sum"], "fault.product"),
        tanh,
    ];
    model.graph.nodes.splice(at..at, nodes);
}

#[test]
fn another_gelu_is_caught() {
    differs(erf_by_tanh);
}

#[test]
fn another_eps_is_caught() {
    differs(|model| {
        for node in model.graph.nodes.iter_mut().filter(|node| node.op == "LayerNormalization") {
            node.attributes.insert("epsilon".into(), Attribute::Float(1e-5));
        }
    });
}

#[test]
fn an_ignored_mask_is_caught() {
    // Only inputs with padding show it.
    let report = differs(|model| {
        for layer in 0..2 {
            bypass(model, "Add", &format!("layer.{layer}/attention/self/Add"));
        }
    });
    assert_eq!(outputs(&report)[0]["worst_input"].as_str().map(|input| input == "longest"), Some(false));
}

#[test]
fn an_ignored_mask_is_caught_in_a_graph_of_one_row() {
    // The commonest static export: only one mask fits at a time.
    let report = differs(|model| {
        for layer in 0..2 {
            bypass(model, "Add", &format!("layer.{layer}/attention/self/Add"));
        }
        for spec in &mut model.graph.inputs {
            spec.shape = Some(vec![Dim::Fixed(1), Dim::Fixed(8)]);
        }
    });
    let inputs = report["inputs"].as_array().unwrap();
    assert!(inputs.iter().all(|input| input["shape"] == json!([1, 8])), "{inputs:?}");
}

#[test]
fn inputs_exchanged_are_caught() {
    differs(|model| {
        reroute(model, "attention_mask", "exchanged");
        reroute(model, "token_type_ids", "attention_mask");
        reroute(model, "exchanged", "token_type_ids");
    });
}

#[test]
fn token_types_that_are_ignored_are_caught() {
    differs(|model| {
        change_weight(model, "model.embeddings.token_type_embeddings.weight", |elements, hidden| {
            elements.copy_within(0..hidden, hidden);
        });
    });
}

#[test]
fn positions_that_are_shifted_are_caught() {
    differs(|model| {
        change_weight(model, "model.embeddings.position_embeddings.weight", |elements, hidden| {
            elements.rotate_left(hidden);
        });
    });
}

#[test]
fn a_softmax_over_the_wrong_axis_is_caught() {
    differs(|model| {
        let softmax = node_mut(model, "Softmax", "layer.1/attention/self/Softmax");
        softmax.attributes.insert("axis".into(), Attribute::Int(2));
    });
}

#[test]
fn a_residual_that_is_missing_is_caught() {
    differs(|model| bypass(model, "Add", "layer.0/output/Add"));
}

#[test]
fn a_pooler_without_tanh_is_caught_and_only_there() {
    let report = differs(|model| bypass(model, "Tanh", ""));
    assert_eq!(outputs(&report)[0]["verdict"], "pass");
    assert_eq!(outputs(&report)[1]["verdict"], "fail");
}

#[test]
fn a_nan_is_caught() {
    let report = is_caught(|model| {
        change_weight(model, "model.encoder.layer.1.output.dense.bias", |elements, _| elements[3] = f32::NAN);
    });
    let hidden = &outputs(&report)[0];
    assert_eq!(hidden["max_abs"], Json::Null);
    assert_eq!(hidden["candidate"], Json::Null);
    assert!(hidden["non_finite"]["candidate"].as_u64().unwrap() > 0);
    assert_eq!(hidden["non_finite"]["reference"], 0);
}

#[test]
fn a_graph_that_runs_only_at_the_traced_length_is_caught() {
    const TRACED: i64 = 7;
    let report = is_caught(|model| {
        let positions: Vec<i64> = (0..TRACED).collect();
        let positions = Value::new([1, TRACED as usize], positions).unwrap();
        model.graph.initializers.insert("frozen".into(), Tensor::from_value(&positions));
        node_mut(model, "Gather", "position_embeddings/Gather").inputs[1] = "frozen".into();
    });
    let check = &report["checks"][0];
    assert!(check["failure"].as_str().unwrap().contains("node '"), "the node is named: {check:#}");
}

/// Gives every output another name.
#[test]
fn where_no_output_can_be_compared_nothing_is() {
    let (code, report) = check_changed(
        |model| {
            let mut spread = node("ReduceMean", &["last_hidden_state"], "spread");
            spread.attributes = [("keepdims".to_string(), Attribute::Int(0))].into();
            model.graph.nodes.push(spread);
            let spec = model.graph.outputs[0].clone();
            let spread = engine::ValueSpec { name: "spread".into(), shape: Some(Vec::new()), ..spec };
            model.graph.outputs = vec![spread];
        },
        &[],
    );
    assert_eq!((code, &report["verdict"]), (3, &"inconclusive".into()));
    assert_eq!((outputs(&report).len(), &report["unheld"]), (0, &json!(["spread"])));
    let not_compared = report["checks"][0]["not_compared"].to_string();
    for name in ["last_hidden_state", "pooler_output", "spread"] {
        assert!(not_compared.contains(&format!("'{name}'")), "{not_compared}");
    }
}

#[test]
fn an_output_that_the_graph_lacks_is_listed_and_decides_only_if_it_was_asked_for() {
    let drop_pooler = |model: &mut Model| {
        model.graph.outputs.pop().unwrap();
    };
    let (code, report) = check_changed(drop_pooler, &[]);
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()));
    assert_eq!(outputs(&report).len(), 1);
    assert!(report["checks"][0]["not_compared"].to_string().contains("'pooler_output'"), "{report:#}");

    let (code, report) = check_changed(drop_pooler, &["--output", "pooler_output"]);
    assert_eq!((code, &report["verdict"]), (3, &"inconclusive".into()));
    let (code, _) = check_changed(drop_pooler, &["--output", "last_hidden_state"]);
    assert_eq!(code, 0);
}

#[test]
fn an_operator_that_no_engine_takes_is_inconclusive_or_an_error_if_the_engine_was_asked_for() {
    let folder = Folder::new();
    let mut model = default_graph();
    let node = node_mut(&mut model, "Softmax", "layer.1/attention/self/Softmax");
    node.op = "Frobnicate".into();
    let name = node.name.clone();
    model.save(folder.at("changed.onnx")).unwrap();

    let run = folder.run(&["--onnx", "changed.onnx"]).exits(3);
    assert!(run.stdout.starts_with("INCONCLUSIVE"), "{run}");
    assert!(run.stdout.contains(&name) && run.stdout.contains("Frobnicate"), "{run}");
    let (code, report) = folder.report(&["--onnx", "changed.onnx"]);
    assert_eq!(code, 3);
    assert!(report["checks"][0]["failure"].as_str().unwrap().contains("Frobnicate"), "{report:#}");

    let args = ["--onnx", "changed.onnx", "--engine", "candle"];
    folder.run(&args).is_mistake(&["changed.onnx", &name, "Frobnicate", "candle"]);
}

#[test]
fn a_graph_with_int32_inputs_is_given_int32() {
    let (code, report) = check_changed(
        |model| {
            for position in (0..model.graph.inputs.len()).rev() {
                let input = &mut model.graph.inputs[position];
                input.dtype = DType::I32;
                let name = input.name.clone();
                let wide = format!("{name}.i64");
                reroute(model, &name, &wide);
                let mut cast = node("Cast", &[&name], &wide);
                cast.attributes.insert("to".into(), Attribute::Int(INT64));
                model.graph.nodes.insert(0, cast);
            }
        },
        &[],
    );
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()), "{report:#}");
}

/// ONNX's number for int64.
const INT64: i64 = 7;

#[test]
fn a_graph_without_token_types_is_compared_without_them() {
    // Exported from a call with input_ids and attention_mask alone, as many are.
    let bake = |model: &mut Model| {
        model.graph.inputs.retain(|input| input.name != "token_type_ids");
        let mut zeros = node("ConstantOfShape", &["baked.shape"], "baked.zeros");
        let zero = Value::new([1], vec![0i64]).unwrap();
        zeros.attributes.insert("value".into(), tensor_attribute(&zero));
        zeros.outputs = vec!["token_type_ids".into()];
        model.graph.nodes.splice(0..0, [node("Shape", &["input_ids"], "baked.shape"), zeros]);
    };
    let (code, report) = check_changed(bake, &[]);
    let notes = report["notes"].to_string();
    assert!(notes.contains("'token_type_ids'"), "{notes}");
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()), "{report:#}");
}

#[test]
fn sizes_without_names_are_dynamic_too() {
    let (code, report) = check_changed(
        |model| {
            for input in &mut model.graph.inputs {
                input.shape = Some(vec![Dim::Any, Dim::Any]);
            }
            for output in &mut model.graph.outputs {
                output.shape = None;
            }
        },
        &[],
    );
    assert_eq!((code, &report["verdict"]), (0, &"pass".into()), "{report:#}");
    assert!(report["inputs"].as_array().unwrap().len() >= 5, "{report:#}");
}
