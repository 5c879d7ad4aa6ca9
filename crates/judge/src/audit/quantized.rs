//! Weights of integers: what they stand for, and how far from it the floats may have been that were
//! rounded to them.

use engine::{DType, Value};
use onnx_eval::{Limits, packed_matrix};

use super::data::floats;
use super::flow::{Flow, Step, ValueId};

/// What f32 rounding adds to half a step, in steps: a quantizer divides by the scale in f32 and
/// rounds to the nearest of 256 steps, and 256 steps times f32's relative error of 2⁻²⁴ is 1.5e-5
/// of a step; some divide twice.
const SLACK: f64 = 1e-4;

/// What f32 rounding adds of the number itself, where there are more than 256 steps: two of f32's
/// relative errors of 2⁻²⁴, for the number of steps and for the number that was rounded.
const RELATIVE_SLACK: f64 = 1.2e-7;

/// The grid that elements lie on.
pub(super) enum Grid {
    /// Whole steps of eight bits: a step for each element.
    Steps(Vec<f32>),
    /// Any other: so many bits, and a place for each element.
    Places { bits: usize, places: Vec<Place> },
}

/// An element of a grid that is not even, or too fine for f32.
pub(super) struct Place {
    /// What the graph computes with.
    exact: f64,
    /// How far below and above it the float may have been that was rounded to it.
    below: f32,
    above: f32,
}

impl Grid {
    /// Whether the float may have been rounded to what the graph holds for it.
    pub fn holds(&self, weight: f32, found: f32, at: usize) -> bool {
        let weight = f64::from(weight);
        match self {
            Grid::Steps(steps) => {
                let step = f64::from(steps[at % steps.len().max(1)]);
                (weight - f64::from(found)).abs() <= (0.5 + SLACK) * step
            }
            Grid::Places { places, .. } => places.get(at).is_some_and(|place| {
                let (below, above) = (f64::from(place.below), f64::from(place.above));
                let slack = 2.0 * SLACK * below.max(above) + RELATIVE_SLACK * place.exact.abs();
                (-below - slack..=above + slack).contains(&(weight - place.exact))
            }),
        }
    }

    /// What the graph computes with where it holds `found`.
    pub fn exact(&self, found: f32, at: usize) -> f64 {
        match self {
            Grid::Steps(steps) => multiple(found, steps[at % steps.len().max(1)]),
            Grid::Places { places, .. } => places.get(at).map_or(f64::NAN, |place| place.exact),
        }
    }

    /// The largest step.
    pub fn step(&self) -> f32 {
        // The largest number of a block may reach further on one side, or not at all.
        let width = |place: &Place| 2.0 * place.below.min(place.above);
        match self {
            Grid::Steps(steps) => steps.iter().copied().fold(0.0, f32::max),
            Grid::Places { places, .. } => places.iter().map(width).fold(0.0, f32::max),
        }
    }

    /// How many bits an element has.
    pub fn bits(&self) -> usize {
        match self {
            Grid::Steps(_) => 8,
            Grid::Places { bits, .. } => *bits,
        }
    }
}

/// The multiple of a step that an element is the f32 rounding of. There are at most 511, so that
/// there is no doubt which one.
fn multiple(found: f32, step: f32) -> f64 {
    let (found, step) = (f64::from(found), f64::from(step));
    if step == 0.0 { found } else { (found / step).round() * step }
}

/// How integers stand for floats.
pub(super) enum Quantization {
    /// `(x − zero point) · scale`, where the scale may be a product.
    Scaled {
        scales: Vec<ValueId>,
        zero_point: Option<ValueId>,
        /// The axis that scales of several elements belong to, counted from the first or, if
        /// negative, the last.
        axis: i64,
    },
    /// As the node of this step unpacks it.
    Packed { step: usize, scale: ValueId, zero_point: Option<ValueId> },
}

