//! LayerNorm.

use architecture::{Activation, Op};
use candle_core::{D, Result, Tensor};

use super::attempts::{Attempts, Emit};
use super::formulas::{Grid, Norm, activated, centred};
use super::{Evidence, activation, dense, embeddings, sum};

/// What exporters, frameworks and fusions put there.
const EPS: [f64; 9] = [0., 1e-5, 1e-6, 1e-12, 1e-7, 1e-8, 1e-3, 1e-4, 1e-10];

/// The LayerNorm of a step.
pub(super) fn norm(evidence: &Evidence<'_>, step: usize) -> Result<Norm> {
    let Op::LayerNorm { eps, .. } = evidence.program.steps[step].op else {
        candle_core::bail!("{} is no LayerNorm", evidence.path(step))
    };
    Ok(Norm { gain: evidence.parameter(step, "weight")?, bias: evidence.parameter(step, "bias")?, eps })
}

/// What follows a sum: its LayerNorm, where no value shows the sum by itself, or nothing.
pub(super) struct Normed(Option<Norm>);

impl Normed {
    /// Tries what may be wrong with the LayerNorm of a sum, if that is the step.
    pub fn of(
        evidence: &Evidence<'_>,
        step: Option<usize>,
        sum: &Tensor,
        attempts: &mut Attempts,
    ) -> Result<Self> {
        let Some(step) = step else { return Ok(Self(None)) };
        variants(evidence, step, sum, attempts)?;
        Ok(Self(Some(norm(evidence, step)?)))
    }

    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
    }
}

/// A LayerNorm, and what it is given where no value shows that by itself.
pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let program = evidence.program;
    let before = evidence.fed(step, 0)?;
    let is_shown = program.ending_at(before).next().is_some_and(|module| !module.is_between());
    match program.steps[before].op {
        _ if is_shown => {
            let x = evidence.value(before)?;
            if !variants(evidence, step, &x, attempts)? {
                let (norm, module) = (norm(evidence, step)?, evidence.path(step));
                for other in evidence.neighbours(module, x.dims()) {
                    let value = norm.forward(&evidence.tap(other)?)?;
                    attempts.offer(module, &format!("takes {other} as its input"), &value)?;
                }
            }
            Ok(())
        }
        Op::Sum if embeddings::is_sum(program, before) => {
            embeddings::explain_sum(evidence, before, Some(step), attempts)
        }
        Op::Sum => sum::explain(evidence, before, Some(step), attempts),
        Op::Activation { function, .. } => of_activation(evidence, step, (before, function), attempts),
        _ => variants(evidence, step, &evidence.value(before)?, attempts).map(|_| ()),
    }
}

/// A normalised activation, as in the transform of a masked language model.
fn of_activation(
    evidence: &Evidence<'_>,
    step: usize,
    (before, act): (usize, Activation),
    attempts: &mut Attempts,
) -> Result<()> {
    let projection = evidence.fed(before, 0)?;
    let projected = evidence.value(projection)?;
    let norm = norm(evidence, step)?;
    let module = evidence.path(before);
    let explained = variants(evidence, step, &activated(act, &projected)?, attempts)?
        || activation::others(act, &projected, &mut |text, value| {
            attempts.offer(module, text, &norm.forward(value)?)
        })?;
    if explained {
        return Ok(());
    }
    dense::blame(evidence, projection, attempts, |value| norm.forward(&activated(act, value)?))
}

/// Everything that may be wrong with a LayerNorm of the input `x`.
pub(super) fn variants(
    evidence: &Evidence<'_>,
    step: usize,
    x: &Tensor,
    attempts: &mut Attempts,
) -> Result<bool> {
    let norm = norm(evidence, step)?;
    let blamed = evidence.path(step);
    let estimate = estimate_eps(&norm, x, attempts)?;
    let emit = &mut |text: &str, value: &Tensor| attempts.offer(blamed, text, value);
    let explained = other_eps(&norm, x, estimate, emit)? | other_parts(&norm, x, emit)?;
    Ok(explained || others_weights(evidence, step, &norm, x, emit)?)
}

fn other_eps(norm: &Norm, x: &Tensor, estimate: Option<f64>, emit: &mut Emit<'_>) -> Result<bool> {
    let mut explained = false;
    let f32s = EPS.iter().map(|&eps| (eps, f64::from(eps as f32)));
    let named = EPS.iter().map(|&eps| (eps, eps)).chain(f32s);
    for (shown, eps) in named.chain(estimate.map(|eps| (eps, eps))) {
        let text = format!("eps {} in the graph, {} in config.json", shown_eps(shown), shown_eps(norm.eps));
        explained |= eps != norm.eps && emit(&text, &Norm { eps, ..norm.clone() }.forward(x)?)?;
    }
    Ok(explained)
}

