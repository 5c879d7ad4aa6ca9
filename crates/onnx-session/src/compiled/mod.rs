//! The engine `compiled`: a graph becomes few steps, each a kernel, and a run is a loop over them.
//!
//! A graph is read once into values and nodes by number. Constants are folded; shapes are found as far as they are products of numbers and of the inputs'
//! dimensions; masks and positions are understood by what they compute. Then passes ([`Passes::names`]) make few nodes of many, matrices are packed, buffers are
//! assigned. What no kernel knows runs, node by node, as the oracle runs it, in f32: so this engine runs what the oracle runs, and is fast where the
//! graph is a BERT or a relative of it. [`CompiledEngine::summary`] says what became of a graph.
//!
//! What depends on the inputs' sizes alone, such as a bias by distances or angles of places, is
//! computed once for each of them and kept for the last few.
//!
//! **What is taken to hold, and is looked at in every run:** that a mask has 0s and 1s only, that
//! sizes are not 0, that inputs which name no dimensions agree about them, that a sequence is not
//! longer than the positions there are, that no row of a LayerNorm is so large that its variance
//! overflows, and that no output is NaN, or of a kernel and infinite. A run in which it does not
//! hold is done by the oracle, in f32.
//!
//! **Any value.** A pass takes only what is the same function for every number that f32 or an
//! integer may be: a `Cast` of ids is computed, a power is matched where its exponent is whole, a
//! row without a real token is what the nodes would make of it, and masked keys are skipped only
//! where the run's own queries and keys show that their scores cannot make up for the mask. What is
//! left are numbers within a factor of eight of f32's largest, where it may matter in which order
//! factors are multiplied.
//!
//! **The same bits.** A row of a result does not depend on the number of threads, on the rest of the batch, on its place in it, or on padding behind it: a
//! key that is masked contributes exactly zero, whether it is skipped or computed.
//!
//! **Padding.** With [`Options::skip_padding`] only real tokens are computed, and the padded
//! positions of an output are zero. It needs a graph of which it is proven that no real token's
//! result depends on a padded one ([`CompiledEngine::can_skip_padding`]), and a batch in which
//! every row has real tokens first and padding after them, and at least one real token. Any other
//! batch is run with its padding, as without the option. What is left out cannot be looked at:
//! where the mask is a number like −10,000, padding is taken to have no larger keys than the real
//! tokens, for which they are looked at.
//!
//! **Memory.** Buffers are kept between runs and grow only for shapes larger than all before.
//! [`CompiledEngine::run_with`] allocates nothing at a shape that was seen, as long as what depends
//! on it alone is kept; [`Engine::run`](::engine::Engine::run) allocates what it hands out.

mod arena;
mod attempt;
mod build;
mod count;
mod dim;
mod engine;
mod facts;
mod infer;
mod ir;
mod known;
mod ops;
mod options;
mod passes;
mod plan;
mod reach;
mod run;
mod share;
mod sized;
mod step;
mod summary;

pub use self::engine::{CompiledEngine, StepInfo};
pub use self::known::{Dim, Known};
pub use self::summary::Summary;
pub use ::kernels::Pool;
pub use options::{Options, Passes, Threads, UnknownPass};
