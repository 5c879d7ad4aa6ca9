//! The graph that passes work on: values and nodes by number, and what is known of each value before anything runs.

use std::sync::Arc;

use engine::{DType, Value};
use onnx_eval::Operation;
use onnx_graph::shape::{Size, volume};

use super::dim::{Dim, Int, Symbol};
use super::ops::Op;

pub type ValueId = usize;
pub type NodeId = usize;

/// A value of the graph.
#[derive(Debug, Clone)]
pub struct Info {
    pub name: String,
    /// `None` where it is not known before a run.
    pub dtype: Option<DType>,
    /// `None` where it is not known before a run, or is no product of input sizes.
    pub shape: Option<Vec<Dim>>,
    pub fact: Fact,
    /// Whether it depends on the inputs' sizes alone: then it is computed once for each of them.
    pub is_sized: bool,
}

/// What is known of the elements.
#[derive(Debug, Clone)]
pub enum Fact {
    Unknown,
    Const(Constant),
    /// A list of sizes, or one size: of rank 0 or 1.
    Ints(Vec<Int>),
    /// The first elements of a constant list, or of the one row of a constant matrix: as many as the last dimension says.
    Prefix(Arc<[i64]>),
    /// Each element is one of a few numbers, looked up in a table by what a mask holds there.
    Table(Table),
    /// Positions that are counted over the elements of an input.
    Counted(Counted),
}

/// Places among those of a row's elements that are not padding, as RoBERTa counts them: at
/// `[row, place]` it is `base[m] + per[m] · n`, where m is 1 if the input is `padding` there and 0
/// if not, and n is how many elements of the row are not `padding`, up to and with that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// An input of the graph.
    pub input: ValueId,
    pub padding: i64,
    pub base: [i64; 2],
    /// -1, 0 or 1.
    pub per: [i64; 2],
}

impl Counted {
    /// What it is at an element, given how many are not padding up to and with it.
    pub fn at(&self, element: i64, count: i64) -> i64 {
        let m = usize::from(element == self.padding);
        self.base[m] + self.per[m] * count
    }
}

/// A value that is constant but for a mask: elements at `[…, row, …, key, …]` are `entries[mask[row, key]]`, whatever the other axes are.
///
/// It holds as long as every element of the mask is 0 or 1, which a run that relies on it checks.
#[derive(Debug, Clone)]
pub struct Table {
    /// `None` if all elements are the same, `entries[0]`.
    pub mask: Option<Mask>,
    /// Values of rank 0: one, or with a mask those for 0 and for 1.
    pub entries: Vec<Value>,
}

/// Which input is the mask, and which of a value's axes are its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    pub input: ValueId,
    pub row_axis: usize,
    pub key_axis: usize,
}

/// A constant: the bytes of the file, or what was computed from them.
#[derive(Debug, Clone)]
pub enum Constant {
    Stored(onnx_graph::Tensor),
    Computed(Value),
}

impl Constant {
    pub fn dtype(&self) -> DType {
        match self {
            Constant::Stored(tensor) => tensor.dtype,
            Constant::Computed(value) => value.dtype(),
        }
    }

    pub fn shape(&self) -> &[usize] {
        match self {
            Constant::Stored(tensor) => &tensor.shape,
            Constant::Computed(value) => value.shape(),
        }
    }

    /// The elements; copied where they are the file's. `None` where a stored bool is none.
    pub fn value(&self) -> Option<Value> {
        match self {
            Constant::Stored(tensor) => tensor.to_value().ok(),
            Constant::Computed(value) => Some(value.clone()),
        }
    }

    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// The elements, if they are f32.
    pub fn floats(&self) -> Option<Vec<f32>> {
        match self {
            Constant::Stored(tensor) if tensor.dtype == DType::F32 => {
                let elements = tensor.bytes.as_chunks::<4>().0;
                Some(elements.iter().map(|&element| f32::from_le_bytes(element)).collect())
            }
            Constant::Stored(_) => None,
            Constant::Computed(value) => Some(value.as_slice::<f32>().ok()?.to_vec()),
        }
    }

