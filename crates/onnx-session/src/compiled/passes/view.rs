//! `Reshape`, `Unsqueeze`, `Squeeze`, `Flatten`, `Identity`, and what changes nothing: a `Cast` to the dtype a value has, an `Expand` to its shape, a
//! `Slice` of all of it, a `Dropout` after training.

use crate::compiled::infer::slice;
use crate::compiled::ir::{Ir, Node};
use crate::compiled::ops::Op;

pub fn run(ir: &mut Ir) -> usize {
    let mut found = 0;
    for id in ir.ids() {
        let Some(node) = ir.node(id) else { continue };
        let Some((source, output)) = node.input(0).zip(node.outputs.first().copied().flatten()) else {
            continue;
        };
        if !is_view(ir, node) {
            continue;
        }
        // A view of a view is one of what that is a view of.
        let source = match ir.producer(source) {
            Some((_, inner)) if matches!(inner.op, Op::View) => inner.input(0).unwrap_or(source),
            _ => source,
        };
        let label = node.label.clone();
        ir.replace(id, Node { op: Op::View, label, inputs: vec![Some(source)], outputs: vec![Some(output)] });
        found += 1;
    }
    found
}

fn is_view(ir: &Ir, node: &Node) -> bool {
    let Op::Onnx(operation) = &node.op else { return false };
    let (Some(source), Some(output)) = (node.input(0), node.outputs.first().copied().flatten()) else {
        return false;
    };
    if !operation.node().domain.is_empty()
        || !ir.is_f32(source)
        || !ir.is_f32(output)
        || ir.constant(source).is_some()
    {
        return false;
    }
    let (Some(before), Some(after)) = (ir.shape(source), ir.shape(output)) else { return false };
    let others_unread =
        || node.outputs.iter().skip(1).flatten().all(|&v| ir.uses(v) == 0 && !ir.is_output(v));
    match &*operation.node().op {
        "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" | "Identity" | "Cast" => true,
        "Expand" => before == after,
        "Slice" => slice(ir, operation, &node.inputs)
            .is_some_and(|cuts| before == after && cuts.iter().all(|cut| cut.first == 0)),
        // With a third input it may be in training mode.
        "Dropout" => node.input(2).is_none() && others_unread(),
        _ => false,
    }
}
