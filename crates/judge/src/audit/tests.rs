//! Forms that no fixture has, made from a good graph of `baseline`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_bert::BertConfig;
use checkpoint::Checkpoint;
use engine::{DType, Value};
use onnx_graph::{Attribute, Function, Graph, Model, Node, Tensor};

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/baseline")
}

fn config() -> BertConfig {
    BertConfig::from_json(&std::fs::read(folder().join("config.json")).unwrap()).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint::open_safetensors(folder().join("model.safetensors")).unwrap()
}

fn graph(file: &str) -> Model {
    Model::open(folder().join("onnx").join(file)).unwrap()
}

fn audited(model: &Model) -> Audit {
    audit(&checkpoint(), Task::FeatureExtraction, &config(), model, Expect::Exact).unwrap()
}

fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: output.into(),
        op: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec![output.into()],
        ..Node::default()
    }
}

fn elements(model: &Model, name: &str) -> Vec<f32> {
    model.graph.initializers[name].to_value().unwrap().as_slice::<f32>().unwrap().to_vec()
}

fn set(model: &mut Model, name: &str, shape: &[usize], elements: Vec<f32>) {
    let tensor = Tensor::from_value(&Value::new(shape, elements).unwrap());
    model.graph.initializers.insert(name.into(), tensor);
}

fn change(model: &mut Model, name: &str, change: impl Fn(usize, f32) -> f32) {
    let shape = model.graph.initializers[name].shape.clone();
    let changed = elements(model, name).into_iter().enumerate().map(|(at, x)| change(at, x)).collect();
    set(model, name, &shape, changed);
}

fn carrier(audit: &Audit, tensor: &str) -> String {
    the(audit, tensor).initializer.clone()
}

fn the<'a>(audit: &'a Audit, tensor: &str) -> &'a Trace {
    audit.traced.iter().find(|trace| trace.tensor == tensor).unwrap()
}

/// The query's bias and weight of the first layer.
const QUERY: [&str; 2] =
    ["encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.query.bias"];

#[test]
fn a_scale_that_was_folded_into_the_query() {
    let scale = 8f64.powf(-0.5);
    let ways: [fn(f32, f64) -> f32; 3] = [
        |x, scale| (f64::from(x) * scale) as f32,
        |x, scale| x * scale as f32,
        |x, scale| x / (1.0 / scale) as f32,
    ];
    for way in ways {
        let mut model = graph("ts17-eager-dynamic.onnx");
        let good = audited(&model);
        for tensor in QUERY {
            change(&mut model, &carrier(&good, tensor), |_, x| way(x, scale));
        }
        let audit = audited(&model);
        assert_eq!(audit.verdict, Verdict::Rounding, "{:?}", audit.findings);
        for tensor in QUERY {
            let trace = the(&audit, tensor);
            assert_eq!((trace.factor, trace.exact, trace.differing), (Some(scale), false, 0));
            assert!(trace.max_abs.unwrap() < 1e-7 && trace.max_ulp.unwrap() <= 1, "{trace:?}");
        }

        // A scaled weight with one wrong bit is not correctly rounded.
        change(&mut model, &carrier(&good, QUERY[0]), |at, x| {
            if at == 7 { f32::from_bits(x.to_bits() + 2) } else { x }
        });
        let audit = audited(&model);
        assert_eq!(audit.verdict, Verdict::Fail);
        assert!(audit.findings[0].tensors == [QUERY[0]], "{:?}", audit.findings);
    }
}

#[test]
fn a_token_types_row_that_was_folded_into_the_positions() {
    let mut model = graph("ts17-eager-dynamic.onnx");
    let types = elements(&model, "model.embeddings.token_type_embeddings.weight");
    change(&mut model, "model.embeddings.position_embeddings.weight", |at, x| x + types[at % 16]);
    model.graph.initializers.shift_remove("model.embeddings.token_type_embeddings.weight");
    let audit = audited(&model);
    assert_eq!(audit.verdict, Verdict::Rounding, "{:?}", audit.findings);
    let plus = Some(("embeddings.token_type_embeddings.weight".to_string(), 0));
    assert_eq!(the(&audit, "embeddings.position_embeddings.weight").plus, plus);
    assert!(audit.untraced.is_empty(), "{:?}", audit.untraced);
}

