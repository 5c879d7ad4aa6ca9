//! Arithmetic and functions of one element, or of one element of each input.

use engine::DType;

use super::{ANY, Op};
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::tensor::{Data, Tensor, each};

/// `f` of each float.
pub(super) fn unary(context: &Context, f: impl Fn(f64) -> f64) -> Outputs {
    let x = context.floats(0)?;
    Ok(vec![Tensor::float(context.input(0)?.dtype, x.mapv(f))])
}

/// `f` of each float, or `g` of each integer.
fn number(context: &Context, f: impl Fn(f64) -> f64, g: impl Fn(i128) -> i128) -> Outputs {
    let x = numeric(context, 0)?;
    Ok(vec![match &x.data {
        Data::Float(array) => Tensor::float(x.dtype, array.mapv(f)),
        Data::Int(array) => Tensor::int(x.dtype, array.mapv(g)),
    }])
}

/// An input that is no bool.
fn numeric<'a>(context: &'a Context, input: usize) -> Result<&'a Tensor, Fault> {
    let x = context.input(input)?;
    match x.dtype {
        DType::Bool => Err(Fault::DType { input, found: DType::Bool, wanted: "a number" }),
        _ => Ok(x),
    }
}

/// `f` of two floats, or `g` of two integers, both of one dtype.
fn binary(
    context: &Context,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f64, f64) -> f64,
    g: impl Fn(i128, i128) -> i128,
) -> Result<Tensor, Fault> {
    match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) if a.dtype == b.dtype => {
            Ok(Tensor::float(a.dtype, context.pairs(x, y, f)?))
        }
        (Data::Int(x), Data::Int(y)) if a.dtype == b.dtype => {
            Ok(Tensor::int(a.dtype, context.pairs(x, y, g)?))
        }
        _ => Err(Fault::Mixed { first: a.dtype, second: b.dtype }),
    }
}

fn arithmetic(context: &Context, f: impl Fn(f64, f64) -> f64, g: impl Fn(i128, i128) -> i128) -> Outputs {
    Ok(vec![binary(context, numeric(context, 0)?, numeric(context, 1)?, f, g)?])
}

fn no_zero(context: &Context, input: usize) -> Result<(), Fault> {
    match &context.input(input)?.data {
        Data::Int(array) if array.iter().any(|&x| x == 0) => Err(Fault::DivisionByZero),
        _ => Ok(()),
    }
}

/// Integers are divided towards zero.
fn div(context: &Context) -> Outputs {
    no_zero(context, 1)?;
    arithmetic(context, |a, b| a / b, |a, b| a / b)
}

/// `fmod = 0`: the sign of the divisor, as in Python; floats since opset 28. `fmod = 1`: the sign of the dividend, as in C.
fn modulo(context: &Context) -> Outputs {
    no_zero(context, 1)?;
    if context.flag("fmod", false)? {
        return arithmetic(context, libm::fmod, |a, b| a % b);
    }
    if context.opset < 28 {
        context.ints(0)?;
    }
    arithmetic(context, floor_mod, |a, b| {
        let remainder = a % b;
        if remainder != 0 && (remainder < 0) != (b < 0) { remainder + b } else { remainder }
    })
}

/// The remainder of a division rounded down. A zero has the divisor's sign.
fn floor_mod(a: f64, b: f64) -> f64 {
    let remainder = libm::fmod(a, b);
    if remainder == 0.0 {
        return remainder.copysign(b);
    }
    if (remainder < 0.0) == (b < 0.0) { remainder } else { remainder + b }
}

/// The dtype of the base counts; the exponent may be of another one.
fn pow(context: &Context) -> Outputs {
    let (base, exponent) = (numeric(context, 0)?, numeric(context, 1)?);
    if context.opset < 12 {
        context.same_dtype(0, 1)?;
    }
    Ok(vec![match (&base.data, &exponent.data) {
        (Data::Int(a), Data::Int(b)) => Tensor::int(base.dtype, context.pairs(a, b, int_pow)?),
        (Data::Int(a), Data::Float(b)) => {
            let power = |a: i128, b| libm::pow(a as f64, b) as i128;
            Tensor::int(base.dtype, context.pairs(a, b, power)?)
        }
        (Data::Float(a), _) => Tensor::float(base.dtype, context.pairs(a, &exponent.to_floats(), libm::pow)?),
    }])
}

