//! The queries, keys and values of an attention, from the same rows: three matrices side by side are one.

use onnx_graph::shape::Size;

use crate::compiled::dim::Dim;
use crate::compiled::ir::{Ir, Node, NodeId, ValueId};
use crate::compiled::ops::{Attention, Linear, Op};

pub fn run(ir: &mut Ir) -> usize {
    ir.ids().into_iter().filter(|&id| merge(ir, id).is_some()).count()
}

fn merge(ir: &mut Ir, id: NodeId) -> Option<()> {
    let Some(Node { op: Op::Attention(attention), inputs, outputs, label }) = ir.node(id).cloned() else {
        return None;
    };
    let rows: [ValueId; 3] = [inputs.first().copied()??, inputs.get(1).copied()??, inputs.get(2).copied()??];
    let (first, x, parts) = parts(ir, rows)?;
    let width = attention.heads * attention.head_size;
    let bias = match parts.iter().map(|part| part.bias.as_deref()).collect::<Vec<_>>()[..] {
        [Some(q), Some(k), Some(v)] => Some([q, k, v].concat().into()),
        [None, None, None] => None,
        _ => return None,
    };
    if parts.iter().any(|part| part.outputs() != width) || attention.columns != [0; 3] {
        return None;
    }
    let weights = parts.into_iter().flat_map(|part| part.weights).collect();
    let (last, leading) = ir.shape(rows[0])?.split_last()?;
    let shape = [leading, &[last.times(&Dim::fixed(3))?]].concat();
    let dtype = ir.values[rows[0]].dtype?;
    let all = ir.add_made(format!("{label}/qkv"), dtype, Some(shape));
    let op = Op::Linear(Linear { weights, bias, activation: None });
    let inner = Node { op, label: format!("{label}/qkv"), inputs: vec![Some(x)], outputs: vec![Some(all)] };
    ir.replace(first, inner);
    let inputs = [Some(all); 3].into_iter().chain(inputs.into_iter().skip(3)).collect();
    let op = Op::Attention(Attention { columns: [0, width, 2 * width], ..attention });
    ir.replace(id, Node { op, label, inputs, outputs });
    Some(())
}

/// The products that three values are, if they are of the same rows and nobody else reads them; and where the first of them stands.
fn parts(ir: &Ir, values: [ValueId; 3]) -> Option<(NodeId, ValueId, Vec<Linear>)> {
    let mut found: Option<(NodeId, ValueId)> = None;
    let mut parts = Vec::with_capacity(3);
    for value in values {
        let (id, node) = ir.producer(value)?;
        let Op::Linear(linear) = &node.op else { return None };
        let x = node.input(0)?;
        if node.inputs.len() != 1 || linear.activation.is_some() || !ir.is_intermediate(value) {
            return None;
        }
        match &mut found {
            Some((_, other)) if *other != x => return None,
            Some((first, _)) => *first = (*first).min(id),
            None => found = Some((id, x)),
        }
        parts.push(linear.clone());
    }
    let (first, x) = found?;
    Some((first, x, parts))
}