#[test]
fn a_missing_tensor_is_listed() {
    let mut model = graph("ts17-eager-dynamic.onnx");
    model.graph.initializers.shift_remove("model.pooler.dense.bias");
    let audit = audited(&model);
    assert_eq!((audit.verdict, audit.untraced), (Verdict::Pass, vec!["pooler.dense.bias".to_string()]));
}

#[test]
fn nothing_found_is_never_a_pass() {
    let model = Model { graph: Graph::default(), ..Model::default() };
    let audit = audited(&model);
    assert_eq!((audit.verdict, audit.traced.len()), (Verdict::Inconclusive, 0));
}

#[test]
fn a_float_of_unknown_origin_is_left_over() {
    let mut model = graph("ts17-eager-dynamic.onnx");
    set(&mut model, "odd", &[2, 3], vec![0.1, -7.25, 0.3, 2.5, 0.25, 0.75]);
    model.graph.nodes.push(node("Relu", &["odd"], "unused"));
    let audit = audited(&model);
    assert_eq!(audit.verdict, Verdict::Pass);
    let [left] = audit.leftover.as_slice() else { panic!("{:?}", audit.leftover) };
    assert_eq!(
        (left.name.as_str(), &left.shape[..], left.used_by.as_deref()),
        ("odd", &[2, 3][..], Some("Relu"))
    );
    assert_eq!((left.least, left.greatest), (Some(-7.25), Some(2.5)));
}

/// Moves an initializer to where only a reader of functions and branches finds it.
fn hide(model: &mut Model, name: &str, node: Node) {
    model.graph.initializers.shift_remove(name);
    model.graph.nodes.insert(0, node);
}

#[test]
fn weights_in_constants_functions_and_branches() {
    let good = audited(&graph("ts17-eager-dynamic.onnx"));
    let tensor = "encoder.layer.1.intermediate.dense.weight";
    let name = carrier(&good, tensor);
    for wrong in [false, true] {
        let mut model = graph("ts17-eager-dynamic.onnx");
        if wrong {
            change(&mut model, &name, |at, x| if at == 5 { x * (1.0 + f32::EPSILON) } else { x });
        }
        let held = model.graph.initializers[&name].clone();
        let constant = |output: &str| Node {
            attributes: [("value".to_string(), Attribute::Tensor(held.clone()))].into(),
            ..node("Constant", &[], output)
        };
        let mut in_constant = model.clone();
        hide(&mut in_constant, &name, constant(&name));

        let mut in_function = model.clone();
        in_function.functions.push(Function {
            domain: "pkg".into(),
            name: "Weight".into(),
            outputs: vec!["w".into()],
            opsets: [(String::new(), 17)].into(),
            nodes: vec![constant("w")],
            ..Function::default()
        });
        in_function.opsets.insert("pkg".into(), 1);
        hide(
            &mut in_function,
            &name,
            Node { domain: "pkg".into(), name: "call".into(), ..node("Weight", &[], &name) },
        );

        let mut in_branch = model.clone();
        let body = |output: &str| {
            let output_spec =
                engine::ValueSpec { name: output.into(), dtype: DType::F32, shape: None, optional: false };
            Box::new(Graph { outputs: vec![output_spec], nodes: vec![constant(output)], ..Graph::default() })
        };
        in_branch.graph.initializers.insert("yes".into(), Tensor::from_value(&Value::scalar(true)));
        let attributes = [
            ("then_branch".to_string(), Attribute::Graph(body("then"))),
            ("else_branch".to_string(), Attribute::Graph(body("else"))),
        ];
        hide(&mut in_branch, &name, Node { attributes: attributes.into(), ..node("If", &["yes"], &name) });

        for (model, places) in [
            (&in_constant, vec![name.as_str()]),
            (&in_function, vec!["call/w"]),
            (&in_branch, vec!["then", "else"]),
        ] {
            model.check().unwrap();
            let audit = audited(model);
            let traces: Vec<&Trace> = audit.traced.iter().filter(|trace| trace.tensor == tensor).collect();
            let found: BTreeSet<&str> = traces.iter().map(|trace| trace.initializer.as_str()).collect();
            assert_eq!(found, places.into_iter().collect(), "{:?}", audit.findings);
            let verdict = if wrong { Verdict::Fail } else { Verdict::Pass };
            assert_eq!(audit.verdict, verdict, "{:?}", audit.findings);
            assert!(traces.iter().all(|trace| trace.differing == usize::from(wrong)), "{traces:?}");
        }
    }
}

