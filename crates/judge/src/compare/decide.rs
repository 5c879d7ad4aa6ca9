//! What users of a task see of its logits: which label, token or position is chosen, and how near the next one is.
//!
//! Two sides whose logits differ by rounding may choose otherwise where two candidates are as good as equal. That is no fault, and worth knowing.

use architecture::{Family, ProblemType, Task};
use engine::{Value, ValueSpec};
pub use report::Decisions;

use super::{Answers, deciding, unravel};

/// How many tokens for a mask transformers' pipeline shows.
const TOKENS: usize = 5;

/// How a task chooses by its logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decides {
    /// The so many largest along the last axis, in their order: a label, a position, a choice, or the first tokens for a mask.
    Largest(usize),
    /// Each by itself, if it is above 0: several labels may be right.
    Positive,
}

impl Decides {
    /// How the task of a model chooses; nothing where it does not: features, and numbers that are the answer themselves.
    pub fn of(task: Task, family: &dyn Family) -> Option<Self> {
        match (task, family.problem_type()) {
            (Task::FeatureExtraction, _) | (Task::SequenceClassification, Some(ProblemType::Regression)) => {
                None
            }
            (Task::SequenceClassification, Some(ProblemType::MultiLabel)) => Some(Decides::Positive),
            (Task::SequenceClassification, _) if family.num_labels() < 2 => None,
            (Task::MaskedLm, _) => Some(Decides::Largest(TOKENS)),
            _ => Some(Decides::Largest(1)),
        }
    }
}

/// The choices of one output, as cases are added.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    margins: Vec<f64>,
    flipped: usize,
    nearest: Option<(f64, String, Vec<usize>)>,
}

impl Choices {
    /// The choices of both sides by an output, over all cases that both were run on.
    pub fn of(how: Decides, spec: &ValueSpec, reference: &Answers, candidate: &Answers) -> Self {
        let mut choices = Self::default();
        for ((case, reference), (_, candidate)) in reference.iter().zip(candidate.iter()) {
            if let Some((reference, candidate)) = reference.get(&spec.name).zip(candidate.get(&spec.name)) {
                choices.add(how, &case.name, reference, candidate, &deciding(spec, &case.inputs));
            }
        }
        choices
    }

    /// Adds a case. Both are of one shape; `decides` is as [`crate::compare::compare`] takes it.
    fn add(&mut self, how: Decides, case: &str, reference: &Value, candidate: &Value, decides: &[bool]) {
        let (shape, elements) = (reference.shape(), reference.to_f64());
        let found = candidate.to_f64();
        if found.len() != elements.len() {
            return;
        }
        let width = match how {
            Decides::Largest(_) => shape.last().copied().unwrap_or(1).max(1),
            Decides::Positive => 1,
        };
        let each = elements.len().checked_div(decides.len()).unwrap_or(1).max(1);
        let is_real = |flat: usize| decides.get(flat / each).copied().unwrap_or(true);
        for (group, (reference, found)) in elements.chunks(width).zip(found.chunks(width)).enumerate() {
            let real = |at: &usize| is_real(group * width + at);
            let (chosen, candidate) = match how {
                Decides::Largest(count) => (largest(reference, count, real), largest(found, count, real)),
                Decides::Positive => (positive(reference, real), positive(found, real)),
            };
            let Some((which, margin)) = chosen else { continue };
            if candidate.is_none_or(|(other, _)| other != which) {
                self.flipped += 1;
            }
            self.margins.push(margin);
            if self.nearest.as_ref().is_none_or(|(nearest, ..)| margin < *nearest) {
                let axes =
                    if how == Decides::Positive { shape } else { &shape[..shape.len().saturating_sub(1)] };
                self.nearest = Some((margin, case.into(), unravel(group, axes)));
            }
        }
    }

    /// What it came to, between sides that are so far apart at most; nothing if there was nothing to choose.
    pub fn close(self, max_abs: Option<f64>) -> Option<Decisions> {
        let (smallest_margin, input, at) = self.nearest?;
        let narrow = |max_abs: f64| self.margins.iter().filter(|&&margin| margin <= 2.0 * max_abs).count();
        Some(Decisions {
            made: self.margins.len(),
            flipped: self.flipped,
            could_flip: max_abs.map(narrow),
            smallest_margin: Some(smallest_margin),
            input: Some(input),
            at: Some(at),
        })
    }
}

