use engine::{DType, Dim, Value};
use half::f16;
use onnx_graph::proto::AttributeType;
use onnx_graph::{Attribute, Function, Graph, Node, Tensor as Constant};

use super::*;

fn spec(name: &str, dtype: DType) -> ValueSpec {
    ValueSpec { name: name.into(), dtype, shape: None, optional: false }
}

fn node(name: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Node {
        name: name.into(),
        op: op.into(),
        inputs: strings(inputs),
        outputs: strings(outputs),
        ..Node::default()
    }
}

fn with(mut node: Node, name: &str, attribute: Attribute) -> Node {
    node.attributes.insert(name.into(), attribute);
    node
}

/// A model of f32 inputs and outputs.
fn model(opset: i64, inputs: &[&str], nodes: Vec<Node>, outputs: &[&str]) -> Model {
    Model {
        ir_version: 8,
        opsets: [(String::new(), opset)].into(),
        graph: Graph {
            inputs: inputs.iter().map(|name| spec(name, DType::F32)).collect(),
            outputs: outputs.iter().map(|name| spec(name, DType::F32)).collect(),
            nodes,
            ..Graph::default()
        },
        ..Model::default()
    }
}

fn constant(model: &mut Model, name: &str, value: &Value) {
    model.graph.initializers.insert(name.into(), Constant::from_value(value));
}

fn x(value: f32) -> NamedValues {
    NamedValues::from_iter([("x", Value::scalar(value))])
}

fn load_error(model: &Model) -> String {
    match Oracle::new(model) {
        Ok(_) => panic!("this should have been refused"),
        Err(error) => error.to_string(),
    }
}

fn run_error(model: &Model, inputs: &NamedValues) -> String {
    Oracle::new(model).unwrap().run(inputs).unwrap_err().to_string()
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let one = |opset, node| model(opset, &["x"], vec![node], &["y"]);
    assert_eq!(
        load_error(&one(17, node("n", "NoSuchOp", &["x"], &["y"]))),
        "node 'n': there is no NoSuchOp of ai.onnx opset 17 here"
    );
    assert_eq!(
        load_error(&one(17, node("n", "Gelu", &["x"], &["y"]))),
        "node 'n': there is no Gelu of ai.onnx opset 17 here, only of 20 to 28: export the graph for one \
         of these"
    );
    assert_eq!(
        load_error(&one(17, node("n", "Sqrt", &["x", "x"], &["y"]))),
        "node 'n' (Sqrt, opset 17) has 2 inputs, which must be 1 to 1"
    );
    let axes = with(node("n", "ReduceMean", &["x"], &["y"]), "axes", Attribute::Ints(vec![0]));
    assert!(Oracle::new(&one(17, axes.clone())).is_ok());
    assert_eq!(
        load_error(&one(18, axes)),
        "node 'n' (ReduceMean, opset 18) has an attribute 'axes', which is not defined there"
    );
    let mut bools = one(17, node("n", "Sqrt", &["x"], &["y"]));
    bools.graph.inputs[0].dtype = DType::Bool;
    assert_eq!(
        run_error(&bools, &NamedValues::from_iter([("x", Value::scalar(true))])),
        "node 'n' (Sqrt, opset 17) failed: input 0 is bool, which must be a float"
    );
}

#[test]
fn f64_widens_exactly_and_rounds_nothing() {
    let cast = with(node("c", "Cast", &["d"], &["f"]), "to", Attribute::Int(1));
    let mut model = model(17, &["x"], vec![cast, node("a", "Add", &["x", "f"], &["y"])], &["y"]);
    constant(&mut model, "d", &Value::scalar(0.1f64));
    let f64s = Oracle::new(&model).unwrap();
    assert_eq!((f64s.outputs()[0].dtype, f64s.inputs()[0].dtype), (DType::F64, DType::F32));
    let y = f64s.run(&x(0.2)).unwrap();
    assert_eq!(y.get("y"), Some(&Value::scalar(f64::from(0.2f32) + 0.1)));
    let f32s = Oracle::with(&model, Precision::F32, Limits::default()).unwrap();
    assert_eq!(f32s.run(&x(0.2)).unwrap().get("y"), Some(&Value::scalar(0.2f32 + 0.1f32)));
    // An input may be given in f64, too; not where f32 is meant.
    let wide = NamedValues::from_iter([("x", Value::scalar(0.2f64))]);
    assert_eq!(f64s.run(&wide).unwrap().get("y"), Some(&Value::scalar(0.2f64 + 0.1)));
    assert_eq!(f32s.run(&wide).unwrap_err().to_string(), "input 'x' must be f32, got f64");
}

