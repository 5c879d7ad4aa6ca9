//! What ONNX Runtime's static quantizer writes beside QLinearMatMul: each takes quantised numbers,
//! computes with the floats that they stand for, and quantises the result.

use engine::DType;
use ndarray::ArrayD;

use super::normalize::softmax_axes;
use super::quantize::{integer_product, quantized, saturated, scaled, zero_point};
use super::shape::concatenated;
use super::{Op, normalize};
use crate::context::{Context, Outputs, along};
use crate::fault::Fault;
use crate::tensor::{Array, Data, Tensor};

/// The floats that an input stands for; its scale, then its zero point, which may be left out, come
/// after it.
fn floats(context: &Context, input: usize) -> Result<Array<f64>, Fault> {
    let x = quantized(context, input)?;
    let scale = *context.scalar("a scale", context.floats(input + 1)?)?;
    let zero = context.optional_int(input + 2, "a zero point", 0)?;
    if context.optional(input + 2).is_some() {
        context.same_dtype(input, input + 2)?;
    }
    Ok(x.mapv(|x| (x - zero) as f64 * scale).into_shared())
}

/// The floats in the dtype of an input, on the grid of a scale and, after it, a zero point, which
/// may be left out.
fn quantized_by(context: &Context, y: &ArrayD<f64>, like: usize, scale: usize) -> Outputs {
    if context.optional(scale + 1).is_some() {
        context.same_dtype(like, scale + 1)?;
    }
    quantized(context, like)?;
    let dtype = context.input(like)?.dtype;
    let zero = context.optional_int(scale + 1, "the zero point of y", 0)?;
    let scale = *context.scalar("the scale of y", context.floats(scale)?)?;
    Ok(vec![Tensor::int(dtype, y.mapv(|y| saturated(y / scale, zero, dtype)))])
}

fn binary(context: &Context, f: fn(f64, f64) -> f64) -> Outputs {
    context.same_dtype(0, 3)?;
    let y = context.pairs(&floats(context, 0)?, &floats(context, 3)?, f)?;
    quantized_by(context, &y, 0, 6)
}

fn unary(context: &Context, f: impl Fn(f64) -> f64) -> Outputs {
    quantized_by(context, &floats(context, 0)?.mapv(f), 0, 3)
}

fn leaky_relu(context: &Context) -> Outputs {
    let alpha = context.float("alpha", 0.01)?;
    unary(context, |x| if x < 0.0 { alpha * x } else { x })
}

/// Its attribute `opset` is that of the Softmax which it was made of.
fn softmax(context: &Context) -> Outputs {
    let opset = context.node.int("opset")?.ok_or(Fault::MissingAttribute("opset"))?;
    let x = floats(context, 0)?;
    let axes = softmax_axes(context, opset, x.ndim())?;
    quantized_by(context, &along(&x, &axes, normalize::softmax), 0, 3)
}

/// The scale and zero point of the result come first, then each part with its own.
fn concat(context: &Context) -> Outputs {
    let parts = context.inputs.len().saturating_sub(2) / 3;
    if context.inputs.len() != 2 + 3 * parts {
        let wanted = "two, and three for each part";
        return Err(Fault::argument("the number of inputs", context.inputs.len(), wanted));
    }
    let part = |index| Ok(Tensor { dtype: DType::F32, data: Data::Float(floats(context, 2 + 3 * index)?) });
    let parts = (0..parts).map(part).collect::<Result<Vec<_>, Fault>>()?;
    match concatenated(context, &parts.iter().collect::<Vec<_>>())?.data {
        Data::Float(y) => quantized_by(context, &y.into_owned(), 2, 0),
        Data::Int(_) => Err(Fault::Unsupported("a concatenation of integers")),
    }
}

fn select(context: &Context) -> Outputs {
    context.same_dtype(1, 4)?;
    let (x, y) = (floats(context, 1)?, floats(context, 4)?);
    let either = context.pairs(&x, &y, |x, y| (x, y))?.into_shared();
    let z = context.pairs(context.bools(0)?, &either, |c, (x, y)| if c != 0 { x } else { y })?;
    quantized_by(context, &z, 1, 7)
}

/// α (A − zero of A)(B − zero of B) and C, whose step is that of the product; in floats where there
/// is no scale for the result.
fn gemm(context: &Context) -> Outputs {
    let (a_t, b_t) = (context.flag("transA", false)?, context.flag("transB", false)?);
    let a = super::linear::matrix("input 0", quantized(context, 0)?, a_t)?;
    let b = super::linear::matrix("input 3", quantized(context, 3)?, b_t)?;
    let (a_zero, b_zero) = (zero_point(context, 2)?, zero_point(context, 5)?);
    context.scalar("the scale of A", context.floats(1)?)?;
    let mut product = integer_product(context, (&a, &a_zero), (&b, &b_zero))?;
    if context.optional(6).is_some() {
        let c = context.ints(6)?.mapv(|c| c as f64).into_shared();
        product = context.onto(&product, &c, |x, c| x + c)?.into_shared();
    }
    let alpha = context.float("alpha", 1.0)?;
    let y = scaled(context, product, context.floats(1)?, context.floats(4)?)?.mapv(|y| alpha * y);
    if context.optional(7).is_none() {
        return Ok(vec![Tensor::float(context.input(1)?.dtype, y)]);
    }
    // The result need not be of the dtype of A.
    let like = if context.optional(8).is_some() { 8 } else { 0 };
    quantized_by(context, &y.into_owned(), like, 7)
}

pub(super) const OPS: &[Op] = &[
    Op::microsoft("QGemm", (6, 9), "alpha transA transB", gemm),
    Op::microsoft("QLinearAdd", (7, 8), "", |c| binary(c, |a, b| a + b)),
    Op::microsoft("QLinearConcat", (5, super::ANY), "axis", concat),
    Op::microsoft("QLinearLeakyRelu", (4, 5), "alpha", leaky_relu),
    Op::microsoft("QLinearMul", (7, 8), "", |c| binary(c, |a, b| a * b)),
    Op::microsoft("QLinearSigmoid", (4, 5), "", |c| unary(c, |x| 1.0 / (1.0 + libm::exp(-x)))),
    Op::microsoft("QLinearSoftmax", (4, 5), "axis opset", softmax),
    Op::microsoft("QLinearWhere", (9, 9), "", select),
];
