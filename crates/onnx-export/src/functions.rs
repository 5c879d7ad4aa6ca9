//! Layer normalisation, means and activations, in the operators that a dialect has.

use architecture::Activation;
use onnx_graph::Attribute;

use crate::FloatType;
use crate::builder::{Builder, Name};
use crate::dialect::Mean;

/// `(x − μ) / √(σ² + ε) · weight + bias`, over the last axis, which is that of the number `axis`.
/// In half precision all before the weight is f32, as LayerNormalization's `stash_type` has it by
/// default.
pub(crate) fn layer_norm(
    b: &mut Builder,
    module: &str,
    x: &Name,
    (weight, bias): (&Name, Option<&Name>),
    (size, axis, eps): (usize, i64, f64),
) -> Name {
    if b.dialect.layer_normalization {
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(eps as f32))];
        let inputs: Vec<&Name> = [x, weight].into_iter().chain(bias).collect();
        return b.node_with(module, "LayerNormalization", &inputs, attributes);
    }
    let (two, eps) = (b.single("two", 2.0), b.single(&format!("layer_norm_eps_{eps:e}"), eps));
    let is_half = b.dtype == FloatType::F16;
    let x = if is_half { b.cast(module, x, FloatType::F32) } else { x.clone() };
    let mean = mean(b, module, &x, (size, axis));
    let centered = b.node(module, "Sub", &[&x, &mean]);
    let squares = b.node(module, "Pow", &[&centered, &two]);
    let variance = self::mean(b, module, &squares, (size, axis));
    let sum = b.node(module, "Add", &[&variance, &eps]);
    let deviation = b.node(module, "Sqrt", &[&sum]);
    let normalized = b.node(module, "Div", &[&centered, &deviation]);
    let normalized = if is_half { b.cast(module, &normalized, FloatType::F16) } else { normalized };
    let scaled = b.node(module, "Mul", &[&normalized, weight]);
    match bias {
        Some(bias) => b.node(module, "Add", &[&scaled, bias]),
        None => scaled,
    }
}

/// The mean over the last axis, which is `size` long and stays, with length 1.
fn mean(b: &mut Builder, module: &str, x: &Name, (size, axis): (usize, i64)) -> Name {
    match b.dialect.mean {
        Mean::AxesAttribute => b.node_with(module, "ReduceMean", &[x], [("axes", Attribute::Ints(vec![-1]))]),
        Mean::AxesInput => {
            let axes = b.ints(&[-1]);
            b.node(module, "ReduceMean", &[x, &axes])
        }
        Mean::Sum => {
            // Counted from the first: candle-onnx does not know negative ones here.
            let (axes, size) = (b.ints(&[axis]), b.single(&format!("size_{size}"), size as f64));
            let sum = b.node(module, "ReduceSum", &[x, &axes]);
            b.node(module, "Div", &[&sum, &size])
        }
    }
}

/// The formula that the name stands for in transformers; see [`Activation`].
pub(crate) fn activation(b: &mut Builder, module: &str, activation: Activation, x: &Name) -> Name {
    match activation {
        Activation::Gelu if b.dialect.gelu => b.node(module, "Gelu", &[x]),
        Activation::Gelu => {
            let (root, one, half) =
                (b.scalar("sqrt_2", 2f64.sqrt()), b.scalar("one", 1.0), b.scalar("half", 0.5));
            let scaled = b.node(module, "Div", &[x, &root]);
            let erf = b.node(module, "Erf", &[&scaled]);
            let sum = b.node(module, "Add", &[&erf, &one]);
            let product = b.node(module, "Mul", &[x, &sum]);
            b.node(module, "Mul", &[&product, &half])
        }
        Activation::GeluTanh if b.dialect.gelu_tanh => {
            b.node_with(module, "Gelu", &[x], [("approximate", Attribute::String("tanh".into()))])
        }
        // x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))
        Activation::GeluTanh => {
            let (three, cubic) = (b.scalar("three", 3.0), b.scalar("gelu_cubic", 0.044715));
            let factor = b.scalar("sqrt_2_over_pi", std::f64::consts::FRAC_2_PI.sqrt());
            let cube = b.node(module, "Pow", &[x, &three]);
            let cube = b.node(module, "Mul", &[&cube, &cubic]);
            let sum = b.node(module, "Add", &[x, &cube]);
            let inner = b.node(module, "Mul", &[&sum, &factor]);
            half_of_one_plus_tanh(b, module, x, &inner)
        }
        // x/2 · (1 + tanh(0.7978845608 · x · (1 + 0.044715 x²)))
        Activation::GeluFast => {
            let (one, cubic) = (b.scalar("one", 1.0), b.scalar("gelu_cubic", 0.044715));
            let factor = b.scalar("gelu_fast_factor", 0.797_884_560_8);
            let scaled = b.node(module, "Mul", &[x, &factor]);
            let square = b.node(module, "Mul", &[x, x]);
            let square = b.node(module, "Mul", &[&square, &cubic]);
            let sum = b.node(module, "Add", &[&square, &one]);
            let inner = b.node(module, "Mul", &[&scaled, &sum]);
            half_of_one_plus_tanh(b, module, x, &inner)
        }
        Activation::QuickGelu => {
            let factor = b.scalar("quick_gelu_factor", 1.702);
            let scaled = b.node(module, "Mul", &[x, &factor]);
            times_sigmoid(b, module, x, &scaled)
        }
        Activation::Relu => b.node(module, "Relu", &[x]),
        Activation::Silu => times_sigmoid(b, module, x, x),
        Activation::Tanh => b.node(module, "Tanh", &[x]),
        Activation::Sigmoid => b.node(module, "Sigmoid", &[x]),
    }
}

/// x/2 · (1 + tanh(inner))
fn half_of_one_plus_tanh(b: &mut Builder, module: &str, x: &Name, inner: &Name) -> Name {
    let (one, half) = (b.scalar("one", 1.0), b.scalar("half", 0.5));
    let tanh = b.node(module, "Tanh", &[inner]);
    let sum = b.node(module, "Add", &[&tanh, &one]);
    let halved = b.node(module, "Mul", &[x, &half]);
    b.node(module, "Mul", &[&halved, &sum])
}

/// x · σ(inner)
fn times_sigmoid(b: &mut Builder, module: &str, x: &Name, inner: &Name) -> Name {
    let sigmoid = b.node(module, "Sigmoid", &[inner]);
    b.node(module, "Mul", &[x, &sigmoid])
}
