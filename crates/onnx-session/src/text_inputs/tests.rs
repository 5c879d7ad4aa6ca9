use engine::{Engine, NamedValues, Value, ValueSpec};
use onnx_eval::Oracle;
use onnx_graph::{Attribute, Graph, Node, Tensor};

use super::adapt::node;
use super::*;

const TABLES: Tables = Tables { vocabulary: 5, token_types: 2 };

fn dims(names: &[&str]) -> Vec<Dim> {
    names.iter().map(|name| name.parse().map_or_else(|_| Dim::Symbol((*name).into()), Dim::Fixed)).collect()
}

fn spec(name: &str, dtype: DType, shape: &[&str]) -> ValueSpec {
    ValueSpec { name: name.into(), dtype, shape: Some(dims(shape)), optional: false }
}

fn with(mut node: Node, name: &str, attribute: Attribute) -> Node {
    node.attributes.insert(name.into(), attribute);
    node
}

/// A row of each of two tables, weighed by the mask: y = (words[ids] + types[types]) · mask, and
/// the sum of all tokens. `nodes` make `weights`, f32 `[batch, sequence]`.
fn model(inputs: Vec<ValueSpec>, nodes: Vec<Node>) -> Model {
    let [ids, _, types] = [0, 1, 2].map(|at| inputs[at].name.clone());
    let initializer = |name: &str, value: Value| (name.to_string(), Tensor::from_value(&value));
    let words: Vec<f32> = (0..10).map(|x| x as f32).collect();
    let mut all = vec![
        node("Gather", &["words", &ids], "word"),
        node("Gather", &["types", &types], "type"),
        node("Add", &["word", "type"], "sum"),
    ];
    all.extend(nodes);
    all.push(node("Unsqueeze", &["weights", "minus one"], "column"));
    all.push(node("Mul", &["sum", "column"], "y"));
    all.push(node("ReduceSum", &["y", "one"], "total"));
    let graph = Graph {
        inputs,
        outputs: vec![spec("y", DType::F32, &["b", "s", "2"]), spec("total", DType::F32, &["b", "1", "2"])],
        initializers: [
            initializer("words", Value::new([5, 2], words).unwrap()),
            initializer("types", Value::new([2, 2], vec![0f32, 0., 100., 100.]).unwrap()),
            initializer("minus one", Value::new([1], vec![-1i64]).unwrap()),
            initializer("one", Value::new([1], vec![1i64]).unwrap()),
            initializer("zero", Value::scalar(0i64)),
            initializer("zero.f32", Value::scalar(0f32)),
        ]
        .into(),
        nodes: all,
        ..Graph::default()
    };
    let model = Model { ir_version: 8, opsets: [(String::new(), 17)].into(), graph, ..Model::default() };
    model.check().unwrap();
    model
}

fn cast(input: &str, output: &str) -> Node {
    with(node("Cast", &[input], output), "to", Attribute::Int(1))
}

/// With these names, all int64 of two axes.
fn named(names: [&str; 3]) -> Model {
    let inputs = names.map(|name| spec(name, DType::I64, &["b", "s"]));
    model(inputs.to_vec(), vec![cast(names[1], "weights")])
}

/// What it gives for two rows of three tokens, the last of which is masked in the first.
fn run(model: &Model) -> Vec<f64> {
    let value = |elements: [i64; 6]| Value::new([2, 3], elements.to_vec()).unwrap();
    let inputs = NamedValues::from_iter([
        ("input_ids", value([1, 2, 3, 4, 0, 1])),
        ("attention_mask", value([1, 1, 0, 1, 1, 1])),
        ("token_type_ids", value([0, 1, 0, 0, 0, 1])),
    ]);
    model.check().unwrap();
    Oracle::new(model).unwrap().run(&inputs).unwrap().get("y").unwrap().to_f64()
}

const RIGHT: [f64; 12] = [2., 3., 104., 105., 0., 0., 8., 9., 0., 1., 102., 103.];

