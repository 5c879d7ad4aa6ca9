//! Heads: what stands on the encoder for a task.

use candle_core::{Result, Tensor};

use super::trial::Trial;
use super::{Evidence, activation, dense, layer_norm, pooler};

/// Of a masked language model: act(W h + b), normalised.
pub(super) const TRANSFORM: &str = "cls.predictions.transform";

/// Whether this is one of the dense modules of a head.
pub(super) fn is_dense(module: &str) -> bool {
    ["classifier", "qa_outputs", "cls.seq_relationship", "cls.predictions.decoder"].contains(&module)
        || module.strip_prefix(TRANSFORM) == Some(".dense")
}

/// What a dense module after the encoder is given.
pub(super) fn input(evidence: &Evidence<'_>, module: &str) -> Result<Tensor> {
    match module {
        "pooler.dense" => pooler::token(evidence, 0),
        "cls.predictions.decoder" => evidence.tap(TRANSFORM),
        // Those over a text are of models with a pooler, and only those have one.
        "classifier" | "cls.seq_relationship" if evidence.taps.contains("pooler") => evidence.tap("pooler"),
        _ => evidence.hidden(evidence.config.num_hidden_layers),
    }
}

/// The transform of a masked language model, or its normalisation.
pub(super) fn explain_transform(evidence: &Evidence<'_>, trial: &mut Trial) -> Result<()> {
    let projection = format!("{TRANSFORM}.dense");
    let (projected, act) = (evidence.tap(&projection)?, evidence.config.hidden_act);
    let norm = layer_norm::norm(evidence, TRANSFORM)?;
    let explained = layer_norm::variants(evidence, TRANSFORM, &act.forward(&projected)?, trial)?
        || activation::others(act, &projected, &mut |text, value| {
            trial.offer(TRANSFORM, text, &norm.forward(value)?)
        })?;
    if !explained {
        dense::variants(evidence, &projection, &mut |text, value| {
            trial.offer(&projection, text, &norm.forward(&act.forward(value)?)?)
        })?;
    }
    Ok(())
}
