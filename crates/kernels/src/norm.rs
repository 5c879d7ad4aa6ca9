//! LayerNorm, alone, after a residual, and after the embeddings' lookups.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    KernelError, Kernels, Rows, RowsMut,
    error::same,
    share::{Shared, blocks},
    simd::{Kernel, SUMS, Simd, dispatch, total},
};

/// Numbers that are worth a task of their own: some microseconds of work.
const NUMBERS: usize = 16_384;

/// A lookup: row `indices[i]` of `table` for row i of the result. A negative index counts from the end, as ONNX's Gather has it.
#[derive(Clone, Copy, Debug)]
pub struct Gather<'a> {
    /// What is looked up in.
    pub table: Rows<'a>,
    /// One for each row of the result.
    pub indices: &'a [i64],
}

impl Gather<'_> {
    fn check(&self, out: &RowsMut<'_>) -> Result<(), KernelError> {
        same("the number of indices", self.indices.len(), out.rows())?;
        same("the number of columns of a table", self.table.columns(), out.columns())?;
        let rows = self.table.rows();
        match self.indices.iter().position(|&index| resolve(index, rows).is_none()) {
            None => Ok(()),
            Some(position) => {
                Err(KernelError::IndexOutOfRange { index: self.indices[position], position, rows })
            }
        }
    }

    /// The row for row `position` of the result. `check` has seen that there is one.
    pub(crate) fn row(&self, position: usize) -> &[f32] {
        let index = resolve(self.indices[position], self.table.rows()).unwrap_or(usize::MAX);
        self.table.row(index)
    }
}

fn resolve(index: i64, rows: usize) -> Option<usize> {
    let distance = usize::try_from(index.unsigned_abs()).ok()?;
    let found = if index < 0 { rows.checked_sub(distance)? } else { distance };
    (found < rows).then_some(found)
}

impl Kernels {
    /// `out = LayerNorm(x + residual)` over each row: (x − mean) / √(variance + eps) · gamma + beta, the variance from the differences to
    /// the mean (two passes), eps in f32.
    ///
    /// # Errors
    /// If sizes differ; and [`KernelError::VarianceOverflow`] if the variance of a row is infinite
    /// in f32, as it is for finite numbers from some 10¹⁸ on. A row with an infinite or NaN element
    /// is NaN, as by the formula, and no error.
    pub fn layer_norm(
        &self,
        x: Rows<'_>,
        residual: Option<Rows<'_>>,
        gamma: &[f32],
        beta: Option<&[f32]>,
        eps: f32,
        out: &mut RowsMut<'_>,
    ) -> Result<(), KernelError> {
        same("the number of rows of x", x.rows(), out.rows())?;
        same("the number of columns of x", x.columns(), out.columns())?;
        check(residual, gamma, beta, out)?;
        let columns = out.columns();
        let to = |row: usize, out: *mut f32| {
            // SAFETY: row `row` of x and of `out` have `columns` numbers, and a row of x is not in `out`.
            unsafe { std::ptr::copy_nonoverlapping(x.row(row).as_ptr(), out, columns) };
        };
        self.normalise(&to, Affine { residual, gamma, beta, eps }, out)
    }

    /// `x = LayerNorm(x + residual)`, as [`Kernels::layer_norm`].
    ///
    /// # Errors
    /// As [`Kernels::layer_norm`].
    pub fn layer_norm_in_place(
        &self,
        x: &mut RowsMut<'_>,
        residual: Option<Rows<'_>>,
        gamma: &[f32],
        beta: Option<&[f32]>,
        eps: f32,
    ) -> Result<(), KernelError> {
        check(residual, gamma, beta, x)?;
        self.normalise(&|_, _| {}, Affine { residual, gamma, beta, eps }, x)
    }

