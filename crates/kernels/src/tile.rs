//! The innermost loops of every matrix product: a few rows times one panel, all sums in registers.
//!
//! The order of a sum is the same wherever it is made: K is cut into blocks of [`BLOCK`], counted from its beginning; within a block the
//! products are added one after the other, and so are the blocks' sums. Cutting keeps the rounding error of a sum of K numbers near that of
//! one of [`BLOCK`], and a panel's block in the first-level cache.

use std::mem::MaybeUninit;

use crate::simd::Simd;

/// Rows of a tile. With two vectors across there are 12 sums in 16 registers, with four 24 in 32; both hide the latency of an addition.
pub(crate) const MR: usize = 6;

/// Where a sum over K is cut. 384, 768, 1536 and 3072 are multiples of it.
pub(crate) const BLOCK: usize = 192;

/// Columns of the widest panel: four vectors of AVX-512.
const WIDEST: usize = 64;

/// A block of K of a few rows times one panel.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// Row 0 of the left matrix, at the first k.
    pub a: *const f32,
    /// Distance between its rows.
    pub a_stride: usize,
    /// The panel at the first k; its rows are as wide as the panel.
    pub b: *const f32,
    /// How many k.
    pub k: usize,
    /// Row 0 of the result, at the panel's first column.
    pub c: *mut f32,
    /// Distance between its rows.
    pub c_stride: usize,
    /// Columns of the panel that the result has.
    pub columns: usize,
    /// Whether the sums are added to what `c` holds.
    pub add: bool,
    /// What is multiplied next, to be brought near meanwhile: where it begins, and how many numbers there are. Nothing is read there.
    pub next: (*const f32, usize),
}

/// Nothing comes next, or it is near already.
pub(crate) const NEAR: (*const f32, usize) = (std::ptr::null(), 0);

/// What is done to the sums of some rows when they are whole.
pub(crate) trait Finish {
    /// Rows `begin..begin + ROWS` are on their way to memory, all columns of a panel; to be marked `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU offers the instruction set, and the rows are among those of the product.
    #[inline(always)]
    unsafe fn sums<S: Simd, const ROWS: usize, const NV: usize>(
        &self,
        _begin: usize,
        _sums: &mut [[S::V; NV]; ROWS],
    ) {
    }

    /// Rows `begin..end` are in memory, in the nearest cache; `seen` if [`Finish::sums`] had them. To be marked `#[inline(always)]`.
    ///
    /// # Safety
    /// As [`Finish::sums`].
    #[inline(always)]
    unsafe fn rows<S: Simd>(&self, _begin: usize, _end: usize, _seen: bool) {}
}

/// Nothing is done.
pub(crate) struct Leave;

impl Finish for Leave {}

/// The whole of `operands.k`, block after block, and so the whole sum: what `c` holds before does not count.
///
/// # Safety
/// As [`rows`].
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, const NV: usize>(count: usize, operands: Operands) {
    let mut first = 0;
    loop {
        let k = BLOCK.min(operands.k - first);
        // SAFETY: k `first..first + k` are among `operands.k`.
        unsafe {
            let a = operands.a.add(first);
            let b = operands.b.add(first * NV * S::LANES);
            rows::<S, NV>(count, Operands { a, b, k, add: first > 0, ..operands }, &Leave);
        }
        first += k;
        if first == operands.k {
            return;
        }
    }
}