#[test]
fn halves_are_rounded_node_by_node() {
    let nodes = vec![node("a", "Add", &["x", "one"], &["z"]), node("b", "Add", &["z", "one"], &["y"])];
    let mut model = model(17, &["x"], nodes, &["y"]);
    constant(&mut model, "one", &Value::scalar(f16::ONE));
    model.graph.inputs[0].dtype = DType::F16;
    model.graph.outputs[0].dtype = DType::F16;
    // 2049 is no f16; had only the end been rounded, it would be 2050.
    let inputs = NamedValues::from_iter([("x", Value::scalar(f16::from_f32(2048.0)))]);
    let f64s = Oracle::new(&model).unwrap().run(&inputs).unwrap();
    assert_eq!(f64s.get("y"), Some(&Value::scalar(2048f64)));
    let f32s = Oracle::with(&model, Precision::F32, Limits::default()).unwrap().run(&inputs).unwrap();
    assert_eq!(f32s.get("y"), Some(&Value::scalar(f16::from_f32(2048.0))));
}

/// y = scale · x, and x handed on: `scale` is the function's attribute. The doubling goes by way of a second function and an If.
fn model_with_functions() -> Model {
    let scale = Attribute::Reference { name: "scale".into(), kind: AttributeType::Float };
    let branch = |inner: Node, output: &str| {
        let graph = Graph { nodes: vec![inner], outputs: vec![spec(output, DType::F32)], ..Graph::default() };
        Attribute::Graph(Box::new(graph))
    };
    let doubled = Node { domain: "test".into(), ..node("double", "Double", &["a"], &["t"]) };
    let kept = node("keep", "Identity", &["a"], &["e"]);
    let choose = with(node("if", "If", &["c"], &["u"]), "then_branch", branch(doubled, "t"));
    let choose = with(choose, "else_branch", branch(kept, "e"));
    let outer = Function {
        domain: "test".into(),
        name: "Scale".into(),
        inputs: vec!["a".into(), "c".into()],
        outputs: vec!["s".into(), "a".into()],
        defaults: [("scale".to_string(), Attribute::Float(3.0))].into(),
        opsets: [(String::new(), 18), ("test".into(), 1)].into(),
        nodes: vec![
            with(node("k", "Constant", &[], &["k"]), "value_float", scale),
            choose,
            node("m", "Mul", &["u", "k"], &["s"]),
        ],
        ..Function::default()
    };
    let double = Function {
        domain: "test".into(),
        name: "Double".into(),
        inputs: vec!["a".into()],
        outputs: vec!["d".into()],
        opsets: [(String::new(), 13)].into(),
        nodes: vec![node("add", "Add", &["a", "a"], &["d"])],
        ..Function::default()
    };
    let call = Node { domain: "test".into(), ..node("call", "Scale", &["x", "c"], &["y", "z"]) };
    let twice = Node { domain: "test".into(), ..node("again", "Scale", &["y", "c"], &["w"]) };
    let twice = with(twice, "scale", Attribute::Float(0.5));
    let mut model = model(17, &["x", "c"], vec![call, twice], &["y", "z", "w"]);
    model.graph.inputs[1].dtype = DType::Bool;
    model.opsets.insert("test".into(), 1);
    model.functions = vec![outer, double];
    model
}

