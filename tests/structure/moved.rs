//! Weights that were moved: the same function with other elements in its matrices, and what only
//! looks like it.

use engine::Value;
use onnx_graph::Model;
use parity::Verdict;
use parity::audit::FindingKind;
use parity::proof::Scope;

use super::{Edit, WORDS, judge, rows, subject};
use crate::common::{baseline_graph, change_weight, node, reroute};

/// Two heads of eight features, and twice as many neurons.
const HIDDEN: usize = 16;
const NEURONS: usize = 32;

const LAYER: &str = "/model/encoder/layer.0/";
const ATTENTION: [&str; 3] = ["query", "key", "value"];

/// The matrix that the node of a module multiplies with.
fn matrix(model: &Model, module: &str) -> String {
    let name = format!("{LAYER}{module}/MatMul");
    model.graph.nodes.iter().find(|node| node.name == name).unwrap().inputs[1].clone()
}

fn bias(module: &str) -> String {
    format!("model.encoder.layer.0.{}.bias", module.replace('/', "."))
}

/// The columns of a matrix of `[in, out]`, and the elements of its bias, as `order` says: each with
/// the number that it is multiplied with.
fn columns(model: &mut Model, module: &str, order: &dyn Fn(usize) -> (usize, f32)) {
    for name in [matrix(model, module), bias(module)] {
        change_weight(model, &name, |elements, _| {
            let width = if module.contains("intermediate") { NEURONS } else { HIDDEN };
            let old = elements.to_vec();
            for (at, element) in elements.iter_mut().enumerate() {
                let (from, factor) = order(at % width);
                *element = factor * old[at / width * width + from];
            }
        });
    }
}

/// The rows of a matrix likewise.
fn rows_of(model: &mut Model, module: &str, order: &dyn Fn(usize) -> (usize, f32)) {
    change_weight(model, &matrix(model, module), |elements, _| {
        let old = elements.to_vec();
        for (at, element) in elements.iter_mut().enumerate() {
            let (from, factor) = order(at / HIDDEN);
            *element = factor * old[from * HIDDEN + at % HIDDEN];
        }
    });
}

const SELF: [&str; 3] = ["attention/self/query", "attention/self/key", "attention/self/value"];
const OUTPUT: &str = "attention/output/dense";

fn heads_exchanged() -> Model {
    let mut model = baseline_graph();
    let other = |feature: usize| ((feature + HIDDEN / 2) % HIDDEN, 1.0);
    SELF.iter().for_each(|module| columns(&mut model, module, &other));
    rows_of(&mut model, OUTPUT, &other);
    model
}

fn neurons_reversed() -> Model {
    let mut model = baseline_graph();
    let reversed = |neuron: usize| (NEURONS - 1 - neuron, 1.0);
    columns(&mut model, "intermediate/dense", &reversed);
    rows_of(&mut model, "output/dense", &reversed);
    model
}

fn signs_turned(modules: &[&str]) -> Model {
    let mut model = baseline_graph();
    let turned = |feature: usize| (feature, if feature.is_multiple_of(3) { -1.0 } else { 1.0 });
    modules.iter().for_each(|module| columns(&mut model, module, &turned));
    model
}

fn doubled_and_halved() -> Model {
    let mut model = baseline_graph();
    columns(&mut model, SELF[2], &|feature| (feature, 2.0));
    rows_of(&mut model, OUTPUT, &|feature| (feature, 0.5));
    model
}

/// The names of two biases exchanged; their elements stay in place.
fn names_exchanged() -> Model {
    let mut model = baseline_graph();
    let [one, other] = [bias(SELF[0]), bias(SELF[1])];
    for (old, new) in [(one.as_str(), "third"), (other.as_str(), one.as_str()), ("third", other.as_str())] {
        reroute(&mut model, old, new);
    }
    let held = &mut model.graph.initializers;
    let [first, second] = [held[&one].clone(), held[&other].clone()];
    held.insert(one, second);
    held.insert(other, first);
    model
}

fn bias_of(module: &str, number: f32) -> Model {
    let mut model = baseline_graph();
    change_weight(&mut model, &bias(module), |elements, _| elements.fill(number));
    model
}

