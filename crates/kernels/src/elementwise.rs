//! Functions of one number, and softmax over rows.

use crate::{
    KernelError, Kernels, Rows, RowsMut,
    error::same,
    math::{self, Function, With},
    share::{Shared, blocks},
    simd::{Kernel, Pair, SUMS, Simd, dispatch, largest, total},
};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unary {
    /// eˣ, within 1 ULP.
    Exp,
    /// The error function, within 1e-7.
    Erf,
    /// tanh x, within 1e-7.
    Tanh,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// max(x, 0).
    Relu,
    /// x · sigmoid(x).
    Silu,
    /// x · Φ(x) = x/2 · (1 + erf(x/√2)): BERT's own.
    GeluErf,
    /// x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).
    GeluTanh,
    /// x · sigmoid(1.702 x).
    GeluQuick,
}

/// Numbers that are worth a task of their own: some 10 µs of a function's work.
const NUMBERS: usize = 8192;

impl Kernels {
    /// Replaces every x by f(x).
    pub fn unary(&self, function: Unary, x: &mut [f32]) {
        let len = x.len();
        let x = Shared::new(x);
        blocks(self.pool(), len, NUMBERS, &|begin, end| {
            // SAFETY: blocks do not overlap, and the CPU offers `isa`.
            unsafe {
                let x = x.slice(begin, end - begin);
                dispatch(self.isa(), Map { function, x });
            }
        });
    }

    /// `out` = f(gate) · x, element by element.
    ///
    /// # Errors
    /// If sizes differ.
    pub fn gate(
        &self,
        function: Unary,
        gate: Rows<'_>,
        x: Rows<'_>,
        out: &mut RowsMut<'_>,
    ) -> Result<(), KernelError> {
        for part in [gate, x] {
            same("the number of rows of a gate", part.rows(), out.rows())?;
            same("the number of columns of a gate", part.columns(), out.columns())?;
        }
        let (rows, columns, stride) = (out.written_rows(), out.columns(), out.stride());
        let out = Shared::of(out);
        blocks(self.pool(), rows, NUMBERS.div_ceil(columns.max(1)), &|begin, end| {
            for row in begin..end {
                // SAFETY: rows do not overlap, and the CPU offers `isa`.
                unsafe {
                    let to = out.slice(row * stride, columns);
                    to.copy_from_slice(gate.row(row));
                    dispatch(self.isa(), Map { function, x: to });
                    let to = out.slice(row * stride, columns);
                    to.iter_mut().zip(x.row(row)).for_each(|(to, x)| *to *= x);
                }
            }
        });
        Ok(())
    }

    /// Replaces every row x by exp(x − max x) / Σ exp(x − max x). A row with nothing but −∞ becomes NaN, as by the formula.
    pub fn softmax(&self, x: &mut RowsMut<'_>) {
        let (rows, columns, stride) = (x.written_rows(), x.columns(), x.stride());
        let x = Shared::of(x);
        blocks(self.pool(), rows, NUMBERS.div_ceil(columns.max(1)), &|begin, end| {
            for row in begin..end {
                // SAFETY: rows do not overlap, and the CPU offers `isa`.
                unsafe {
                    let x = x.slice(row * stride, columns);
                    dispatch(self.isa(), Softmax { x });
                }
            }
        });
    }
}

struct Map<'a> {
    function: Unary,
    x: &'a mut [f32],
}

impl Kernel for Map<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        struct Loop<'a, S>(&'a mut [f32], std::marker::PhantomData<S>);
        impl<S: Simd> With for Loop<'_, S> {
            type Output = ();

            #[inline(always)]
            unsafe fn call<F: Function>(self) {
                let (x, len) = (self.0.as_mut_ptr(), self.0.len());
                let mut at = 0;
                // SAFETY: the caller vouches for the instruction set; `at` and the count stay within the slice.
                unsafe {
                    while at + 2 * S::LANES <= len {
                        let both = Pair::<S>::load(x.add(at));
                        Pair::<S>::store(x.add(at), F::apply::<Pair<S>>(both));
                        at += 2 * S::LANES;
                    }
                    while at < len {
                        let part = S::load_first(x.add(at), len - at);
                        S::store_first(x.add(at), F::apply::<S>(part), len - at);
                        at += S::LANES;
                    }
                }
            }
        }
        // SAFETY: the caller vouches for the instruction set.
        unsafe { math::with(Some(self.function), Loop::<S>(self.x, std::marker::PhantomData)) }
    }
}

struct Softmax<'a> {
    x: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (x, len) = (self.x.as_mut_ptr(), self.x.len());
        // SAFETY: the caller vouches for the instruction set, and the slice for the pointer.
        unsafe {
            let scores = Scores { x, len, scale: 1.0, mask: None };
            let sum = scores.exponentials::<S>(scores.largest::<S>());
            let mut at = 0;
            while at < len {
                let part = S::load_first(x.add(at), len - at);
                S::store_first(x.add(at), S::div(part, S::splat(sum)), len - at);
                at += S::LANES;
            }
        }
    }
}

/// Up to this size of the largest score x · scale + mask − largest is rounded once, which is more
/// exact than what ONNX asks for: its nodes round the product, the sum and the difference.
///
/// Above it the roundings count, and each is made. The exponent of the largest score would else be
/// that score's rounding error: 32,768 for scores of 10¹², and so NaN; and where all keys are
/// masked by −3.4·10³⁸ it would be the score, which that number has swallowed. Here the error is at
/// most 2⁻¹².
const FUSED: f32 = 4096.0;

