//! ONNX Runtime's fused operators, as the sums, products and attentions that they are.

use engine::{DType, Value};
use kernels::Unary;
use onnx_graph::shape::Size;

use super::{graph_input, is, only_output, optional_row, row};
use crate::compiled::dim::Dim;
use crate::compiled::ir::{Constant, Fact, Guard, Ir, Node, NodeId, Table, ValueId};
use crate::compiled::ops::{Attention, Linear, Norm, Op, Weight};

/// What `mask_filter_value` is where a node does not say.
const FILTER: f32 = -10000.0;

pub fn run(ir: &mut Ir) -> usize {
    let mut found = 0;
    for id in ir.ids() {
        let Some(Node { op: Op::Onnx(operation), outputs, .. }) = ir.node(id) else { continue };
        let is_sized = outputs.iter().flatten().any(|&output| ir.is_sized(output));
        if operation.node().domain != "com.microsoft" || is_sized {
            continue;
        }
        let replaced = match &*operation.node().op {
            "BiasGelu" => gelu(ir, id, Unary::GeluErf),
            "FastGelu" => gelu(ir, id, Unary::GeluTanh),
            "QuickGelu" => quick_gelu(ir, id),
            "SkipLayerNormalization" => skip_layer_norm(ir, id),
            "EmbedLayerNormalization" => embed(ir, id),
            "Attention" => attention(ir, id),
            "MultiHeadAttention" => multi_head_attention(ir, id),
            _ => None,
        };
        found += usize::from(replaced.is_some());
    }
    found
}

/// An f32 value like another one, made by a node that is put before node `id`: in its place, as that one follows in a new place at the end.
struct Chain<'a> {
    ir: &'a mut Ir,
    label: String,
    nodes: Vec<Node>,
}

impl Chain<'_> {
    fn made(&mut self, op: Op, inputs: Vec<Option<ValueId>>, shape: Option<Vec<Dim>>) -> ValueId {
        let name = format!("{}/{}", self.label, self.nodes.len());
        let value = self.ir.add_made(name.clone(), DType::F32, shape);
        self.nodes.push(Node { op, label: name, inputs, outputs: vec![Some(value)] });
        value
    }

    fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let shape = self.ir.shape(a).map(<[Dim]>::to_vec);
        self.made(Op::Add, vec![Some(a), Some(b)], shape)
    }

    /// Ends in the node whose place all of them take.
    fn finish(self, id: NodeId, op: Op, inputs: Vec<Option<ValueId>>, output: ValueId) {
        let last = Node { op, label: self.label, inputs, outputs: vec![Some(output)] };
        self.ir.splice(id, self.nodes, last);
    }
}

fn chain(ir: &mut Ir, id: NodeId) -> Option<Chain<'_>> {
    let label = ir.node(id)?.label.clone();
    Some(Chain { ir, label, nodes: Vec::new() })
}

fn gelu(ir: &mut Ir, id: NodeId, function: Unary) -> Option<()> {
    let node = ir.node(id)?;
    let (x, bias, output) = (node.input(0)?, node.input(1), node.output()?);
    let width = ir.width(x)?;
    if !ir.is_f32(x) || bias.is_some_and(|bias| row(ir, bias, width).is_none()) {
        return None;
    }
    let mut chain = chain(ir, id)?;
    let x = bias.map_or(x, |bias| chain.add(x, bias));
    chain.finish(id, Op::Unary(function), vec![Some(x)], output);
    Some(())
}

fn quick_gelu(ir: &mut Ir, id: NodeId) -> Option<()> {
    let node = ir.node(id)?;
    let Op::Onnx(operation) = &node.op else { return None };
    let alpha = operation.node().float("alpha").ok()?.unwrap_or(1.702);
    let (x, output) = (node.input(0)?, node.output()?);
    let function = match alpha {
        1.0 => Unary::Silu,
        alpha if is(alpha, 1.702) => Unary::GeluQuick,
        _ => return None,
    };
    if !ir.is_f32(x) || ir.shape(x).is_none() {
        return None;
    }
    chain(ir, id)?.finish(id, Op::Unary(function), vec![Some(x)], output);
    Some(())
}

