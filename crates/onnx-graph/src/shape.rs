//! How ONNX's operators count axes and make shapes: each rule once, for all that run a graph.
//!
//! The rules hold for sizes of any kind ([`Size`]): for numbers, as they are in a run, and for what
//! is known before it. They return `None` for what an operator does not take, and for what cannot
//! be known yet. Here is nothing but the arithmetic of shapes: no element is read.
//!
//! ```
//! use onnx_graph::shape::{Int, axis, broadcast, reshape};
//!
//! assert_eq!(axis(-1, 3), Some(2));
//! assert_eq!(broadcast(&[8, 1, 4], &[5, 1]), Some(vec![8, 5, 4]));
//! assert_eq!(broadcast(&[None, Some(1)], &[Some(4)]), Some(vec![None, Some(4)]));
//! let target = [0, -1, 4].map(Int::Known);
//! assert_eq!(reshape(&[2, 12], &target, false), Some(vec![2, 3, 4]));
//! ```

use std::ops::Range;

/// What is known of the size of a dimension.
pub trait Size: Clone + PartialEq {
    /// A size that is always this number.
    fn fixed(size: usize) -> Self;

    /// The number, if it is always the same.
    fn known(&self) -> Option<usize>;

    /// The product; `None` if it overflows.
    fn times(&self, other: &Self) -> Option<Self>;

    /// The sum; `None` if it overflows, or cannot be said.
    fn plus(&self, other: &Self) -> Option<Self>;

    /// The quotient; `None` if something is left over, or cannot be said.
    fn divided(&self, other: &Self) -> Option<Self>;

    /// The size of two that must be equal; `None` if they are not.
    fn agreed(&self, other: &Self) -> Option<Self> {
        (self == other).then(|| self.clone())
    }

    /// Whether it is always 1.
    fn is_one(&self) -> bool {
        self.known() == Some(1)
    }
}

impl Size for usize {
    fn fixed(size: usize) -> Self {
        size
    }

    fn known(&self) -> Option<usize> {
        Some(*self)
    }

    fn times(&self, other: &Self) -> Option<Self> {
        self.checked_mul(*other)
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        self.checked_add(*other)
    }

    fn divided(&self, other: &Self) -> Option<Self> {
        (*other != 0 && self.is_multiple_of(*other)).then(|| self / other)
    }
}

/// A number, where it is known. What does not fit is not known either: it is left to fail in a run.
impl Size for Option<usize> {
    fn fixed(size: usize) -> Self {
        Some(size)
    }

    fn known(&self) -> Option<usize> {
        *self
    }

    fn times(&self, other: &Self) -> Option<Self> {
        Some(self.zip(*other).and_then(|(a, b)| a.times(&b)))
    }

    fn plus(&self, other: &Self) -> Option<Self> {
        Some(self.zip(*other).and_then(|(a, b)| a.plus(&b)))
    }

    fn divided(&self, other: &Self) -> Option<Self> {
        Some(self.zip(*other).and_then(|(a, b)| a.divided(&b)))
    }

    fn agreed(&self, other: &Self) -> Option<Self> {
        Some(self.or(*other))
    }
}

/// An element of a list of sizes, such as the target of a `Reshape`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Int<S> {
    /// A number.
    Known(i64),
    /// A size that is no number yet.
    Size(S),
}

impl<S: Size> Int<S> {
    /// A size, as the number that it may be.
    pub fn from_size(size: &S) -> Self {
        match size.known().map(i64::try_from) {
            Some(Ok(number)) => Self::Known(number),
            _ => Self::Size(size.clone()),
        }
    }

    /// As a size; `None` if it is negative.
    pub fn to_size(&self) -> Option<S> {
        match self {
            Self::Known(number) => usize::try_from(*number).ok().map(S::fixed),
            Self::Size(size) => Some(size.clone()),
        }
    }

