//! Reductions. Their axes moved from an attribute to an input: ReduceSum at opset 13, the others at 18.

use engine::{DType, Value};
use onnx_graph::{Node, shape};

use super::cast::same;
use crate::candle::lower::{Lowering, Refusal, int, ints};
use crate::candle::types::ValueType;

/// The axes to reduce, in ascending order; `None` means that nothing is reduced.
fn axes(cx: &Lowering, node: &Node, x: &str, input_since: i64) -> Result<Option<Vec<i64>>, Refusal> {
    let given = cx.ints_by_opset(node, "axes", input_since)?.unwrap_or_default();
    let noop = node.int("noop_with_empty_axes")?.unwrap_or(0) != 0;
    if noop && given.is_empty() {
        return Ok(None);
    }
    let rank = cx.rank(x)?;
    let axes = shape::reduced_axes(&given, noop, rank).map_err(|axis| {
        Refusal(format!("axis {axis} is outside '{x}', which has rank {rank}, or given twice"))
    })?;
    Ok(Some(axes.into_iter().map(|axis| axis as i64).collect()))
}

fn reduced(cx: &Lowering, x: &str, axes: &[i64], keep: bool) -> Result<ValueType, Refusal> {
    let shape = match &cx.ty(x)?.shape {
        Some(dims) => Some(shape::reduced(dims, &cx.axes(axes, x)?, keep)),
        None => None,
    };
    Ok(ValueType::new(cx.dtype(x)?, shape))
}

/// The mean over some axes, kept as axes of size 1. Negative axes may be given where the rank is open.
pub(super) fn mean(cx: &mut Lowering, x: &str, axes: &[i64]) -> Result<String, Refusal> {
    let ty = reduced(cx, x, axes, true)?;
    cx.emit("ReduceMean", &[x], vec![ints("axes", axes.iter().copied()), int("keepdims", 1)], ty)
}

/// candle-onnx reads the axes as an attribute only, so that an opset-18 graph would be averaged over all axes.
pub(crate) fn reduce_mean(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    cx.float(x)?;
    let keep = node.int("keepdims")?.unwrap_or(1);
    let Some(axes) = axes(cx, node, x, 18)? else {
        return same(cx, x, output);
    };
    let ty = reduced(cx, x, &axes, keep != 0)?;
    cx.emit_as("ReduceMean", &[x], vec![ints("axes", axes), int("keepdims", keep)], ty, output)
}

/// candle-onnx reads the axes as an input only, and negative ones as huge.
pub(crate) fn reduce_sum(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    match cx.dtype(x)? {
        DType::F32 | DType::F64 | DType::I64 => {}
        dtype => return Err(format!("it does not sum {dtype}").into()),
    }
    let keep = node.int("keepdims")?.unwrap_or(1);
    let Some(axes) = axes(cx, node, x, 13)? else {
        return same(cx, x, output);
    };
    sum(cx, x, &axes, keep, output)
}

fn sum(cx: &mut Lowering, x: &str, axes: &[i64], keep: i64, output: &str) -> Result<(), Refusal> {
    let ty = reduced(cx, x, axes, keep != 0)?;
    let axes = cx.new_ints(axes)?;
    cx.emit_as("ReduceSum", &[x, &axes], vec![int("keepdims", keep)], ty, output)
}

/// √(Σ x²)
pub(crate) fn reduce_l2(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    cx.float(x)?;
    let keep = node.int("keepdims")?.unwrap_or(1);
    let Some(axes) = axes(cx, node, x, 18)? else {
        let ty = cx.ty(x)?.clone();
        return cx.emit_as("Abs", &[x], vec![], ty, output);
    };
    let ty = cx.ty(x)?.clone();
    let square = cx.emit("Mul", &[x, x], vec![], ty)?;
    let total = cx.fresh();
    sum(cx, &square, &axes, keep, &total)?;
    let ty = cx.ty(&total)?.clone();
    cx.emit_as("Sqrt", &[&total], vec![], ty, output)
}

/// candle sums by a product with a triangle of ones, and of floats alone: beside an element that is
/// not finite none is a number, and large integers would lose digits. What is 0 or 1 is counted as
/// it should be, as far as f32 counts by ones.
pub(crate) fn cum_sum(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, axis, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    for setting in ["exclusive", "reverse"] {
        if node.int(setting)?.unwrap_or(0) != 0 {
            return Err(format!("it does not sum with '{setting}'").into());
        }
    }
    if !cx.is_flag(x) {
        return Err("it sums along an axis only what is 0 or 1, cast from bools".into());
    }
    let (ty, rank) = (cx.ty(x)?.clone(), cx.rank(x)?);
    let along = match cx.constant_ints(axis)?[..] {
        [along] => shape::axis(along, rank).ok_or_else(|| format!("axis {along} is outside '{x}'"))?,
        _ => return Err("its axis must be one number".into()),
    };
    let along = cx.new_constant(&Value::scalar(along as i64))?;
    let count = |dtype| ty.with_dtype(dtype);
    let float = cx.emit("Cast", &[x], vec![int("to", 1)], count(DType::F32))?;
    let sums = cx.emit("CumSum", &[&float, &along], vec![], count(DType::F32))?;
    match ty.dtype {
        DType::F32 => same(cx, &sums, output),
        DType::F64 => cx.emit_as("Cast", &[&sums], vec![int("to", 11)], ty, output),
        DType::I32 | DType::I64 => cx.emit_as("Cast", &[&sums], vec![int("to", 7)], ty, output),
        dtype => Err(format!("it does not sum {dtype}").into()),
    }
}
