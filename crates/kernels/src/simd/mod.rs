//! Vectors of f32: one trait, one type for each instruction set, and the way from a chosen [`Isa`] to code compiled for it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pair;
mod portable;

pub(crate) use pair::Pair;

use crate::Isa;

/// The vectors of one instruction set.
///
/// Every method is `#[inline(always)]`, so that it is compiled with the features of the function around it, which [`dispatch`] sets.
///
/// # Safety
/// All methods: the CPU offers the instruction set. Those that take a pointer: it is good for the numbers they read or write; no alignment
/// is needed.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub(crate) trait Simd: Copy + 'static {
    /// A vector.
    type V: Copy;
    /// Numbers in a vector.
    const LANES: usize;
    /// Vectors across a panel of packed weights: with it and [`MR`](crate::gemm::MR) rows the sums fill the registers.
    const PANEL: usize;

    /// Asks for the line of cache at an address, which need not be valid.
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
    /// Writes `LANES` rows of `LANES` numbers, `from_stride` apart, as so many columns: rows `to_stride` apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the pointers are good for all rows.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
            }
        }
    }
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, x: Self::V);
    /// The first `count` numbers, zeros behind them; `count` may be 0 or above `LANES`.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V;
    /// Writes the first `count` numbers; `count` may be 0 or above `LANES`.
    unsafe fn store_first(to: *mut f32, x: Self::V, count: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once where the CPU can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a if it is the smaller one, else b: also where either is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// a if it is the larger one, else b: also where either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn abs(x: Self::V) -> Self::V;
    /// |x| with the sign of `sign`.
    unsafe fn copysign(x: Self::V, sign: Self::V) -> Self::V;
    /// `yes` where a < b, else `no`.
    unsafe fn select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// To the nearest integer, ties to even, for |x| < 2²².
    unsafe fn round(x: Self::V) -> Self::V;
    /// x · 2ⁿ, rounded once, for integers n from −150 to 128 and x in [½, 2). NaN if n is NaN.
    unsafe fn scale(x: Self::V, n: Self::V) -> Self::V;
    /// x · 2ⁿ for integers n from −127 to 127; 2⁻¹²⁷ counts as 0. NaN if x is NaN.
    unsafe fn scale_small(x: Self::V, n: Self::V) -> Self::V;
}

/// Methods of [`Simd`] that need no more than an expression.
macro_rules! methods {
    ($($name:ident($($argument:ident: $of:ty),*) -> $result:ty = $body:expr;)*) => { $(
        #[inline(always)]
        unsafe fn $name($($argument: $of),*) -> $result {
            // SAFETY: the trait's callers vouch for the instruction set, and for the pointers.
            #[allow(unused_unsafe, reason = "plain Rust needs none")]
            unsafe {
                $body
            }
        }
    )* };
}
use methods;

/// A piece of work that is compiled for every instruction set.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Does it; to be marked `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU offers the instruction set of `S`, and whatever the work asks for beside.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs a kernel on vectors of `isa`.
///
/// # Safety
/// The CPU offers `isa`, and whatever the kernel asks for beside.
pub(crate) unsafe fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller has seen that the CPU offers it.
            unsafe { kernel.run::<avx2::Avx2>() }
        }
        #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512dq")]
        unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller has seen that the CPU offers it.
            unsafe { kernel.run::<avx512::Avx512>() }
        }
        match isa {
            // SAFETY: the CPU offers `isa`.
            Isa::Avx512 => return unsafe { avx512(kernel) },
            // SAFETY: the CPU offers `isa`.
            Isa::Avx2 => return unsafe { avx2(kernel) },
            Isa::Portable => {}
        }
    }
    let _ = isa;
    // SAFETY: it needs nothing of the CPU.
    unsafe { kernel.run::<portable::Portable>() }
}

/// Numbers in a vector of `isa`, and vectors across a panel of packed weights.
fn shape(isa: Isa) -> (usize, usize) {
    fn shape<S: Simd>() -> (usize, usize) {
        (S::LANES, S::PANEL)
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => shape::<avx512::Avx512>(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => shape::<avx2::Avx2>(),
        _ => shape::<portable::Portable>(),
    }
}

/// Numbers in a vector of `isa`.
pub(crate) fn vector_width(isa: Isa) -> usize {
    shape(isa).0
}

/// Numbers across a panel of packed weights for `isa`.
pub(crate) fn panel_width(isa: Isa) -> usize {
    let (lanes, vectors) = shape(isa);
    lanes * vectors
}

/// How many sums a row's total is kept in on every instruction set: element i goes to sum i mod 16, so the order of adding is the same on all.
pub(crate) const SUMS: usize = 16;

/// The total of [`SUMS`] sums, pairwise, in f64: what is divided by it has its error in every number of a row.
pub(crate) fn total(sums: [f32; SUMS]) -> f64 {
    pairwise(sums.map(f64::from), |a, b| a + b)
}

/// The largest of [`SUMS`] numbers. A NaN among them may be passed over.
pub(crate) fn largest(numbers: [f32; SUMS]) -> f32 {
    pairwise(numbers, |a, b| if a > b { a } else { b })
}

/// Each of the first half with its counterpart in the second, until one is left.
#[inline(always)]
fn pairwise<T: Copy>(mut numbers: [T; SUMS], f: impl Fn(T, T) -> T) -> T {
    let mut half = SUMS / 2;
    while half > 0 {
        for i in 0..half {
            numbers[i] = f(numbers[i], numbers[i + half]);
        }
        half /= 2;
    }
    numbers[0]
}

#[cfg(test)]
mod tests;
