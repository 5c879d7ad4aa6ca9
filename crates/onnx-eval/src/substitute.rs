//! What stands in for a graph's own values in a run: constants as they were meant, and values from elsewhere.

use std::collections::HashMap;

use engine::DType;

use crate::Precision;

/// Constants that a graph could only hold as f32, or in half precision, and the numbers they are the rounding of.
///
/// They are in force where the constant's dtype is not rounded: f32 in [`Precision::F64`](crate::Precision::F64), half precision in
/// [`Precision::Exact`](crate::Precision::Exact) alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Promotions {
    values: HashMap<String, f64>,
    attributes: HashMap<String, HashMap<String, f64>>,
}

impl Promotions {
    /// Every element of a float initializer, or of what a `Constant` gives, is this number.
    pub fn value(&mut self, name: impl Into<String>, number: f64) {
        self.values.insert(name.into(), number);
    }

    /// The float attribute of a node, be it written or left to its default, is this number. In a function, the node's name is
    /// that which [`Oracle::nodes`](crate::Oracle::nodes) gives.
    pub fn attribute(&mut self, node: impl Into<String>, attribute: impl Into<String>, number: f64) {
        self.attributes.entry(node.into()).or_default().insert(attribute.into(), number);
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.values.len() + self.attributes.values().map(HashMap::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn of_value(&self, name: &str, dtype: DType, precision: Precision) -> Option<f64> {
        self.values.get(name).copied().filter(|_| precision.promotes(dtype))
    }

    pub(crate) fn of_attribute(&self, node: &str, attribute: &str) -> Option<f64> {
        self.attributes.get(node)?.get(attribute).copied()
    }
}
