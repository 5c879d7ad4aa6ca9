//! How far two values are apart.
//!
//! Elements are compared as `f64`: |reference − candidate| against an absolute tolerance, nothing relative added. A value that is
//! not finite is never close to anything, not even to itself.

mod answers;
pub mod decide;

use engine::{DType, Value};
use report::FromTruth;

pub use answers::{Answers, deciding, output_report};
pub(crate) use answers::{OnFailure, Tally, finite};

/// Why two values cannot be compared element by element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum Mismatch {
    /// The shapes differ.
    #[error("shape {reference:?} against {candidate:?}")]
    Shape { reference: Vec<usize>, candidate: Vec<usize> },
    /// The dtypes differ.
    #[error("dtype {reference} against {candidate}")]
    DType { reference: DType, candidate: DType },
}

/// The element at which two values are furthest apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// Where.
    pub index: Vec<usize>,
    /// The shape of the value it is in.
    pub shape: Vec<usize>,
    /// The reference's element.
    pub reference: f64,
    /// The candidate's.
    pub candidate: f64,
    /// The number of representable values between them; meaningless if one is not finite.
    pub ulp: u64,
}

/// The distance of some elements of a candidate from those of a reference.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distance {
    compared: usize,
    beyond: usize,
    max_abs: f64,
    max_ulp: u64,
    sum_abs: f64,
    largest_reference: f64,
    dot: f64,
    norms: [f64; 2],
    non_finite: [usize; 2],
    worst: Option<Worst>,
    features: Features,
}

/// What each feature comes to, which is an element of the last axis; of values whose last axes
/// differ, all together as one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// The largest |reference − candidate| that is finite.
    pub max_abs: Vec<f64>,
    /// The largest |reference| beside it.
    pub largest_reference: Vec<f64>,
}

impl Features {
    fn add(&mut self, feature: usize, abs: f64, reference: f64) {
        if self.max_abs.len() <= feature {
            self.max_abs.resize(feature + 1, 0.0);
            self.largest_reference.resize(feature + 1, 0.0);
        }
        self.max_abs[feature] = self.max_abs[feature].max(abs);
        self.largest_reference[feature] = self.largest_reference[feature].max(reference);
    }

    fn merge(&mut self, mut other: Self) {
        if self.max_abs.is_empty() {
            *self = other;
            return;
        }
        if !other.max_abs.is_empty() && self.max_abs.len() != other.max_abs.len() {
            for side in [&mut *self, &mut other] {
                side.max_abs = vec![largest(&side.max_abs)];
                side.largest_reference = vec![largest(&side.largest_reference)];
            }
        }
        for (feature, (abs, reference)) in other.max_abs.iter().zip(&other.largest_reference).enumerate() {
            self.add(feature, *abs, *reference);
        }
    }
}

/// The largest of some numbers that are 0 or more.
pub(crate) fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(0.0, f64::max)
}

impl Distance {
    /// How many pairs of elements were compared.
    pub fn compared(&self) -> usize {
        self.compared
    }

    /// How many of them are further apart than the tolerance, or not finite.
    pub fn beyond(&self) -> usize {
        self.beyond
    }

    /// The largest |reference − candidate|; nothing if no pair was compared, or an element is not finite.
    pub fn max_abs(&self) -> Option<f64> {
        (self.compared > 0 && self.non_finite == [0, 0]).then_some(self.max_abs).filter(|max| max.is_finite())
    }

    /// The largest |reference| among what was compared, of those that are finite on both sides.
    pub fn largest_reference(&self) -> f64 {
        self.largest_reference
    }

    /// [`Distance::max_abs`] over the largest |reference|; nothing where that is 0.
    pub fn max_rel(&self) -> Option<f64> {
        self.max_abs().filter(|_| self.largest_reference > 0.0).map(|max| max / self.largest_reference)
    }

    /// The largest number of representable values between a pair, in the outputs' own dtype. It is large next to zero, where values lie
    /// dense; [`Worst::ulp`] says more.
    pub fn max_ulp(&self) -> Option<u64> {
        self.max_abs().map(|_| self.max_ulp)
    }

    /// The mean |reference − candidate|.
    pub fn mean_abs(&self) -> Option<f64> {
        self.max_abs().map(|_| self.sum_abs / self.compared as f64).filter(|mean| mean.is_finite())
    }

    /// The cosine of the angle between all elements of one and all of the other, taken as two vectors.
    pub fn cosine(&self) -> Option<f64> {
        let norm = (self.norms[0] * self.norms[1]).sqrt();
        self.max_abs().filter(|_| norm > 0.0).map(|_| self.dot / norm).filter(|cosine| cosine.is_finite())
    }

