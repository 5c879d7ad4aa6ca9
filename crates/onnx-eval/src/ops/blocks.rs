//! Matrices of a few bits an element, with a scale for each block: MatMulNBits and MatMulBnb4 of
//! com.microsoft. `accuracy_level` allows a kernel to compute in less than floats; here it does
//! not.

use engine::{DType, Value};
use onnx_graph::Node;

use super::Op;
use super::linear::matmul;
use super::normalize::plus;
use crate::context::{Context, Outputs};
use crate::fault::Fault;
use crate::memory::Memory;
use crate::substitute::{NodeId, Promotions};
use crate::tensor::{Array, Data, Tensor, array};
use crate::{Limits, OracleError, Precision};

/// A size that must be there.
fn size(context: &Context, name: &'static str) -> Result<usize, Fault> {
    let found = context.node.int(name)?.ok_or(Fault::MissingAttribute(name))?;
    let size = usize::try_from(found).ok().filter(|&size| size > 0);
    size.ok_or_else(|| Fault::argument(name, found, "above 0"))
}

/// The bytes of an input.
fn packed(context: &Context, input: usize, count: usize) -> Result<Vec<u8>, Fault> {
    match context.input(input)?.dtype {
        DType::U8 => {}
        found => return Err(Fault::DType { input, found, wanted: "u8" }),
    }
    let bytes = context.ints(input)?;
    if bytes.len() != count {
        return Err(Fault::shape("a packed input", bytes.shape(), format!("of {count} bytes")));
    }
    Ok(bytes.iter().map(|&byte| byte as u8).collect())
}

/// The number at a place among so many bits each, the lowest bits of a byte first.
fn bits_at(bytes: &[u8], bits: usize, at: usize) -> u8 {
    let in_byte = 8 / bits;
    bytes[at / in_byte] >> (at % in_byte * bits) & (0xff >> (8 - bits))
}

/// The elements of an input that must be so many, in row-major order.
fn elements(context: &Context, input: usize, count: usize) -> Result<Vec<f64>, Fault> {
    let found = context.floats(input)?;
    if found.len() != count {
        return Err(Fault::shape(
            "a list of numbers, one for each block,",
            found.shape(),
            format!("of {count} elements"),
        ));
    }
    Ok(found.iter().copied().collect())
}

/// A matrix that MatMulNBits or MatMulBnb4 multiplies with, transposed: a few bits an element, and
/// a scale for each block of them.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    /// The number of its rows, `N`.
    pub rows: usize,
    /// The number of its columns, `K`.
    pub columns: usize,
    /// How many bits an element has.
    pub bits: usize,
    block: usize,
    /// What stands in the bits, by rows.
    codes: Vec<u8>,
    scales: Vec<f64>,
    levels: Levels,
}

/// What a code stands for, times its block's scale.
#[derive(Debug, Clone)]
enum Levels {
    /// The code less the block's zero point.
    Steps {
        zeros: Vec<f64>,
        /// Whether the zero points are those of the file; else they are in the middle of the range.
        are_given: bool,
    },
    /// One of sixteen numbers; the blocks are of all elements as one list.
    Table(&'static [f32; 16]),
}

impl PackedMatrix {
    /// The element at a place, by rows.
    pub fn element(&self, at: usize) -> f64 {
        self.level(at, self.codes[at])
    }

    /// How far below and above the element the number may have been that was rounded to it: half
    /// the way to its neighbours. Without zero points there is one code more below zero than above
    /// it, and the scale is that of the largest number: the opposite number is cut by a whole step.
    pub fn reach(&self, at: usize) -> (f64, f64) {
        let (code, scale) = (self.codes[at], self.scale(at));
        match &self.levels {
            Levels::Steps { are_given, .. } => {
                let half = scale.abs() / 2.0;
                let is_cut = !are_given && usize::from(code) + 1 == 1 << self.bits;
                match (is_cut, scale < 0.0) {
                    (false, _) => (half, half),
                    (true, false) => (half, 2.0 * half),
                    (true, true) => (2.0 * half, half),
                }
            }
            Levels::Table(levels) => {
                let own = levels[usize::from(code)];
                let below =
                    levels.iter().copied().filter(|&level| level < own).fold(f32::NEG_INFINITY, f32::max);
                let above = levels.iter().copied().filter(|&level| level > own).fold(f32::INFINITY, f32::min);
                // The largest number of a block is 1 or −1.
                let half = |gap: f32| if gap.is_finite() { f64::from(gap) / 2.0 * scale.abs() } else { 0.0 };
                (half(own - below), half(above - own))
            }
        }
    }

    fn scale(&self, at: usize) -> f64 {
        self.scales[self.block_of(at)]
    }

    fn block_of(&self, at: usize) -> usize {
        match &self.levels {
            Levels::Steps { .. } => {
                let blocks = self.columns.div_ceil(self.block);
                at / self.columns * blocks + at % self.columns / self.block
            }
            Levels::Table(_) => at / self.block,
        }
    }

    fn level(&self, at: usize, code: u8) -> f64 {
        let level = match &self.levels {
            Levels::Steps { zeros, .. } => f64::from(code) - zeros[self.block_of(at)],
            Levels::Table(levels) => f64::from(levels[usize::from(code)]),
        };
        level * self.scale(at)
    }

    fn read(context: &Context) -> Result<Self, Fault> {
        let (columns, rows) = (size(context, "K")?, size(context, "N")?);
        context.room(&[rows, columns])?;
        let block = size(context, "block_size")?;
        context.room(&[block])?;
        match context.node.op.as_str() {
            "MatMulBnb4" => bnb4(context, rows, columns, block),
            _ => n_bits(context, rows, columns, block),
        }
    }