/// The largest in their order, and the least by which one is ahead of the next; nothing where there are not two to choose from, or one is not finite.
fn largest(elements: &[f64], count: usize, real: impl Fn(&usize) -> bool) -> Option<(Vec<usize>, f64)> {
    // Those so far, the largest first, and one more to be ahead of. Of equal ones the first stands first.
    let mut best: Vec<usize> = Vec::with_capacity(count + 2);
    for at in (0..elements.len()).filter(real) {
        let x = elements[at];
        if !x.is_finite() {
            return None;
        }
        let place = best.partition_point(|&other| elements[other] >= x);
        best.insert(place, at);
        best.truncate(count + 1);
    }
    let margins = best.windows(2).map(|pair| elements[pair[0]] - elements[pair[1]]);
    let margin = margins.reduce(f64::min)?;
    best.truncate(count);
    Some((best, margin))
}

fn positive(elements: &[f64], real: impl Fn(&usize) -> bool) -> Option<(Vec<usize>, f64)> {
    let x = *elements.first().filter(|x| x.is_finite() && real(&0))?;
    Some((vec![usize::from(x > 0.0)], x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(shape: &[usize], data: &[f64]) -> Value {
        Value::new(shape, data).unwrap()
    }

    #[test]
    fn a_choice_flips_where_another_is_as_good() {
        let reference = value(&[2, 1, 3], &[1.0, 2.0, 0.0, 5.0, 5.0 - 1e-9, 1.0]);
        let candidate = value(&[2, 1, 3], &[1.0, 2.0, 0.0, 5.0, 5.0 + 1e-9, 1.0]);
        let mut choices = Choices::default();
        choices.add(Decides::Largest(1), "case", &reference, &candidate, &[true, true]);
        let found = choices.close(Some(2e-9)).unwrap();
        assert_eq!((found.made, found.flipped, found.could_flip), (2, 1, Some(1)));
        assert_eq!((found.input.as_deref(), found.at), (Some("case"), Some(vec![1, 0])));
    }

    #[test]
    fn what_does_not_decide_is_not_chosen() {
        // The largest start of an answer is at padding.
        let reference = value(&[1, 3], &[1.0, 2.0, 9.0]);
        let mut choices = Choices::default();
        choices.add(Decides::Largest(1), "case", &reference, &reference, &[true, true, false]);
        assert_eq!(choices.close(None).unwrap().smallest_margin, Some(1.0));
        let mut choices = Choices::default();
        choices.add(Decides::Largest(1), "case", &reference, &reference, &[false, false, true]);
        assert_eq!(choices.close(None), None);
    }

    #[test]
    fn the_order_of_the_first_ones_counts() {
        let reference = value(&[1, 4], &[3.0, 4.0, 1.0, 2.5]);
        let swapped = value(&[1, 4], &[2.4, 4.0, 1.0, 2.5]);
        for (count, flipped, margin) in [(1, 0, 1.0), (2, 1, 0.5), (9, 1, 0.5)] {
            let mut choices = Choices::default();
            choices.add(Decides::Largest(count), "case", &reference, &swapped, &[true]);
            let found = choices.close(Some(0.0)).unwrap();
            assert_eq!((found.made, found.flipped, found.smallest_margin), (1, flipped, Some(margin)));
        }
    }

    #[test]
    fn a_candidate_that_is_not_finite_chooses_nothing() {
        let mut choices = Choices::default();
        let reference = value(&[1, 2], &[1.0, 2.0]);
        choices.add(Decides::Largest(1), "case", &reference, &value(&[1, 2], &[f64::NAN, 2.0]), &[true]);
        choices.add(Decides::Positive, "case", &reference, &value(&[1, 2], &[1.0, -2.0]), &[true]);
        let found = choices.close(Some(0.0)).unwrap();
        assert_eq!((found.made, found.flipped), (3, 2));
    }
}
