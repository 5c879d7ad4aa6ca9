//! Values that a fused kernel must not take for usual ones, each on a small graph of its own or on
//! an export: what the engines `compiled` and `candle` give is what the oracle gives, node by node.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[path = "differential/sketch.rs"]
#[expect(dead_code, reason = "the test of random graphs needs more of it")]
mod sketch;

use std::path::Path;

use engine::{DType, Dim, Engine, NamedValues, Value};
use onnx_eval::{Limits, Oracle, Precision};
use onnx_graph::shape::Size as _;
use onnx_graph::{Attribute, Model};
use onnx_session::compiled::{CompiledEngine, Known, Options, Threads};
use onnx_session::{EngineKind, Session};
use sketch::{Random, Sketch};

/// Of numbers up to 10, a dozen operations in f32 one after the other.
const REACH: f64 = 1e-5;
const HIDDEN: usize = 8;

fn compiled(model: &Model) -> CompiledEngine {
    CompiledEngine::new(model, Options { threads: Threads::Count(2), ..Options::default() }).unwrap()
}

fn oracle(model: &Model) -> Oracle {
    Oracle::with(model, Precision::F32, Limits::default()).unwrap()
}

fn assert_alike(found: &NamedValues, expected: &NamedValues) {
    for (name, expected) in expected.iter() {
        let found = found.get(name).unwrap();
        assert_eq!(found.shape(), expected.shape());
        for (a, b) in found.to_f64().iter().zip(expected.to_f64()) {
            assert!((a - b).abs() <= REACH || (a.is_nan() && b.is_nan()), "{name}: {a}, not {b}");
        }
    }
}

/// The engine's outputs, which are the oracle's, and how many runs were the oracle's.
fn check(model: &Model, inputs: &NamedValues) -> usize {
    let (engine, expected) = (compiled(model), oracle(model).run(inputs).unwrap());
    assert_alike(&engine.run(inputs).unwrap(), &expected);
    if let Ok(candle) = Session::new(model, EngineKind::Candle) {
        assert_alike(&candle.run(inputs).unwrap(), &expected);
    }
    engine.general_runs()
}

fn ops(model: &Model) -> Vec<String> {
    compiled(model).steps().into_iter().map(|step| step.op).collect()
}

fn dims() -> [Dim; 2] {
    [Dim::Symbol("batch".into()), Dim::Symbol("sequence".into())]
}

fn ints(shape: [usize; 2], numbers: &[i64]) -> Value {
    Value::new(shape, numbers.to_vec()).unwrap()
}

fn norm(sketch: &mut Sketch, x: &str) -> String {
    let (gamma, beta) = (sketch.weights(&[HIDDEN], 1.0), sketch.weights(&[HIDDEN], 1.0));
    sketch.node("LayerNormalization", &[x, &gamma, &beta], &[])
}