    /// The one element, if there is one and it is f32.
    pub fn float(&self) -> Option<f32> {
        if self.len() != 1 {
            return None;
        }
        self.floats()?.first().copied()
    }

    /// The elements of a short list of integers.
    pub fn ints(&self) -> Option<Vec<i64>> {
        /// No shape and no list of axes is longer.
        const LONGEST: usize = 64;
        if self.len() > LONGEST || self.shape().len() > 1 {
            return None;
        }
        let value = self.value()?;
        if let Ok(ints) = value.as_slice::<i64>() {
            return Some(ints.to_vec());
        }
        Some(value.as_slice::<i32>().ok()?.iter().map(|&x| i64::from(x)).collect())
    }
}

/// A node: an operator of the file, or what a pass has made of several.
#[derive(Clone)]
pub struct Node {
    pub op: Op,
    /// The name of the file's node, or of the last of those it was made of.
    pub label: String,
    /// `None` where an optional input is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// `None` where an output is not wanted.
    pub outputs: Vec<Option<ValueId>>,
}

impl Node {
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// What takes its place: its name, its outputs, another operator on other inputs.
    pub fn becomes(&self, op: Op, inputs: Vec<Option<ValueId>>) -> Self {
        Self { op, label: self.label.clone(), inputs, outputs: self.outputs.clone() }
    }

    /// The only output.
    pub fn output(&self) -> Option<ValueId> {
        match self.outputs[..] {
            [output] => output,
            _ => None,
        }
    }
}

/// What has to hold in a run for the facts to hold. Where it does not, the graph is run in the general way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// A size that slices a constant of so many elements.
    AtMost(Symbol, usize),
    /// Every element of an input is 0 or 1.
    Binary(ValueId),
}

/// A graph.
#[derive(Default)]
pub struct Ir {
    pub values: Vec<Info>,
    /// In the order they are computed in; `None` where a pass has taken one out.
    pub nodes: Vec<Option<Node>>,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    pub guards: Vec<Guard>,
    pub symbols: usize,
    producers: Vec<Option<NodeId>>,
    uses: Vec<usize>,
    /// Nodes that wait to be put before others.
    waiting: Vec<(NodeId, Vec<Node>)>,
}

impl Ir {
    pub fn add_value(&mut self, info: Info) -> ValueId {
        self.values.push(info);
        self.producers.push(None);
        self.uses.push(0);
        self.values.len() - 1
    }

    /// A value that no file has named.
    pub fn add_made(&mut self, name: String, dtype: DType, shape: Option<Vec<Dim>>) -> ValueId {
        self.add_value(Info { name, dtype: Some(dtype), shape, fact: Fact::Unknown, is_sized: false })
    }

    pub fn add_constant(&mut self, name: String, constant: Constant) -> ValueId {
        let shape = constant.shape().iter().map(|&dim| Dim::fixed(dim)).collect();
        let dtype = Some(constant.dtype());
        self.add_value(Info { name, dtype, shape: Some(shape), fact: Fact::Const(constant), is_sized: false })
    }

    pub fn add_node(&mut self, node: Node) -> NodeId {
        let id = self.nodes.len();
        for output in node.outputs.iter().flatten() {
            self.producers[*output] = Some(id);
        }
        self.nodes.push(Some(node));
        id
    }

    /// Puts another node in the place of one. It must give all of that node's outputs that are still wanted.
    pub fn replace(&mut self, id: NodeId, node: Node) {
        for output in node.outputs.iter().flatten() {
            self.producers[*output] = Some(id);
        }
        self.nodes[id] = Some(node);
    }