/// Query, key and value in one matrix, head by head, which a `Split` takes apart.
fn interleaved() -> Model {
    let model = baseline_graph();
    let head = HIDDEN / 2;
    let held = |name: &str| model.graph.initializers[name].to_value().unwrap();
    let matrices = SELF.map(|module| held(&matrix(&model, module)).as_slice::<f32>().unwrap().to_vec());
    let biases = SELF.map(|module| held(&bias(module)).as_slice::<f32>().unwrap().to_vec());
    let joined = |all: &[Vec<f32>; 3], rows: usize| -> Vec<f32> {
        let parts =
            (0..rows).flat_map(|row| (0..2).flat_map(move |at| (0..3).map(move |part| (row, at, part))));
        let of = |(row, at, part): (usize, usize, usize)| &all[part][row * HIDDEN + at * head..][..head];
        parts.flat_map(|part| of(part).to_vec()).collect()
    };
    let input = {
        let name = format!("{LAYER}{}/MatMul", SELF[0]);
        model.graph.nodes.iter().find(|node| node.name == name).unwrap().inputs[0].clone()
    };
    let list = |numbers: &[i64]| Value::new([numbers.len()], numbers.to_vec()).unwrap();
    let mut nodes = vec![
        node("MatMul", &[&input, "joined"], "product"),
        node("Add", &["product", "joined bias"], "sum"),
        node("Reshape", &["sum", "by head"], "heads"),
        super::with(node("Split", &["heads", "ones"], "of query"), "axis", onnx_graph::Attribute::Int(3)),
    ];
    nodes[3].outputs = ATTENTION.map(|name| format!("of {name}")).to_vec();
    let mut edit = Edit::new(model.clone())
        .constant("joined", Value::new([HIDDEN, 3 * HIDDEN], joined(&matrices, HIDDEN)).unwrap())
        .constant("joined bias", Value::new([3 * HIDDEN], joined(&biases, 1)).unwrap())
        .constant("by head", list(&[0, 0, 2, 3, head as i64]))
        .constant("ones", list(&[1, 1, 1]))
        .constant("third", list(&[3]))
        .constant("flat", list(&[0, 0, HIDDEN as i64]));
    for (name, module) in ATTENTION.iter().zip(SELF) {
        let sum = format!("{LAYER}{module}/Add");
        let old = model.graph.nodes.iter().find(|node| node.name == sum).unwrap().outputs[0].clone();
        nodes.push(node("Squeeze", &[&format!("of {name}"), "third"], &format!("heads of {name}")));
        nodes.push(node("Reshape", &[&format!("heads of {name}"), "flat"], &format!("flat {name}")));
        reroute(&mut edit.0, &old, &format!("flat {name}"));
    }
    let at = edit.0.graph.nodes.iter().position(|node| node.outputs.contains(&input)).unwrap();
    edit.0.graph.nodes.splice(at + 1..at + 1, nodes);
    edit.0.graph.nodes.retain(|node| {
        !SELF
            .iter()
            .any(|module| ["MatMul", "Add"].iter().any(|op| node.name == format!("{LAYER}{module}/{op}")))
    });
    for name in SELF.iter().flat_map(|module| [matrix(&model, module), bias(module)]) {
        edit.0.graph.initializers.shift_remove(&name);
    }
    edit.done()
}

/// The rows of the word table in the opposite order, behind a map of ids.
fn mapped(of_id: impl Fn(usize) -> usize) -> Model {
    let graph = baseline_graph();
    let words = graph.graph.initializers[WORDS].shape[0];
    let reversed = rows(&graph, WORDS, |table, width| {
        *table = table.chunks(width).rev().flatten().copied().collect();
    });
    let map: Vec<i64> = (0..words).map(|id| of_id(words - 1 - id) as i64).collect();
    Edit::new(graph)
        .constant(WORDS, reversed)
        .constant("map", Value::new([words], map).unwrap())
        .before("input_ids", "mapped", vec![node("Gather", &["map", "input_ids"], "mapped")])
        .done()
}

#[test]
fn what_was_moved_passes_and_is_told() {
    let subject = subject("baseline");
    for (what, model) in [
        ("heads", heads_exchanged()),
        ("neurons", neurons_reversed()),
        ("signs", signs_turned(&SELF[..2])),
        ("powers of two", doubled_and_halved()),
        ("names", names_exchanged()),
        ("a key's bias", bias_of(SELF[1], 1.0)),
        ("interleaved", interleaved()),
        ("a map of ids", mapped(|id| id)),
    ] {
        let report = judge(&subject, &model);
        let weights = report.weights.as_ref().unwrap();
        assert_eq!(report.proof.scope, Scope::EveryInput, "{what}: {:?}", report.proof);
        assert!(report.verdict <= Verdict::Rounding, "{what}: {:?}", weights.findings);
        assert!(weights.findings.iter().any(|finding| finding.kind == FindingKind::Moved), "{what}");
        assert!(report.culprits.is_empty(), "{what}: {:?}", report.culprits);
    }
}

#[test]
fn what_only_looks_as_if_it_was_moved_fails() {
    let next = |x: f32| f32::from_bits(x.to_bits() + 1);
    let nudged = |mut model: Model, name: String| {
        change_weight(&mut model, &name, |elements, _| {
            let smallest =
                (0..elements.len()).min_by(|a, b| elements[*a].abs().total_cmp(&elements[*b].abs()));
            let at = smallest.unwrap();
            elements[at] = next(elements[at]);
        });
        model
    };
    let subject = subject("baseline");
    let mut heads = heads_exchanged();
    // Exchanged back in the value alone.
    columns(&mut heads, SELF[2], &|feature| ((feature + HIDDEN / 2) % HIDDEN, 1.0));
    let mut neurons = neurons_reversed();
    rows_of(&mut neurons, "output/dense", &|neuron| (neuron ^ 1, 1.0));
    let one_last_digit = neurons_reversed();
    let name = matrix(&one_last_digit, "output/dense");
    for (what, model) in [
        ("heads", heads),
        ("neurons", neurons),
        // The smallest element is too small for the outputs to tell.
        ("a last digit", nudged(one_last_digit, name)),
        ("signs", signs_turned(&SELF[..1])),
        ("a query's bias", bias_of(SELF[0], 0.0)),
        ("a value's bias", bias_of(SELF[2], 0.0)),
        ("a map of ids", mapped(|id| if id == 40 { 41 } else { id })),
    ] {
        let report = judge(&subject, &model);
        assert_eq!(report.verdict, Verdict::Fail, "{what}: {:?}", report.proof);
    }
}