impl Quantization {
    /// The scales and zero points, which need no further origin.
    pub fn parameters(&self) -> Vec<ValueId> {
        match self {
            Quantization::Scaled { scales, zero_point, .. } => {
                scales.iter().copied().chain(*zero_point).collect()
            }
            Quantization::Packed { scale, zero_point, .. } => {
                [Some(*scale), *zero_point].into_iter().flatten().collect()
            }
        }
    }
}

/// The scale and zero point of quantized weights, from the node that uses them.
pub(super) fn quantization(flow: &Flow, value: ValueId) -> Option<Quantization> {
    let is_i32 = flow.held_at.get(&value).is_some_and(|&at| flow.held[at].tensor.dtype == DType::I32);
    flow.consumers[value].iter().find_map(|&(step, index)| {
        let at = &flow.steps[step];
        let input = |index: usize| at.inputs.get(index).copied().flatten();
        let scaled = |scale: Option<ValueId>, zero_point, axis| {
            Some(Quantization::Scaled { scales: vec![scale?], zero_point, axis })
        };
        let last = |scale, zero_point| scaled(scale, zero_point, -1);
        let flag = |name: &str| at.node.int(name).ok().flatten().unwrap_or_default() != 0;
        match (at.node.op.as_str(), index) {
            ("DequantizeLinear", 0) => {
                scaled(input(1), input(2), at.node.int("axis").ok().flatten().unwrap_or(1))
            }
            // A sum of products: its step is the product of theirs.
            ("QGemm", 6) if at.node.float("alpha").ok()?.is_none_or(|alpha| alpha == 1.0) => {
                Some(Quantization::Scaled { scales: vec![input(1)?, input(4)?], zero_point: None, axis: -1 })
            }
            _ if is_i32 => None,
            // Rows are looked up first.
            ("Gather" | "Transpose" | "Reshape" | "Identity", 0) => {
                at.outputs.iter().flatten().find_map(|&output| quantization(flow, output))
            }
            ("MatMulInteger", 1) => last(scale_after(flow, at), input(3)),
            ("DynamicQuantizeMatMul", 1) => last(input(2), input(3)),
            ("MatMulIntegerToFloat", 1) => last(input(3), input(5)),
            ("QLinearMatMul", 3) => last(input(4), input(5)),
            ("QGemm", 3) => scaled(input(4), input(5), if flag("transB") { 0 } else { -1 }),
            ("QLinearAdd" | "QLinearMul", 0 | 3) => last(input(index + 1), input(index + 2)),
            ("QAttention", 1) => last(input(4), input(7)),
            // Inputs: ids, segments, word, position, segment embeddings, gamma, beta, mask, then
            // scales and zero points of those five.
            ("QEmbedLayerNormalization", 2..=6) => last(input(index + 6), input(index + 11)),
            ("MatMulNBits" | "MatMulBnb4", 1) => {
                Some(Quantization::Packed { step, scale: input(2)?, zero_point: input(3) })
            }
            _ => None,
        }
    })
}

/// The constant scale that the sums of a MatMulInteger are multiplied with: `Cast(sums) ·
/// (activation scale · weight scale)`.
fn scale_after(flow: &Flow, at: &Step) -> Option<ValueId> {
    let sums = (*at.outputs.first()?)?;
    let next = |value: ValueId, op: &str| {
        let found = flow.consumers[value].iter().map(|&(step, _)| &flow.steps[step]);
        found.into_iter().find(|step| step.node.op == op)
    };
    let cast = next(sums, "Cast").and_then(|cast| cast.outputs.first().copied().flatten()).unwrap_or(sums);
    let scaled = next(cast, "Mul")?;
    let scale = scaled.inputs.iter().flatten().copied().find(|&input| input != cast)?;
    if !flow.is_variable(scale) {
        return Some(scale);
    }
    let product = flow.made_by(scale).filter(|step| step.node.op == "Mul")?;
    product.inputs.iter().flatten().copied().find(|&input| !flow.is_variable(input))
}

/// A shape, and the elements under it with their grid.
pub(super) type Dequantised = (Vec<usize>, Vec<f32>, Option<Grid>);

