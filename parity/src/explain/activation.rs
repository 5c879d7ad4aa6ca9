//! `encoder.layer.N.intermediate`: the activation.

use candle_bert::Activation;
use candle_core::{Result, Tensor};

use super::trial::{Emit, Trial};
use super::{Evidence, dense};

/// What people call them, beside config.json's names.
const ALL: [(Activation, &str); 7] = [
    (Activation::Gelu, "erf"),
    (Activation::GeluTanh, "tanh approximation"),
    (Activation::QuickGelu, "quick_gelu"),
    (Activation::Relu, "relu"),
    (Activation::Silu, "silu"),
    (Activation::GeluFast, "gelu_fast"),
    (Activation::Tanh, "tanh"),
];

pub(super) fn explain(evidence: &Evidence<'_>, layer: usize, trial: &mut Trial) -> Result<()> {
    let module = format!("encoder.layer.{layer}.intermediate");
    let dense = format!("{module}.dense");
    let act = evidence.config.hidden_act;
    if others(act, &evidence.tap(&dense)?, &mut |text, value| trial.offer(&module, text, value))? {
        return Ok(());
    }
    dense::variants(evidence, &dense, &mut |text, value| trial.offer(&dense, text, &act.forward(value)?))?;
    Ok(())
}

/// Every activation but `act`.
pub(super) fn others(act: Activation, x: &Tensor, emit: &mut Emit<'_>) -> Result<bool> {
    let mut explained = emit("activation left out", x)?;
    for (other, name) in ALL.into_iter().filter(|(other, _)| *other != act) {
        explained |= emit(&wording(act, other, name), &other.forward(x)?)?;
    }
    Ok(explained)
}

fn wording(act: Activation, other: Activation, name: &str) -> String {
    match (act, other) {
        (Activation::Gelu, Activation::GeluTanh) => format!("gelu = {name}"),
        (_, Activation::Gelu) => format!("activation is gelu ({name}), config.json says {act}"),
        (_, Activation::GeluTanh) => format!("activation is gelu ({name}), config.json says {act}"),
        _ => format!("activation is {name}, config.json says {act}"),
    }
}
