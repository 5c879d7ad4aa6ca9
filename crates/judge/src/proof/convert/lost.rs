//! What a quantized activation loses of its values, where its scale is that of others: calibration
//! saw a mask, say, whose −3.4e38 leaves one step for all scores.

use engine::{Engine, NamedValues};
use onnx_eval::Oracle;
use onnx_graph::Model;

use super::floats::{Activation, in_floats};
use crate::inputs::{Case, fit_inputs};

/// Scores, probabilities and hidden states of a BERT are far within this: what is beyond is a mask.
const MASK: f64 = 1e4;

/// A quantized activation whose values are lost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lost {
    /// The node that quantizes it.
    pub node: String,
    /// What happens to it, as a sentence.
    pub sentence: String,
}

/// The activations of which all values but a mask become one number, in the order of execution.
/// `oracle` is the model in floats.
pub(crate) fn lost(model: &Model, oracle: &Oracle, case: &Case) -> Vec<Lost> {
    let Ok(floats) = in_floats(model) else { return Vec::new() };
    let Ok(inputs) = fit_inputs(&case.inputs, oracle.inputs()) else { return Vec::new() };
    let names: Vec<&str> = floats.activations.iter().map(|activation| activation.value.as_str()).collect();
    let Ok(values) = oracle.run_for(&inputs, &names) else { return Vec::new() };
    floats.activations.iter().filter_map(|activation| activation.lost(&values)).collect()
}

impl Activation {
    fn lost(&self, values: &NamedValues) -> Option<Lost> {
        let values = values.get(&self.value)?.to_f64();
        let kept = values.into_iter().filter(|x| x.abs() < MASK);
        let (least, greatest) =
            kept.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        // No value, or one for all: nothing is lost.
        if least >= greatest {
            return None;
        }
        let (low, high) = self.range;
        let why = if least > high || greatest < low {
            format!("lie outside its range from {low:.3e} to {high:.3e}")
        } else if (least / self.step).round() == (greatest / self.step).round() {
            format!("become one: its steps are of {:.3e}", self.step)
        } else {
            return None;
        };
        let sentence = format!(
            "'{}' quantizes '{}', whose values from {least:.3} to {greatest:.3} all {why}; leave the node out of \
             the quantization, or calibrate it without the mask",
            self.node, self.value
        );
        Some(Lost { node: self.node.clone(), sentence })
    }
}
