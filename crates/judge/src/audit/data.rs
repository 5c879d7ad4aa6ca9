//! Elements of tensors: read, and compared where they lie.

use engine::DType;
use half::{bf16, f16};
use onnx_graph::Tensor;

use super::quantized::Grid;
use super::{Cast, FirstDifference};
use crate::compare::{ulp_distance_f32, unravel};

/// The float16 converter of onnxruntime and onnxconverter-common replaces what f16 would flush to zero by the smallest subnormal.
const F16_SMALLEST: f32 = 5.960_464_5e-8;

/// The elements of a float tensor as f32; those of f64 are rounded, which [`is_rounded`] tells. `None` if it is none.
pub(super) fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    floats_of(tensor.dtype, &tensor.bytes)
}

pub(super) fn floats_of(dtype: DType, bytes: &[u8]) -> Option<Vec<f32>> {
    fn read<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|&chunk| element(chunk)).collect()
    }
    Some(match dtype {
        DType::F16 => read(bytes, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => read(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        DType::F32 => read(bytes, f32::from_le_bytes),
        DType::F64 => read(bytes, |b| f64::from_le_bytes(b) as f32),
        _ => return None,
    })
}

/// Whether some f64 among these has no equal in f32.
pub(super) fn is_rounded(dtype: DType, bytes: &[u8]) -> bool {
    let f64s = bytes.as_chunks().0.iter().map(|&chunk| f64::from_le_bytes(chunk));
    dtype == DType::F64 && f64s.into_iter().any(|x| f64::from(x as f32) != x)
}

/// A number in that precision.
pub(super) fn round(x: f32, to: Cast) -> f32 {
    match to {
        Cast::F16 => f16::from_f32(x).to_f32(),
        Cast::BF16 => bf16::from_f32(x).to_f32(),
    }
}

/// Where the elements of a weight of `[rows, columns]` lie in a tensor of the graph. A vector is one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    /// The rows of the weight that are there.
    pub first_row: usize,
    pub rows: usize,
    pub columns: usize,
    /// Where the first element lies, and the steps from one row and one column to the next.
    pub offset: usize,
    pub row_step: usize,
    pub column_step: usize,
}

impl Placement {
    /// The pairs of an index into the weight and one into the graph's tensor.
    pub fn pairs(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.rows).flat_map(move |row| {
            (0..self.columns).map(move |column| {
                (
                    (self.first_row + row) * self.columns + column,
                    self.offset + row * self.row_step + column * self.column_step,
                )
            })
        })
    }

    pub fn len(self) -> usize {
        self.rows * self.columns
    }
}

/// What is expected of each element of the graph's tensor.
#[derive(Clone, Copy)]
pub(super) enum Rule<'a> {
    /// The weight itself.
    Same,
    /// The weight rounded to a precision, as converters do it.
    Cast(Cast),
    /// The weight times a factor, rounded to f32 in one of the ways that [`Factor::products`] lists.
    Factor(f64, usize),
    /// The weight plus the elements of another row, rounded to f32.
    Plus(&'a [f32]),
    /// What the weight may have been rounded to, on this grid.
    Grid(&'a Grid),
}

/// How many ways of rounding [`product`] knows.
pub(super) const PRODUCTS: usize = 3;

/// `weight · factor` in f32: the exact product rounded once; times the rounded factor; divided by its rounded inverse.
fn product(weight: f32, factor: f64, way: usize) -> f32 {
    match way {
        0 => (f64::from(weight) * factor) as f32,
        1 => weight * factor as f32,
        _ => weight / (1.0 / factor) as f32,
    }
}

impl Rule<'_> {
    /// Whether the graph may hold `found`, at element `at` of the placement's columns, for `weight`.
    #[inline]
    pub fn holds(self, weight: f32, found: f32, column: usize, graph_index: usize) -> bool {
        match self {
            Rule::Same => weight == found,
            Rule::Cast(cast) => {
                round(weight, cast) == found
                    || cast == Cast::F16
                        && weight.abs() < F16_SMALLEST
                        && found == F16_SMALLEST.copysign(weight)
            }
            Rule::Factor(factor, way) => product(weight, factor, way) == found,
            Rule::Plus(row) => row.get(column).is_some_and(|other| weight + other == found),
            Rule::Grid(grid) => grid.holds(weight, found, graph_index),
        }
    }

    /// The value that the graph's is measured against.
    fn target(self, weight: f32, column: usize) -> f64 {
        let weight = f64::from(weight);
        match self {
            Rule::Factor(factor, _) => weight * factor,
            Rule::Plus(row) => weight + row.get(column).map_or(f64::NAN, |&x| f64::from(x)),
            _ => weight,
        }
    }
}

/// How far the graph's elements are from the checkpoint's.
#[derive(Debug, Clone)]
pub(super) struct Distance {
    /// How many elements are not what they should be.
    pub differing: usize,
    pub compared: usize,
    /// The largest distance; `None` if one is not finite.
    pub max_abs: Option<f64>,
    pub max_ulp: Option<u64>,
    pub first: Option<FirstDifference>,
}

/// Whether every element is what it should be; it stops at the first that is not.
pub(super) fn matches(weight: &[f32], held: &[f32], at: Placement, rule: Rule) -> bool {
    at.pairs().all(|(w, g)| match (weight.get(w), held.get(g)) {
        (Some(&weight), Some(&found)) => rule.holds(weight, found, w % at.columns, g),
        _ => false,
    })
}

/// Compares all elements.
pub(super) fn measure(weight: &[f32], shape: &[usize], held: &[f32], at: Placement, rule: Rule) -> Distance {
    let mut distance =
        Distance { differing: 0, compared: 0, max_abs: Some(0.0), max_ulp: Some(0), first: None };
    for (w, g) in at.pairs() {
        let (weight, found) =
            (weight.get(w).copied().unwrap_or(f32::NAN), held.get(g).copied().unwrap_or(f32::NAN));
        distance.compared += 1;
        let target = rule.target(weight, w % at.columns);
        let off = (target - f64::from(found)).abs();
        let finite = off.is_finite();
        distance.max_abs = distance.max_abs.filter(|_| finite).map(|max| max.max(off));
        let ulp = finite.then(|| ulp_distance_f32(target as f32, found));
        distance.max_ulp = distance.max_ulp.zip(ulp).map(|(max, ulp)| max.max(ulp));
        if !rule.holds(weight, found, w % at.columns, g) {
            distance.differing += 1;
            distance.first.get_or_insert_with(|| FirstDifference {
                index: unravel(w, shape),
                checkpoint: weight,
                graph: found,
                ulp,
            });
        }
    }
    distance
}
