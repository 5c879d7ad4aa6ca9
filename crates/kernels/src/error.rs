use thiserror::Error;

/// Why a kernel was not run. But for [`KernelError::VarianceOverflow`] nothing has been written to
/// its output then.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum KernelError {
    /// A slice is shorter than the matrix that it is to hold.
    #[error("{rows} × {columns} numbers with row stride {stride} do not fit into a slice of {len}")]
    SliceTooShort { rows: usize, columns: usize, stride: usize, len: usize },
    /// A row stride below the number of columns: rows would overlap.
    #[error("row stride {stride} is smaller than a row of {columns} columns")]
    RowsOverlap { columns: usize, stride: usize },
    /// Two elements of a matrix to pack would lie in the same place.
    #[error(
        "with strides {row_stride} and {column_stride} elements of a {rows} × {columns} matrix share a place: one stride must step over the other axis"
    )]
    ElementsOverlap { rows: usize, columns: usize, row_stride: usize, column_stride: usize },
    /// More than the address space, or what the system gives of it, can hold.
    #[error("no memory can be had for {what}: give less at once")]
    TooLarge { what: &'static str },
    /// More threads than any machine has cores.
    #[error("a pool of {asked} threads was asked for; {most} are the most")]
    TooManyThreads { asked: usize, most: usize },
    /// A row is so large that its variance is beyond f32.
    #[error("a row of the LayerNorm is so large that its variance overflows f32: compute it in f64")]
    VarianceOverflow,
    /// Two sizes that must be equal are not.
    #[error("{what} is {found}, but must be {expected}")]
    Size { what: &'static str, found: usize, expected: usize },
    /// The heads do not share the columns evenly.
    #[error("{columns} columns cannot be shared by {heads} heads of equal size")]
    Heads { heads: usize, columns: usize },
    /// The offsets of the sequences do not rise from 0 to the number of rows.
    #[error("sequence offsets must rise from 0 to the number of rows, {rows}; offset {index} is {offset}")]
    Offsets { index: usize, offset: usize, rows: usize },
    /// More keys than the sequence has rows.
    #[error("sequence {sequence} has {rows} rows, but its key length is {length}")]
    KeyLength { sequence: usize, length: usize, rows: usize },
    /// An index outside a table.
    #[error("index {index} at position {position} is outside a table of {rows} rows")]
    IndexOutOfRange { index: i64, position: usize, rows: usize },
    /// The weights were packed for another instruction set.
    #[error(
        "the matrix was packed for {packed}, but these kernels use {used}: pack it with the kernels that multiply by it"
    )]
    PackedFor { packed: &'static str, used: &'static str },
    /// The CPU has no such instructions.
    #[error("this CPU does not offer {isa}; `Isa::detect()` gives what it offers")]
    IsaUnavailable { isa: &'static str },
    /// The system gave no thread.
    #[error("cannot start a thread of the pool: {0}")]
    Thread(#[from] std::io::Error),
}

pub(crate) fn same(what: &'static str, found: usize, expected: usize) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::Size { what, found, expected }) }
}
