//! Quantisation: y = saturate(round(x / scale) + zero point), ties to even.

use engine::DType;
use ndarray::{ArrayD, IxDyn};

use super::Op;
use super::cast::dtype;
use super::linear::matmul;
use super::normalize::{self, plus};
use crate::context::{Context, Outputs, axis};
use crate::fault::Fault;
use crate::round::int_range;
use crate::tensor::{Array, Tensor, reshaped};

/// A scale or zero point under the shape of what it is for: one for all, one for each place of an axis, or one for each block along it.
fn spread<T: Clone>(context: &Context, part: &Array<T>, shape: &[usize]) -> Result<Array<T>, Fault> {
    let wrong = || {
        let wanted = format!("one element, or what the axis of {shape:?} needs");
        Fault::shape("a scale or zero point", part.shape(), wanted)
    };
    if part.len() == 1 && part.ndim() <= 1 {
        return Ok(reshaped(part, &[])?.into_shared());
    }
    if context.opset < 13 && context.node.domain.is_empty() {
        return Err(wrong());
    }
    let along = axis(context.int("axis", 1)?, shape.len())?;
    let block = context.int("block_size", 0)?;
    if block == 0 {
        if part.shape() != [shape[along]] {
            return Err(wrong());
        }
        let mut aligned = vec![1; shape.len()];
        aligned[along] = shape[along];
        return Ok(reshaped(part, &aligned)?.into_shared());
    }
    let block = usize::try_from(block).map_err(|_| wrong())?;
    let mut blocks = shape.to_vec();
    blocks[along] = shape[along].div_ceil(block);
    if part.shape() != blocks {
        return Err(wrong());
    }
    let source = |mut at: IxDyn| {
        at[along] /= block;
        part[&at].clone()
    };
    Ok(ArrayD::from_shape_fn(IxDyn(shape), source).into_shared())
}

/// A zero point that may be left out.
pub(super) fn zero_point(context: &Context, input: usize) -> Result<Array<i128>, Fault> {
    match context.optional(input) {
        Some(_) => Ok(context.ints(input)?.clone()),
        None => Ok(ArrayD::zeros(IxDyn(&[])).into_shared()),
    }
}

/// The nearest integer, moved by the zero point and cut to what the dtype holds.
pub(super) fn saturated(x: f64, zero: i128, dtype: DType) -> i128 {
    let (least, most) = int_range(dtype);
    (x.round_ties_even() as i128).saturating_add(zero).clamp(least, most)
}

fn quantized_dtype(context: &Context, zero: usize) -> Result<DType, Fault> {
    let asked = match context.int("output_dtype", 0)? {
        0 => None,
        number => Some(dtype(number)?),
    };
    let found = match (asked, context.optional(zero)) {
        (Some(asked), Some(zero)) if zero.dtype != asked => {
            return Err(Fault::Mixed { first: asked, second: zero.dtype });
        }
        (Some(asked), _) => asked,
        (None, Some(zero)) => zero.dtype,
        (None, None) => DType::U8,
    };
    match found {
        DType::U8 | DType::I8 | DType::U16 | DType::I16 => Ok(found),
        _ => Err(Fault::DType { input: zero, found, wanted: "an integer of 8 or 16 bits" }),
    }
}

fn quantize(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let to = quantized_dtype(context, 2)?;
    // The quotient is a number of the scale's dtype, unless another one is asked for: that decides ties.
    let precision = match context.int("precision", 0)? {
        0 => context.input(1)?.dtype,
        number => dtype(number)?,
    };
    let scale = spread(context, context.floats(1)?, x.shape())?;
    let zero = spread(context, &zero_point(context, 2)?, x.shape())?;
    let quotient = context.onto(&x.to_floats(), &scale, |x, scale| context.round(x / scale, precision))?;
    let y = context.onto(&quotient.into_shared(), &zero, |x, zero| saturated(x, zero, to))?;
    Ok(vec![Tensor::int(to, y)])
}

