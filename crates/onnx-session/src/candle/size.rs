//! How large a result will be, before a candle-onnx node makes it.
//!
//! candle allocates whatever a shape asks for, and multiplies dimensions without looking: 2^40 bytes end in an abort, 2^32 × 2^32 in a
//! panic or, without overflow checks, in 0. So every operator whose result can be larger than what it reads is looked at first, with
//! the values that it is about to read.

use std::collections::HashMap;

use candle_core::{Error, Result, Tensor};
use candle_onnx::onnx;
use onnx_graph::shape;

/// The most elements that a value may have: 8 GiB of f32. A graph that wants more is broken, or means harm.
pub(crate) const MAX_ELEMENTS: usize = 1 << 31;

/// Whether an operator of candle-onnx broadcasts all its inputs against each other, and does nothing else to their shapes.
pub(crate) fn broadcasts(op: &str) -> bool {
    matches!(
        op,
        "Add"
            | "And"
            | "Div"
            | "Equal"
            | "Greater"
            | "GreaterOrEqual"
            | "Less"
            | "LessOrEqual"
            | "Min"
            | "Mul"
            | "Or"
            | "Pow"
            | "Sub"
            | "Where"
            | "Xor"
    )
}

/// Whether the result of an operator of candle-onnx can be larger than each of its inputs, or its shape be more than can be multiplied.
/// Of the operators that lowering emits, the others keep a shape, permute it, or take from it.
pub(crate) fn can_outgrow(op: &str) -> bool {
    broadcasts(op)
        || matches!(
            op,
            "Concat" | "ConstantOfShape" | "CumSum" | "Expand" | "Gather" | "MatMul" | "Range" | "Reshape"
        )
}

/// The number of elements of a node's result, from the values it reads, or nothing if the node cannot outgrow its inputs, or will fail by
/// itself for what they are.
///
/// # Errors
/// If they are more than [`MAX_ELEMENTS`], or a size is negative.
pub(crate) fn check(node: &onnx::NodeProto, values: &HashMap<String, Tensor>) -> Result<Option<usize>> {
    let given: Vec<&Tensor> = node.input.iter().filter_map(|name| values.get(name)).collect();
    let dims: Vec<&[usize]> = given.iter().map(|tensor| tensor.dims()).collect();
    let shape = match (node.op_type.as_str(), dims.as_slice()) {
        (op, dims) if broadcasts(op) => {
            dims.iter().try_fold(vec![], |shape, dims| shape::broadcast(&shape, dims))
        }
        ("ConstantOfShape", [_]) => Some(sizes(given[0])?),
        ("Expand", [x, _]) => shape::broadcast(x, &sizes(given[1])?),
        ("Reshape", [x, _]) => Some(reshaped(x, given[1], attribute(node, "allowzero") == 1)?),
        ("Concat", [first, ..]) => {
            let mut shape = first.to_vec();
            let Some(axis) = shape::axis(attribute(node, "axis"), shape.len()) else { return Ok(None) };
            // A sum of sizes that memory holds: saturated, it is still too large.
            shape[axis] =
                dims.iter().filter_map(|dims| dims.get(axis)).fold(0, |sum, &size| sum.saturating_add(size));
            Some(shape)
        }
        // A product with a triangle of ones.
        ("CumSum", [x, _]) => {
            let along = given[1].flatten_all()?.to_vec1::<i64>()?;
            let length = along.first().and_then(|&along| x.get(usize::try_from(along).ok()?)).unwrap_or(&1);
            elements(&[*length, *length])?;
            None
        }
        ("Gather", [x, indices]) => {
            shape::axis(attribute(node, "axis"), x.len()).map(|axis| shape::gather(x, axis, indices))
        }
        ("MatMul", [a, b]) => return product(a, b),
        ("Range", [_, _, _]) => return range(&given),
        _ => None,
    };
    // Shapes that do not fit each other are candle's to refuse.
    shape.map(|shape| elements(&shape)).transpose()
}

/// The number of elements of a shape. The sizes beside a 0 are multiplied too: candle does so for the strides.
fn elements(shape: &[usize]) -> Result<usize> {
    let volume = shape.iter().try_fold(1usize, |volume, &size| volume.checked_mul(size.max(1)));
    match volume {
        Some(_) if shape.contains(&0) => Ok(0),
        Some(volume) if volume <= MAX_ELEMENTS => Ok(volume),
        _ => Err(Error::Msg(too_large(shape))),
    }
}

/// The message about a shape beyond the limit.
pub(crate) fn too_large(shape: &[usize]) -> String {
    format!("its result would have shape {shape:?}, which is more than the limit of {MAX_ELEMENTS} elements")
}

/// The sizes that a list asks for.
fn sizes(list: &Tensor) -> Result<Vec<usize>> {
    let asked = list.to_vec1::<i64>()?;
    let sizes: Option<Vec<usize>> = asked.iter().map(|&size| usize::try_from(size).ok()).collect();
    sizes.ok_or_else(|| Error::Msg(format!("its result would have shape {asked:?}, with a negative size")))
}

/// The target of a Reshape, with 1 for the size that follows from the others. Whether it fits `x`
/// is not asked: candle multiplies before it looks.
fn reshaped(x: &[usize], target: &Tensor, allow_zero: bool) -> Result<Vec<usize>> {
    let target = target.to_vec1::<i64>()?;
    let size = |(index, &size): (usize, &i64)| match size {
        0 if !allow_zero => x.get(index).copied().unwrap_or(1),
        size => usize::try_from(size).unwrap_or(1),
    };
    Ok(target.iter().enumerate().map(size).collect())
}

/// A matrix product. An operand whose batch axes are broadcast is copied as a whole, unless it is one matrix on the right of operands that
/// are not.
fn product(a: &[usize], b: &[usize]) -> Result<Option<usize>> {
    let ([a_batch @ .., m, k], [b_batch @ .., _, n]) = (a, b) else { return Ok(None) };
    let Some(batch) = shape::broadcast(a_batch, b_batch) else { return Ok(None) };
    if batch != a_batch {
        elements(&[&batch[..], &[*m, *k]].concat())?;
    }
    if batch != b_batch && !(b_batch.is_empty() && batch == a_batch) {
        elements(&[&batch[..], &[*k, *n]].concat())?;
    }
    elements(&[&batch[..], &[*m, *n]].concat()).map(Some)
}

/// How far a Range counts. candle adds up to the first number that is not in the range, so an int64 must hold that one too.
fn range(given: &[&Tensor]) -> Result<Option<usize>> {
    let mut numbers = [0; 3];
    for (number, tensor) in numbers.iter_mut().zip(given) {
        let [one] = tensor.flatten_all()?.to_vec1::<i64>()?[..] else { return Ok(None) };
        *number = i128::from(one);
    }
    let [start, limit, delta] = numbers;
    let Some(length) = shape::steps(start, limit, delta) else { return Ok(None) };
    let length = elements(&[length])?;
    match i64::try_from(start + length as i128 * delta) {
        Ok(_) => Ok(Some(length)),
        Err(_) => Err(Error::Msg(format!("a range from {start} to {limit} by {delta} counts beyond int64"))),
    }
}

/// An integer attribute; all that are read here are 0 by default.
fn attribute(node: &onnx::NodeProto, name: &str) -> i64 {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(0, |attribute| attribute.i)
}

#[cfg(test)]
mod tests;
