//! Four numbers in plain Rust, which every compiler turns into the vectors that all its CPUs have (SSE2, NEON).

use super::{Simd, methods};

#[derive(Clone, Copy)]
pub(crate) struct Portable;

type V = [f32; 4];

/// Whether `mul_add` is an instruction here; elsewhere it would be a call into a library.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// 1.5 · 2²³: added and taken away again, it leaves an integer.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn map(mut x: V, f: impl Fn(f32) -> f32) -> V {
    for x in &mut x {
        *x = f(*x);
    }
    x
}

#[inline(always)]
fn zip(mut a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    for (a, b) in a.iter_mut().zip(b) {
        *a = f(*a, b);
    }
    a
}

/// 2ⁿ for integers n from −126 to 127; 0 for −127. Something for other n, as a lane behind the last number may have.
#[inline(always)]
fn power(n: f32) -> f32 {
    f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)
}

impl Simd for Portable {
    type V = V;
    const LANES: usize = 4;
    const PANEL: usize = 2;

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> V {
        let mut x = [0.0; 4];
        for (i, x) in x.iter_mut().enumerate().take(count) {
            // SAFETY: the caller vouches for `count` numbers.
            *x = unsafe { *from.add(i) };
        }
        x
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: V, count: usize) {
        for (i, x) in x.into_iter().enumerate().take(count) {
            // SAFETY: the caller vouches for `count` numbers.
            unsafe { *to.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn fma(mut a: V, b: V, c: V) -> V {
        for i in 0..4 {
            a[i] = if FUSED { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
        }
        a
    }
    #[inline(always)]
    unsafe fn select_less(a: V, b: V, mut yes: V, no: V) -> V {
        for i in 0..4 {
            yes[i] = if a[i] < b[i] { yes[i] } else { no[i] };
        }
        yes
    }

    methods! {
        splat(x: f32) -> V = [x; 4];
        load(from: *const f32) -> V = from.cast::<V>().read_unaligned();
        store(to: *mut f32, x: V) -> () = to.cast::<V>().write_unaligned(x);
        add(a: V, b: V) -> V = zip(a, b, |a, b| a + b);
        sub(a: V, b: V) -> V = zip(a, b, |a, b| a - b);
        mul(a: V, b: V) -> V = zip(a, b, |a, b| a * b);
        div(a: V, b: V) -> V = zip(a, b, |a, b| a / b);
        min(a: V, b: V) -> V = zip(a, b, |a, b| if a < b { a } else { b });
        max(a: V, b: V) -> V = zip(a, b, |a, b| if a > b { a } else { b });
        abs(x: V) -> V = map(x, f32::abs);
        copysign(x: V, sign: V) -> V = zip(x, sign, f32::copysign);
        round(x: V) -> V = map(x, |x| (x + ROUND) - ROUND);
        scale(x: V, n: V) -> V = {
            // In two steps, since 2⁻¹⁵⁰ and 2¹²⁸ are no f32; the first is exact. NaN comes by x.
            let half = map(n, |n| (n * 0.5 + ROUND) - ROUND);
            let rest = zip(n, half, |n, half| n - half);
            zip(zip(x, half, |x, half| x * power(half)), rest, |x, rest| x * power(rest))
        };
        scale_small(x: V, n: V) -> V = zip(x, n, |x, n| x * power(n));
    }
}
