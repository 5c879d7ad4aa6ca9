//! Parts of a graph, node by node.

use engine::Value;

use crate::selftest::edit::Nodes;

/// x/2 · (1 + erf(x/√2))
pub(super) fn gelu(nodes: &mut Nodes, x: &str) -> String {
    let root = nodes.number(std::f64::consts::FRAC_1_SQRT_2);
    let scaled = nodes.op("Mul", &[x, &root]);
    let erf = nodes.op("Erf", &[&scaled]);
    halved(nodes, x, &erf)
}

/// x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))
pub(super) fn gelu_tanh(nodes: &mut Nodes, x: &str) -> String {
    let (factor, cubic) = (nodes.number((2.0 / std::f64::consts::PI).sqrt()), nodes.number(0.044715));
    let square = nodes.op("Mul", &[x, x]);
    let cube = nodes.op("Mul", &[&square, x]);
    let third = nodes.op("Mul", &[&cube, &cubic]);
    let sum = nodes.op("Add", &[x, &third]);
    let inner = nodes.op("Mul", &[&sum, &factor]);
    let tanh = nodes.op("Tanh", &[&inner]);
    halved(nodes, x, &tanh)
}

/// x · sigmoid(1.702 x)
pub(super) fn quick_gelu(nodes: &mut Nodes, x: &str) -> String {
    let factor = nodes.number(1.702);
    let scaled = nodes.op("Mul", &[x, &factor]);
    let gate = nodes.op("Sigmoid", &[&scaled]);
    nodes.op("Mul", &[x, &gate])
}

/// x/2 · (1 + y)
pub(super) fn halved(nodes: &mut Nodes, x: &str, y: &str) -> String {
    let (one, half) = (nodes.number(1.0), nodes.number(0.5));
    let sum = nodes.op("Add", &[y, &one]);
    let product = nodes.op("Mul", &[x, &sum]);
    nodes.op("Mul", &[&product, &half])
}

/// The normalisation with the variance as mean(x²) − mean(x)².
pub(super) fn one_pass(nodes: &mut Nodes, x: &str, gain: &Value, bias: &Value, eps: f64) -> String {
    let mean = nodes.reduce_last("ReduceMean", x);
    let squares = nodes.op("Mul", &[x, x]);
    let mean_of_squares = nodes.reduce_last("ReduceMean", &squares);
    let square_of_mean = nodes.op("Mul", &[&mean, &mean]);
    let variance = nodes.op("Sub", &[&mean_of_squares, &square_of_mean]);
    let eps = nodes.number(eps);
    let sum = nodes.op("Add", &[&variance, &eps]);
    let deviation = nodes.op("Sqrt", &[&sum]);
    let centered = nodes.op("Sub", &[x, &mean]);
    let normalized = nodes.op("Div", &[&centered, &deviation]);
    let (gain, bias) = (nodes.constant(gain), nodes.constant(bias));
    let scaled = nodes.op("Mul", &[&normalized, &gain]);
    nodes.op("Add", &[&scaled, &bias])
}

/// The normalisation, node by node; `raw` without taking off the mean.
pub(super) fn layer_norm(
    nodes: &mut Nodes,
    x: &str,
    gain: &Value,
    bias: &Value,
    eps: f64,
    raw: bool,
) -> String {
    let mean = nodes.reduce_last("ReduceMean", x);
    let centered = if raw { x.to_string() } else { nodes.op("Sub", &[x, &mean]) };
    let square = nodes.op("Mul", &[&centered, &centered]);
    let variance = nodes.reduce_last("ReduceMean", &square);
    let eps = nodes.number(eps);
    let sum = nodes.op("Add", &[&variance, &eps]);
    let deviation = nodes.op("Sqrt", &[&sum]);
    let normalized = nodes.op("Div", &[&centered, &deviation]);
    let (gain, bias) = (nodes.constant(gain), nodes.constant(bias));
    let scaled = nodes.op("Mul", &[&normalized, &gain]);
    nodes.op("Add", &[&scaled, &bias])
}
