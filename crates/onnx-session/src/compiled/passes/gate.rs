//! Gated activations: f(a) · b, where a and b are columns of the same rows.

use super::{binary, rewrite};
use crate::compiled::ir::{Ir, Node, NodeId, ValueId};
use crate::compiled::ops::{Gate, Op};

pub fn run(ir: &mut Ir) -> usize {
    rewrite(ir, matched)
}

fn matched(ir: &Ir, id: NodeId) -> Option<Node> {
    let node = ir.node(id)?;
    let output = node.output()?;
    let [a, b] = binary(ir, output, "Mul")?;
    let gated = |active: ValueId, other: ValueId| {
        let (_, Node { op: Op::Unary(function), inputs, .. }) = ir.producer(active)? else { return None };
        let (x, first) = columns(ir, inputs.first().copied()??)?;
        let (other_x, second) = columns(ir, other)?;
        let same = x == other_x && ir.shape(active) == ir.shape(other) && ir.is_intermediate(active);
        same.then_some((x, Gate { function: *function, columns: [first, second] }))
    };
    let (x, gate) = gated(a, b).or_else(|| gated(b, a))?;
    Some(node.becomes(Op::Gate(gate), vec![Some(x)]))
}

/// What a value has some columns of, and where they begin, if nobody else reads them.
pub fn columns(ir: &Ir, value: ValueId) -> Option<(ValueId, usize)> {
    match ir.producer(value)? {
        (_, Node { op: Op::Columns(first), inputs, .. }) if ir.is_intermediate(value) => {
            Some((inputs.first().copied()??, *first))
        }
        _ => None,
    }
}
