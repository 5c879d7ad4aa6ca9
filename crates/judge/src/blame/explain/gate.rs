//! Gated layers: a product of what was bent and what was not.

use architecture::{Activation, Op};
use candle_core::{Result, Tensor};

use super::attempts::Attempts;
use super::formulas::activated;
use super::{Evidence, activation};

/// What a gated product is made of.
struct Gate {
    /// What is bent, by what, and what it is multiplied with.
    bent: Tensor,
    function: Activation,
    other: Tensor,
}

impl Gate {
    fn of(evidence: &Evidence<'_>, step: usize) -> Result<Option<Self>> {
        let [a, b] = [evidence.fed(step, 0)?, evidence.fed(step, 1)?];
        let function = |step: usize| match evidence.program.steps[step].op {
            Op::Activation { function, .. } => Some(function),
            _ => None,
        };
        let (gate, other) = if function(a).is_some() { (a, b) } else { (b, a) };
        let Some(function) = function(gate) else { return Ok(None) };
        Ok(Some(Self { bent: evidence.given(gate)?, function, other: evidence.value(other)? }))
    }
}

/// The formula with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, step: usize) -> Result<Tensor> {
    match Gate::of(evidence, step)? {
        Some(Gate { bent, function, other }) => activated(function, &bent)? * other,
        None => candle_core::bail!("{} is no gate", evidence.path(step)),
    }
}

pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let module = evidence.path(step);
    let Some(Gate { bent, function, other }) = Gate::of(evidence, step)? else { return Ok(()) };
    let gate = activated(function, &bent)?;
    let mut offer = |text: &str, value: &Tensor| attempts.offer(module, text, value);
    offer("the other half is bent", &(&bent * activated(function, &other)?)?)?;
    offer("both halves are bent", &(&gate * activated(function, &other)?)?)?;
    offer("the gate is missing", &other)?;
    offer("only the gate is left", &gate)?;
    offer("the gate is added, not multiplied", &(&gate + &other)?)?;
    activation::others(function, &bent, &mut |text, value| offer(text, &(value * &other)?))?;
    Ok(())
}
