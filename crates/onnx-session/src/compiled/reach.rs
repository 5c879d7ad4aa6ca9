//! Whether a mask hides what it masks: in a run, from the sizes of its queries and keys.
//!
//! What a mask adds to the score of a key is a finite number in most exports, −10,000 in older
//! ones. It hides the key where no score can make up for it. By Cauchy and Schwarz a score is at
//! most |q| · |k| · scale, which takes as long to look at as one key takes to compute.

use kernels::{Attention, Meets, Rows};

/// An exponential of less is 0 in f32: 2⁻¹⁵⁰ is e^−103.97.
const VANISHES: f32 = 104.0;

/// A key that gets no more than this added is taken to be hidden where it is not computed at all:
/// scores of 10³⁰ are beyond what f32 computes with.
const BEYOND_SCORES: f32 = -1e30;

/// Whether the keys behind the first `lengths` of each sequence have no part in any softmax, so
/// that skipping them gives what computing them gives: exponentials of 0, and nothing infinite or
/// NaN that 0 would not silence.
///
/// `left_out` is that they are not among the rows at all. Then it is taken to hold that they are no
/// larger than those that are there.
pub fn hides(attention: &Attention<'_>, lengths: &[usize], masked: f32, left_out: bool) -> bool {
    let Attention { q, k, v, heads, scale, offsets, .. } = *attention;
    let longest = offsets.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
    let Some(spread) = spread(attention, longest, left_out) else { return false };
    if left_out && masked <= BEYOND_SCORES && spread < -BEYOND_SCORES {
        return true;
    }
    let turned = turned(attention, longest);
    let size = q.columns() / heads.max(1);
    offsets.windows(2).zip(lengths).all(|(ends, &length)| {
        let (first, real, end) = (ends[0], ends[0] + length, ends[1]);
        (real == end && !left_out)
            || (0..heads).all(|head| {
                let part = head * size..(head + 1) * size;
                let largest = |of: Rows<'_>, from: usize| {
                    (from..end).map(|row| square(&of.row(row)[part.clone()])).fold(0.0, f32::max)
                };
                let product = largest(q, first).sqrt() * largest(k, first).sqrt() * turned;
                let score = product * scale.abs();
                // The product on its own is what is summed, before it is scaled.
                product < f32::MAX
                    && 2.0 * score + VANISHES <= -masked - spread
                    && largest(v, real) < f32::INFINITY
            })
    })
}

/// By how much a bias may set a key that is hidden above one that is seen: 0 without one. `None` if
/// a window might hide every key that a query sees.
fn spread(attention: &Attention<'_>, longest: usize, left_out: bool) -> Option<f32> {
    let Some(bias) = attention.bias else { return Some(0.0) };
    let heads = if bias.head_stride == 0 { 1 } else { attention.heads };
    let row =
        |head: usize, place: usize| &bias.values[head * bias.head_stride + place * bias.stride..][..longest];
    let rows = || (0..heads).flat_map(|head| (0..longest).map(move |place| (head, place)));
    let mut most = 0f32;
    let mut least = 0f32;
    for (head, place) in rows() {
        let row = row(head, place);
        // A NaN shows in the sum.
        let sum = row.iter().sum::<f32>();
        if sum.is_nan() {
            return None;
        }
        most = row.iter().copied().fold(most, f32::max);
        least = match bias.meets {
            Meets::Sum => row.iter().copied().fold(least, f32::min),
            // A query sees itself at least, which is there if nothing but real tokens is.
            Meets::Least if left_out => least.min(row[place]),
            Meets::Least => return None,
        };
    }
    Some(most - least)
}

/// How much longer a rotation can make the product of a query and a key.
fn turned(attention: &Attention<'_>, longest: usize) -> f32 {
    let Some(rotary) = attention.rotary else { return 1.0 };
    let largest = |angles: Rows<'_>| {
        let all = (0..longest).flat_map(|row| angles.row(row));
        all.fold(0f32, |most, x| if x.is_nan() { f32::INFINITY } else { most.max(x.abs()) })
    };
    (largest(rotary.cos) + largest(rotary.sin)).powi(2)
}