fn dequantize(context: &Context) -> Outputs {
    let x = context.ints(0)?;
    let to = match context.int("output_dtype", 0)? {
        0 => context.input(1)?.dtype,
        number => dtype(number)?,
    };
    if context.optional(2).is_some() {
        context.same_dtype(0, 2)?;
    }
    let scale = spread(context, context.floats(1)?, x.shape())?;
    let zero = spread(context, &zero_point(context, 2)?, x.shape())?;
    let centred = context.onto(x, &zero, |x, zero| (x - zero) as f64)?.into_shared();
    Ok(vec![Tensor::float(to, context.onto(&centred, &scale, |x, scale| x * scale)?)])
}

/// u8 with the scale and zero point that just cover the values and 0.
pub(super) struct Dynamic {
    pub y: ArrayD<i128>,
    pub scale: f64,
    pub zero: i128,
}

pub(super) fn dynamic(context: &Context, x: &Array<f64>) -> Dynamic {
    let round = |x: f64| context.round(x, DType::F32);
    let (low, high) = x.iter().fold((0.0f64, 0.0f64), |(low, high), &x| (low.min(x), high.max(x)));
    let scale = round(round(high - low) / 255.0);
    // Nothing but zeros: 0 / 0, which is taken for 0.
    let quotient = |x: f64| if scale == 0.0 { 0.0 } else { round(x / scale) };
    let zero = saturated(-quotient(low), 0, DType::U8);
    Dynamic { y: x.mapv(|x| saturated(quotient(x), zero, DType::U8)), scale, zero }
}

fn dynamic_quantize(context: &Context) -> Outputs {
    let Dynamic { y, scale, zero } = dynamic(context, context.floats(0)?);
    let scalar = IxDyn(&[]);
    Ok(vec![
        Tensor::int(DType::U8, y),
        Tensor::float(DType::F32, ArrayD::from_elem(scalar.clone(), scale)),
        Tensor::int(DType::U8, ArrayD::from_elem(scalar, zero)),
    ])
}

/// A quantised matrix.
pub(super) fn quantized<'a>(context: &'a Context, input: usize) -> Result<&'a Array<i128>, Fault> {
    match context.input(input)?.dtype {
        DType::U8 | DType::I8 => context.ints(input),
        found => Err(Fault::DType { input, found, wanted: "u8 or i8" }),
    }
}

/// What belongs to the rows of a matrix stands as a column: a list of as many as there are rows.
fn by_row<T: Clone>(part: &Array<T>, matrix: &[usize]) -> Result<Array<T>, Fault> {
    if part.ndim() == 1 && part.len() > 1 && matrix.len() >= 2 {
        return Ok(reshaped(part, &[part.len(), 1])?.into_shared());
    }
    Ok(if part.len() == 1 { reshaped(part, &[])?.into_shared() } else { part.clone() })
}

fn by_column<T: Clone>(part: &Array<T>) -> Result<Array<T>, Fault> {
    Ok(if part.len() == 1 { reshaped(part, &[])?.into_shared() } else { part.clone() })
}

/// (A − zero of A)(B − zero of B). The sums are exact in f64: of fewer than 2^34 products of numbers below 2^9.
pub(super) fn integer_product(
    context: &Context,
    (a, a_zero): (&Array<i128>, &Array<i128>),
    (b, b_zero): (&Array<i128>, &Array<i128>),
) -> Result<Array<f64>, Fault> {
    let (a_zero, b_zero) = (by_row(a_zero, a.shape())?, by_column(b_zero)?);
    let a = context.onto(a, &a_zero, |x, zero| (x - zero) as f64)?.into_shared();
    let b = context.onto(b, &b_zero, |x, zero| (x - zero) as f64)?.into_shared();
    Ok(matmul(context, &a, &b)?.into_shared())
}

fn mat_mul_integer(context: &Context) -> Outputs {
    let (a, b) = (quantized(context, 0)?, quantized(context, 1)?);
    let (a_zero, b_zero) = (zero_point(context, 2)?, zero_point(context, 3)?);
    let product = integer_product(context, (a, &a_zero), (b, &b_zero))?;
    Ok(vec![Tensor::int(DType::I32, product.mapv(|x| x as i128))])
}

