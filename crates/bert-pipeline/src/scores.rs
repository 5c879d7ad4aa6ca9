//! From logits to scores, as transformers' pipelines make them: rounded to f32 before anything is sorted, so that two labels that
//! saturate at 1 stay in the order of their ids.

use std::cmp::Ordering;

/// exp(xᵢ) / Σⱼ exp(xⱼ). Computed in f64, rounded to f32.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| (power / sum) as f32).collect()
}

/// 1 / (1 + exp(−x)). Computed in f64, rounded to f32.
pub(crate) fn sigmoid(logit: f32) -> f32 {
    (1. / (1. + (-f64::from(logit)).exp())) as f32
}

/// The largest first; of equal ones, the one that comes first. `None` for an empty list.
pub(crate) fn argmax(scores: &[f32]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, score) in scores.iter().enumerate() {
        if best.and_then(|best| scores.get(best)).is_none_or(|largest| score > largest) {
            best = Some(i);
        }
    }
    best
}

/// For a stable sort, the largest first.
pub(crate) fn descending(a: f32, b: f32) -> Ordering {
    b.total_cmp(&a)
}

/// The ids of the `k` largest, the largest first; of equal ones, the one that comes first.
pub(crate) fn top(scores: &[f32], k: usize) -> Vec<usize> {
    let at = |i: usize| scores.get(i).copied().unwrap_or(f32::NEG_INFINITY);
    let order = |&a: &usize, &b: &usize| descending(at(a), at(b)).then(a.cmp(&b));
    let mut ids: Vec<usize> = (0..scores.len()).collect();
    if k == 0 {
        return Vec::new();
    }
    // A vocabulary is long and few of it are wanted.
    if k < ids.len() {
        ids.select_nth_unstable_by(k - 1, order);
        ids.truncate(k);
    }
    ids.sort_unstable_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        assert_eq!(softmax(&[0., 0.]), [0.5, 0.5]);
        assert_eq!(softmax(&[1000., 1000., -1000.]), [0.5, 0.5, 0.]);
        // e² / (e² + 1)
        assert_eq!(softmax(&[2., 0.])[0], sigmoid(2.));
        assert_eq!(sigmoid(0.), 0.5);
        assert_eq!((sigmoid(100.), sigmoid(-200.)), (1., 0.));
    }

    #[test]
    fn of_equal_scores_the_first_comes_first() {
        assert_eq!(argmax(&[0.25, 0.5, 0.5]), Some(1));
        assert_eq!(argmax(&[]), None);
        assert_eq!(top(&[0.1, 0.4, 0.1, 0.4], 3), [1, 3, 0]);
        assert_eq!(top(&[0.1, 0.4], 5), [1, 0]);
        assert_eq!(top(&[0.1, 0.4], 0), [0; 0]);
        assert_eq!(top(&[0.; 100], 4), [0, 1, 2, 3]);
    }
}