/// |x|², infinite also of a NaN.
fn square(x: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    let sum = sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
    if sum.is_nan() { f32::INFINITY } else { sum }
}

#[cfg(test)]
mod tests {
    use kernels::KeyMask;

    use super::*;

    /// One sequence of two rows, the second masked, one head of two columns.
    fn hidden(q: [f32; 4], k: [f32; 4], v: [f32; 4], masked: f32, left_out: bool) -> bool {
        let rows = |data| Rows::new(data, 2, 2).unwrap();
        let (q, k, v) = (rows(&q), rows(&k), rows(&v));
        let attention = Attention {
            q,
            k,
            v,
            heads: 1,
            scale: 0.5,
            offsets: &[0, 2],
            mask: KeyMask::None,
            bias: None,
            rotary: None,
        };
        hides(&attention, &[if left_out { 2 } else { 1 }], masked, left_out)
    }

    #[test]
    fn a_mask_hides_what_no_score_can_bring_back() {
        let ones = [1.0; 4];
        for left_out in [false, true] {
            assert!(hidden(ones, ones, ones, -10_000.0, left_out));
            // |q| · |k| / 2 = 4,900 and 5,000: 9,800 and 10,000 apart, at most.
            assert!(hidden([0.0, 70.0, 0.0, 70.0], [0.0, 0.0, 0.0, 140.0], ones, -10_000.0, left_out));
            assert!(!hidden([0.0, 70.0, 0.0, 70.0], [0.0, 0.0, 0.0, 143.0], ones, -10_000.0, left_out));
            assert!(hidden([1e6; 4], [1e6; 4], ones, f32::MIN, left_out));
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            for masked in [-10_000.0, f32::MIN, f32::NEG_INFINITY] {
                assert!(!hidden([odd, 1.0, 1.0, 1.0], ones, ones, masked, false), "{odd}");
                assert!(!hidden(ones, [1.0, 1.0, 1.0, odd], ones, masked, false), "{odd}");
                assert!(!hidden(ones, ones, [1.0, 1.0, odd, 1.0], masked, false), "{odd}");
            }
        }
    }

    /// As [`hidden`] of ones, with a bias of four numbers, and turned by these angles.
    fn hidden_by_places(bias: Option<([f32; 4], Meets)>, angles: [f32; 2], left_out: bool) -> bool {
        let ones = [1.0; 4];
        let [cos, sin] = angles.map(|angle| [angle; 4]);
        let rows = |data| Rows::new(data, 2, 2).unwrap();
        let attention = Attention {
            q: rows(&ones),
            k: rows(&ones),
            v: rows(&ones),
            heads: 1,
            scale: 0.5,
            offsets: &[0, 2],
            mask: KeyMask::None,
            bias: bias.as_ref().map(|(values, meets)| kernels::Bias {
                values,
                head_stride: 0,
                stride: 2,
                meets: *meets,
            }),
            rotary: Some(kernels::Rotary { cos: rows(&cos), sin: rows(&sin) }),
        };
        hides(&attention, &[if left_out { 2 } else { 1 }], -10_000.0, left_out)
    }

    #[test]
    fn a_bias_or_a_rotation_may_bring_it_back() {
        for left_out in [false, true] {
            let of = |angles| hidden_by_places(None, angles, left_out);
            assert!(of([1.0, 1.0]) && of([1.0, 48.0]));
            // The scores are 4,900 and 5,041 at most.
            assert!(of([1.0, 69.0 / 1.01]) && !of([1.0, 70.0]) && !of([f32::NAN, 1.0]));
            let of = |bias, meets| hidden_by_places(Some((bias, meets)), [1.0, 0.0], left_out);
            assert!(of([0.0, 4000.0, -4000.0, 0.0], Meets::Sum));
            assert!(!of([0.0, 5000.0, -5000.0, 0.0], Meets::Sum));
            assert!(!of([0.0, f32::NAN, 0.0, 0.0], Meets::Sum));
            // Padding may see nothing through a window; real tokens see themselves, or are asked.
            assert_eq!(of([0.0, f32::MIN, f32::MIN, 0.0], Meets::Least), left_out);
            assert!(!of([f32::MIN, 0.0, 0.0, 0.0], Meets::Least));
        }
    }
}
