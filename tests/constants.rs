//! Constants that a graph can only hold as f32: means by a product, logarithms, and what an
//! optimizer has folded.

use crate::against::against;
use crate::common::{fixture, in_fixture, judged, node};
use engine::{DType, Dim, NamedValues, Value, ValueSpec};
use onnx_graph::{Attribute, Graph, Model, Tensor};
use parity::against::{Original, judge};
use parity::report::GraphReport;
use parity::{Bounds, Subject, Verdict};

fn spec(name: &str, dtype: DType) -> ValueSpec {
    let shape = Some(vec![Dim::Symbol("rows".into())]);
    ValueSpec { name: name.into(), dtype, shape, optional: false }
}

fn hold(model: &mut Model, name: &str, value: &Value) {
    model.graph.initializers.insert(name.into(), Tensor::from_value(value));
}

/// `odd`'s graph with every mean over n features as a sum times 1/n, or as a product with a column
/// of it.
fn means_as_products(column: bool, n: f32) -> Model {
    let mut model = Model::open(in_fixture("odd", "onnx/ts14-eager-static.onnx")).unwrap();
    let width = 21;
    let (shape, count) = if column { (vec![width, 1], width) } else { (Vec::new(), 1) };
    hold(&mut model, "nth", &Value::new(shape, vec![1.0 / n; count]).unwrap());
    let mut nodes = Vec::new();
    let mut means = 0;
    for mut mean in std::mem::take(&mut model.graph.nodes) {
        if mean.op == "ReduceMean" {
            means += 1;
            if column {
                mean.op = "MatMul".into();
                mean.attributes = [].into();
                mean.inputs.push("nth".into());
            } else {
                let sum = format!("{}_sum", mean.name);
                let output = std::mem::replace(&mut mean.outputs[0], sum.clone());
                nodes.push(onnx_graph::Node {
                    op: "ReduceSum".into(),
                    attributes: [("keepdims".to_string(), Attribute::Int(1))].into(),
                    inputs: vec![mean.inputs[0].clone(), "last".into()],
                    ..mean
                });
                nodes.push(node("Mul", &[&sum, "nth"], &output));
                continue;
            }
        }
        nodes.push(mean);
    }
    assert!(means > 0, "this graph has its layer norms written out");
    hold(&mut model, "last", &Value::new([1], vec![-1i64]).unwrap());
    model.graph.nodes = nodes;
    model
}

fn against_checkpoint(model: &Model) -> GraphReport {
    let subject = Subject::open(fixture("odd").to_str()).unwrap();
    judged(&subject, "graph", model, &[], &Bounds::default())
}

#[test]
fn a_mean_by_a_product_is_a_mean() {
    for column in [false, true] {
        let report = against_checkpoint(&means_as_products(column, 21.0));
        let proof = &report.proof;
        assert_eq!(proof.verdict, Verdict::Pass, "{column}: {:?}", proof.max_rel);
        let nth = proof.promoted.iter().find(|promoted| promoted.name == "nth").unwrap();
        assert_eq!((&*nth.meaning, nth.to), ("1/21 of a mean", 1.0 / 21.0));
        // Four ULPs off is another number.
        let report = against_checkpoint(&means_as_products(column, 21.0 * (1.0 + 4.0 * f32::EPSILON)));
        assert_eq!(report.proof.verdict, Verdict::Fail, "{column}");
    }
}

/// The bucket of a distance, 8 · ln(distance/8) / ln 16, as integers: the logarithm is a constant,
/// or computed of one.
fn buckets(held: bool) -> Model {
    let mut nodes = vec![
        node("Div", &["distance", "eight"], "ratio"),
        node("Log", &["ratio"], "log"),
        node("Div", &["log", "scale"], "share"),
        node("Mul", &["share", "eight"], "place"),
        node("Cast", &["place"], "bucket"),
    ];
    nodes[4].attributes.insert("to".into(), Attribute::Int(7));
    let graph = Graph {
        inputs: vec![spec("distance", DType::F32)],
        outputs: vec![spec("bucket", DType::I64)],
        ..Graph::default()
    };
    let mut model = Model { ir_version: 8, opsets: [(String::new(), 17)].into(), graph, ..Model::default() };
    hold(&mut model, "eight", &Value::scalar(8f32));
    if held {
        hold(&mut model, "scale", &Value::scalar(16f32.ln()));
    } else {
        hold(&mut model, "sixteen", &Value::scalar(16f32));
        nodes.insert(0, node("Log", &["sixteen"], "scale"));
    }
    model.graph.nodes = nodes;
    model
}

