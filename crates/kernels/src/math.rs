//! eˣ, erf, tanh and what is made of them, on vectors.
//!
//! Polynomials are minimax fits (weighted least squares after Lawson, in 40 digits, then rounded to f32); the error of each fit is told
//! beside it and is small against f32's own rounding. NaN gives NaN, and ±∞ gives what the formula has there.

use crate::{Unary, simd::Simd};

/// c₀ + c₁ x + c₂ x² + … of four to twelve terms, by Estrin's scheme: Horner's rule would wait for each step.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::V, c: [f32; N]) -> S::V {
    const { assert!(N >= 4 && N <= 12) };
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let square = S::mul(x, x);
        let two = |i: usize| {
            let first = S::splat(c[i]);
            if i + 1 < N { S::fma(S::splat(c[i + 1]), x, first) } else { first }
        };
        let four = |i: usize| if i + 2 < N { S::fma(two(i + 2), square, two(i)) } else { two(i) };
        if N <= 4 {
            return four(0);
        }
        let fourth = S::mul(square, square);
        let low = S::fma(four(4), fourth, four(0));
        if N <= 8 { low } else { S::fma(four(8), S::mul(fourth, fourth), low) }
    }
}

/// eˣ within 1 ULP.
#[inline(always)]
unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    /// Beyond these eˣ is 0 and ∞ in f32; n stays within what `scale` takes.
    const RANGE: (f32, f32) = (-104.0, 89.0);
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // In this order NaN stays NaN.
        let x = S::max(S::splat(RANGE.0), S::min(S::splat(RANGE.1), x));
        let (power, n) = reduced_exp::<S>(x);
        S::scale(power, n)
    }
}

/// eˣ within 1 ULP for x ≤ 0, with 0 from where it is no more than 2⁻¹²⁶·⁵.
#[inline(always)]
pub(crate) unsafe fn exp_negative<S: Simd>(x: S::V) -> S::V {
    /// Here n is −127, and 2⁻¹²⁷ counts as 0.
    const LEAST: f32 = -88.0;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // In this order NaN stays NaN.
        let (power, n) = reduced_exp::<S>(S::max(S::splat(LEAST), x));
        S::scale_small(power, n)
    }
}

/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, and eˣ = 2ⁿ·eʳ: gives eʳ and n.
#[inline(always)]
unsafe fn reduced_exp<S: Simd>(x: S::V) -> (S::V, S::V) {
    /// (eʳ − 1 − r) / r² on |r| ≤ ln 2 / 2; 3.1e-9 of eʳ.
    const TAIL: [f32; 5] = [0.499_999_93, 0.166_665_2, 0.041_668_393, 0.008_368_781, 0.001_381_446_5];
    /// ln 2 in nine bits, so that n times it is exact, and the rest.
    const LN2: (f32, f32) = (355.0 / 512.0, -0.000_212_194_44);
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // r = r₀ + c, of which r₀ is exact: it is added last but for the 1, with what is small behind it, so that only these two additions
        // round by much.
        let r0 = S::fma(n, S::splat(-LN2.0), x);
        let c = S::mul(n, S::splat(-LN2.1));
        let r = S::add(r0, c);
        let small = S::fma(S::mul(r, r), polynomial::<S, 5>(r, TAIL), c);
        (S::add(S::splat(1.0), S::add(r0, small)), n)
    }
}

/// erf x within 1e-7.
#[inline(always)]
unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    /// Where one form takes over from the other.
    const MIDDLE: f32 = 0.93;
    /// erf(x)/x − 1 in x² below `MIDDLE`; 2.1e-10. Without the 1 its rounding counts for less.
    const INNER: [f32; 7] = [
        0.128_379_17,
        -0.376_126_23,
        0.112_836_06,
        -0.026_855_798,
        0.005_193_924,
        -0.000_807_523_5,
        0.000_081_235_32,
    ];
    /// −ln(1 − erf x) above; 3.7e-11 of 1 − erf x.
    const OUTER: [f32; 8] = [
        -0.000_178_452_32,
        1.129_533_2,
        0.633_309_9,
        0.108_321_07,
        -0.025_146_078,
        0.004_181_241,
        -0.000_436_574_98,
        0.000_021_278_76,
    ];
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let t = S::abs(x);
        let inner = S::fma(x, polynomial::<S, 7>(S::mul(x, x), INNER), x);
        let outer = S::sub(one, exp_negative::<S>(S::sub(zero, polynomial::<S, 8>(t, OUTER))));
        S::select_less(t, S::splat(MIDDLE), inner, S::copysign(outer, x))
    }
}

