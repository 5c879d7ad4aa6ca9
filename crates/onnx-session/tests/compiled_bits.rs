//! What must not change a single bit of a result on the engine `compiled`: threads, neighbours, order, padding, skipping it, other runs at the same time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::path::Path;
use std::thread;

use engine::{Engine, NamedValues, Value};
use onnx_graph::Model;
use onnx_session::compiled::{CompiledEngine, Options, Threads};

const VOCABULARY: i64 = 48;

/// The plain case, the one that magnifies rounding, and the one with odd sizes: each by both of torch's exporters.
const GRAPHS: [&str; 4] = [
    "baseline/onnx/ts17-eager-dynamic.onnx",
    "baseline/onnx/dynamo20-sdpa-dynamic.onnx",
    "stiff/onnx/ts17-eager-dynamic.onnx",
    "odd/onnx/ts17-sdpa-dynamic.onnx",
];

fn model(graph: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(graph)).unwrap()
}

fn engine(model: &Model, threads: usize, skip_padding: bool) -> CompiledEngine {
    let options = Options { threads: Threads::Count(threads), skip_padding, ..Options::default() };
    CompiledEngine::new(model, options).unwrap()
}

/// A text's tokens: as many as asked for, always the same for the same seed.
fn text(seed: usize, length: usize) -> Vec<i64> {
    (0..length).map(|at| ((seed * 31 + at * 7 + at * at * seed) as i64) % (VOCABULARY - 10) + 5).collect()
}

/// Texts as one batch, each with its tokens first, padded to `width`.
fn batch(engine: &CompiledEngine, texts: &[Vec<i64>], width: usize) -> NamedValues {
    let shape = [texts.len(), width];
    let rows = |f: &dyn Fn(&[i64], usize) -> i64| {
        let elements = texts.iter().flat_map(|text| (0..width).map(|at| f(text, at))).collect::<Vec<_>>();
        Value::new(shape, elements).unwrap()
    };
    let all = NamedValues::from_iter([
        ("input_ids", rows(&|text, at| text.get(at).copied().unwrap_or(0))),
        ("attention_mask", rows(&|text, at| i64::from(at < text.len()))),
        ("token_type_ids", rows(&|text, at| i64::from(at > 2 && at < text.len()))),
    ]);
    engine.inputs().iter().map(|spec| (spec.name.clone(), all.get(&spec.name).unwrap().clone())).collect()
}

/// The bits of every real row of each text, one list a text.
fn bits(outputs: &NamedValues, texts: &[Vec<i64>]) -> Vec<Vec<u32>> {
    texts
        .iter()
        .enumerate()
        .map(|(row, text)| {
            let mut bits = Vec::new();
            for (_, value) in outputs.iter() {
                let data = value.as_slice::<f32>().unwrap();
                let each = data.len() / texts.len();
                let real = match value.shape() {
                    [_, length, _] => each / length * text.len(),
                    _ => each,
                };
                bits.extend(data[row * each..row * each + real].iter().map(|x| x.to_bits()));
            }
            bits
        })
        .collect()
}

fn texts() -> Vec<Vec<i64>> {
    [9, 1, 5, 9, 2, 7, 3].iter().enumerate().map(|(seed, &length)| text(seed + 1, length)).collect()
}

#[test]
fn a_text_has_the_same_bits_in_any_company() {
    for graph in GRAPHS {
        let model = model(graph);
        let texts = texts();
        let alone: Vec<Vec<u32>> = {
            let engine = engine(&model, 1, false);
            let run = |text: &Vec<i64>| {
                let one = std::slice::from_ref(text);
                bits(&engine.run(&batch(&engine, one, text.len())).unwrap(), one).remove(0)
            };
            texts.iter().map(run).collect()
        };
        for threads in [1, 2, 4] {
            for skip in [false, true] {
                let engine = engine(&model, threads, skip);
                assert!(engine.can_skip_padding(), "{graph}");
                for width in [9, 11] {
                    let together = bits(&engine.run(&batch(&engine, &texts, width)).unwrap(), &texts);
                    assert_eq!(together, alone, "{graph}: {threads} threads, {width} wide, skipping: {skip}");
                }
                let mut turned = texts.clone();
                turned.rotate_left(3);
                turned.swap(0, 2);
                let together = bits(&engine.run(&batch(&engine, &turned, 10)).unwrap(), &turned);
                for (text, found) in turned.iter().zip(&together) {
                    let place = texts.iter().position(|other| other == text).unwrap();
                    assert_eq!(found, &alone[place], "{graph}: {threads} threads, turned, skipping: {skip}");
                }
                assert_eq!(engine.general_runs(), 0);
            }
        }
    }
}

#[test]
fn skipped_positions_are_zero_and_others_are_not() {
    let model = model(GRAPHS[0]);
    let texts = texts();
    for skip in [false, true] {
        let engine = engine(&model, 2, skip);
        // A second run finds the buffers of the first.
        for _ in 0..2 {
            let outputs = engine.run(&batch(&engine, &texts, 11)).unwrap();
            let hidden = outputs.get("last_hidden_state").unwrap();
            let width = hidden.shape()[2];
            for (row, states) in hidden.as_slice::<f32>().unwrap().chunks(11 * width).enumerate() {
                let padding = &states[texts[row].len() * width..];
                assert_eq!(padding.iter().all(|x| *x == 0.0), skip);
                assert!(states[..texts[row].len() * width].iter().all(|x| *x != 0.0));
            }
        }
    }
}