    /// As [`Ir::replace`], by several nodes. All but the last take their places when the pass is over.
    pub fn splice(&mut self, id: NodeId, before: Vec<Node>, last: Node) {
        self.waiting.push((id, before));
        self.replace(id, last);
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)?.as_ref()
    }

    pub fn producer(&self, value: ValueId) -> Option<(NodeId, &Node)> {
        let id = self.producers[value]?;
        Some((id, self.nodes[id].as_ref()?))
    }

    pub fn is_output(&self, value: ValueId) -> bool {
        self.outputs.contains(&value)
    }

    /// Whether a value is read once and by nobody outside: only then may a pass make it disappear.
    pub fn is_intermediate(&self, value: ValueId) -> bool {
        self.uses[value] == 1 && !self.is_output(value)
    }

    /// How often a value is read by nodes.
    pub fn uses(&self, value: ValueId) -> usize {
        self.uses[value]
    }

    pub fn constant(&self, value: ValueId) -> Option<&Constant> {
        match &self.values[value].fact {
            Fact::Const(constant) => Some(constant),
            _ => None,
        }
    }

    pub fn shape(&self, value: ValueId) -> Option<&[Dim]> {
        self.values[value].shape.as_deref()
    }

    /// Whether a value depends on nothing but the inputs' sizes, or not even on them.
    pub fn is_sized(&self, value: ValueId) -> bool {
        self.values[value].is_sized || self.constant(value).is_some()
    }

    /// The dimensions of an input as rows of elements, `[rows, elements]`: of one with more than
    /// two, the leading ones count as rows, one after the other.
    pub fn as_rows(&self, input: ValueId) -> Option<[Dim; 2]> {
        let (last, leading) = self.shape(input)?.split_last()?;
        (!leading.is_empty()).then_some([volume(leading)?, last.clone()])
    }

    /// What a value has the elements of, in the same order, as far back as there is such a value.
    pub fn same_elements(&self, value: ValueId) -> ValueId {
        const NAMED_ANEW: [&str; 5] = ["Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"];
        let mut value = value;
        while let Some((_, node)) = self.producer(value) {
            let Op::Onnx(operation) = &node.op else { break };
            let given = operation.node();
            let Some(source) = node.input(0) else { break };
            if !given.domain.is_empty() || !NAMED_ANEW.contains(&&*given.op) {
                break;
            }
            value = source;
        }
        value
    }

    pub fn is_f32(&self, value: ValueId) -> bool {
        self.values[value].dtype == Some(DType::F32)
    }

    /// The last dimension, if it is a number.
    pub fn width(&self, value: ValueId) -> Option<usize> {
        self.shape(value)?.last()?.known()
    }

    /// The node that makes a value, if it is an operator of ONNX's by this name.
    pub fn onnx(&self, value: ValueId, op: &str) -> Option<(NodeId, &Node, &Operation)> {
        let (id, node) = self.producer(value)?;
        match &node.op {
            Op::Onnx(operation) if operation.node().op == op && operation.node().domain.is_empty() => {
                Some((id, node, operation))
            }
            _ => None,
        }
    }

    /// Drops nodes that no output depends on, and counts the readers of each value anew. Every pass starts after this.
    pub fn settle(&mut self) {
        self.place();
        let mut wanted = vec![false; self.values.len()];
        self.outputs.iter().for_each(|&value| wanted[value] = true);
        self.uses = vec![0; self.values.len()];
        for slot in self.nodes.iter_mut().rev() {
            let Some(node) = slot else { continue };
            if !node.outputs.iter().flatten().any(|&output| wanted[output]) {
                *slot = None;
                continue;
            }
            for &input in node.inputs.iter().flatten() {
                wanted[input] = true;
                self.uses[input] += 1;
            }
        }
    }

    /// Puts the nodes that wait where they belong, which numbers all nodes anew.
    pub fn place(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|(id, _)| *id);
        let mut waiting = waiting.into_iter().peekable();
        let nodes = std::mem::take(&mut self.nodes);
        for (id, node) in nodes.into_iter().enumerate() {
            if let Some((_, before)) = waiting.next_if(|(at, _)| *at == id) {
                for node in before {
                    self.add_node(node);
                }
            }
            if let Some(node) = node {
                self.add_node(node);
            }
        }
    }

    pub fn guard(&mut self, guard: Guard) {
        if !self.guards.contains(&guard) {
            self.guards.push(guard);
        }
    }

    /// The ids of the nodes that are left, in order.
    pub fn ids(&self) -> Vec<NodeId> {
        (0..self.nodes.len()).filter(|&id| self.nodes[id].is_some()).collect()
    }
}