/// x · Φ(x) = max(x, 0) − |x| · Φ(−|x|): no rounding of x/√2, and no cancellation where Φ is near 0.
///
/// What stands behind a matrix product is waited for, so this is short: one range, and a power of two that need not be good to the last
/// bit, since where it is not all there is, it is at most half of what is left.
#[inline(always)]
unsafe fn gelu_erf<S: Simd>(x: S::V) -> S::V {
    /// Beyond it |x| · Φ(−|x|) is 4e-21 and stays so.
    const END: f32 = 9.6;
    /// log₂ Φ(−t) for t up to `END`; 8e-9 of max(t, 1) Φ(−t).
    const LOG: [f32; 11] = [
        -1.0,
        -1.151_105_7,
        -0.459_207_32,
        -0.052_488_01,
        0.007_026_896,
        -0.000_076_877_38,
        -0.000_235_699_03,
        0.000_061_305_514,
        -0.000_007_918_339,
        0.000_000_533_333_94,
        -0.000_000_014_742_733,
    ];
    /// −2ᶠ for |f| ≤ ½; 2e-9.
    const POWER: [f32; 7] = [
        -1.0,
        -std::f32::consts::LN_2,
        -0.240_226_48,
        -0.055_503_325,
        -0.009_618_437,
        -0.001_339_887_5,
        -0.000_153_533_6,
    ];
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let half = S::splat(0.5);
        let size = S::abs(x);
        // In this order NaN stays NaN.
        let t = S::min(S::splat(END), size);
        let log = polynomial::<S, 11>(t, LOG);
        let n = S::round(log);
        let power = polynomial::<S, 7>(S::sub(log, n), POWER);
        // max(x, 0), but NaN at −∞, where the formula has ∞ · 0.
        let above = S::fma(half, size, S::mul(half, x));
        S::fma(t, S::scale_small(power, n), above)
    }
}

/// tanh x within 1e-7.
#[inline(always)]
unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    /// Where one form takes over from the other.
    const MIDDLE: f32 = 0.6;
    /// (tanh(x)/x − 1)/x² in x² below `MIDDLE`; 9.1e-10.
    const INNER: [f32; 5] = [-0.333_332_75, 0.133_314_18, -0.053_746_145, 0.020_681_512, -0.005_772_687];
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let one = S::splat(1.0);
        let t = S::abs(x);
        let square = S::mul(x, x);
        let inner = S::fma(S::mul(x, square), polynomial::<S, 5>(square, INNER), x);
        let power = exp_negative::<S>(S::mul(t, S::splat(-2.0)));
        let outer = S::div(S::sub(one, power), S::add(one, power));
        S::select_less(t, S::splat(MIDDLE), inner, S::copysign(outer, x))
    }
}

/// x · sigmoid(y) = x / (1 + e⁻ʸ), or x · eʸ / (1 + eʸ) where y is negative.
#[inline(always)]
unsafe fn gate<S: Simd>(x: S::V, y: S::V) -> S::V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let power = exp_negative::<S>(S::sub(zero, S::abs(y)));
        let above = S::select_less(y, zero, S::mul(x, power), x);
        S::div(above, S::add(one, power))
    }
}

/// A function on vectors, chosen where the code is compiled: the loops around it are made once for each.
pub(crate) trait Function: Copy {
    /// f(x) in every lane; to be marked `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU offers the instruction set.
    unsafe fn apply<S: Simd>(x: S::V) -> S::V;
}

macro_rules! functions {
    ($($name:ident = |$x:ident, $s:ident| $body:expr;)*) => { $(
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Function for $name {
            #[inline(always)]
            unsafe fn apply<$s: Simd>($x: $s::V) -> $s::V {
                // SAFETY: the caller vouches for the instruction set.
                #[allow(unused_unsafe, reason = "Identity calls nothing")]
                unsafe {
                    $body
                }
            }
        }
    )* };
}

functions! {
    Identity = |x, S| x;
    Exp = |x, S| exp::<S>(x);
    Erf = |x, S| erf::<S>(x);
    Tanh = |x, S| tanh::<S>(x);
    Sigmoid = |x, S| gate::<S>(S::splat(1.0), x);
    // In this order NaN stays NaN.
    Relu = |x, S| S::max(S::splat(0.0), x);
    Silu = |x, S| gate::<S>(x, x);
    GeluErf = |x, S| gelu_erf::<S>(x);
    // x/2 · (1 + tanh y) = x · sigmoid(2 y), with √(8/π) and 0.044715·√(8/π) as the constants of 2 y.
    GeluTanh = |x, S| gate::<S>(x, S::mul(x, S::fma(S::mul(x, x), S::splat(0.071_354_814), S::splat(1.595_769))));
    GeluQuick = |x, S| gate::<S>(x, S::mul(x, S::splat(1.702)));
}

/// Something done with a function that is known when it is called.
pub(crate) trait With {
    /// What it gives.
    type Output;

    /// Does it; to be marked `#[inline(always)]`.
    ///
    /// # Safety
    /// As whatever is done asks for.
    unsafe fn call<F: Function>(self) -> Self::Output;
}

/// Calls `with` with the type of a function.
///
/// # Safety
/// As `with` asks for.
#[inline(always)]
pub(crate) unsafe fn with<W: With>(function: Option<Unary>, with: W) -> W::Output {
    // SAFETY: the caller vouches for what `with` asks for.
    unsafe {
        match function {
            None => with.call::<Identity>(),
            Some(Unary::Exp) => with.call::<Exp>(),
            Some(Unary::Erf) => with.call::<Erf>(),
            Some(Unary::Tanh) => with.call::<Tanh>(),
            Some(Unary::Sigmoid) => with.call::<Sigmoid>(),
            Some(Unary::Relu) => with.call::<Relu>(),
            Some(Unary::Silu) => with.call::<Silu>(),
            Some(Unary::GeluErf) => with.call::<GeluErf>(),
            Some(Unary::GeluTanh) => with.call::<GeluTanh>(),
            Some(Unary::GeluQuick) => with.call::<GeluQuick>(),
        }
    }
}

#[cfg(test)]
mod tests;
