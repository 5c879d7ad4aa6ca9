//! `LayerNormalization`, and the chain that older exporters write for it:
//!
//! ```text
//! d = x − mean(x);  d / √(mean(d²) + ε) · γ + β            also without β
//! ```

use onnx_graph::shape::axis;

use super::{binary, only_output, optional_row, rewrite, row, scalar, unary, with_row, with_scalar};
use crate::compiled::infer::known_ints;
use crate::compiled::ir::{Ir, Node, NodeId, ValueId};
use crate::compiled::ops::{Norm, Op};

pub fn run(ir: &mut Ir) -> usize {
    let with_beta = rewrite(ir, |ir, id| operator(ir, id).or_else(|| chain(ir, id, true)));
    // Only now is it known which products nobody adds a β to.
    ir.settle();
    with_beta + rewrite(ir, |ir, id| chain(ir, id, false))
}

/// The operator, over the last axis.
fn operator(ir: &Ir, id: NodeId) -> Option<Node> {
    let node = ir.node(id)?;
    let Op::Onnx(operation) = &node.op else { return None };
    let given = operation.node();
    if given.op != "LayerNormalization" || !given.domain.is_empty() {
        return None;
    }
    let (x, output) = (node.input(0)?, only_output(ir, node)?);
    let rank = ir.shape(x)?.len();
    let last = axis(given.int("axis").ok()?.unwrap_or(-1), rank)? + 1 == rank;
    // Statistics in f32, as the kernel has them, or better.
    let in_f32 = given.int("stash_type").ok()?.unwrap_or(1) == 1;
    if !last || !in_f32 || !ir.is_f32(x) {
        return None;
    }
    let width = ir.width(x)?;
    let norm = Norm {
        gamma: row(ir, node.input(1)?, width)?,
        beta: optional_row(ir, node.input(2), width)?,
        eps: given.float("epsilon").ok()?.unwrap_or(1e-5),
    };
    Some(normalised(norm, &node.label, x, output))
}

/// The chain, by its last node: the sum with β, or without one the product with γ.
fn chain(ir: &Ir, id: NodeId, with_beta: bool) -> Option<Node> {
    let node = ir.node(id)?;
    let output = node.output()?;
    let width = ir.width(output)?;
    let (beta, scaled) = if with_beta {
        let (beta, scaled) = with_row(ir, binary(ir, output, "Add")?, width)?;
        (Some(beta), scaled)
    } else {
        (None, output)
    };
    let (gamma, quotient) = with_row(ir, binary(ir, scaled, "Mul")?, width)?;
    let [difference, deviation] = binary(ir, quotient, "Div")?;
    let moved = unary(ir, deviation, "Sqrt")?;
    let (eps, variance) = with_scalar(ir, binary(ir, moved, "Add")?)?;
    let square = mean_of(ir, variance)?;
    let (squares, reads) = square_of(ir, square)?;
    let [x, mean] = binary(ir, difference, "Sub")?;
    let same =
        squares == difference && mean_of(ir, mean)? == x && ir.is_f32(x) && ir.shape(x) == ir.shape(output);
    let inner = [quotient, deviation, moved, variance, square, mean];
    let own_scaled = !with_beta || ir.is_intermediate(scaled);
    // The difference is divided once more than it is squared.
    let own = ir.uses(difference) == reads + 1 && !ir.is_output(difference);
    if !same || !own || !own_scaled || !inner.iter().all(|&value| ir.is_intermediate(value)) {
        return None;
    }
    Some(normalised(Norm { gamma, beta, eps }, &node.label, x, output))
}

/// What a value is the mean of, over the last axis, which stays as 1.
fn mean_of(ir: &Ir, value: ValueId) -> Option<ValueId> {
    let (_, node, operation) = ir.onnx(value, "ReduceMean")?;
    let x = node.input(0)?;
    let axes = match operation.node().ints("axes").ok()? {
        Some(axes) => axes.to_vec(),
        None => known_ints(ir, node.input(1)?)?,
    };
    let rank = ir.shape(x)?.len();
    let keeps = operation.node().int("keepdims").ok()?.unwrap_or(1) != 0;
    (keeps && axes.len() == 1 && axis(axes[0], rank)? + 1 == rank).then_some(x)
}

/// What a value is the square of, and how often the square reads it.
fn square_of(ir: &Ir, value: ValueId) -> Option<(ValueId, usize)> {
    if let Some([x, power]) = binary(ir, value, "Pow") {
        return (scalar(ir, power)? == 2.0).then_some((x, 1));
    }
    let [a, b] = binary(ir, value, "Mul")?;
    (a == b).then_some((a, 2))
}

fn normalised(norm: Norm, label: &str, x: ValueId, output: ValueId) -> Node {
    Node { op: Op::LayerNorm(norm), label: label.into(), inputs: vec![Some(x)], outputs: vec![Some(output)] }
}
