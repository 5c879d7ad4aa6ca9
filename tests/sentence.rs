//! sentence-transformers' graphs, whose outputs have other names and are pooled; a model with two
//! tokenizers; and engines whose answer depends on what is beside a text.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Folder, change_weight, fixture, house, in_fixture, node, reroute, tensor_attribute};
use engine::{Engine, EngineError, NamedValues, Value, ValueSpec};
use onnx_graph::{Attribute, Model, Node};
use onnx_session::{EngineKind, Session};
use parity::inputs::{FixedShape, default_cases};
use parity::trial::{Graph, Trial};
use parity::{Bounds, References, Subject, Verdict};
use serde_json::{Value as Json, json};

const FIXTURES: [&str; 10] = [
    "baseline",
    "odd",
    "types3",
    "no_pooler",
    "head24",
    "eps",
    "prefixed",
    "position_ids",
    "types1",
    "stiff",
];
const FORMS: [&str; 2] = ["sentence-ts17", "sentence-dynamo20"];
const SENTENCE: &str = "sentence_embedding";

fn form(fixture: &str, form: &str) -> String {
    house().join(format!("tests/fixtures/forms/{fixture}/{form}.onnx")).display().to_string()
}

/// The sentence form of `baseline` at opset 17, changed, in a folder with a copy of the checkpoint.
fn changed(change: impl FnOnce(&mut Model)) -> Folder {
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    let mut model = Model::open(form("baseline", FORMS[0])).unwrap();
    change(&mut model);
    model.save(folder.at("changed.onnx")).unwrap();
    folder
}

fn check(folder: &Folder) -> (i32, Json) {
    folder.report(&["model", "--onnx", "changed.onnx"])
}

/// Says in sentence-transformers' files that these modules stand behind the transformer.
fn declare_modules(folder: &Folder, kinds: &[&str], pooling: &Json) {
    let module = |(at, kind): (usize, &&str)| {
        let path = if at == 0 { String::new() } else { format!("{at}_{kind}") };
        json!({ "type": format!("sentence_transformers.models.{kind}"), "path": path })
    };
    let modules: Vec<Json> = ["Transformer"].iter().chain(kinds).enumerate().map(module).collect();
    folder.write("model/modules.json", json!(modules).to_string());
    folder.write("model/1_Pooling/config.json", pooling.to_string());
}

/// Says that embeddings are pooled so, and of length 1.
fn declare(folder: &Folder, pooling: &str) {
    let pooling = json!({ format!("pooling_mode_{pooling}"): true });
    declare_modules(folder, &["Pooling", "Normalize"], &pooling);
}

fn constant(model: &mut Model, name: &str, value: Value) {
    model.graph.initializers.insert(name.into(), onnx_graph::Tensor::from_value(&value));
}

fn along(mut node: Node, axis: i64) -> Node {
    node.attributes.insert("axis".into(), Attribute::Int(axis));
    node
}

/// The state of each row's first token.
fn first_of(model: &mut Model, states: &str, output: &str) -> Node {
    constant(model, "first", Value::scalar(0i64));
    along(node("Gather", &[states, "first"], output), 1)
}

/// Lets other nodes give the embedding; the last one does.
fn embed_by(model: &mut Model, mut nodes: Vec<Node>) {
    let sound =
        model.graph.nodes.iter_mut().flat_map(|node| &mut node.outputs).find(|output| *output == SENTENCE);
    *sound.unwrap() = "sound".into();
    nodes.last_mut().unwrap().outputs = vec![SENTENCE.into()];
    model.graph.nodes.extend(nodes);
    // It may be of another width.
    model.graph.outputs.iter_mut().filter(|spec| spec.name == SENTENCE).for_each(|spec| spec.shape = None);
}

fn reduce(op: &str, input: &str, output: &str, axis: i64, keep: i64) -> Node {
    let mut node = node(op, &[input], output);
    node.attributes = [("axes", Attribute::Ints(vec![axis])), ("keepdims", Attribute::Int(keep))]
        .map(|(name, value)| (name.to_string(), value))
        .into();
    node
}

