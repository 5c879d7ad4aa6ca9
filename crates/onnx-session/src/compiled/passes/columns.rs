//! `Split` of rows into columns, and a `Slice` that takes some of them.

use onnx_graph::shape::{Cut, Size, axis};

use crate::compiled::infer::slice;
use crate::compiled::ir::{Ir, Node, NodeId, ValueId};
use crate::compiled::ops::Op;

pub fn run(ir: &mut Ir) -> usize {
    ir.ids().into_iter().filter(|&id| split(ir, id).or_else(|| cut(ir, id)).is_some()).count()
}

/// Each part of a `Split` along the last axis.
fn split(ir: &mut Ir, id: NodeId) -> Option<()> {
    let node = ir.node(id)?.clone();
    let Op::Onnx(operation) = &node.op else { return None };
    let given = operation.node();
    let x = rows(ir, node.input(0)?)?;
    let rank = ir.shape(x)?.len();
    let last = axis(given.int("axis").ok()?.unwrap_or(0), rank)? + 1 == rank;
    if given.op != "Split" || !given.domain.is_empty() || !last {
        return None;
    }
    let (mut first, mut parts) = (0, Vec::new());
    for &output in node.outputs.iter().flatten() {
        let (op, outputs) = (Op::Columns(first), vec![Some(output)]);
        let label = node.label.clone();
        parts.push(Node { op, label, inputs: vec![Some(x)], outputs });
        first += ir.width(output).filter(|&width| width > 0)?;
    }
    // Parts that are left out have no width to count.
    if first != ir.width(x)? {
        return None;
    }
    let last = parts.pop()?;
    ir.splice(id, parts, last);
    Some(())
}

/// Some columns, and all rows.
fn cut(ir: &mut Ir, id: NodeId) -> Option<()> {
    let node = ir.node(id)?;
    let Op::Onnx(operation) = &node.op else { return None };
    if operation.node().op != "Slice" || !operation.node().domain.is_empty() {
        return None;
    }
    let (x, output) = (rows(ir, node.input(0)?)?, node.output()?);
    let cuts = slice(ir, operation, &node.inputs)?;
    let (Cut { first, count }, leading) = cuts.split_last()?;
    let whole = leading.iter().zip(ir.shape(x)?).all(|(cut, dim)| cut.first == 0 && cut.count == *dim);
    let narrower = count.known()? > 0 && count.known()? < ir.width(x)?;
    if !whole || !narrower || ir.width(output)? != count.known()? {
        return None;
    }
    let node = node.becomes(Op::Columns(*first), vec![Some(x)]);
    ir.replace(id, node);
    Some(())
}

/// A value that is computed, of rows of f32.
fn rows(ir: &Ir, x: ValueId) -> Option<ValueId> {
    (ir.is_f32(x) && !ir.is_sized(x) && ir.shape(x)?.len() >= 2 && ir.width(x).is_some()).then_some(x)
}
