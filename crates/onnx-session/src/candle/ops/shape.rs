//! Operators on shapes.

use candle_onnx::onnx;
use candle_onnx::onnx::attribute_proto::AttributeType;
use engine::{DType, Value};
use onnx_graph::Node;
use onnx_graph::shape::{self as rules, Int};

use super::cast::same;
use super::gather::contiguous;
use crate::candle::lower::{Lowering, Refusal, int, ints};
use crate::candle::types::{Size, ValueType, broadcast, product};

/// candle-onnx builds a partial shape with the length of the whole, and takes the end as inclusive. The whole shape is right, and a
/// slice of it clamps `start` and `end` as Shape does.
pub(crate) fn shape(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let rank = cx.rank(x)?;
    if rank == 0 {
        return cx.define_constant(
            output,
            &Value::new([0], Vec::<i64>::new()).map_err(|e| Refusal(e.to_string()))?,
        );
    }
    let whole = ValueType::known(DType::I64, &[rank]);
    let part = rules::part(node.int("start")?, node.int("end")?, rank);
    if part == (0..rank) {
        return cx.emit_as("Shape", &[x], vec![], whole, output);
    }
    let all = cx.emit("Shape", &[x], vec![], whole)?;
    let (starts, ends) = (cx.new_ints(&[part.start as i64])?, cx.new_ints(&[part.end as i64])?);
    cx.emit_as("Slice", &[&all, &starts, &ends], vec![], ValueType::known(DType::I64, &[part.len()]), output)
}

pub(crate) fn reshape(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, target, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    if cx.dtype(target)? != DType::I64 {
        return Err(format!("the target shape is {}", cx.dtype(target)?).into());
    }
    let allow_zero = node.int("allowzero")?.unwrap_or(0);
    let ty = ValueType::new(cx.dtype(x)?, reshaped(cx, x, target, allow_zero != 0)?);
    cx.emit_as("Reshape", &[x, target], vec![int("allowzero", allow_zero)], ty, output)
}

/// What is known of the shape; nothing if not even the rank is.
fn reshaped(cx: &Lowering, x: &str, target: &str, allow_zero: bool) -> Result<Option<Vec<Size>>, Refusal> {
    let Some(target) = cx.partial_ints(target) else { return Ok(None) };
    let Some(dims) = &cx.ty(x)?.shape else { return Ok(Some(vec![None; target.len()])) };
    let sizes: Vec<Int<Size>> = target.iter().map(|size| size.map_or(Int::Size(None), Int::Known)).collect();
    let shape = rules::reshape(dims, &sizes, allow_zero).ok_or_else(|| {
        let shown = target.iter().map(|size| size.map_or("?".into(), |size| size.to_string()));
        format!("'{x}' cannot have the shape [{}]", shown.collect::<Vec<_>>().join(", "))
    })?;
    Ok(Some(shape))
}

/// candle-onnx inserts several axes from the back, each counted before the others are there; one at a time, in ascending order, is right.
pub(crate) fn unsqueeze(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let given = cx.ints_by_opset(node, "axes", 13)?.ok_or("its axes are missing")?;
    let rank = cx.rank(x)? + given.len();
    let outside = |axis| format!("axis {axis} is outside rank {rank}, or given twice");
    let mut axes = rules::axes(&given, rank).map_err(outside)?;
    axes.sort_unstable();
    let mut ty = cx.ty(x)?.clone();
    let mut current = x.to_string();
    for (position, &axis) in axes.iter().enumerate() {
        // Ascending, and below the final rank: there are always that many dimensions already.
        ty.shape.get_or_insert_default().insert(axis, Some(1));
        let attributes = vec![ints("axes", [axis as i64])];
        if position + 1 == axes.len() {
            return cx.emit_as("Unsqueeze", &[&current], attributes, ty, output);
        }
        current = cx.emit("Unsqueeze", &[&current], attributes, ty.clone())?;
    }
    same(cx, x, output)
}

/// candle-onnx does not read axes as an attribute, and without any keeps a first axis of size 1.
pub(crate) fn squeeze(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let dims = cx.ty(x)?.shape.clone().ok_or("the rank is not known before it runs")?;
    let axes = match cx.ints_by_opset(node, "axes", 13)? {
        Some(given) => cx.axes(&given, x)?,
        None if dims.iter().all(Option::is_some) => {
            (0..dims.len()).filter(|&index| dims[index] == Some(1)).collect()
        }
        None => return Err("which axes have size 1 is not known before it runs".into()),
    };
    let ty = ValueType::new(cx.dtype(x)?, Some(rules::reduced(&dims, &axes, false)));
    if axes.is_empty() {
        return same(cx, x, output);
    }
    let mut sorted: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    sorted.sort_unstable();
    let axes = cx.new_ints(&sorted)?;
    cx.emit_as("Squeeze", &[x, &axes], vec![], ty, output)
}

