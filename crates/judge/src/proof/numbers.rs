//! The numbers that a file can only hold the rounding of.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

use architecture::{Activation, Op, Program, Rotation};
use engine::DType;

/// The largest number whose logarithm is known. T5 has its distances in buckets by ln(128/8) or
/// ln(128/16), and others differ from it by small powers of two.
const LARGEST_LOG: u32 = 256;

/// What the number is called that each layer norm adds to the variance.
pub(super) const EPS: &str = "eps of config.json";

/// A number that the reference computes with, and what it is.
pub(crate) type Known = (Cow<'static, str>, f64);

/// The numbers that constants may be the rounding of:
///
/// | number | for |
/// | --- | --- |
/// | `eps` | the layer norms of config.json |
/// | √2, 1/√2, √(2/π), 0.044715, 1.702 | activations |
/// | √d, 1/√d, d^¼, d^-¼ | attention with heads of size d |
/// | 1/n | the mean over the n features of a layer norm |
/// | ln 2, ln 3, … ln 256 | buckets of distances, where just below a whole number is another |
/// | base^(−2i/size) for every i, cosines and sines of its multiples | rotary positions |
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// Those that a constant of one element may be.
    pub single: Vec<Known>,
    /// Those of single constants that f32 alone tells from others: in half precision one number
    /// in four between them is next to one.
    pub logs: Vec<Known>,
    /// What a constant of any size may be, the same everywhere.
    pub means: Vec<Known>,
    /// By what the places of tokens are turned.
    pub rotations: Vec<Rotation>,
}

impl Numbers {
    /// Those that a reference of this config computes with, and those that exporters make of them.
    pub fn of(program: &Program) -> Self {
        let tanh_factor = match program.activation() {
            // Its formula has the number with ten digits.
            Some(Activation::GeluFast) => ("0.7978845608".into(), 0.797_884_560_8),
            _ => ("√(2/π)".into(), (2.0 / PI).sqrt()),
        };
        let mut single: Vec<Known> = vec![(EPS.into(), program.eps().unwrap_or_default()), tanh_factor];
        single.extend(of_activations());
        single.extend(of_heads(program.head_size().unwrap_or(1)));
        let normed = program.steps.iter().filter(|step| matches!(step.op, Op::LayerNorm { .. }));
        let tensors = normed.flat_map(|step| step.op.tensors());
        let widths: BTreeSet<usize> =
            tensors.filter_map(|(_, id)| program.tensors[id].shape.last().copied()).collect();
        let mut rotations: Vec<Rotation> = Vec::new();
        for step in &program.steps {
            if let Op::Angles { rotation, .. } = step.op
                && !rotations.contains(&rotation)
            {
                rotations.push(rotation);
            }
        }
        Self { single, logs: logs(), means: widths.into_iter().map(mean).collect(), rotations }
    }

    /// Those that a constant of so many elements may be, the likelier first.
    pub fn of_size(&self, elements: usize, dtype: DType) -> impl Iterator<Item = &Known> {
        let single = self.single.iter().filter(move |_| elements == 1);
        let logs = self.logs.iter().filter(move |_| elements == 1 && dtype == DType::F32);
        single.chain(&self.means).chain(logs)
    }
}

/// The numbers of GELU's forms, but for the factor of the one with tanh.
pub(crate) fn of_activations() -> [Known; 4] {
    [("√2", SQRT_2), ("1/√2", FRAC_1_SQRT_2), ("0.044715", 0.044715), ("1.702", 1.702)]
        .map(|(meaning, number)| (meaning.into(), number))
}

/// What attention with heads of a size scales by.
pub(crate) fn of_heads(size: usize) -> [Known; 4] {
    let d = size as f64;
    [("√d", d.sqrt()), ("1/√d", 1.0 / d.sqrt()), ("d^¼", d.powf(0.25)), ("d^-¼", d.powf(-0.25))]
        .map(|(meaning, number)| (meaning.into(), number))
}

/// What a sum over n is multiplied with for a mean.
pub(crate) fn mean(n: usize) -> Known {
    (format!("1/{n} of a mean").into(), 1.0 / n as f64)
}

/// The logarithms of small integers.
pub(crate) fn logs() -> Vec<Known> {
    (2..=LARGEST_LOG).map(|n| (format!("ln {n}").into(), f64::from(n).ln())).collect()
}