#[test]
fn a_bucket_is_not_truncated_to_the_one_before() {
    let distances: Vec<f32> = (8..128u8).map(f32::from).collect();
    let inputs = NamedValues::from_iter([("distance", Value::new([120], distances).unwrap())]);
    let case = parity::inputs::Case { name: "distances".into(), inputs };
    for (raw, optimised) in [(true, false), (false, true), (true, true)] {
        let (raw, optimised) = (buckets(raw), buckets(optimised));
        let original = Original::new("raw", &raw, &optimised).unwrap();
        let bounds = Bounds::default();
        let graph = parity::trial::Graph::new("optimised", &optimised, &[], &bounds);
        let judged = judge(&original, graph, std::slice::from_ref(&case), |_| ()).unwrap();
        assert_eq!(judged.report.proof.verdict, Verdict::Pass);
        // In f32 the buckets are those of f64, too.
        assert!(judged.budget.unwrap().largest("bucket").is_none_or(|budget| budget < 1e-3));
    }
}

/// Rows of softmax(table) · weight, looked up.
fn looked_up(table: &[f32], weight: &[f32]) -> Model {
    let mut model = gather("product");
    hold(&mut model, "table", &Value::new([6, 4], table).unwrap());
    hold(&mut model, "weight", &Value::new([4, 3], weight).unwrap());
    model
        .graph
        .nodes
        .splice(0..0, [node("Softmax", &["table"], "soft"), node("MatMul", &["soft", "weight"], "product")]);
    model
}

/// Rows of a table, looked up.
fn gather(table: &str) -> Model {
    let graph = Graph {
        inputs: vec![spec("ids", DType::I64)],
        outputs: vec![ValueSpec { shape: None, ..spec("rows", DType::F32) }],
        nodes: vec![node("Gather", &[table, "ids"], "rows")],
        ..Graph::default()
    };
    Model { ir_version: 8, opsets: [(String::new(), 17)].into(), graph, ..Model::default() }
}

fn looked_up_in(table: &[f32]) -> Model {
    let mut model = gather("folded");
    hold(&mut model, "folded", &Value::new([6, 3], table).unwrap());
    model
}

/// softmax(table) · weight as a folder has it: every step in f32.
fn folded(table: &[f32], weight: &[f32]) -> Vec<f32> {
    let rows = table.chunks(4).flat_map(|row| {
        let exps: Vec<f32> = row.iter().map(|x| x.exp()).collect();
        let sum: f32 = exps.iter().sum();
        (0..3).map(move |column| (0..4).map(|at| exps[at] / sum * weight[at * 3 + column]).sum::<f32>())
    });
    rows.collect()
}

#[test]
fn a_folded_table_is_what_it_was_folded_from() {
    let numbers = |count: u16| (0..count).map(|at| (f32::from(at) * 0.731).sin()).collect::<Vec<f32>>();
    let (table, weight) = (numbers(24), numbers(12));
    let (raw, right) = (looked_up(&table, &weight), folded(&table, &weight));
    for (first, second) in [(&raw, &looked_up_in(&right)), (&looked_up_in(&right), &raw)] {
        let report = against(first, second);
        assert_eq!(report.proof.verdict, Verdict::Pass, "{:?}", report.proof.max_rel);
        assert!(report.verdict <= Verdict::Rounding);
    }
    let promoted = against(&raw, &looked_up_in(&right)).proof.promoted;
    let [promoted] = &promoted[..] else { panic!("one constant: {promoted:?}") };
    assert_eq!(promoted.name, "folded");

    // Row 1 is looked up in every suite.
    let mut wrong = right;
    wrong[4] += 1e-5;
    assert_eq!(against(&raw, &looked_up_in(&wrong)).proof.verdict, Verdict::Fail);
}

#[test]
fn a_weight_that_is_only_moved_is_no_rounding_of_itself() {
    let mut raw = gather("moved");
    let mut transpose = node("Transpose", &["table"], "moved");
    transpose.attributes.insert("perm".into(), Attribute::Ints(vec![1, 0]));
    raw.graph.nodes.insert(0, transpose);
    let table: Vec<f32> = (0..18u8).map(|at| (f32::from(at) * 0.731).sin()).collect();
    hold(&mut raw, "table", &Value::new([3, 6], table.as_slice()).unwrap());
    let mut moved: Vec<f32> = (0..18).map(|at| table[at % 3 * 6 + at / 3]).collect();
    assert_eq!(against(&raw, &looked_up_in(&moved)).proof.verdict, Verdict::Pass);
    moved[4] = f32::from_bits(moved[4].to_bits() + 1);
    assert_eq!(against(&raw, &looked_up_in(&moved)).proof.verdict, Verdict::Fail);
}
