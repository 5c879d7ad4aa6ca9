//! What of an attention depends on places: a bias for each query and key, and the rotation of
//! queries and keys.

use super::Attention;
use crate::{KernelError, Rows, error::same, simd::Simd};

/// A number for each pair of places of a query and of a key.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// The one of head h, for the query and the key at places i and j of a sequence, is
    /// `values[h · head_stride + i · stride + j]`.
    pub values: &'a [f32],
    /// 0 if it is the same for all heads.
    pub head_stride: usize,
    /// At least as many as the longest sequence has rows.
    pub stride: usize,
    /// How it meets the mask.
    pub meets: Meets,
}

/// How a bias and an additive mask meet at a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// Both are added: the bias, then the mask.
    Sum,
    /// The lesser of both is added: a key is hidden by either, and by both no more than by one.
    /// Without an additive mask it is the bias.
    Least,
}

/// A rotation of queries and keys by their places, as RoFormer has it: of a head's columns, x₁ of
/// the first half and x₂ of the second become `x₁ · cos − x₂ · sin` and `x₂ · cos + x₁ · sin`, each
/// by the cosine and the sine of its own column.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// A row for each place of a sequence, with as many columns as a head.
    pub cos: Rows<'a>,
    /// As `cos`.
    pub sin: Rows<'a>,
}

impl Bias<'_> {
    /// Whether there is a number for each head and each pair of `longest` places.
    pub(super) fn check(&self, heads: usize, longest: usize) -> Result<(), KernelError> {
        const WHAT: &str = "the numbers of a bias";
        let (Some(last), Some(head)) = (longest.checked_sub(1), heads.checked_sub(1)) else { return Ok(()) };
        if self.stride < longest {
            return Err(KernelError::RowsOverlap { columns: longest, stride: self.stride });
        }
        let before = head.checked_mul(self.head_stride);
        let needed = before
            .zip(last.checked_mul(self.stride))
            .and_then(|(heads, rows)| heads.checked_add(rows)?.checked_add(longest));
        let expected = needed.ok_or(KernelError::TooLarge { what: WHAT })?;
        if self.values.len() < expected {
            return Err(KernelError::Size { what: WHAT, found: self.values.len(), expected });
        }
        Ok(())
    }

    /// Replaces some scores of a head's query at a place, one for each key from the first on, by
    /// score · scale + bias; and the mask, if there is one and it is not added later.
    ///
    /// # Safety
    /// The CPU offers the instruction set; there are `keys` scores and numbers of the mask, and the
    /// bias has passed [`Bias::check`].
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(
        &self,
        (head, place): (usize, usize),
        scores: *mut f32,
        keys: usize,
        scale: f32,
        mask: Option<*const f32>,
    ) {
        // SAFETY: as above.
        unsafe {
            let row = self.values.as_ptr().add(head * self.head_stride + place * self.stride);
            let scale = S::splat(scale);
            let mut at = 0;
            while at < keys {
                let left = keys - at;
                let mut plus = S::load_first(row.add(at), left);
                if let Some(mask) = mask {
                    plus = S::min(plus, S::load_first(mask.add(at), left));
                }
                let score = S::mul(S::load_first(scores.add(at), left), scale);
                S::store_first(scores.add(at), S::add(score, plus), left);
                at += S::LANES;
            }
        }
    }
}

impl Rotary<'_> {
    /// Whether there are angles for `longest` places, and heads that have halves.
    pub(super) fn check(&self, head_size: usize, longest: usize) -> Result<(), KernelError> {
        for angles in [self.cos, self.sin] {
            same("the number of columns of the angles", angles.columns(), head_size)?;
            if angles.rows() < longest {
                let (found, expected) = (angles.rows(), longest);
                return Err(KernelError::Size { what: "the number of rows of the angles", found, expected });
            }
        }
        same("the columns of a head beyond two halves", head_size % 2, 0)
    }

    /// Writes some rows of a head, turned: `count` rows from place `first` on, `stride` numbers
    /// apart, to rows of `size` numbers.
    ///
    /// # Safety
    /// Both are good for these rows, and there are angles for their places.
    #[inline(always)]
    pub(super) unsafe fn turn(
        &self,
        from: *const f32,
        stride: usize,
        (first, count): (usize, usize),
        size: usize,
        to: *mut f32,
    ) {
        let half = size / 2;
        for row in 0..count {
            // SAFETY: as above.
            unsafe {
                let (x, to) = (from.add(row * stride), to.add(row * size));
                let cos = self.cos.as_ptr().add((first + row) * self.cos.stride());
                let sin = self.sin.as_ptr().add((first + row) * self.sin.stride());
                for i in 0..half {
                    let (a, b) = (*x.add(i), *x.add(i + half));
                    *to.add(i) = a * *cos.add(i) - b * *sin.add(i);
                    *to.add(i + half) = b * *cos.add(i + half) + a * *sin.add(i + half);
                }
            }
        }
    }
}

impl Attention<'_> {
    /// Whether what depends on places is there for sequences of up to so many rows.
    pub(super) fn check_places(&self, longest: usize) -> Result<(), KernelError> {
        self.bias.map_or(Ok(()), |bias| bias.check(self.heads, longest))?;
        self.rotary.map_or(Ok(()), |rotary| rotary.check(self.head_size(), longest))
    }
}