    /// Feature by feature.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// How many elements are NaN or infinite: the reference's, the candidate's.
    pub fn non_finite(&self) -> [usize; 2] {
        self.non_finite
    }

    /// Where they are furthest apart: the first element that is not finite, if there is one.
    pub fn worst(&self) -> Option<&Worst> {
        self.worst.as_ref()
    }

    fn add(&mut self, pair: Pair, atol: f64, worst: impl FnOnce() -> Worst) {
        let Pair { reference, candidate, feature, ulp } = pair;
        self.compared += 1;
        let had_non_finite = self.non_finite != [0, 0];
        self.non_finite[0] += usize::from(!reference.is_finite());
        self.non_finite[1] += usize::from(!candidate.is_finite());
        if !(reference.is_finite() && candidate.is_finite()) {
            self.beyond += 1;
            if !had_non_finite {
                self.worst = Some(worst());
            }
            return;
        }
        let abs = (reference - candidate).abs();
        self.beyond += usize::from(abs > atol);
        self.sum_abs += abs;
        self.largest_reference = self.largest_reference.max(reference.abs());
        self.dot += reference * candidate;
        self.norms[0] += reference * reference;
        self.norms[1] += candidate * candidate;
        self.max_ulp = self.max_ulp.max(ulp);
        self.features.add(feature, abs, reference.abs());
        if (abs > self.max_abs || self.worst.is_none()) && !had_non_finite {
            self.worst = Some(worst());
        }
        self.max_abs = self.max_abs.max(abs);
    }

    /// Takes in the distance of another run; returns whether the worst element is now that run's.
    pub fn merge(&mut self, other: Distance) -> bool {
        let has_non_finite = |distance: &Distance| distance.non_finite != [0, 0];
        let worse = other.worst.is_some()
            && !has_non_finite(self)
            && (self.worst.is_none() || has_non_finite(&other) || other.max_abs > self.max_abs);
        self.compared += other.compared;
        self.beyond += other.beyond;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.max_ulp = self.max_ulp.max(other.max_ulp);
        self.sum_abs += other.sum_abs;
        self.largest_reference = self.largest_reference.max(other.largest_reference);
        self.dot += other.dot;
        for side in 0..2 {
            self.norms[side] += other.norms[side];
            self.non_finite[side] += other.non_finite[side];
        }
        self.features.merge(other.features);
        if worse {
            self.worst = other.worst;
        }
        worse
    }
}

/// Two elements, in which feature they are, and how many numbers lie between them.
struct Pair {
    reference: f64,
    candidate: f64,
    feature: usize,
    ulp: u64,
}

/// The distance of a candidate from a reference, where it decides and where it does not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Elements that decide.
    pub deciding: Distance,
    /// Elements at padding positions, which mean nothing.
    pub padding: Distance,
}

/// Compares a candidate with a reference, element by element.
///
/// `decides` says for each position — the leading axes of the values, flattened — whether it decides: the attention mask for
/// `last_hidden_state`, whether the row has a real token for `pooler_output`. Its length must divide that of the values;
/// an empty one means that every element decides.
///
/// Padding means nothing as long as it is a number. What is none, where the reference has one,
/// makes every sum over the text's tokens none, even times 0: in a text with a real token it
/// decides.
///
/// # Errors
/// If dtypes or shapes differ.
pub fn compare(
    reference: &Value,
    candidate: &Value,
    decides: &[bool],
    atol: f64,
) -> Result<Comparison, Mismatch> {
    compare_within(reference, candidate, decides, &[atol])
}