    /// The number, if it is one.
    pub fn known(&self) -> Option<i64> {
        match self {
            Self::Known(number) => Some(*number),
            Self::Size(_) => None,
        }
    }
}

/// An index counted from the front; a negative one counts from the end.
pub fn index(index: i128, size: usize) -> Option<usize> {
    let index = if index < 0 { index + size as i128 } else { index };
    usize::try_from(index).ok().filter(|&index| index < size)
}

/// An axis counted from the front; a negative one counts from the end.
pub fn axis(axis: i64, rank: usize) -> Option<usize> {
    index(axis.into(), rank)
}

/// An axis as a place between dimensions, as `Flatten` has it: the rank itself is one, too.
pub fn boundary(at: i64, rank: usize) -> Option<usize> {
    if at == rank as i64 { Some(rank) } else { axis(at, rank) }
}

/// Axes counted from the front, in the order given.
///
/// # Errors
/// The first axis that is not there, or is there a second time.
pub fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>, i64> {
    let mut axes = Vec::with_capacity(given.len());
    for &at in given {
        match axis(at, rank) {
            Some(found) if !axes.contains(&found) => axes.push(found),
            _ => return Err(at),
        }
    }
    Ok(axes)
}

/// The axes of a reduction, in ascending order: where none are given all, or none if `noop`.
///
/// # Errors
/// As [`axes`].
pub fn reduced_axes(given: &[i64], noop: bool, rank: usize) -> Result<Vec<usize>, i64> {
    let mut axes = axes(given, rank)?;
    axes.sort_unstable();
    Ok(if axes.is_empty() && !noop { (0..rank).collect() } else { axes })
}

/// Where each axis of a `Transpose` comes from: all are reversed, unless `perm` says how.
pub fn permutation(perm: Option<&[i64]>, rank: usize) -> Option<Vec<usize>> {
    match perm {
        Some(perm) => axes(perm, rank).ok().filter(|axes| axes.len() == rank),
        None => Some((0..rank).rev().collect()),
    }
}

/// The axes that a `Shape` gives. Both ends may be negative, and are cut to the rank.
pub fn part(start: Option<i64>, end: Option<i64>, rank: usize) -> Range<usize> {
    let [start, end] = [start.unwrap_or(0), end.unwrap_or(i64::MAX)].map(|at| cut(at, 0, rank) as usize);
    start..end.max(start)
}

/// A place counted from the front, cut to what lies from `least` to so many places further.
fn cut(at: i64, least: i64, size: usize) -> i64 {
    let size = size as i64;
    (if at < 0 { at.saturating_add(size) } else { at }).clamp(least, least + size)
}

/// What a `Slice` takes of an axis: `first`, `first + step`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut<S = usize> {
    /// The first place; 0 if nothing is taken.
    pub first: usize,
    /// How many places.
    pub count: S,
}

/// What a `Slice` takes of an axis of that size: its ends are cut to the axis. `None` if the step
/// is 0.
pub fn slice(start: i64, end: i64, step: i64, size: usize) -> Option<Cut> {
    // Backwards, −1 is the place before the first one.
    let least = if step < 0 { -1 } else { 0 };
    let (first, end) = (cut(start, least, size), cut(end, least, size));
    let count = steps(first.into(), end.into(), step.into())?;
    Some(Cut { first: if count == 0 { 0 } else { first as usize }, count })
}

/// How many numbers a `Range` has: from `start` up or down to `limit`, which is left out. `None` if
/// the step is 0; the largest `usize` if there are more.
pub fn steps(start: i128, limit: i128, step: i128) -> Option<usize> {
    let span = ((limit - start) * step.signum()).max(0).unsigned_abs();
    (step != 0).then(|| usize::try_from(span.div_ceil(step.unsigned_abs())).unwrap_or(usize::MAX))
}

/// The sizes that a `Split` makes where none are given: equal, but that the last may be smaller.
pub fn split(size: usize, parts: usize) -> Vec<usize> {
    let each = size.div_ceil(parts.max(1));
    (0..parts).map(|part| each.min(size.saturating_sub(part * each))).collect()
}

