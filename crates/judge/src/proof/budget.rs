//! What f32 has a right to.

use std::collections::BTreeMap;

use engine::{DType, ValueSpec};

use crate::compare::{Answers, Comparison, Tally, ulp};

/// How many times the larger of the two measured f32 errors an engine's distance may be.
///
/// An engine may sum in another order, fuse, or use other kernels for exp and tanh: its error is of
/// the same size as the reference's, not the same, and the distance between the two is at most the
/// sum of both. Over all fixtures and graph forms the engines `candle` and `compiled` stay below
/// 3.3, and below 6.2 on the fixture that is made to magnify rounding (tests/proof.rs); a product
/// whose factors were rounded to bf16 is beyond 1000.
pub const BUDGET_FACTOR: f64 = 8.0;

/// What comes on top of it, in units of the last place of the largest value in the dtype of the
/// graph's output: outputs that both sides happen to get exactly right would otherwise leave an
/// engine nothing.
pub const BUDGET_ULPS: f64 = 4.0;

/// How far an engine may be from the reference in f32, for each output:
///
/// ```text
/// BUDGET_FACTOR · max(|reference in f32 − reference in f64|, |oracle in f32 − oracle in f64|)
///     + BUDGET_ULPS · ulp(largest |reference in f64|)
/// ```
///
/// The engine that is judged has no part in it: a broken or half-precision kernel cannot set its
/// own budget.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    outputs: BTreeMap<String, f64>,
}

impl Budget {
    /// Measures it. `expected` is what the reference gives in f32, `exact` what the oracle gives in
    /// f64, and `rounded` what it gives where it rounds as the graph says.
    pub fn measure(truth: &Answers, expected: &Answers, exact: &Answers, rounded: &Answers) -> Self {
        let budget = |spec: &ValueSpec| {
            let errors = [(truth, expected), (exact, rounded)]
                .map(|(exact, side)| Tally::in_f64(spec, exact, side, 0.0));
            let dtype = rounded.iter().rev().find_map(|(_, outputs)| Some(outputs.get(&spec.name)?.dtype()));
            let compared = errors.iter().any(|side| side.total != Comparison::default());
            let largest =
                |of: fn(&Tally) -> f64| errors.iter().map(of).fold(0.0, |largest: f64, x| largest.max(x));
            let error = largest(Tally::largest_finite);
            let value = largest(|side| side.total.deciding.largest_reference());
            (compared || dtype.is_some_and(DType::is_float))
                .then(|| (spec.name.clone(), allowed(error, value, dtype)))
        };
        Self { outputs: truth.specs().iter().filter_map(budget).collect() }
    }

    /// The budget of an output.
    pub fn of(&self, output: &str) -> Option<f64> {
        self.outputs.get(output).copied()
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
