//! What a step may be: an operator of the file, run by the oracle's own function for it, or a kernel.

use std::sync::Arc;

use engine::DType;
use kernels::{Meets, Unary};
use onnx_eval::Operation;

use super::dim::{Dim, Int};
use super::ir::{Constant, Counted, Table};

/// What a node computes. All but [`Op::Onnx`] and [`Op::Sizes`] are of f32.
#[derive(Clone)]
pub enum Op {
    /// An operator that no kernel knows, or in a form that none knows.
    Onnx(Operation),
    /// The elements of input 0 under another shape.
    View,
    /// Input 0 + input 1, of the same shape, or input 1 a constant row.
    Add,
    /// A function of each element of input 0.
    Unary(Unary),
    /// Each row of input 0 normalised.
    LayerNorm(Norm),
    /// Each row of input 0 times a matrix, plus bias, then an activation, then plus the same row of input 1, if there is one.
    Linear(Linear),
    /// softmax(q·kᵀ·scale + bias + mask)·v of inputs 0, 1 and 2, which hold the heads' columns side
    /// by side. Those that there are of these: input 3 is the mask, 4 the bias, 5 and 6 are the
    /// cosines and sines that queries and keys are turned by.
    Attention(Attention),
    /// Rows looked up in tables, added up and normalised. The inputs are the indices that are inputs of the graph.
    Embed(Embed),
    /// A function of some columns of each row of input 0, times as many others.
    Gate(Gate),
    /// Some columns of each row of input 0, from this one on.
    Columns(usize),
    /// These sizes, as a list, or of rank 0 as a number.
    Sizes(Vec<Int>),
    /// The row at one place of each sequence: `[batch, sequence, width]` to `[batch, width]`.
    Token(usize),
}

impl Op {
    /// What steps are called in a listing.
    pub fn name(&self) -> &str {
        match self {
            Op::Onnx(operation) => &operation.node().op,
            Op::View => "View",
            Op::Add => "Add*",
            Op::Unary(_) => "Unary*",
            Op::LayerNorm(_) => "LayerNorm*",
            Op::Linear(_) => "Linear*",
            Op::Attention(_) => "Attention*",
            Op::Embed(_) => "Embeddings*",
            Op::Gate(_) => "Gate*",
            Op::Columns(_) => "Columns*",
            Op::Sizes(_) => "Sizes*",
            Op::Token(_) => "Token*",
        }
    }
}

/// A LayerNorm over the last dimension.
#[derive(Clone)]
pub struct Norm {
    pub gamma: Arc<[f32]>,
    pub beta: Option<Arc<[f32]>>,
    pub eps: f32,
}

/// A matrix with its epilogue.
#[derive(Clone)]
pub struct Linear {
    /// Matrices of as many rows each, side by side.
    pub weights: Vec<Weight>,
    /// One number a column.
    pub bias: Option<Arc<[f32]>>,
    pub activation: Option<Unary>,
}

impl Linear {
    /// Columns of all matrices.
    pub fn outputs(&self) -> usize {
        self.weights.iter().map(|weight| weight.outputs).sum()
    }
}

/// A constant matrix.
#[derive(Clone)]
pub struct Weight {
    pub constant: Constant,
    pub inputs: usize,
    pub outputs: usize,
    /// It lies as `outputs` rows of `inputs`.
    pub transposed: bool,
}

/// A gated activation: f(first columns) · second columns.
#[derive(Clone, Copy)]
pub struct Gate {
    pub function: Unary,
    /// Where the columns begin of which the function is, and those it is multiplied with.
    pub columns: [usize; 2],
}

/// Attention of sequences whose rows stand one after the other.
#[derive(Clone)]
pub struct Attention {
    pub heads: usize,
    pub head_size: usize,
    pub scale: f32,
    /// How many sequences, and how many rows each.
    pub batch: Dim,
    pub sequence: Dim,
    /// What each key's scores are raised by, by what the mask has at the key: its `mask` names an input of the graph.
    pub mask: Option<Table>,
    /// At which column of inputs 0, 1 and 2 the heads' columns begin.
    pub columns: [usize; 3],
    /// What input 4, a number for each pair of places, adds to the scores.
    pub bias: Option<Bias>,
    /// Whether inputs 5 and 6 are cosines and sines, by which queries and keys are turned first.
    pub is_rotary: bool,
}

/// A bias by places, `[sequence, sequence]`, or as many for each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bias {
    pub by_head: bool,
    /// How it meets the mask.
    pub meets: Meets,
}

/// Embeddings.
#[derive(Clone)]
pub struct Embed {
    pub lookups: Vec<Lookup>,
    pub norm: Norm,
    pub batch: Dim,
    pub sequence: Dim,
}

/// A table, and which of its rows a token takes.
#[derive(Clone)]
pub struct Lookup {
    /// What the graph calls the table.
    pub name: String,
    pub table: Constant,
    pub index: Index,
    /// Whether -1 is the last row, as it is for `Gather`.
    pub from_the_end: bool,
}

/// The integer dtypes that a number is cast to, one after the other, from i64 or i32 on. It is kept
/// in an i64, a u64 by its bits.
#[derive(Clone, Default)]
pub struct Casts(pub Vec<DType>);

impl Casts {
    /// What comes of a number: modulo the width, as ONNX's `Cast` has it, and for a bool whether it
    /// is not 0.
    pub fn apply(&self, number: i64) -> i64 {
        self.0.iter().fold(number, |x, to| match to {
            DType::I8 => x as i8 as i64,
            DType::I16 => x as i16 as i64,
            DType::I32 => x as i32 as i64,
            DType::U8 => x as u8 as i64,
            DType::U16 => x as u16 as i64,
            DType::U32 => x as u32 as i64,
            DType::Bool => i64::from(x != 0),
            _ => x,
        })
    }
}

/// Which row of a table a token takes.
#[derive(Clone)]
pub enum Index {
    /// What this input of the node holds at the token, after these casts.
    Input(usize, Casts),
    /// By the token's place in its sequence.
    Position(Arc<[i64]>),
    /// As it is counted over this input of the node.
    Counted(usize, Counted),
    /// Always the same.
    Same(i64),
}