#[test]
fn double_precision_that_f32_cannot_hold_is_rounding() {
    let widened = |by: f64| {
        let mut model = graph("ts17-eager-dynamic.onnx");
        let name = "model.pooler.dense.bias";
        let wide: Vec<f64> = elements(&model, name).into_iter().map(|x| f64::from(x) * by).collect();
        let tensor = Tensor::from_value(&Value::new([wide.len()], wide).unwrap());
        model.graph.initializers.insert(name.into(), tensor);
        audited(&model)
    };
    assert_eq!(widened(1.0).verdict, Verdict::Pass);
    let audit = widened(1.0 + f64::EPSILON);
    assert_eq!(audit.verdict, Verdict::Rounding);
    assert!(!the(&audit, "pooler.dense.bias").exact);
}

/// A checkpoint whose biases are all 0 and whose gains are all 1, as of a model that was never trained.
fn untrained() -> Checkpoint {
    let mut tensors = Vec::new();
    for entry in checkpoint().iter() {
        let count = entry.shape.iter().product::<usize>();
        let fill = |x: f32| x.to_le_bytes().repeat(count);
        let bytes = match entry.name.as_str() {
            name if name.ends_with("bias") => fill(0.0),
            name if name.ends_with("LayerNorm.weight") => fill(1.0),
            _ => entry.bytes.to_vec(),
        };
        tensors.push((entry.name.clone(), entry.shape.clone(), bytes));
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    Checkpoint::from_safetensors("untrained", bytes.into()).unwrap()
}

#[test]
fn tensors_that_are_all_the_same() {
    let checkpoint = untrained();
    let mut model = graph("ts17-eager-dynamic.onnx");
    let good = audited(&model);
    for trace in &good.traced {
        if trace.tensor.ends_with("bias") {
            change(&mut model, &trace.initializer, |_, _| 0.0);
        } else if trace.tensor.ends_with("LayerNorm.weight") {
            change(&mut model, &trace.initializer, |_, _| 1.0);
        }
    }
    let audited =
        |model: &Model| audit(&checkpoint, Task::FeatureExtraction, &config(), model, Expect::Exact).unwrap();
    let audit = audited(&model);
    assert_eq!(audit.verdict, Verdict::Pass, "{:?}", audit.findings);
    assert!(audit.untraced.is_empty(), "{:?}", audit.untraced);
    let shared: Vec<&Trace> = audit.traced.iter().filter(|trace| trace.shared).collect();
    assert!(shared.is_empty(), "{shared:?}");

    // One bias is not 0.
    let tensor = "encoder.layer.1.output.dense.bias";
    let mut wrong = model.clone();
    change(&mut wrong, &carrier(&good, tensor), |at, x| if at == 2 { 1e-3 } else { x });
    let audit = audited(&wrong);
    assert_eq!(audit.verdict, Verdict::Fail);
    assert_eq!(audit.findings[0].tensors, [tensor]);

    // Exporters merge equal initializers: one carries all biases.
    let biases: Vec<&Trace> =
        good.traced.iter().filter(|trace| trace.tensor.ends_with("output.dense.bias")).collect();
    for trace in &biases[1..] {
        model.graph.initializers.shift_remove(&trace.initializer);
        for input in model.graph.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if *input == trace.initializer {
                input.clone_from(&biases[0].initializer);
            }
        }
    }
    let audit = audited(&model);
    assert_eq!(audit.verdict, Verdict::Pass, "{:?}", audit.findings);
    assert!(audit.untraced.is_empty(), "{:?}", audit.untraced);
}

#[test]
fn a_gain_with_one_wrong_bit_among_equal_gains() {
    let checkpoint = untrained();
    let mut model = graph("ts17-eager-dynamic.onnx");
    let good = audited(&model);
    for trace in good.traced.iter().filter(|trace| trace.tensor.ends_with("LayerNorm.weight")) {
        change(&mut model, &trace.initializer, |_, _| 1.0);
    }
    for trace in good.traced.iter().filter(|trace| trace.tensor.ends_with("bias")) {
        change(&mut model, &trace.initializer, |_, _| 0.0);
    }
    let tensor = "encoder.layer.0.output.LayerNorm.weight";
    change(&mut model, &carrier(&good, tensor), |at, x| if at == 0 { x + f32::EPSILON } else { x });
    let audit = audit(&checkpoint, Task::FeatureExtraction, &config(), &model, Expect::Exact).unwrap();
    assert_eq!(audit.verdict, Verdict::Fail);
    assert_eq!(audit.findings[0].tensors, [tensor], "{:?}", audit.findings);
}

