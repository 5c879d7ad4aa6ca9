//! What a graph takes and gives is known by meaning: whatever its inputs are called and however it
//! wants its mask, and whatever its outputs are called, hidden states, attentions and the vector of
//! a text among them.

use engine::{DType, Dim, Value, ValueSpec};
use onnx_graph::{Attribute, Model, Node, Tensor};
use serde_json::{Value as Json, json};

use crate::common::{Folder, baseline_graph, node, reroute};

/// An export of `baseline` at opset 17, changed, held against its checkpoint.
fn check(change: impl FnOnce(&mut Model), options: &[&str]) -> (i32, Json) {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let mut model = baseline_graph();
    change(&mut model);
    model.check().unwrap();
    model.save(folder.at("changed.onnx")).unwrap();
    folder.report(&[&["model", "--onnx", "changed.onnx"], options].concat())
}

fn passes(what: &str, (code, report): &(i32, Json)) {
    assert_eq!((*code, &report["proof"]["verdict"]), (0, &json!("pass")), "{what}: {}", report["notes"]);
}

/// Nodes before all others.
fn begin_with(model: &mut Model, nodes: Vec<Node>) {
    model.graph.nodes.splice(0..0, nodes);
}

fn constant(model: &mut Model, name: &str, value: Value) {
    model.graph.initializers.insert(name.into(), Tensor::from_value(&value));
}

fn with(mut node: Node, name: &str, number: i64) -> Node {
    node.attributes.insert(name.into(), Attribute::Int(number));
    node
}

/// Lets the graph take its mask as another type and shape, of which `nodes` make the usual one,
/// under the name `usual`.
fn take_mask(model: &mut Model, dtype: DType, shape: &[&str], nodes: Vec<Node>) {
    reroute(model, "attention_mask", "usual");
    let dim = |dim: &&str| dim.parse().map_or_else(|_| Dim::Symbol((*dim).into()), Dim::Fixed);
    let mask = model.graph.inputs.iter_mut().find(|spec| spec.name == "attention_mask").unwrap();
    *mask = ValueSpec { dtype, shape: Some(shape.iter().map(dim).collect()), ..mask.clone() };
    constant(model, "zero", Value::scalar(0i64));
    constant(model, "no", Value::scalar(0f32));
    begin_with(model, nodes);
}

fn to_int(input: &str) -> Node {
    with(node("Cast", &[input], "usual"), "to", 7)
}

fn first(input: &str, output: &str) -> Node {
    with(node("Gather", &[input, "zero"], output), "axis", 1)
}

fn rename_input(model: &mut Model, old: &str, new: &str) {
    reroute(model, old, new);
    model.graph.inputs.iter_mut().filter(|spec| spec.name == old).for_each(|spec| spec.name = new.into());
}

#[test]
fn inputs_by_other_names() {
    for names in [
        ["input_ids", "input_mask", "segment_ids"],
        ["ids:0", "mask:0", "types:0"],
        ["input.1", "input.2", "input.3"],
    ] {
        let found = check(
            |model| {
                for (usual, name) in ["input_ids", "attention_mask", "token_type_ids"].into_iter().zip(names)
                {
                    rename_input(model, usual, name);
                }
            },
            &[],
        );
        passes(names[0], &found);
        let notes = found.1["notes"].to_string();
        assert!(notes.contains(&format!("input '{}' is taken for token_type_ids", names[2])), "{notes}");
    }
}

#[test]
fn two_inputs_that_changed_places_fail_and_what_is_said_of_them_helps() {
    let exchange = |model: &mut Model| {
        for (old, new) in
            [("attention_mask", "x"), ("token_type_ids", "attention_mask"), ("x", "token_type_ids")]
        {
            rename_input(model, old, new);
        }
    };
    let (code, report) = check(exchange, &[]);
    assert_eq!(code, 1);
    let explanation = report["explanation"].as_str().unwrap();
    assert!(
        explanation.starts_with("holds with attention_mask and token_type_ids exchanged"),
        "{explanation}"
    );
    let said = ["--input", "attention_mask=token_type_ids", "--input", "token_type_ids=attention_mask"];
    passes("said", &check(exchange, &said));
    let (code, report) = check(exchange, &["--input", "attention_mask=mask"]);
    assert_eq!(code, 2);
    assert!(report["error"].as_str().unwrap().contains("the graph has no input 'mask'; it has "), "{report}");
}

