//! Linear layers.

use architecture::Op;
use candle_core::{D, Result, Tensor};

use super::attempts::{Attempts, Emit};
use super::formulas::{Grid, dense};
use super::{Evidence, shown, token};

/// From how many positions a fit of one number is evidence: two would always be met halfway.
const ENOUGH_POSITIONS: usize = 3;

/// One dense module.
struct Dense {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    fn of(evidence: &Evidence<'_>, step: usize) -> Result<Self> {
        Ok(Self {
            x: evidence.given(step)?,
            weight: evidence.parameter(step, "weight")?,
            bias: evidence.parameter(step, "bias")?,
        })
    }
}

pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let module = evidence.path(step);
    if variants(evidence, step, &mut |text, value| attempts.offer(module, text, value))? {
        return Ok(());
    }
    let parts = Dense::of(evidence, step)?;
    if !fitted(module, &parts, attempts)? {
        one_weight(&parts, attempts)?;
    }
    Ok(())
}

/// One number for the whole weight, as a wrong scale or zero point of int8 is.
fn fitted(module: &str, Dense { x, weight, bias }: &Dense, attempts: &mut Attempts) -> Result<bool> {
    let product = dense(x, weight, None)?;
    let scale = attempts.ratio(&attempts.found.broadcast_sub(bias)?, &product)?;
    let mut explained = false;
    if scale.is_finite() {
        let value = (&product * scale)?.broadcast_add(bias)?;
        explained |=
            attempts.offer(module, &format!("weight scaled by {}, the bias not", shown(scale)), &value)?;
    }
    let sums = x.sum_keepdim(D::Minus1)?.broadcast_as(product.shape())?;
    let shift = attempts.ratio(&(&attempts.found - &attempts.expected)?, &sums)?;
    if shift.is_finite() {
        let value = (&attempts.expected + (sums * shift)?)?;
        let text = format!("all of the weight shifted by {}, as by another zero point", shown(shift));
        explained |= attempts.offer(module, &text, &value)?;
    }
    Ok(explained)
}

/// The formula with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, step: usize) -> Result<Tensor> {
    let (x, weight, bias) = parts(evidence, step)?;
    dense(&x, &weight, Some(&bias))
}

/// Input, weight and bias.
#[cfg(test)]
pub(super) fn parts(evidence: &Evidence<'_>, step: usize) -> Result<(Tensor, Tensor, Tensor)> {
    let Dense { x, weight, bias } = Dense::of(evidence, step)?;
    Ok((x, weight, bias))
}

/// Tries the variants of a dense module that no value shows, by what `after` makes of them.
pub(super) fn blame(
    evidence: &Evidence<'_>,
    step: usize,
    attempts: &mut Attempts,
    after: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    if matches!(evidence.program.steps[step].op, Op::Linear { .. }) {
        let module = evidence.path(step);
        variants(evidence, step, &mut |text, value| attempts.offer(module, text, &after(value)?))?;
    }
    Ok(())
}

/// Everything that may be wrong with a dense module, but for what must be read off its own output.
pub(super) fn variants(evidence: &Evidence<'_>, step: usize, emit: &mut Emit<'_>) -> Result<bool> {
    let parts = Dense::of(evidence, step)?;
    let Dense { x, weight, bias } = &parts;
    let mut explained = emit("bias left out", &dense(x, weight, None)?)?;
    explained |= emit("bias added twice", &dense(x, weight, Some(&(bias * 2.)?))?)?;
    explained |= emit("bias subtracted", &dense(x, weight, Some(&bias.neg()?))?)?;
    let (outputs, inputs) = weight.dims2()?;
    if outputs == inputs {
        explained |= emit("weight left out: the input goes through as it is", x)?;
        explained |= emit("weight transposed", &dense(x, &weight.t()?.contiguous()?, Some(bias))?)?;
    }
    if explained || others_weights(evidence, step, &parts, emit)? {
        return Ok(true);
    }
    let before = evidence.fed(step, 0)?;
    if matches!(evidence.program.steps[before].op, Op::Token { .. }) {
        explained |=
            token::others(evidence, before, &mut |text, x| emit(text, &dense(x, weight, Some(bias))?))?;
    } else {
        // What it is given itself is among them, under another name or its own, and explains nothing.
        for other in evidence.neighbours(evidence.path(step), x.dims()) {
            let text = format!("takes {other} as its input");
            explained |= emit(&text, &dense(&evidence.tap(other)?, weight, Some(bias))?)?;
        }
    }
    Ok(explained || rounded(&parts, emit)?)
}