/// Scores before the softmax: numbers, what they are multiplied by, and what is added to them then, if anything.
#[derive(Clone, Copy)]
pub(crate) struct Scores {
    pub x: *mut f32,
    pub len: usize,
    pub scale: f32,
    pub mask: Option<*const f32>,
}

impl Scores {
    /// The largest of x · scale + mask, each operation rounded; −∞ of none. A NaN among them is
    /// either the result, or lost here and found by [`Scores::exponentials`].
    ///
    /// # Safety
    /// The CPU offers the instruction set; `len` numbers are at `x`, and at `mask`.
    #[inline(always)]
    pub unsafe fn largest<S: Simd>(self) -> f32 {
        /// Added to a tail that is filled up with zeros.
        static NOTHING: [f32; 2 * SUMS] = {
            let mut nothing = [f32::NEG_INFINITY; 2 * SUMS];
            let mut i = 0;
            while i < SUMS {
                nothing[i] = 0.0;
                i += 1;
            }
            nothing
        };
        let Self { x, len, scale, mask } = self;
        // SAFETY: as above; `at` and the counts stay below `len`, and `nothing` has a vector from each of the first `SUMS` on.
        unsafe {
            let scale = S::splat(scale);
            let mut most = S::splat(f32::NEG_INFINITY);
            let mut at = 0;
            while at < len {
                let left = len - at;
                let score = S::load_first(x.add(at), left);
                let mut score = S::mul(score, scale);
                if let Some(mask) = mask {
                    score = S::add(score, S::load_first(mask.add(at), left));
                }
                if left < S::LANES {
                    score = S::add(score, S::load(NOTHING.as_ptr().add(SUMS - left)));
                }
                most = S::max(score, most);
                at += S::LANES;
            }
            let mut lanes = [f32::NEG_INFINITY; SUMS];
            S::store(lanes.as_mut_ptr(), most);
            largest(lanes)
        }
    }

    /// Replaces each by exp(x · scale + mask − largest) and gives their sum: the i-th goes to sum i mod [`SUMS`], in order, so that numbers
    /// whose exponential is 0 change nothing, and may as well not be there.
    ///
    /// # Safety
    /// As [`Scores::largest`].
    #[inline(always)]
    pub unsafe fn exponentials<S: Simd>(self, largest: f32) -> f32 {
        // SAFETY: as above.
        unsafe {
            match (2 * S::LANES <= SUMS, largest.abs() <= FUSED) {
                (true, true) => self.sum_of_exponentials::<Pair<S>, true>(largest),
                (true, false) => self.sum_of_exponentials::<Pair<S>, false>(largest),
                (false, true) => self.sum_of_exponentials::<S, true>(largest),
                (false, false) => self.sum_of_exponentials::<S, false>(largest),
            }
        }
    }

    #[inline(always)]
    unsafe fn sum_of_exponentials<S: Simd, const FUSE: bool>(self, largest: f32) -> f32 {
        let Self { x, len, .. } = self;
        let vectors = SUMS / S::LANES;
        // SAFETY: the caller vouches for the instruction set and `len` numbers; `at`, `lane` and the counts stay below `len`.
        unsafe {
            let mut sums = [S::splat(0.0); 4];
            let mut at = 0;
            while at + SUMS <= len {
                for (lane, sum) in sums.iter_mut().enumerate().take(vectors) {
                    let at = at + lane * S::LANES;
                    let power = self.exponential::<S, FUSE>(at, largest);
                    S::store(x.add(at), power);
                    *sum = S::add(*sum, power);
                }
                at += SUMS;
            }
            let mut all = [0.0; SUMS];
            for (lane, &sum) in sums.iter().enumerate().take(vectors) {
                S::store(all.as_mut_ptr().add(lane * S::LANES), sum);
            }
            let begin = at;
            while at < len {
                let power = self.exponential::<S, FUSE>(at, largest);
                S::store_first(x.add(at), power, len - at);
                at += S::LANES;
            }
            for (sum, at) in all.iter_mut().zip(begin..len) {
                *sum += *x.add(at);
            }
            total(all) as f32
        }
    }

    /// exp(x · scale + mask − largest) of as many numbers from `at` on as a vector has and there
    /// are; see [`FUSED`]. Not a closure: that would be a function of its own, compiled without the
    /// instruction set.
    #[inline(always)]
    unsafe fn exponential<S: Simd, const FUSE: bool>(self, at: usize, largest: f32) -> S::V {
        let left = self.len - at;
        // SAFETY: the caller vouches for the instruction set and `len` numbers.
        unsafe {
            let (x, scale, largest) =
                (S::load_first(self.x.add(at), left), S::splat(self.scale), S::splat(largest));
            let mask = self.mask.map(|mask| S::load_first(mask.add(at), left));
            let below = match (FUSE, mask) {
                (true, Some(mask)) => S::fma(x, scale, S::sub(mask, largest)),
                (true, None) => S::fma(x, scale, S::sub(S::splat(0.0), largest)),
                (false, Some(mask)) => S::sub(S::add(S::mul(x, scale), mask), largest),
                (false, None) => S::sub(S::mul(x, scale), largest),
            };
            math::exp_negative::<S>(below)
        }
    }
}

#[cfg(test)]
mod tests;
