//! Picking parts of a tensor: Gather, Slice, Split.

use engine::{DType, Value};
use onnx_graph::Node;
use onnx_graph::shape as rules;

use super::cast::same;
use crate::candle::lower::{Lowering, Refusal, int, ints};
use crate::candle::types::{Size, ValueType, product};

/// candle-onnx gathers with indices of rank 0 (a view, if the axis is not the first), 1 and 2 (one row at a time), and panics on
/// more. Here a flat list is gathered, and the result gets its shape afterwards. candle takes the largest integer for "fill with zeros"; the
/// next smaller one is out of range like any other.
pub(crate) fn gather(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, indices, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    if !matches!(cx.dtype(indices)?, DType::I32 | DType::I64) {
        return Err(format!("indices are {}", cx.dtype(indices)?).into());
    }
    let axis = cx.axis(node.int("axis")?.unwrap_or(0), x)?;
    let dims = cx.ty(x)?.shape.clone().unwrap_or_default();
    let index_dims = cx.ty(indices)?.shape.clone();
    let index_rank = cx.rank(indices)?;
    let dtype = cx.dtype(x)?;
    let shape = rules::gather(&dims, axis, index_dims.as_deref().unwrap_or_default());
    let ty = ValueType::new(dtype, Some(shape));
    let attributes = vec![int("axis", axis as i64)];
    let largest = cx.new_constant(&Value::scalar(i64::MAX - 1))?;
    let index_type = cx.ty(indices)?.with_dtype(DType::I64);
    let bounded = cx.emit("Clip", &[indices, "", &largest], vec![], index_type)?;
    if index_rank == 1 {
        return cx.emit_as("Gather", &[x, &bounded], attributes, ty, output);
    }
    let flat_length = product(&index_dims.unwrap_or_default());
    let flat_type = ValueType::new(DType::I64, Some(vec![flat_length]));
    let minus_one = cx.new_ints(&[-1])?;
    let flat = cx.emit("Reshape", &[&bounded, &minus_one], vec![], flat_type)?;
    let picked_type = ValueType::new(dtype, Some(rules::gather(&dims, axis, &[flat_length])));
    let picked = cx.emit("Gather", &[x, &flat], attributes, picked_type)?;
    if index_rank == 0 {
        let axis = cx.new_ints(&[axis as i64])?;
        return cx.emit_as("Squeeze", &[&picked, &axis], vec![], ty, output);
    }
    // Dimensions before the axis are copied (0), the others come from the indices and the data.
    let mut parts = Vec::new();
    if axis > 0 {
        parts.push(cx.new_ints(&vec![0; axis])?);
    }
    parts.push(shape_of(cx, indices)?);
    if axis + 1 < dims.len() {
        let data_shape = shape_of(cx, x)?;
        let rest: Vec<i64> = (axis as i64 + 1..dims.len() as i64).collect();
        let rest_type = ValueType::known(DType::I64, &[rest.len()]);
        let rest = cx.new_ints(&rest)?;
        parts.push(cx.emit("Gather", &[&data_shape, &rest], vec![], rest_type)?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let target_type = ValueType::known(DType::I64, &[dims.len() + index_rank - 1]);
    let target = cx.emit("Concat", &parts, vec![int("axis", 0)], target_type)?;
    cx.emit_as("Reshape", &[&picked, &target], vec![], ty, output)
}

fn shape_of(cx: &mut Lowering, x: &str) -> Result<String, Refusal> {
    let rank = cx.rank(x)?;
    cx.emit("Shape", &[x], vec![], ValueType::known(DType::I64, &[rank]))
}

/// candle-onnx indexes the data's shape by whatever axis it is given, and its clamping of a backward slice panics on an empty
/// axis: so axes are checked here, and steps must be constant and forward.
pub(crate) fn slice(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, starts, ends) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.input(node, 2)?);
    let output = cx.output(node, 0)?;
    for name in [starts, ends] {
        if !matches!(cx.dtype(name)?, DType::I32 | DType::I64) {
            return Err(format!("'{name}' is {}", cx.dtype(name)?).into());
        }
    }
    let count = cx.ty(starts)?.length().ok_or("the number of axes is not known before it runs")?;
    if cx.ty(ends)?.length() != Some(count) {
        return Err(format!("'{starts}' and '{ends}' differ in length").into());
    }
    let axes = match cx.optional(node, 3) {
        Some(axes) => cx.constant_ints(axes)?,
        None => (0..count as i64).collect(),
    };
    let axes = cx.axes(&axes, x)?;
    let steps = match cx.optional(node, 4) {
        Some(steps) => cx.constant_ints(steps)?,
        None => vec![1; count],
    };
    if axes.len() != count || steps.len() != count {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    if steps.iter().any(|&step| step < 1) {
        return Err(format!("steps {steps:?} go backwards").into());
    }
    let ty = ValueType::new(cx.dtype(x)?, sliced(cx, x, [starts, ends], &axes, &steps)?);
    if count == 0 {
        return same(cx, x, output);
    }
    let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    let (axes, steps) = (cx.new_ints(&axes)?, cx.new_ints(&steps)?);
    cx.emit_as("Slice", &[x, starts, ends, &axes, &steps], vec![], ty, output)
}

/// The shape of a slice: lengths follow where the bounds are constant and the dimension is known.
fn sliced(
    cx: &Lowering,
    x: &str,
    bounds: [&str; 2],
    axes: &[usize],
    steps: &[i64],
) -> Result<Option<Vec<Size>>, Refusal> {
    let Some(mut dims) = cx.ty(x)?.shape.clone() else { return Ok(None) };
    let bounds = match bounds.map(|name| cx.constant_ints(name)) {
        [Ok(starts), Ok(ends)] => Some((starts, ends)),
        _ => None,
    };
    for (position, (&axis, &step)) in axes.iter().zip(steps).enumerate() {
        dims[axis] = match (&bounds, dims[axis]) {
            (Some((starts, ends)), Some(size)) => {
                rules::slice(starts[position], ends[position], step, size).map(|cut| cut.count)
            }
            _ => None,
        };
    }
    Ok(Some(dims))
}

/// Before opset 13 the lengths are an attribute, then an input; from 18 on `num_outputs` cuts into equal chunks with a smaller
/// last one, where candle-onnx makes the last one larger. Its parts are views, so each is taken as a slice.
pub(crate) fn split(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let x = cx.input(node, 0)?;
    let axis = cx.axis(node.int("axis")?.unwrap_or(0), x)?;
    let dims = cx.ty(x)?.shape.clone().unwrap_or_default();
    let given = cx.ints_by_opset(node, "split", 13)?;
    let lengths = match (given, dims[axis]) {
        (Some(lengths), _) => lengths,
        (None, Some(size)) => {
            rules::split(size, node.outputs.len()).into_iter().map(|length| length as i64).collect()
        }
        (None, None) => return Err("the length to split is not known before it runs".into()),
    };
    if lengths.len() != node.outputs.len() || lengths.iter().any(|&length| length < 0) {
        return Err(format!("lengths {lengths:?} do not make {} outputs", node.outputs.len()).into());
    }
    let total = lengths.iter().try_fold(0i64, |total, &length| total.checked_add(length));
    if total.is_none() || dims[axis].is_some_and(|size| Some(size as i64) != total) {
        return Err(format!("lengths {lengths:?} do not add up to the size of axis {axis}").into());
    }
    let axes = cx.new_ints(&[axis as i64])?;
    let mut start = 0;
    for (name, length) in node.outputs.iter().zip(lengths) {
        let end = start + length;
        if !name.is_empty() {
            let mut shape = dims.clone();
            shape[axis] = usize::try_from(length).ok();
            let (starts, ends) = (cx.new_ints(&[start])?, cx.new_ints(&[end])?);
            let ty = ValueType::new(cx.dtype(x)?, Some(shape));
            cx.emit_as("Slice", &[x, &starts, &ends, &axes], vec![], ty, name)?;
        }
        start = end;
    }
    Ok(())
}

/// The identity permutation: a copy in row-major order, where candle-onnx would hand on a view.
pub(super) fn contiguous(cx: &mut Lowering, x: &str, output: &str) -> Result<(), Refusal> {
    let ty = cx.ty(x)?.clone();
    let rank = cx.rank(x)? as i64;
    cx.emit_as("Transpose", &[x], vec![ints("perm", 0..rank)], ty, output)
}
