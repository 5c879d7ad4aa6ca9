//! Functions of one number, and softmax over rows.

use crate::{
    Kernels, RowsMut,
    math::{self, Function, With},
    share::{Shared, blocks},
    simd::{Kernel, Pair, SUMS, Simd, dispatch, total},
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

    /// Replaces every row x by exp(x − max x) / Σ exp(x − max x). A row with nothing but −∞ becomes NaN, as by the formula.
    pub fn softmax(&self, x: &mut RowsMut<'_>) {
        let (rows, columns, stride) = (x.rows(), x.columns(), x.stride());
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
            let max = max::<S>(x, len);
            let sum = exponentials::<S>(x, len, max);
            let mut at = 0;
            while at < len {
                let part = S::load_first(x.add(at), len - at);
                S::store_first(x.add(at), S::div(part, S::splat(sum)), len - at);
                at += S::LANES;
            }
        }
    }
}

/// The largest of `len` numbers; −∞ of none. A NaN among them is either the result, or lost here and found by `exponentials`.
///
/// # Safety
/// The CPU offers the instruction set; `len` numbers are at `x`.
#[inline(always)]
pub(crate) unsafe fn max<S: Simd>(x: *const f32, len: usize) -> f32 {
    // SAFETY: as above; `at` and the counts stay below `len`.
    unsafe {
        let mut most = S::splat(f32::NEG_INFINITY);
        let mut at = 0;
        while at + S::LANES <= len {
            most = S::max(S::load(x.add(at)), most);
            at += S::LANES;
        }
        let mut lanes = [f32::NEG_INFINITY; SUMS];
        S::store(lanes.as_mut_ptr(), most);
        let mut most = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
        while at < len {
            most = most.max(*x.add(at));
            at += 1;
        }
        most
    }
}

/// Replaces each of `len` numbers by exp(x − max) and gives their sum: the i-th goes to sum i mod [`SUMS`], in order, so that numbers
/// whose exponential is 0 change nothing, and may as well not be there.
///
/// # Safety
/// The CPU offers the instruction set; `len` numbers are at `x`.
#[inline(always)]
pub(crate) unsafe fn exponentials<S: Simd>(x: *mut f32, len: usize, max: f32) -> f32 {
    // SAFETY: as above.
    unsafe {
        if 2 * S::LANES <= SUMS {
            sum_of_exponentials::<Pair<S>>(x, len, max)
        } else {
            sum_of_exponentials::<S>(x, len, max)
        }
    }
}

#[inline(always)]
unsafe fn sum_of_exponentials<S: Simd>(x: *mut f32, len: usize, max: f32) -> f32 {
    let vectors = SUMS / S::LANES;
    // SAFETY: the caller vouches for the instruction set and `len` numbers; `at`, `lane` and the counts stay below `len`.
    unsafe {
        let max = S::splat(max);
        let mut sums = [S::splat(0.0); 4];
        let mut at = 0;
        while at + SUMS <= len {
            for (lane, sum) in sums.iter_mut().enumerate().take(vectors) {
                let x = x.add(at + lane * S::LANES);
                let power = math::exp_negative::<S>(S::sub(S::load(x), max));
                S::store(x, power);
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
            let x = x.add(at);
            let power = math::exp_negative::<S>(S::sub(S::load_first(x, len - at), max));
            S::store_first(x, power, len - at);
            at += S::LANES;
        }
        for (sum, at) in all.iter_mut().zip(begin..len) {
            *sum += *x.add(at);
        }
        total(all)
    }
}

#[cfg(test)]
mod tests;
