//! What f32 has a right to.

use std::collections::BTreeMap;

use engine::{DType, NamedValues, Value};

use super::Truth;
use crate::check::{Expected, deciding};
use crate::compare::{Distance, compare};

/// How many times the larger of the two measured f32 errors an engine's distance may be.
///
/// An engine may sum in another order, fuse, or use other kernels for exp and tanh: its error is of the same size as the reference's, not the
/// same, and the distance between the two is at most the sum of both. Over all fixtures and graph forms the engines `candle` and
/// `compiled` stay below 3.3, and below 6.2 on the fixture that is made to magnify rounding (tests/proof.rs); a product whose factors were
/// rounded to bf16 is beyond 1000.
pub const BUDGET_FACTOR: f64 = 8.0;

/// What comes on top of it, in units of the last place of the largest value in the dtype of the graph's output: outputs that both sides happen to get exactly right
/// would otherwise leave an engine nothing.
pub const BUDGET_ULPS: f64 = 4.0;

/// How far an engine may be from the reference in f32, for each output:
///
/// ```text
/// BUDGET_FACTOR · max(|reference in f32 − reference in f64|, |oracle in f32 − oracle in f64|) + BUDGET_ULPS · ulp(largest |reference in f64|)
/// ```
///
/// The engine that is judged has no part in it: a broken or half-precision kernel cannot set its own budget.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    outputs: BTreeMap<String, f64>,
}

impl Budget {
    /// Measures it. `expected` are the reference's outputs in f32, `exact` those of the oracle in f64, and `rounded` those of the oracle where it
    /// rounds as the graph says; all of the same cases.
    pub fn measure(
        truth: &Truth,
        expected: &Expected,
        exact: &[NamedValues],
        rounded: &[NamedValues],
    ) -> Self {
        let mut errors: BTreeMap<String, Errors> = BTreeMap::new();
        let nothing = NamedValues::new();
        for (index, ((case, reference), truth_outputs)) in expected.iter().zip(truth.outputs()).enumerate() {
            let [exact, rounded] = [exact, rounded].map(|side| side.get(index).unwrap_or(&nothing));
            for spec in truth.specs() {
                let decides = deciding(spec, case.inputs.get("attention_mask"));
                for (exact, side) in [(truth_outputs, reference), (exact, rounded)] {
                    let Some(distance) = distance(exact, side, &spec.name, &decides) else { continue };
                    let entry = errors.entry(spec.name.clone()).or_default();
                    entry.error = entry.error.max(distance.max_abs().unwrap_or(0.0));
                    entry.largest = entry.largest.max(distance.largest_reference());
                }
                if let Some(value) = rounded.get(&spec.name).filter(|value| value.dtype().is_float()) {
                    errors.entry(spec.name.clone()).or_default().dtype = Some(value.dtype());
                }
            }
        }
        Self { outputs: errors.into_iter().map(|(name, errors)| (name, errors.budget())).collect() }
    }

    /// The budget of an output.
    pub fn of(&self, output: &str) -> Option<f64> {
        self.outputs.get(output).copied()
    }
}

/// What is measured of an output.
#[derive(Default)]
struct Errors {
    error: f64,
    largest: f64,
    /// That of the graph.
    dtype: Option<DType>,
}

impl Errors {
    fn budget(&self) -> f64 {
        // The number of digits that a half-precision output has less than f32.
        let coarser = match self.dtype {
            Some(DType::F16) => f64::from(1 << (f32::MANTISSA_DIGITS - half::f16::MANTISSA_DIGITS)),
            Some(DType::BF16) => f64::from(1 << (f32::MANTISSA_DIGITS - half::bf16::MANTISSA_DIGITS)),
            _ => 1.0,
        };
        BUDGET_FACTOR * self.error + BUDGET_ULPS * coarser * ulp(self.largest)
    }
}

/// How far an output in f32 is from the same side's in f64.
fn distance(exact: &NamedValues, side: &NamedValues, name: &str, decides: &[bool]) -> Option<Distance> {
    Some(compare(exact.get(name)?, &widened(side.get(name)?), decides, 0.0).ok()?.deciding)
}

/// A float value as f64, exactly.
pub(crate) fn widened(value: &Value) -> Value {
    if value.dtype() == DType::F64 || !value.dtype().is_float() {
        return value.clone();
    }
    Value::new(value.shape(), value.to_f64()).unwrap_or_else(|_| value.clone())
}

/// The distance from a number to the next f32.
pub(crate) fn ulp(x: f64) -> f64 {
    let x = (x.abs() as f32).clamp(f32::MIN_POSITIVE, f32::MAX / 2.0);
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ulp_is_the_distance_to_the_next_number() {
        assert_eq!(ulp(1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp(-8.5), 8.0 * f64::from(f32::EPSILON));
        assert!(ulp(0.0) > 0.0 && ulp(f64::MAX).is_finite());
    }
}