/// The number of elements; `None` if it overflows.
pub fn volume<S: Size>(dims: &[S]) -> Option<S> {
    dims.iter().try_fold(S::fixed(1), |volume, size| volume.times(size))
}

/// The shape that both can be broadcast to, as numpy does: aligned at the end, sizes are equal or
/// one of them is 1.
pub fn broadcast<S: Size>(left: &[S], right: &[S]) -> Option<Vec<S>> {
    let (long, short) = if left.len() < right.len() { (right, left) } else { (left, right) };
    let (front, back) = long.split_at(long.len() - short.len());
    let joined = back.iter().zip(short).map(|(a, b)| match (a.is_one(), b.is_one()) {
        (true, _) => Some(b.clone()),
        (_, true) => Some(a.clone()),
        _ => a.agreed(b),
    });
    front.iter().cloned().map(Some).chain(joined).collect()
}

/// The shape of a product of matrices: the last two axes are theirs, the others are broadcast. That
/// rows are as long as columns is not looked at.
pub fn matmul<S: Size>(left: &[S], right: &[S]) -> Option<Vec<S>> {
    let ([left @ .., rows, _], [right @ .., _, columns]) = (left, right) else { return None };
    Some([&broadcast(left, right)?[..], &[rows.clone(), columns.clone()]].concat())
}

/// The shape without some axes, or with 1 in their place if they are kept.
pub fn reduced<S: Size>(dims: &[S], axes: &[usize], keep: bool) -> Vec<S> {
    let left = |(axis, size): (usize, &S)| match axes.contains(&axis) {
        true => keep.then(|| S::fixed(1)),
        false => Some(size.clone()),
    };
    dims.iter().enumerate().filter_map(left).collect()
}

/// The shape with axes of 1 put in; they count in the result.
///
/// # Errors
/// As [`axes`].
pub fn unsqueeze<S: Size>(dims: &[S], given: &[i64]) -> Result<Vec<S>, i64> {
    let rank = dims.len() + given.len();
    let new = axes(given, rank)?;
    let mut old = dims.iter().cloned();
    let one = || S::fixed(1);
    Ok((0..rank)
        .map(|axis| if new.contains(&axis) { one() } else { old.next().unwrap_or_else(one) })
        .collect())
}

/// The shape with that of the indices in the place of an axis.
pub fn gather<S: Size>(dims: &[S], axis: usize, indices: &[S]) -> Vec<S> {
    [&dims[..axis], indices, &dims[axis + 1..]].concat()
}

/// The shape of parts that are joined along an axis; the other sizes must be equal.
pub fn concat<S: Size>(parts: &[&[S]], axis: usize) -> Option<Vec<S>> {
    let (first, others) = parts.split_first()?;
    let mut shape = first.to_vec();
    for part in others {
        if part.len() != shape.len() {
            return None;
        }
        for (at, (size, other)) in shape.iter_mut().zip(*part).enumerate() {
            *size = if at == axis { size.plus(other)? } else { size.agreed(other)? };
        }
    }
    Some(shape)
}

/// The shape that a `Reshape` asks for: one size may be −1 and is found from the others; 0 stands
/// for the size that is there, unless `allow_zero`.
pub fn reshape<S: Size>(dims: &[S], target: &[Int<S>], allow_zero: bool) -> Option<Vec<S>> {
    let mut open = None;
    let mut shape = Vec::with_capacity(target.len());
    for (at, size) in target.iter().enumerate() {
        shape.push(match size {
            Int::Known(-1) if open.is_none() => {
                open = Some(at);
                S::fixed(1)
            }
            Int::Known(0) if !allow_zero => dims.get(at)?.clone(),
            size => size.to_size()?,
        });
    }
    let (all, named) = (volume(dims)?, volume(&shape)?);
    match open {
        Some(open) => shape[open] = all.divided(&named)?,
        None => drop(all.agreed(&named)?),
    }
    Some(shape)
}