/// [`compare`] with a tolerance for each feature, or one for all.
///
/// # Errors
/// If dtypes or shapes differ.
pub(crate) fn compare_within(
    reference: &Value,
    candidate: &Value,
    decides: &[bool],
    atol: &[f64],
) -> Result<Comparison, Mismatch> {
    if reference.dtype() != candidate.dtype() {
        return Err(Mismatch::DType { reference: reference.dtype(), candidate: candidate.dtype() });
    }
    if reference.shape() != candidate.shape() {
        return Err(Mismatch::Shape {
            reference: reference.shape().to_vec(),
            candidate: candidate.shape().to_vec(),
        });
    }
    let single = reference.dtype() == DType::F32;
    let per_position = reference.len().checked_div(decides.len()).unwrap_or(0).max(1);
    // Whether the text that a position is in has a token that decides.
    let is_read = |position: usize| match *reference.shape() {
        [rows, tokens, _] if decides.len() == rows * tokens => {
            decides.chunks(tokens).nth(position / tokens).is_some_and(|row| row.contains(&true))
        }
        _ => false,
    };
    let width = reference.shape().last().copied().unwrap_or(1).max(1);
    let mut comparison = Comparison::default();
    for (flat, (a, b)) in reference.to_f64().into_iter().zip(candidate.to_f64()).enumerate() {
        let position = flat / per_position;
        let breaks = || a.is_finite() && !b.is_finite() && is_read(position);
        let decides = decides.get(position).copied().unwrap_or(true) || breaks();
        let distance = if decides { &mut comparison.deciding } else { &mut comparison.padding };
        let ulp = if single { ulp_distance_f32(a as f32, b as f32) } else { ulp_distance_f64(a, b) };
        let feature = flat % width;
        let atol = atol.get(feature).or(atol.last()).copied().unwrap_or(0.0);
        distance.add(Pair { reference: a, candidate: b, feature, ulp }, atol, || Worst {
            index: unravel(flat, reference.shape()),
            shape: reference.shape().to_vec(),
            reference: a,
            candidate: b,
            ulp,
        });
    }
    Ok(comparison)
}

/// How far both sides are from the truth.
pub(crate) fn from_truth(reference: &Distance, candidate: &Distance) -> FromTruth {
    let ulps = |side: &Distance| Some(side.max_abs()? / ulp(side.worst()?.reference));
    FromTruth {
        reference: reference.max_abs(),
        reference_ulp: ulps(reference),
        candidate: candidate.max_abs(),
        candidate_ulp: ulps(candidate),
    }
}

pub(crate) fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let at = flat % size.max(1);
            flat /= size.max(1);
            at
        })
        .collect();
    index.reverse();
    index
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

/// A half-precision value as the f32 that it is, exactly; any other as it is.
pub(crate) fn single(value: Value) -> Value {
    match value.dtype() {
        DType::F16 | DType::BF16 => {
            let elements: Vec<f32> = value.to_f64().into_iter().map(|x| x as f32).collect();
            Value::new(value.shape(), elements).unwrap_or(value)
        }
        _ => value,
    }
}