#[test]
fn functions_are_written_out_and_branches_see_what_is_around_them() {
    let oracle = Oracle::new(&model_with_functions()).unwrap();
    for (condition, factor) in [(true, 2.0), (false, 1.0)] {
        let inputs = NamedValues::from_iter([("x", Value::scalar(5f32)), ("c", Value::scalar(condition))]);
        let outputs = oracle.run(&inputs).unwrap();
        let expected = [("y", 15.0 * factor), ("z", 5.0), ("w", 7.5 * factor * factor)];
        assert_eq!(outputs, expected.map(|(name, value)| (name, Value::scalar(value))).into_iter().collect());
        let inner = oracle.run_for(&inputs, &["again/k", "call/u", "x"]).unwrap();
        let expected = [("again/k", 0.5), ("call/u", 5.0 * factor), ("x", 5.0)];
        assert_eq!(inner, expected.map(|(name, value)| (name, Value::scalar(value))).into_iter().collect());
    }
    assert!(oracle.values().any(|name| name == "call/k"));
    let error = oracle.run_for(&NamedValues::new(), &["nowhere"]).unwrap_err();
    assert_eq!(error.to_string(), "this model has no value named 'nowhere'");
}

#[test]
fn an_input_with_a_default_may_be_left_out() {
    let mut model = model(17, &["x", "b"], vec![node("a", "Add", &["x", "b"], &["y"])], &["y", "b"]);
    model.graph.inputs[1].optional = true;
    constant(&mut model, "b", &Value::scalar(10f32));
    let oracle = Oracle::new(&model).unwrap();
    let outputs = oracle.run(&x(1.0)).unwrap();
    assert_eq!(outputs.get("y"), Some(&Value::scalar(11f64)));
    let given = NamedValues::from_iter([("x", Value::scalar(1f32)), ("b", Value::scalar(2f32))]);
    assert_eq!(oracle.run(&given).unwrap().get("b"), Some(&Value::scalar(2f64)));
}

/// Each wants 2^40 elements or more.
#[test]
fn what_is_too_large_is_an_error_before_it_is_allocated() {
    let big = 1i64 << 20;
    let list = |numbers: &[i64]| Value::new([numbers.len()], numbers.to_vec()).unwrap();
    let cases = [
        (node("n", "ConstantOfShape", &["sizes"], &["y"]), list(&[big, big])),
        (node("n", "ConstantOfShape", &["sizes"], &["y"]), list(&[i64::MAX, i64::MAX])),
        (node("n", "Expand", &["x", "sizes"], &["y"]), list(&[big, big])),
        (node("n", "Tile", &["row", "sizes"], &["y"]), list(&[big, big])),
        (node("n", "Pad", &["row", "sizes"], &["y"]), list(&[big, 0, big, big])),
        (node("n", "Range", &["zero", "sizes", "one"], &["y"]), Value::scalar(1i64 << 60)),
        (node("n", "OneHot", &["sizes", "depth", "pair"], &["y"]), list(&[1, 2, 3])),
    ];
    for (node, sizes) in cases {
        let op = node.op.clone();
        let mut model = model(13, &["x"], vec![node], &["y"]);
        constant(&mut model, "sizes", &sizes);
        constant(&mut model, "row", &Value::new([1, 1], vec![1f32]).unwrap());
        constant(&mut model, "zero", &Value::scalar(0i64));
        constant(&mut model, "one", &Value::scalar(1i64));
        constant(&mut model, "depth", &Value::scalar(1i64 << 50));
        constant(&mut model, "pair", &Value::new([2], vec![0f32, 1.]).unwrap());
        let error = run_error(&model, &x(1.0));
        assert!(error.contains("more than the limit of 17179869184 bytes"), "{op}: {error}");
    }
}

#[test]
fn a_product_of_two_vectors_that_is_too_large_is_an_error() {
    let mut model = model(13, &["x"], vec![node("n", "MatMul", &["c", "r"], &["y"])], &["y"]);
    let long = vec![0f32; 1 << 10];
    constant(&mut model, "c", &Value::new([1 << 10, 1], long.clone()).unwrap());
    constant(&mut model, "r", &Value::new([1, 1 << 10], long).unwrap());
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
    let oracle = Oracle::with(&model, Precision::F64, limits).unwrap();
    let error = oracle.run(&x(1.0)).unwrap_err().to_string();
    assert!(error.contains("shape [1024, 1024] would take more than the limit of 1048576 bytes"), "{error}");
}

