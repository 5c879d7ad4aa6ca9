//! What other families have beside BERT: counted positions, columns, gates, biases by places,
//! windows, and rotations.

use engine::{DType, Value};
use onnx_graph::Attribute;

use super::{HIDDEN, Sketch, int, steps_left, symbol};
use crate::compiled::{CompiledEngine, Options, Passes};
use engine::Engine;

/// How RoBERTa's positions are written.
#[derive(Clone, Copy)]
struct Counting {
    reverse: i64,
    exclusive: i64,
    axis: i64,
    /// What is not counted, and what the product with it is of.
    padding: [i64; 2],
    to: i64,
}

const COUNTING: Counting = Counting { reverse: 0, exclusive: 0, axis: 1, padding: [1, 1], to: 6 };

fn positions(sketch: &mut Sketch, counting: Counting) {
    let ids = sketch.input("ids", DType::I64, &[symbol("batch"), symbol("sequence")]);
    let marks = |sketch: &mut Sketch, padding: i64| {
        let padding = sketch.constant(Value::scalar(padding));
        let equal = sketch.node("Equal", &[&ids, &padding], &[]);
        let real = sketch.node("Not", &[&equal], &[]);
        sketch.node("Cast", &[&real], &[("to", int(counting.to))])
    };
    let counted = marks(sketch, counting.padding[0]);
    let axis = sketch.constant(Value::scalar(counting.axis));
    let attributes = [("reverse", int(counting.reverse)), ("exclusive", int(counting.exclusive))];
    let sum = sketch.node("CumSum", &[&counted, &axis], &attributes);
    let other = marks(sketch, counting.padding[1]);
    let product = sketch.node("Mul", &[&sum, &other], &[]);
    let wide = sketch.node("Cast", &[&product], &[("to", int(7))]);
    let one = sketch.constant(Value::scalar(1i64));
    let places = sketch.node("Add", &[&wide, &one], &[]);
    let (words, table) = (sketch.weights(&[9, HIDDEN]), sketch.weights(&[7, HIDDEN]));
    let by_word = sketch.node("Gather", &[&words, &ids], &[]);
    let by_place = sketch.node("Gather", &[&table, &places], &[]);
    let sum = sketch.node("Add", &[&by_word, &by_place], &[]);
    let gamma = sketch.weights(&[HIDDEN]);
    let normal = sketch.node("LayerNormalization", &[&sum, &gamma], &[]);
    sketch.output(&normal);
}

#[test]
fn positions_are_counted_over_what_is_no_padding() {
    for counting in [COUNTING, Counting { to: 7, ..COUNTING }, Counting { axis: -1, ..COUNTING }] {
        let mut sketch = Sketch::new(17);
        positions(&mut sketch, counting);
        sketch.check("EmbeddingsFusion", 1);
        assert_eq!(steps_left(&sketch), 1);
    }
    for counting in [
        Counting { reverse: 1, ..COUNTING },
        Counting { exclusive: 1, ..COUNTING },
        Counting { axis: 0, ..COUNTING },
        Counting { padding: [1, 2], ..COUNTING },
    ] {
        let mut sketch = Sketch::new(17);
        positions(&mut sketch, counting);
        sketch.check("EmbeddingsFusion", 0);
    }
}

#[test]
fn a_position_beyond_the_table_is_an_error() {
    let mut sketch = Sketch::new(17);
    positions(&mut sketch, COUNTING);
    let engine = CompiledEngine::new(&sketch.model, Options::default()).unwrap();
    let mut inputs = sketch.inputs(1, 6);
    inputs.insert("ids", Value::new([1, 6], vec![2i64; 6]).unwrap());
    let error = engine.run(&inputs).unwrap_err().to_string();
    assert!(error.contains("index 7 is outside an axis of size 7"), "{error}");
}

#[test]
fn rows_are_split_into_columns() {
    let cases: [(i64, &[i64], usize); 4] =
        [(2, &[3, 5], 1), (-1, &[4, 4], 1), (-1, &[1, 7], 1), (2, &[0, 8], 0)];
    for (axis, sizes, found) in cases {
        let mut sketch = Sketch::new(17);
        let x = sketch.rows("x", HIDDEN);
        let sizes = sketch.ints(sizes);
        let parts = sketch.nodes("Split", &[&x, &sizes], &[("axis", int(axis))], 2);
        sketch.output(&parts[0]).output(&parts[1]).check("ColumnsFusion", found);
    }
    let mut sketch = Sketch::new(17);
    let x = sketch.input("x", DType::F32, &[symbol("batch"), engine::Dim::Fixed(4), engine::Dim::Fixed(8)]);
    let sizes = sketch.ints(&[3, 1]);
    let parts = sketch.nodes("Split", &[&x, &sizes], &[("axis", int(1))], 2);
    sketch.output(&parts[0]).output(&parts[1]).check("ColumnsFusion", 0);
}

