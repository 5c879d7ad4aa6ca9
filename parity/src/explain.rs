//! Why a module of the graph computes something else: hypotheses, tried on the reference.
//!
//! Each is the reference's own formula with one thing changed (another activation, another eps, a bias left out, a mask that is inverted), computed
//! in f64 from the reference's own values. The one that gives what the graph gave is the explanation:
//!
//! ```text
//! gelu = tanh approximation: 3.1e-4 → 2.2e-16
//! ```
//!
//! before the arrow stands how far the graph is from the checkpoint, after it how far from the checkpoint with that one thing changed. A
//! hypothesis that comes near is none: it must leave no more than [`FRACTION`] of the difference, or nothing but rounding ([`NOISE`]).
//!
//! Two faults in one module are not looked for. [`explain_whole`] has the faults that lie between the graph and the one who runs it: inputs or
//! outputs that are exchanged.

mod activation;
mod attention;
mod dense;
mod embeddings;
mod formulas;
mod general;
mod head;
mod layer_norm;
mod pooler;
mod sublayer;
mod trial;
mod weights;
mod whole;

use std::fmt;

use candle_bert::BertConfig;
use candle_core::{Device, Result, Tensor};
use engine::{EngineError, NamedValues, Value};
use serde::Serialize;

use crate::ParityError;
use trial::Trial;

pub use weights::Weights;
pub use whole::explain_whole;

/// A hypothesis may leave this much of the difference. Between two formulas that differ by chance it is rarely below 1e-2 over a few hundred
/// elements; a constant of the graph that is stored as f32 leaves up to 1e-7.
pub const FRACTION: f64 = 1e-6;

/// What is only rounding, relative to the largest value where that is above 1: correct modules in f64 are 1e-15 to 1e-14 off.
pub const NOISE: f64 = 1e-13;

/// However small a difference was: a hypothesis must take away 99 % of it, or it has merely reached rounding from rounding.
const SMALLEST_GAIN: f64 = 1e-2;

/// However large a difference was: no more than this may be left, relative to the largest value where that is above 1. It is f32's own
/// precision: what is left where the graph has the changed thing as f32 constants or weights, with no room for a formula that is another one.
const LARGEST_REST: f64 = f32::EPSILON as f64;

/// What is known about the reference on one input.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Its config.json.
    pub config: &'a BertConfig,
    /// Its checkpoint.
    pub weights: &'a Weights,
    /// `input_ids`, and `attention_mask` and `token_type_ids` where the model was given them: i64 `[batch, sequence]`, or `[batch, choices, sequence]`.
    pub inputs: &'a NamedValues,
    /// What every module of [`candle_bert::BertForTask::module_paths`] gave, f64, under its path.
    pub taps: &'a NamedValues,
}

/// One changed thing with which the reference gives what the graph gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The thing, in words: `bias left out`.
    pub text: String,
    /// The largest |reference − graph| at the positions that decide.
    pub before: f64,
    /// The same with the thing changed. Where the text only says what differs (`only output feature 17 differs`), the largest one elsewhere.
    pub after: f64,
    /// The module that is to blame, if it is another than the one that was asked about: a part of it, or the one it is the end of.
    pub module: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "{module}: ")?;
        }
        write!(f, "{}", self.text)?;
        // Outputs of other names or shapes had no distance before.
        if self.before.is_finite() {
            write!(f, ": {:.1e} → {:.1e}", self.before, self.after)?;
        }
        Ok(())
    }
}

/// Looks for the one changed thing that makes `module` give `found`: what the graph computes for it from the reference's own inputs, f64, in the
/// reference's shape. `embeddings.position_embeddings` may be `[sequence, hidden]`, `[1, sequence, hidden]` or `[batch, sequence, hidden]`.
///
/// Nothing if `found` is as it should be, is of another shape, is not finite where it decides, or is none of the things that are tried.
///
/// # Errors
/// If `module` is no module path, or one of the values of the evidence is missing or of another shape than the config says.
pub fn explain(
    evidence: &Evidence<'_>,
    module: &str,
    found: &Value,
) -> std::result::Result<Option<Explanation>, ParityError> {
    if !evidence.taps.contains(module) {
        return Err(EngineError::UnknownValue { name: module.into() }.into());
    }
    find(evidence, module, found).map_err(|error| EngineError::Backend(error.into()).into())
}