/// A model of `count` nodes that make f32 values of 2^20 elements, each 8 MiB here. The last node adds them up, if it is to; else each is
/// read by nothing but the next.
fn large_values(count: usize, added_up: bool) -> Model {
    let name = |number: usize| format!("v{number}");
    let mut nodes: Vec<Node> = (0..count)
        .map(|number| {
            let input = if number == 0 || added_up { "x".into() } else { name(number - 1) };
            node(&name(number), "Expand", &[&input, "sizes"], &[&name(number)])
        })
        .collect();
    let names: Vec<String> = (0..count).map(name).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let read = if added_up { &all[..] } else { &all[count - 1..] };
    nodes.push(node("sum", "Sum", read, &["y"]));
    let mut model = model(13, &["x"], nodes, &["y"]);
    constant(&mut model, "sizes", &Value::new([2], vec![1i64 << 10, 1 << 10]).unwrap());
    model
}

/// Any of the values would be allowed, not all of them; half of a value is for the scalar and the two sizes.
#[test]
fn values_that_are_alive_are_counted_together() {
    const VALUE: usize = 8 << 20;
    let limits = Limits { max_bytes: 4 * VALUE + VALUE / 2, ..Limits::default() };
    let open = |model: &Model| Oracle::with(model, Precision::F64, limits).unwrap();
    // Before a fourth value is made there must be room for it even if it were of integers.
    let error = open(&large_values(1000, true)).run(&x(1.0)).unwrap_err().to_string();
    assert_eq!(
        error,
        "node 'v3' (Expand, opset 13) failed: shape [1024, 1024] would take more than the limit of 37748736 bytes, of which 25165864 are \
         in use; give less at once, or raise Limits::max_bytes if that is meant"
    );
    // What nothing reads any more is not counted.
    let y = open(&large_values(50, false)).run(&x(1.0)).unwrap();
    assert_eq!(y.get("y").unwrap().to_f64(), vec![1.0; 1 << 20]);
    // Unless it is to be handed out.
    let oracle = open(&large_values(50, false));
    let names: Vec<&str> = oracle.values().collect();
    assert!(oracle.run_for(&x(1.0), &names).unwrap_err().to_string().starts_with("node 'v3'"));
}

/// Nothing checks the shape of a sum beforehand: it is counted once it is there.
#[test]
fn results_are_counted_whatever_made_them() {
    let nodes = (0..10).map(|i| node(&format!("n{i}"), "Neg", &["x"], &[&format!("v{i}")])).collect();
    let model = model(13, &["x"], nodes, &["v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9"]);
    let limits = Limits { max_bytes: 5 * 800, ..Limits::default() };
    let oracle = Oracle::with(&model, Precision::F64, limits).unwrap();
    let row =
        |length: usize| NamedValues::from_iter([("x", Value::new([length], vec![1f32; length]).unwrap())]);
    let error = oracle.run(&row(100)).unwrap_err().to_string();
    assert!(
        error.starts_with("node 'n4' (Neg") && error.contains("4000 bytes, of which 4000 are"),
        "{error}"
    );
    assert!(oracle.run(&row(40)).is_ok());
    let error = oracle.run(&row(501)).unwrap_err().to_string();
    assert!(error.contains("shape [501] would take more than the limit of 4000 bytes"), "{error}");
}

/// Each If hands a value on. What its branch has made is dropped, also what it hands on: the If's own output stands for it.
#[test]
fn values_of_branches_are_dropped() {
    let branch = |name: &str, input: &str| {
        let inner = node(name, "Expand", &[input, "sizes"], &[name]);
        let outputs = vec![spec(name, DType::F32)];
        Attribute::Graph(Box::new(Graph { nodes: vec![inner], outputs, ..Graph::default() }))
    };
    let mut nodes = Vec::new();
    for number in 0..20 {
        let input = if number == 0 { "x".into() } else { format!("v{}", number - 1) };
        let output = if number == 19 { "y".into() } else { format!("v{number}") };
        let chosen = with(
            node(&output, "If", &["c"], &[&output]),
            "then_branch",
            branch(&format!("t{number}"), &input),
        );
        nodes.push(with(chosen, "else_branch", branch(&format!("e{number}"), &input)));
    }
    let mut model = model(13, &["x"], nodes, &["y"]);
    constant(&mut model, "sizes", &Value::new([1], vec![1i64 << 10]).unwrap());
    constant(&mut model, "c", &Value::scalar(true));
    let limits = Limits { max_bytes: 4 << 13, ..Limits::default() };
    let y = Oracle::with(&model, Precision::F64, limits).unwrap().run(&x(1.0)).unwrap();
    assert_eq!(y.get("y").unwrap().to_f64(), vec![1.0; 1 << 10]);
}

