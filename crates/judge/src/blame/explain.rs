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
mod attempts;
mod attention;
mod dense;
mod distances;
mod embeddings;
mod formulas;
mod gate;
mod general;
mod layer_norm;
mod rotary;
mod sum;
mod token;
mod weights;
mod whole;

use std::fmt;

use architecture::{Op, Program, Wire};
use candle_core::{D, DType, Device, Result, Tensor};
use engine::{EngineError, NamedValues, Value};

use crate::ParityError;
use attempts::Attempts;
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
    /// What it is made of.
    pub program: &'a Program,
    /// The id of the padding token.
    pub pad: usize,
    /// Its checkpoint.
    pub weights: &'a Weights,
    /// `input_ids`, and `attention_mask` and `token_type_ids` where the model was given them: i64 `[batch, sequence]`, or `[batch, choices, sequence]`.
    pub inputs: &'a NamedValues,
    /// What every module of [`Program::module_paths`] gave, f64, under its path.
    pub taps: &'a NamedValues,
}

/// One changed thing with which the reference gives what the graph gave.
#[derive(Debug, Clone, PartialEq)]
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

/// Looks for the one changed thing that makes `module` give `found`: what the graph computes for it
/// from the reference's own inputs, f64, in the reference's shape. A table of positions may be
/// `[sequence, hidden]`, `[1, sequence, hidden]` or `[batch, sequence, hidden]`.
///
/// Nothing if `found` is as it should be, is of another shape, is not finite where it decides, or is none of the things that are tried.
///
/// # Errors
/// If `module` is no module path, or one of the values of the evidence is missing or of another
/// shape than the program says.
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
    let Some(mut attempts) = Attempts::new(evidence, module, found)? else { return Ok(None) };
    let attempts = &mut attempts;
    // Containers end with the module whose output is theirs.
    let program = evidence.program;
    let Some(step) = program.module(module).map(|module| module.output) else { return Ok(None) };
    match program.steps[step].op {
        Op::Attention { .. } => attention::explain(evidence, step, attempts)?,
        Op::Activation { .. } => activation::explain(evidence, step, attempts)?,
        Op::LayerNorm { .. } => layer_norm::explain(evidence, step, attempts)?,
        Op::Linear { .. } => dense::explain(evidence, step, attempts)?,
        Op::Embedding { .. } | Op::Positions { .. } => embeddings::explain(evidence, step, attempts)?,
        Op::RelativeBias { .. } => distances::explain(evidence, step, attempts)?,
        Op::Angles { .. } => rotary::angles(evidence, step, attempts)?,
        Op::Rotate { .. } => rotary::explain(evidence, step, attempts)?,
        Op::Product => gate::explain(evidence, step, attempts)?,
        Op::Sum if embeddings::is_sum(program, step) => {
            embeddings::explain_sum(evidence, step, None, attempts)?;
        }
        Op::Sum => sum::explain(evidence, step, None, attempts)?,
        _ => {}
    }
    if !attempts.is_explained() {
        general::explain(evidence, module, attempts)?;
    }
    Ok(attempts.close())
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

    /// What a step gives: what its module gave, or what follows from others.
    fn value(&self, step: usize) -> Result<Tensor> {
        if let Some(module) = self.program.ending_at(step).next() {
            return self.tap(&module.path);
        }
        let op = &self.program.steps[step].op;
        let first = self.given(step)?;
        match *op {
            Op::Sum => (1..self.program.steps[step].inputs.len())
                .try_fold(first, |sum, part| sum.broadcast_add(&self.value(self.fed(step, part)?)?)),
            Op::Token { at } => first.narrow(1, at, 1)?.squeeze(1),
            Op::Activation { function, .. } => formulas::activated(function, &first),
            Op::Part { at, of } => {
                let width = first.dim(D::Minus1)? / of.max(1);
                first.narrow(D::Minus1, at * width, width)?.contiguous()
            }
            _ => candle_core::bail!("the values of a block in {} are missing", self.path(step)),
        }
    }

    /// What a step is given first.
    fn given(&self, step: usize) -> Result<Tensor> {
        self.value(self.fed(step, 0)?)
    }

    /// The step that feeds an input of another.
    fn fed(&self, step: usize, input: usize) -> Result<usize> {
        match self.program.steps[step].inputs.get(input).copied().and_then(Wire::step) {
            Some(before) => Ok(before),
            None => candle_core::bail!("a block in {} is fed by no other", self.path(step)),
        }
    }

    /// The path of the innermost module that a step is the end of, or is in.
    fn path(&self, step: usize) -> &str {
        self.program.place(step)
    }

    /// A parameter of a step; zeros for a bias that it does not have.
    fn parameter(&self, step: usize, name: &str) -> Result<Tensor> {
        match self.program.parameter(step, name) {
            None if name == "bias" => {
                let width = self.program.shapes()[step].width.unwrap_or(1);
                Tensor::zeros(width, DType::F64, &Device::Cpu)
            }
            _ => self.weights.get(self.tensor(step, name)?),
        }
    }

    /// The name of the tensor that is a parameter of a step.
    fn tensor(&self, step: usize, name: &str) -> Result<&str> {
        match self.program.parameter(step, name) {
            Some(tensor) => Ok(&tensor.name),
            None => candle_core::bail!("a block in {} has no {name}", self.path(step)),
        }
    }

    /// Other steps of a kind whose parameter has the shape of this.
    fn others(&self, step: usize, name: &str, shape: &[usize], is: fn(&Op) -> bool) -> Vec<usize> {
        let steps = self.program.steps.iter().enumerate();
        let others = steps.filter(|(other, of)| *other != step && is(&of.op)).map(|(other, _)| other);
        let fits = |other: &usize| {
            let tensors = self.program.steps[*other].op.tensors();
            tensors
                .iter()
                .any(|&(parameter, id)| parameter == name && self.program.tensors[id].shape == shape)
        };
        others.filter(fits).collect()
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
        let own = self.program.layer_of(module);
        let near = |path: &str| match (own, self.program.layer_of(path)) {
            (Some(layer), Some(other)) => layer.abs_diff(other) <= 1,
            (Some(layer), None) => layer == 0,
            (None, _) => true,
        };
        let values = self.taps.iter().filter(|(path, value)| *path != module && value.shape() == shape);
        values.map(|(path, _)| path).filter(|path| near(path)).collect()
    }
}

#[cfg(test)]
mod tests;
