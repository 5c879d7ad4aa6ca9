//! Attention, from the splitting of queries, keys and values into heads to the joining of what each head gives.
//!
//! ```text
//! softmax(split(q) · split(k)ᵀ · scale + bias + mask) · split(v), joined
//! ```
//!
//! The scale may stand before the product, if it is at most 1 and not tiny, after it, or as a root
//! on both sides. The mask has to be known as a table: by row and key of an input, the same for all
//! heads and queries; the bias, a number for each pair of places, has to depend on sizes alone. A
//! mask may hide what is outside a window, and queries and keys may be turned by their places.
//! ONNX's own `Attention` of opset 23 may stand in the middle.

use std::collections::HashMap;

use engine::{DType, Value};
use kernels::Meets;
use onnx_graph::shape::{Size, axis};

use super::heads::{Heads, Sizes, join, scaled, split};
use super::{binary, scalar};
use crate::compiled::dim::Dim;
use crate::compiled::ir::{Constant, Fact, Guard, Ir, Node, NodeId, Table, ValueId};
use crate::compiled::ops::{Attention, Bias, Op};

/// A key that gets at most this added to its scores has no part in a softmax with one that gets 0,
/// unless their scores are thousands apart, which a run looks at
/// ([`reach`](crate::compiled::reach)).
pub const MASKED: f32 = -9000.0;

pub fn run(ir: &mut Ir) -> usize {
    let windows = windows(ir);
    let mut found = 0;
    // From the back, so that the rows are met before their transposed form.
    for id in ir.ids().into_iter().rev() {
        let Some(Found { op, mut inputs, own_bias }) = matched(ir, &windows, id) else { continue };
        if let Some(Table { mask: Some(mask), .. }) = &op.mask {
            let guard = Guard::Binary(mask.input);
            ir.guard(guard);
        }
        let Some(node) = ir.node(id) else { continue };
        if let Some(bias) = own_bias {
            let name = format!("{}/bias", node.label);
            inputs[4] = Some(ir.add_constant(name, Constant::Computed(bias)));
        }
        let Some(node) = ir.node(id) else { continue };
        let node = node.becomes(Op::Attention(op), inputs);
        ir.replace(id, node);
        found += 1;
    }
    found
}

/// An attention, and what it reads. A bias that no value of the graph is comes with it.
struct Found {
    op: Attention,
    inputs: Vec<Option<ValueId>>,
    own_bias: Option<Value>,
}

fn matched(ir: &Ir, windows: &Windows, id: NodeId) -> Option<Found> {
    let node = ir.node(id)?;
    let output = node.output()?;
    let joins = matches!(node.op, Op::View) || ir.onnx(output, "Transpose").is_some();
    if !joins || !ir.is_f32(output) || ir.is_sized(output) {
        return None;
    }
    let (context, sizes) = join(ir, output)?;
    if !ir.is_intermediate(context) {
        return None;
    }
    let Parts { q, k, v, scale, mask, bias } =
        chain(ir, context).or_else(|| operator(ir, context, &sizes))?;
    let plain_values = v.scale == 1.0 && v.angles.is_none() && q.angles == k.angles;
    if q.sizes != sizes || k.sizes != sizes || v.sizes != sizes || !plain_values {
        return None;
    }
    let window = match mask {
        Some(Mask::Added(value)) => windows.get(&value).filter(|_| bias.is_none()),
        _ => None,
    };
    let (mask, meets) = match window {
        Some(window) => (Some(Mask::Added(window.mask)), Meets::Least),
        None => (mask, Meets::Sum),
    };
    let mask = match mask {
        Some(value) => known_mask(ir, value, &sizes)?,
        None => None,
    };
    let (bias, by_head, own_bias) = match window.map(|window| window.bias).or(bias) {
        Some(value) => by_places(ir, value, &sizes)?,
        None => (None, false, None),
    };
    let columns = [q.column, k.column, v.column];
    let scale = (scale * q.scale * k.scale) as f32;
    // The mask is an input, so that it counts as read.
    let mask_input = mask.as_ref().and_then(|table| table.mask).map(|mask| mask.input);
    let angles = q.angles.map_or([None; 2], |angles| angles.map(Some));
    let inputs = [Some(q.rows), Some(k.rows), Some(v.rows), mask_input, bias].into_iter().chain(angles);
    let Sizes { batch, sequence, heads, head_size } = sizes;
    let op = Attention {
        heads,
        head_size,
        scale,
        batch,
        sequence,
        mask,
        columns,
        bias: (bias.is_some() || own_bias.is_some()).then_some(Bias { by_head, meets }),
        is_rotary: q.angles.is_some(),
    };
    Some(Found { op, inputs: inputs.collect(), own_bias })
}