#[test]
fn masks_of_other_types_and_shapes() {
    let flat = || vec![to_int("attention_mask")];
    let of_three = || vec![first("attention_mask", "row"), to_int("row")];
    let of_four = || vec![first("attention_mask", "head"), first("head", "row"), to_int("row")];
    let added = || {
        let rows = vec![first("attention_mask", "head"), first("head", "row")];
        [rows, vec![node("Equal", &["row", "no"], "real"), to_int("real")]].concat()
    };
    for (dtype, shape, nodes) in [
        (DType::F32, &["batch", "sequence"][..], flat()),
        (DType::Bool, &["batch", "sequence"], flat()),
        (DType::I64, &["batch", "sequence", "sequence"], of_three()),
        (DType::F32, &["batch", "1", "sequence"], of_three()),
        (DType::F32, &["batch", "1", "1", "sequence"], of_four()),
        (DType::F32, &["batch", "1", "sequence", "sequence"], added()),
    ] {
        let found = check(|model| take_mask(model, dtype, shape, nodes), &[]);
        passes(&format!("{dtype} {shape:?}"), &found);
        assert!(found.1["notes"].to_string().contains("mask"), "{}", found.1["notes"]);
    }
}

#[test]
fn positions_are_given_where_a_graph_wants_them() {
    let found = check(
        |model| {
            let table = "embeddings.position_embeddings.weight";
            let reads = |node: &&mut Node| node.op == "Gather" && node.inputs[0].ends_with(table);
            model.graph.nodes.iter_mut().find(reads).unwrap().inputs[1] = "position_ids".into();
            let ids = model.graph.inputs[0].clone();
            model.graph.inputs.push(ValueSpec { name: "position_ids".into(), ..ids });
        },
        &[],
    );
    passes("position_ids", &found);
}

#[test]
fn an_input_that_no_text_has_is_refused_with_the_cure() {
    let (code, report) = check(
        |model| {
            let ids = model.graph.inputs[0].clone();
            model.graph.inputs.push(ValueSpec { name: "pixels".into(), dtype: DType::F32, ..ids });
            model.graph.inputs.push(ValueSpec { name: "noise".into(), ..model.graph.inputs[3].clone() });
        },
        &[],
    );
    assert_eq!(code, 2);
    let error = report["error"].as_str().unwrap();
    assert!(error.ends_with("say which it is, as in --input attention_mask=pixels"), "{error}");
}

/// Lets the graph give values that it has, by these names.
fn give(model: &mut Model, outputs: &[(&str, String)]) {
    for (name, value) in outputs {
        model.graph.nodes.push(node("Identity", &[value], name));
        let spec = ValueSpec { name: (*name).into(), dtype: DType::F32, shape: None, optional: false };
        model.graph.outputs.push(spec);
    }
}

/// What the graph's nodes of an operator give, in order.
fn values_of(model: &Model, op: &str) -> Vec<String> {
    model.graph.nodes.iter().filter(|node| node.op == op).map(|node| node.outputs[0].clone()).collect()
}

/// The states before and after each layer, and who attends to whom in it. An export at opset 17 has
/// one LayerNormalization before the layers, two in each, and a Softmax in each.
fn states(model: &Model) -> (Vec<String>, Vec<String>) {
    let norms = values_of(model, "LayerNormalization");
    (norms.into_iter().step_by(2).collect(), values_of(model, "Softmax"))
}

