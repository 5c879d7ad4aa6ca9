//! Attention, from the splitting of queries, keys and values into heads to the joining of what each head gives.
//!
//! ```text
//! softmax(split(q) · split(k)ᵀ · scale + mask) · split(v), joined
//! ```
//!
//! The scale may stand before the product, if it is at most 1 and not tiny, after it, or as a root
//! on both sides. The mask has to be known as a table: by row and key of an input, the same for all
//! heads and queries. ONNX's own `Attention` of opset 23 may stand in the middle.

use engine::Value;
use onnx_graph::shape::{Size, axis};

use super::binary;
use super::heads::{Heads, Sizes, join, scaled, split};
use crate::compiled::dim::Dim;
use crate::compiled::ir::{Fact, Guard, Ir, Node, NodeId, Table, ValueId};
use crate::compiled::ops::{Attention, Op};

/// A key that gets at most this added to its scores has no part in a softmax with one that gets 0,
/// unless their scores are thousands apart, which a run looks at
/// ([`reach`](crate::compiled::reach)).
pub const MASKED: f32 = -9000.0;

pub fn run(ir: &mut Ir) -> usize {
    let mut found = 0;
    // From the back, so that the rows are met before their transposed form.
    for id in ir.ids().into_iter().rev() {
        if let Some(node) = matched(ir, id) {
            if let Op::Attention(Attention { mask: Some(Table { mask: Some(mask), .. }), .. }) = &node.op {
                let guard = Guard::Binary(mask.input);
                ir.guard(guard);
            }
            ir.replace(id, node);
            found += 1;
        }
    }
    found
}

fn matched(ir: &Ir, id: NodeId) -> Option<Node> {
    let node = ir.node(id)?;
    let output = node.output()?;
    let joins = matches!(node.op, Op::View) || ir.onnx(output, "Transpose").is_some();
    if !joins || !ir.is_f32(output) {
        return None;
    }
    let (context, sizes) = join(ir, output)?;
    if !ir.is_intermediate(context) {
        return None;
    }
    let (q, k, v, scale, mask) = chain(ir, context).or_else(|| operator(ir, context, &sizes))?;
    if q.sizes != sizes || k.sizes != sizes || v.sizes != sizes || v.scale != 1.0 {
        return None;
    }
    let mask = match mask {
        Some(value) => known_mask(ir, value, &sizes)?,
        None => None,
    };
    let Sizes { batch, sequence, heads, head_size } = sizes;
    let scale = (scale * q.scale * k.scale) as f32;
    let inputs = [q.rows, k.rows, v.rows].into_iter().map(Some).chain(
        // The mask is an input, so that it counts as read.
        mask.as_ref().and_then(|table| table.mask).map(|mask| Some(mask.input)),
    );
    let inputs = inputs.collect();
    let op = Op::Attention(Attention { heads, head_size, scale, batch, sequence, mask, columns: [0; 3] });
    Some(node.becomes(op, inputs))
}

type Parts = (Heads, Heads, Heads, f64, Option<Mask>);

/// What is done to the scores before the softmax.
enum Mask {
    /// A value is added.
    Added(ValueId),
    /// Where the first is true, the second, which is one number, stands in their place.
    Replaced(ValueId, ValueId),
}

