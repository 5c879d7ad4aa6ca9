//! The kernels under the compiled engine: f32, on the CPU, with the numbers of the formulas and nothing approximate.
//!
//! [`Kernels`] is the handle: which instructions ([`Isa`]) and which threads ([`Pool`]). Its methods are the kernels:
//!
//! * [`Kernels::gemm`]: a matrix times packed weights ([`PackedMatrix`]), with bias, activation and residual ([`Epilogue`]);
//! * [`Kernels::attention`]: per sequence and head, over padded or packed batches ([`Attention`]);
//! * [`Kernels::layer_norm`], [`Kernels::layer_norm_in_place`], [`Kernels::embeddings_layer_norm`], [`Kernels::gather`];
//! * [`Kernels::softmax`], [`Kernels::unary`], [`Kernels::gate`].
//!
//! Any slice will do for numbers; those in a [`Buffer`] are read faster.
//!
//! **The same bits, always.** What stands in a row of a result depends on that row's inputs, on the weights and on the [`Isa`]. It does
//! not depend on the number of threads, on the number of rows, on the row's place, its neighbours or its padding: every sum has one order,
//! which nothing but its own length decides.
//!
//! No kernel allocates (a rayon pool does, now and then, when it is called from outside); [`Kernels::attention`] takes its scratch from the caller.
//!
//! ```
//! use kernels::{Epilogue, Kernels, Rows, RowsMut, Unary};
//!
//! let kernels = Kernels::new(2)?;
//! // A torch Linear keeps its weight as [outputs, inputs]: 2 outputs of 3 inputs.
//! let weight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let packed = kernels.pack(&[kernels::Source::transposed(&weight, 3, 2)?])?;
//!
//! let x = [1.0, 0.0, -1.0];
//! let mut y = [0.0; 2];
//! let epilogue = Epilogue { bias: Some(&[0.5, 3.0]), activation: Some(Unary::Relu), residual: None };
//! kernels.gemm(Rows::new(&x, 1, 3)?, &packed, &epilogue, &mut RowsMut::new(&mut y, 1, 2)?)?;
//! assert_eq!(y, [0.0, 1.0]);
//! # Ok::<(), kernels::KernelError>(())
//! ```
#![allow(unsafe_code, reason = "vector instructions, and tasks that write disjoint parts of one output")]

mod attention;
mod buffer;
mod elementwise;
mod error;
mod gemm;
mod isa;
mod math;
#[cfg(test)]
mod naive;
mod norm;
mod pack;
mod pool;
mod rows;
#[cfg(test)]
mod sample;
mod share;
mod simd;
mod tile;

use std::sync::Arc;

pub use attention::{Attention, Bias, KeyMask, Meets, Rotary};
pub use buffer::Buffer;
pub use elementwise::Unary;
pub use error::KernelError;
pub use gemm::Epilogue;
pub use isa::Isa;
pub use norm::Gather;
pub use pack::{PackedMatrix, Source};
pub use pool::Pool;
pub use rows::{Rows, RowsMut};

/// The kernels, for one instruction set and one pool of threads. Cheap to clone; a clone shares the threads.
#[derive(Clone, Debug)]
pub struct Kernels {
    isa: Isa,
    pool: Arc<Pool>,
}

impl Kernels {
    /// The widest instructions of this CPU, on `threads` threads of their own, of which the caller is one.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        Ok(Self { isa: Isa::detect(), pool: Arc::new(Pool::new(threads)?) })
    }

    /// These instructions on this pool.
    ///
    /// # Errors
    /// If the CPU does not offer the instructions.
    pub fn with(isa: Isa, pool: Arc<Pool>) -> Result<Self, KernelError> {
        isa.check()?;
        Ok(Self { isa, pool })
    }

    /// The same kernels on the calling thread alone: the same bits, and matrices packed by one are good for the other.
    ///
    /// For use within a task of [`Pool::run`], where the threads are shared out already. To be made once: it allocates.
    pub fn serial(&self) -> Self {
        Self { isa: self.isa, pool: Arc::new(Pool::serial()) }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}