/// `rows` rows, in tiles of at most [`MR`] that differ by one row at most, each finished when it is done.
///
/// # Safety
/// The CPU offers the instruction set, and the pointers are good for what [`Operands`] says.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd, const NV: usize>(rows: usize, operands: Operands, finish: &impl Finish) {
    let tiles = rows.div_ceil(MR);
    if tiles == 0 {
        return;
    }
    // Divisions are slow: these are all.
    let (height, higher) = (rows / tiles, rows % tiles);
    let share = if operands.next.1 == 0 { 0 } else { operands.next.1 / tiles };
    let pace = if share == 0 { 0 } else { share / (operands.k / 2).max(1) };
    let seen = operands.columns == NV * S::LANES;
    let mut begin = 0;
    for tile in 0..tiles {
        let count = height + usize::from(tile < higher);
        // SAFETY: the tile's rows are among `rows`.
        unsafe {
            let at = Operands {
                a: operands.a.add(begin * operands.a_stride),
                c: operands.c.add(begin * operands.c_stride),
                ..operands
            };
            // Each tile brings its share of what comes next.
            let soon = (operands.next.0.wrapping_add(tile * share), pace);
            match count {
                1 => self::tile::<S, 1, NV>(at, soon, begin, finish),
                2 => self::tile::<S, 2, NV>(at, soon, begin, finish),
                3 => self::tile::<S, 3, NV>(at, soon, begin, finish),
                4 => self::tile::<S, 4, NV>(at, soon, begin, finish),
                5 => self::tile::<S, 5, NV>(at, soon, begin, finish),
                _ => self::tile::<S, 6, NV>(at, soon, begin, finish),
            }
            finish.rows::<S>(begin, begin + count, seen);
        }
        begin += count;
    }
}

/// `ROWS` rows times `NV` vectors of columns. Meanwhile what lies at `soon` is brought near, in lines that far apart.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "two matrices by the same two indices")]
unsafe fn tile<S: Simd, const ROWS: usize, const NV: usize>(
    operands: Operands,
    soon: (*const f32, usize),
    begin: usize,
    finish: &impl Finish,
) {
    /// Steps of k between two looks at the counter.
    const STEPS: usize = 4;
    let Operands { a, a_stride, b, k, c, c_stride, columns, add, next: _ } = operands;
    let (mut soon, pace) = soon;
    let width = NV * S::LANES;
    // SAFETY: the caller vouches for the instruction set and the pointers.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; ROWS];
        let (mut at, mut b) = (a, b);
        for _ in 0..k / STEPS {
            for _ in 0..STEPS / 2 {
                S::prefetch(soon);
                soon = soon.wrapping_add(pace);
            }
            for step in 0..STEPS {
                add_product::<S, ROWS, NV>(&mut sums, at.add(step), a_stride, b.add(step * width));
            }
            at = at.add(STEPS);
            b = b.add(STEPS * width);
        }
        for _ in 0..k % STEPS {
            add_product::<S, ROWS, NV>(&mut sums, at, a_stride, b);
            at = at.add(1);
            b = b.add(width);
        }
        if columns == width {
            if add {
                for i in 0..ROWS {
                    for j in 0..NV {
                        sums[i][j] = S::add(S::load(c.add(i * c_stride + j * S::LANES)), sums[i][j]);
                    }
                }
            }
            finish.sums::<S, ROWS, NV>(begin, &mut sums);
            for i in 0..ROWS {
                for j in 0..NV {
                    S::store(c.add(i * c_stride + j * S::LANES), sums[i][j]);
                }
            }
        } else {
            // By way of a buffer: loops whose length is known keep the sums in registers, here and above.
            let mut buffer = MaybeUninit::<[[f32; WIDEST]; MR]>::uninit();
            let buffer = buffer.as_mut_ptr().cast::<f32>();
            for i in 0..ROWS {
                for j in 0..NV {
                    S::store(buffer.add(i * WIDEST + j * S::LANES), sums[i][j]);
                }
            }
            for i in 0..ROWS {
                for column in 0..columns {
                    let (to, sum) = (c.add(i * c_stride + column), *buffer.add(i * WIDEST + column));
                    *to = if add { *to + sum } else { sum };
                }
            }
        }
    }
}

/// One k: a column of `a` times a row of the panel.
#[inline(always)]
unsafe fn add_product<S: Simd, const ROWS: usize, const NV: usize>(
    sums: &mut [[S::V; NV]; ROWS],
    a: *const f32,
    a_stride: usize,
    b: *const f32,
) {
    // SAFETY: the caller vouches for the instruction set and the pointers.
    unsafe {
        let mut panel = [S::splat(0.0); NV];
        for (j, panel) in panel.iter_mut().enumerate() {
            *panel = S::load(b.add(j * S::LANES));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let a = S::splat(*a.add(i * a_stride));
            for (sum, &b) in sums.iter_mut().zip(&panel) {
                *sum = S::fma(a, b, *sum);
            }
        }
    }
}
