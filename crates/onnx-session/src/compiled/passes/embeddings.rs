//! Rows looked up by token, by token type and by position, added up and normalised.

use engine::Value;
use onnx_graph::shape::{Size, axis};

use super::{binary, graph_input, rewrite};
use crate::compiled::ir::{Constant, Fact, Ir, Node, NodeId, ValueId};
use crate::compiled::ops::{Embed, Index, Lookup, Op};

pub fn run(ir: &mut Ir) -> usize {
    rewrite(ir, matched)
}

fn matched(ir: &Ir, id: NodeId) -> Option<Node> {
    let node = ir.node(id)?;
    let Op::LayerNorm(norm) = &node.op else { return None };
    let (sum, output) = (node.input(0)?, node.output()?);
    let [batch, sequence, width] = ir.shape(output)? else { return None };
    let mut terms = Vec::new();
    collect(ir, sum, &mut terms)?;
    let (mut lookups, mut inputs) = (Vec::new(), Vec::new());
    for (table, indices) in terms {
        let constant = ir.constant(table)?;
        let Some(indices) = indices else {
            // Rows that are looked up already, by positions that are constant: along the sequence,
            // not along the batch.
            let (length, width) = (sequence.known()?, width.known()?);
            constant.shape().strip_suffix(&[length, width])?;
            let floats = constant.floats()?;
            // Every text has the same, to the bit.
            let (rows, others) = floats.split_at_checked(length * width)?;
            let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            if others.chunks(length * width).any(|other| bits(other) != bits(rows)) {
                return None;
            }
            let rows = Value::new([length, width], rows).ok()?;
            let index = Index::Position((0..i64::try_from(length).ok()?).collect());
            let name = ir.values[table].name.clone();
            lookups.push(Lookup { name, table: Constant::Computed(rows), index, from_the_end: false });
            continue;
        };
        if constant.shape().len() != 2
            || constant.shape().last().copied() != width.known()
            || !ir.is_f32(table)
        {
            return None;
        }
        let index = if let Some((input, casts)) = graph_input(ir, indices) {
            // Whatever has fewer dimensions than the result would be broadcast.
            if ir.shape(indices)? != [batch.clone(), sequence.clone()] {
                return None;
            }
            inputs.push(Some(input));
            Index::Input(inputs.len() - 1, casts)
        } else {
            match &ir.values[indices].fact {
                Fact::Counted(counted) if ir.shape(indices)? == [batch.clone(), sequence.clone()] => {
                    inputs.push(Some(counted.input));
                    Index::Counted(inputs.len() - 1, *counted)
                }
                Fact::Prefix(list) if ir.shape(indices)?.last() == Some(sequence) => {
                    Index::Position(list.clone())
                }
                Fact::Table(table) if table.mask.is_none() => {
                    Index::Same(*table.entries.first()?.as_slice::<i64>().ok()?.first()?)
                }
                _ => return None,
            }
        };
        let name = ir.values[table].name.clone();
        lookups.push(Lookup { name, table: constant.clone(), index, from_the_end: true });
    }
    if inputs.is_empty() {
        return None;
    }
    let embed = Embed { lookups, norm: norm.clone(), batch: batch.clone(), sequence: sequence.clone() };
    Some(node.becomes(Op::Embed(embed), inputs))
}

/// The lookups that a value is the sum of, in the order that they are added in: `(a + b) + c`.
fn collect(ir: &Ir, value: ValueId, terms: &mut Vec<(ValueId, Option<ValueId>)>) -> Option<()> {
    if ir.constant(value).is_some() && ir.is_f32(value) {
        terms.push((value, None));
        return Some(());
    }
    if !ir.is_intermediate(value) {
        return None;
    }
    if let Some((_, node, operation)) = ir.onnx(value, "Gather") {
        let (table, indices) = (node.input(0)?, node.input(1)?);
        let rank = ir.shape(table)?.len();
        if axis(operation.node().int("axis").ok()?.unwrap_or(0), rank)? != 0 {
            return None;
        }
        terms.push((table, Some(indices)));
        return Some(());
    }
    let [a, b] = binary(ir, value, "Add")?;
    // Of two lookups either may come first; a sum has to, for the same order of additions.
    let is_lookup = |value| ir.onnx(value, "Gather").is_some() || ir.constant(value).is_some();
    let (first, second) = if is_lookup(b) { (a, b) } else { (b, a) };
    if !is_lookup(second) {
        return None;
    }
    collect(ir, first, terms)?;
    collect(ir, second, terms)
}