#[test]
fn constants_are_counted_before_they_are_copied() {
    let mut model = model(13, &["x"], vec![node("n", "Neg", &["x"], &["y"])], &["y"]);
    let shared = Constant::from_value(&Value::new([1 << 20], vec![0f32; 1 << 20]).unwrap());
    for number in 0..1000 {
        model.graph.initializers.insert(format!("w{number:03}"), shared.clone());
    }
    let limits = Limits { max_bytes: 32 << 20, ..Limits::default() };
    let Err(error) = Oracle::with(&model, Precision::F64, limits) else { panic!("8 GB of constants") };
    let error = error.to_string();
    assert!(error.starts_with("initializer 'w004': shape [1048576] would take more"), "{error}");
    assert!(error.contains("the limit of 33554432 bytes, of which 33554432 are in use"), "{error}");
}

#[test]
fn nodes_are_counted() {
    let nodes = vec![node("a", "Neg", &["x"], &["z"]), node("b", "Neg", &["z"], &["y"])];
    let limits = Limits { max_nodes: 1, ..Limits::default() };
    let oracle = Oracle::with(&model(17, &["x"], nodes, &["y"]), Precision::F64, limits).unwrap();
    let error = oracle.run(&x(1.0)).unwrap_err().to_string();
    assert!(error.starts_with("the graph takes more than the limit of 1 nodes"), "{error}");
    assert!(oracle.run_for(&x(1.0), &["z"]).is_ok());
}

#[test]
fn a_long_chain_of_functions_is_refused_not_followed() {
    let name = |number: usize| format!("F{number}");
    let functions = (0..1000).map(|number| Function {
        domain: "test".into(),
        name: name(number),
        inputs: vec!["a".into()],
        outputs: vec!["b".into()],
        opsets: [(String::new(), 17), ("test".into(), 1)].into(),
        nodes: vec![if number == 0 {
            node("n", "Neg", &["a"], &["b"])
        } else {
            Node { domain: "test".into(), ..node("n", &name(number - 1), &["a"], &["b"]) }
        }],
        ..Function::default()
    });
    let call = Node { domain: "test".into(), ..node("n", "F999", &["x"], &["y"]) };
    let mut model = model(17, &["x"], vec![call], &["y"]);
    model.opsets.insert("test".into(), 1);
    model.functions = functions.collect();
    assert_eq!(load_error(&model), "functions of the model call each other more than 64 deep");
}

#[test]
fn inputs_are_checked() {
    let mut model = model(17, &["x"], vec![node("n", "Neg", &["x"], &["y"])], &["y"]);
    model.graph.inputs[0].shape = Some(vec![Dim::Fixed(2)]);
    assert_eq!(run_error(&model, &x(1.0)), "input 'x f32[2]' was given shape []");
}

#[test]
fn constants_can_be_what_they_were_meant_to_be() {
    // x · √2 · √2, one of them an initializer, the other a Constant.
    let root = Value::scalar(2f32.sqrt());
    let given =
        with(node("given", "Constant", &[], &["b"]), "value", Attribute::Tensor(Constant::from_value(&root)));
    let (first, second) =
        (node("first", "Mul", &["x", "a"], &["y"]), node("second", "Mul", &["y", "b"], &["z"]));
    let mut model = model(17, &["x"], vec![given, first, second], &["z"]);
    constant(&mut model, "a", &root);
    let run = |oracle: Oracle| oracle.run(&x(1.0)).unwrap().get("z").unwrap().to_f64()[0];
    let mut promotions = Promotions::default();
    let places: Vec<Place> =
        Oracle::new(&model).unwrap().constants().map(|constant| constant.place).collect();
    assert_eq!(places.len(), 2);
    places.into_iter().for_each(|place| promotions.constant(place, 2f64.sqrt()));
    assert!((run(Oracle::new(&model).unwrap()) - 2.0).abs() > 1e-9);
    assert!((run(Oracle::new(&model).unwrap().promoting(promotions.clone())) - 2.0).abs() < 1e-15);
    let single = || Oracle::with(&model, Precision::F32, Limits::default()).unwrap();
    assert_eq!(run(single()), run(single().promoting(promotions)));
}