fn usual(model: Model) -> Result<(Model, Notes), InputError> {
    with_text_inputs(model, &BTreeMap::new(), TABLES)
}

#[test]
fn a_graph_with_the_usual_inputs_stays_as_it_is() {
    let model = named(["input_ids", "attention_mask", "token_type_ids"]);
    assert_eq!(usual(model.clone()).unwrap(), (model, Vec::new()));
}

#[test]
fn inputs_are_known_by_other_names_and_by_use() {
    for names in [
        ["input_ids", "input_mask", "segment_ids"],
        ["input_ids:0", "attention_mask:0", "token_type_ids:0"],
        [
            "serving_default_input_word_ids:0",
            "serving_default_input_mask:0",
            "serving_default_input_type_ids:0",
        ],
        ["input.1", "input.2", "input.3"],
        ["0", "attention_mask", "2"],
    ] {
        let (model, notes) = usual(named(names)).unwrap();
        assert_eq!(run(&model), RIGHT, "{names:?}");
        let renamed = names.iter().filter(|name| !["input_ids", "attention_mask"].contains(name)).count();
        assert_eq!(notes.len(), renamed, "{notes:?}");
    }
    let (_, notes) = usual(named(["x", "mask", "z"])).unwrap();
    assert_eq!(
        notes,
        [
            "input 'x' is taken for input_ids",
            "input 'mask' is taken for attention_mask",
            "input 'z' is taken for token_type_ids"
        ]
    );
}

#[test]
fn what_is_said_of_inputs_goes_before_their_names() {
    let exchanged = named(["input_ids", "token_type_ids", "attention_mask"]);
    let given = [("attention_mask", "token_type_ids"), ("token_type_ids", "attention_mask")];
    let given = given.map(|(usual, name)| (usual.to_string(), name.to_string())).into();
    assert_ne!(run(&usual(exchanged.clone()).unwrap().0), RIGHT);
    let (model, _) = with_text_inputs(exchanged, &given, TABLES).unwrap();
    assert_eq!(run(&model), RIGHT);
}

#[test]
fn masks_of_every_form() {
    let reshaped = |inner: &str| {
        let first = with(node("Gather", &[inner, "zero"], "first"), "axis", Attribute::Int(1));
        vec![first, cast("first", "weights")]
    };
    let inputs = |dtype, shape: &[&str]| {
        let ids = |name| spec(name, DType::I64, &["b", "s"]);
        vec![ids("input_ids"), spec("attention_mask", dtype, shape), ids("token_type_ids")]
    };
    let flat = vec![cast("attention_mask", "weights")];
    // Of rank 4 the first of its heads, and of those who attend, is taken.
    let of_four = || {
        let head = with(node("Gather", &["attention_mask", "zero"], "head"), "axis", Attribute::Int(1));
        [vec![head], reshaped("head")].concat()
    };
    // Added: 0 is a token that is real.
    let added = || {
        let mut nodes = of_four();
        nodes.pop();
        nodes.extend([node("Equal", &["first", "zero.f32"], "is zero"), cast("is zero", "weights")]);
        nodes
    };
    for (dtype, shape, nodes, says) in [
        (DType::F32, &["b", "s"][..], flat.clone(), "is made of a mask of int64, 1 for a real token"),
        (DType::Bool, &["b", "s"], flat.clone(), "is made of"),
        (DType::F16, &["b", "s"], flat, "is made of"),
        (DType::I64, &["b", "s", "s"], reshaped("attention_mask"), "is made of"),
        (DType::I64, &["b", "1", "s"], reshaped("attention_mask"), "is made of"),
        (DType::Bool, &["b", "1", "s", "s"], of_four(), "is made of"),
        (DType::I32, &["b", "2", "s", "s"], of_four(), "is made of"),
        (DType::F32, &["b", "1", "1", "s"], of_four(), "is taken for a mask that is multiplied"),
        (DType::F32, &["b", "1", "s", "s"], added(), "is taken for a mask that is added"),
    ] {
        let (model, notes) = usual(model(inputs(dtype, shape), nodes)).unwrap();
        assert_eq!(run(&model), RIGHT, "{dtype} {shape:?}");
        assert!(notes.len() == 1 && notes[0].contains(says), "{notes:?}");
    }
}

