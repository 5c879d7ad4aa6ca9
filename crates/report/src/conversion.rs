//! What a conversion on purpose costs.

use serde::{Deserialize, Serialize};

use crate::Expect;

/// What a conversion on purpose costs: the graph as it runs, against the checkpoint itself in f64.
/// It decides nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversion {
    /// What the graph was said to be.
    pub expect: Expect,
    /// For each output, on the oracle, which rounds where the graph says so and nowhere else, and
    /// on each engine.
    pub loss: Vec<Loss>,
}

/// How far an output is from what the checkpoint itself gives in f64, over all inputs, at the
/// positions that decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// What ran the graph.
    pub engine: String,
    /// The output.
    pub output: String,
    /// The largest |checkpoint − graph|; null if a value is not finite, or none was compared.
    pub max_abs: Option<f64>,
    /// That, over the largest |checkpoint|.
    pub max_rel: Option<f64>,
    /// The mean |checkpoint − graph|.
    pub mean_abs: Option<f64>,
    /// The cosine of the angle between both, as vectors.
    pub cosine: Option<f64>,
    /// The input with the largest difference.
    pub worst_input: Option<String>,
    /// How many elements were compared.
    pub compared: usize,
}

impl Conversion {
    /// What stands after the checkpoint's name in a sentence.
    pub(crate) fn of_checkpoint(&self) -> &'static str {
        match self.expect {
            Expect::Exact => "",
            Expect::F16 => ", rounded to half precision,",
            Expect::Int8 => ", quantized to eight bits,",
            Expect::Int4 => ", quantized to four bits,",
        }
    }
}