fn find(evidence: &Evidence<'_>, module: &str, found: &Value) -> Result<Option<Explanation>> {
    let Some(mut trial) = Trial::new(evidence, module, found)? else { return Ok(None) };
    let trial = &mut trial;
    // Containers end with the module whose output is theirs.
    let last = evidence.config.num_hidden_layers.saturating_sub(1);
    let end = match module {
        "encoder" => format!("encoder.layer.{last}.output"),
        _ if module.ends_with(".attention") => format!("{module}.output"),
        _ if matches!(layer_of(module), Some((_, ""))) => format!("{module}.output"),
        _ => module.into(),
    };
    match layer_of(&end) {
        Some((layer, "attention.self")) => attention::explain(evidence, layer, trial)?,
        Some((layer, "intermediate")) => activation::explain(evidence, layer, trial)?,
        Some((_, part)) if part.ends_with("output") => sublayer::explain(evidence, &end, trial)?,
        Some((_, part)) if part.ends_with("LayerNorm") => {
            sublayer::explain(evidence, end.trim_end_matches(".LayerNorm"), trial)?;
        }
        Some(_) => dense::explain(evidence, &end, trial)?,
        None => match end.as_str() {
            "embeddings" | "embeddings.LayerNorm" => embeddings::explain(evidence, trial)?,
            "pooler" => pooler::explain(evidence, trial)?,
            "pooler.dense" => dense::explain(evidence, &end, trial)?,
            head if head::is_dense(head) => dense::explain(evidence, head, trial)?,
            head if head.strip_suffix(".LayerNorm").unwrap_or(head) == head::TRANSFORM => {
                head::explain_transform(evidence, trial)?;
            }
            table => embeddings::explain_table(evidence, table, trial)?,
        },
    }
    if !trial.is_explained() {
        general::explain(evidence, module, trial)?;
    }
    Ok(trial.close())
}

/// The layer that a module is in, and its path from there: `(1, "attention.self")`; empty for the layer itself.
fn layer_of(module: &str) -> Option<(usize, &str)> {
    let rest = module.strip_prefix("encoder.layer.")?;
    let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
    Some((layer.parse().ok()?, part))
}

/// How much a hypothesis may leave of a difference, in the presence of values as large as `scale`, which is at least 1.
fn bound(before: f64, scale: f64) -> f64 {
    (FRACTION * before).max(NOISE * scale).min(SMALLEST_GAIN * before).min(LARGEST_REST * scale)
}

/// A number to five digits.
fn shown(x: f64) -> String {
    let x: f64 = format!("{x:.4e}").parse().unwrap_or(x);
    if x == 0. || (1e-3..1e5).contains(&x.abs()) { format!("{x}") } else { format!("{x:e}") }
}

impl Evidence<'_> {
    /// What a module gave.
    fn tap(&self, path: &str) -> Result<Tensor> {
        match self.taps.get(path) {
            Some(value) => value.to_tensor(&Device::Cpu),
            None => candle_core::bail!("the values of {path} are missing"),
        }
    }

    /// What goes into a layer.
    fn hidden(&self, layer: usize) -> Result<Tensor> {
        match layer.checked_sub(1) {
            None => self.tap("embeddings"),
            Some(before) => self.tap(&format!("encoder.layer.{before}")),
        }
    }

    /// Batch and sequence; several choices for a text are as many rows.
    fn dims(&self) -> Result<(usize, usize)> {
        match self.inputs.get("input_ids").map(Value::shape) {
            Some(&[batch, sequence]) => Ok((batch, sequence)),
            Some(&[batch, choices, sequence]) => Ok((batch * choices, sequence)),
            _ => {
                candle_core::bail!("input_ids must be there, [batch, sequence] or [batch, choices, sequence]")
            }
        }
    }

    /// An input of `[batch, sequence]` elements, or `default` throughout where it was not given.
    fn input(&self, name: &str, default: f64) -> Result<Vec<f64>> {
        let (batch, sequence) = self.dims()?;
        match self.inputs.get(name) {
            None => Ok(vec![default; batch * sequence]),
            Some(value) if value.len() == batch * sequence => Ok(value.to_f64()),
            Some(_) => candle_core::bail!("{name} must have the shape of input_ids"),
        }
    }

    /// 1 for a token and 0 for padding, row by row.
    fn mask(&self) -> Result<Vec<f64>> {
        self.input("attention_mask", 1.)
    }

    /// The modules other than `module` whose outputs have its shape, of the layers next to its own: what a wrong wire would plausibly lead to.
    fn neighbours(&self, module: &str, shape: &[usize]) -> Vec<&str> {
        let layer = layer_of(module).map_or(-1, |(layer, _)| layer as i64);
        let near = |path: &str| match layer_of(path) {
            Some((other, _)) => layer < 0 || (other as i64 - layer).abs() <= 1,
            None => layer <= 0,
        };
        let values = self.taps.iter().filter(|(path, value)| *path != module && value.shape() == shape);
        values.map(|(path, _)| path).filter(|path| near(path)).collect()
    }
}

#[cfg(test)]
mod tests;
