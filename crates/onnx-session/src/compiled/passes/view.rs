//! `Reshape`, `Unsqueeze`, `Squeeze`, `Flatten`, `Identity`, and what changes nothing: a `Cast` to the dtype a value has, an `Expand` to its shape, a
//! `Slice` of all of it, a `Dropout` after training.

use super::{only_output, rewrite};
use crate::compiled::infer::slice;
use crate::compiled::ir::{Ir, Node, ValueId};
use crate::compiled::ops::Op;

pub fn run(ir: &mut Ir) -> usize {
    rewrite(ir, |ir, id| {
        let node = ir.node(id)?;
        let (source, output) = (node.input(0)?, node.outputs.first().copied().flatten()?);
        if !is_view(ir, node, source, output)? {
            return None;
        }
        // A view of a view is one of what that is a view of.
        let source = match ir.producer(source) {
            Some((_, inner)) if matches!(inner.op, Op::View) => inner.input(0).unwrap_or(source),
            _ => source,
        };
        let (label, inputs, outputs) = (node.label.clone(), vec![Some(source)], vec![Some(output)]);
        Some(Node { op: Op::View, label, inputs, outputs })
    })
}

fn is_view(ir: &Ir, node: &Node, source: ValueId, output: ValueId) -> Option<bool> {
    let Op::Onnx(operation) = &node.op else { return None };
    if !operation.node().domain.is_empty()
        || !ir.is_f32(source)
        || !ir.is_f32(output)
        || ir.constant(source).is_some()
    {
        return None;
    }
    let (before, after) = (ir.shape(source)?, ir.shape(output)?);
    Some(match &*operation.node().op {
        "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" | "Identity" | "Cast" => true,
        "Expand" => before == after,
        "Slice" => before == after && slice(ir, operation, &node.inputs)?.iter().all(|cut| cut.first == 0),
        // With a third input it may be in training mode.
        "Dropout" => node.input(2).is_none() && only_output(ir, node).is_some(),
        _ => false,
    })
}
