//! Residual connections: what a sublayer gives, and what goes around it. Their sum is normalised,
//! or goes on as it is.

use architecture::Op;
use candle_core::{Result, Tensor};

use super::attempts::Attempts;
#[cfg(test)]
use super::layer_norm;
use super::layer_norm::Normed;
use super::{Evidence, dense};

/// A sum of a projection and what goes around it.
struct Residual {
    /// The step of the projection.
    projection: usize,
    /// The step that goes around it.
    around: usize,
}

impl Residual {
    fn of(evidence: &Evidence<'_>, sum: usize) -> Result<Option<Self>> {
        let [a, b] = evidence.program.steps[sum].inputs.as_slice() else { return Ok(None) };
        let (Some(a), Some(b)) = (a.step(), b.step()) else { return Ok(None) };
        let is_linear = |step: usize| matches!(evidence.program.steps[step].op, Op::Linear { .. });
        Ok(match (is_linear(a), is_linear(b)) {
            (true, _) => Some(Self { projection: a, around: b }),
            (_, true) => Some(Self { projection: b, around: a }),
            _ => None,
        })
    }
}

/// The formula with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, norm: usize) -> Result<Tensor> {
    layer_norm::norm(evidence, norm)?.forward(&evidence.given(norm)?)
}

/// A sum, and the LayerNorm that it is given to if no value shows it before.
pub(super) fn explain(
    evidence: &Evidence<'_>,
    sum_step: usize,
    norm_step: Option<usize>,
    attempts: &mut Attempts,
) -> Result<()> {
    let Some(Residual { projection, around }) = Residual::of(evidence, sum_step)? else { return Ok(()) };
    let (dense, residual) = (evidence.value(projection)?, evidence.value(around)?);
    let sum = (&dense + &residual)?;
    let norm = Normed::of(evidence, norm_step, &sum, attempts)?;
    let normed = |x: &Tensor| norm.forward(x);
    let module = evidence.path(sum_step);
    let mut offer = |text: &str, value: &Tensor| attempts.offer(module, text, value);
    let mut explained = offer("residual connection missing", &normed(&dense)?)?;
    explained |= offer("residual added twice", &normed(&(&sum + &residual)?)?)?;
    explained |= offer("only the residual is left, the sublayer is missing", &normed(&residual)?)?;
    explained |= offer("residual subtracted", &normed(&(&dense - &residual)?)?)?;
    if norm.is_there() {
        explained |=
            offer("LayerNorm before the residual is added (pre-norm)", &(normed(&dense)? + &residual)?)?;
        explained |= offer("LayerNorm of the residual alone", &(normed(&residual)? + &dense)?)?;
    }
    if explained || attempts.is_explained() {
        return Ok(());
    }
    // By the name of the largest module that ends there.
    let source = evidence
        .program
        .ending_at(around)
        .last()
        .map_or_else(|| evidence.path(around), |module| &module.path);
    for other in evidence.neighbours(source, residual.dims()) {
        let value = normed(&(evidence.tap(other)? + &dense)?)?;
        attempts.offer(module, &format!("residual taken from {other}, not from {source}"), &value)?;
    }
    let asked_alone = norm_step.is_some_and(|step| attempts.module() == evidence.path(step));
    if attempts.is_explained() || asked_alone {
        return Ok(());
    }
    dense::blame(evidence, projection, attempts, |value| normed(&(value + &residual)?))
}
