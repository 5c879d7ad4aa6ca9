use crate::KernelError;

/// A matrix of f32 to read: rows of `columns` numbers, each `stride` numbers after the one before.
///
/// With a stride above `columns` it is a block of columns of a wider matrix, as a head's share of a row of queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

/// A matrix of f32 to write, laid out as [`Rows`].
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

/// The last row need not have anything behind its last column.
fn check(len: usize, rows: usize, columns: usize, stride: usize) -> Result<(), KernelError> {
    if stride < columns {
        return Err(KernelError::RowsOverlap { columns, stride });
    }
    let needed = match rows {
        0 => Some(0),
        _ => (rows - 1).checked_mul(stride).and_then(|before| before.checked_add(columns)),
    };
    if needed.is_none_or(|needed| needed > len) {
        return Err(KernelError::SliceTooShort { rows, columns, stride, len });
    }
    Ok(())
}

impl<'a> Rows<'a> {
    /// `rows × columns` numbers, row after row.
    ///
    /// # Errors
    /// If the slice is too short.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Result<Self, KernelError> {
        Self::strided(data, rows, columns, columns)
    }

    /// `rows × columns` numbers, the rows `stride` numbers apart.
    ///
    /// # Errors
    /// If the slice is too short or the rows overlap.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Result<Self, KernelError> {
        check(data.len(), rows, columns, stride)?;
        Ok(Self { data, rows, columns, stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row `index`; empty if there is none.
    pub fn row(&self, index: usize) -> &'a [f32] {
        if index < self.rows { &self.data[index * self.stride..][..self.columns] } else { &[] }
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }
}

impl<'a> RowsMut<'a> {
    /// `rows × columns` numbers, row after row.
    ///
    /// # Errors
    /// If the slice is too short.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Result<Self, KernelError> {
        Self::strided(data, rows, columns, columns)
    }

    /// `rows × columns` numbers, the rows `stride` numbers apart; what lies between the rows is left as it is.
    ///
    /// # Errors
    /// If the slice is too short or the rows overlap.
    pub fn strided(
        data: &'a mut [f32],
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> Result<Self, KernelError> {
        check(data.len(), rows, columns, stride)?;
        Ok(Self { data, rows, columns, stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The same matrix, to read.
    pub fn as_rows(&self) -> Rows<'_> {
        Rows { data: self.data, rows: self.rows, columns: self.columns, stride: self.stride }
    }

    /// The rows that have a number at all: none of a matrix without columns, which may have any
    /// number of rows.
    pub(crate) fn written_rows(&self) -> usize {
        if self.columns == 0 { 0 } else { self.rows }
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }

    #[cfg(test)]
    pub(crate) fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.data[index * self.stride..][..self.columns]
    }
}
