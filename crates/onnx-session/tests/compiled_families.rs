//! Every export of every family beside BERT on the engine `compiled`: how few steps a layer takes,
//! and that they are right, against PyTorch's float64.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

use std::path::{Path, PathBuf};

use engine::{DType, Engine, NamedValues, Value};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::Model;
use onnx_session::compiled::{CompiledEngine, Options, Threads};
use serde_json::Value as Json;

fn families() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/families")
}

fn json(path: PathBuf) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A graph of a fixture.
struct Graph {
    fixture: String,
    file: String,
    is_static: bool,
    /// How far f32 may be off.
    bound: f64,
    layers: usize,
}

impl Graph {
    fn name(&self) -> String {
        format!("{}/{}", self.fixture, self.file)
    }

    fn model(&self) -> Model {
        Model::open(families().join(&self.fixture).join("onnx").join(&self.file)).unwrap()
    }
}

/// All that are right.
fn graphs() -> Vec<Graph> {
    let mut graphs = Vec::new();
    for entry in json(families().join("index.json")).as_array().unwrap() {
        let fixture = entry["name"].as_str().unwrap();
        let config = json(families().join(fixture).join("config.json"));
        let number = |names: &[&str]| names.iter().find_map(|name| config[*name].as_u64());
        let layers = number(&["num_hidden_layers", "n_layers", "n_layer"]).unwrap()
            * number(&["inner_group_num"]).unwrap_or(1);
        for graph in entry["onnx"].as_array().unwrap().iter().filter(|graph| graph["wrong"].is_null()) {
            graphs.push(Graph {
                fixture: fixture.into(),
                file: graph["file"].as_str().unwrap().into(),
                is_static: graph["shapes"] == "static",
                bound: entry["bound"].as_f64().unwrap(),
                layers: layers as usize,
            });
        }
    }
    graphs
}

fn engine(model: &Model, skip_padding: bool) -> CompiledEngine {
    let options = Options { threads: Threads::Count(2), skip_padding, ..Options::default() };
    CompiledEngine::new(model, options).unwrap()
}

/// The goldens' values, by case and name.
fn read(path: PathBuf) -> NamedValues {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let value = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let dtype = match view.dtype() {
            safetensors::Dtype::I64 => DType::I64,
            _ => DType::F64,
        };
        (name, Value::from_le_bytes(dtype, view.shape(), view.data()).unwrap())
    };
    file.tensors().into_iter().map(value).collect()
}

/// The largest distance: of what there is for each token, at real ones.
fn distance(found: &Value, golden: &Value, mask: &Value) -> f64 {
    assert_eq!(found.shape(), golden.shape());
    let real: Vec<bool> = mask.as_slice::<i64>().unwrap().iter().map(|&bit| bit != 0).collect();
    let by_token = golden.shape().starts_with(mask.shape());
    let width = if by_token { golden.len() / real.len() } else { 1 };
    let decides = |at: usize| !by_token || real[at / width];
    let pairs = found.to_f64().into_iter().zip(golden.to_f64()).enumerate();
    let distances = pairs
        .filter(|(at, _)| decides(*at))
        .map(|(_, (a, b))| if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() });
    distances.fold(0.0, |worst, x| if x.is_nan() { f64::INFINITY } else { worst.max(x) })
}

