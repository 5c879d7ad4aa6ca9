//! Queries and keys that are turned by their places, as ModernBERT has them:
//!
//! ```text
//! x · cos + concat(−x₂, x₁) · sin        x₁ and x₂ the halves of a head's columns
//! ```

use onnx_graph::shape::{Size, axis};

use super::gate::columns;
use super::{binary, unary};
use crate::compiled::ir::{Ir, ValueId};

/// What a value, `[batch, heads, sequence, size]`, is turned from, and its cosines and sines, which
/// depend on sizes alone: `[1.., sequence, size]`.
pub fn turned(ir: &Ir, value: ValueId) -> Option<(ValueId, [ValueId; 2])> {
    let [a, b] = binary(ir, value, "Add")?;
    sum(ir, a, b).or_else(|| sum(ir, b, a))
}

fn sum(ir: &Ir, straight: ValueId, across: ValueId) -> Option<(ValueId, [ValueId; 2])> {
    let (x, cos) = by_angles(ir, straight)?;
    let (turned, sin) = by_angles(ir, across)?;
    let (half, shape) = (ir.width(x)? / 2, ir.shape(x)?);
    let (_, node, operation) = ir.onnx(turned, "Concat")?;
    let [Some(second), Some(first)] = node.inputs[..] else { return None };
    let negated = unary(ir, second, "Neg")?;
    let halves = columns(ir, negated)? == (x, half) && columns(ir, first)? == (x, 0);
    let widths = ir.width(negated)? == half && ir.width(first)? == half && ir.width(x)? == 2 * half;
    let last = axis(operation.node().int("axis").ok()??, shape.len())? + 1 == shape.len();
    let own = [straight, across, turned, second].iter().all(|&value| ir.is_intermediate(value));
    (halves && widths && last && own && ir.shape(turned)? == shape).then_some((x, [cos, sin]))
}

/// A product with angles: the other factor, and they.
fn by_angles(ir: &Ir, value: ValueId) -> Option<(ValueId, ValueId)> {
    let [a, b] = binary(ir, value, "Mul")?;
    let (x, angles) = if ir.is_sized(b) { (a, b) } else { (b, a) };
    let (shape, dims) = (ir.shape(x)?, ir.shape(angles)?);
    let [leading @ .., places, size] = dims else { return None };
    let fits = shape.ends_with(&[places.clone(), size.clone()])
        && leading.len() + 2 <= shape.len()
        && leading.iter().all(Size::is_one)
        && ir.is_sized(angles)
        && !ir.is_sized(x)
        && ir.is_f32(angles);
    fits.then_some((x, angles))
}
