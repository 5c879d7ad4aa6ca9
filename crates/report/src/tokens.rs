//! Where in a text two sides differ: the error at each position.

use serde::{Deserialize, Serialize};

/// How far one side is off at each position of an input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenErrors {
    /// The input.
    pub input: String,
    /// The output, which has a value or a vector for each token.
    pub output: String,
    /// What was held against the checkpoint in f64: `f64` for the graph in f64, or the engine that
    /// ran it.
    pub side: String,
    /// How many rows the input has.
    pub batch: usize,
    /// How many positions each row has.
    pub sequence: usize,
    /// Row by row, the largest |reference − candidate| over what stands at a position; null at
    /// padding, and where a value is not finite.
    pub errors: Vec<Option<f64>>,
    /// The positions, as `[row, position]`, that have a token and a value that is not finite.
    pub not_finite: Vec<[usize; 2]>,
}

impl TokenErrors {
    /// The position with the largest error, as row, position and error; one that is not finite
    /// comes first, as an infinite error.
    pub fn worst(&self) -> Option<(usize, usize, f64)> {
        if let Some(&[row, position]) = self.not_finite.first() {
            return Some((row, position, f64::INFINITY));
        }
        let known = self.errors.iter().enumerate().filter_map(|(at, error)| Some((at, (*error)?)));
        known
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(at, error)| (at / self.sequence, at % self.sequence, error))
    }
}