/// To four digits: as people write it.
fn shown_eps(eps: f64) -> String {
    let short: f64 = format!("{eps:.3e}").parse().unwrap_or(eps);
    format!("{short:e}")
}

/// The eps that the graph has, from the row where it matters most, that of the lowest variance: with y = r (x − μ) · gain + bias, ε = 1/r² − σ².
fn estimate_eps(norm: &Norm, x: &Tensor, attempts: &Attempts) -> Result<Option<f64>> {
    let rows = attempts.at_deciding(x)?;
    let (centred, variance) = centred(&rows)?;
    let shape = centred.broadcast_mul(&norm.gain)?;
    let found = attempts.at_deciding(&attempts.found)?.broadcast_sub(&norm.bias)?;
    let along = (&shape * &found)?.sum(D::Minus1)?.to_vec1::<f64>()?;
    let square = shape.sqr()?.sum(D::Minus1)?.to_vec1::<f64>()?;
    let variance = variance.flatten_all()?.to_vec1::<f64>()?;
    let lowest = variance.iter().enumerate().filter(|(_, variance)| **variance > 0.);
    let Some((row, variance)) = lowest.min_by(|a, b| a.1.total_cmp(b.1)) else { return Ok(None) };
    let eps = (square[row] / along[row]).powi(2) - variance;
    Ok((eps.is_finite() && eps > 0.).then_some(eps))
}

fn other_parts(norm: &Norm, x: &Tensor, emit: &mut Emit<'_>) -> Result<bool> {
    let Norm { gain, bias, eps } = norm;
    let (zero, one) = (bias.zeros_like()?, gain.ones_like()?);
    let with =
        |gain: &Tensor, bias: &Tensor| Norm { gain: gain.clone(), bias: bias.clone(), eps: *eps }.forward(x);
    let (centred, variance) = centred(x)?;
    let root = |variance: &Tensor| (variance + *eps)?.sqrt();
    let n = x.dim(D::Minus1)? as f64;
    let mut explained = emit("bias left out", &with(gain, &zero)?)?;
    explained |= emit("gain left out", &with(&one, bias)?)?;
    explained |= emit("gain and bias left out", &with(&one, &zero)?)?;
    explained |= emit("bias added twice", &with(gain, &(bias * 2.)?)?)?;
    explained |= emit("gain applied twice", &with(&gain.sqr()?, bias)?)?;
    explained |= emit("gain and bias exchanged", &with(bias, gain)?)?;
    explained |= emit("LayerNorm left out", x)?;
    let square = x.sqr()?.mean_keepdim(D::Minus1)?;
    explained |= emit("mean not subtracted (RMSNorm)", &norm.finish(x, &root(&square)?)?)?;
    if n > 1. {
        let unbiased = (&variance * (n / (n - 1.)))?;
        explained |= emit("variance divided by n − 1, not n", &norm.finish(&centred, &root(&unbiased)?)?)?;
    }
    if x.rank() == 3 {
        let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let variance = centred.sqr()?.mean_keepdim(1)?;
        let value = norm.finish(&centred, &root(&variance)?)?;
        explained |= emit("normalised over the sequence, not over the features", &value)?;
    }
    for (grid, name) in Grid::HALVES {
        let value = with(&grid.round(gain)?, &grid.round(bias)?)?;
        explained |= emit(&format!("gain and bias rounded to {name}"), &value)?;
    }
    Ok(explained)
}

fn others_weights(
    evidence: &Evidence<'_>,
    step: usize,
    norm: &Norm,
    x: &Tensor,
    emit: &mut Emit<'_>,
) -> Result<bool> {
    let mut explained = false;
    let is_norm = |op: &Op| matches!(op, Op::LayerNorm { .. });
    for step in evidence.others(step, "weight", norm.gain.dims(), is_norm) {
        let other = evidence.path(step);
        let (gain, bias) = (evidence.parameter(step, "weight")?, evidence.parameter(step, "bias")?);
        for (text, gain, bias) in
            [("gain and bias", &gain, &bias), ("gain", &gain, &norm.bias), ("bias", &norm.gain, &bias)]
        {
            let value = Norm { gain: gain.clone(), bias: bias.clone(), eps: norm.eps }.forward(x)?;
            explained |= emit(&format!("has the {text} of {other}"), &value)?;
        }
    }
    Ok(explained)
}