#[test]
fn half_precision_is_not_rounded_in_the_exact_run() {
    let to = |op: Node, number: i64| with(op, "to", Attribute::Int(number));
    let nodes = vec![
        to(node("narrow", "Cast", &["x"], &["h"]), 10),
        node("scale", "Mul", &["h", "large"], &["product"]),
        node("back", "Div", &["product", "root"], &["quotient"]),
        to(node("wide", "Cast", &["quotient"], &["y"]), 1),
    ];
    let mut model = model(17, &["x"], nodes, &["y"]);
    let root = f16::from_f64(2f64.sqrt());
    constant(&mut model, "large", &Value::scalar(f16::from_f32(60000.0)));
    constant(&mut model, "root", &Value::scalar(root));
    let mut promotions = Promotions::default();
    promotions.constant(Place::Initializer("root".into()), 2f64.sqrt());
    let run = |precision: Precision, promotions: &Promotions| {
        let oracle =
            Oracle::with(&model, precision, Limits::default()).unwrap().promoting(promotions.clone());
        oracle.run(&x(1.7)).unwrap().get("y").unwrap().to_f64()[0]
    };
    let product = f64::from(1.7f32) * 60000.0;
    assert_eq!(run(Precision::Exact, &Promotions::default()), product / root.to_f64());
    assert_eq!(run(Precision::Exact, &promotions), product / 2f64.sqrt());
    // Beyond 65504, whatever the root is taken for.
    assert_eq!(run(Precision::F64, &promotions), f64::INFINITY);
    assert_eq!(run(Precision::F32, &promotions), f64::INFINITY);
}

#[test]
fn attributes_can_be_what_they_were_meant_to_be() {
    let quick = node("quick", "Selu", &["x"], &["y"]);
    let model = model(17, &["x"], vec![with(quick, "gamma", Attribute::Float(0.1))], &["y"]);
    let mut promotions = Promotions::default();
    let (quick, _) = Oracle::new(&model).unwrap().all_nodes().next().unwrap();
    promotions.attribute(quick, "gamma", 0.1);
    let run = |oracle: Oracle| oracle.run(&x(1.0)).unwrap().get("y").unwrap().to_f64()[0];
    assert_eq!(run(Oracle::new(&model).unwrap()), f64::from(0.1f32));
    assert_eq!(run(Oracle::new(&model).unwrap().promoting(promotions)), 0.1);
}

/// y = Selu(x) by two nodes that are both called `a/b/c`, written out: one in `a`'s function, which
/// is called `b/c` there, and one in that of `a/b`, which is called `c`.
fn two_nodes_of_one_name() -> Model {
    let function = |name: &str, inner: &str| Function {
        domain: "test".into(),
        name: name.into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        opsets: [(String::new(), 17)].into(),
        nodes: vec![with(node(inner, "Selu", &["in"], &["out"]), "gamma", Attribute::Float(0.1))],
        ..Function::default()
    };
    let call = |name: &str, op: &str, input: &str, output: &str| Node {
        domain: "test".into(),
        ..node(name, op, &[input], &[output])
    };
    let nodes = vec![call("a", "Outer", "x", "y"), call("a/b", "Inner", "x", "z")];
    let mut model = model(17, &["x"], nodes, &["y", "z"]);
    model.opsets.insert("test".into(), 1);
    model.functions = vec![function("Outer", "b/c"), function("Inner", "c")];
    model
}