/// LayerNorm(x + bias + skip). The order of the two additions is this one's, not ONNX Runtime's: the bias belongs to the product before.
fn skip_layer_norm(ir: &mut Ir, id: NodeId) -> Option<()> {
    let node = ir.node(id)?;
    let Op::Onnx(operation) = &node.op else { return None };
    let (x, skip, bias, output) = (node.input(0)?, node.input(1)?, node.input(4), only_output(ir, node)?);
    let width = ir.width(x)?;
    let eps = operation.node().float("epsilon").ok()?.unwrap_or(1e-12);
    let beta = optional_row(ir, node.input(3), width)?;
    let norm = Norm { gamma: row(ir, node.input(2)?, width)?, beta, eps };
    let fits = ir.is_f32(x) && ir.shape(x) == ir.shape(skip) && ir.constant(skip).is_none();
    if !fits || bias.is_some_and(|bias| row(ir, bias, width).is_none()) {
        return None;
    }
    let mut chain = chain(ir, id)?;
    let x = bias.map_or(x, |bias| chain.add(x, bias));
    let sum = chain.add(x, skip);
    chain.finish(id, Op::LayerNorm(norm), vec![Some(sum)], output);
    Some(())
}

/// word + position + token type, normalised.
fn embed(ir: &mut Ir, id: NodeId) -> Option<()> {
    use crate::compiled::ops::{Embed, Index, Lookup};

    let node = ir.node(id)?;
    let Op::Onnx(operation) = &node.op else { return None };
    let output = only_output(ir, node)?;
    let eps = operation.node().float("epsilon").ok()?.unwrap_or(1e-12);
    let [batch, sequence, width] = ir.shape(output)? else { return None };
    let (batch, sequence, width) = (batch.clone(), sequence.clone(), width.known()?);
    let table = |index: usize| {
        let constant = ir.constant(node.input(index)?)?;
        (constant.dtype() == DType::F32 && constant.shape().len() == 2 && constant.shape()[1] == width)
            .then(|| constant.clone())
    };
    let name = |index: usize| Some(ir.values[node.input(index)?].name.clone());
    let mut inputs = Vec::new();
    let mut index = |place: usize| {
        let (input, casts) = graph_input(ir, node.input(place)?)?;
        let fits = ir.shape(input)? == [batch.clone(), sequence.clone()];
        inputs.push(Some(input));
        fits.then_some(Index::Input(inputs.len() - 1, casts))
    };
    let lookup = |name, table, index| Lookup { name, table, index, from_the_end: false };
    let mut lookups = vec![lookup(name(2)?, table(2)?, index(0)?)];
    let positions = table(3)?;
    let rows = positions.shape()[0];
    let by_place = node.input(8).is_none();
    let position = if by_place { Index::Position((0..rows as i64).collect()) } else { index(8)? };
    lookups.push(lookup(name(3)?, positions, position));
    if node.input(1).is_some() {
        lookups.push(lookup(name(4)?, table(4)?, index(1)?));
    }
    let norm =
        Norm { gamma: row(ir, node.input(5)?, width)?, beta: Some(row(ir, node.input(6)?, width)?), eps };
    let symbol = sequence.as_symbol();
    if by_place && symbol.is_none() && sequence.known().is_none_or(|length| length > rows) {
        return None;
    }
    if let Some(symbol) = symbol.filter(|_| by_place) {
        ir.guard(Guard::AtMost(symbol, rows));
    }
    chain(ir, id)?.finish(id, Op::Embed(Embed { lookups, norm, batch, sequence }), inputs, output);
    Some(())
}

/// What the two attentions have in common.
struct Common {
    heads: usize,
    scale: Option<f32>,
    filter: f32,
}

fn common(ir: &Ir, node: &Node, absent: impl IntoIterator<Item = usize>) -> Option<Common> {
    let Op::Onnx(operation) = &node.op else { return None };
    let given = operation.node();
    let flags = ["unidirectional", "do_rotary", "past_present_share_buffer"];
    let plain = flags.iter().all(|name| given.int(name).ok().flatten().unwrap_or(0) == 0);
    let split = given.ints("qkv_hidden_sizes").ok()?.is_some();
    let past = absent.into_iter().any(|index| node.input(index).is_some());
    let f32s = node.input(0).is_some_and(|x| ir.is_f32(x));
    if !plain || split || past || !f32s || node.outputs.len() != 1 {
        return None;
    }
    Some(Common {
        heads: usize::try_from(given.int("num_heads").ok()??).ok().filter(|&heads| heads > 0)?,
        scale: given.float("scale").ok()?.filter(|&scale| scale != 0.0),
        filter: given.float("mask_filter_value").ok()?.unwrap_or(FILTER),
    })
}