#[test]
fn hidden_states_and_attentions_are_the_references() {
    let outputs = |model: &mut Model, names: [&str; 5], order: [usize; 3]| {
        let (hidden, attentions) = states(model);
        assert_eq!((hidden.len(), attentions.len()), (3, 2));
        let hidden = order.map(|at| hidden[at].clone());
        let values: Vec<String> = hidden.into_iter().chain(attentions).collect();
        give(model, &names.into_iter().zip(values).collect::<Vec<_>>());
    };
    let usual = ["hidden_states.0", "hidden_states.1", "hidden_states.2", "attentions.0", "attentions.1"];
    let found = check(|model| outputs(model, usual, [0, 1, 2]), &[]);
    passes("as they are", &found);
    let proven = found.1["proof"]["outputs"].as_array().unwrap();
    let compared =
        |name: &str| proven.iter().find(|output| output["name"] == name).unwrap()["compared"].clone();
    for name in usual {
        assert!(compared(name).as_u64().unwrap() > 0, "{name}");
    }
    assert!(found.1.get("unheld").is_none());

    let (code, report) = check(|model| outputs(model, usual, [0, 2, 1]), &[]);
    assert_eq!(code, 1);
    let explanation = report["explanation"].as_str().unwrap();
    assert!(
        explanation.starts_with("outputs hidden_states.1 and hidden_states.2 exchanged"),
        "{explanation}"
    );

    // Of other names the nearest is taken.
    let names = ["110", "220", "330", "440", "550"];
    let found = check(|model| outputs(model, names, [1, 0, 2]), &[]);
    passes("without names", &found);
    let notes = found.1["notes"].to_string();
    for (name, usual) in [("110", "hidden_states.1"), ("220", "hidden_states.0"), ("550", "attentions.1")] {
        assert!(notes.contains(&format!("output '{name}' is judged as {usual}")), "{notes}");
    }
}

#[test]
fn an_attention_that_is_another_fails() {
    let (code, report) = check(
        |model| {
            let (_, attentions) = states(model);
            model.graph.nodes.push(node("Mul", &[&attentions[1], "half"], "halved"));
            constant(model, "half", Value::scalar(0.5f32));
            give(model, &[("attentions.1", "halved".into())]);
        },
        &[],
    );
    assert_eq!((code, &report["verdict"]), (1, &json!("fail")));
    let failing = |output: &&Json| output["verdict"] == "fail";
    let names: Vec<&Json> =
        report["proof"]["outputs"].as_array().unwrap().iter().filter(failing).map(|o| &o["name"]).collect();
    assert_eq!(names, ["attentions.1"]);
}

fn rename_output(model: &mut Model, old: &str, new: &str) {
    model.graph.nodes.push(node("Identity", &[old], new));
    let output = model.graph.outputs.iter_mut().find(|spec| spec.name == old).unwrap();
    output.name = new.into();
}

#[test]
fn the_models_own_outputs_by_other_names() {
    let rename = |model: &mut Model| {
        rename_output(model, "last_hidden_state", "output_0");
        rename_output(model, "pooler_output", "output_1");
    };
    let found = check(rename, &[]);
    passes("right", &found);
    assert!(found.1["notes"].to_string().contains("output 'output_1' is judged as pooler_output"));
    // A pooler that bends another way does not hide behind a name.
    let (code, report) = check(
        |model| {
            model
                .graph
                .nodes
                .iter_mut()
                .filter(|node| node.op == "Tanh")
                .for_each(|node| node.op = "Sigmoid".into());
            rename(model);
        },
        &[],
    );
    assert_eq!((code, &report["culprits"][0]["module"]), (1, &json!("pooler")), "{report}");
    // What is asked for by the reference's name is found.
    assert_eq!(check(rename, &["--output", "pooler_output"]).0, 0);
}

#[test]
fn what_nothing_is_held_against_is_in_the_headline() {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let mut model = baseline_graph();
    model.graph.nodes.push(with(node("ReduceMean", &["last_hidden_state"], "spread"), "keepdims", 0));
    let spec =
        ValueSpec { name: "spread".into(), dtype: DType::F32, shape: Some(Vec::new()), optional: false };
    model.graph.outputs.push(spec);
    model.save(folder.at("more.onnx")).unwrap();
    let run = folder.run(&["check", "model", "--onnx", "more.onnx", "--json", "report.json"]).exits(0);
    let headline = run.stdout.lines().next().unwrap();
    assert!(headline.ends_with("; nothing was held against output 'spread'"), "{headline}");
    let report: Json = serde_json::from_slice(&std::fs::read(folder.at("report.json")).unwrap()).unwrap();
    assert_eq!(report["unheld"], json!(["spread"]));
    let run =
        folder.run(&["check", "model", "--onnx", "more.onnx", "--output", "last_hidden_state"]).exits(0);
    assert!(!run.stdout.contains("nothing was held against"), "{}", run.stdout);
}