#[test]
fn a_slice_of_columns_takes_all_rows() {
    for (starts, ends, found) in [([0, 2], [4, 5], 1), ([0, 0], [4, 8], 0), ([1, 2], [4, 5], 0)] {
        let mut sketch = Sketch::new(17);
        let x = sketch.input("x", DType::F32, &[engine::Dim::Fixed(4), engine::Dim::Fixed(8)]);
        let (starts, ends) = (sketch.ints(&starts), sketch.ints(&ends));
        let part = sketch.node("Slice", &[&x, &starts, &ends], &[]);
        let result = sketch.node("Abs", &[&part], &[]);
        sketch.output(&result).check("ColumnsFusion", found);
    }
}

#[test]
fn a_gate_is_of_the_same_rows() {
    for (others, seen, flipped, found) in
        [(false, false, false, 1), (false, false, true, 1), (true, false, false, 0), (false, true, false, 0)]
    {
        let mut sketch = Sketch::new(20);
        let (x, y) = (sketch.rows("x", HIDDEN), sketch.rows("y", HIDDEN));
        let parts = sketch.nodes("Split", &[&x], &[("axis", int(2)), ("num_outputs", int(2))], 2);
        let other = sketch.nodes("Split", &[&y], &[("axis", int(2)), ("num_outputs", int(2))], 2);
        let active = sketch.node("Gelu", &[&parts[0]], &[]);
        let factor = if others { &other[1] } else { &parts[1] };
        let pair = if flipped { [factor, &active] } else { [&active, factor] };
        let result = sketch.node("Mul", &pair.map(String::as_str), &[]);
        sketch.output(&result);
        if seen {
            sketch.output(&active);
        }
        sketch.check("GateFusion", found);
    }
}

/// How an attention is written that goes by places.
#[derive(Clone, Copy, Default)]
struct Written {
    bias: Option<Bias>,
    /// What stands outside a window, before the mask.
    window: Option<f32>,
    rotation: Option<Rotation>,
}

#[derive(Clone, Copy)]
enum Bias {
    /// Looked up by distances, one for each head.
    Distances,
    /// One for all heads.
    Shared,
    /// Of the queries alone.
    Queries,
    /// Of what the text is.
    Text,
}

#[derive(Clone, Copy, PartialEq)]
enum Rotation {
    Plain,
    /// The other half is negated.
    WrongHalf,
    /// Only queries are turned.
    QueriesAlone,
    /// Values are turned, too.
    Values,
    /// Angles are of the text.
    Text,
}

const HEADS: usize = 2;
const SIZE: usize = HIDDEN / HEADS;

/// 0, 1, … along the sequence, as f32 or as integers.
fn places(sketch: &mut Sketch, x: &str) -> String {
    let shape = sketch.node("Shape", &[x], &[]);
    let one = sketch.constant(Value::scalar(1i64));
    let zero = sketch.constant(Value::scalar(0i64));
    let length = sketch.node("Gather", &[&shape, &one], &[]);
    sketch.node("Range", &[&zero, &length, &one], &[])
}

/// Distances of all pairs of places.
fn distances(sketch: &mut Sketch, x: &str) -> String {
    let places = places(sketch, x);
    let (rows, columns) = (sketch.ints(&[1]), sketch.ints(&[0]));
    let (rows, columns) = (
        sketch.node("Unsqueeze", &[&places, &rows], &[]),
        sketch.node("Unsqueeze", &[&places, &columns], &[]),
    );
    let difference = sketch.node("Sub", &[&rows, &columns], &[]);
    sketch.node("Abs", &[&difference], &[])
}

fn bias(sketch: &mut Sketch, x: &str, bias: Bias) -> String {
    if matches!(bias, Bias::Text) {
        let first = sketch.ints(&[0]);
        let text = sketch.node("Transpose", &[x], &[("perm", Attribute::Ints(vec![0, 2, 1]))]);
        let pairs = sketch.node("MatMul", &[x, &text], &[]);
        return sketch.node("Gather", &[&pairs, &first], &[]);
    }
    let distances = distances(sketch, x);
    let table = sketch.weights(&[9, HEADS]);
    let found = sketch.node("Gather", &[&table, &distances], &[]);
    let by_head = sketch.node("Transpose", &[&found], &[("perm", Attribute::Ints(vec![2, 0, 1]))]);
    match bias {
        Bias::Distances => {
            let axes = sketch.ints(&[0]);
            sketch.node("Unsqueeze", &[&by_head, &axes], &[])
        }
        _ => {
            let keep = matches!(bias, Bias::Queries);
            let axis = if keep { 2 } else { 0 };
            let attributes = [("axes", Attribute::Ints(vec![axis])), ("keepdims", int(i64::from(keep)))];
            sketch.node("ReduceMax", &[&by_head], &attributes)
        }
    }
}

