//! Where a graph parts from its checkpoint.

use serde::{Deserialize, Serialize};

use crate::read::or_nan;

/// A module that the graph computes otherwise than the checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Culprit {
    /// Its path in the checkpoint, the deepest that is known: `encoder.layer.2.intermediate`.
    pub module: String,
    /// Its own error in f64, when it is given what the reference gives it; null where no value
    /// shows it, or one is not finite.
    pub max_abs: Option<f64>,
    /// The nodes of the graph that compute it, in the order of execution.
    pub nodes: Vec<String>,
    /// What would explain it: `gelu = tanh: 3.1e-4 → 2e-13`.
    pub explanation: Option<String>,
}

/// Where the graph parts from the checkpoint, on one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Located {
    /// The input.
    pub input: String,
    /// Every module, in the order of execution.
    pub modules: Vec<ModuleError>,
}

/// One module: its output in the checkpoint against the value of the graph that carries it, in f64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleError {
    /// Its path in the checkpoint.
    pub module: String,
    /// The graph's value that carries its output; null where none does, as within a fused operator.
    pub value: Option<String>,
    /// The nodes that compute it from what other modules give, in the order of execution.
    pub nodes: Vec<String>,
    /// Its error when it is given what the reference gives it.
    pub own: Option<f64>,
    /// Its error in the plain run: its own, and that of all before it.
    pub inherited: Option<f64>,
    /// The largest |value| of the reference.
    #[serde(deserialize_with = "or_nan")]
    pub scale: f64,
    /// The error of the f32 engine here, where it can be asked for the value.
    pub single: Option<f64>,
    /// Whether it is one of the culprits.
    pub culprit: bool,
    /// Where it stands in a table of all.
    #[serde(default)]
    pub place: ModulePlace,
}

/// Where a module stands in a table of all modules: a row for each layer, a column for each of its
/// parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModulePlace {
    /// The name of the row: `layer 0`, or the part of the model that is no layer.
    pub row: String,
    /// The number of the layer; null outside all.
    pub layer: Option<usize>,
    /// The column, from 0 in each row. Modules of one column are one cell, as a layer norm and what
    /// it ends.
    pub column: usize,
    /// What stands over the column and its neighbours; empty outside layers.
    pub group: String,
    /// What the column is called: `dense`.
    pub label: String,
}

impl ModuleError {
    /// Its own error, over the larger of 1 and the largest value of the reference.
    pub fn relative(&self) -> Option<f64> {
        self.own.filter(|_| self.scale.is_finite()).map(|own| own / self.scale.max(1.0))
    }

    /// Takes in what is known of another value of the same module, such as what it is given: both
    /// are one line.
    pub fn merge(&mut self, other: ModuleError) {
        self.nodes.extend(other.nodes);
        self.culprit |= other.culprit;
        self.own = if other.culprit || self.own.is_none() { other.own } else { self.own };
        self.inherited = other.inherited.or(self.inherited);
        self.value = other.value.or(self.value.take());
    }
}
