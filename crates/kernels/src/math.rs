//! eˣ, erf, tanh and what is made of them, on vectors.
//!
//! Polynomials are minimax fits (weighted least squares after Lawson, in 40 digits, then rounded to f32); the error of each fit is told
//! beside it and is small against f32's own rounding. NaN gives NaN, and ±∞ gives what the formula has there.

use crate::{Unary, simd::Simd};

/// c₀ + c₁ x + c₂ x² + … of four to eight terms, by Estrin's scheme: Horner's rule would wait for each step.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::V, c: [f32; N]) -> S::V {
    const { assert!(N >= 4 && N <= 8) };
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let square = S::mul(x, x);
        let two = |i: usize| {
            let first = S::splat(c[i]);
            if i + 1 < N { S::fma(S::splat(c[i + 1]), x, first) } else { first }
        };
        let low = S::fma(two(2), square, two(0));
        if N <= 4 {
            return low;
        }
        let high = if N > 6 { S::fma(two(6), square, two(4)) } else { two(4) };
        S::fma(high, S::mul(square, square), low)
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

/// eˣ within 1 ULP for x ≤ 0, with 0 for what would be denormal: x below ln 2⁻¹²⁶.
#[inline(always)]
pub(crate) unsafe fn exp_negative<S: Simd>(x: S::V) -> S::V {
    /// ln 2⁻¹²⁶ = −87.33654…, so that 2⁻¹²⁶·eʳ with r ≥ 0 is the least.
    const LEAST: f32 = -87.336;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let least = S::splat(LEAST);
        // In this order NaN stays NaN.
        let (power, n) = reduced_exp::<S>(S::max(least, x));
        S::select_less(x, least, S::splat(0.0), S::scale_normal(power, n))
    }
}

/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, and eˣ = 2ⁿ·eʳ: gives eʳ and n.
#[inline(always)]
unsafe fn reduced_exp<S: Simd>(x: S::V) -> (S::V, S::V) {
    /// (eʳ − 1 − r − r²/2) / r³ on |r| ≤ ln 2 / 2; 3.6e-9 of eʳ.
    const TAIL: [f32; 4] = [0.166_665_35, 0.041_667_238, 0.008_367_491, 0.001_386_377_8];
    /// ln 2 in nine bits, so that n times it is exact, and the rest.
    const LN2: (f32, f32) = (355.0 / 512.0, -0.000_212_194_44);
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // r = r₀ + c, of which r₀ is exact; what 1 + r₀ loses is added back, since it and r's own rounding would cost half an ULP.
        let r0 = S::fma(n, S::splat(-LN2.0), x);
        let c = S::mul(n, S::splat(-LN2.1));
        let r = S::add(r0, c);
        let half = S::fma(polynomial::<S, 4>(r, TAIL), r, S::splat(0.5));
        let small = S::fma(S::mul(r, r), half, c);
        let one = S::splat(1.0);
        let sum = S::add(one, r0);
        let lost = S::add(S::sub(one, sum), r0);
        (S::add(sum, S::add(small, lost)), n)
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

/// x · Φ(x), where Φ(x) = ½ (1 + erf(x/√2)) is made from x itself: no rounding of x/√2, and no cancellation where Φ is near 0.
#[inline(always)]
unsafe fn gelu_erf<S: Simd>(x: S::V) -> S::V {
    /// Where one form takes over from the other.
    const MIDDLE: f32 = 1.2;
    /// (Φ(x) − ½)/x in x² below `MIDDLE`; 1.5e-9.
    const INNER: [f32; 6] = [
        0.398_942_3,
        -0.066_490_29,
        0.009_972_488_5,
        -0.001_184_147_4,
        0.000_111_287_21,
        -0.000_006_883_541_6,
    ];
    /// −ln Φ(−x) above; 1e-10 of x Φ(−x).
    const OUTER: [f32; 8] = [
        0.692_984_04,
        0.798_649_3,
        0.316_726_77,
        0.038_242_61,
        -0.006_262_147_3,
        0.000_732_784_7,
        -0.000_053_672_11,
        0.000_001_827_603_6,
    ];
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let t = S::abs(x);
        let inner = S::fma(x, polynomial::<S, 6>(S::mul(x, x), INNER), S::splat(0.5));
        let tail = exp_negative::<S>(S::sub(zero, polynomial::<S, 8>(t, OUTER)));
        let outer = S::select_less(x, zero, tail, S::sub(one, tail));
        S::mul(x, S::select_less(t, S::splat(MIDDLE), inner, outer))
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