#[test]
fn what_cannot_be_skipped_is_run_with_its_padding() {
    let model = model(GRAPHS[0]);
    let (plain, skipping) = (engine(&model, 2, false), engine(&model, 2, true));
    // Padding on the left, a hole, a row without any token, beside a row that could be skipped.
    for mask in [[0i64, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]] {
        let texts = [text(1, 4), text(2, 2)];
        let mut inputs = batch(&plain, &texts, 4);
        let rows = [&mask[..], &[1, 1, 0, 0]].concat();
        inputs.insert("attention_mask", Value::new([2, 4], rows).unwrap());
        let (a, b) = (plain.run(&inputs).unwrap(), skipping.run(&inputs).unwrap());
        assert_eq!(a, b, "{mask:?}");
        let hidden = b.get("last_hidden_state").unwrap().as_slice::<f32>().unwrap();
        assert!(hidden.iter().all(|x| *x != 0.0));
    }
}

#[test]
fn many_threads_may_run_one_session() {
    let model = model(GRAPHS[0]);
    for skip in [false, true] {
        let engine = engine(&model, 2, skip);
        let texts = texts();
        let expected = engine.run(&batch(&engine, &texts, 9)).unwrap();
        thread::scope(|scope| {
            for own in 0..4 {
                let (engine, texts, expected) = (&engine, &texts, &expected);
                scope.spawn(move || {
                    for round in 0..20 {
                        // Each with its own shapes in between.
                        let other = [text(own + round, 1 + (own + round) % 9)];
                        let inputs = batch(engine, &other, other[0].len() + own);
                        assert_eq!(bits(&engine.run(&inputs).unwrap(), &other).len(), 1);
                        assert_eq!(&engine.run(&batch(engine, texts, 9)).unwrap(), expected);
                    }
                });
            }
        });
    }
}

#[test]
fn a_pool_may_be_shared() {
    let model = model(GRAPHS[0]);
    let pool = std::sync::Arc::new(onnx_session::compiled::Pool::new(2).unwrap());
    let open = || {
        let options = Options { threads: Threads::Pool(std::sync::Arc::clone(&pool)), ..Options::default() };
        CompiledEngine::new(&model, options).unwrap()
    };
    let (a, b) = (open(), open());
    let inputs = batch(&a, &texts(), 9);
    assert_eq!(a.run(&inputs).unwrap(), b.run(&inputs).unwrap());
}

#[test]
fn values_in_between_can_be_asked_for() {
    for graph in GRAPHS {
        let model = model(graph);
        let engine = engine(&model, 2, false);
        let oracle =
            onnx_eval::Oracle::with(&model, onnx_eval::Precision::F32, onnx_eval::Limits::default()).unwrap();
        let inputs = batch(&engine, &texts(), 9);
        let names: Vec<&str> = oracle.values().collect();
        let expected = oracle.run_for(&inputs, &names).unwrap();
        let all = engine.run_for(&inputs, &names).unwrap();
        assert_eq!(all.len(), names.len());
        for (name, expected) in expected.iter() {
            let found = all.get(name).unwrap();
            assert_eq!((found.shape(), found.dtype()), (expected.shape(), expected.dtype()), "{name}");
            let expected = expected.to_f64();
            let largest =
                expected.iter().filter(|x| x.abs() < 1e30).fold(1.0f64, |most, x| most.max(x.abs()));
            for (a, b) in found.to_f64().iter().zip(&expected) {
                // As far as f32 is from f64 on these fixtures, which tests/fixtures/README.md has: 7.0e-5 on `stiff`, times two for another order.
                assert!(a == b || (a - b).abs() <= 1.4e-4 * largest, "{graph}: {name}: {a} instead of {b}");
            }
        }
        // One value alone is computed by the steps that fuse all others.
        let one = engine.run_for(&inputs, &names[names.len() - 1..]).unwrap();
        assert_eq!(one.len(), 1);
        assert!(
            engine
                .run_for(&inputs, &["nothing"])
                .unwrap_err()
                .to_string()
                .contains("no value named 'nothing'")
        );
        assert_eq!(engine.general_runs(), 0);
    }
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let model = model(GRAPHS[0]);
    let engine = engine(&model, 2, false);
    let good = batch(&engine, &texts(), 9);
    let mut missing = good.clone();
    missing.remove("attention_mask");
    assert!(engine.run(&missing).unwrap_err().to_string().contains("input 'attention_mask' is missing"));
    let mut other = good.clone();
    other.insert("attention_mask", Value::new([1, 9], vec![1i64; 9]).unwrap());
    assert!(engine.run(&other).unwrap_err().to_string().contains("inputs disagree about 'batch'"));
    let mut ids = good.clone();
    ids.insert("input_ids", Value::new([7, 9], vec![VOCABULARY; 63]).unwrap());
    assert!(engine.run(&ids).unwrap_err().to_string().contains("index 48 is outside an axis of size 48"));
    let empty = Value::new([0, 9], Vec::<i64>::new()).unwrap();
    let none = good.names().map(|name| (name.to_string(), empty.clone())).collect();
    // The graph itself cannot tell the shape of nothing.
    assert!(engine.run(&none).unwrap_err().to_string().contains("Reshape"));
}