/// The product of a softmax of scores and the values.
fn chain(ir: &Ir, context: ValueId) -> Option<Parts> {
    let [weights, v] = binary(ir, context, "MatMul")?;
    let v = split(ir, v, false)?;
    let (_, node, operation) = ir.onnx(weights, "Softmax")?;
    let mut scores = node.input(0)?;
    let rank = ir.shape(scores)?.len();
    let by_default = if operation.opset() >= 13 { -1 } else { 1 };
    let last = axis(operation.node().int("axis").ok()?.unwrap_or(by_default), rank)? + 1 == rank;
    if !last || !ir.is_intermediate(weights) {
        return None;
    }
    let (mut scale, mut mask) = (1.0, None);
    loop {
        if !ir.is_intermediate(scores) {
            return None;
        }
        if let Some((product, factor)) = scaled(ir, scores) {
            scale *= factor;
            scores = product;
        } else if let Some([a, b]) = binary(ir, scores, "Add").filter(|_| mask.is_none() && scale == 1.0) {
            let (sum, added) = if is_table(ir, b) { (a, b) } else { (b, a) };
            mask = Some(Mask::Added(added));
            scores = sum;
        } else if let Some((_, node, _)) = ir.onnx(scores, "Where").filter(|_| mask.is_none() && scale == 1.0)
        {
            mask = Some(Mask::Replaced(node.input(0)?, node.input(1)?));
            scores = node.input(2)?;
        } else {
            break;
        }
    }
    let (q, k, exchanged) = match binary(ir, scores, "MatMul") {
        Some([q, k]) => (q, k, true),
        None => {
            let (_, node) = ir.producer(scores)?;
            let Op::Onnx(operation) = &node.op else { return None };
            let given = operation.node();
            let flag = |name: &str| given.int(name).ok().flatten().unwrap_or(0) != 0;
            let plain = !flag("transA") && !flag("transBatchA") && !flag("transBatchB");
            if given.op != "FusedMatMul" || given.domain != "com.microsoft" || !plain {
                return None;
            }
            scale *= f64::from(given.float("alpha").ok()?.unwrap_or(1.0));
            (node.input(0)?, node.input(1)?, !flag("transB"))
        }
    };
    Some((split(ir, q, false)?, split(ir, k, exchanged)?, v, scale, mask))
}

/// ONNX's `Attention`, of values by head, without a past.
fn operator(ir: &Ir, context: ValueId, sizes: &Sizes) -> Option<Parts> {
    let (_, node, operation) = ir.onnx(context, "Attention")?;
    let given = operation.node();
    let unset = |name: &str| given.int(name).ok().flatten().unwrap_or(0) == 0;
    let by_head = given.int("q_num_heads").ok()?.is_none() && given.int("kv_num_heads").ok()?.is_none();
    let plain = unset("is_causal") && unset("qk_matmul_output_mode") && by_head;
    let in_f32 = matches!(given.int("softmax_precision").ok()?, None | Some(1));
    let no_cap = given.float("softcap").ok()?.unwrap_or(0.0) == 0.0;
    if !plain
        || !in_f32
        || !no_cap
        || node.outputs.len() != 1
        || (4..node.inputs.len()).any(|i| node.input(i).is_some())
    {
        return None;
    }
    let scale = match given.float("scale").ok()? {
        Some(scale) => f64::from(scale),
        None => 1.0 / (sizes.head_size as f64).sqrt(),
    };
    let part = |index: usize| split(ir, node.input(index)?, false);
    Some((part(0)?, part(1)?, part(2)?, scale, node.input(3).map(Mask::Added)))
}

fn is_table(ir: &Ir, value: ValueId) -> bool {
    matches!(ir.values[value].fact, Fact::Table(_))
}

/// The mask as numbers to add to the scores of a key; `Some(None)` if it adds nothing.
fn known_mask(ir: &Ir, given: Mask, sizes: &Sizes) -> Option<Option<Table>> {
    let (value, replaced) = match given {
        Mask::Added(value) => (value, None),
        Mask::Replaced(condition, number) => (condition, Some(number)),
    };
    let Fact::Table(table) = &ir.values[value].fact else { return None };
    let entries = match replaced {
        None => table.entries.clone(),
        Some(number) => {
            let number = super::scalar(ir, number)?;
            // What replaces a score does what it does when added only if no score can be seen beside it.
            if number != f32::MIN && number != f32::NEG_INFINITY {
                return None;
            }
            let entry = |entry: &Value| {
                let masked = *entry.as_slice::<bool>().ok()?.first()?;
                Some(Value::scalar(if masked { number } else { 0.0 }))
            };
            table.entries.iter().map(entry).collect::<Option<_>>()?
        }
    };
    let numbers: Vec<f32> =
        entries.iter().map(|entry| entry.as_slice::<f32>().ok()?.first().copied()).collect::<Option<_>>()?;
    let Some(mask) = table.mask else {
        return (numbers == [0.0]).then_some(None);
    };
    let fits = ir.shape(value)?.len() == 4
        && (mask.row_axis, mask.key_axis) == (0, 3)
        && ir.shape(mask.input)? == [sizes.batch.clone(), sizes.sequence.clone()]
        && ir.shape(value)?[1] == Dim::fixed(1)
        // The same for each query: an axis of 1, or one along which the mask was expanded.
        && (ir.shape(value)?[2].is_one() || ir.shape(value)?[2] == sizes.sequence);
    fits.then_some(Some(Table { mask: Some(mask), entries }))
}