/// A power modulo 2^128; of a negative exponent, 1 / a^|b| rounded towards zero.
fn int_pow(a: i128, b: i128) -> i128 {
    if b < 0 {
        return match a {
            1 => 1,
            -1 if b % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut base, mut rest) = (1i128, a, b);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        rest >>= 1;
    }
    result
}

/// All inputs, one after another.
fn variadic(context: &Context, f: fn(f64, f64) -> f64, g: fn(i128, i128) -> i128) -> Result<Tensor, Fault> {
    let mut result = numeric(context, 0)?.clone();
    for input in 1..context.inputs.len() {
        result = binary(context, &result, numeric(context, input)?, f, g)?;
    }
    Ok(result)
}

fn mean(context: &Context) -> Outputs {
    context.floats(0)?;
    let sum = variadic(context, |a, b| a + b, i128::wrapping_add)?;
    let count = context.inputs.len() as f64;
    Ok(vec![Tensor::float(sum.dtype, sum.to_floats().mapv(|x| x / count))])
}

/// The larger; NaN if one of them is.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller; NaN if one of them is.
pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// min(max(x, low), high): where low > high, it is high.
fn clip(context: &Context) -> Outputs {
    let mut result = numeric(context, 0)?.clone();
    if context.optional(1).is_some() {
        result = binary(context, &result, bound(context, 1)?, larger, i128::max)?;
    }
    if context.optional(2).is_some() {
        result = binary(context, &result, bound(context, 2)?, smaller, i128::min)?;
    }
    Ok(vec![result])
}

fn bound<'a>(context: &'a Context, input: usize) -> Result<&'a Tensor, Fault> {
    let bound = context.input(input)?;
    if bound.rank() == 0 {
        return Ok(bound);
    }
    Err(Fault::shape("a bound", bound.shape(), "a scalar"))
}

fn is_nan(context: &Context) -> Outputs {
    Ok(vec![Tensor::bool(&context.floats(0)?.mapv(f64::is_nan))])
}

fn is_inf(context: &Context) -> Outputs {
    let (negative, positive) =
        (context.flag("detect_negative", true)?, context.flag("detect_positive", true)?);
    let is_inf = |x: f64| (x == f64::INFINITY && positive) || (x == f64::NEG_INFINITY && negative);
    Ok(vec![Tensor::bool(&context.floats(0)?.mapv(is_inf))])
}

fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x } else { x.signum() }
}

/// One input unchanged: Identity, and what is one at inference.
pub(super) fn identity(context: &Context) -> Outputs {
    Ok(vec![context.input(0)?.clone()])
}

/// `condition ? x : y`
fn select(context: &Context) -> Outputs {
    context.same_dtype(1, 2)?;
    let condition = context.bools(0)?;
    let (x, y) = (context.input(1)?, context.input(2)?);
    let shape = crate::context::broadcast(condition.shape(), x.shape())?;
    let shape = crate::context::broadcast(&shape, y.shape())?;
    let condition = context.expand(condition, &shape)?;
    let pick = |condition: &i128| *condition != 0;
    Ok(vec![match (&x.data, &y.data) {
        (Data::Float(a), Data::Float(b)) => {
            let (a, b) = (context.expand(a, &shape)?, context.expand(b, &shape)?);
            let chosen = ndarray::Zip::from(condition).and(a).and(b);
            Tensor::float(x.dtype, chosen.map_collect(|c, &a, &b| if pick(c) { a } else { b }))
        }
        (Data::Int(a), Data::Int(b)) => {
            let (a, b) = (context.expand(a, &shape)?, context.expand(b, &shape)?);
            let chosen = ndarray::Zip::from(condition).and(a).and(b);
            Tensor::int(x.dtype, chosen.map_collect(|c, &a, &b| if pick(c) { a } else { b }))
        }
        _ => return Err(Fault::Mixed { first: x.dtype, second: y.dtype }),
    }])
}