/// candle-onnx takes a negative axis for a huge one, and divides by zero where a dimension is empty. A reshape does the same: one side's
/// size is given, and the other follows.
pub(crate) fn flatten(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let rank = cx.rank(x)?;
    let axis = node.int("axis")?.unwrap_or(1);
    let index =
        rules::boundary(axis, rank).ok_or_else(|| Refusal(format!("axis {axis} is outside rank {rank}")))?;
    let dims = cx.ty(x)?.shape.clone().unwrap_or_default();
    let (front, back) = (product(&dims[..index]), product(&dims[index..]));
    let ty = ValueType::new(cx.dtype(x)?, Some(vec![front, back]));
    let target = match (index, front, back) {
        (_, Some(front), _) => [front as i64, -1],
        (_, _, Some(back)) => [-1, back as i64],
        // 0 copies the first dimension.
        (1, ..) => [0, -1],
        // A negative axis is all that is wrong here; an empty tensor is an error when it runs.
        _ => return cx.emit_as("Flatten", &[x], vec![int("axis", index as i64)], ty, output),
    };
    let target = cx.new_ints(&target)?;
    cx.emit_as("Reshape", &[x, &target], vec![], ty, output)
}

/// candle-onnx drops trailing axes of size 1 where ranks differ, which ONNX does not allow at all.
pub(crate) fn concat(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let output = cx.output(node, 0)?;
    let inputs: Vec<&str> = (0..node.inputs.len()).map(|i| cx.input(node, i)).collect::<Result<_, _>>()?;
    let first = *inputs.first().ok_or("it has no inputs")?;
    let axis = cx.axis(node.int("axis")?.ok_or("attribute 'axis' is missing")?, first)?;
    let mut shape = cx.ty(first)?.shape.clone().unwrap_or_default();
    for name in &inputs[1..] {
        let ValueType { dtype, shape: part } = cx.ty(name)?;
        let same_dtype = *dtype == cx.dtype(first)?;
        let joined = part.as_ref().and_then(|part| rules::concat(&[&shape, part], axis));
        shape = joined
            .filter(|_| same_dtype)
            .ok_or_else(|| format!("'{name}' differs from '{first}' in dtype or rank"))?;
    }
    if shape.len() == 1 && cx.dtype(first)? == DType::I64 {
        let parts: Option<Vec<_>> = inputs.iter().map(|name| cx.partial_ints(name)).collect();
        if let Some(parts) = parts {
            cx.set_partial_ints(output, parts.concat());
        }
    }
    let ty = ValueType::new(cx.dtype(first)?, Some(shape));
    cx.emit_as("Concat", &inputs, vec![int("axis", axis as i64)], ty, output)
}

/// candle-onnx hands on a view, which its Gather refuses and its matrix product misreads.
pub(crate) fn expand(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (x, target, output) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    if cx.dtype(target)? != DType::I64 {
        return Err(format!("the target shape is {}", cx.dtype(target)?).into());
    }
    let target_shape = target_sizes(cx, target);
    let ty = ValueType::new(cx.dtype(x)?, broadcast(&cx.ty(x)?.shape, &target_shape));
    let view = cx.emit("Expand", &[x, target], vec![], ty)?;
    contiguous(cx, &view, output)
}

/// The sizes that a value of rank 1 holds, as far as they are known.
fn target_sizes(cx: &Lowering, target: &str) -> Option<Vec<Size>> {
    let sizes = cx.partial_ints(target)?;
    Some(sizes.into_iter().map(|size| size.and_then(|size| usize::try_from(size).ok())).collect())
}

/// candle-onnx reads the value from `raw_data` alone, and lets a value of shape [1] raise a scalar to rank 1.
pub(crate) fn constant_of_shape(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let (target, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let value = match node.tensor("value")? {
        Some(tensor) => tensor.to_value().map_err(|error| Refusal(error.to_string()))?,
        None => Value::scalar(0f32),
    };
    if value.len() != 1 {
        return Err("its value must have one element".into());
    }
    // The code and bytes of the dtype that the value takes in a lowered graph.
    let (code, bytes) = match value.dtype() {
        DType::F32 => (1, value.to_le_bytes()),
        DType::Bool | DType::U8 => (2, value.to_le_bytes()),
        DType::I64 => (7, value.to_le_bytes()),
        DType::F64 => (11, value.to_le_bytes()),
        DType::I32 => {
            let wide: i64 = value
                .as_slice::<i32>()
                .map_err(|e| Refusal(e.to_string()))?
                .iter()
                .map(|&x| i64::from(x))
                .sum();
            (7, wide.to_le_bytes().to_vec())
        }
        dtype => return Err(format!("its value is {dtype}").into()),
    };
    let attribute = onnx::AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor.into(),
        t: Some(onnx::TensorProto { data_type: code, raw_data: bytes, ..Default::default() }),
        ..Default::default()
    };
    let ty = ValueType::new(value.dtype(), target_sizes(cx, target));
    cx.emit_as("ConstantOfShape", &[target], vec![attribute], ty, output)
}

/// candle-onnx adds the step again and again, which is exact for integers alone.
pub(crate) fn range(cx: &mut Lowering, node: &Node) -> Result<(), Refusal> {
    let inputs = [cx.input(node, 0)?, cx.input(node, 1)?, cx.input(node, 2)?];
    let output = cx.output(node, 0)?;
    let dtype = cx.dtype(inputs[0])?;
    if !matches!(dtype, DType::I32 | DType::I64) {
        return Err(format!("it counts in {dtype}; candle-onnx would sum up its rounding").into());
    }
    let length = match inputs.map(|name| cx.constant_ints(name).ok()?.first().copied()) {
        [Some(start), Some(limit), Some(delta)] => rules::steps(start.into(), limit.into(), delta.into()),
        _ => None,
    };
    cx.emit_as("Range", &inputs, vec![], ValueType::new(dtype, Some(vec![length])), output)
}
