//! How a sublayer ends: LayerNorm(x + dense), in `….attention.output` and `….output`.

use candle_core::{Result, Tensor};

use super::trial::Trial;
use super::{Evidence, dense, layer_norm, layer_of};

/// The formula with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, module: &str) -> Result<Tensor> {
    let residual = evidence.tap(&source(module).unwrap_or_default())?;
    let sum = (evidence.tap(&format!("{module}.dense"))? + residual)?;
    layer_norm::norm(evidence, module)?.forward(&sum)
}

/// Where the residual comes from.
fn source(module: &str) -> Option<String> {
    let (layer, part) = layer_of(module)?;
    Some(match part {
        "attention.output" if layer == 0 => "embeddings".into(),
        "attention.output" => format!("encoder.layer.{}", layer - 1),
        _ => format!("encoder.layer.{layer}.attention"),
    })
}

/// `module` is one of the two.
pub(super) fn explain(evidence: &Evidence<'_>, module: &str, trial: &mut Trial) -> Result<()> {
    let Some(source) = source(module) else { return Ok(()) };
    let projection = format!("{module}.dense");
    let (dense, residual) = (evidence.tap(&projection)?, evidence.tap(&source)?);
    let norm = layer_norm::norm(evidence, module)?;
    let sum = (&dense + &residual)?;
    layer_norm::variants(evidence, module, &sum, trial)?;

    let normed = |x: &Tensor| norm.forward(x);
    let mut offer = |text: &str, value: &Tensor| trial.offer(module, text, value);
    let mut explained = offer("residual connection missing", &normed(&dense)?)?;
    explained |= offer("residual added twice", &normed(&(&sum + &residual)?)?)?;
    explained |= offer("only the residual is left, the sublayer is missing", &normed(&residual)?)?;
    explained |= offer("residual subtracted", &normed(&(&dense - &residual)?)?)?;
    explained |= offer("LayerNorm before the residual is added (pre-norm)", &(normed(&dense)? + &residual)?)?;
    explained |= offer("LayerNorm of the residual alone", &(normed(&residual)? + &dense)?)?;
    if explained || trial.is_explained() {
        return Ok(());
    }
    for other in evidence.neighbours(&source, residual.dims()) {
        let value = normed(&(evidence.tap(other)? + &dense)?)?;
        trial.offer(module, &format!("residual taken from {other}, not from {source}"), &value)?;
    }
    if trial.is_explained() || trial.module().ends_with("LayerNorm") {
        return Ok(());
    }
    dense::variants(evidence, &projection, &mut |text, value| {
        trial.offer(&projection, text, &norm.forward(&(value + &residual)?)?)
    })?;
    Ok(())
}
