use engine::{DType, Engine, NamedValues, ValueSpec};
use onnx_eval::Oracle;

use super::*;

fn spec(name: &str) -> ValueSpec {
    ValueSpec { name: name.into(), dtype: DType::F32, shape: None, optional: false }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let microsoft = matches!(op, "DynamicQuantizeMatMul" | "MatMulIntegerToFloat");
    Node {
        name: format!("n_{}", outputs[0]),
        op: op.into(),
        domain: if microsoft { "com.microsoft".into() } else { String::new() },
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: outputs.iter().map(ToString::to_string).collect(),
        ..Node::default()
    }
}

fn cast(from: &str, to: &str) -> Node {
    Node {
        attributes: [("to".to_string(), Attribute::Int(1))].into_iter().collect(),
        ..node("Cast", &[from], &[to])
    }
}

/// A model with the weights of two columns, u8 and i8, per tensor and per column.
fn model(nodes: Vec<Node>) -> Model {
    let mut graph = Graph { inputs: vec![spec("x")], outputs: vec![spec("y")], nodes, ..Graph::default() };
    let mut hold =
        |name: &str, value: Value| graph.initializers.insert(name.into(), Tensor::from_value(&value));
    hold("w", Value::new([3, 2], vec![3i8, -7, 100, 0, -128, 127]).unwrap());
    hold("scale", Value::new([2], vec![0.1f32, 0.02]).unwrap());
    hold("zero", Value::new([2], vec![1i8, -5]).unwrap());
    hold("bias", Value::new([2], vec![0.25f32, -4.0]).unwrap());
    hold("one scale", Value::scalar(0.03f32));
    hold("one zero", Value::scalar(60u8));
    let opsets = [(String::new(), 21), ("com.microsoft".to_string(), 1)].into();
    Model { ir_version: 10, opsets, graph, ..Model::default() }
}

const X: [f32; 6] = [0.3, -1.7, 2.0, 0.01, 5.5, -0.6];

fn run(model: &Model) -> Vec<f64> {
    let x = Value::new([2, 3], X.to_vec()).unwrap();
    let oracle = Oracle::new(model).unwrap();
    oracle.run(&NamedValues::from_iter([("x", x)])).unwrap().get("y").unwrap().to_f64()
}

/// x · dequantized w
fn meant(bias: bool) -> Vec<f64> {
    let w = [[3., -7.], [100., 0.], [-128., 127.]];
    let (scale, zero, added) = ([0.1f32, 0.02], [1., -5.], if bias { [0.25, -4.0] } else { [0.0; 2] });
    let element = |row: usize, column: usize| -> f64 {
        let terms = (0..3)
            .map(|k| f64::from(X[row * 3 + k]) * (w[k][column] - zero[column]) * f64::from(scale[column]));
        terms.sum::<f64>() + added[column]
    };
    vec![element(0, 0), element(0, 1), element(1, 0), element(1, 1)]
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// In floats a graph is the product with its dequantized weights; as it is it is off by its activations' steps.
#[track_caller]
fn is_the_product(nodes: Vec<Node>, bias: bool) {
    let model = model(nodes);
    let floats = in_floats(&model).unwrap().model;
    assert!(largest_difference(&run(&floats), &meant(bias)) < 1e-12);
    let as_it_is = largest_difference(&run(&model), &meant(bias));
    assert!((1e-4..0.5).contains(&as_it_is), "{as_it_is}");
}

#[test]
fn a_dynamically_quantized_product_in_its_usual_parts() {
    is_the_product(
        vec![
            node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]),
            node("MatMulInteger", &["q", "w", "z", "zero"], &["sums"]),
            cast("sums", "floats"),
            node("Mul", &["s", "scale"], &["both"]),
            node("Mul", &["floats", "both"], &["y"]),
        ],
        false,
    );
}

#[test]
fn the_fused_products() {
    is_the_product(vec![node("DynamicQuantizeMatMul", &["x", "w", "scale", "zero", "bias"], &["y"])], true);
    is_the_product(vec![node("DynamicQuantizeMatMul", &["x", "w", "scale", "zero"], &["y"])], false);
    let quantize = || node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]);
    let inputs = ["q", "w", "s", "scale", "z", "zero", "bias"];
    is_the_product(vec![quantize(), node("MatMulIntegerToFloat", &inputs, &["y"])], true);
    is_the_product(vec![quantize(), node("MatMulIntegerToFloat", &inputs[..6], &["y"])], false);
}

#[test]
fn a_statically_quantized_activation() {
    let axis = [("axis".to_string(), Attribute::Int(1))].into_iter().collect();
    is_the_product(
        vec![
            node("QuantizeLinear", &["x", "one scale", "one zero"], &["q"]),
            node("DequantizeLinear", &["q", "one scale", "one zero"], &["d"]),
            Node { attributes: axis, ..node("DequantizeLinear", &["w", "scale", "zero"], &["b"]) },
            node("MatMul", &["d", "b"], &["y"]),
        ],
        false,
    );
}

#[test]
fn wrong_weights_stay_wrong() {
    let mut model = model(vec![node("DynamicQuantizeMatMul", &["x", "w", "scale", "zero"], &["y"])]);
    model
        .graph
        .initializers
        .insert("zero".into(), Tensor::from_value(&Value::new([2], vec![2i8, -5]).unwrap()));
    assert!(largest_difference(&run(&in_floats(&model).unwrap().model), &meant(false)) > 0.01);
}

#[test]
fn what_cannot_be_written_in_floats_is_refused_by_name() {
    let by_column = vec![node("QuantizeLinear", &["x", "scale"], &["q"])];
    let said = in_floats(&model(by_column)).unwrap_err().to_string();
    assert!(said.contains("QuantizeLinear 'n_q'") && said.contains("more than one scale"), "{said}");
    let strange = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]),
        node("Transpose", &["q"], &["turned"]),
        node("QAttention", &["turned"], &["y"]),
    ];
    let said = in_floats(&model(strange)).unwrap_err().to_string();
    assert!(said.contains("QAttention 'n_y' takes quantized activations"), "{said}");
}

#[test]
fn a_graph_of_floats_stays_as_it_is() {
    let model = model(vec![node("MatMul", &["x", "x"], &["y"])]);
    assert_eq!(in_floats(&model).unwrap().model, model);
}