/// What is divided by its length to become the embedding.
fn before_normalisation(model: &Model) -> String {
    let gives = |node: &&Node| node.outputs.iter().any(|output| output == SENTENCE);
    let node = model.graph.nodes.iter().find(gives).unwrap();
    assert_eq!(node.op, "Div");
    node.inputs[0].clone()
}

fn output<'a>(report: &'a Json, of: &str, name: &str) -> &'a Json {
    report[of].as_array().unwrap().iter().find(|output| output["name"] == name).unwrap()
}

#[track_caller]
fn is_noted(report: &Json, words: &str) {
    let notes = report["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains(words)), "{notes:?}");
}

#[track_caller]
fn explanation(report: &Json) -> &str {
    report["explanation"].as_str().unwrap_or_default()
}

#[test]
fn sentence_transformers_graphs_pass() {
    for fixture in FIXTURES {
        for name in FORMS {
            let folder = Folder::new();
            let model = crate::common::fixture(fixture).display().to_string();
            let (code, report) = folder.report(&[&model, "--onnx", &form(fixture, name)]);
            let what = format!("{fixture}/{name}: {}", report["explanation"]);
            assert!(
                code == 0 && ["pass", "rounding"].contains(&report["verdict"].as_str().unwrap()),
                "{what}"
            );
            for output_name in ["token_embeddings", SENTENCE] {
                assert_eq!(output(&report["proof"], "outputs", output_name)["verdict"], "pass", "{what}");
                assert!(
                    output(&report["checks"][0], "outputs", output_name)["compared"].as_u64() > Some(100),
                    "{what}"
                );
            }
            assert_eq!(report["explanation"], Json::Null, "{what}");
            assert_eq!(report["culprits"], json!([]), "{what}");
            is_noted(&report, "output 'token_embeddings' is judged as last_hidden_state");
            is_noted(&report, "sentence_embedding is the mean over real tokens, of length 1, by its values");
        }
    }
}

#[test]
fn what_modules_json_says_goes_before_the_values() {
    let folder = changed(|_| ());
    declare(&folder, "mean_tokens");
    let (code, report) = check(&folder);
    assert_eq!(code, 0);
    is_noted(&report, "sentence_embedding is the mean over real tokens, of length 1, as modules.json says");

    declare(&folder, "cls_token");
    let (code, report) = check(&folder);
    assert_eq!(code, 1);
    let words = explanation(&report);
    assert!(words.starts_with("pooling: the embedding is made of other tokens"), "{words}");
    assert!(words.contains("modules.json asks for the state of the first token, of length 1"), "{words}");

    // What is not known here is left to the values.
    declare(&folder, "lastbutone_token");
    let (code, report) = check(&folder);
    assert_eq!(code, 0);
    is_noted(&report, "by its values, as 1_Pooling/config.json asks for pooling by lastbutone_token");
}

#[test]
fn an_embedding_that_counts_padding_is_explained() {
    let folder = changed(|model| {
        let mean = reduce("ReduceMean", "token_embeddings", "mean", 1, 0);
        let norm = reduce("ReduceL2", "mean", "norm", 1, 1);
        embed_by(model, vec![mean, norm, node("Div", &["mean", "norm"], "embedding")]);
    });
    let (code, report) = check(&folder);
    assert_eq!((code, &report["verdict"]), (1, &json!("fail")));
    assert_eq!(output(&report["proof"], "outputs", "token_embeddings")["verdict"], "pass");
    assert_eq!(output(&report["proof"], "outputs", SENTENCE)["verdict"], "fail");
    assert!(
        explanation(&report).starts_with("pooling: the embedding counts padding; "),
        "{}",
        explanation(&report)
    );
    assert_eq!(report["culprits"], json!([]));
    let run = folder.run(&["model", "--onnx", "changed.onnx"]);
    assert!(run.stdout.contains("Explained by  pooling: the embedding counts padding"), "{run}");
}

#[test]
fn a_normalisation_that_is_missing_is_explained() {
    let folder = changed(|model| {
        let mean = before_normalisation(model);
        embed_by(model, vec![node("Identity", &[&mean], "embedding")]);
    });
    // Without files that say otherwise it is a mean, as models have that do not normalise.
    let (code, report) = check(&folder);
    assert_eq!(code, 0);
    is_noted(&report, "sentence_embedding is the mean over real tokens, by its values");

    declare(&folder, "mean_tokens");
    let (code, report) = check(&folder);
    assert_eq!(code, 1);
    let words = explanation(&report);
    assert!(words.starts_with("normalisation: the embedding is not normalised; "), "{words}");
}

#[test]
fn other_ways_of_pooling_are_known_by_their_values() {
    let folder = changed(|model| {
        let mut first = node("Gather", &["token_embeddings", "zero"], "embedding");
        first.attributes = [("axis".to_string(), Attribute::Int(1))].into();
        let mut zero = node("Constant", &[], "zero");
        zero.attributes = [("value".to_string(), tensor_attribute(&Value::scalar(0i64)))].into();
        embed_by(model, vec![zero, first]);
    });
    let (code, report) = check(&folder);
    assert_eq!(code, 0, "{}", report["proof"]);
    is_noted(&report, "sentence_embedding is the state of the first token, by its values");
}

#[test]
fn a_fault_in_the_encoder_is_no_fault_of_the_embedding() {
    let folder = changed(|model| {
        change_weight(model, &weight(model), |elements, _| elements[3] += 0.01);
    });
    let (code, report) = check(&folder);
    assert_eq!(code, 1);
    is_noted(&report, "sentence_embedding is the mean over real tokens, of length 1, by its values");
    assert_eq!(report["explanation"], Json::Null);
    assert_eq!(report["culprits"][0]["module"], "encoder.layer.1.output.dense");
}

#[test]
fn a_mask_that_is_ignored_everywhere_is_the_attentions_fault_first() {
    let folder = changed(|model| {
        let ones = node("Equal", &["attention_mask", "attention_mask"], "ones/bool");
        let mut cast = node("Cast", &["ones/bool"], "ones");
        cast.attributes = [("to".to_string(), Attribute::Int(7))].into();
        reroute(model, "attention_mask", "ones");
        model.graph.nodes.splice(0..0, [ones, cast]);
    });
    let (code, report) = check(&folder);
    assert_eq!(code, 1);
    assert_eq!(report["culprits"][0]["module"], "encoder.layer.0.attention.self");
    assert_eq!(report["explanation"], Json::Null);
    is_noted(&report, "pooling: the embedding counts padding; ");
}

/// A bias of the last layer.
fn weight(model: &Model) -> String {
    let name =
        model.graph.initializers.keys().find(|name| name.ends_with("encoder.layer.1.output.dense.bias"));
    name.unwrap().clone()
}

/// Says that embeddings are made by a pooling, a dense layer 16 → 6 with tanh, and brought to
/// length 1; gives that layer's weight, `[16, 6]`, and its bias.
fn declare_dense(folder: &Folder, pooling: &Json) -> [Value; 2] {
    use candle_core::{Device, Tensor};
    declare_modules(folder, &["Pooling", "Dense", "Normalize"], &json!({ "pooling_mode": pooling }));
    let config = json!({ "in_features": 16, "out_features": 6, "bias": true, "activation_function": "torch.nn.modules.activation.Tanh" });
    folder.write("model/2_Dense/config.json", config.to_string());
    let weight: Vec<f32> = (0..96).map(|at| ((at * 37 % 101) as f32 - 50.) / 80.).collect();
    let bias: Vec<f32> = (0..6).map(|at| at as f32 / 7. - 0.3).collect();
    let tensor =
        |elements: &[f32], shape: &[usize]| Tensor::from_slice(elements, shape, &Device::Cpu).unwrap();
    let weight_tensor = tensor(&weight, &[6, 16]);
    let tensors =
        [("linear.weight".to_string(), weight_tensor.clone()), ("linear.bias".into(), tensor(&bias, &[6]))];
    candle_core::safetensors::save(&tensors.into(), folder.at("model/2_Dense/model.safetensors")).unwrap();
    let transposed = weight_tensor.t().unwrap().contiguous().unwrap();
    [Value::from_tensor(&transposed).unwrap(), Value::new([6], bias).unwrap()]
}

#[test]
fn a_graph_is_held_to_all_that_modules_json_lists() {
    let dense = |folder: &Folder, name: &str, with_dense: bool| {
        let [weight, bias] = declare_dense(folder, &json!("cls"));
        let mut model = Model::open(form("baseline", FORMS[0])).unwrap();
        constant(&mut model, "W", weight);
        constant(&mut model, "b", bias);
        let mut nodes = vec![first_of(&mut model, "token_embeddings", "cls")];
        let last = if with_dense {
            nodes.push(node("MatMul", &["cls", "W"], "product"));
            nodes.push(node("Add", &["product", "b"], "sum"));
            nodes.push(node("Tanh", &["sum"], "bent"));
            "bent"
        } else {
            "cls"
        };
        nodes.push(reduce("ReduceL2", last, "norm", 1, 1));
        nodes.push(node("Div", &[last, "norm"], "embedding"));
        embed_by(&mut model, nodes);
        model.save(folder.at(name)).unwrap();
    };
    let folder = Folder::new();
    folder.copy_fixture("baseline", "model");
    dense(&folder, "changed.onnx", true);
    let (code, report) = check(&folder);
    assert_eq!((code, &output(&report["proof"], "outputs", SENTENCE)["verdict"]), (0, &json!("pass")));
    is_noted(&report, "sentence_embedding is judged as cls pooling, dense, normalized, as modules.json says");

    // Without its dense layer it is another, and of another width.
    dense(&folder, "changed.onnx", false);
    let (code, report) = check(&folder);
    assert_eq!(code, 1);
    let words = explanation(&report);
    assert!(
        words.starts_with("dense: sentence_embedding is made without it, and modules.json asks for "),
        "{words}"
    );

    // Not what was meant: a wrong number in the layer.
    dense(&folder, "changed.onnx", true);
    let mut model = Model::open(folder.at("changed.onnx")).unwrap();
    change_weight(&mut model, "W", |elements, _| elements[40] += 1e-4);
    model.save(folder.at("changed.onnx")).unwrap();
    assert_eq!(check(&folder).0, 1);
}

#[test]
fn several_poolings_are_put_side_by_side() {
    let folder = changed(|model| {
        let cls = first_of(model, "token_embeddings", "cls");
        let both = along(node("Concat", &["cls", &before_normalisation(model)], "both"), 1);
        embed_by(model, vec![cls, both]);
    });
    for (modes, code) in [(json!(["cls", "mean"]), 0), (json!(["mean", "cls"]), 1)] {
        declare_modules(&folder, &["Pooling"], &json!({ "pooling_mode": modes }));
        assert_eq!(check(&folder).0, code, "{modes}");
    }
}

#[test]
fn a_vector_that_is_no_pooling_is_held_against_nothing() {
    let folder = changed(|model| {
        let both = along(node("Concat", &["token_embeddings", "token_embeddings"], "both"), 2);
        let wide = first_of(model, "both", "embedding");
        embed_by(model, vec![both, wide]);
    });
    let (code, report) = check(&folder);
    assert_eq!((code, &report["unheld"]), (0, &json!([SENTENCE])));
    is_noted(
        &report,
        "nothing is held against output 'sentence_embedding': the model has no modules.json, and it has not the width of a token's state",
    );
}

#[test]
fn relations_are_judged_on_both_sides_and_in_f32() {
    let folder = Folder::new();
    let graph = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    let (code, report) = folder.report(&[&fixture("baseline").display().to_string(), "--onnx", &graph]);
    assert_eq!(code, 0);
    let relations = report["relations"].as_array().unwrap();
    for side in ["graph in f64", "reference in f64", "candle in f32"] {
        for name in
            ["run twice", "threads", "padding", "content of padding", "batch neighbours", "order of rows"]
        {
            let of = |relation: &&Json| relation["side"] == side && relation["name"] == name;
            let relation = relations.iter().find(of).unwrap();
            assert_eq!(relation["holds"], true, "{relation}");
        }
    }
}

/// An engine of which no two runs are alike: every other one is a little off, by less than f32 may be.
struct Restless {
    engine: Session,
    runs: AtomicUsize,
}

impl Engine for Restless {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn inputs(&self) -> &[ValueSpec] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[ValueSpec] {
        self.engine.outputs()
    }

    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        let off = if self.runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            1.0
        } else {
            1.0 + f32::EPSILON
        };
        let values = self.engine.run_for(inputs, names)?;
        let moved = |value: &Value| {
            let elements: Vec<f32> = value.as_slice::<f32>().unwrap().iter().map(|x| x * off).collect();
            Value::new::<f32>(value.shape(), elements).unwrap()
        };
        Ok(values.iter().map(|(name, value)| (name, moved(value))).collect())
    }
}

