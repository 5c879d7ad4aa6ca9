//! Eight numbers, AVX2 and FMA.

use std::arch::x86_64::*;

use super::{Simd, methods};

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Eight ones and eight zeros: from the right place on, a mask of any length.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// All bits set in the first `count` lanes.
#[inline(always)]
unsafe fn mask(count: usize) -> __m256i {
    let begin = 8 - count.min(8);
    // SAFETY: `begin` is at most 8, so eight numbers of `MASKS` follow it; AVX2 is there.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(begin).cast()) }
}

/// 2ⁿ for integers n from −126 to 127; 0 for −127.
#[inline(always)]
unsafe fn power(n: __m256) -> __m256 {
    // SAFETY: AVX2 is there.
    unsafe {
        let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    }
}

/// Four rows, as four columns in each half: numbers 0 and 4 of all, then 1 and 5, and so on.
#[inline(always)]
unsafe fn four(from: *const f32, stride: usize) -> [__m256; 4] {
    // SAFETY: AVX2 is there, and the caller vouches for four rows of eight.
    unsafe {
        let (a, b) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(stride)));
        let (c, d) = (_mm256_loadu_ps(from.add(2 * stride)), _mm256_loadu_ps(from.add(3 * stride)));
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (above_ab, above_cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
            _mm256_shuffle_ps::<0b01_00_01_00>(above_ab, above_cd),
            _mm256_shuffle_ps::<0b11_10_11_10>(above_ab, above_cd),
        ]
    }
}

// SAFETY, for every block below: the trait's callers vouch for AVX2 and FMA, and for the pointers.
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const PANEL: usize = 2;

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: see above.
        unsafe {
            let upper = four(from, from_stride);
            let lower = four(from.add(4 * from_stride), from_stride);
            for (j, (a, b)) in upper.into_iter().zip(lower).enumerate() {
                Self::store(to.add(j * to_stride), _mm256_permute2f128_ps::<0x20>(a, b));
                Self::store(to.add((j + 4) * to_stride), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }

    methods! {
        splat(x: f32) -> __m256 = _mm256_set1_ps(x);
        load(from: *const f32) -> __m256 = _mm256_loadu_ps(from);
        store(to: *mut f32, x: __m256) -> () = _mm256_storeu_ps(to, x);
        // Lanes that are masked out are not read.
        load_first(from: *const f32, count: usize) -> __m256 = {
            if count >= 8 { Self::load(from) } else { _mm256_maskload_ps(from, mask(count)) }
        };
        // Lanes that are masked out are not written. A masked store takes a dozen cycles on Zen, so
        // whole vectors go without.
        store_first(to: *mut f32, x: __m256, count: usize) -> () = {
            if count >= 8 { Self::store(to, x) } else { _mm256_maskstore_ps(to, mask(count), x) }
        };
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        abs(x: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
        copysign(x: __m256, sign: __m256) -> __m256 = {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, x), _mm256_and_ps(bit, sign))
        };
        select_less(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 = {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        };
        round(x: __m256) -> __m256 = {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        };
        scale(x: __m256, n: __m256) -> __m256 = {
            // In two steps, since 2⁻¹⁵⁰ and 2¹²⁸ are no f32; the first is exact. NaN comes by x.
            let half = Self::round(_mm256_mul_ps(n, _mm256_set1_ps(0.5)));
            let rest = _mm256_sub_ps(n, half);
            _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(rest))
        };
        scale_small(x: __m256, n: __m256) -> __m256 = _mm256_mul_ps(x, power(n));
    }
}
