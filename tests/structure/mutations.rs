//! Graphs that are changed at random, one thing at a time: what is still proven for every input is
//! the model.

use engine::{Engine as _, NamedValues, Value};
use onnx_graph::{Attribute, Model, Tensor};
use parity::inputs::fit_inputs;
use parity::proof::{Scope, exact_graph};
use parity::{References, Subject};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{judge, subject};
use crate::common::{distance, in_fixture};

/// Changes one thing of a graph at random; what comes out may be the same function.
fn mutated(graph: &Model, rng: &mut ChaCha8Rng) -> Option<Model> {
    let mut model = graph.clone();
    let nodes = &mut model.graph.nodes;
    let at = rng.random_range(0..nodes.len());
    let before: Vec<String> = nodes[..at].iter().flat_map(|node| node.outputs.clone()).collect();
    match rng.random_range(0..8) {
        // Another operand.
        0 | 1 => {
            let count = nodes[at].inputs.len().max(1);
            let operand = nodes[at].inputs.get_mut(rng.random_range(0..count))?;
            *operand = before.get(rng.random_range(0..before.len().max(1)))?.clone();
        }
        // Two operands exchanged.
        2 => {
            let inputs = &mut nodes[at].inputs;
            (inputs.len() > 1).then(|| inputs.swap(0, 1))?;
        }
        // Another operator.
        3 => {
            let others =
                ["Add", "Sub", "Mul", "Div", "Max", "Min", "Neg", "Identity", "Sqrt", "Tanh", "Erf", "Abs"];
            nodes[at].op = others[rng.random_range(0..others.len())].into();
        }
        // Another number in an attribute.
        4 | 5 => {
            let count = nodes[at].attributes.len();
            let (_, attribute) = nodes[at].attributes.iter_mut().nth(rng.random_range(0..count.max(1)))?;
            match attribute {
                Attribute::Int(number) => *number += rng.random_range(-1..=1),
                Attribute::Ints(list) if list.len() > 1 => list.swap(0, 1),
                Attribute::Float(number) => *number *= 1.5,
                Attribute::Tensor(tensor) => *tensor = nudged(tensor, rng)?,
                _ => return None,
            }
        }
        // Another element of an initializer.
        _ => {
            let count = model.graph.initializers.len();
            let (_, tensor) = model.graph.initializers.get_index_mut(rng.random_range(0..count))?;
            *tensor = nudged(tensor, rng)?;
        }
    }
    model.check().ok()?;
    Some(model)
}

/// A tensor with another element.
fn nudged(tensor: &Tensor, rng: &mut ChaCha8Rng) -> Option<Tensor> {
    let value = tensor.to_value().ok()?;
    let at = rng.random_range(0..value.len().max(1));
    let changed = if let Ok(elements) = value.as_slice::<i64>() {
        let mut elements = elements.to_vec();
        let element = elements.get_mut(at)?;
        *element = element.wrapping_add(rng.random_range(-1..=1));
        Value::new(value.shape(), elements).ok()?
    } else {
        let mut elements = value.as_slice::<f32>().ok()?.to_vec();
        *elements.get_mut(at)? *= [1.5, 0.0, -1.0, 1.0 + 1e-5][rng.random_range(0..4)];
        Value::new(value.shape(), elements).ok()?
    };
    Some(Tensor::from_value(&changed))
}

/// Random inputs of every shape and mask that a graph takes.
fn random_inputs(subject: &Subject, rng: &mut ChaCha8Rng) -> NamedValues {
    let limits = subject.limits();
    let shape = [rng.random_range(1..=9), rng.random_range(1..=limits.positions)];
    let mut value = |draw: &mut dyn FnMut(&mut ChaCha8Rng, usize) -> i64| {
        let elements: Vec<i64> = (0..shape[0] * shape[1]).map(|at| draw(rng, at)).collect();
        Value::new(shape, elements).unwrap()
    };
    NamedValues::from_iter([
        ("input_ids", value(&mut |rng, _| rng.random_range(0..limits.vocabulary as i64))),
        // The first token of each row is real.
        ("attention_mask", value(&mut |rng, at| i64::from(at % shape[1] == 0 || rng.random_bool(0.7)))),
        ("token_type_ids", value(&mut |rng, _| rng.random_range(0..limits.token_types as i64))),
    ])
}

/// What is proven for every input of mutated graphs is the model on random inputs. Gives how many
/// graphs were changed, and how many of them are proven.
fn mutations(fixture: &str, file: &str, seeds: std::ops::Range<u64>) -> (usize, usize) {
    /// How many inputs each is tried on.
    const INPUTS: usize = 200;
    let subject = subject(fixture);
    let references = References::load(&subject).unwrap();
    let graph = Model::open(in_fixture(fixture, file)).unwrap();
    let (mut changed, mut proven) = (0, 0);
    for seed in seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let Some(model) = mutated(&graph, &mut rng).filter(|model| *model != graph) else { continue };
        let Ok((oracle, _)) = exact_graph(&model, subject.program()) else { continue };
        changed += 1;
        let report = judge(&subject, &model);
        if report.proof.scope != Scope::EveryInput {
            continue;
        }
        proven += 1;
        for _ in 0..INPUTS {
            let inputs = random_inputs(&subject, &mut rng);
            let truth = references.double.engine.run(&inputs).unwrap();
            let found = oracle.run(&fit_inputs(&inputs, oracle.inputs()).unwrap()).unwrap();
            for spec in oracle.outputs() {
                let (found, truth) = (found.get(&spec.name).unwrap(), truth.get(&spec.name).unwrap());
                let mask = inputs.get("attention_mask").filter(|_| truth.shape().len() == 3);
                let (off, largest) = distance(found, truth, mask);
                assert!(
                    off <= 1e-9 * largest.max(1.0),
                    "seed {seed} of {file}: {off:e} off in {}",
                    spec.name
                );
            }
        }
    }
    (changed, proven)
}

#[test]
fn what_is_proven_of_mutated_graphs_is_so() {
    let mut all = (0, 0);
    for (fixture, file, seeds) in [
        ("baseline", "onnx/ts14-eager-dynamic.onnx", 0..70),
        ("baseline", "onnx/dynamo20-sdpa-dynamic.onnx", 70..140),
    ] {
        let (changed, proven) = mutations(fixture, file, seeds);
        all = (all.0 + changed, all.1 + proven);
    }
    println!("{} graphs were changed, of which {} are proven for every input", all.0, all.1);
    assert!(all.0 > 60 && all.1 > 0, "{all:?}");
}

/// The long run of that; `MUTATIONS` says how many of each graph.
#[test]
#[ignore = "takes hours"]
fn what_is_proven_of_many_mutated_graphs_is_so() {
    let count: u64 = std::env::var("MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000);
    for (fixture, file) in [
        ("baseline", "onnx/ts14-eager-dynamic.onnx"),
        ("baseline", "onnx/dynamo20-sdpa-dynamic.onnx"),
        ("baseline", "onnx/dynamo23-eager-dynamic.onnx"),
        ("types1", "onnx/ts17-sdpa-dynamic.onnx"),
    ] {
        let (changed, proven) = mutations(fixture, file, 1_000..1_000 + count);
        println!(
            "{fixture}/{file}: {changed} graphs were changed, of which {proven} are proven for every input"
        );
    }
}