fn q_linear_mat_mul(context: &Context) -> Outputs {
    let (a, b) = (quantized(context, 0)?, quantized(context, 3)?);
    let product = integer_product(context, (a, context.ints(2)?), (b, context.ints(5)?))?;
    let a_scale = by_row(context.floats(1)?, a.shape())?;
    let b_scale = by_column(context.floats(4)?)?;
    let y_scale = *context.scalar("the scale of y", context.floats(6)?)?;
    let zero = *context.scalar("the zero point of y", context.ints(7)?)?;
    let to = context.input(7)?.dtype;
    let y = scaled(context, product, &a_scale, &b_scale)?;
    Ok(vec![Tensor::int(to, y.mapv(|x| saturated(x / y_scale, zero, to)))])
}

/// The product times the scales of both matrices.
pub(super) fn scaled(
    context: &Context,
    product: Array<f64>,
    a_scale: &Array<f64>,
    b_scale: &Array<f64>,
) -> Result<Array<f64>, Fault> {
    let y = normalize::scaled(context, product, Some(a_scale), None)?;
    normalize::scaled(context, y, Some(b_scale), None)
}

/// A and B quantised, the product in floats.
fn mat_mul_integer_to_float(context: &Context) -> Outputs {
    let (a, b) = (quantized(context, 0)?, quantized(context, 1)?);
    let (a_zero, b_zero) = (zero_point(context, 4)?, zero_point(context, 5)?);
    let product = integer_product(context, (a, &a_zero), (b, &b_zero))?;
    let (a_scale, b_scale) = (by_row(context.floats(2)?, a.shape())?, by_column(context.floats(3)?)?);
    let y = scaled(context, product, &a_scale, &b_scale)?;
    Ok(vec![Tensor::float(
        context.input(2)?.dtype,
        plus(context, y, context.optional_floats(6)?)?.into_owned(),
    )])
}

/// A in floats, quantised as DynamicQuantizeLinear does, B quantised.
fn dynamic_quantize_mat_mul(context: &Context) -> Outputs {
    let Dynamic { y: a, scale, zero } = dynamic(context, context.floats(0)?);
    let scalar = IxDyn(&[]);
    let (zero, scale) = (ArrayD::from_elem(scalar.clone(), zero), ArrayD::from_elem(scalar, scale));
    let b_zero = zero_point(context, 3)?;
    let product =
        integer_product(context, (&a.into_shared(), &zero.into_shared()), (quantized(context, 1)?, &b_zero))?;
    let y = scaled(context, product, &scale.into_shared(), &by_column(context.floats(2)?)?)?;
    Ok(vec![Tensor::float(
        context.input(0)?.dtype,
        plus(context, y, context.optional_floats(4)?)?.into_owned(),
    )])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("DequantizeLinear", (2, 3), "", dequantize).since(10).until(12),
    Op::onnx("DequantizeLinear", (2, 3), "axis", dequantize).since(13).until(20),
    Op::onnx("DequantizeLinear", (2, 3), "axis block_size", dequantize).since(21).until(22),
    Op::onnx("DequantizeLinear", (2, 3), "axis block_size output_dtype", dequantize).since(23),
    Op::onnx("DynamicQuantizeLinear", (1, 1), "", dynamic_quantize).outputs(3),
    Op::onnx("MatMulInteger", (2, 4), "", mat_mul_integer).since(10),
    Op::onnx("QLinearMatMul", (8, 8), "", q_linear_mat_mul),
    // `saturate` is about 8-bit floats.
    Op::onnx("QuantizeLinear", (2, 3), "", quantize).since(10).until(12),
    Op::onnx("QuantizeLinear", (2, 3), "axis", quantize).since(13).until(18),
    Op::onnx("QuantizeLinear", (2, 3), "axis saturate", quantize).since(19).until(20),
    Op::onnx("QuantizeLinear", (2, 3), "axis block_size output_dtype saturate", quantize).since(21).until(22),
    Op::onnx("QuantizeLinear", (2, 3), "axis block_size output_dtype precision saturate", quantize).since(23),
    Op::microsoft("DequantizeLinear", (2, 3), "axis", dequantize),
    Op::microsoft("DynamicQuantizeMatMul", (3, 5), "", dynamic_quantize_mat_mul),
    Op::microsoft("MatMulIntegerToFloat", (4, 7), "", mat_mul_integer_to_float),
    Op::microsoft("QuantizeLinear", (2, 3), "axis", quantize),
];
