//! Against what a graph is held.

pub use report::DEFAULT_PROOF_TOL;
use report::Expect;

use crate::compare::decide::Decides;

/// The tolerance of a check unless another is given: the notebook's claim, absolute. It is about
/// one f32 ULP at 8 to 16, so a model with larger activations cannot meet it in f32
/// (all-MiniLM-L6-v2 is 2e-6 to 4e-6 off).
pub const DEFAULT_ATOL: f64 = 1e-6;

/// What passes.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The largest |reference − candidate| that passes in f32; absolute, with no relative part.
    pub atol: f64,
    /// How far both sides may be apart in f64, relative; see [`DEFAULT_PROOF_TOL`].
    pub proof_tol: f64,
    /// Only these outputs, each of which must be there; empty means all that both have.
    pub outputs: Vec<String>,
    /// What the graph was converted to on purpose; see [`crate::proof::convert`]. An output of a
    /// graph in half precision is held against the reference's f32 by its numbers, instead of
    /// differing in dtype.
    pub expect: Expect,
    /// How logits are read, where they are: see [`Decides::of`].
    pub decides: Option<Decides>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            atol: DEFAULT_ATOL,
            proof_tol: DEFAULT_PROOF_TOL,
            outputs: Vec::new(),
            expect: Expect::Exact,
            decides: None,
        }
    }
}