    /// `out = LayerNorm(Σ lookups)`, the lookups added in the order given.
    ///
    /// # Errors
    /// As [`Kernels::layer_norm`], and if an index lies outside its table, or there is no lookup.
    pub fn embeddings_layer_norm(
        &self,
        lookups: &[Gather<'_>],
        gamma: &[f32],
        beta: Option<&[f32]>,
        eps: f32,
        out: &mut RowsMut<'_>,
    ) -> Result<(), KernelError> {
        check_lookups(lookups, out)?;
        check(None, gamma, beta, out)?;
        let columns = out.columns();
        let to = |row: usize, out: *mut f32| {
            // SAFETY: row `row` of `out` has `columns` numbers, and is this task's.
            sum(lookups, row, unsafe { std::slice::from_raw_parts_mut(out, columns) });
        };
        self.normalise(&to, Affine { residual: None, gamma, beta, eps }, out)
    }

    /// `out` = the sum of the lookups, added in the order given; one lookup is ONNX's Gather on axis 0.
    ///
    /// # Errors
    /// If sizes differ, an index lies outside its table, or there is no lookup.
    pub fn gather(&self, lookups: &[Gather<'_>], out: &mut RowsMut<'_>) -> Result<(), KernelError> {
        check_lookups(lookups, out)?;
        let (rows, columns, stride) = (out.written_rows(), out.columns(), out.stride());
        let out = Shared::of(out);
        blocks(self.pool(), rows, NUMBERS.div_ceil(columns.max(1)), &|begin, end| {
            for row in begin..end {
                // SAFETY: rows do not overlap.
                sum(lookups, row, unsafe { out.slice(row * stride, columns) });
            }
        });
        Ok(())
    }

    /// LayerNorm of every row of `out`, after `fill` has put there what it is of.
    fn normalise(
        &self,
        fill: &(dyn Fn(usize, *mut f32) + Sync),
        affine: Affine<'_>,
        out: &mut RowsMut<'_>,
    ) -> Result<(), KernelError> {
        let (rows, columns, stride) = (out.written_rows(), out.columns(), out.stride());
        let out = Shared::of(out);
        let overflowed = AtomicBool::new(false);
        blocks(self.pool(), rows, NUMBERS.div_ceil(columns.max(1)), &|begin, end| {
            for row in begin..end {
                // SAFETY: rows do not overlap, all operands are as wide, and the CPU offers `isa`.
                unsafe {
                    let x = out.slice(row * stride, columns);
                    fill(row, x.as_mut_ptr());
                    if dispatch(self.isa(), Normalise { x, row, affine }) == f64::INFINITY {
                        overflowed.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
        if overflowed.into_inner() { Err(KernelError::VarianceOverflow) } else { Ok(()) }
    }
}

/// The lookups of one row.
fn sum(lookups: &[Gather<'_>], row: usize, out: &mut [f32]) {
    for (index, lookup) in lookups.iter().enumerate() {
        let from = lookup.row(row);
        if index == 0 {
            out.copy_from_slice(from);
        } else {
            out.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
}

/// What a row is normalised with.
#[derive(Clone, Copy)]
struct Affine<'a> {
    residual: Option<Rows<'a>>,
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    eps: f32,
}

/// One row.
struct Normalise<'a> {
    x: &'a mut [f32],
    row: usize,
    affine: Affine<'a>,
}

impl Kernel for Normalise<'_> {
    /// The variance.
    type Output = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        let Affine { residual, gamma, beta, eps } = self.affine;
        let (x, len) = (self.x.as_mut_ptr(), self.x.len());
        let width = len as f64;
        // SAFETY: the caller vouches for the instruction set; residual, gamma and beta are as long as x, and every count ends there.
        unsafe {
            if let Some(residual) = residual {
                let plus = residual.row(self.row).as_ptr();
                let mut at = 0;
                while at < len {
                    let left = len - at;
                    let both = S::add(S::load_first(x.add(at), left), S::load_first(plus.add(at), left));
                    S::store_first(x.add(at), both, left);
                    at += S::LANES;
                }
            }
            let mean = (sum_of::<S, false>(x, len, 0.0) / width) as f32;
            let variance = sum_of::<S, true>(x, len, mean) / width;
            // Rounded once: an error here is in the whole row, and all that follows reads it.
            let factor = S::splat((1.0 / (variance + f64::from(eps)).sqrt()) as f32);
            let mean = S::splat(mean);
            let mut at = 0;
            while at < len {
                let left = len - at;
                let difference = S::sub(S::load_first(x.add(at), left), mean);
                let (scaled, gamma) =
                    (S::mul(difference, factor), S::load_first(gamma.as_ptr().add(at), left));
                let y = match beta {
                    Some(beta) => S::fma(scaled, gamma, S::load_first(beta.as_ptr().add(at), left)),
                    None => S::mul(scaled, gamma),
                };
                S::store_first(x.add(at), y, left);
                at += S::LANES;
            }
            variance
        }
    }
}

/// Σ x, or Σ (x − mean)²; number i goes to sum i mod [`SUMS`], in order.
#[inline(always)]
unsafe fn sum_of<S: Simd, const SQUARES: bool>(x: *const f32, len: usize, mean: f32) -> f64 {
    let vectors = SUMS / S::LANES;
    // SAFETY: the caller vouches for the instruction set and for `len` numbers.
    unsafe {
        let wide = S::splat(mean);
        let mut sums = [S::splat(0.0); 4];
        let mut at = 0;
        while at + SUMS <= len {
            for (lane, sum) in sums.iter_mut().enumerate().take(vectors) {
                let x = S::load(x.add(at + lane * S::LANES));
                *sum = if SQUARES {
                    let difference = S::sub(x, wide);
                    S::fma(difference, difference, *sum)
                } else {
                    S::add(*sum, x)
                };
            }
            at += SUMS;
        }
        let mut all = [0.0; SUMS];
        for (lane, &sum) in sums.iter().enumerate().take(vectors) {
            S::store(all.as_mut_ptr().add(lane * S::LANES), sum);
        }
        for (sum, at) in all.iter_mut().zip(at..len) {
            let x = *x.add(at);
            *sum += if SQUARES { (x - mean) * (x - mean) } else { x };
        }
        total(all)
    }
}

fn check(
    residual: Option<Rows<'_>>,
    gamma: &[f32],
    beta: Option<&[f32]>,
    out: &RowsMut<'_>,
) -> Result<(), KernelError> {
    if let Some(residual) = residual {
        same("the number of rows of the residual", residual.rows(), out.rows())?;
        same("the number of columns of the residual", residual.columns(), out.columns())?;
    }
    same("the length of gamma", gamma.len(), out.columns())?;
    beta.map_or(Ok(()), |beta| same("the length of beta", beta.len(), out.columns()))
}

fn check_lookups(lookups: &[Gather<'_>], out: &RowsMut<'_>) -> Result<(), KernelError> {
    if lookups.is_empty() {
        return Err(KernelError::Size { what: "the number of lookups", found: 0, expected: 1 });
    }
    lookups.iter().try_for_each(|lookup| lookup.check(out))
}

#[cfg(test)]
mod tests;