#[test]
fn positions_are_numbered() {
    for (dtype, shape) in [(DType::I64, &["b", "s"][..]), (DType::I32, &["1", "s"]), (DType::I64, &["s"])] {
        let mut inputs = named(["input_ids", "attention_mask", "token_type_ids"]).graph.inputs;
        inputs.push(spec("position_ids", dtype, shape));
        // The weight of a token is its mask and its position.
        let nodes = vec![
            cast("attention_mask", "own"),
            cast("position_ids", "position"),
            node("Add", &["own", "position"], "weights"),
        ];
        let (model, notes) = usual(model(inputs, nodes)).unwrap();
        assert_eq!(model.graph.inputs.len(), 3);
        assert_eq!(notes.len(), 1);
        let weights = [1., 2., 2., 1., 2., 3.];
        let sums = [2., 3., 104., 105., 6., 7., 8., 9., 0., 1., 102., 103.];
        let expected: Vec<f64> = sums.iter().enumerate().map(|(at, sum)| sum * weights[at / 2]).collect();
        assert_eq!(run(&model), expected, "{shape:?}");
    }
}

#[test]
fn what_no_text_has_is_an_error_with_its_cure() {
    let mut inputs = named(["input_ids", "attention_mask", "token_type_ids"]).graph.inputs;
    inputs.push(spec("pixels", DType::F32, &["b", "3"]));
    let error = usual(model(inputs, vec![cast("attention_mask", "weights")])).unwrap_err().to_string();
    assert!(error.starts_with("the graph wants input 'pixels f32[b, 3]', which by its name"), "{error}");
    assert!(error.ends_with("say which it is, as in --input attention_mask=pixels"), "{error}");

    let given = |usual: &str, name: &str| {
        let given = [(usual.to_string(), name.to_string())].into();
        let model = named(["input_ids", "attention_mask", "token_type_ids"]);
        with_text_inputs(model, &given, TABLES).unwrap_err().to_string()
    };
    assert_eq!(
        given("attention_mask", "m"),
        "--input attention_mask=m: the graph has no input 'm'; it has input_ids, attention_mask, token_type_ids"
    );
    let both = ["attention_mask", "token_type_ids"].map(|usual| (usual.to_string(), "x".to_string()));
    let error = with_text_inputs(named(["input_ids", "x", "z"]), &both.into(), TABLES).unwrap_err();
    assert_eq!(error.to_string(), "--input: 'x' is said to be attention_mask and token_type_ids: say which");
    assert!(given("ids", "input_ids").contains("'ids' is none of input_ids, attention_mask,"));
    let mut floats = named(["input_ids", "attention_mask", "token_type_ids"]);
    floats.graph.inputs[2].dtype = DType::F32;
    let error = usual(floats).unwrap_err().to_string();
    assert!(
        error.starts_with("the graph wants input 'token_type_ids f32[b, s]', which cannot be made"),
        "{error}"
    );
}

#[test]
fn a_graph_that_reads_no_text_is_left_alone() {
    let graph = Graph {
        inputs: vec![spec("pixels", DType::F32, &["b", "3"])],
        outputs: vec![spec("y", DType::F32, &["b", "3"])],
        nodes: vec![node("Identity", &["pixels"], "y")],
        ..Graph::default()
    };
    let model = Model { ir_version: 8, opsets: [(String::new(), 17)].into(), graph, ..Model::default() };
    assert_eq!(usual(model.clone()).unwrap(), (model, Vec::new()));
}