/// The number of steps from one finite `f32` to another along all representable values; +0 and −0 are one value.
pub fn ulp_distance_f32(a: f32, b: f32) -> u64 {
    let ordered = |x: f32| {
        let magnitude = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    ordered(a).abs_diff(ordered(b))
}

/// The number of steps from one finite `f64` to another along all representable values; +0 and −0 are one value.
pub fn ulp_distance_f64(a: f64, b: f64) -> u64 {
    let ordered = |x: f64| {
        let magnitude = i128::from(x.to_bits() & 0x7fff_ffff_ffff_ffff);
        if x.is_sign_negative() { -magnitude } else { magnitude }
    };
    u64::try_from(ordered(a).abs_diff(ordered(b))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    fn value(data: &[f32]) -> Value {
        Value::new([data.len()], data).unwrap()
    }

    fn distance(a: &[f32], b: &[f32]) -> Distance {
        compare(&value(a), &value(b), &[], 1e-6).unwrap().deciding
    }

    #[test]
    fn equal_values_have_no_distance() {
        let distance = distance(&[1.0, -2.0], &[1.0, -2.0]);
        assert_eq!(distance.max_abs(), Some(0.0));
        assert_eq!(distance.max_ulp(), Some(0));
        assert_eq!((distance.compared(), distance.beyond()), (2, 0));
        assert!((distance.cosine().unwrap() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn the_worst_element_is_named() {
        let a = Value::new([2, 2], vec![0f32, 1.0, 2.0, 3.0]).unwrap();
        let b = Value::new([2, 2], vec![0f32, 1.0, 2.5, 3.25]).unwrap();
        let distance = compare(&a, &b, &[], 1e-6).unwrap().deciding;
        assert_eq!(distance.max_abs(), Some(0.5));
        assert_eq!(distance.beyond(), 2);
        let worst = distance.worst().unwrap();
        assert_eq!((worst.index.as_slice(), worst.reference, worst.candidate), (&[1, 0][..], 2.0, 2.5));
        assert_eq!(distance.max_rel(), Some(0.5 / 3.0));
        assert_eq!(distance.mean_abs(), Some(0.75 / 4.0));
    }

    #[test]
    fn what_is_not_finite_is_never_close() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY)]
        {
            let distance = distance(&[0.0, a, 9.0], &[0.0, b, 1.0]);
            assert_eq!(distance.max_abs(), None, "{a} {b}");
            assert_eq!(distance.beyond(), 2);
            assert_eq!(distance.worst().unwrap().index, [1]);
        }
        assert_eq!(distance(&[f32::NAN], &[1.0]).non_finite(), [1, 0]);
    }

    #[test]
    fn nothing_compared_has_no_maximum() {
        assert_eq!(distance(&[], &[]).max_abs(), None);
        assert_eq!(distance(&[], &[]).worst(), None);
    }

    #[test]
    fn padding_is_kept_apart() {
        let a = Value::new([1, 2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let b = Value::new([1, 2, 2], vec![1f32, 2.0, 9.0, 4.5]).unwrap();
        let comparison = compare(&a, &b, &[true, false], 1e-6).unwrap();
        assert_eq!((comparison.deciding.compared(), comparison.deciding.max_abs()), (2, Some(0.0)));
        assert_eq!((comparison.padding.compared(), comparison.padding.max_abs()), (2, Some(6.0)));
    }

    #[test]
    fn what_is_no_number_at_padding_decides_in_a_text_with_a_real_token() {
        let a = Value::new([2, 2, 1], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let nan = |at: usize| {
            let mut elements = vec![1f32, 2.0, 3.0, 4.0];
            elements[at] = f32::NAN;
            Value::new([2, 2, 1], elements).unwrap()
        };
        let mask = [true, false, false, false];
        let of = |reference: &Value, candidate: &Value| compare(reference, candidate, &mask, 1e-6).unwrap();
        let comparison = of(&a, &nan(1));
        assert_eq!((comparison.deciding.compared(), comparison.deciding.max_abs()), (2, None));
        assert_eq!(comparison.deciding.worst().unwrap().index, [0, 1, 0]);
        // The second text has none, and of the first the reference has no number there either.
        assert_eq!(of(&a, &nan(2)).deciding.max_abs(), Some(0.0));
        assert_eq!(of(&nan(1), &nan(1)).deciding.max_abs(), Some(0.0));
    }

    #[test]
    fn shapes_and_dtypes_must_agree() {
        let a = value(&[1.0, 2.0]);
        let b = Value::new([1, 2], vec![1f32, 2.0]).unwrap();
        assert!(matches!(compare(&a, &b, &[], 1e-6), Err(Mismatch::Shape { .. })));
        let b = Value::new([2], vec![1f64, 2.0]).unwrap();
        assert!(matches!(compare(&a, &b, &[], 1e-6), Err(Mismatch::DType { .. })));
    }

    #[test]
    fn ulps_count_representable_values() {
        assert_eq!(ulp_distance_f32(1.0, 1.0 + f32::EPSILON), 1);
        assert_eq!(ulp_distance_f32(0.0, -0.0), 0);
        assert_eq!(ulp_distance_f32(-f32::from_bits(1), f32::from_bits(1)), 2);
        assert_eq!(ulp_distance_f64(1.0, 1.0 - f64::EPSILON), 2);
        assert_eq!(ulp_distance_f64(f64::MAX, -f64::MAX), 2 * 0x7fef_ffff_ffff_ffff);
    }

    #[test]
    fn merging_keeps_the_worst() {
        let mut all = distance(&[1.0], &[1.5]);
        assert!(!all.merge(distance(&[1.0], &[1.25])));
        assert!(all.merge(distance(&[1.0], &[3.0])));
        assert_eq!((all.max_abs(), all.compared()), (Some(2.0), 3));
        assert!(all.merge(distance(&[f32::NAN], &[1.0])));
        assert!(!all.merge(distance(&[1.0], &[100.0])));
        assert_eq!(all.max_abs(), None);
    }

    #[test]
    fn an_ulp_is_the_distance_to_the_next_number() {
        assert_eq!(ulp(1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp(-8.5), 8.0 * f64::from(f32::EPSILON));
        assert!(ulp(0.0) > 0.0 && ulp(f64::MAX).is_finite());
    }

    #[test]
    fn halves_become_the_f32_that_they_are() {
        let halves = Value::new([2], vec![f16::from_f32(0.1), f16::INFINITY]).unwrap();
        let wide = Value::new([2], vec![f16::from_f32(0.1).to_f32(), f32::INFINITY]).unwrap();
        assert_eq!(single(halves), wide);
        assert_eq!(single(wide.clone()), wide);
    }
}