fn others_weights(
    evidence: &Evidence<'_>,
    step: usize,
    Dense { x, weight, bias }: &Dense,
    emit: &mut Emit<'_>,
) -> Result<bool> {
    let mut explained = false;
    let product = dense(x, weight, None)?;
    let is_linear = |op: &Op| matches!(op, Op::Linear { .. });
    for step in evidence.others(step, "weight", weight.dims(), is_linear) {
        let other = evidence.path(step);
        let product = dense(x, &evidence.parameter(step, "weight")?, None)?;
        let its_bias = evidence.parameter(step, "bias")?;
        explained |= emit(&format!("has the weights of {other}"), &product.broadcast_add(&its_bias)?)?;
        explained |=
            emit(&format!("has the weight of {other}, its own bias"), &product.broadcast_add(bias)?)?;
    }
    for step in evidence.others(step, "bias", bias.dims(), |_| true) {
        let bias = evidence.parameter(step, "bias")?;
        let text = format!("has the bias of {}", evidence.path(step));
        explained |= emit(&text, &product.broadcast_add(&bias)?)?;
    }
    Ok(explained)
}

fn rounded(Dense { x, weight, bias }: &Dense, emit: &mut Emit<'_>) -> Result<bool> {
    let mut explained = false;
    for (grid, name) in Grid::ALL {
        let round = grid.round(weight)?;
        explained |= emit(&format!("weight rounded to {name}"), &dense(x, &round, Some(bias))?)?;
    }
    for (grid, name) in Grid::HALVES {
        let (weight, bias) = (grid.round(weight)?, grid.round(bias)?);
        explained |= emit(&format!("weight and bias rounded to {name}"), &dense(x, &weight, Some(&bias))?)?;
    }
    for (grid, name) in Grid::HALVES {
        let (x, weight) = (grid.round(x)?, grid.round(weight)?);
        let product = dense(&x, &weight, None)?;
        explained |= emit(&format!("matrix product of {name}"), &product.broadcast_add(bias)?)?;
        // All of it: inputs, product, sum.
        let all = grid.round(&grid.round(&product)?.broadcast_add(&grid.round(bias)?)?)?;
        explained |= emit(&format!("computed in {name}"), &all)?;
    }
    Ok(explained)
}

/// A difference that comes from one element of the weight, or from the elements of one input feature.
///
/// With one weight `[o, i]` off by δ, the output feature o is off by δ·xᵢ at every position.
fn one_weight(Dense { x, .. }: &Dense, attempts: &mut Attempts) -> Result<()> {
    let inputs: Vec<Vec<f64>> = attempts.at_deciding(x)?.to_vec2()?;
    let difference = attempts.difference()?;
    let (Some(first), Some(width)) = (inputs.first(), difference.first().map(Vec::len)) else {
        return Ok(());
    };
    if inputs.len() < ENOUGH_POSITIONS {
        return Ok(());
    }
    let strength = |o: usize| difference.iter().map(|row| row[o] * row[o]).sum::<f64>();
    let Some(strongest) = (0..width).max_by(|&a, &b| strength(a).total_cmp(&strength(b))) else {
        return Ok(());
    };
    // The least squares δ for an output and an input feature, and what it leaves.
    let fit = |o: usize, i: usize| {
        let square: f64 = inputs.iter().map(|row| row[i] * row[i]).sum();
        let along: f64 = inputs.iter().zip(&difference).map(|(x, row)| x[i] * row[o]).sum();
        let delta = if square > 0. { along / square } else { 0. };
        let rest: f64 = inputs.iter().zip(&difference).map(|(x, row)| (row[o] - delta * x[i]).powi(2)).sum();
        (delta, rest)
    };
    let best = (0..first.len()).min_by(|&a, &b| fit(strongest, a).1.total_cmp(&fit(strongest, b).1));
    let Some(i) = best else { return Ok(()) };
    let limit = attempts.bound();
    let differs = |o: &usize| difference.iter().any(|row| row[*o].abs() > limit);
    let features: Vec<usize> = (0..width).filter(differs).collect();
    let deltas: Vec<f64> = (0..width).map(|o| if features.contains(&o) { fit(o, i).0 } else { 0. }).collect();
    let text = match features.as_slice() {
        [o] => format!("weight[{o}, {i}] is off by {:.3e}", deltas[*o]),
        several => format!(
            "column {i} of the weight differs, in {} of {width} outputs, by up to {:.3e}",
            several.len(),
            deltas.iter().fold(0f64, |most, delta| most.max(delta.abs())),
        ),
    };
    let deltas = Tensor::new(deltas, x.device())?;
    let column = x.narrow(D::Minus1, i, 1)?;
    let value = (&attempts.expected + column.broadcast_mul(&deltas)?)?;
    let module = attempts.module().to_owned();
    attempts.offer(&module, &text, &value)?;
    Ok(())
}
