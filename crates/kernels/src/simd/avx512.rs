//! Sixteen numbers, AVX-512 F, VL and DQ.

use std::arch::x86_64::*;

use super::{Simd, methods};

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// The first `count` lanes.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

// SAFETY, for every block below: the trait's callers vouch for AVX-512 F, VL and DQ, and for the pointers.
impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const PANEL: usize = 4;

    methods! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        load(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        store(to: *mut f32, x: __m512) -> () = _mm512_storeu_ps(to, x);
        // Lanes that are masked out are not read.
        load_first(from: *const f32, count: usize) -> __m512 = _mm512_maskz_loadu_ps(mask(count), from);
        // Lanes that are masked out are not written.
        store_first(to: *mut f32, x: __m512, count: usize) -> () = _mm512_mask_storeu_ps(to, mask(count), x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        abs(x: __m512) -> __m512 = _mm512_andnot_ps(_mm512_set1_ps(-0.0), x);
        copysign(x: __m512, sign: __m512) -> __m512 = {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, x), _mm512_and_ps(bit, sign))
        };
        select_less(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 = {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        };
        round(x: __m512) -> __m512 = {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        };
        scale(x: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(x, n);
        scale_small(x: __m512, n: __m512) -> __m512 = {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_mul_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        };
    }
}
