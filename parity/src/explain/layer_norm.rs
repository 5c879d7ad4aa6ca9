//! LayerNorm.

use candle_bert::BertConfig;
use candle_core::{D, Result, Tensor};

use super::Evidence;
use super::formulas::{Grid, Norm, centred};
use super::trial::{Emit, Trial};

/// What exporters, frameworks and fusions put there.
const EPS: [f64; 9] = [0., 1e-5, 1e-6, 1e-12, 1e-7, 1e-8, 1e-3, 1e-4, 1e-10];

/// The LayerNorm of a module, such as `embeddings`.
pub(super) fn norm(evidence: &Evidence<'_>, module: &str) -> Result<Norm> {
    Ok(Norm {
        gain: evidence.weights.get(&format!("{module}.LayerNorm.weight"))?,
        bias: evidence.weights.get(&format!("{module}.LayerNorm.bias"))?,
        eps: evidence.config.layer_norm_eps,
    })
}

/// Everything that may be wrong with the LayerNorm of `module`, of the input `x`.
pub(super) fn variants(evidence: &Evidence<'_>, module: &str, x: &Tensor, trial: &mut Trial) -> Result<bool> {
    let norm = norm(evidence, module)?;
    let blamed = format!("{module}.LayerNorm");
    let estimate = estimate_eps(&norm, x, trial)?;
    let emit = &mut |text: &str, value: &Tensor| trial.offer(&blamed, text, value);
    let explained = other_eps(&norm, x, estimate, emit)? | other_parts(&norm, x, emit)?;
    Ok(explained || others_weights(evidence, &blamed, &norm, x, emit)?)
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
fn estimate_eps(norm: &Norm, x: &Tensor, trial: &Trial) -> Result<Option<f64>> {
    let rows = trial.at_deciding(x)?;
    let (centred, variance) = centred(&rows)?;
    let shape = centred.broadcast_mul(&norm.gain)?;
    let found = trial.at_deciding(&trial.found)?.broadcast_sub(&norm.bias)?;
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
    module: &str,
    norm: &Norm,
    x: &Tensor,
    emit: &mut Emit<'_>,
) -> Result<bool> {
    let BertConfig { hidden_size, .. } = evidence.config;
    let mut explained = false;
    let others = evidence.weights.modules("weight", &[*hidden_size]);
    for other in others.into_iter().filter(|other| *other != module) {
        let gain = evidence.weights.get(&format!("{other}.weight"))?;
        let bias = evidence.weights.get(&format!("{other}.bias"))?;
        for (text, gain, bias) in
            [("gain and bias", &gain, &bias), ("gain", &gain, &norm.bias), ("bias", &norm.gain, &bias)]
        {
            let value = Norm { gain: gain.clone(), bias: bias.clone(), eps: norm.eps }.forward(x)?;
            explained |= emit(&format!("has the {text} of {other}"), &value)?;
        }
    }
    Ok(explained)
}