/// The floats that quantized weights stand for, as the node that uses them takes them.
pub(super) fn dequantised(flow: &Flow, value: ValueId, by: &Quantization) -> Option<Dequantised> {
    match by {
        Quantization::Scaled { scales, zero_point, axis } => scaled(flow, value, scales, *zero_point, *axis),
        Quantization::Packed { step, .. } => unpacked(flow, &flow.steps[*step]),
    }
}

fn scaled(
    flow: &Flow,
    value: ValueId,
    by: &[ValueId],
    zero_point: Option<ValueId>,
    axis: i64,
) -> Option<Dequantised> {
    let held = |value: ValueId| flow.held_at.get(&value).map(|&at| &flow.held[at].tensor);
    let tensor = held(value)?;
    let integers = tensor.to_value().ok()?.to_f64();
    let scales: Vec<Vec<f32>> = by.iter().map(|&scale| floats(held(scale)?)).collect::<Option<_>>()?;
    let zero_points = match zero_point {
        Some(value) => held(value)?.to_value().ok()?.to_f64(),
        None => vec![0.0],
    };
    let axis = if axis < 0 { axis + tensor.shape.len() as i64 } else { axis };
    let inner: usize = tensor.shape.iter().skip(usize::try_from(axis).ok()? + 1).product();
    if scales.iter().any(Vec::is_empty) || zero_points.is_empty() {
        return None;
    }
    let at = |index: usize| index / inner.max(1);
    let step = |index: usize| -> f64 {
        scales.iter().map(|scales| f64::from(scales[at(index) % scales.len()])).product()
    };
    let exact = |index: usize| (integers[index] - zero_points[at(index) % zero_points.len()]) * step(index);
    let elements = (0..integers.len()).map(|index| exact(index) as f32).collect();
    let place = |index: usize| {
        let half = (step(index).abs() / 2.0) as f32;
        Place { exact: exact(index), below: half, above: half }
    };
    let grid = match tensor.dtype {
        DType::I32 => Grid::Places { bits: 32, places: (0..integers.len()).map(place).collect() },
        _ => Grid::Steps((0..integers.len()).map(|index| step(index) as f32).collect()),
    };
    Some((tensor.shape.clone(), elements, Some(grid)))
}

/// The matrix of MatMulNBits or MatMulBnb4, `[in, out]` as MatMul takes it.
fn unpacked(flow: &Flow, step: &Step) -> Option<Dequantised> {
    let held = |value: ValueId| flow.held_at.get(&value).and_then(|&at| flow.held[at].tensor.to_value().ok());
    let values: Vec<Option<Value>> = step.inputs.iter().map(|input| held((*input)?)).collect();
    let inputs: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
    let matrix = packed_matrix(&step.node, &inputs, Limits::default()).ok()?;
    let (rows, columns) = (matrix.rows, matrix.columns);
    let by_columns = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    let place = |at: usize| {
        let (below, above) = matrix.reach(at);
        Place { exact: matrix.element(at), below: below as f32, above: above as f32 }
    };
    let places: Vec<Place> = by_columns.map(place).collect();
    let elements = places.iter().map(|place| place.exact as f32).collect();
    Some((vec![columns, rows], elements, Some(Grid::Places { bits: matrix.bits, places })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantized_element_is_a_whole_number_of_steps() {
        let step = 0.012_345_679_f32;
        for count in -255..=255 {
            let exact = f64::from(count) * f64::from(step);
            assert_eq!(multiple(exact as f32, step), exact);
        }
        assert_eq!(multiple(0.0, 0.0), 0.0);
    }

    #[test]
    fn a_place_reaches_as_far_on_each_side_as_it_says() {
        let places = vec![Place { exact: 1.0, below: 0.25, above: 0.5 }];
        let grid = Grid::Places { bits: 4, places };
        for (weight, holds) in [(0.76, true), (0.74, false), (1.49, true), (1.51, false), (f32::NAN, false)] {
            assert_eq!(grid.holds(weight, 1.0, 0), holds, "{weight}");
        }
        assert!(!grid.holds(1.0, 1.0, 1));
    }
}
