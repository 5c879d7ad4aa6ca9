//! Activations. Exponentials are arranged so that none overflows.

use engine::DType;

use super::Op;
use super::elementwise::{identity, unary};
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::tensor::{Data, Tensor};

/// 1 / (1 + e^−x)
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + libm::exp(-x))
    } else {
        let e = libm::exp(x);
        e / (1.0 + e)
    }
}

/// ln(1 + e^x)
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs())) + if x.is_nan() { x } else { 0.0 }
}

/// x · Φ(x), by the error function.
pub(super) fn gelu_erf(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))
pub(super) fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + libm::tanh(inner))
}

fn gelu(context: &Context) -> Outputs {
    match context.string("approximate", "none")? {
        "none" => unary(context, gelu_erf),
        "tanh" => unary(context, gelu_tanh),
        other => Err(Fault::argument("attribute 'approximate'", format!("'{other}'"), "'none' or 'tanh'")),
    }
}

fn elu(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 1.0)?;
    unary(context, |x| if x < 0.0 { alpha * libm::expm1(x) } else { x })
}

fn selu(context: &Context) -> Outputs {
    let (alpha, gamma) = (context.float("alpha", 1.673_263_2)?, context.float("gamma", 1.050_701)?);
    unary(context, |x| gamma * if x > 0.0 { x } else { alpha * libm::expm1(x) })
}

/// max(0, x) + min(0, α (e^(x/α) − 1))
fn celu(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 1.0)?;
    unary(context, |x| if x.is_nan() { x } else { x.max(0.0) + (alpha * libm::expm1(x / alpha)).min(0.0) })
}

fn hard_sigmoid(context: &Context) -> Outputs {
    let (alpha, beta) = (context.float("alpha", 0.2)?, context.float("beta", 0.5)?);
    unary(context, |x| (alpha * x + beta).clamp(0.0, 1.0))
}

fn leaky_relu(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 0.01)?;
    unary(context, |x| if x < 0.0 { alpha * x } else { x })
}

fn thresholded_relu(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 1.0)?;
    unary(context, |x| if x > alpha { x } else { 0.0 })
}

fn shrink(context: &Context) -> Outputs {
    let (lambda, bias) = (context.float("lambd", 0.5)?, context.float("bias", 0.0)?);
    let shrunk = |x: f64| {
        if x < -lambda {
            x + bias
        } else if x > lambda {
            x - bias
        } else {
            0.0
        }
    };
    let x = context.input(0)?;
    match &x.data {
        Data::Float(_) => unary(context, shrunk),
        Data::Int(ints) => Ok(vec![Tensor::int(x.dtype, ints.mapv(|x| shrunk(x as f64) as i128))]),
    }
}

fn swish(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 1.0)?;
    unary(context, |x| x * sigmoid(alpha * x))
}

fn swiglu(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 1.0)?;
    let dtype = context.same_dtype(0, 1)?;
    let (a, b) = (context.floats(0)?, context.floats(1)?);
    if a.shape() != b.shape() {
        return Err(Fault::Broadcast { left: a.shape().to_vec(), right: b.shape().to_vec() });
    }
    Ok(vec![Tensor::float(dtype, context.pairs(a, b, |a, b| a * sigmoid(alpha * a) * b)?)])
}

fn relu(context: &Context) -> Outputs {
    let x = context.input(0)?;
    match &x.data {
        Data::Float(_) => unary(context, |x| if x < 0.0 { 0.0 } else { x }),
        Data::Int(_) => Ok(vec![Tensor::int(x.dtype, context.ints(0)?.mapv(|x| x.max(0)))]),
    }
}

/// x where it is not negative, slope · x elsewhere; the slope is broadcast to x, never x to the slope.
fn prelu(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    match (&context.input(0)?.data, &context.input(1)?.data) {
        (Data::Float(x), Data::Float(slope)) => {
            let y = context.onto(x, slope, |x, slope| if x < 0.0 { slope * x } else { x })?;
            Ok(vec![Tensor::float(dtype, y)])
        }
        (Data::Int(x), Data::Int(slope)) => {
            let y = context.onto(x, slope, |x, slope| if x < 0 { slope.wrapping_mul(x) } else { x })?;
            Ok(vec![Tensor::int(dtype, y)])
        }
        _ => Err(Fault::Unsupported("a slope of another kind")),
    }
}

/// Inference: x itself, and a mask that keeps all. A graph that asks for training asks for chance.
fn dropout(context: &Context) -> Outputs {
    let training = match context.optional(2) {
        Some(_) => *context.scalar("training_mode", context.bools(2)?)? != 0,
        None => false,
    };
    let ratio = match context.optional(1) {
        Some(_) => *context.scalar("the ratio", context.floats(1)?)?,
        None => 0.5,
    };
    if training && ratio != 0.0 {
        return Err(Fault::NotDeterministic);
    }
    context.floats(0)?;
    let mask = Tensor::int(DType::Bool, ndarray::ArrayD::from_elem(context.input(0)?.shape(), 1));
    let mut outputs = identity(context)?;
    outputs.push(mask);
    Ok(outputs)
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("Celu", (1, 1), "alpha", celu).since(12),
    Op::onnx("Dropout", (1, 1), "ratio", dropout).outputs(2).until(11),
    Op::onnx("Dropout", (1, 3), "seed", dropout).outputs(2).since(12),
    Op::onnx("Elu", (1, 1), "alpha", elu),
    Op::onnx("Gelu", (1, 1), "approximate", gelu).since(20),
    Op::onnx("HardSigmoid", (1, 1), "alpha beta", hard_sigmoid),
    Op::onnx("HardSwish", (1, 1), "", |c| unary(c, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0))).since(14),
    Op::onnx("LeakyRelu", (1, 1), "alpha", leaky_relu),
    Op::onnx("Mish", (1, 1), "", |c| unary(c, |x| x * libm::tanh(softplus(x)))).since(18),
    Op::onnx("PRelu", (2, 2), "", prelu),
    Op::onnx("Relu", (1, 1), "", relu),
    Op::onnx("Selu", (1, 1), "alpha gamma", selu),
    Op::onnx("Shrink", (1, 1), "bias lambd", shrink).since(9),
    Op::onnx("Sigmoid", (1, 1), "", |c| unary(c, sigmoid)),
    Op::onnx("Softplus", (1, 1), "", |c| unary(c, softplus)),
    Op::onnx("Softsign", (1, 1), "", |c| unary(c, |x| x / (1.0 + x.abs()))),
    Op::onnx("SwiGLU", (2, 2), "alpha", swiglu).since(28),
    Op::onnx("Swish", (1, 1), "alpha", swish).since(24),
    Op::onnx("ThresholdedRelu", (1, 1), "alpha", thresholded_relu),
];