fn expand(context: &Context) -> Outputs {
    let shape = super::shape::dims(&context.list(1)?.ok_or(Fault::MissingInput(1))?)?;
    let shape = crate::context::broadcast(context.input(0)?.shape(), &shape)?;
    Ok(vec![each!(context.input(0)?, x => context.expand(x, &shape)?.to_owned())])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("Abs", (1, 1), "", |c| number(c, f64::abs, i128::abs)),
    Op::onnx("Acos", (1, 1), "", |c| unary(c, libm::acos)),
    Op::onnx("Acosh", (1, 1), "", |c| unary(c, libm::acosh)),
    Op::onnx("Add", (2, 2), "", |c| arithmetic(c, |a, b| a + b, i128::wrapping_add)),
    Op::onnx("Asin", (1, 1), "", |c| unary(c, libm::asin)),
    Op::onnx("Asinh", (1, 1), "", |c| unary(c, libm::asinh)),
    Op::onnx("Atan", (1, 1), "", |c| unary(c, libm::atan)),
    Op::onnx("Atanh", (1, 1), "", |c| unary(c, libm::atanh)),
    Op::onnx("Ceil", (1, 1), "", |c| unary(c, f64::ceil)),
    Op::onnx("Clip", (1, 3), "", clip),
    Op::onnx("Cos", (1, 1), "", |c| unary(c, libm::cos)),
    Op::onnx("Cosh", (1, 1), "", |c| unary(c, libm::cosh)),
    Op::onnx("Div", (2, 2), "", div),
    Op::onnx("Erf", (1, 1), "", |c| unary(c, libm::erf)),
    Op::onnx("Exp", (1, 1), "", |c| unary(c, libm::exp)),
    Op::onnx("Expand", (2, 2), "", expand),
    Op::onnx("Floor", (1, 1), "", |c| unary(c, f64::floor)),
    Op::onnx("Identity", (1, 1), "", identity),
    // Its branches are run by the evaluator.
    Op::onnx("If", (1, 1), "then_branch else_branch", |_| Err(Fault::Unsupported("a lone If"))).outputs(ANY),
    Op::onnx("IsInf", (1, 1), "detect_negative detect_positive", is_inf),
    Op::onnx("IsNaN", (1, 1), "", is_nan),
    Op::onnx("Log", (1, 1), "", |c| unary(c, libm::log)),
    Op::onnx("Max", (1, ANY), "", |c| Ok(vec![variadic(c, larger, i128::max)?])).since(8),
    Op::onnx("Mean", (1, ANY), "", mean),
    Op::onnx("Min", (1, ANY), "", |c| Ok(vec![variadic(c, smaller, i128::min)?])),
    Op::onnx("Mod", (2, 2), "fmod", modulo).since(10),
    Op::onnx("Mul", (2, 2), "", |c| arithmetic(c, |a, b| a * b, i128::wrapping_mul)),
    Op::onnx("Neg", (1, 1), "", |c| number(c, |x| -x, i128::wrapping_neg)),
    Op::onnx("Pow", (2, 2), "", pow),
    Op::onnx("Reciprocal", (1, 1), "", |c| unary(c, |x| 1.0 / x)),
    Op::onnx("Round", (1, 1), "", |c| unary(c, f64::round_ties_even)),
    Op::onnx("Sign", (1, 1), "", |c| number(c, sign, i128::signum)),
    Op::onnx("Sin", (1, 1), "", |c| unary(c, libm::sin)),
    Op::onnx("Sinh", (1, 1), "", |c| unary(c, libm::sinh)),
    Op::onnx("Sqrt", (1, 1), "", |c| unary(c, f64::sqrt)),
    Op::onnx("Sub", (2, 2), "", |c| arithmetic(c, |a, b| a - b, i128::wrapping_sub)),
    Op::onnx("Sum", (1, ANY), "", |c| Ok(vec![variadic(c, |a, b| a + b, i128::wrapping_add)?])),
    Op::onnx("Tan", (1, 1), "", |c| unary(c, libm::tan)),
    Op::onnx("Tanh", (1, 1), "", |c| unary(c, libm::tanh)),
    Op::onnx("Where", (3, 3), "", select).since(9),
];