#[test]
fn an_engine_whose_runs_are_not_alike_fails_though_each_is_near_enough() {
    let subject = Subject::open(Some(&fixture("baseline").display().to_string())).unwrap();
    let (onnx, model) =
        subject.graph(Some(in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx").as_ref())).unwrap();
    let references = References::load(&subject).unwrap();
    let cases = default_cases(&subject.limits(), FixedShape::default(), None, None).unwrap();
    let trial = Trial::new(&subject, &references, &cases, |_| ()).unwrap();
    let engine =
        Restless { engine: Session::new(&model, EngineKind::Candle).unwrap(), runs: AtomicUsize::new(0) };
    let judge = |engine: &dyn Engine| {
        let bounds = Bounds::default();
        trial.judge(Graph::new(&onnx, &model, &[engine], &bounds), |_| ()).unwrap().report
    };
    assert_ne!(judge(&engine.engine).verdict, Verdict::Fail);
    let report = judge(&engine);
    assert_ne!(report.checks[0].verdict, Verdict::Fail);
    assert_eq!((report.proof.verdict, report.verdict), (Verdict::Pass, Verdict::Fail));
    let violated: Vec<_> = report.relations.iter().filter(|relation| relation.is_violated()).collect();
    assert_eq!(violated.len(), 1, "{violated:?}");
    assert_eq!((&*violated[0].name, violated[0].side.as_str()), ("run twice", "candle in f32"));
}

#[test]
fn two_tokenizers_that_differ_fail() {
    let folder = Folder::new();
    for (file, bytes) in bert_tiny::FILES {
        folder.write(&format!("model/{file}"), bytes);
    }
    let (code, report) = folder.report(&["model"]);
    assert_eq!((code, &report["tokenizer"]["verdict"]), (0, &json!("pass")));

    let path = folder.at("model/tokenizer_config.json");
    let mut config: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["do_lower_case"] = false.into();
    folder.write("model/tokenizer_config.json", config.to_string());
    let (code, report) = folder.report(&["model"]);
    assert_eq!((code, &report["verdict"], &report["proof"]["verdict"]), (1, &json!("fail"), &json!("pass")));
    let tokenizer = &report["tokenizer"];
    assert_eq!(tokenizer["difference"]["text"], "Return a list of the files in the directory.");
    assert_eq!(tokenizer["difference"]["position"], 1);
    assert!(
        tokenizer["setting"].as_str().unwrap().starts_with("do_lower_case is false in tokenizer_config.json")
    );
    let run =
        folder.run(&["model", "--junit", "junit.xml", "--markdown", "a.md", "--html", "a.html"]).exits(1);
    assert!(run.stdout.starts_with("FAIL  model has two tokenizers: "), "{run}");
    for file in ["junit.xml", "a.md", "a.html"] {
        let text = std::fs::read_to_string(folder.at(file)).unwrap();
        assert!(text.replace('\\', "").contains("do_lower_case"), "{file}: {text}");
    }
}

#[test]
fn a_model_without_two_tokenizers_has_none_to_compare() {
    let folder = Folder::new();
    let graph = in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    let (_, report) = folder.report(&[&fixture("baseline").display().to_string(), "--onnx", &graph]);
    assert_eq!(report["tokenizer"], Json::Null);
}
