//! Elementwise operators.

use engine::{DType, Value};
use onnx_graph::Node;

use crate::candle::lower::{Lowering, Refusal};
use crate::candle::types::{ValueType, broadcast};

/// The common dtype and broadcast shape of two values.
fn pair(cx: &Lowering, a: &str, b: &str) -> Result<ValueType, Refusal> {
    let (a_type, b_type) = (cx.ty(a)?, cx.ty(b)?);
    if a_type.dtype != b_type.dtype {
        return Err(format!("'{a}' is {} and '{b}' is {}", a_type.dtype, b_type.dtype).into());
    }
    Ok(ValueType::new(a_type.dtype, broadcast(&a_type.shape, &b_type.shape)))
}

/// Add, Sub and Mul.
pub(crate) fn arithmetic(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (a, b, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let ty = pair(cx, a, b)?;
    number(cx, &node.op, &[a, b], ty, output)
}

/// An operator whose integers wrap.
fn number(cx: &mut Lowering, op: &str, inputs: &[&str], ty: ValueType, output: &str) -> Result<(), Refusal> {
    match ty.dtype {
        DType::F32 | DType::F64 | DType::I64 => cx.emit_as(op, inputs, vec![], ty, output),
        DType::I32 => {
            let wide = cx.emit(op, inputs, vec![], ty)?;
            wrap_to_i32(cx, &wide, output)
        }
        dtype => Err(format!("candle's {dtype} arithmetic is not ONNX's").into()),
    }
}

/// candle panics on an integer division by zero, so the divisor must be seen.
pub(crate) fn div(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (a, b, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let ty = pair(cx, a, b)?;
    match ty.dtype {
        DType::F32 | DType::F64 => cx.emit_as("Div", &[a, b], vec![], ty, output),
        DType::I32 | DType::I64 => {
            // −1 is left out because the smallest integer divided by it overflows.
            if cx.constant_ints(b)?.iter().any(|divisor| [0, -1].contains(divisor)) {
                return Err("an integer divisor must be constant and neither 0 nor -1".into());
            }
            cx.emit_as("Div", &[a, b], vec![], ty, output)
        }
        dtype => Err(format!("candle's {dtype} arithmetic is not ONNX's").into()),
    }
}

/// int32 results are computed in i64 and wrapped, as int32 arithmetic wraps: no product of two int32 overflows an i64.
///
/// With r = x − trunc(x / 2³²) · 2³² in (−2³², 2³²), one more 2³² is added or taken where r leaves int32's range.
pub(super) fn wrap_to_i32(cx: &mut Lowering, x: &str, output: &str) -> Result<(), Refusal> {
    const RANGE: i64 = 1 << 32;
    const HALF: i64 = 1 << 31;
    let ty = cx.ty(x)?.with_dtype(DType::I64);
    let flag = ty.with_dtype(DType::Bool);
    let range = cx.new_constant(&Value::scalar(RANGE))?;
    let quotient = cx.emit("Div", &[x, &range], vec![], ty.clone())?;
    let whole = cx.emit("Mul", &[&quotient, &range], vec![], ty.clone())?;
    let rest = cx.emit("Sub", &[x, &whole], vec![], ty.clone())?;
    let half = cx.new_constant(&Value::scalar(HALF))?;
    let above = cx.emit("GreaterOrEqual", &[&rest, &half], vec![], flag.clone())?;
    let minus_half = cx.new_constant(&Value::scalar(-HALF))?;
    let below = cx.emit("Less", &[&rest, &minus_half], vec![], flag)?;
    let reduced = cx.emit("Sub", &[&rest, &range], vec![], ty.clone())?;
    let raised = cx.emit("Add", &[&rest, &range], vec![], ty.clone())?;
    let lowered = cx.emit("Where", &[&above, &reduced, &rest], vec![], ty.clone())?;
    cx.emit_as("Where", &[&below, &raised, &lowered], vec![], ty.with_dtype(DType::I32), output)
}

/// Functions of one float that candle-onnx computes under ONNX's name.
pub(crate) fn float_unary(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    cx.float(x)?;
    let ty = cx.ty(x)?.clone();
    cx.emit_as(&node.op, &[x], vec![], ty, output)
}

/// candle's minimum loses a NaN on its right: `if a > b { b } else { a }`. Integers have none.
pub(crate) fn min(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let output = cx.output(node, 0)?;
    let inputs = (0..node.inputs.len()).map(|at| cx.input(node, at)).collect::<Result<Vec<_>, _>>()?;
    let mut ty = cx.ty(cx.input(node, 0)?)?.clone();
    for &other in &inputs {
        let other = cx.ty(other)?;
        if other.dtype != ty.dtype || !matches!(ty.dtype, DType::I32 | DType::I64) {
            return Err(format!("it takes the least of integers of one type, not of {}", other.dtype).into());
        }
        ty = ValueType::new(ty.dtype, broadcast(&ty.shape, &other.shape));
    }
    cx.emit_as("Min", &inputs, vec![], ty, output)
}

/// candle's relu turns a NaN into 0, its maximum keeps it.
pub(crate) fn relu(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let dtype = cx.float(x)?;
    let zero = cx.new_float(dtype, 0.0)?;
    let ty = cx.ty(x)?.clone();
    cx.emit_as("Clip", &[x, &zero], vec![], ty, output)
}

/// Abs and Neg.
pub(crate) fn sign(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let ty = cx.ty(x)?.clone();
    number(cx, &node.op, &[x], ty, output)
}

pub(crate) fn reciprocal(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let dtype = cx.float(x)?;
    let one = cx.new_float(dtype, 1.0)?;
    let ty = cx.ty(x)?.clone();
    cx.emit_as("Div", &[&one, x], vec![], ty, output)
}

/// candle's broadcast power is exp(y·log x), wrong for a negative base. A square is a product; any other power must have a
/// constant single exponent, which candle hands to `powf`.
pub(crate) fn pow(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, y, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    cx.float(x)?;
    let exponent = cx
        .constant(y)
        .filter(|exponent| exponent.elem_count() == 1)
        .ok_or("the exponent must be one constant number")?
        .to_dtype(candle_core::DType::F64)?
        .flatten_all()?
        .to_vec1::<f64>()?;
    // An exponent of shape [1] raises a scalar to rank 1.
    let ty = ValueType::new(cx.dtype(x)?, broadcast(&cx.ty(x)?.shape, &cx.ty(y)?.shape));
    if cx.rank(y)? != 0 && cx.rank(y)? > cx.rank(x)? {
        return Err("the exponent has a higher rank than the base".into());
    }
    if exponent == [2.0] {
        return cx.emit_as("Mul", &[x, x], vec![], ty, output);
    }
    cx.emit_as("Pow", &[x, y], vec![], ty, output)
}

pub(crate) fn compare(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (a, b, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let ty = pair(cx, a, b)?;
    if matches!(ty.dtype, DType::F16 | DType::BF16 | DType::I8 | DType::I16 | DType::U16 | DType::U64) {
        return Err(format!("it does not compare {}", ty.dtype).into());
    }
    cx.emit_as(&node.op, &[a, b], vec![], ty.with_dtype(DType::Bool), output)
}

pub(crate) fn logic(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (a, b, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    let ty = pair(cx, a, b)?;
    if ty.dtype != DType::Bool {
        return Err(format!("it takes bool, not {}", ty.dtype).into());
    }
    cx.emit_as(&node.op, &[a, b], vec![], ty, output)
}

pub(crate) fn not(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let ty = cx.ty(x)?.clone();
    if ty.dtype != DType::Bool {
        return Err(format!("it takes bool, not {}", ty.dtype).into());
    }
    cx.emit_as("Not", &[x], vec![], ty, output)
}

/// candle-onnx has no IsNaN, but a NaN is the only number that does not equal itself.
pub(crate) fn is_nan(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    cx.float(x)?;
    let ty = cx.ty(x)?.with_dtype(DType::Bool);
    let equal = cx.emit("Equal", &[x, x], vec![], ty.clone())?;
    cx.emit_as("Not", &[&equal], vec![], ty, output)
}

pub(crate) fn select(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (condition, a, b) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.input(node, 2)?);
    let output = cx.output(node, 0)?;
    if cx.dtype(condition)? != DType::Bool {
        return Err(format!("the condition is {}, not bool", cx.dtype(condition)?).into());
    }
    let values = pair(cx, a, b)?;
    match values.dtype {
        DType::F32 | DType::F64 | DType::I32 | DType::I64 | DType::U8 | DType::Bool => {}
        dtype => return Err(format!("it does not choose among {dtype}").into()),
    }
    let shape = broadcast(&cx.ty(condition)?.shape, &values.shape);
    cx.emit_as("Where", &[condition, a, b], vec![], ValueType::new(values.dtype, shape), output)
}

/// candle keeps the value where a comparison with a bound is false, so a NaN stays NaN, as ONNX wants.
/// An opset-11 or later Clip has its bounds as inputs; both may be left out.
pub(crate) fn clip(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    if cx.opset < 11 {
        return Err("before opset 11 the bounds are attributes, which candle-onnx does not read".into());
    }
    match cx.dtype(x)? {
        DType::F32 | DType::F64 | DType::I64 | DType::I32 => {}
        dtype => return Err(format!("it does not clip {dtype}").into()),
    }
    let bounds = [cx.optional(node, 1), cx.optional(node, 2)];
    for bound in bounds.into_iter().flatten() {
        pair(cx, x, bound)?;
        if cx.ty(bound)?.rank() != Some(0) {
            return Err(format!("bound '{bound}' is not a scalar").into());
        }
    }
    let inputs: Vec<&str> = match bounds {
        [low, Some(high)] => vec![x, low.unwrap_or(""), high],
        [Some(low), None] => vec![x, low],
        [None, None] => vec![x],
    };
    let ty = cx.ty(x)?.clone();
    cx.emit_as("Clip", &inputs, vec![], ty, output)
}