/// The shape in which channels have become blocks of so many by so many pixels, as `DepthToSpace`
/// has it.
pub fn depth_to_space<S: Size>(dims: &[S], block: usize) -> Option<Vec<S>> {
    let [images, channels, height, width] = dims else { return None };
    let block = S::fixed(block);
    let channels = channels.divided(&block.times(&block)?)?;
    Some(vec![images.clone(), channels, height.times(&block)?, width.times(&block)?])
}

/// What is looked at along an axis for one result, and how that moves from one to the next: the
/// axis of a `Conv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many places it looks at.
    pub kernel: usize,
    /// How far each of these is from the one before.
    pub dilation: usize,
    /// How far the window moves.
    pub stride: usize,
    /// How far it goes beyond the ends of the axis.
    pub padding: Padding,
}

/// How many places that are not there are put before and after an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// So many.
    Given {
        /// Before the first place.
        before: usize,
        /// After the last one.
        after: usize,
    },
    /// As many as it takes for a result at each stride; of an odd number one more after the last.
    SameUpper,
    /// As many as it takes for a result at each stride; of an odd number one more before the first.
    SameLower,
}

/// Where a [`Window`] stands along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// How far before the first place of the axis the first window begins.
    pub before: usize,
    /// How many windows there are.
    pub count: usize,
}