/// Ids of three bytes, through a cast, in 300 rows. Words, and positions that are a slice of a
/// list, are looked up by what comes of it, in one step.
#[test]
fn a_cast_before_a_lookup_is_computed() {
    let narrow = [DType::U8, DType::I8, DType::Bool, DType::I16, DType::I32, DType::U32, DType::U64];
    for (to, positions) in narrow.iter().flat_map(|&to| [false, true].map(|positions| (to, positions))) {
        let mut sketch = Sketch::new(17, Random::new(1));
        let ids = sketch.input("ids", DType::I64, &dims());
        let table = sketch.weights(&[300, HIDDEN], 1.0);
        let cast = |sketch: &mut Sketch, ids: &str| {
            let narrow = sketch.cast(ids, to);
            sketch.cast(&narrow, DType::I64)
        };
        let words = if positions { ids.clone() } else { cast(&mut sketch, &ids) };
        let mut x = sketch.gather(&table, &words, 0);
        if positions {
            let list = sketch.constant(Value::new([1, 50], (250..300i64).collect::<Vec<_>>()).unwrap());
            let shape = sketch.op("Shape", &[&ids]);
            let (zero, one) = (sketch.ints(&[0]), sketch.ints(&[1]));
            let length = sketch.gather(&shape, &one, 0);
            let slice = sketch.op("Slice", &[&list, &zero, &length, &one]);
            let slice = cast(&mut sketch, &slice);
            let rows = sketch.gather(&table, &slice, 0);
            x = sketch.op("Add", &[&x, &rows]);
        }
        let y = norm(&mut sketch, &x);
        sketch.output(&y);
        assert_eq!(ops(&sketch.model), ["Embeddings*"], "{to}");
        let ids = ints([2, 9], &[0, 299, 256, 257, 255, 128, 127, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(check(&sketch.model, &NamedValues::from_iter([("ids", ids)])), 0, "{to}");
        // What a cast brings back into the table is in it, and what it does not is an error.
        let far = NamedValues::from_iter([("ids", ints([1, 2], &[(1 << 32) + 7, 1]))]);
        let (found, expected) = (compiled(&sketch.model).run(&far), oracle(&sketch.model).run(&far));
        assert_eq!(found.is_ok(), expected.is_ok(), "{to}");
        if let (Ok(found), Ok(expected)) = (found, expected) {
            assert_alike(&found, &expected);
        }
    }
}

/// A cast to a float is no cast of ids: 2²⁴ + 1 is even there.
#[test]
fn ids_through_a_float_are_what_it_holds() {
    let mut sketch = Sketch::new(17, Random::new(1));
    let ids = sketch.input("ids", DType::I64, &dims());
    let half = sketch.cast(&ids, DType::F16);
    let back = sketch.cast(&half, DType::I64);
    let table = sketch.weights(&[3000, HIDDEN], 1.0);
    let x = sketch.gather(&table, &back, 0);
    let y = norm(&mut sketch, &x);
    sketch.output(&y);
    check(&sketch.model, &NamedValues::from_iter([("ids", ints([1, 4], &[2047, 2048, 2049, 2051]))]));
}

/// Rows added by their place in the batch are no positions, though as many.
#[test]
fn rows_along_the_batch_are_no_positions() {
    let mut sketch = Sketch::new(17, Random::new(1));
    let ids = sketch.input("ids", DType::I64, &[Dim::Fixed(4), Dim::Fixed(4)]);
    let (table, rows) = (sketch.weights(&[9, HIDDEN], 1.0), sketch.weights(&[4, 1, HIDDEN], 1.0));
    let x = sketch.gather(&table, &ids, 0);
    let x = sketch.op("Add", &[&x, &rows]);
    let y = norm(&mut sketch, &x);
    sketch.output(&y);
    check(&sketch.model, &NamedValues::from_iter([("ids", ints([4, 4], &[1; 16]))]));
}

/// An attention of given queries, keys and values with a mask.
fn attention(
    opset: i64,
    width: usize,
    added: impl FnOnce(&mut Sketch, &str, &str) -> String,
) -> (Model, impl Fn(f32, f32, &[i64]) -> NamedValues) {
    let mut sketch = Sketch::new(opset, Random::new(5));
    let [batch, sequence] = dims();
    let rows = [batch, sequence, Dim::Fixed(width)];
    let parts = ["q", "k", "v"].map(|name| sketch.input(name, DType::F32, &rows));
    let mask = sketch.input("mask", DType::I64, &dims());
    let split = |sketch: &mut Sketch, x: &str, perm: &[i64]| {
        let shape = sketch.ints(&[0, 0, 2, width as i64 / 2]);
        let x = sketch.op("Reshape", &[x, &shape]);
        sketch.transpose(&x, perm)
    };
    let bits = sketch.unsqueeze(&mask, &[1, 2]);
    let v = split(&mut sketch, &parts[2], &[0, 2, 1, 3]);
    let q = split(&mut sketch, &parts[0], &[0, 2, 1, 3]);
    let context = if opset < 23 {
        let k = split(&mut sketch, &parts[1], &[0, 2, 3, 1]);
        let scores = sketch.op("MatMul", &[&q, &k]);
        let scores = sketch.with_number("Mul", &scores, 0.5);
        let scores = added(&mut sketch, &scores, &bits);
        let weights = sketch.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
        sketch.op("MatMul", &[&weights, &v])
    } else {
        let k = split(&mut sketch, &parts[1], &[0, 2, 1, 3]);
        let mask = added(&mut sketch, "", &bits);
        sketch.op("Attention", &[&q, &k, &v, &mask])
    };
    let joined = sketch.transpose(&context, &[0, 2, 1, 3]);
    let shape = sketch.ints(&[0, 0, width as i64]);
    let y = sketch.op("Reshape", &[&joined, &shape]);
    sketch.output(&y);
    let inputs = move |large: f32, hidden_key: f32, mask: &[i64]| {
        let (batch, length) = (mask.len() / 5, 5);
        let mut random = Random::new(9);
        let mut numbers = |size: f32| -> Vec<f32> {
            // Whole numbers, so that scores are exact in f32 and no two orders of additions differ.
            (0..batch * length * width).map(|_| (random.number() * 8.0).round() * size / 8.0).collect()
        };
        let (q, mut k, v) = (numbers(large), numbers(large), numbers(1.0));
        for (row, &bit) in k.chunks_mut(width).zip(mask) {
            row.iter_mut().filter(|_| bit == 0).for_each(|x| *x *= hidden_key);
        }
        let rows = |numbers| Value::new([batch, length, width], numbers).unwrap();
        let mask = ints([batch, length], mask);
        NamedValues::from_iter([("q", rows(q)), ("k", rows(k)), ("v", rows(v)), ("mask", mask)])
    };
    (sketch.model, inputs)
}

/// (1 − m) · `least`, added.
fn with_mask(least: f32) -> impl FnOnce(&mut Sketch, &str, &str) -> String {
    move |sketch, scores, bits| {
        let numbers = sketch.cast(bits, DType::F32);
        let one = sketch.number(1.0);
        let rest = sketch.op("Sub", &[&one, &numbers]);
        let added = sketch.with_number("Mul", &rest, least);
        if scores.is_empty() { added } else { sketch.op("Add", &[scores, &added]) }
    }
}

/// `least` in the place of the scores of masked keys.
fn replaced(least: f32) -> impl FnOnce(&mut Sketch, &str, &str) -> String {
    move |sketch, scores, bits| {
        let seen = sketch.cast(bits, DType::Bool);
        let (hidden, least) = (sketch.op("Not", &[&seen]), sketch.number(least));
        sketch.op("Where", &[&hidden, &least, scores])
    }
}

/// One row without a token among others, and all.
const EMPTY: [&[i64]; 3] =
    [&[1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1]];

#[test]
fn a_row_without_a_token_is_what_the_nodes_make_of_it() {
    for least in [f32::MIN, -1e9, -10_000.0, -2.0] {
        let (model, inputs) = attention(17, 8, with_mask(least));
        assert_eq!(ops(&model), ["Attention*"]);
        for mask in EMPTY {
            for large in [1.0, 1024.0] {
                assert_eq!(check(&model, &inputs(large, 1.0, mask)), 0, "{least}");
            }
        }
    }
    for least in [f32::MIN, f32::NEG_INFINITY] {
        let (model, inputs) = attention(17, 8, replaced(least));
        assert_eq!(ops(&model), ["Attention*"]);
        for mask in EMPTY {
            // A row of −∞ alone is NaN, and goes the general way to be so.
            assert_eq!(check(&model, &inputs(1.0, 1.0, mask)), usize::from(least == f32::NEG_INFINITY));
        }
    }
}

/// The exports of torch, on a mask that has a row of zeros.
#[test]
fn an_export_without_a_token_is_what_its_nodes_make_of_it() {
    for graph in ["baseline/onnx/ts17-eager-dynamic.onnx", "baseline/onnx/dynamo20-sdpa-dynamic.onnx"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(graph);
        let model = Model::open(path).unwrap();
        let inputs = NamedValues::from_iter([
            ("input_ids", ints([2, 4], &[2, 17, 23, 3, 2, 31, 3, 0])),
            ("attention_mask", ints([2, 4], &[0, 0, 0, 0, 1, 1, 1, 0])),
            ("token_type_ids", ints([2, 4], &[0; 8])),
        ]);
        check(&model, &inputs);
    }
}

/// Scores of up to 10¹², all of them exact.
#[test]
fn large_scores_stay_finite() {
    for mask in [&[1, 1, 1, 1, 1][..], &[1, 1, 1, 0, 0], &[1, 0, 1, 0, 1]] {
        for large in [1e3f32, 262_144.0, 1_048_576.0] {
            let (model, inputs) = attention(17, 8, with_mask(f32::MIN));
            let given = inputs(large, 1.0, mask);
            let y = compiled(&model).run(&given).unwrap();
            assert!(y.iter().all(|(_, y)| y.to_f64().iter().all(|y| y.is_finite())), "{large}");
            assert_eq!(check(&model, &given), 0);
        }
    }
}

/// −10,000 does not hide a key whose score is higher by more, nor any number one that is infinite
/// or NaN: such keys are computed, padding or not.
#[test]
fn a_mask_hides_only_what_it_can() {
    for least in [-10_000.0, f32::MIN] {
        let (model, inputs) = attention(17, 8, with_mask(least));
        for (large, hidden_key) in
            [(1.0, 1.0), (64.0, 16.0), (128.0, 64.0), (1024.0, 1.0), (1.0, f32::INFINITY), (1.0, f32::NAN)]
        {
            check(&model, &inputs(large, hidden_key, &[1, 1, 1, 0, 0, 1, 1, 1, 1, 1]));
        }
    }
}

/// ONNX's own operator: zeros for a query whose keys are all masked by −∞, and the mean of the
/// values for f32's least number, which is none.
#[test]
fn a_query_that_may_look_nowhere_gives_zeros() {
    let bools = |sketch: &mut Sketch, _: &str, bits: &str| sketch.cast(bits, DType::Bool);
    let infinite = |sketch: &mut Sketch, _: &str, bits: &str| {
        let seen = sketch.cast(bits, DType::Bool);
        let (zero, least) = (sketch.number(0.0), sketch.number(f32::NEG_INFINITY));
        sketch.op("Where", &[&seen, &zero, &least])
    };
    let (zeros, mean) = (attention(23, 8, infinite), attention(23, 8, with_mask(f32::MIN)));
    let by_bools = attention(23, 8, bools);
    for mask in EMPTY {
        check(&by_bools.0, &by_bools.1(1.0, 1.0, mask));
        check(&zeros.0, &zeros.1(1.0, 1.0, mask));
        check(&mean.0, &mean.1(1.0, 1.0, mask));
    }
    let y = compiled(&zeros.0).run(&zeros.1(1.0, 1.0, EMPTY[1])).unwrap();
    assert!(y.iter().all(|(_, y)| y.to_f64().iter().all(|&y| y == 0.0)));
    let inputs = mean.1(1.0, 1.0, EMPTY[1]);
    let (y, v) = (compiled(&mean.0).run(&inputs).unwrap(), inputs.get("v").unwrap().to_f64());
    let y = y.iter().next().unwrap().1.to_f64();
    for (place, y) in y.iter().enumerate() {
        let all: f64 = (0..5).map(|row| v[row * 8 + place % 8]).sum();
        assert!((y - all / 5.0).abs() <= REACH);
    }
}

/// Where squares overflow, or their sum, the nodes' own order decides.
#[test]
fn rows_whose_variance_overflows_go_the_general_way() {
    for (as_chain, large) in [(false, 3e19), (true, 3e19), (true, 1e25), (false, 3e38)] {
        let mut sketch = Sketch::new(17, Random::new(1));
        let [batch, sequence] = dims();
        let x = sketch.input("x", DType::F32, &[batch, sequence, Dim::Fixed(HIDDEN)]);
        let y = if as_chain {
            let mean = sketch.mean(&x);
            let difference = sketch.op("Sub", &[&x, &mean]);
            let squares = sketch.op("Mul", &[&difference, &difference]);
            let variance = sketch.mean(&squares);
            let moved = sketch.with_number("Add", &variance, 1e-12);
            let deviation = sketch.op("Sqrt", &[&moved]);
            let quotient = sketch.op("Div", &[&difference, &deviation]);
            let (gamma, beta) = (sketch.weights(&[HIDDEN], 1.0), sketch.weights(&[HIDDEN], 1.0));
            let scaled = sketch.op("Mul", &[&quotient, &gamma]);
            sketch.op("Add", &[&scaled, &beta])
        } else {
            norm(&mut sketch, &x)
        };
        sketch.output(&y);
        assert_eq!(ops(&sketch.model), ["LayerNorm*"]);
        let engine = compiled(&sketch.model);
        for (size, general) in [(1.0, 0), (large, 1)] {
            let mut random = Random::new(3);
            let numbers: Vec<f32> = (0..3 * HIDDEN).map(|_| random.number() * size).collect();
            let inputs = NamedValues::from_iter([("x", Value::new([1, 3, HIDDEN], numbers).unwrap())]);
            let expected = oracle(&sketch.model).run(&inputs).unwrap();
            assert_alike(&engine.run(&inputs).unwrap(), &expected);
            assert_eq!(engine.general_runs(), general, "{size}");
        }
    }
}

/// An axis that is not 1 in a run is an error there, not a shape.
#[test]
fn an_axis_is_squeezed_only_if_it_is_one() {
    let mut sketch = Sketch::new(17, Random::new(1));
    let [batch, sequence] = dims();
    let x = sketch.input("x", DType::F32, &[batch, sequence, Dim::Fixed(HIDDEN)]);
    let axes = sketch.ints(&[0]);
    let squeezed = sketch.op("Squeeze", &[&x, &axes]);
    let y = sketch.op("Tanh", &[&squeezed]);
    sketch.output(&y);
    let engine = compiled(&sketch.model);
    for (batch, fits) in [(1, true), (2, false)] {
        let x = Value::new([batch, 3, HIDDEN], vec![0.5f32; batch * 3 * HIDDEN]).unwrap();
        let found = engine.run(&NamedValues::from_iter([("x", x)]));
        assert_eq!(found.is_ok(), fits, "{batch}");
    }
}

/// The operators of images have no kernels, but what comes after them has, as their shapes are
/// known.
#[test]
fn what_follows_operators_on_images_has_its_shape() {
    let ints = |ints: &[i64]| Attribute::Ints(ints.to_vec());
    for (auto_pad, patches) in [("NOTSET", 4), ("VALID", 1), ("SAME_LOWER", 4)] {
        let mut sketch = Sketch::new(17, Random::new(1));
        let image = [Dim::Symbol("batch".into()), Dim::Fixed(2), Dim::Fixed(6), Dim::Fixed(5)];
        let x = sketch.input("x", DType::F32, &image);
        let (scale, shift) = (sketch.weights(&[2], 1.0), sketch.weights(&[2], 1.0));
        let x = sketch.op("InstanceNormalization", &[&x, &scale, &shift]);
        let kernel = sketch.weights(&[4 * HIDDEN, 2, 4, 2], 1.0);
        let mut attributes =
            vec![("strides", ints(&[4, 4])), ("auto_pad", Attribute::String(auto_pad.into()))];
        if auto_pad == "NOTSET" {
            attributes.extend([("pads", ints(&[3, 0, 1, 5])), ("dilations", ints(&[1, 2]))]);
        }
        let x = sketch.node("Conv", &[&x, &kernel], &attributes);
        let x = sketch.node("DepthToSpace", &[&x], &[("blocksize", Attribute::Int(2))]);
        let target = sketch.ints(&[0, HIDDEN as i64, -1]);
        let rows = sketch.op("Reshape", &[&x, &target]);
        let rows = sketch.node("Transpose", &[&rows], &[("perm", ints(&[0, 2, 1]))]);
        let y = norm(&mut sketch, &rows);
        sketch.output(&y);
        let steps = ["InstanceNormalization", "Conv", "DepthToSpace", "Transpose", "LayerNorm*"];
        assert_eq!(ops(&sketch.model), steps, "{auto_pad}");
        let known = Known::of(&sketch.model).unwrap();
        assert_eq!(known.shape(&y).unwrap()[1].known(), Some(4 * patches), "{auto_pad}");
        for batch in [1, 3] {
            let mut random = Random::new(2);
            let numbers: Vec<f32> = (0..batch * 60).map(|_| random.number()).collect();
            let x = Value::new([batch, 2, 6, 5], numbers).unwrap();
            assert_eq!(check(&sketch.model, &NamedValues::from_iter([("x", x)])), 0, "{auto_pad}");
        }
    }
}
