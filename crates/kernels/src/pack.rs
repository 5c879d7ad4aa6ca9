//! The right-hand side of a GEMM, laid out once for the kernel that reads it.

use crate::{Buffer, Isa, KernelError, Kernels, error::same, share::Shared, simd::panel_width};

/// A K×N matrix to pack, read from wherever it lies: element (k, n) is `data[k * row_stride + n * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    data: &'a [f32],
    k: usize,
    n: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Source<'a> {
    /// A matrix of `k` rows and `n` columns, row after row, as ONNX's MatMul takes its weight.
    ///
    /// # Errors
    /// If the slice is too short.
    pub fn new(data: &'a [f32], k: usize, n: usize) -> Result<Self, KernelError> {
        Self::strided(data, k, n, n, 1)
    }

    /// A K×N matrix that lies transposed, as N rows of K: the weight of a torch Linear, or of a Gemm with `transB`.
    ///
    /// # Errors
    /// If the slice is too short.
    pub fn transposed(data: &'a [f32], k: usize, n: usize) -> Result<Self, KernelError> {
        Self::strided(data, k, n, 1, k)
    }

    /// A K×N matrix with other strides. No two elements may lie in the same place, so that it is
    /// never larger than the slice.
    ///
    /// # Errors
    /// If the slice is too short, or elements share a place.
    pub fn strided(
        data: &'a [f32],
        k: usize,
        n: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Result<Self, KernelError> {
        // How far the last row, or column, lies behind the first.
        let reach = |count: usize, stride: usize| count.saturating_sub(1).checked_mul(stride);
        if k > 0 && n > 0 {
            let (down, across) = (reach(k, row_stride), reach(n, column_stride));
            let last = down.zip(across).and_then(|(down, across)| down.checked_add(across));
            if last.is_none_or(|last| last >= data.len()) {
                return Err(KernelError::SliceTooShort {
                    rows: k,
                    columns: n,
                    stride: row_stride,
                    len: data.len(),
                });
            }
            // Of the two axes one steps over all of the other.
            let steps_over = |count: usize, stride: usize, other: Option<usize>| {
                count == 1 || other.is_some_and(|other| stride > other)
            };
            let by_rows = steps_over(k, row_stride, across) && steps_over(n, column_stride, Some(0));
            let by_columns = steps_over(n, column_stride, down) && steps_over(k, row_stride, Some(0));
            if !by_rows && !by_columns {
                return Err(KernelError::ElementsOverlap { rows: k, columns: n, row_stride, column_stride });
            }
        }
        Ok(Self { data, k, n, row_stride, column_stride })
    }

    fn at(&self, k: usize, n: usize) -> f32 {
        self.data[k * self.row_stride + n * self.column_stride]
    }
}

/// The right-hand side of a GEMM, K×N: see [`Kernels::pack`].
///
/// It lies in panels of as many columns as the kernel sums at once, each panel row after row; behind column N there are zeros.
#[derive(Debug)]
pub struct PackedMatrix {
    isa: Isa,
    k: usize,
    n: usize,
    data: Buffer,
}

impl PackedMatrix {
    /// Rows: the columns of the matrix it is multiplied by.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns, padding not counted.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Memory that it holds.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.data)
    }

    /// Its panels, one after the other.
    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }

    pub(crate) fn check(&self, isa: Isa) -> Result<(), KernelError> {
        if self.isa == isa {
            Ok(())
        } else {
            Err(KernelError::PackedFor { packed: self.isa.name(), used: isa.name() })
        }
    }
}

impl Kernels {
    /// Packs matrices side by side into one: all have the same K, and N is the sum of theirs. So the weights of queries, keys and values
    /// become one GEMM.
    ///
    /// # Errors
    /// If the matrices differ in K, there is none, or there is no memory for them.
    pub fn pack(&self, sources: &[Source<'_>]) -> Result<PackedMatrix, KernelError> {
        let Some(first) = sources.first() else {
            return Err(KernelError::Size { what: "the number of matrices to pack", found: 0, expected: 1 });
        };
        let k = first.k;
        for source in sources {
            same("K of a matrix to pack", source.k, k)?;
        }
        const WHAT: &str = "a packed matrix";
        let n = sources.iter().try_fold(0usize, |n, source| n.checked_add(source.n));
        let n = n.ok_or(KernelError::TooLarge { what: WHAT })?;
        let width = panel_width(self.isa());
        let panels = n.div_ceil(width);
        // `sources` borrows k·n numbers, so this is no more than they take, but for the padding of
        // one panel.
        let numbers = panels.checked_mul(width).and_then(|columns| columns.checked_mul(k));
        let mut packed = Buffer::zeros(numbers.ok_or(KernelError::TooLarge { what: WHAT })?)?;
        let data = Shared::new(&mut packed);
        // Without rows there is nothing to pack, however many columns that is of.
        self.pool().run(if k == 0 { 0 } else { panels }, &|panel| {
            // SAFETY: the panels do not overlap, and all lie within `data`.
            let data = unsafe { data.slice(panel * width * k, width * k) };
            let begin = panel * width;
            let mut before = 0;
            for source in sources {
                for column in begin.max(before)..(begin + width).min(before + source.n) {
                    for row in 0..k {
                        data[row * width + (column - begin)] = source.at(row, column - before);
                    }
                }
                before += source.n;
            }
        });
        Ok(PackedMatrix { isa: self.isa(), k, n, data: packed })
    }
}
