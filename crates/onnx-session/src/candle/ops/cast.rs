//! Operators that carry a value over: casts, constants, copies.

use engine::{DType, Value};
use onnx_graph::{Attribute, Node};

use super::arithmetic::wrap_to_i32;
use crate::candle::lower::{Lowering, Refusal, int};

/// The dtypes that a cast may give, by ONNX's `TensorProto.DataType`; the numbers are the format's.
const CODES: [(i64, DType); 6] =
    [(1, DType::F32), (2, DType::U8), (6, DType::I32), (7, DType::I64), (9, DType::Bool), (11, DType::F64)];

/// candle-onnx casts to bool by truncating to u8, so that 0.5 and 256 become false; and its int32 is an i64.
pub(crate) fn cast(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let from = cx.dtype(x)?;
    let code = node.int("to")?.ok_or("attribute 'to' is missing")?;
    let known = CODES.into_iter().find(|(known, _)| *known == code);
    let (_, to) = known.ok_or_else(|| format!("it does not cast to ONNX data type {code}"))?;
    if !matches!(from, DType::F32 | DType::F64 | DType::I32 | DType::I64 | DType::Bool) && from != to {
        return Err(format!("it does not cast from {from}").into());
    }
    let ty = cx.ty(x)?.with_dtype(to);
    if to != DType::Bool && (from == DType::Bool || cx.is_flag(x)) {
        cx.mark_flag(output);
    }
    match (from, to) {
        (from, to) if from == to => cx.emit_as("Identity", &[x], vec![], ty, output),
        (_, DType::Bool) => {
            let zero = cx.emit("Not", &[x], vec![], ty.clone())?;
            cx.emit_as("Not", &[&zero], vec![], ty, output)
        }
        // What does not fit wraps, as C's conversion does.
        (DType::I64, DType::I32) => wrap_to_i32(cx, x, output),
        (DType::I32, DType::I64) => cx.emit_as("Identity", &[x], vec![], ty, output),
        (DType::F32 | DType::F64, DType::U8) | (DType::I32 | DType::I64, DType::U8) => {
            Err(format!("a cast from {from} to u8 saturates in candle and wraps elsewhere").into())
        }
        (DType::F32 | DType::F64, DType::I32) => {
            let wide = cx.emit("Cast", &[x], vec![int("to", 7)], ty.with_dtype(DType::I64))?;
            wrap_to_i32(cx, &wide, output)
        }
        (DType::Bool, DType::I32) => cx.emit_as("Cast", &[x], vec![int("to", 7)], ty, output),
        _ => cx.emit_as("Cast", &[x], vec![int("to", code)], ty, output),
    }
}

/// candle-onnx reads `value` alone, and an int32 in it loses its shape; here every form becomes a constant at load.
pub(crate) fn constant(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let output = cx.output(node, 0)?;
    let value = match node.attributes.iter().next() {
        Some((_, Attribute::Tensor(tensor))) => tensor.to_value(),
        Some((_, Attribute::Int(x))) => Ok(Value::scalar(*x)),
        Some((_, Attribute::Float(x))) => Ok(Value::scalar(*x)),
        Some((_, Attribute::Ints(xs))) => Value::new([xs.len()], xs.as_slice()),
        Some((_, Attribute::Floats(xs))) => Value::new([xs.len()], xs.as_slice()),
        Some((name, _)) => return Err(format!("a constant given as '{name}' is not a number").into()),
        None => return Err("it has no value".into()),
    };
    cx.define_constant(output, &value.map_err(|error| Refusal(error.to_string()))?)
}

pub(crate) fn identity(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same(cx, x, output)
}

/// The lowered value itself under the name of an output: what an operator becomes where it changes nothing.
pub(super) fn same(cx: &mut Lowering, x: &str, output: &str) -> Result<(), Refusal> {
    let ty = cx.ty(x)?.clone();
    cx.emit_as("Identity", &[x], vec![], ty, output)
}
