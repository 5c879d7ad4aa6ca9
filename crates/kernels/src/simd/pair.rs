//! Two vectors that do everything together: a long chain of operations on one leaves the CPU waiting, on two it waits half as often.

use std::marker::PhantomData;

use super::Simd;

#[derive(Clone, Copy)]
pub(crate) struct Pair<S>(PhantomData<S>);

impl<S: Simd> Simd for Pair<S> {
    type V = [S::V; 2];
    const LANES: usize = 2 * S::LANES;
    const PANEL: usize = S::PANEL.div_ceil(2);

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::splat(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::load(from), S::load(from.add(S::LANES))] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::V) {
        // SAFETY: as the caller's.
        unsafe {
            S::store(to, x[0]);
            S::store(to.add(S::LANES), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self::V {
        // SAFETY: as the caller's; the second pointer is not followed where the count ends before it.
        unsafe {
            let second = from.wrapping_add(S::LANES);
            [S::load_first(from, count), S::load_first(second, count.saturating_sub(S::LANES))]
        }
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: Self::V, count: usize) {
        // SAFETY: as the caller's; the second pointer is not followed where the count ends before it.
        unsafe {
            S::store_first(to, x[0], count);
            S::store_first(to.wrapping_add(S::LANES), x[1], count.saturating_sub(S::LANES));
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::add(a[0], b[0]), S::add(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::sub(a[0], b[0]), S::sub(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::mul(a[0], b[0]), S::mul(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::div(a[0], b[0]), S::div(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::fma(a[0], b[0], c[0]), S::fma(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::min(a[0], b[0]), S::min(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::max(a[0], b[0]), S::max(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn abs(x: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::abs(x[0]), S::abs(x[1])] }
    }
    #[inline(always)]
    unsafe fn copysign(x: Self::V, sign: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::copysign(x[0], sign[0]), S::copysign(x[1], sign[1])] }
    }
    #[inline(always)]
    unsafe fn select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::select_less(a[0], b[0], yes[0], no[0]), S::select_less(a[1], b[1], yes[1], no[1])] }
    }
    #[inline(always)]
    unsafe fn round(x: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::round(x[0]), S::round(x[1])] }
    }
    #[inline(always)]
    unsafe fn scale(x: Self::V, n: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::scale(x[0], n[0]), S::scale(x[1], n[1])] }
    }
    #[inline(always)]
    unsafe fn scale_small(x: Self::V, n: Self::V) -> Self::V {
        // SAFETY: as the caller's.
        unsafe { [S::scale_small(x[0], n[0]), S::scale_small(x[1], n[1])] }
    }
}
