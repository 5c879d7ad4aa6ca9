//! What makes few steps of many nodes. [`PASSES`] is the whole list, in the order they run in.
//!
//! A pass replaces a node and those it depends on by one node of [`Op`](super::ops::Op). It takes only what computes the same function, and it leaves a
//! value alone that anybody else reads: what is replaced must be read by the nodes that are replaced with it, and be no output. Every pass may be
//! switched off; a graph runs as well without it, only slower.

mod attention;
mod columns;
mod embeddings;
mod gate;
mod gelu;
mod heads;
mod layer_norm;
mod linear;
mod microsoft;
mod qkv;
mod rotary;
mod token;
mod view;

#[cfg(test)]
mod tests;

pub use attention::MASKED;

use std::sync::Arc;

use engine::DType;

use super::ir::{Ir, Node, NodeId, ValueId};
use super::ops::{Casts, Op};

/// A pass.
pub struct Pass {
    /// What it is switched off by.
    pub name: &'static str,
    /// Changes the graph; returns how many times it has found what it looks for.
    pub run: fn(&mut Ir) -> usize,
}

/// All passes, in order.
pub const PASSES: &[Pass] = &[
    Pass { name: "ColumnsFusion", run: columns::run },
    // What only names elements anew, so that the others can look through it.
    Pass { name: "ViewFusion", run: view::run },
    // ONNX Runtime's fused operators, as what they are made of: SkipLayerNormalization is a sum and a LayerNorm.
    Pass { name: "MicrosoftFusion", run: microsoft::run },
    Pass { name: "LayerNormFusion", run: layer_norm::run },
    Pass { name: "GeluFusion", run: gelu::run },
    Pass { name: "LinearFusion", run: linear::run },
    Pass { name: "BiasFusion", run: linear::bias },
    Pass { name: "ActivationFusion", run: linear::activation },
    Pass { name: "GateFusion", run: gate::run },
    // Before the residual: what is added to the result of an attention's output is often its input.
    Pass { name: "AttentionFusion", run: attention::run },
    Pass { name: "QkvFusion", run: qkv::run },
    Pass { name: "ResidualFusion", run: linear::residual },
    Pass { name: "EmbeddingsFusion", run: embeddings::run },
    Pass { name: "TokenFusion", run: token::run },
];

/// Runs the passes that `wanted` names.
pub fn run(ir: &mut Ir, wanted: impl Fn(&str) -> bool) {
    for pass in PASSES.iter().filter(|pass| wanted(pass.name)) {
        (pass.run)(ir);
        ir.settle();
    }
}

/// Replaces every node for which there is another; returns how many there were.
fn rewrite(ir: &mut Ir, other: impl Fn(&Ir, NodeId) -> Option<Node>) -> usize {
    rewrite_each(ir, ir.ids(), other)
}

/// As [`rewrite`], from the back: a node is met before those it depends on.
fn rewrite_from_the_back(ir: &mut Ir, other: impl Fn(&Ir, NodeId) -> Option<Node>) -> usize {
    rewrite_each(ir, ir.ids().into_iter().rev(), other)
}

fn rewrite_each(
    ir: &mut Ir,
    ids: impl IntoIterator<Item = NodeId>,
    other: impl Fn(&Ir, NodeId) -> Option<Node>,
) -> usize {
    let mut found = 0;
    for id in ids {
        // What depends on sizes alone is left to the nodes: it is not computed in every run.
        let computed = |node: &Node| !node.outputs.iter().flatten().all(|&output| ir.is_sized(output));
        if let Some(node) = ir.node(id).filter(|node| computed(node)).and_then(|_| other(ir, id)) {
            ir.replace(id, node);
            found += 1;
        }
    }
    found
}

/// Whether a constant is this number, within one unit in the last place of f32.
fn is(found: f32, wanted: f64) -> bool {
    let wanted = wanted as f32;
    found.is_finite() && (found == wanted || found == wanted.next_up() || found == wanted.next_down())
}

/// The one number that a value is.
fn scalar(ir: &Ir, value: ValueId) -> Option<f32> {
    ir.constant(value)?.float()
}

/// The inputs of the `op` that makes a value, if it has two and no other.
fn binary(ir: &Ir, value: ValueId, op: &str) -> Option<[ValueId; 2]> {
    let (_, node) = ir.producer(value)?;
    if !(op == "Add" && matches!(node.op, Op::Add)) {
        ir.onnx(value, op)?;
    }
    match node.inputs[..] {
        [Some(a), Some(b)] => Some([a, b]),
        _ => None,
    }
}

/// The input of the `op` that makes a value, if it has one.
fn unary(ir: &Ir, value: ValueId, op: &str) -> Option<ValueId> {
    let (_, node, _) = ir.onnx(value, op)?;
    match node.inputs[..] {
        [Some(x)] => Some(x),
        _ => None,
    }
}

/// Of two inputs in either order, the number and the other one.
fn with_scalar(ir: &Ir, [a, b]: [ValueId; 2]) -> Option<(f32, ValueId)> {
    scalar(ir, a).map(|number| (number, b)).or_else(|| scalar(ir, b).map(|number| (number, a)))
}

/// The input of integers that a value is a cast of, through integers alone, and the casts.
fn graph_input(ir: &Ir, value: ValueId) -> Option<(ValueId, Casts)> {
    let (mut at, mut casts) = (ir.same_elements(value), Vec::new());
    while !ir.inputs.contains(&at) {
        casts.push(ir.values[at].dtype.filter(|dtype| !dtype.is_float())?);
        at = ir.same_elements(unary(ir, at, "Cast")?);
    }
    casts.reverse();
    matches!(ir.values[at].dtype, Some(DType::I64 | DType::I32)).then_some((at, Casts(casts)))
}

/// The elements of a constant that is one row of so many.
fn row(ir: &Ir, value: ValueId, width: usize) -> Option<Arc<[f32]>> {
    let constant = ir.constant(value)?;
    let one_row = constant.shape().last() == Some(&width) && constant.len() == width;
    one_row.then(|| constant.floats().map(Into::into)).flatten()
}

/// As [`row`], of an input that may be left out.
fn optional_row(ir: &Ir, value: Option<ValueId>, width: usize) -> Option<Option<Arc<[f32]>>> {
    value.map_or(Some(None), |value| row(ir, value, width).map(Some))
}

/// Of two values in either order, the constant row, and the other one.
fn with_row(ir: &Ir, [a, b]: [ValueId; 2], width: usize) -> Option<(Arc<[f32]>, ValueId)> {
    row(ir, b, width).map(|row| (row, a)).or_else(|| Some((row(ir, a, width)?, b)))
}

/// The first output, if no other is read.
fn only_output(ir: &Ir, node: &Node) -> Option<ValueId> {
    let unread = |&value: &ValueId| ir.uses(value) == 0 && !ir.is_output(value);
    node.outputs.first().copied().flatten().filter(|_| node.outputs.iter().skip(1).flatten().all(unread))
}

/// Looks through views that keep the rows: the value that they are a view of. What lies between is read once.
fn rows_of(ir: &Ir, value: ValueId) -> ValueId {
    let mut value = value;
    while let Some((_, node)) = ir.producer(value) {
        let Some(source) = node.input(0).filter(|_| matches!(node.op, Op::View)) else { break };
        if ir.width(source) != ir.width(value) || ir.width(value).is_none() || !ir.is_intermediate(value) {
            break;
        }
        value = source;
    }
    value
}
