//! The steps of a plan, with everything resolved that does not depend on a run.

use std::sync::Arc;

use bytes::Bytes;
use kernels::{KernelError, Kernels, PackedMatrix, Source as Matrix, Unary};
use onnx_eval::Operation;

use super::dim::Dim;
use super::ir::Constant;
use super::ops::{Attention, Bias, Gate, Index, Linear, Norm};
use super::plan::Place;

/// One step.
pub struct Step {
    /// The node's name.
    pub label: String,
    /// What it is: an operator, or a kernel's name with a star.
    pub op: String,
    pub kind: StepKind,
    /// Slots that no later step reads.
    pub dead: Vec<usize>,
}

/// `out` is a register throughout.
pub enum StepKind {
    Onnx(Box<OnnxStep>),
    Add { a: Place, b: Place, out: usize },
    Unary { function: Unary, x: Place, out: usize },
    LayerNorm { norm: Norm, x: Place, out: usize },
    Linear(LinearStep),
    Attention(Box<AttentionStep>),
    Embed(EmbedStep),
    Gate { gate: Gate, wide: usize, x: Place, out: usize },
    Columns { first: usize, wide: usize, x: Place, out: usize },
    Token { index: usize, sequence: Dim, x: Place, out: usize },
}

/// Where an operator without a kernel finds an input, and the shape it has there.
pub struct Source {
    pub place: Place,
    /// Not known for some values in slots, which bring their own.
    pub shape: Option<Vec<Dim>>,
}

pub struct OnnxStep {
    pub operation: Operation,
    pub inputs: Vec<Option<Source>>,
    /// Slots, and the shapes that are expected there.
    pub outputs: Vec<Option<(usize, Option<Vec<Dim>>)>>,
}

pub struct LinearStep {
    pub packed: PackedMatrix,
    pub bias: Option<Arc<[f32]>>,
    pub activation: Option<Unary>,
    pub x: Place,
    pub residual: Option<Place>,
    pub out: usize,
}

impl LinearStep {
    pub fn pack(linear: &Linear, kernels: &Kernels) -> Result<PackedMatrix, KernelError> {
        let wrong =
            || KernelError::Size { what: "the elements of a weight", found: 0, expected: linear.outputs() };
        let elements: Vec<Vec<f32>> = linear
            .weights
            .iter()
            .map(|weight| weight.constant.floats().ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
        let sources = linear.weights.iter().zip(&elements).map(|(weight, elements)| {
            let make = if weight.transposed { Matrix::transposed } else { Matrix::new };
            make(elements, weight.inputs, weight.outputs)
        });
        let packed = kernels.pack(&sources.collect::<Result<Vec<_>, _>>()?)?;
        // The weights are in memory once: packed.
        for weight in &linear.weights {
            if let Constant::Stored(tensor) = &weight.constant {
                engine::release(&tensor.bytes);
            }
        }
        Ok(packed)
    }
}

pub struct AttentionStep {
    pub attention: Attention,
    /// Where queries, keys and values are, and how wide a row is there.
    pub sources: [(Place, usize); 3],
    /// The input that is the mask, and what is added to a key's scores where it is 0 and where it is 1.
    pub mask: Option<(usize, [f32; 2])>,
    /// Where a bias by places is.
    pub bias: Option<(Place, Bias)>,
    /// Where cosines and sines are.
    pub angles: Option<[Place; 2]>,
    pub out: usize,
}

pub struct EmbedStep {
    /// An index that is an input names the graph's.
    pub lookups: Vec<Lookup>,
    pub norm: Norm,
    pub out: usize,
}

pub struct Lookup {
    /// What the graph calls the table.
    pub name: String,
    pub table: TableRows,
    pub index: Index,
    pub from_the_end: bool,
}

/// A table of f32. A large one is left in the file's bytes, as only few of its rows are ever read.
pub struct TableRows {
    data: TableData,
    width: usize,
    rows: usize,
}

enum TableData {
    Floats(Arc<[f32]>),
    Bytes(Bytes),
}

/// From so many bytes on, a table stays in the file.
const LARGE: usize = 4 << 20;

impl TableRows {
    pub fn new(table: &Constant) -> Option<Self> {
        let &[rows, width] = table.shape() else { return None };
        let data = match table {
            Constant::Stored(tensor) if tensor.bytes.len() >= LARGE => TableData::Bytes(tensor.bytes.clone()),
            _ => TableData::Floats(table.floats()?.into()),
        };
        Some(Self { data, width, rows })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes a row, or adds it to what is there.
    pub fn read(&self, row: usize, add: bool, to: &mut [f32]) {
        let start = row * self.width;
        match &self.data {
            TableData::Floats(data) => {
                let row = data[start..start + self.width].iter().copied();
                put(row, add, to);
            }
            TableData::Bytes(data) => {
                let bytes = &data[4 * start..4 * (start + self.width)];
                let row = bytes.as_chunks::<4>().0.iter().map(|&element| f32::from_le_bytes(element));
                put(row, add, to);
            }
        }
    }
}

fn put(row: impl Iterator<Item = f32>, add: bool, to: &mut [f32]) {
    if add {
        to.iter_mut().zip(row).for_each(|(to, x)| *to += x);
    } else {
        to.iter_mut().zip(row).for_each(|(to, x)| *to = x);
    }
}
