//! One place of each sequence, such as the first token, which the pooler takes.

use onnx_graph::shape::{Size, axis};

use super::rewrite;
use crate::compiled::ir::{Ir, Node, NodeId};
use crate::compiled::ops::Op;

pub fn run(ir: &mut Ir) -> usize {
    rewrite(ir, matched)
}

fn matched(ir: &Ir, id: NodeId) -> Option<Node> {
    let node = ir.node(id)?;
    let output = node.output()?;
    let (_, _, operation) = ir.onnx(output, "Gather")?;
    let (x, index) = (node.input(0)?, node.input(1)?);
    let [_, _, width] = ir.shape(x)? else { return None };
    width.known()?;
    let place = match ir.constant(index)?.ints()?[..] {
        [place] => usize::try_from(place).ok()?,
        _ => return None,
    };
    let along_the_sequence = axis(operation.node().int("axis").ok()?.unwrap_or(0), 3)? == 1;
    if !along_the_sequence || !ir.is_f32(x) || ir.constant(x).is_some() {
        return None;
    }
    Some(node.becomes(Op::Token(place), vec![Some(x)]))
}