/// Cosines and sines that are none, but depend on places as those do.
fn angles(sketch: &mut Sketch, x: &str, of_text: bool) -> [String; 2] {
    if of_text {
        let width = sketch.ints(&[SIZE as i64]);
        let (zero, axes) = (sketch.ints(&[0]), sketch.ints(&[2]));
        let part = sketch.node("Slice", &[x, &zero, &width, &axes], &[]);
        let axes = sketch.ints(&[1]);
        let part = sketch.node("Unsqueeze", &[&part, &axes], &[]);
        return [part.clone(), part];
    }
    let places = places(sketch, x);
    let float = sketch.node("Cast", &[&places], &[("to", int(1))]);
    let axes = sketch.ints(&[1]);
    let column = sketch.node("Unsqueeze", &[&float, &axes], &[]);
    let frequencies = sketch.weights(&[1, SIZE]);
    let angles = sketch.node("MatMul", &[&column, &frequencies], &[]);
    ["Cos", "Sin"].map(|function| sketch.node(function, &[&angles], &[]))
}

fn turned(sketch: &mut Sketch, x: &str, [cos, sin]: &[String; 2], wrong_half: bool) -> String {
    let (zero, half, end) = (sketch.ints(&[0]), sketch.ints(&[SIZE as i64 / 2]), sketch.ints(&[i64::MAX]));
    let axes = sketch.ints(&[3]);
    let first = sketch.node("Slice", &[x, &zero, &half, &axes], &[]);
    let second = sketch.node("Slice", &[x, &half, &end, &axes], &[]);
    let parts = if wrong_half {
        let negated = sketch.node("Neg", &[&first], &[]);
        [negated, second]
    } else {
        let negated = sketch.node("Neg", &[&second], &[]);
        [negated, first]
    };
    let other = sketch.node("Concat", &[&parts[0], &parts[1]], &[("axis", int(-1))]);
    let (straight, across) = (sketch.node("Mul", &[x, cos], &[]), sketch.node("Mul", &[&other, sin], &[]));
    sketch.node("Add", &[&straight, &across], &[])
}

/// Queries, keys and values of one product, cut out of it as ModernBERT's are.
fn attention(sketch: &mut Sketch, written: Written) {
    let perm = |perm: &[i64]| [("perm", Attribute::Ints(perm.to_vec()))];
    let ids = sketch.input("ids", DType::I64, &[symbol("batch"), symbol("sequence")]);
    let (words, gamma) = (sketch.weights(&[9, HIDDEN]), sketch.weights(&[HIDDEN]));
    let x = sketch.node("Gather", &[&words, &ids], &[]);
    let x = sketch.node("LayerNormalization", &[&x, &gamma], &[]);
    let mask = sketch.input("mask", DType::I64, &[symbol("batch"), symbol("sequence")]);
    let weight = sketch.weights(&[HIDDEN, 3 * HIDDEN]);
    let product = sketch.node("MatMul", &[&x, &weight], &[]);
    let shape = sketch.ints(&[0, 0, 3, HEADS as i64, SIZE as i64]);
    let split = sketch.node("Reshape", &[&product, &shape], &[]);
    let split = sketch.node("Transpose", &[&split], &perm(&[0, 3, 2, 1, 4]));
    let mut parts = [0, 1, 2].map(|part| {
        let (from, to, axes) = (sketch.ints(&[part]), sketch.ints(&[part + 1]), sketch.ints(&[2]));
        let part = sketch.node("Slice", &[&split, &from, &to, &axes], &[]);
        sketch.node("Squeeze", &[&part, &axes], &[])
    });
    if let Some(rotation) = written.rotation {
        let angles = angles(sketch, &x, rotation == Rotation::Text);
        let wrong = rotation == Rotation::WrongHalf;
        parts[0] = turned(sketch, &parts[0].clone(), &angles, wrong);
        if rotation != Rotation::QueriesAlone {
            parts[1] = turned(sketch, &parts[1].clone(), &angles, wrong);
        }
        if rotation == Rotation::Values {
            parts[2] = turned(sketch, &parts[2].clone(), &angles, wrong);
        }
    }
    let keys = sketch.node("Transpose", &[&parts[1]], &perm(&[0, 1, 3, 2]));
    let scores = sketch.node("MatMul", &[&parts[0], &keys], &[]);
    let half = sketch.number(0.5);
    let mut scores = sketch.node("Mul", &[&scores, &half], &[]);
    if let Some(kind) = written.bias {
        let bias = bias(sketch, &x, kind);
        scores = sketch.node("Add", &[&scores, &bias], &[]);
    }
    let axes = sketch.ints(&[1, 2]);
    let wide = sketch.node("Unsqueeze", &[&mask, &axes], &[]);
    let float = sketch.node("Cast", &[&wide], &[("to", int(1))]);
    let (one, least) = (sketch.number(1.0), sketch.number(f32::MIN));
    let inverted = sketch.node("Sub", &[&one, &float], &[]);
    let mut added = sketch.node("Mul", &[&inverted, &least], &[]);
    if let Some(number) = written.window {
        let (distances, most) = (distances(sketch, &x), sketch.constant(Value::scalar(1i64)));
        let hidden = sketch.node("Greater", &[&distances, &most], &[]);
        let number = sketch.number(number);
        added = sketch.node("Where", &[&hidden, &number, &added], &[]);
    }
    let scores = sketch.node("Add", &[&scores, &added], &[]);
    let weights = sketch.node("Softmax", &[&scores], &[("axis", int(-1))]);
    let context = sketch.node("MatMul", &[&weights, &parts[2]], &[]);
    let back = sketch.node("Transpose", &[&context], &perm(&[0, 2, 1, 3]));
    let flat = sketch.ints(&[0, 0, HIDDEN as i64]);
    let result = sketch.node("Reshape", &[&back, &flat], &[]);
    sketch.output(&result);
}

