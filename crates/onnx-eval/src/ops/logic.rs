//! Comparisons, logic, and bits.

use engine::DType;

use super::Op;
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::tensor::{Data, Tensor};

/// A comparison; one with a NaN is false.
fn compare(context: &Context, f: fn(&f64, &f64) -> bool, g: fn(&i128, &i128) -> bool) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    let result = match (&context.input(0)?.data, &context.input(1)?.data) {
        (Data::Float(a), Data::Float(b)) => context.pairs(a, b, |a, b| f(&a, &b))?,
        (Data::Int(a), Data::Int(b)) => context.pairs(a, b, |a, b| g(&a, &b))?,
        _ => return Err(Fault::Mixed { first: dtype, second: dtype }),
    };
    Ok(vec![Tensor::bool(&result)])
}

fn logic(context: &Context, f: fn(i128, i128) -> i128) -> Outputs {
    let result = context.pairs(context.bools(0)?, context.bools(1)?, f)?;
    Ok(vec![Tensor::int(DType::Bool, result)])
}

fn not(context: &Context) -> Outputs {
    Ok(vec![Tensor::int(DType::Bool, context.bools(0)?.mapv(|x| 1 - x))])
}

/// Two's complement is that of i128, cut off afterwards.
fn bits(context: &Context, f: fn(i128, i128) -> i128) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    Ok(vec![Tensor::int(dtype, context.pairs(context.ints(0)?, context.ints(1)?, f)?)])
}

fn bitwise_not(context: &Context) -> Outputs {
    Ok(vec![Tensor::int(context.input(0)?.dtype, context.ints(0)?.mapv(|x| !x))])
}

/// Unsigned before opset 28. A shift by the width or more leaves nothing but copies of the sign.
fn bit_shift(context: &Context) -> Outputs {
    let dtype = context.same_dtype(0, 1)?;
    let signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64);
    if signed && context.opset < 28 {
        return Err(Fault::DType { input: 0, found: dtype, wanted: "unsigned before opset 28" });
    }
    let width = 8 * dtype.size() as i128;
    let left = match context.node.string("direction")? {
        Some("LEFT") => true,
        Some("RIGHT") => false,
        Some(other) => {
            return Err(Fault::argument("attribute 'direction'", format!("'{other}'"), "'LEFT' or 'RIGHT'"));
        }
        None => return Err(Fault::MissingAttribute("direction")),
    };
    let shift = |x: i128, by: i128| match (left, (0..width).contains(&by)) {
        (true, true) => x << by,
        (true, false) => 0,
        (false, true) => x >> by,
        (false, false) => x >> 127,
    };
    Ok(vec![Tensor::int(dtype, context.pairs(context.ints(0)?, context.ints(1)?, shift)?)])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("And", (2, 2), "", |c| logic(c, |a, b| a & b)).since(7),
    Op::onnx("BitShift", (2, 2), "direction", bit_shift),
    Op::onnx("BitwiseAnd", (2, 2), "", |c| bits(c, |a, b| a & b)).since(18),
    Op::onnx("BitwiseNot", (1, 1), "", bitwise_not).since(18),
    Op::onnx("BitwiseOr", (2, 2), "", |c| bits(c, |a, b| a | b)).since(18),
    Op::onnx("BitwiseXor", (2, 2), "", |c| bits(c, |a, b| a ^ b)).since(18),
    Op::onnx("Equal", (2, 2), "", |c| compare(c, f64::eq, i128::eq)),
    Op::onnx("Greater", (2, 2), "", |c| compare(c, f64::gt, i128::gt)),
    Op::onnx("GreaterOrEqual", (2, 2), "", |c| compare(c, f64::ge, i128::ge)).since(12),
    Op::onnx("Less", (2, 2), "", |c| compare(c, f64::lt, i128::lt)),
    Op::onnx("LessOrEqual", (2, 2), "", |c| compare(c, f64::le, i128::le)).since(12),
    Op::onnx("Not", (1, 1), "", not).since(1),
    Op::onnx("Or", (2, 2), "", |c| logic(c, |a, b| a | b)).since(7),
    Op::onnx("Xor", (2, 2), "", |c| logic(c, |a, b| a ^ b)).since(7),
];