/// Attention over rows of heads, with the mask in one input: bits by row and key.
fn attended(ir: &Ir, common: &Common, x: ValueId, width: usize, mask: Option<ValueId>) -> Option<Attention> {
    let [batch, sequence, _] = ir.shape(x)? else { return None };
    let (heads, head_size) = (common.heads, width / common.heads);
    if head_size * heads != width {
        return None;
    }
    let mask = match mask {
        None => None,
        Some(value) => {
            let Fact::Table(Table { mask: Some(mask), entries }) = &ir.values[value].fact else {
                return None;
            };
            let whole = (mask.row_axis, mask.key_axis) == (0, 1)
                && ir.shape(value)? == [batch.clone(), sequence.clone()];
            let is_seen = |entry: &Value| entry.to_f64().first().copied().unwrap_or(0.0) > 0.0;
            let added = |entry: &Value| Value::scalar(if is_seen(entry) { 0.0 } else { common.filter });
            if !whole {
                return None;
            }
            Some(Table { mask: Some(*mask), entries: entries.iter().map(added).collect() })
        }
    };
    let scale = common.scale.unwrap_or((1.0 / (head_size as f64).sqrt()) as f32);
    let (batch, sequence) = (batch.clone(), sequence.clone());
    let (bias, is_rotary) = (None, false);
    Some(Attention { heads, head_size, scale, batch, sequence, mask, columns: [0; 3], bias, is_rotary })
}

fn mask_input(attention: &Attention) -> Option<ValueId> {
    Some(attention.mask.as_ref()?.mask?.input)
}

/// One matrix for queries, keys and values.
fn attention(ir: &mut Ir, id: NodeId) -> Option<()> {
    let node = ir.node(id)?;
    let common = common(ir, node, [4, 5, 6])?;
    let (x, w, output) = (node.input(0)?, node.input(1)?, node.output()?);
    let constant = ir.constant(w)?;
    let &[inputs, outputs] = constant.shape() else { return None };
    if ir.width(x)? != inputs || outputs % 3 != 0 || !ir.is_f32(w) || inputs == 0 || outputs == 0 {
        return None;
    }
    let width = outputs / 3;
    let bias = optional_row(ir, node.input(2), outputs)?;
    let attention = attended(ir, &common, x, width, node.input(3))?;
    let attention = Attention { columns: [0, width, 2 * width], ..attention };
    let weights = vec![Weight { constant: constant.clone(), inputs, outputs, transposed: false }];
    let mask = mask_input(&attention);
    let shape = vec![attention.batch.clone(), attention.sequence.clone(), Dim::fixed(outputs)];
    let mut chain = chain(ir, id)?;
    let linear = Op::Linear(Linear { weights, bias, activation: None });
    let qkv = chain.made(linear, vec![Some(x)], Some(shape));
    let inputs = [Some(qkv); 3].into_iter().chain(mask.map(Some)).collect();
    chain.finish(id, Op::Attention(attention), inputs, output);
    mask.into_iter().for_each(|mask| ir.guard(Guard::Binary(mask)));
    Some(())
}

/// Queries, keys and values, with their biases side by side.
fn multi_head_attention(ir: &mut Ir, id: NodeId) -> Option<()> {
    let node = ir.node(id)?;
    let common = common(ir, node, 5..10)?;
    let rows = [node.input(0)?, node.input(1)?, node.input(2)?];
    let (bias, output) = (node.input(3), node.output()?);
    let width = ir.width(rows[0])?;
    if rows.iter().any(|&row| ir.shape(row) != ir.shape(rows[0]) || !ir.is_f32(row)) {
        return None;
    }
    let bias = optional_row(ir, bias, 3 * width)?;
    let attention = attended(ir, &common, rows[0], width, node.input(4))?;
    let mask = mask_input(&attention);
    let mut chain = chain(ir, id)?;
    let mut inputs = Vec::with_capacity(4);
    for (index, rows) in rows.into_iter().enumerate() {
        let rows = match &bias {
            Some(bias) => {
                let own = Value::new([width], &bias[index * width..(index + 1) * width]).ok()?;
                let name = format!("{}/bias{index}", chain.label);
                let own = chain.ir.add_constant(name, Constant::Computed(own));
                chain.add(rows, own)
            }
            None => rows,
        };
        inputs.push(Some(rows));
    }
    inputs.extend(mask.map(Some));
    chain.finish(id, Op::Attention(attention), inputs, output);
    mask.into_iter().for_each(|mask| ir.guard(Guard::Binary(mask)));
    Some(())
}
