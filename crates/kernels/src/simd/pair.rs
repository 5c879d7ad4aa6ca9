//! Two vectors that do everything together: a long chain of operations on one leaves the CPU waiting, on two it waits half as often.

use std::marker::PhantomData;

use super::{Simd, methods};

#[derive(Clone, Copy)]
pub(crate) struct Pair<S>(PhantomData<S>);

impl<S: Simd> Simd for Pair<S> {
    type V = [S::V; 2];
    const LANES: usize = 2 * S::LANES;
    const PANEL: usize = S::PANEL.div_ceil(2);

    methods! {
        splat(x: f32) -> Self::V = [S::splat(x); 2];
        load(from: *const f32) -> Self::V = [S::load(from), S::load(from.add(S::LANES))];
        store(to: *mut f32, x: Self::V) -> () = {
            S::store(to, x[0]);
            S::store(to.add(S::LANES), x[1]);
        };
        // The second pointer is not followed where the count ends before it.
        load_first(from: *const f32, count: usize) -> Self::V = {
            let second = from.wrapping_add(S::LANES);
            [S::load_first(from, count), S::load_first(second, count.saturating_sub(S::LANES))]
        };
        // The second pointer is not followed where the count ends before it.
        store_first(to: *mut f32, x: Self::V, count: usize) -> () = {
            S::store_first(to, x[0], count);
            S::store_first(to.wrapping_add(S::LANES), x[1], count.saturating_sub(S::LANES));
        };
        add(a: Self::V, b: Self::V) -> Self::V = [S::add(a[0], b[0]), S::add(a[1], b[1])];
        sub(a: Self::V, b: Self::V) -> Self::V = [S::sub(a[0], b[0]), S::sub(a[1], b[1])];
        mul(a: Self::V, b: Self::V) -> Self::V = [S::mul(a[0], b[0]), S::mul(a[1], b[1])];
        div(a: Self::V, b: Self::V) -> Self::V = [S::div(a[0], b[0]), S::div(a[1], b[1])];
        fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V = {
            [S::fma(a[0], b[0], c[0]), S::fma(a[1], b[1], c[1])]
        };
        min(a: Self::V, b: Self::V) -> Self::V = [S::min(a[0], b[0]), S::min(a[1], b[1])];
        max(a: Self::V, b: Self::V) -> Self::V = [S::max(a[0], b[0]), S::max(a[1], b[1])];
        abs(x: Self::V) -> Self::V = [S::abs(x[0]), S::abs(x[1])];
        copysign(x: Self::V, sign: Self::V) -> Self::V = {
            [S::copysign(x[0], sign[0]), S::copysign(x[1], sign[1])]
        };
        select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V = {
            [S::select_less(a[0], b[0], yes[0], no[0]), S::select_less(a[1], b[1], yes[1], no[1])]
        };
        round(x: Self::V) -> Self::V = [S::round(x[0]), S::round(x[1])];
        scale(x: Self::V, n: Self::V) -> Self::V = [S::scale(x[0], n[0]), S::scale(x[1], n[1])];
        scale_small(x: Self::V, n: Self::V) -> Self::V = {
            [S::scale_small(x[0], n[0]), S::scale_small(x[1], n[1])]
        };
    }
}
