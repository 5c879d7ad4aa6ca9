//! `out = activation(a · b + bias) + residual`.

use std::marker::PhantomData;

use crate::{
    KernelError, Kernels, PackedMatrix, Rows, RowsMut, Unary,
    error::same,
    math::{self, Function, With},
    share::{Shared, cut},
    simd::{Kernel, Pair, Simd, dispatch, panel_width},
    tile::{self, BLOCK, Finish, Leave, MR, Operands},
};

/// What is done to `a · b` while it is still in cache: in this order, bias, activation, residual; the same bits as one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to every row; N numbers.
    pub bias: Option<&'a [f32]>,
    /// Applied to every number.
    pub activation: Option<Unary>,
    /// Added at the end; M×N.
    pub residual: Option<Rows<'a>>,
}

impl Epilogue<'_> {
    fn is_empty(&self) -> bool {
        self.bias.is_none() && self.activation.is_none() && self.residual.is_none()
    }
}

/// Rows of a task: with [`BLOCK`] of K they stay in the second-level cache while the panels pass.
const TASK_ROWS: usize = 16 * MR;

/// Numbers of the left matrix that stay in the second-level cache while panels pass: 192 kB.
const NEARBY: usize = 48 << 10;

/// Columns of a task at least, where there are several.
const TASK_COLUMNS: usize = 96;

/// Tasks for each thread, if there are columns enough: one that is kept from working then costs an eighth of its share.
const TASKS: usize = 8;

/// Products below which a GEMM is not worth waking anybody: some 10 µs.
const ALONE: usize = 1 << 19;

impl Kernels {
    /// `out = activation(a · b + bias) + residual`, where `a` is M×K, `b` K×N and `out` M×N.
    ///
    /// # Errors
    /// If sizes differ or `b` was packed for another instruction set.
    pub fn gemm(
        &self,
        a: Rows<'_>,
        b: &PackedMatrix,
        epilogue: &Epilogue<'_>,
        out: &mut RowsMut<'_>,
    ) -> Result<(), KernelError> {
        let (m, k, n) = (a.rows(), b.k(), b.n());
        b.check(self.isa())?;
        same("the number of columns of a", a.columns(), k)?;
        same("the number of rows of out", out.rows(), m)?;
        same("the number of columns of out", out.columns(), n)?;
        if let Some(bias) = epilogue.bias {
            same("the length of the bias", bias.len(), n)?;
        }
        if let Some(residual) = epilogue.residual {
            same("the number of rows of the residual", residual.rows(), m)?;
            same("the number of columns of the residual", residual.columns(), n)?;
        }
        // Either could be of any size, where the other is 0. From here on both are at most the
        // length of a slice.
        if m == 0 || n == 0 {
            return Ok(());
        }
        let width = panel_width(self.isa());
        let panels = n.div_ceil(width);
        let alone = self.pool().threads() == 1 || m.saturating_mul(n).saturating_mul(k) < ALONE;
        let down = m.div_ceil(TASK_ROWS);
        let wanted = (TASKS * self.pool().threads()).div_ceil(down.max(1));
        let across = if alone { 1 } else { wanted.min(n / TASK_COLUMNS).min(panels).max(1) };
        let out_stride = out.stride();
        let out = Shared::of(out);
        let task = |task: usize| {
            // Down first: neighbours in time then share panels.
            let (row, column) = (task % down, task / down);
            let rows = (cut(m, row, down), cut(m, row + 1, down));
            let panels = (cut(panels, column, across), cut(panels, column + 1, across));
            // SAFETY: the sizes are as checked above, tasks write different rows or columns, and the CPU offers `isa`.
            unsafe { dispatch(self.isa(), Block { a, b, epilogue, rows, panels, out, out_stride }) };
        };
        if alone {
            (0..down).for_each(task)
        } else {
            self.pool().run(down.saturating_mul(across), &task)
        }
        Ok(())
    }
}