#[test]
fn nodes_of_one_name_are_promoted_one_by_one() {
    let oracle = Oracle::new(&two_nodes_of_one_name()).unwrap();
    let nodes: Vec<(NodeId, String)> = oracle.all_nodes().map(|(id, node)| (id, node.name.clone())).collect();
    let [(first, name), (second, other)] = &nodes[..] else { panic!("two nodes: {nodes:?}") };
    assert!(name == other && name == "a/b/c" && first != second, "{nodes:?}");
    let mut promotions = Promotions::default();
    promotions.attribute(*first, "gamma", 0.1);
    let outputs = oracle.promoting(promotions).run(&x(1.0)).unwrap();
    assert_eq!(outputs.get("y").unwrap().to_f64(), [0.1]);
    assert_eq!(outputs.get("z").unwrap().to_f64(), [f64::from(0.1f32)]);
}

/// y = x · √2, with the root in a branch: as an initializer or as a `Constant`.
fn root_in_a_branch(as_node: bool) -> Model {
    let root = Value::scalar(2f32.sqrt());
    let mut branch = Graph {
        nodes: vec![node("product", "Mul", &["x", "root"], &["p"])],
        outputs: vec![spec("p", DType::F32)],
        ..Graph::default()
    };
    if as_node {
        let held = Attribute::Tensor(Constant::from_value(&root));
        branch.nodes.insert(0, with(node("held", "Constant", &[], &["root"]), "value", held));
    } else {
        branch.initializers.insert("root".into(), Constant::from_value(&root));
    }
    let other = Graph {
        nodes: vec![node("same", "Identity", &["x"], &["e"])],
        outputs: vec![spec("e", DType::F32)],
        ..Graph::default()
    };
    let choose = with(node("if", "If", &["c"], &["y"]), "then_branch", Attribute::Graph(Box::new(branch)));
    let choose = with(choose, "else_branch", Attribute::Graph(Box::new(other)));
    let mut model = model(17, &["x"], vec![choose], &["y"]);
    constant(&mut model, "c", &Value::scalar(true));
    model
}

#[test]
fn constants_within_a_branch_are_among_the_others() {
    for as_node in [false, true] {
        let oracle = Oracle::new(&root_in_a_branch(as_node)).unwrap();
        let places: Vec<Place> = oracle.constants().map(|constant| constant.place).collect();
        let [place] = &places[..] else { panic!("one constant: {places:?}") };
        let mut promotions = Promotions::default();
        promotions.constant(place.clone(), 2f64.sqrt());
        let outputs = oracle.promoting(promotions).run(&x(3.0)).unwrap();
        assert_eq!(outputs.get("y").unwrap().to_f64(), [3.0 * 2f64.sqrt()]);
    }
}

#[test]
fn what_follows_from_constants_alone_is_shown() {
    // (√a)·a is one such value; x·√a is none, and neither is what follows from an input that has a
    // default.
    let nodes = vec![
        node("root", "Sqrt", &["a"], &["r"]),
        node("product", "Mul", &["r", "a"], &["p"]),
        node("default", "Mul", &["r", "d"], &["q"]),
        node("with_x", "Mul", &["x", "p"], &["y"]),
        node("sum", "Add", &["y", "q"], &["z"]),
    ];
    let mut model = model(17, &["x", "d"], nodes, &["z"]);
    constant(&mut model, "a", &Value::new([2], vec![2f32, 3.0]).unwrap());
    constant(&mut model, "d", &Value::scalar(1f32));
    let mut seen = Vec::new();
    let see = |value: crate::Folded| {
        seen.push((value.name.to_string(), value.shape.to_vec(), value.elements().collect::<Vec<f64>>()));
    };
    Oracle::new(&model).unwrap().fold(see).unwrap();
    let (root, three) = (2f64.sqrt(), 3f64.sqrt());
    let expected = [("r", [root, three]), ("p", [root * 2.0, three * 3.0])]
        .map(|(name, elements)| (name.to_string(), vec![2], elements.to_vec()));
    assert_eq!(seen, expected);
}