    fn product(&self, context: &Context) -> Result<Array<f64>, Fault> {
        let elements = (0..self.codes.len()).map(|at| self.element(at)).collect();
        let matrix = array(&[self.rows, self.columns], elements)?.into_shared();
        Ok(matmul(context, context.floats(0)?, &matrix.t().to_owned().into_shared())?.into_shared())
    }
}

/// The matrix of a node of either operator; its first input need not be there.
///
/// # Errors
/// If it is no such node, or its other inputs do not fit.
pub fn packed_matrix(
    node: &Node,
    inputs: &[Option<&Value>],
    limits: Limits,
) -> Result<PackedMatrix, OracleError> {
    let opset = 1;
    super::find(node, opset)?;
    let read = || {
        let inputs = inputs.iter().map(|input| input.map(Tensor::from_value).transpose());
        let promotions = Promotions::default();
        let context = Context {
            // Nothing is promoted here.
            id: NodeId(0),
            node,
            opset,
            precision: Precision::F64,
            memory: Memory::new(limits.max_bytes),
            inputs: inputs.collect::<Result<_, _>>()?,
            promotions: &promotions,
        };
        PackedMatrix::read(&context)
    };
    read().map_err(|fault: Fault| OracleError::node(node, opset, fault))
}

/// The zero point of each block, by rows: packed as the elements are, with each row padded to whole
/// bytes; or floats; or the middle of the range.
fn zero_points(context: &Context, bits: usize, rows: usize, blocks: usize) -> Result<Vec<f64>, Fault> {
    let Some(zeros) = context.optional(3) else {
        return Ok(vec![f64::from(1u32 << (bits - 1)); rows * blocks]);
    };
    if let Data::Float(_) = zeros.data {
        return elements(context, 3, rows * blocks);
    }
    let width = (blocks * bits).div_ceil(8);
    let bytes = packed(context, 3, rows * width)?;
    let row = |row: &[u8]| (0..blocks).map(|at| f64::from(bits_at(row, bits, at))).collect::<Vec<_>>();
    Ok(bytes.chunks(width).flat_map(row).collect())
}

fn n_bits(context: &Context, rows: usize, columns: usize, block: usize) -> Result<PackedMatrix, Fault> {
    let bits = match context.int("bits", 4)? {
        bits @ (2 | 4 | 8) => bits as usize,
        bits => return Err(Fault::argument("bits", bits, "2, 4 or 8")),
    };
    // Columns in another order than their blocks.
    if context.optional(4).is_some() {
        return Err(Fault::Unsupported("g_idx"));
    }
    let blocks = columns.div_ceil(block);
    // Each block is padded to whole bytes, the last one to a whole block.
    let width = (block * bits).div_ceil(8);
    let count = context.room(&[rows, blocks, width])?;
    let bytes = packed(context, 1, count)?;
    let code = |row: usize, column: usize| {
        let block_of = &bytes[(row * blocks + column / block) * width..][..width];
        bits_at(block_of, bits, column % block)
    };
    let zeros = zero_points(context, bits, rows, blocks)?;
    let are_given = context.optional(3).is_some();
    Ok(PackedMatrix {
        rows,
        columns,
        bits,
        block,
        codes: (0..rows * columns).map(|at| code(at / columns, at % columns)).collect(),
        scales: elements(context, 2, rows * blocks)?,
        levels: Levels::Steps { zeros, are_given },
    })
}

/// What the sixteen codes stand for, times the largest of the block: 4-bit floats as bitsandbytes
/// has them, and the quantiles of the normal distribution (Dettmers et al., "QLoRA", 2023, appendix
/// E).
#[rustfmt::skip]
const FP4: [f32; 16] = [
    0.0, 5.208_333_4e-3, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25,
    -0.0, -5.208_333_4e-3, -0.666_666_7, -1.0, -0.333_333_34, -0.5, -0.166_666_67, -0.25,
];
#[rustfmt::skip]
const NF4: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5, -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24, 0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

/// The elements are one list over all rows, two a byte, the first in the higher bits; so are the
/// blocks.
fn bnb4(context: &Context, rows: usize, columns: usize, block: usize) -> Result<PackedMatrix, Fault> {
    let table = match context.node.int("quant_type")?.ok_or(Fault::MissingAttribute("quant_type"))? {
        0 => &FP4,
        1 => &NF4,
        found => return Err(Fault::argument("quant_type", found, "0 or 1")),
    };
    if !context.flag("transB", true)? {
        return Err(Fault::Unsupported("a matrix that is not transposed"));
    }
    let count = rows * columns;
    let bytes = packed(context, 1, count.div_ceil(2))?;
    Ok(PackedMatrix {
        rows,
        columns,
        bits: 4,
        block,
        codes: (0..count).map(|at| bytes[at / 2] >> (4 * (1 - at % 2)) & 0xf).collect(),
        scales: elements(context, 2, count.div_ceil(block))?,
        levels: Levels::Table(table),
    })
}

fn mat_mul(context: &Context) -> Outputs {
    let y = PackedMatrix::read(context)?.product(context)?;
    let y = plus(context, y, context.optional_floats(5)?)?;
    Ok(vec![Tensor::float(context.input(0)?.dtype, y.into_owned())])
}

pub(super) const OPS: &[Op] = &[
    Op::microsoft("MatMulBnb4", (3, 3), "K N block_size quant_type training_mode transB", mat_mul),
    Op::microsoft("MatMulNBits", (3, 6), "K N accuracy_level bits block_size", mat_mul),
];