/// The rows and panels of one task.
struct Block<'a> {
    a: Rows<'a>,
    b: &'a PackedMatrix,
    epilogue: &'a Epilogue<'a>,
    rows: (usize, usize),
    panels: (usize, usize),
    out: Shared<'a>,
    out_stride: usize,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        match S::PANEL {
            // SAFETY: the caller vouches for the instruction set and the sizes.
            4 => unsafe { self.product::<S, 4>() },
            // SAFETY: as above.
            _ => unsafe { self.product::<S, 2>() },
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    unsafe fn product<S: Simd, const NV: usize>(self) {
        let width = NV * S::LANES;
        let (k, n) = (self.b.k(), self.b.n());
        let (begin, end) = self.rows;
        // All of a panel, as it lies in memory, if the rows of `a` stay near meanwhile; else one block of all panels. A sum is the same either
        // way.
        let whole_panels = (end - begin) * k <= NEARBY;
        let (panels, blocks) = (self.panels.1 - self.panels.0, k.div_ceil(BLOCK).max(1));
        let (outer, inner) = if whole_panels { (panels, blocks) } else { (blocks, panels) };
        let place = |(outer, inner)| {
            let (panel, block) = if whole_panels { (outer, inner) } else { (inner, outer) };
            (self.panels.0 + panel, block * BLOCK)
        };
        let mut step = (0, 0);
        while step.0 < outer && step.1 < inner {
            let (panel, first) = place(step);
            step = if step.1 + 1 < inner { (step.0, step.1 + 1) } else { (step.0 + 1, 0) };
            let (next_panel, next_first) = place(step);
            let depth = BLOCK.min(k - first);
            let column = panel * width;
            let columns = width.min(n - column);
            // SAFETY: the panel has `k` rows of `width`, `a` has rows `begin..end` of `k`, `out` has them of `n`, and nobody else writes
            // these columns of these rows. Bias and residual have the columns and rows of `out`.
            unsafe {
                let c = self.out.at(begin * self.out_stride + column);
                let operands = Operands {
                    a: self.a.as_ptr().add(begin * self.a.stride() + first),
                    a_stride: self.a.stride(),
                    b: self.b.as_ptr().add((panel * k + first) * width),
                    k: depth,
                    c,
                    c_stride: self.out_stride,
                    columns,
                    add: first > 0,
                    next: (
                        self.b.as_ptr().wrapping_add((next_panel * k + next_first) * width),
                        BLOCK.min(k.saturating_sub(next_first)) * width,
                    ),
                };
                if first + depth < k || self.epilogue.is_empty() {
                    tile::rows::<S, NV>(end - begin, operands, &Leave);
                } else {
                    let epilogue = self.epilogue;
                    let finish = Epilogued {
                        columns,
                        c,
                        c_stride: self.out_stride,
                        bias: epilogue.bias.map(|bias| bias.as_ptr().add(column)),
                        activation: epilogue.activation,
                        residual: epilogue.residual.map(|residual| {
                            (residual.as_ptr().add(begin * residual.stride() + column), residual.stride())
                        }),
                    };
                    tile::rows::<S, NV>(end - begin, operands, &finish);
                }
            }
        }
    }
}

/// An epilogue on the rows and columns of one panel.
struct Epilogued {
    columns: usize,
    c: *mut f32,
    c_stride: usize,
    bias: Option<*const f32>,
    activation: Option<Unary>,
    residual: Option<(*const f32, usize)>,
}

impl Finish for Epilogued {
    #[inline(always)]
    unsafe fn sums<S: Simd, const ROWS: usize, const NV: usize>(
        &self,
        begin: usize,
        sums: &mut [[S::V; NV]; ROWS],
    ) {
        // SAFETY: the caller vouches for the instruction set and the rows, and bias and residual have all columns of the panel.
        unsafe {
            if let Some(bias) = self.bias {
                for j in 0..NV {
                    let bias = S::load(bias.add(j * S::LANES));
                    for sums in sums.iter_mut() {
                        sums[j] = S::add(sums[j], bias);
                    }
                }
            }
            if let (Some((residual, stride)), None) = (self.residual, self.activation) {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let residual = residual.add((begin + i) * stride);
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = S::add(*sum, S::load(residual.add(j * S::LANES)));
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<S: Simd>(&self, begin: usize, end: usize, seen: bool) {
        if seen && self.activation.is_none() {
            return;
        }
        let bias = self.bias.filter(|_| !seen);
        // SAFETY: the caller vouches for the instruction set and the rows.
        unsafe {
            math::with(self.activation, EpilogueRows::<S> { of: self, bias, begin, end, simd: PhantomData })
        }
    }
}

/// What [`Epilogued::sums`] has not done.
struct EpilogueRows<'a, S> {
    of: &'a Epilogued,
    bias: Option<*const f32>,
    begin: usize,
    end: usize,
    simd: PhantomData<S>,
}

impl<S: Simd> With for EpilogueRows<'_, S> {
    type Output = ();

    #[inline(always)]
    unsafe fn call<F: Function>(self) {
        let columns = self.of.columns;
        let mut column = 0;
        // SAFETY: the caller vouches for the instruction set, and for `columns` numbers of each row.
        unsafe {
            while column + 2 * S::LANES <= columns {
                self.columns::<Pair<S>, F>(column, 2 * S::LANES);
                column += 2 * S::LANES;
            }
            while column < columns {
                self.columns::<S, F>(column, columns - column);
                column += S::LANES;
            }
        }
    }
}

impl<S> EpilogueRows<'_, S> {
    /// The first `count` columns of one vector, in every row.
    #[inline(always)]
    unsafe fn columns<T: Simd, F: Function>(&self, column: usize, count: usize) {
        // SAFETY: the caller vouches for the instruction set, and for the columns of each row.
        unsafe {
            let bias = self.bias.map(|bias| T::load_first(bias.add(column), count));
            for row in self.begin..self.end {
                let c = self.of.c.add(row * self.of.c_stride + column);
                let mut x = T::load_first(c, count);
                if let Some(bias) = bias {
                    x = T::add(x, bias);
                }
                x = F::apply::<T>(x);
                if let Some((residual, stride)) = self.of.residual {
                    x = T::add(x, T::load_first(residual.add(row * stride + column), count));
                }
                T::store_first(c, x, count);
            }
        }
    }
}

#[cfg(test)]
mod tests;