struct Parts {
    q: Heads,
    k: Heads,
    v: Heads,
    scale: f64,
    mask: Option<Mask>,
    /// What is added beside the mask: it depends on sizes alone.
    bias: Option<ValueId>,
}

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
    let weights = uncast(ir, weights);
    let (_, node, operation) = ir.onnx(weights, "Softmax")?;
    let mut scores = node.input(0)?;
    let rank = ir.shape(scores)?.len();
    let by_default = if operation.opset() >= 13 { -1 } else { 1 };
    let last = axis(operation.node().int("axis").ok()?.unwrap_or(by_default), rank)? + 1 == rank;
    if !last || !ir.is_intermediate(weights) {
        return None;
    }
    let (mut scale, mut mask, mut bias) = (1.0, None, None);
    loop {
        if !ir.is_intermediate(scores) {
            return None;
        }
        if let Some((product, factor)) = scaled(ir, scores) {
            scale *= factor;
            scores = product;
        } else if let Some([a, b]) = binary(ir, scores, "Add").filter(|_| scale == 1.0) {
            let is_added = |value| is_table(ir, value) || ir.is_sized(value);
            let (sum, added) = if is_added(a) && !is_added(b) { (b, a) } else { (a, b) };
            if ir.is_sized(added) && !is_table(ir, added) {
                if bias.replace(added).is_some() {
                    return None;
                }
            } else if bias.is_some() || mask.replace(Mask::Added(added)).is_some() {
                // The kernel adds the bias first.
                return None;
            }
            scores = sum;
        } else if let Some((_, node, _)) = ir.onnx(scores, "Where").filter(|_| mask.is_none() && scale == 1.0)
        {
            // What replaces a score replaces the bias with it, if that is added before.
            if bias.is_some() {
                return None;
            }
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
    Some(Parts { q: split(ir, q, false)?, k: split(ir, k, exchanged)?, v, scale, mask, bias })
}

/// What a value is the same as, element by element; nobody else reads what lies between.
fn uncast(ir: &Ir, value: ValueId) -> ValueId {
    let mut value = value;
    while let Some((_, Node { op: Op::View, inputs, .. })) = ir.producer(value) {
        match inputs[..] {
            [Some(source)] if ir.shape(source) == ir.shape(value) && ir.is_intermediate(value) => {
                value = source
            }
            _ => break,
        }
    }
    value
}

/// A bias as numbers for each pair of places: the value, or, if a constant has them for each text
/// anew, those of the first; and whether each head has its own.
fn by_places(ir: &Ir, value: ValueId, sizes: &Sizes) -> Option<(Option<ValueId>, bool, Option<Value>)> {
    // A run would have the copies to make.
    let value = match ir.onnx(value, "Expand") {
        Some((_, node, _)) => node.input(0).filter(|&source| ir.is_sized(source)).unwrap_or(value),
        None => value,
    };
    let [leading @ .., queries, keys] = ir.shape(value)? else { return None };
    if !ir.is_f32(value) || *queries != sizes.sequence || *keys != sizes.sequence || leading.len() > 2 {
        return None;
    }
    let heads = leading.last().and_then(Size::known).unwrap_or(1);
    let texts = leading.len().checked_sub(2).and_then(|at| leading[at].known()).unwrap_or(1);
    let is_known = leading.iter().all(|dim| dim.known().is_some());
    if !is_known || (heads != 1 && heads != sizes.heads) {
        return None;
    }
    let by_head = heads != 1;
    if texts == 1 {
        return Some((Some(value), by_head, None));
    }
    let floats = ir.constant(value)?.floats()?;
    let each = floats.len().checked_div(texts).filter(|&each| each > 0)?;
    let bits = |text: &[f32]| text.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let first = &floats[..each];
    let same = floats.chunks(each).all(|text| bits(text) == bits(first));
    let size = sizes.sequence.known()?;
    same.then(|| Value::new([heads, size, size], first).ok()).flatten().map(|own| (None, by_head, Some(own)))
}

/// Windows, by the values that they are.
type Windows = HashMap<ValueId, Window>;

/// A mask that hides some pairs of places in any case, `Where(hidden, number, mask)`: the lesser of
/// a bias and of that mask.
struct Window {
    bias: ValueId,
    mask: ValueId,
}

/// All windows: for each a node that makes its bias.
fn windows(ir: &mut Ir) -> Windows {
    let mut found = Windows::new();
    for id in ir.ids() {
        let Some((output, window)) = window(ir, id) else { continue };
        found.insert(output, window);
    }
    ir.place();
    found
}

fn window(ir: &mut Ir, id: NodeId) -> Option<(ValueId, Window)> {
    let node = ir.node(id)?.clone();
    let output = node.output()?;
    let (_, _, operation) = ir.onnx(output, "Where")?;
    let operation = operation.clone();
    let [Some(hidden), Some(number), Some(mask)] = node.inputs[..] else { return None };
    let lowest = scalar(ir, number)?;
    let Fact::Table(table) = &ir.values[mask].fact else { return None };
    let entry = |index: usize| table.entries.get(index)?.as_slice::<f32>().ok()?.first().copied();
    // So the lesser of both is the one that Where takes.
    let ordered = table.mask.is_some() && lowest <= entry(0)? && entry(0)? <= entry(1)?;
    if !ordered || ir.is_sized(mask) || !ir.is_sized(hidden) || !ir.is_f32(output) {
        return None;
    }
    let (seen, shape) = (Value::scalar(entry(1)?), ir.shape(hidden)?.to_vec());
    let label = format!("{}/window", node.label);
    let seen = ir.add_constant(format!("{label}/seen"), Constant::Computed(seen));
    let bias = ir.add_made(label.clone(), DType::F32, Some(shape));
    ir.values[bias].is_sized = true;
    let inputs = vec![Some(hidden), Some(number), Some(seen)];
    let made = Node { op: Op::Onnx(operation), label, inputs, outputs: vec![Some(bias)] };
    ir.splice(id, vec![made], node);
    Some((output, Window { bias, mask }))
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
    let (mask, bias) = match node.input(3) {
        Some(added) if ir.is_sized(added) && !is_table(ir, added) => (None, Some(added)),
        added => (added.map(Mask::Added), None),
    };
    Some(Parts { q: part(0)?, k: part(1)?, v: part(2)?, scale, mask, bias })
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
            let number = scalar(ir, number)?;
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
        && ir.as_rows(mask.input)? == [sizes.batch.clone(), sizes.sequence.clone()]
        // The same for each head: an axis of 1, or one along which the mask was expanded.
        && (ir.shape(value)?[1].is_one() || ir.shape(value)?[1] == Dim::fixed(sizes.heads))
        // The same for each query: an axis of 1, or one along which the mask was expanded.
        && (ir.shape(value)?[2].is_one() || ir.shape(value)?[2] == sizes.sequence);
    fits.then_some(Some(Table { mask: Some(mask), entries }))
}
