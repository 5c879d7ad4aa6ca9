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

    /// A K×N matrix with any strides.
    ///
    /// # Errors
    /// If the slice is too short.
    pub fn strided(
        data: &'a [f32],
        k: usize,
        n: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Result<Self, KernelError> {
        let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
        let needed = match (k, n) {
            (0, _) | (_, 0) => Some(0),
            _ => last(k, row_stride)
                .zip(last(n, column_stride))
                .and_then(|(down, across)| down.checked_add(across)?.checked_add(1)),
        };
        if needed.is_none_or(|needed| needed > data.len()) {
            return Err(KernelError::SliceTooShort {
                rows: k,
                columns: n,
                stride: row_stride,
                len: data.len(),
            });
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
#[derive(Clone, Debug)]
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
    /// If the matrices differ in K, or there is none.
    pub fn pack(&self, sources: &[Source<'_>]) -> Result<PackedMatrix, KernelError> {
        let Some(first) = sources.first() else {
            return Err(KernelError::Size { what: "the number of matrices to pack", found: 0, expected: 1 });
        };
        let k = first.k;
        for source in sources {
            same("K of a matrix to pack", source.k, k)?;
        }
        let n: usize = sources.iter().map(|source| source.n).sum();
        let width = panel_width(self.isa());
        let panels = n.div_ceil(width);
        // `sources` borrows at least k·n numbers, so this is no more than they take, but for the padding of one panel.
        let mut packed = Buffer::zeros(panels * width * k);
        let data = Shared::new(&mut packed);
        self.pool().run(panels, &|panel| {
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