/// Every graph, on every case that it takes, with and without padding, and by every form of mask.
#[test]
fn every_export_is_within_its_bound_of_pytorch_in_f64() {
    let (mut compared, mut wrong) = (0, Vec::new());
    for graph in graphs() {
        let (name, model) = (graph.name(), graph.model());
        let golden = read(families().join(&graph.fixture).join("golden.safetensors"));
        for skip_padding in [false, true] {
            let engine = engine(&model, skip_padding);
            let cases = golden.names().filter_map(|name| name.strip_suffix("/input_ids"));
            for case in cases.filter(|case| !graph.is_static || *case == "static") {
                let value = |name: &str| golden.get(&format!("{case}/{name}")).unwrap();
                let specs = engine.inputs().iter();
                let inputs = specs.map(|spec| (spec.name.clone(), value(&spec.name).clone())).collect();
                let outputs = engine.run(&inputs).unwrap_or_else(|error| panic!("{name} {case}: {error}"));
                for (output, found) in outputs.iter() {
                    let off = distance(found, value(output), value("attention_mask"));
                    if off > graph.bound {
                        wrong
                            .push(format!("{name} {case}, {output}, skipping {skip_padding}: {off:.1e} off"));
                    }
                    compared += 1;
                }
            }
            if engine.general_runs() > 0 {
                println!("{name}: {} runs went the general way", engine.general_runs());
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 1000, "only {compared}");
}

/// Masks of some texts: full, padded on the right, on the left, in the middle, and one that shows
/// nothing.
const MASKS: [fn(usize, usize) -> bool; 5] =
    [|_, _| true, |at, length| at < length / 2 + 1, |at, _| at > 3, |at, _| at % 3 != 1, |_, _| false];

/// What the graph is asked: five texts of some length, padding among their ids, each with a mask of
/// these.
fn texts(engine: &dyn Engine, length: usize, masks: &[fn(usize, usize) -> bool]) -> NamedValues {
    let inputs = engine.inputs().iter().map(|spec| {
        let choices = if spec.shape.as_ref().unwrap().len() == 3 { 2 } else { 1 };
        let element = |at: usize| {
            let (text, at) = (at / length, at % length);
            let seen = masks[text % masks.len()](at, length);
            match &*spec.name {
                "attention_mask" => i64::from(seen),
                "token_type_ids" => 0,
                _ if at * 5 % 7 == 4 => 1,
                _ if !seen => [0, 1, 2, 3, 5][(at + text) % 5],
                _ => 5 + ((at * 7 + text * 11) % 80) as i64,
            }
        };
        let elements: Vec<i64> = (0..5 * choices * length).map(element).collect();
        let shape = if choices == 2 { vec![5, 2, length] } else { vec![5, length] };
        (spec.name.clone(), Value::new(shape, elements).unwrap())
    });
    inputs.collect()
}

/// At every place, padding and texts without a token too, what the oracle makes of the nodes one by
/// one, in f32; skipping padding, at every real token.
#[test]
fn every_export_computes_what_the_oracle_computes() {
    let mut wrong = Vec::new();
    // The stiff ones magnify rounding: they are for f64 to judge.
    let judged = |graph: &&Graph| !graph.is_static && !graph.fixture.ends_with("stiff");
    for graph in graphs().iter().filter(judged) {
        let (name, model) = (graph.name(), graph.model());
        let oracle = Oracle::with(&model, Precision::F32, Limits::default()).unwrap();
        let (whole, skipping) = (engine(&model, false), engine(&model, true));
        for (length, masks) in [(11, &MASKS[..]), (1, &MASKS[..1]), (9, &MASKS[..2]), (17, &MASKS[4..])] {
            let inputs = texts(&whole, length, masks);
            let expected = oracle.run(&inputs).unwrap();
            let mask = inputs.get("attention_mask").unwrap();
            let all = Value::new(mask.shape(), vec![1i64; mask.len()]).unwrap();
            let mut check = |found: NamedValues, decide: &Value, how: &str| {
                for (output, found) in found.iter() {
                    let off = distance(found, expected.get(output).unwrap(), decide);
                    if off > 2.0 * graph.bound {
                        wrong.push(format!("{name}, {length} tokens, {output}, {how}: {off:.1e} off"));
                    }
                }
            };
            check(whole.run(&inputs).unwrap(), &all, "whole");
            let real = if masks.len() == 5 { &all } else { mask };
            check(skipping.run(&inputs).unwrap(), real, "skipping");
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The steps of each fixture's graphs, all of them kernels: 7 for a layer, 8 with a gate, and those
/// of embeddings and head. Where there is a `pooler_output`, two more make it.
const STEPS: [(&str, usize); 46] = [
    ("electra/plain", 16),
    ("electra/stiff", 22),
    ("electra/sequence_classification", 19),
    ("electra/token_classification", 17),
    ("electra/question_answering", 19),
    ("electra/masked_lm", 19),
    ("electra/multiple_choice", 19),
    ("distilbert/plain", 15),
    ("distilbert/stiff", 22),
    ("distilbert/sequence_classification", 18),
    ("distilbert/token_classification", 16),
    ("distilbert/question_answering", 18),
    ("distilbert/masked_lm", 18),
    ("distilbert/multiple_choice", 18),
    ("roberta/plain", 15),
    ("roberta/stiff", 22),
    ("roberta/sequence_classification", 18),
    ("roberta/token_classification", 16),
    ("roberta/question_answering", 18),
    ("roberta/masked_lm", 18),
    ("roberta/multiple_choice", 18),
    ("xlm-roberta/plain", 15),
    ("xlm-roberta/sequence_classification", 18),
    ("xlm-roberta/masked_lm", 18),
    ("camembert/plain", 15),
    ("camembert/token_classification", 16),
    ("mpnet/plain", 15),
    ("mpnet/stiff", 22),
    ("mpnet/sequence_classification", 18),
    ("mpnet/token_classification", 16),
    ("mpnet/question_answering", 18),
    ("mpnet/masked_lm", 18),
    ("mpnet/multiple_choice", 18),
    ("albert/plain", 16),
    ("albert/stiff", 58),
    ("albert/sequence_classification", 19),
    ("albert/token_classification", 17),
    ("albert/question_answering", 26),
    ("albert/masked_lm", 19),
    ("albert/multiple_choice", 19),
    ("modernbert/plain", 17),
    ("modernbert/stiff", 25),
    ("modernbert/sequence_classification", 21),
    ("modernbert/token_classification", 20),
    ("modernbert/question_answering", 30),
    ("modernbert/masked_lm", 20),
];

/// Fixtures of which nodes are left to the oracle's functions, or all: how many steps there are at
/// most, on the worst graph. Distances that meet queries and keys have no kernel, and the mean over
/// a text none.
const IN_PART: [(&str, usize); 10] = [
    ("bert/relative_key", 145),
    ("bert/relative_key_query", 175),
    ("deberta-v2/plain", 69),
    ("deberta-v2/stiff", 160),
    ("deberta-v2/sequence_classification", 67),
    ("deberta-v2/token_classification", 249),
    ("deberta-v2/question_answering", 92),
    ("deberta-v2/masked_lm", 67),
    ("deberta-v2/multiple_choice", 68),
    ("modernbert/sequence_classification_mean", 27),
];

/// Families whose heads are turned before they are split from the tokens, which no kernel does yet:
/// how many steps there are at most, on the worst graph of all fixtures.
const TURNED_BEFORE: [(&str, usize); 2] = [("nomic-bert", 126), ("gte", 108)];

/// Graphs that are not compiled at all.
const FALLBACKS: [&str; 4] = [
    "deberta-v2/plain/ts14-eager-dynamic.onnx",
    "deberta-v2/plain/ts18-eager-dynamic.onnx",
    "deberta-v2/plain/optimum.onnx",
    "deberta-v2/stiff/ts14-eager-dynamic.onnx",
];

#[test]
fn a_layer_takes_few_steps() {
    let mut fallbacks = Vec::new();
    for graph in graphs() {
        let (name, model) = (graph.name(), graph.model());
        let engine = engine(&model, false);
        let summary = engine.summary();
        println!("{name}: {} nodes, {summary}", model.graph.nodes.len());
        if let Some(why) = &summary.fallback {
            assert!(why.contains("has a graph within"), "{name}: {why}");
            fallbacks.push(name);
            continue;
        }
        let wanted = |list: &[(&str, usize)]| {
            list.iter().find(|(fixture, _)| *fixture == graph.fixture).map(|(_, steps)| *steps)
        };
        let family = name.split('/').next().unwrap();
        let in_part = TURNED_BEFORE.iter().find(|(of, _)| *of == family).map(|(_, steps)| *steps);
        if let Some(most) = wanted(&IN_PART).or(in_part) {
            assert!(summary.steps <= most, "{name}: {summary}");
            continue;
        }
        let pools = engine.outputs().iter().any(|output| output.name == "pooler_output");
        let steps = wanted(&STEPS).unwrap();
        assert_eq!(summary.steps, steps + if pools { 2 } else { 0 }, "{name}: {summary}");
        assert!(summary.nodes.is_empty() && summary.can_skip_padding, "{name}: {summary}");
        let attentions = engine.steps().iter().filter(|step| step.op == "Attention*").count();
        assert_eq!(attentions, graph.layers, "{name}");
    }
    assert_eq!(fallbacks, FALLBACKS);
}

/// A text's numbers, bit by bit, do not depend on its company, on padding, or on its absence.
#[test]
fn a_text_has_the_same_bits_in_any_company() {
    let lengths = [9, 1, 5, 7, 3];
    let masks: [fn(usize, usize) -> bool; 5] =
        [|at, _| at < 9, |at, _| at < 1, |at, _| at < 5, |at, _| at < 7, |at, _| at < 3];
    for graph in graphs().iter().filter(|graph| !graph.is_static) {
        let (name, model) = (graph.name(), graph.model());
        let whole = engine(&model, false);
        if !whole.can_skip_padding() {
            continue;
        }
        let inputs = texts(&whole, 11, &masks);
        let expected = whole.run(&inputs).unwrap();
        let skipping = engine(&model, true);
        let found = skipping.run(&inputs).unwrap();
        assert_eq!((whole.general_runs(), skipping.general_runs()), (0, 0), "{name}");
        let by_choices = inputs.iter().any(|(_, value)| value.shape().len() == 3);
        for (output, found) in found.iter() {
            let bits = |value: &Value| -> Vec<u32> {
                let each = value.len() / 5;
                let by_token = value.shape().get(1) == Some(&11);
                let real = |row: usize| if by_token { each / 11 * lengths[row] } else { each };
                let rows = value.as_slice::<f32>().unwrap().chunks(each).enumerate();
                rows.flat_map(|(row, text)| text[..real(row)].iter().map(|x| x.to_bits())).collect()
            };
            assert_eq!(bits(found), bits(expected.get(output).unwrap()), "{name}, {output}");
        }
        if by_choices {
            continue;
        }
        // Each text alone.
        for (row, &length) in lengths.iter().enumerate() {
            let cut = inputs.iter().map(|(name, value)| {
                let all = value.as_slice::<i64>().unwrap();
                (name.to_owned(), Value::new([1, length], &all[row * 11..row * 11 + length]).unwrap())
            });
            let alone = skipping.run(&cut.collect()).unwrap();
            for (output, alone) in alone.iter() {
                let together = expected.get(output).unwrap();
                let each = together.len() / 5;
                let together = &together.as_slice::<f32>().unwrap()[row * each..];
                let alone = alone.as_slice::<f32>().unwrap();
                assert!(
                    alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{name}, {output}, text {row}"
                );
            }
        }
    }
}