#[test]
fn an_attention_goes_by_places() {
    let found = [
        Written::default(),
        Written { bias: Some(Bias::Distances), ..Written::default() },
        Written { bias: Some(Bias::Shared), ..Written::default() },
        Written { window: Some(f32::MIN), ..Written::default() },
        Written { window: Some(f32::NEG_INFINITY), ..Written::default() },
        Written { rotation: Some(Rotation::Plain), ..Written::default() },
        Written { rotation: Some(Rotation::Plain), window: Some(f32::MIN), ..Written::default() },
        Written { rotation: Some(Rotation::Plain), bias: Some(Bias::Distances), ..Written::default() },
    ];
    for written in found {
        let mut sketch = Sketch::new(17);
        attention(&mut sketch, written);
        assert_eq!(steps_left(&sketch), 3);
        sketch.check("AttentionFusion", 1);
        let engine = CompiledEngine::new(&sketch.model, Options::default()).unwrap();
        assert!(engine.can_skip_padding());
    }
}

#[test]
fn what_does_not_go_by_places_is_left() {
    let left = [
        Written { bias: Some(Bias::Queries), ..Written::default() },
        Written { bias: Some(Bias::Text), ..Written::default() },
        // Above what the mask adds: the lesser of both would be the mask's.
        Written { window: Some(-1.0), ..Written::default() },
        // A window meets no bias in the kernel.
        Written { window: Some(f32::MIN), bias: Some(Bias::Distances), ..Written::default() },
        Written { rotation: Some(Rotation::WrongHalf), ..Written::default() },
        Written { rotation: Some(Rotation::QueriesAlone), ..Written::default() },
        Written { rotation: Some(Rotation::Values), ..Written::default() },
        Written { rotation: Some(Rotation::Text), ..Written::default() },
    ];
    for (place, written) in left.into_iter().enumerate() {
        let mut sketch = Sketch::new(17);
        attention(&mut sketch, written);
        assert_eq!(sketch.found()["AttentionFusion"], 0, "{place}");
        sketch.check("AttentionFusion", 0);
    }
}

/// A window in which a query does not see itself may hide all that is left of its text: with
/// padding left out, that is not known to be the same, so it is computed in the general way.
#[test]
fn a_window_without_the_query_itself_is_not_cut_short() {
    let mut sketch = Sketch::new(17);
    attention(&mut sketch, Written { window: Some(f32::MIN), ..Written::default() });
    // From "more than 1 away" to "less than 1 away".
    let node = sketch.model.graph.nodes.iter_mut().find(|node| node.op == "Greater").unwrap();
    node.op = "Less".into();
    let engine = |skip_padding, passes| {
        CompiledEngine::new(&sketch.model, Options { skip_padding, passes, ..Options::default() }).unwrap()
    };
    let (skipping, plain) = (engine(true, Passes::all()), engine(false, Passes::none()));
    let mut inputs = sketch.inputs(1, 3);
    inputs.insert("mask", Value::new([1, 3], vec![1i64, 0, 0]).unwrap());
    let (found, expected) = (skipping.run(&inputs).unwrap(), plain.run(&inputs).unwrap());
    assert_eq!(skipping.general_runs(), 1);
    for ((_, found), (_, expected)) in found.iter().zip(expected.iter()) {
        for (a, b) in found.to_f64().iter().zip(expected.to_f64()) {
            assert!((a - b).abs() < 1e-5, "{a} instead of {b}");
        }
    }
}