#[test]
fn a_mask_of_minus_ten_thousand_is_a_note() {
    let mut model = graph("ts17-eager-dynamic.onnx");
    let lowest = Tensor::from_value(&Value::scalar(f32::MIN));
    let mut changed = 0;
    for node in &mut model.graph.nodes {
        if node.attributes.get("value") == Some(&Attribute::Tensor(lowest.clone())) {
            node.attributes
                .insert("value".into(), Attribute::Tensor(Tensor::from_value(&Value::scalar(-1e4f32))));
            changed += 1;
        }
    }
    assert_eq!(changed, 1);
    let audit = audited(&model);
    assert_eq!(audit.verdict, Verdict::Pass);
    assert!(audit.findings.iter().any(|finding| finding.message.starts_with("mask constant is -10000 (")));
}

#[test]
fn the_report_is_json() {
    let audit = audited(&graph("dynamo20-sdpa-static.onnx"));
    let json = serde_json::to_value(&audit).unwrap();
    assert_eq!(json["verdict"], "pass");
    let positions = json["traced"]
        .as_array()
        .unwrap()
        .iter()
        .find(|trace| trace["tensor"] == "embeddings.position_embeddings.weight");
    assert_eq!(positions.unwrap()["layout"], serde_json::json!({"rows": {"first": 0, "last": 7}}));
    assert_eq!(json["untraced"], serde_json::json!([]));
}

/// A graph with logits whose decoder is the table of word embeddings, in a tensor of its own, and
/// the masked language model that it is of.
fn tied() -> (Checkpoint, BertConfig, Model) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/heads/masked_lm");
    let config = BertConfig::from_json(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let checkpoint = Checkpoint::open_safetensors(folder.join("model.safetensors")).unwrap();
    (checkpoint, config, Model::open(folder.join("onnx/ts17-eager.onnx")).unwrap())
}

#[test]
fn a_tied_decoder_is_no_fault_where_the_task_has_no_head() {
    let (checkpoint, config, model) = tied();
    let table = "model.bert.embeddings.word_embeddings.weight";
    let decoder = "onnx::MatMul_304";
    let audited = |model: &Model| {
        let audit = audit(&checkpoint, Task::FeatureExtraction, &config, model, Expect::Exact).unwrap();
        // The file has no such tensor, so there is none that is not used.
        assert!(audit.unused.iter().all(|name| !name.ends_with("decoder.weight")), "{:?}", audit.unused);
        audit
    };
    let right = audited(&model);
    assert_eq!(right.verdict, Verdict::Pass, "{:#?}", right.findings);
    assert!(right.traced.iter().any(|trace| trace.initializer == decoder && trace.exact));

    let mut features = model.clone();
    features.graph.outputs[0].name =
        "/model/cls/predictions/transform/LayerNorm/LayerNormalization_output_0".into();
    features.graph.initializers.shift_remove(decoder);
    features.graph.nodes.retain(|node| !node.inputs.iter().any(|name| name == decoder));
    features
        .graph
        .nodes
        .retain(|node| !node.inputs.iter().any(|name| name.ends_with("decoder/MatMul_output_0")));
    assert_eq!(audited(&features).verdict, Verdict::Pass);

    let mut changed = model.clone();
    change(&mut changed, decoder, |at, x| if at == 7 { x + 0.5 } else { x });
    assert_eq!(audited(&changed).verdict, Verdict::Fail);

    // It is known where something is multiplied with it, and nowhere else.
    let mut looked_up = model;
    let positions = "model.bert.embeddings.position_embeddings.weight";
    let gather =
        looked_up.graph.nodes.iter_mut().find(|node| node.inputs.iter().any(|name| name == positions));
    gather.unwrap().inputs[0] = "again".into();
    let rows = elements(&looked_up, table);
    set(&mut looked_up, "again", &[121, 16], rows);
    looked_up.graph.initializers.shift_remove(positions);
    let audit = audited(&looked_up);
    assert!(audit.traced.iter().any(|trace| trace.initializer == "again" && !trace.shared));
}