#[test]
fn a_value_can_be_substituted() {
    let nodes = vec![node("first", "Neg", &["x"], &["y"]), node("second", "Neg", &["y"], &["z"])];
    let oracle = Oracle::new(&model(17, &["x"], nodes, &["z"])).unwrap();
    let with = |name: &str, value: Value| {
        oracle.run_with(&x(1.0), &["y", "z"], &NamedValues::from_iter([(name.to_string(), value)]))
    };
    let found = with("y", Value::scalar(5f64)).unwrap();
    assert_eq!((found.get("y"), found.get("z")), (Some(&Value::scalar(5f64)), Some(&Value::scalar(-5f64))));
    assert!(with("y", Value::new([1], [5f64]).unwrap()).unwrap_err().to_string().contains("substitute"));
    assert!(with("y", Value::scalar(5i64)).is_err());
    assert!(with("w", Value::scalar(5f64)).unwrap_err().to_string().contains('w'));
}

/// One head, two queries and keys, values 1 and 3: the first query sees the first key, the second
/// none. By the specification's text and function body (onnx 1.23) a bias of −∞ throughout gives
/// zeros, whatever the scores are, and the least finite number the mean of the values.
#[test]
fn a_query_that_may_look_nowhere_gives_zeros() {
    let attention = node("n", "Attention", &["q", "k", "v", "mask"], &["y"]);
    let run = |mask: Value, score: f32| {
        let mut given = model(23, &["q", "k", "v", "mask"], vec![attention.clone()], &["y"]);
        given.graph.inputs[3].dtype = mask.dtype();
        let rows = |a: f32, b: f32| Value::new([1, 1, 2, 1], vec![a, b]).unwrap();
        let inputs = NamedValues::from_iter([
            ("q", rows(score, score)),
            ("k", rows(score, score)),
            ("v", rows(1.0, 3.0)),
            ("mask", mask),
        ]);
        let y = Oracle::with(&given, Precision::F32, Limits::default()).unwrap().run(&inputs).unwrap();
        y.get("y").unwrap().to_f64()
    };
    let floats = |least: f32| Value::new([2, 2], vec![0.0, least, least, least]).unwrap();
    let bools = Value::new([2, 2], vec![true, false, false, false]).unwrap();
    assert_eq!(run(bools.clone(), 1.0), [1.0, 0.0]);
    assert_eq!(run(floats(f32::NEG_INFINITY), 1.0), [1.0, 0.0]);
    assert_eq!(run(floats(f32::MIN), 1.0), [1.0, 2.0]);
    // Scores of ∞: ∞ − ∞ is NaN, but not where the bias says that nothing is looked at.
    assert!(run(bools, 1e30)[0].is_nan());
    assert_eq!(run(floats(f32::NEG_INFINITY), 1e30)[1], 0.0);
}

/// Where all keys are masked by −10⁹, the sum is rounded to f32 and has swallowed the scores, as in
/// ONNX Runtime: the mean of the values. In f64 it has not.
#[test]
fn a_sum_of_scores_and_mask_is_rounded() {
    let attributes = |mut node: Node| {
        node.domain = "com.microsoft".into();
        node = with(node, "num_heads", Attribute::Int(1));
        with(node, "mask_filter_value", Attribute::Float(-1e9))
    };
    let fused = attributes(node("n", "MultiHeadAttention", &["q", "k", "v", "", "mask"], &["y"]));
    let mut given = model(17, &["q", "k", "v", "mask"], vec![fused], &["y"]);
    given.opsets.insert("com.microsoft".into(), 1);
    given.graph.inputs[3].dtype = DType::I32;
    let rows = |a: f32, b: f32| Value::new([1, 2, 1], vec![a, b]).unwrap();
    let mask = Value::new([1, 2], vec![0i32, 0]).unwrap();
    let inputs = NamedValues::from_iter([
        ("q", rows(3.0, 3.0)),
        ("k", rows(0.0, 1.0)),
        ("v", rows(1.0, 3.0)),
        ("mask", mask),
    ]);
    let run = |precision| {
        let oracle = Oracle::with(&given, precision, Limits::default()).unwrap();
        oracle.run(&inputs).unwrap().get("y").unwrap().to_f64()[0]
    };
    assert_eq!(run(Precision::F32), 2.0);
    assert!(run(Precision::F64) > 2.5);
}
