//! Casts and constants.

use engine::{DType, Value};
use ndarray::{ArrayD, IxDyn};

use super::Op;
use super::shape::dims;
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::tensor::{Tensor, array, each};

/// A dtype by the number that ONNX has for it (TensorProto.DataType).
pub(super) fn dtype(number: i64) -> Result<DType, Fault> {
    onnx_graph::dtype_of(number).ok_or(Fault::UnsupportedDType(number))
}

fn cast(context: &Context) -> Outputs {
    let to = context.node.int("to")?.ok_or(Fault::MissingAttribute("to"))?;
    Ok(vec![context.input(0)?.cast(dtype(to)?)])
}

fn cast_like(context: &Context) -> Outputs {
    Ok(vec![context.input(0)?.cast(context.input(1)?.dtype)])
}

/// The same bits as a dtype of the same size.
fn bit_cast(context: &Context) -> Outputs {
    let x = context.input(0)?;
    let to = dtype(context.node.int("to")?.ok_or(Fault::MissingAttribute("to"))?)?;
    if context.precision.output(x.dtype) != x.dtype || context.precision.output(to) != to {
        return Err(Fault::Unsupported("the bits of an f32 that is computed in f64"));
    }
    let bytes = x.to_value(context.precision)?.to_le_bytes();
    Ok(vec![Tensor::from_value(&Value::from_le_bytes(to, x.shape(), &bytes)?)?])
}

/// One of the attributes that can hold a value.
fn constant(context: &Context) -> Outputs {
    let node = context.node;
    let one = |dtype, x: i64| Tensor::int(dtype, ArrayD::from_elem(IxDyn(&[]), i128::from(x)));
    let [(name, _)] = node.attributes.iter().collect::<Vec<_>>()[..] else {
        return Err(Fault::argument("the number of attributes", node.attributes.len(), "one"));
    };
    Ok(vec![match name.as_str() {
        "value" => Tensor::from_graph(node.tensor("value")?.ok_or(Fault::MissingAttribute("value"))?)?,
        "value_int" => one(DType::I64, context.int("value_int", 0)?),
        "value_float" => {
            Tensor::float(DType::F32, ArrayD::from_elem(IxDyn(&[]), context.float("value_float", 0.0)?))
        }
        "value_ints" => {
            let ints: Vec<i128> =
                node.ints("value_ints")?.unwrap_or_default().iter().map(|&x| x.into()).collect();
            Tensor::int(DType::I64, array(&[ints.len()], ints)?)
        }
        "value_floats" => {
            let floats: Vec<f64> =
                node.floats("value_floats")?.unwrap_or_default().iter().map(|&x| x.into()).collect();
            Tensor::float(DType::F32, array(&[floats.len()], floats)?)
        }
        _ => return Err(Fault::Unsupported("a constant of strings")),
    }])
}

/// Zeros of f32, unless `value` says what else.
fn constant_of_shape(context: &Context) -> Outputs {
    let shape = dims(&context.list(0)?.ok_or(Fault::MissingInput(0))?)?;
    context.room(&shape)?;
    let zero = || Tensor::float(DType::F32, ArrayD::zeros(IxDyn(&[1])));
    let value = context.node.tensor("value")?.map_or_else(|| Ok(zero()), Tensor::from_graph)?;
    let filled = each!(&value, v => ArrayD::from_elem(IxDyn(&shape), *context.scalar("the value", v)?));
    Ok(vec![filled])
}

/// Ones on a diagonal, `k` above the main one.
fn eye_like(context: &Context) -> Outputs {
    let x = context.input(0)?;
    if x.rank() != 2 {
        return Err(Fault::shape("input 0", x.shape(), "of rank 2"));
    }
    let to = context.node.int("dtype")?.map_or(Ok(x.dtype), dtype)?;
    let k = i128::from(context.int("k", 0)?);
    let eye = ArrayD::from_shape_fn(IxDyn(x.shape()), |at| i128::from(at[1] as i128 - at[0] as i128 == k));
    Ok(vec![Tensor::int(DType::I64, eye).cast(to)])
}

pub(super) const OPS: &[Op] = &[
    Op::onnx("BitCast", (1, 1), "to", bit_cast).since(26),
    Op::onnx("Cast", (1, 1), "to", cast).until(18),
    // `saturate` and `round_mode` are about 8-bit floats.
    Op::onnx("Cast", (1, 1), "to saturate", cast).since(19).until(23),
    Op::onnx("Cast", (1, 1), "to saturate round_mode", cast).since(24),
    Op::onnx("CastLike", (2, 2), "", cast_like).since(15).until(18),
    Op::onnx("CastLike", (2, 2), "saturate", cast_like).since(19).until(23),
    Op::onnx("CastLike", (2, 2), "saturate round_mode", cast_like).since(24),
    Op::onnx("Constant", (0, 0), "value", constant).until(11),
    Op::onnx("Constant", (0, 0), "value value_float value_floats value_int value_ints", constant).since(12),
    Op::onnx("ConstantOfShape", (1, 1), "value", constant_of_shape),
    Op::onnx("EyeLike", (1, 1), "dtype k", eye_like),
];
