use thiserror::Error;

/// Why a kernel was not run. But for [`KernelError::VarianceOverflow`] nothing has been written to
/// its output then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice is shorter than the matrix that it is to hold.
    #[error("{rows} × {columns} numbers with row stride {stride} do not fit into a slice of {len}")]
    SliceTooShort {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Distance between the beginnings of two rows.
        stride: usize,
        /// Length of the slice.
        len: usize,
    },
    /// A row stride below the number of columns: rows would overlap.
    #[error("row stride {stride} is smaller than a row of {columns} columns")]
    RowsOverlap {
        /// Columns of the matrix.
        columns: usize,
        /// Distance between the beginnings of two rows.
        stride: usize,
    },
    /// Two elements of a matrix to pack would lie in the same place.
    #[error(
        "with strides {row_stride} and {column_stride} elements of a {rows} × {columns} matrix share a place: one stride must step over the other axis"
    )]
    ElementsOverlap {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Distance between two rows.
        row_stride: usize,
        /// Distance between two columns.
        column_stride: usize,
    },
    /// More than the address space, or what the system gives of it, can hold.
    #[error("no memory can be had for {what}: give less at once")]
    TooLarge {
        /// What it was for, in the words of the documentation.
        what: &'static str,
    },
    /// More threads than any machine has cores.
    #[error("a pool of {asked} threads was asked for; {most} are the most")]
    TooManyThreads {
        /// Threads that were asked for.
        asked: usize,
        /// Threads that a pool may have.
        most: usize,
    },
    /// A row is so large that its variance is beyond f32.
    #[error("a row of the LayerNorm is so large that its variance overflows f32: compute it in f64")]
    VarianceOverflow,
    /// Two sizes that must be equal are not.
    #[error("{what} is {found}, but must be {expected}")]
    Size {
        /// What has the wrong size, in the words of the kernel's documentation.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The size that the other arguments ask for.
        expected: usize,
    },
    /// The heads do not share the columns evenly.
    #[error("{columns} columns cannot be shared by {heads} heads of equal size")]
    Heads {
        /// Number of heads.
        heads: usize,
        /// Columns of the query matrix.
        columns: usize,
    },
    /// The offsets of the sequences do not rise from 0 to the number of rows.
    #[error("sequence offsets must rise from 0 to the number of rows, {rows}; offset {index} is {offset}")]
    Offsets {
        /// Which offset.
        index: usize,
        /// The offset.
        offset: usize,
        /// Rows of the query matrix.
        rows: usize,
    },
    /// More keys than the sequence has rows.
    #[error("sequence {sequence} has {rows} rows, but its key length is {length}")]
    KeyLength {
        /// Which sequence.
        sequence: usize,
        /// The key length given for it.
        length: usize,
        /// Its number of rows.
        rows: usize,
    },
    /// An index outside a table.
    #[error("index {index} at position {position} is outside a table of {rows} rows")]
    IndexOutOfRange {
        /// The index.
        index: i64,
        /// Where among the indices it stands.
        position: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// The weights were packed for another instruction set.
    #[error(
        "the matrix was packed for {packed}, but these kernels use {used}: pack it with the kernels that multiply by it"
    )]
    PackedFor {
        /// The instruction set it was packed for.
        packed: &'static str,
        /// The instruction set of these kernels.
        used: &'static str,
    },
    /// The CPU has no such instructions.
    #[error("this CPU does not offer {isa}; `Isa::detect()` gives what it offers")]
    IsaUnavailable {
        /// The instruction set that was asked for.
        isa: &'static str,
    },
    /// The system gave no thread.
    #[error("cannot start a thread of the pool: {0}")]
    Thread(#[from] std::io::Error),
}

pub(crate) fn same(what: &'static str, found: usize, expected: usize) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::Size { what, found, expected }) }
}