impl Window {
    /// Where it stands along an axis of that size. `None` if it looks at nothing or does not move,
    /// does not fit in, or if a number overflows.
    pub fn places(&self, size: usize) -> Option<Places> {
        if self.dilation == 0 || self.stride == 0 {
            return None;
        }
        let span = self.kernel.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)?;
        let same = || {
            let count = size.div_ceil(self.stride);
            let end = count.saturating_sub(1).checked_mul(self.stride)?.checked_add(span)?;
            Some((end.saturating_sub(size), count))
        };
        match self.padding {
            Padding::Given { before, after } => {
                let room = size.checked_add(before)?.checked_add(after)?.checked_sub(span)?;
                Some(Places { before, count: room / self.stride + 1 })
            }
            Padding::SameUpper => same().map(|(padded, count)| Places { before: padded / 2, count }),
            Padding::SameLower => same().map(|(padded, count)| Places { before: padded.div_ceil(2), count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_count_from_either_end() {
        assert_eq!(
            [-1, 2, 3, -4, i64::MIN, i64::MAX].map(|at| axis(at, 3)),
            [Some(2), Some(2), None, None, None, None]
        );
        assert_eq!([-3, 3, 4].map(|at| boundary(at, 3)), [Some(0), Some(3), None]);
        assert_eq!(boundary(0, 0), Some(0));
        assert_eq!(axes(&[2, -3], 3), Ok(vec![2, 0]));
        assert_eq!(axes(&[0, 3, 5], 3), Err(3));
        assert_eq!(axes(&[0, -3], 3), Err(-3));
        assert_eq!(reduced_axes(&[-1, 0], false, 3), Ok(vec![0, 2]));
        assert_eq!([true, false].map(|noop| reduced_axes(&[], noop, 2)), [Ok(vec![]), Ok(vec![0, 1])]);
        assert_eq!(permutation(None, 3), Some(vec![2, 1, 0]));
        assert_eq!(permutation(Some(&[1, 0]), 2), Some(vec![1, 0]));
        assert_eq!(permutation(Some(&[1, 1]), 2), None);
        assert_eq!(permutation(Some(&[1, 0]), 3), None);
    }

    #[test]
    fn parts_are_cut_to_what_there_is() {
        assert_eq!(part(None, None, 3), 0..3);
        assert_eq!(part(Some(-2), Some(9), 3), 1..3);
        assert_eq!(part(Some(2), Some(1), 3), 2..2);
        assert_eq!(part(Some(i64::MIN), Some(i64::MIN), 3), 0..0);
    }

    /// Against the definition: the places from `start` on, step by step, until `end` is met or
    /// passed; both taken from the end where negative, and cut to the axis.
    #[test]
    fn a_slice_takes_what_a_walk_takes() {
        for (size, step) in (0..5).flat_map(|size| [-9, -2, -1, 1, 2, 9].map(|step| (size, step))) {
            let length = size as i64;
            for (start, end) in (-7..7).flat_map(|start| (-7..7).map(move |end| (start, end))) {
                let front = |at: i64| if at < 0 { at + length } else { at };
                let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
                let mut at = front(start).clamp(least, most);
                let mut walked = Vec::new();
                while if step > 0 { at < front(end).min(most) } else { at > front(end).max(least) } {
                    walked.push(at);
                    at += step;
                }
                let Cut { first, count } = slice(start, end, step, size).unwrap();
                let taken: Vec<i64> = (0..count as i64).map(|place| first as i64 + place * step).collect();
                assert_eq!(taken, walked, "{start}..{end} by {step} of {size}");
            }
        }
        assert_eq!(slice(0, 1, 0, 3), None);
        assert_eq!(slice(i64::MAX, i64::MIN, i64::MIN, 3), Some(Cut { first: 2, count: 1 }));
        assert_eq!(slice(i64::MIN, i64::MAX, i64::MAX, 3), Some(Cut { first: 0, count: 1 }));
    }

    #[test]
    fn steps_and_splits_are_counted() {
        assert_eq!(
            [(0, 7, 2), (7, 0, -7), (7, 0, 1)].map(|(a, b, c)| steps(a, b, c)),
            [Some(4), Some(1), Some(0)]
        );
        assert_eq!(steps(0, 7, 0), None);
        assert_eq!(steps(0, i128::from(u64::MAX) + 1, 1), Some(usize::MAX));
        assert_eq!(split(7, 3), [3, 3, 1]);
        assert_eq!(split(1, 3), [1, 0, 0]);
    }

    #[test]
    fn shapes_are_broadcast() {
        assert_eq!(broadcast(&[2, 3], &[4, 1, 3]), Some(vec![4, 2, 3]));
        assert_eq!(broadcast(&[2], &[0]), None);
        assert_eq!(broadcast(&[1], &[0]), Some(vec![0]));
        assert_eq!(broadcast(&[], &[None]), Some(vec![None]));
        assert_eq!(broadcast(&[Some(1), None], &[None, Some(4)]), Some(vec![None, Some(4)]));
        assert_eq!(matmul(&[5, 1, 2, 3], &[4, 3, 7]), Some(vec![5, 4, 2, 7]));
        assert_eq!(matmul(&[3], &[3, 7]), None);
    }

    #[test]
    fn axes_come_and_go() {
        assert_eq!(reduced(&[2, 3, 4], &[0, 2], true), [1, 3, 1]);
        assert_eq!(reduced(&[2, 3, 4], &[0, 2], false), [3]);
        assert_eq!(unsqueeze(&[2, 3], &[-1, 0]), Ok(vec![1, 2, 3, 1]));
        assert_eq!(unsqueeze(&[2, 3], &[1, -3]), Err(-3));
        assert_eq!(gather(&[2, 3, 4], 1, &[5, 6]), [2, 5, 6, 4]);
        assert_eq!(concat(&[&[2, 3], &[2, 4]], 1), Some(vec![2, 7]));
        assert_eq!(concat(&[&[2, 3], &[3, 4]], 1), None);
        assert_eq!(concat(&[&[2], &[2, 1]], 0), None);
        assert_eq!(concat(&[&[None, Some(3)], &[Some(2), None]], 1), Some(vec![Some(2), None]));
    }

    #[test]
    fn a_reshape_keeps_the_number_of_elements() {
        let known = |dims: &[usize], target: &[i64], allow_zero| {
            reshape(dims, &target.iter().map(|&size| Int::Known(size)).collect::<Vec<_>>(), allow_zero)
        };
        assert_eq!(known(&[2, 3], &[0, -1], false), Some(vec![2, 3]));
        assert_eq!(known(&[2, 3], &[3, 2], false), Some(vec![3, 2]));
        assert_eq!(known(&[], &[], false), Some(vec![]));
        assert_eq!(known(&[0, 3], &[3, 0], true), Some(vec![3, 0]));
        for (dims, target) in [
            (&[2, 3][..], &[4, -1][..]),
            (&[2, 3], &[5]),
            (&[2, 3], &[-1, -1]),
            (&[2, 3], &[-2, 3]),
            (&[2], &[1, 0]),
        ] {
            assert_eq!(known(dims, target, false), None, "{dims:?} {target:?}");
        }
        assert_eq!(known(&[0], &[0, -1], false), None);
        assert_eq!(known(&[2], &[i64::MAX, i64::MAX, -1], false), None);
        let open = reshape(&[None, Some(6)], &[Int::Known(0), Int::Known(-1), Int::Known(3)], false);
        assert_eq!(open, Some(vec![None, None, Some(3)]));
        let unknown = reshape(&[Some(4), Some(6)], &[Int::Size(None), Int::Known(-1)], false);
        assert_eq!(unknown, Some(vec![None, None]));
    }

    #[test]
    fn channels_become_pixels() {
        assert_eq!(depth_to_space(&[2, 12, 3, 5], 2), Some(vec![2, 3, 6, 10]));
        assert_eq!(depth_to_space(&[2, 12, 3, 5], 3), None);
        assert_eq!(depth_to_space(&[2, 12, 3, 5], 0), None);
        assert_eq!(depth_to_space(&[2, 12, 3], 2), None);
        assert_eq!(depth_to_space(&[0, 0, usize::MAX, 1], 2), None);
        let open = depth_to_space(&[None, Some(12), Some(3), None], 2);
        assert_eq!(open, Some(vec![None, Some(3), Some(6), None]));
    }

    #[test]
    fn windows_are_counted() {
        let given = |before, after| Padding::Given { before, after };
        let places = |size, kernel, dilation, stride, padding| {
            let window = Window { kernel, dilation, stride, padding };
            window.places(size).map(|places| (places.before, places.count))
        };
        assert_eq!(places(224, 16, 1, 16, given(0, 0)), Some((0, 14)));
        assert_eq!(places(7, 3, 1, 2, given(1, 0)), Some((1, 3)));
        assert_eq!(places(7, 3, 3, 1, given(0, 0)), Some((0, 1)));
        assert_eq!(places(6, 3, 3, 1, given(0, 0)), None);
        assert_eq!(places(0, 3, 1, 1, given(2, 2)), Some((2, 2)));
        // Two places are put at an even size, three at an odd one.
        assert_eq!(places(6, 4, 1, 2, Padding::SameUpper), Some((1, 3)));
        assert_eq!(places(5, 4, 1, 2, Padding::SameUpper), Some((1, 3)));
        assert_eq!(places(5, 4, 1, 2, Padding::SameLower), Some((2, 3)));
        assert_eq!(places(9, 1, 1, 4, Padding::SameLower), Some((0, 3)));
        assert_eq!(places(0, 3, 1, 1, Padding::SameUpper), Some((1, 0)));
        for (kernel, dilation, stride) in [(0, 1, 1), (3, 0, 1), (3, 1, 0), (3, usize::MAX, 1)] {
            for padding in [given(0, 0), Padding::SameUpper, Padding::SameLower] {
                assert_eq!(places(9, kernel, dilation, stride, padding), None);
            }
        }
        assert_eq!(places(9, 3, 1, 1, given(usize::MAX, 1)), None);
        assert_eq!(places(usize::MAX, 3, 1, 2, Padding::SameUpper), None);
    }
}
