//! What f32 has a right to.

use std::collections::BTreeMap;

use architecture::{Op, Program};
use engine::{DType, ValueSpec};
use onnx_graph::Model;

use crate::compare::{Answers, Comparison, Features, Tally, largest, ulp};

/// How many times the reference's f32 error, or the walk of [`Roundings`], an engine's distance may
/// be.
///
/// An engine may sum in another order, fuse, or use other kernels for exp and tanh: its error is of
/// the same size as the reference's, not the same, and the distance between the two is at most the
/// sum of both. Over all fixtures and graph forms each feature of the engines `candle` and
/// `compiled` stays below 4.4, and below 6.3 on the fixture that is made to magnify rounding
/// (tests/proof.rs).
pub const BUDGET_FACTOR: f64 = 8.0;

/// What comes on top of it, in units of the last place of the largest value in the dtype of the
/// graph's output: outputs that both sides happen to get exactly right would otherwise leave an
/// engine nothing.
pub const BUDGET_ULPS: f64 = 4.0;

/// How many values are rounded one after another on the way to an output, at most.
///
/// Errors of half a unit in the last place that add up at random come to the root of their number:
/// that is how far f32 may be off where the reference happened to be lucky.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roundings(usize);

impl Roundings {
    /// Those of a model: each of its steps but the lookups and picks.
    pub fn of_program(program: &Program) -> Self {
        let mut depths: Vec<usize> = Vec::with_capacity(program.steps.len());
        for step in &program.steps {
            let before = step.inputs.iter().filter_map(|wire| wire.step());
            let before = before.map(|step| depths[step]).max().unwrap_or(0);
            let is_lookup = matches!(
                step.op,
                Op::Embedding { .. } | Op::Positions { .. } | Op::RelativeBias { .. } | Op::Part { .. }
            );
            depths.push(before + usize::from(!is_lookup));
        }
        Self(depths.into_iter().max().unwrap_or(0))
    }

    /// Those of a graph that no description is known of: each node on the longest way.
    pub fn of_graph(model: &Model) -> Self {
        let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &model.graph.nodes {
            let before = node.inputs.iter().filter_map(|input| depths.get(input.as_str()).copied());
            let depth = before.max().unwrap_or(0) + 1;
            depths.extend(node.outputs.iter().map(|output| (output.as_str(), depth)));
        }
        Self(depths.into_values().max().unwrap_or(0))
    }

    /// How far that many roundings come at random, of values that are so large at most.
    fn walk(self, largest: f64) -> f64 {
        (self.0 as f64).sqrt() * f64::from(f32::EPSILON) / 2.0 * largest
    }
}

/// What a budget leaves to a graph beside what is measured of the reference.
#[derive(Debug, Clone, Copy)]
pub struct Leave {
    /// How often the reference rounds.
    pub roundings: Roundings,
    /// Whether the graph was converted on purpose, and so may lose what it does by its own account.
    pub is_converted: bool,
}

/// How far an engine may be from the reference in f32, for each feature of each output, which is an
/// element of the last axis:
///
/// ```text
/// BUDGET_FACTOR · max(|reference in f32 − reference in f64|, √roundings · 2⁻²⁴ · size)
///     + BUDGET_ULPS · ulp(largest |reference in f64|)
/// ```
///
/// The size of a feature is its largest value, or that of the median feature where that is more: a
/// feature that is small for the difference of large ones has their errors.
///
/// The graph that is judged has no part in it, neither in its own precision nor on its engine: a
/// step that loses digits cannot set its own budget. Where a graph was converted on purpose, its
/// own distance from what it is in f64 counts, too.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    outputs: BTreeMap<String, Vec<f64>>,
    /// What it would be of a graph that was not converted, where it was.
    unconverted: Option<BTreeMap<String, Vec<f64>>>,
}

impl Budget {
    /// Measures it. `expected` is what the reference gives in f32, `exact` what the graph gives in
    /// f64, and `rounded` what it gives where it rounds as it says.
    pub fn measure(
        truth: &Answers,
        expected: &Answers,
        graph: [&Answers; 2],
        Leave { roundings, is_converted }: Leave,
    ) -> Self {
        let outputs = |is_converted| Self::outputs(truth, expected, graph, roundings, is_converted);
        Self { outputs: outputs(is_converted), unconverted: is_converted.then(|| outputs(false)) }
    }

    fn outputs(
        truth: &Answers,
        expected: &Answers,
        [exact, rounded]: [&Answers; 2],
        roundings: Roundings,
        is_converted: bool,
    ) -> BTreeMap<String, Vec<f64>> {
        let budget = |spec: &ValueSpec| {
            let dtype = rounded.iter().rev().find_map(|(_, outputs)| Some(outputs.get(&spec.name)?.dtype()));
            let own = Tally::in_f64(spec, truth, expected, 0.0);
            let compared = own.total != Comparison::default();
            if !compared && !dtype.is_some_and(DType::is_float) {
                return None;
            }
            let Features { max_abs, largest_reference } = own.total.deciding.features().clone();
            let mut sizes = largest_reference.clone();
            sizes.sort_by(f64::total_cmp);
            let median = sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
            let lost = match is_converted {
                true => largest(&Tally::in_f64(spec, exact, rounded, 0.0).total.deciding.features().max_abs),
                false => 0.0,
            };
            let feature = |(error, size): (&f64, &f64)| {
                allowed(error.max(roundings.walk(size.max(median))).max(lost), *size, dtype)
            };
            let mut all: Vec<f64> = max_abs.iter().zip(&largest_reference).map(feature).collect();
            if all.is_empty() {
                all.push(allowed(lost, 0.0, dtype));
            }
            Some((spec.name.clone(), all))
        };
        truth.specs().iter().filter_map(budget).collect()
    }

    /// What it would be, had the graph not been converted; nothing if it was not.
    pub(crate) fn unconverted(&self) -> Option<Self> {
        Some(Self { outputs: self.unconverted.clone()?, unconverted: None })
    }

    /// The budget of each feature of an output; one for all where the last axis is not always the
    /// same.
    pub fn of(&self, output: &str) -> Option<&[f64]> {
        self.outputs.get(output).map(Vec::as_slice)
    }

    /// The largest of an output.
    pub fn largest(&self, output: &str) -> Option<f64> {
        self.of(output).map(largest)
    }
}

/// What a graph may be off whose outputs are of that dtype.
fn allowed(error: f64, largest: f64, dtype: Option<DType>) -> f64 {
    // The number of digits that a half-precision output has less than f32.
    let coarser = match dtype {
        Some(DType::F16) => f64::from(1 << (f32::MANTISSA_DIGITS - half::f16::MANTISSA_DIGITS)),
        Some(DType::BF16) => f64::from(1 << (f32::MANTISSA_DIGITS - half::bf16::MANTISSA_DIGITS)),
        _ => 1.0,
    };
    BUDGET_FACTOR * error + BUDGET_ULPS * coarser * ulp(largest)
}
